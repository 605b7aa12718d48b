//! What an engine has to tell while it works. It never prints: the command line decides what becomes words.

use std::sync::Arc;

use crate::value::exit::{Code, code_of};
use crate::value::position::{Position, Segment};
use crate::value::time::Time;

/// Something worth telling.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// A segment is being read.
    Processing(Segment),
    /// A receiver's place was found and proven.
    FoundPosition(Position),
    /// Everything that is there was sent (or received); the time of the last boundary, where known.
    UpToDate(Option<Time>),
    /// Bytes sent so far, and bytes still to send, as far as file sizes tell.
    Progress {
        /// Bytes of log sent by this process.
        sent: u64,
        /// Bytes that lie ahead.
        left: u64,
    },
    /// Something an operator should see though work goes on.
    Warning(String),
    /// Something that failed and is tried again.
    Trouble(Trouble),
    /// A detail for those who ask.
    Detail(String),
    /// A note about one of several receivers.
    Of(String, Box<Note>),
    /// Ready: the other end has been found.
    Ready,
    /// Alive: the main loop has come round.
    Alive,
}

/// What has failed though work goes on. It is shown as a warning; an operator may want to be called for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What the command would end with, did it not go on.
    pub code: Code,
    /// What has failed.
    pub text: String,
    /// What is done about it: `trying again in 2.0 s`.
    pub next: String,
    /// The site it is about, where that has a name.
    pub site: Option<String>,
}

impl Note {
    /// A failure, and what is done about it.
    pub fn trouble(error: &anyhow::Error, next: String) -> Note {
        Note::Trouble(Trouble { code: code_of(error), text: format!("{error:#}"), next, site: None })
    }
}

/// Where notes go.
pub type Monitor = Arc<dyn Fn(Note) + Send + Sync>;
