//! Other machines: a command for each, which prints `repl-status --json` of there. All are asked at once. One that does
//! not answer is told of as such, and takes nothing from the others.

use std::time::Duration;

use crate::edge::clock;
use crate::edge::hook::{Answer, Hook};
use crate::rule::status::judge::Alarm;
use crate::rule::status::{Part, Silent, What, json};
use crate::value::exit::Code;

/// Longest answer that is read.
const MOST: u64 = 4 << 20;

/// A machine that can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// What it is called here.
    pub name: String,
    /// What `/bin/sh -c` runs, such as `ssh venus repl-status --json /srv/db`.
    pub command: String,
}

/// Reads `NAME=COMMAND`.
pub fn parse_remote(text: &str) -> Result<Remote, String> {
    match text.split_once('=') {
        Some((name, command)) if !name.is_empty() && !command.trim().is_empty() => {
            Ok(Remote { name: name.to_owned(), command: command.to_owned() })
        }
        _ => Err(format!("'{text}' is not NAME=COMMAND")),
    }
}

/// Asks all of them; their answers in the same order.
pub(super) fn ask(remotes: &[Remote], timeout: Duration) -> Vec<Part> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = remotes.iter().map(|remote| scope.spawn(move || answer(remote, timeout))).collect();
        asked.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    })
}

fn answer(remote: &Remote, timeout: Duration) -> Vec<Part> {
    let hook = Hook { name: "ask", command: remote.command.clone(), timeout: Some(timeout) };
    let parts =
        hook.listen(&[], MOST).map_err(|error| format!("{error:#}")).and_then(|answer| judge(&answer, &remote.name));
    parts.unwrap_or_else(|error| {
        let silent = Silent { name: remote.name.clone(), error, code: Code::Link, alarm: Alarm::Critical };
        vec![Part { asked: Some(remote.name.clone()), ..Part::new(clock::now(), What::Silent(silent)) }]
    })
}

/// Its exit code says how it is there, so what it printed counts, whatever that is.
fn judge(answer: &Answer, name: &str) -> Result<Vec<Part>, String> {
    if answer.is_long {
        return Err(format!("its answer has more than {MOST} bytes"));
    }
    match json::parse(&answer.bytes, name) {
        Ok(parts) if parts.is_empty() => Err("it has nothing to tell".to_owned()),
        Ok(parts) => Ok(parts),
        Err(why) => Err(answer.words.clone().unwrap_or(format!("its answer is none of repl-status --json: {why}"))),
    }
}
