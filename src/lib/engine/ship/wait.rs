//! Answers `repl-wait` over a socket in the state directory: whoever asks is told the moment when the acknowledgement
//! arrives that makes it so.
//!
//! `now` is the log's end after the question was read. A writer that has committed before it asked finds its bytes before
//! that end, as far as its database has written them to the file.

use std::io::{ErrorKind, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use parking_lot::Mutex;

use super::board::{Board, Facts, Waited};
use super::source::Source;
use super::source::gauge::Gauge;
use crate::edge::dir::Dir;
use crate::edge::read::prefix;
use crate::edge::socket::{self, Listener};
use crate::engine::log;
use crate::engine::note::{Monitor, Note};
use crate::rule::asking::{Answer, LINE_MAX, Question, What};
use crate::rule::quorum::{Level, Policy};
use crate::rule::scheme::Scheme;
use crate::value::exit::{Code, code_of, fail};
use crate::value::position::Position;

/// The socket's name in the state directory.
pub const SOCKET: &str = "wait";
/// Who asks more than this at once is told to come again.
const MOST: usize = 512;
/// How often it is looked whether anybody still waits.
const LOOK: Duration = Duration::from_millis(250);
/// For how long it is looked again at log that may be on its way, and how often.
const DOUBT: Duration = Duration::from_secs(5);
const MOMENT: Duration = Duration::from_millis(50);
/// How long a question may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers questions about one log.
pub(super) struct Desk<'a> {
    board: &'a Board,
    dir: &'a Dir,
    scheme: &'a Scheme,
    /// Makes a reader, for `now`.
    open: &'a (dyn Fn() -> Result<Source> + Sync),
    /// The reader that finds the log's end.
    gauge: Mutex<Option<Source>>,
    asking: AtomicUsize,
}

impl<'a> Desk<'a> {
    /// Nobody asks yet.
    pub(super) fn new(
        board: &'a Board,
        dir: &'a Dir,
        scheme: &'a Scheme,
        open: &'a (dyn Fn() -> Result<Source> + Sync),
    ) -> Desk<'a> {
        Desk { board, dir, scheme, open, gauge: Mutex::new(None), asking: AtomicUsize::new(0) }
    }

    /// Answers until shipping has ended. That nobody can ask is no reason not to ship.
    pub(super) fn run(&self, state: &Dir, monitor: &Monitor) {
        let listener = match Listener::bind(state, SOCKET) {
            Ok(listener) => listener,
            Err(error) => return (monitor)(Note::Warning(format!("{error:#}; repl-wait cannot ask"))),
        };
        std::thread::scope(|scope| {
            while self.board.look(|facts| !facts.is_over) {
                match listener.accept(LOOK) {
                    Ok(Some(stream)) => {
                        scope.spawn(|| self.serve(stream));
                    }
                    Ok(None) => {}
                    // No descriptor, no memory: it may be better in a moment.
                    Err(error) => {
                        (monitor)(Note::Warning(format!("cannot let repl-wait ask: {error}")));
                        let _ = self.board.wait(Instant::now() + LOOK, |_| None::<()>);
                    }
                }
            }
        });
    }

    /// The log's end, as of now.
    pub(super) fn look(&self) -> Result<Option<Gauge>> {
        let mut gauge = self.gauge.lock();
        let source = match &mut *gauge {
            Some(source) => source,
            empty => empty.insert((self.open)()?),
        };
        source.gauge()
    }

    /// One who asks. When he has gone, or cannot be told, nobody is left to answer.
    fn serve(&self, stream: UnixStream) {
        let place = self.asking.fetch_add(1, Ordering::SeqCst);
        let answer = |answer: Answer| (&stream).write_all(format!("{answer}\n").as_bytes());
        let question = self.question(&stream);
        let last = match question {
            _ if place >= MOST => Some(Answer::Refuse(Code::Busy, "too many wait already".into())),
            Some(question) => self.answer(question, &stream, &answer),
            None if self.board.look(|facts| facts.is_over) => Some(ends()),
            None => Some(Answer::Refuse(Code::Usage, "that is no question of repl-wait".into())),
        };
        if let Some(last) = last {
            let _ = answer(last);
        }
        self.asking.fetch_sub(1, Ordering::SeqCst);
    }

    /// The question, if it comes in time and whole.
    fn question(&self, stream: &UnixStream) -> Option<Question> {
        stream.set_read_timeout(Some(LOOK)).and_then(|()| stream.set_write_timeout(Some(PATIENCE))).ok()?;
        let (deadline, mut line) = (Instant::now() + PATIENCE, Vec::new());
        while Instant::now() < deadline && line.len() < LINE_MAX && self.board.look(|facts| !facts.is_over) {
            let mut bytes = [0; LINE_MAX];
            match Read::read(&mut &*stream, &mut bytes) {
                Ok(0) => return None,
                Ok(count) => line.extend_from_slice(&bytes[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => return None,
            }
            if let Some(line) = line.strip_suffix(b"\n") {
                return std::str::from_utf8(line).ok().and_then(Question::parse);
            }
        }
        None
    }

    /// The log's end, as of now. Of a log that ends before the place where it has ended already nobody can say who has it:
    /// it has begun anew, or lost its tail, and what receivers have may be of before.
    fn end(&self) -> Result<Option<Position>> {
        // Asked first: it may grow while we look.
        let before = self.board.look(|facts| facts.end);
        let end = self.whole()?.map(|gauge| gauge.end);
        match before {
            Some(before) if end < Some(before) => {
                let end = end.map_or_else(|| "nowhere".to_owned(), |end| end.to_string());
                fail(
                    Code::Diverged,
                    format!("the log ends at {end}, and has ended at {before} before: it is another one"),
                )
            }
            _ => Ok(end),
        }
    }

    /// The log's end with all that was written before it. Where that cannot be read nobody can say who has it.
    fn whole(&self) -> Result<Option<Gauge>> {
        let (deadline, mut reaches) = (Instant::now() + DOUBT, None);
        loop {
            let gauge = self.look()?;
            let Some(damage) = gauge.as_ref().and_then(|gauge| gauge.damage.as_ref()) else {
                return Ok(gauge);
            };
            if !damage.may_pass || Instant::now() >= deadline {
                return fail(Code::Corrupt, damage.text.clone());
            }
            // What was on its way is there, though by now more is.
            if gauge.as_ref().map(|gauge| gauge.end) > *reaches.get_or_insert(Some(damage.reaches)) {
                return Ok(gauge);
            }
            if let Waited::Over = self.board.wait(Instant::now() + MOMENT, |_| None::<()>) {
                return fail(Code::Link, "repl-ship ends");
            }
        }
    }

    /// What is waited for. A proof that is not of this log is an error; of a segment that is not here any more none can
    /// be had, and the receivers have proven that one.
    fn place(&self, what: What) -> Result<Option<Position>> {
        let mark = match what {
            What::Now => return self.end(),
            What::At(mark) => mark,
        };
        let Position { segment, offset } = mark.position;
        let newest = self.look()?.map(|gauge| gauge.end.segment);
        if let Some(newest) = newest
            && log::before_fork(self.dir, self.scheme, mark.position, newest.generation)? != Some(mark.position)
        {
            let text = format!("{} is of a history that was left: the log goes on with {newest}", mark.position);
            return fail(Code::Diverged, text);
        }
        if let (Some(proof), Some((file, name))) = (mark.proof, log::open(self.dir, self.scheme, segment)?) {
            let running = prefix(&file, self.scheme.running(), offset)?;
            let is_all = running.length() == offset;
            if (is_all && running.digest().proof() != proof) || (!is_all && Some(segment) < newest) {
                return fail(Code::Diverged, format!("{} is not what {mark} is a proof of", self.dir.shown(&name)));
            }
        }
        Ok(Some(mark.position))
    }

    fn answer(
        &self,
        question: Question,
        stream: &UnixStream,
        answer: &dyn Fn(Answer) -> std::io::Result<()>,
    ) -> Option<Answer> {
        let at = match self.place(question.what) {
            Ok(at) => at,
            Err(error) => return Some(Answer::Refuse(code_of(&error), format!("{error:#}"))),
        };
        answer(Answer::At(at)).ok()?;
        let Some(at) = at else {
            return Some(Answer::Done);
        };
        while !socket::is_gone(stream) {
            let policy = |facts: &Facts| question.policy.unwrap_or(facts.policy);
            let verdict = |facts: &Facts| judge(facts, policy(facts), question.level, at);
            match self.board.wait(Instant::now() + LOOK, verdict) {
                Waited::So(answer) => return Some(answer),
                Waited::Not => {}
                Waited::Over => return Some(ends()),
            }
        }
        None
    }
}

fn ends() -> Answer {
    Answer::Refuse(Code::Link, "repl-ship ends".into())
}

/// What there is to say now, if anything.
fn judge(facts: &Facts, policy: Policy, level: Level, at: Position) -> Option<Answer> {
    if facts.confirmed(policy, level).has(at) {
        return Some(Answer::Done);
    }
    if let Some(why) = facts.never(policy) {
        return Some(Answer::Refuse(Code::Usage, why));
    }
    let is_vain = level == Level::Applied && !facts.may_apply();
    is_vain.then(|| Answer::Refuse(Code::Usage, "no site feeds a database, so nothing is ever applied".into()))
}
