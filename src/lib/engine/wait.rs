//! Waits until receivers have log: asks the `repl-ship` that runs, which tells as soon as it is so.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::ship::wait::SOCKET;
use crate::edge::dir::Dir;
use crate::edge::socket;
use crate::rule::asking::{Answer, LINE_MAX, Question};
use crate::value::exit::{Code, Failure, fail};
use crate::value::position::Position;

/// How long a sender may take to say what is waited for: it may have to read a segment first.
const PATIENCE: Duration = Duration::from_secs(60);
/// The least time for an answer that is there already.
const LEAST: Duration = Duration::from_millis(20);

/// What was waited for, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Waited {
    /// Nothing where there is no log.
    pub at: Option<Position>,
    /// From the question to the answer.
    pub time: Duration,
}

/// Asks the sender that keeps this state directory. Not in time is exit code 10; no sender, or one that goes away, is 8.
pub fn run(state: &Dir, question: &Question, timeout: Duration) -> Result<Waited> {
    let stream = socket::connect(state, SOCKET).map_err(|_| nobody(state))?;
    let began = Instant::now();
    (&stream).write_all(format!("{question}\n").as_bytes()).context("cannot ask repl-ship")?;
    let mut lines = BufReader::new(&stream);
    let at = match next(&mut lines, &stream, PATIENCE)? {
        Some(Answer::At(at)) => at,
        Some(answer) => return judge(answer, None, began),
        None => return fail(Code::Link, "repl-ship does not say where its log ends"),
    };
    match next(&mut lines, &stream, timeout.max(LEAST))? {
        Some(answer) => judge(answer, at, began),
        None => {
            let at = at.map(|at| at.to_string()).unwrap_or_default();
            let policy = question.policy.map_or_else(|| "repl-ship's policy".to_owned(), |policy| policy.to_string());
            let (level, seconds) = (question.level, timeout.as_secs_f64());
            let text = format!("{at} is not {level} by {policy} after {seconds} s; it may come yet");
            Err(Failure::new(Code::Unconfirmed, text).hint("repl-status says which site is behind, and why").into())
        }
    }
}

/// What to do where no sender answers.
pub const START_HINT: &str = "start repl-ship, or name its state directory with --state";

fn nobody(state: &Dir) -> anyhow::Error {
    let text = format!("no repl-ship runs with its state in {}", state.path().display());
    Failure::new(Code::Link, text).hint(START_HINT).into()
}

fn judge(answer: Answer, at: Option<Position>, began: Instant) -> Result<Waited> {
    match answer {
        Answer::Done => Ok(Waited { at, time: began.elapsed() }),
        Answer::Refuse(code, text) => fail(code, text),
        Answer::At(_) => fail(Code::Link, "repl-ship answers what was not asked"),
    }
}

/// The next line of the answer; `None` when it does not come in time.
fn next(lines: &mut BufReader<&UnixStream>, stream: &UnixStream, patience: Duration) -> Result<Option<Answer>> {
    stream.set_read_timeout(Some(patience)).context("cannot wait")?;
    let mut line = String::new();
    match lines.take(LINE_MAX as u64).read_line(&mut line) {
        Ok(0) => fail(Code::Link, "repl-ship went away"),
        Ok(_) => match Answer::parse(line.trim_end_matches('\n')) {
            Some(answer) => Ok(Some(answer)),
            None => fail(Code::Link, format!("repl-ship answers '{}'", line.trim_end())),
        },
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(None),
        Err(error) => Err(error).context(Failure::new(Code::Link, "cannot hear repl-ship")),
    }
}
