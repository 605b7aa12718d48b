//! What `repl-status` tells: senders with their sites, receivers, and machines that were asked. The state files are read
//! into values here ([`sender`], [`receiver`], [`past`]), [`judge`] says what they mean, and there is one file for each
//! form in which that is printed.
//!
//! Ages are taken between two readings of the same machine's clock: a [`Part`] has the time at which it was looked at
//! where it lies, so that clocks of two machines never meet.

pub mod html;
pub mod json;
pub mod judge;
pub mod nagios;
pub mod past;
pub mod prometheus;
pub mod receiver;
pub mod sender;
pub mod stamp;
pub mod table;

use self::judge::{Alarm, Judged, Limits};
use self::past::{Event, Sample};
use self::receiver::Receiver;
use self::sender::Sender;
use crate::rule::config::secret::{Apart, mask};
use crate::value::exit::Code;
use crate::value::time::Time;

/// All that was found.
#[derive(Clone, Debug)]
pub struct Report {
    /// When it was looked at, here.
    pub time: Time,
    /// What is too old or too far behind.
    pub limits: Limits,
    /// Each thing that was found, in the order in which it was asked for.
    pub parts: Vec<Part>,
}

/// One thing that was found.
#[derive(Clone, Debug)]
pub struct Part {
    /// The machine that was asked for it; `None` for what lies here.
    pub asked: Option<String>,
    /// When it was looked at, by the clock of the machine where it lies.
    pub time: Time,
    /// The thing.
    pub what: What,
    /// What was done there, oldest first.
    pub events: Vec<Event>,
    /// How far its sites were behind, oldest first.
    pub samples: Vec<Sample>,
}

/// See [`Part`].
#[derive(Clone, Debug)]
pub enum What {
    /// A `repl-ship`, by its state directory.
    Sender(Box<Sender>),
    /// A directory in which log is received.
    Receiver(Box<Receiver>),
    /// Nothing could be told.
    Silent(Silent),
}

/// A thing of which nothing could be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silent {
    /// What was asked: a path, or a machine's name.
    pub name: String,
    /// Why there is no answer.
    pub error: String,
    /// The same as an exit code.
    pub code: Code,
    /// How loud that is: a state that is not there is as unknown as a stale one, a machine that fails to answer is red.
    pub alarm: Alarm,
}

impl Part {
    /// A part without a past.
    pub fn new(time: Time, what: What) -> Part {
        Part { asked: None, time, what, events: Vec::new(), samples: Vec::new() }
    }

    /// What a person calls it: the set, or else the directory, with the machine that was asked.
    pub fn title(&self) -> String {
        let (set, dir) = match &self.what {
            What::Sender(sender) => (&sender.set, first(&sender.logdir, &sender.state_dir)),
            What::Receiver(receiver) => (&receiver.set, first(&receiver.dir, &receiver.state_dir)),
            What::Silent(silent) => (&silent.name, silent.name.as_str()),
        };
        let name = first(set, dir);
        match &self.asked {
            Some(asked) if asked != name => format!("{asked}: {name}"),
            _ => name.to_owned(),
        }
    }

    /// Leaves out what may be a secret. A receiver without a name is called by its command, and state files have that to the
    /// letter: nothing of a part may be shown, or sent to another machine, before this.
    pub fn mask(&mut self) {
        let (mut names, mut receivers) = (Apart::default(), Apart::default());
        let dropped = match &mut self.what {
            What::Sender(sender) => {
                for site in &mut sender.sites {
                    (site.name, site.receiver) = (names.mask(&site.name), receivers.mask(&site.receiver));
                }
                &mut sender.dropped
            }
            What::Receiver(receiver) => &mut receiver.dropped,
            What::Silent(_) => return,
        };
        for who in dropped.iter_mut().flat_map(|gap| &mut gap.who) {
            let receiver = who.strip_prefix("receiver '").and_then(|who| who.strip_suffix('\''));
            *who = receiver.map_or_else(|| mask(who), |receiver| format!("receiver '{}'", receivers.mask(receiver)));
        }
        for sample in &mut self.samples {
            let sites = std::mem::take(&mut sample.sites);
            sample.sites = sites.into_iter().map(|(name, lag)| (names.mask(&name), lag)).collect();
        }
    }

    /// The verdicts on it: that on the whole first, then one for each site.
    pub fn judged(&self, limits: &Limits) -> Vec<Judged> {
        match &self.what {
            What::Sender(sender) => {
                let own = judge::sender(sender, self.time, limits);
                let sites = sender.sites.iter().map(|site| judge::site(sender, site, self.time, limits));
                std::iter::once(own).chain(sites).collect()
            }
            What::Receiver(receiver) => vec![judge::receiver(receiver, self.time, limits)],
            What::Silent(silent) => vec![judge::silent(silent)],
        }
    }
}

/// The first of two texts, unless it is empty.
fn first<'a>(one: &'a str, other: &'a str) -> &'a str {
    if one.is_empty() { other } else { one }
}

impl Report {
    /// The worst of all: what decides the exit code, with what it is said of. `None` when nothing was found.
    pub fn worst(&self) -> Option<(Judged, String)> {
        let of = |part: &Part| {
            let title = part.title();
            part.judged(&self.limits).into_iter().map(move |judged| (judged, title.clone())).collect::<Vec<_>>()
        };
        self.parts.iter().flat_map(of).reduce(|worst, next| if next.0.rank() > worst.0.rank() { next } else { worst })
    }

    /// The worst alarm.
    pub fn alarm(&self) -> Alarm {
        let all = self.parts.iter().flat_map(|part| part.judged(&self.limits));
        all.map(|judged| judged.alarm).max().unwrap_or(Alarm::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::receiver::Session;
    use super::table::Detail;
    use super::*;
    use std::time::Duration;

    const REPORT: &[u8] = include_bytes!("../../../tests/data/status-report-v1.json");
    const SENDER: &[u8] = include_bytes!("../../../tests/data/status-sender-v1.json");
    const SESSION: &[u8] = include_bytes!("../../../tests/data/status-receiver-v1.json");

    /// Each form of whatever these bytes are read as; how much that was.
    fn print(bytes: &[u8]) -> usize {
        let time = Time::from_seconds(1_795_407_001);
        let mut parts = json::parse(bytes, "venus").unwrap_or_default();
        parts.extend(Sender::parse(bytes).ok().map(|sender| Part::new(time, What::Sender(Box::new(sender)))));
        let receiver = |session| Box::new(Receiver { session: Some(session), ..Receiver::default() });
        parts.extend(Session::parse(bytes).ok().map(|session| Part::new(time, What::Receiver(receiver(session)))));
        let report = Report { time, limits: Limits::default(), parts };
        assert_eq!(nagios::render(&report).lines().count(), 1);
        let shown = [table::render(&report, Detail::Full), html::render(&report, Duration::from_secs(86_400))];
        assert!(shown.iter().all(|text| text.lines().all(|line| !line.contains(char::is_control))));
        assert!(!shown[1].contains("<script") && shown[1].ends_with("</html>\n"));
        prometheus::render(&report);
        json::parse(json::render(&report).as_bytes(), "mars").unwrap();
        report.parts.len()
    }

    #[test]
    fn whatever_a_state_file_holds_every_form_is_printed_of_it() {
        // What ends a text or a number, or makes another one of it.
        const WRITTEN: &[u8] = b"9\"-\\<}]e{[,nu:";
        for sample in [REPORT, SENDER, SESSION] {
            assert!(print(sample) > 0);
            let mut taken = 0;
            // Not all places: printing is slow in a test. Each byte comes to stand in many of them.
            let places: Vec<usize> = (0..sample.len()).step_by(11).collect();
            for (number, &at) in places.iter().enumerate() {
                let mut damaged = sample.to_vec();
                damaged[at] = WRITTEN[number % WRITTEN.len()];
                taken += usize::from(print(&damaged) > 0);
            }
            print(&sample[..sample.len() / 2]);
            assert!(taken > 0 && taken < places.len(), "some are read as something else, and some not at all");
        }
    }
}
