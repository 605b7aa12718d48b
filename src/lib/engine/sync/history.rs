//! What was done to a destination, when and why: one JSON object a line, in its state directory.

use anyhow::Result;
use serde_json::Value;

use crate::edge::dir::Dir;
use crate::edge::journal::Journal;

/// Its name there.
pub const FILE: &str = "history.jsonl";

/// Adds a line, durably.
pub fn add(state: &Dir, what: &Value) -> Result<()> {
    let mut journal = Journal::open(state, FILE, |_| true)?;
    journal.append(&format!("{what}\n"))?;
    journal.sync()
}
