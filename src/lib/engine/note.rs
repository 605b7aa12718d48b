//! What an engine has to tell while it works. It never prints: the command line decides what becomes words.

use std::sync::Arc;

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
    /// A detail for those who ask.
    Detail(String),
    /// A note about one of several receivers.
    Of(String, Box<Note>),
    /// Ready: the other end has been found.
    Ready,
    /// Alive: the main loop has come round.
    Alive,
}

/// Where notes go.
pub type Monitor = Arc<dyn Fn(Note) + Send + Sync>;
