//! Turns the notes of an engine into words, a progress bar, and messages to systemd.

use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;
use sd_notify::NotifyState;

use super::args::Talk;
use super::voice::{Level, Message, is_for_programs};
use crate::engine::note::{Monitor, Note, Trouble};

/// Below this a catch-up is over before a bar could be read.
const WORTH_A_BAR: u64 = 16 << 20;

/// A monitor that talks as it was told.
pub fn monitor(command: &'static str, talk: &Talk) -> Monitor {
    let (verbose, quiet) = (talk.verbose, talk.quiet);
    let bar = Bar::new(quiet || verbose || is_for_programs());
    let service = Service::new();
    let told = Mutex::new(String::new());
    Arc::new(move |note| {
        service.tell(&note);
        let (site, note) = match note {
            Note::Of(site, note) => (Some(site), *note),
            note => (None, note),
        };
        match note {
            Note::Warning(_) | Note::Trouble(_) if quiet => {}
            Note::Warning(text) => {
                bar.suspend(|| Message { site: site.as_deref(), ..Message::new(Level::Warning, &text) }.say(command));
            }
            Note::Trouble(trouble) => bar.suspend(|| warn(command, &trouble)),
            Note::Progress { sent, left } => bar.show(sent, left),
            note if verbose => tell_once(command, &told, site.as_deref(), note),
            _ => {}
        }
    })
}

/// Says a note unless it would repeat the line before: a busy log is up to date many times in a second.
fn tell_once(command: &str, told: &Mutex<String>, site: Option<&str>, note: Note) {
    let Some(text) = words(&note) else {
        return;
    };
    let mut told = told.lock();
    let now = format!("{}\n{text}", site.unwrap_or_default());
    if *told != now {
        Message { site, ..message(&note, &text) }.say(command);
        *told = now;
    }
}

fn words(note: &Note) -> Option<String> {
    Some(match note {
        Note::Processing(segment) => format!("processing {segment}"),
        Note::FoundPosition(at) => format!("found synchronization point {at}"),
        Note::UpToDate(Some(time)) => format!("up to date until {}", time.narrate()),
        Note::UpToDate(None) => "up to date".to_owned(),
        Note::Detail(text) => text.clone(),
        Note::Progress { .. } | Note::Warning(_) | Note::Trouble(_) | Note::Of(..) | Note::Ready | Note::Alive => {
            return None;
        }
    })
}

/// The words of a note, with what they are about.
fn message<'a>(note: &Note, text: &'a str) -> Message<'a> {
    match note {
        Note::Processing(segment) => Message { segment: Some(*segment), ..Message::new(Level::Info, text) },
        Note::FoundPosition(at) => {
            Message { segment: Some(at.segment), position: Some(*at), ..Message::new(Level::Info, text) }
        }
        Note::Detail(_) => Message::new(Level::Debug, text),
        _ => Message::new(Level::Info, text),
    }
}

/// Says what has failed and is tried again.
fn warn(command: &str, trouble: &Trouble) {
    let Trouble { code, text, next, site } = trouble;
    let (text, code) = (format!("{text}; {next}"), Some((*code as u8, *code)));
    Message { code, site: site.as_deref(), ..Message::new(Level::Warning, &text) }.say(command);
}

/// A progress bar, on a terminal only, while there is much to catch up.
struct Bar(Option<ProgressBar>);

impl Bar {
    fn new(is_off: bool) -> Bar {
        if is_off || !rustix::termios::isatty(rustix::stdio::stderr()) {
            return Bar(None);
        }
        let bar = ProgressBar::hidden();
        let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Bar(Some(bar))
    }

    fn show(&self, sent: u64, left: u64) {
        let Some(bar) = &self.0 else {
            return;
        };
        if left == 0 {
            bar.finish_and_clear();
            bar.set_draw_target(ProgressDrawTarget::hidden());
        } else if left >= WORTH_A_BAR || !bar.is_hidden() {
            if bar.is_hidden() {
                bar.set_draw_target(ProgressDrawTarget::stderr());
            }
            bar.set_length(sent + left);
            bar.set_position(sent);
        }
    }

    fn suspend(&self, say: impl FnOnce()) {
        match &self.0 {
            Some(bar) => bar.suspend(say),
            None => say(),
        }
    }
}

/// systemd's notification socket, where there is one: ready, and alive.
struct Service {
    watchdog: Option<(Duration, Mutex<Instant>)>,
}

impl Service {
    fn new() -> Service {
        let period = sd_notify::watchdog_enabled().map(|period| period / 4);
        Service { watchdog: period.map(|period| (period, Mutex::new(Instant::now()))) }
    }

    fn tell(&self, note: &Note) {
        // Without systemd these do nothing; with it, a lost message is systemd's to notice.
        match note {
            Note::Ready => {
                let _ = sd_notify::notify(&[NotifyState::Ready]);
            }
            Note::Alive | Note::Progress { .. } => {
                if let Some((period, last)) = &self.watchdog {
                    let mut last = last.lock();
                    if last.elapsed() >= *period {
                        *last = Instant::now();
                        let _ = sd_notify::notify(&[NotifyState::Watchdog]);
                    }
                }
            }
            _ => {}
        }
    }
}
