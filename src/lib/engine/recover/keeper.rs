//! A server of our own, kept by a shell of our own: nobody else can reach it, and it ends with us, whatever ends us, since
//! the shell sees the end of its input then.

use anyhow::{Context as _, Result};

use super::Work;
use super::scratch::LONG;
use crate::edge::coprocess::Coprocess;
use crate::edge::program::Program;
use crate::value::exit::{Code, fail};

/// Behind a script with the functions `serve`, which becomes the server, and `is_up`, and with the signals `stop` and `end`.
/// Says `up` when the server is up, and `down` when it has ended well. At a word it is stopped. The end of the input is its
/// end at once, told until it is heard, since a server that only begins to start may not: all of it is done anew then.
const KEEP: &str = r"
trap '' PIPE HUP INT TERM
exec 3<&0
(trap - PIPE HUP INT TERM; serve) </dev/null >&2 3<&- &
server=$!
(read -r word <&3 && kill -$stop $server && exit; while kill -$end $server; do sleep 0.2; done) 2>/dev/null &
keeper=$!
until is_up; do
    kill -0 $server 2>/dev/null || break
    sleep 0.05
done
if kill -0 $server 2>/dev/null; then echo up; fi
wait $server
status=$?
kill $keeper 2>/dev/null
[ $status = 0 ] && echo down
exit $status
";

/// See the module.
pub(super) struct Keeper(Coprocess);

impl Keeper {
    /// Starts a server by the script that tells of it.
    pub(super) fn start(work: &Work<'_>, script: &str, values: &[(&str, String)]) -> Result<Keeper> {
        let program =
            Program { user: work.user.clone(), ..Program::new("/bin/sh", ["-c", &format!("{script}{KEEP}")], LONG) };
        Coprocess::start(&program, values).map(Keeper)
    }

    /// Waits until it is up, or has ended well by itself: whether it is up.
    pub(super) fn is_up(&mut self) -> Result<bool> {
        match self.0.hear().context("the server does not come up")?.as_str() {
            "up" => Ok(true),
            "down" => Ok(false),
            said => fail(Code::Hook, format!("the server's shell says {said}")),
        }
    }

    /// Stops it.
    pub(super) fn stop(&mut self) -> Result<()> {
        match self.0.ask("stop").context("the recovered server did not end well")?.as_str() {
            "down" => Ok(()),
            said => fail(Code::Hook, format!("the recovered server did not end well: {said}")),
        }
    }

    /// Waits for the end of all of it.
    pub(super) fn finish(self) -> Result<()> {
        self.0.finish().context("the recovered server did not end well")
    }
}
