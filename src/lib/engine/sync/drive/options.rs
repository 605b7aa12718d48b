//! What is asked of a sync, and what it did.

use std::time::Duration;

use crate::engine::sync::ledger::Counts;
use crate::engine::sync::pass::Manner;
use crate::engine::sync::purpose::Purpose;
use crate::engine::sync::server::Commands;
use crate::rule::sync::filter::Filter;

/// How the new content comes into its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Built beside it and exchanged.
    Stage,
    /// Changed blocks go through a redo journal.
    InPlace,
}

/// What is asked of a sync.
#[derive(Clone, Debug)]
pub struct Options {
    /// What for.
    pub purpose: Purpose,
    /// How; `None` for what fits.
    pub mode: Option<Mode>,
    /// What takes part, as the operator says.
    pub filter: Filter,
    /// How passes go about it.
    pub manner: Manner,
    /// Bytes of a page; `None` for the engine's.
    pub page: Option<usize>,
    /// Each change is told.
    pub is_itemized: bool,
    /// How far it is is told.
    pub shows_progress: bool,
    /// Why, for the history.
    pub reason: Option<String>,
    /// A source without anything is taken for what it is.
    pub allows_empty: bool,
    /// The operator has said which kind of database it is.
    pub is_engine_told: bool,
    /// Whatever the destination holds is overwritten.
    pub adopts: bool,
    /// The old tree is kept for a rollback.
    pub keeps_old: bool,
    /// The destination's parents are made.
    pub makes_path: bool,
    /// Hot passes are repeated until the down time is predicted to be shorter.
    pub max_downtime: Option<Duration>,
    /// Whether the operator has the source frozen.
    pub freezes: bool,
    /// The destination's server.
    pub commands: Commands,
}

/// What a sync did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The kind of database.
    pub engine: String,
    /// Names and bytes.
    pub counts: Counts,
    /// How many passes.
    pub passes: u64,
    /// How the new content came into its place; `None` where nothing was to be changed.
    pub mode: Option<&'static str>,
    /// From the stop of the server to its start.
    pub downtime: Option<Duration>,
    /// Bytes that came while the server was down.
    pub last_literal: u64,
    /// From where on the copy needs log.
    pub position: Option<String>,
    /// All of it.
    pub took: Duration,
    /// Bytes on the wire, sent and received by the end that has the destination.
    pub wire: (u64, u64),
}
