//! How words leave for standard error: as text or as JSON, with a priority where systemd's journal listens.
//!
//! A line leaves in one write, and as JSON it is never longer than what a pipe takes as one piece: several processes of a
//! pipeline share one standard error, and a reader that parses lines must never meet two that are mixed. The format is
//! needed before the command line is understood, since that may be what is wrong with it; so until one is chosen, it is
//! the one that the words of the command line ask for.

use std::ffi::OsString;
use std::io::Write as _;
use std::sync::OnceLock;

use clap::{ArgMatches, Args, ValueEnum};
use serde::Serialize;

use crate::edge::clock;
use crate::value::escape::show;
use crate::value::exit::Code;
use crate::value::position::{Position, Segment};

/// The longest line of JSON, with its line end: what a pipe takes as one piece (`PIPE_BUF`).
const LONGEST: usize = 4096;
/// What of it is for the keys and short values, for a hint, for a site's name, and for the message.
const KEYS: usize = 480;
const HINT: usize = 700;
const SITE: usize = 300;
const MESSAGE: usize = LONGEST - KEYS - HINT - SITE;
/// Where it is cut.
const CUT: &str = "...";

const FLAG: &str = "--log-format";
const VARIABLE: &str = "REPL_OPT_LOG_FORMAT";

/// The format of messages.
#[derive(Args, Clone, Debug, Default)]
pub struct Words {
    /// Messages on standard error: text, or json, an object on each line [default: auto, which is text]
    #[arg(long, value_name = "FORMAT", value_enum, global = true)]
    pub log_format: Option<Format>,
}

/// What a message looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// As text
    Auto,
    /// Lines for people
    Text,
    /// An object on each line
    Json,
}

/// How much a message matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The command ends with it.
    Error,
    /// An operator should see it, though work goes on.
    Warning,
    /// What is done.
    Info,
    /// A detail for those who ask.
    Debug,
}

/// A message, with what is known of it beside its words.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// How much it matters.
    pub level: Level,
    /// One line of words. They may be foreign: they are made harmless here.
    pub text: &'a str,
    /// The exit code that it ends with, or would end with, and its name in the register.
    pub code: Option<(u8, Code)>,
    /// What to do.
    pub hint: Option<&'a str>,
    /// The site it is about.
    pub site: Option<&'a str>,
    /// The segment it is about.
    pub segment: Option<Segment>,
    /// The position it is about.
    pub position: Option<Position>,
}

impl<'a> Message<'a> {
    /// Words and nothing else.
    pub fn new(level: Level, text: &'a str) -> Message<'a> {
        Message { level, text, code: None, hint: None, site: None, segment: None, position: None }
    }

    /// Says it, as this command.
    pub fn say(&self, command: &str) {
        let priority = if is_journal() { self.level.priority() } else { "" };
        let lines = match format() {
            Format::Json => format!("{priority}{}\n", self.json(command)),
            Format::Auto | Format::Text => self.lines(command, priority),
        };
        // When standard error is gone there is nobody to tell; the exit code remains.
        let _ = std::io::stderr().lock().write_all(lines.as_bytes());
    }

    fn lines(&self, command: &str, priority: &str) -> String {
        let hint = self.hint.map(|hint| format!("{priority}hint: {}\n", show(hint)));
        let site = self.site.map(|site| format!("{}: ", show(site))).unwrap_or_default();
        format!("{priority}{command}: {site}{}\n{}", show(self.text), hint.unwrap_or_default())
    }

    fn json(&self, command: &str) -> String {
        let object = Object {
            v: 1,
            time: clock::now().to_string(),
            level: self.level,
            command,
            pid: std::process::id(),
            message: fit(self.text, MESSAGE),
            code: self.code.map(|(number, _)| number),
            name: self.code.map(|(_, code)| code.name()),
            hint: self.hint.map(|hint| fit(hint, HINT)),
            site: self.site.map(|site| fit(site, SITE)),
            segment: self.segment.map(|segment| segment.to_string()),
            position: self.position.map(|position| position.to_string()),
        };
        // Numbers and text only: it cannot fail.
        serde_json::to_string(&object).unwrap_or_default()
    }
}

/// A line, its keys in the order of the manual.
#[derive(Serialize)]
struct Object<'a> {
    v: u8,
    time: String,
    level: Level,
    command: &'a str,
    pid: u32,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    site: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    segment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<String>,
}

/// The words as text has them, cut where they would take more than so many bytes of JSON.
fn fit(text: &str, most: usize) -> String {
    let shown = show(text);
    // Without control characters, these two alone grow.
    let length = |ch: char| if matches!(ch, '"' | '\\') { 2 } else { ch.len_utf8() };
    if shown.chars().map(length).sum::<usize>() <= most {
        return shown;
    }
    let mut left = most - CUT.len();
    let kept = shown.chars().take_while(|ch| {
        let fits = length(*ch) <= left;
        left = left.saturating_sub(length(*ch));
        fits
    });
    kept.collect::<String>() + CUT
}

impl Level {
    /// As sd-daemon(3) has them.
    fn priority(self) -> &'static str {
        match self {
            Level::Error => "<3>",
            Level::Warning => "<4>",
            Level::Info => "<6>",
            Level::Debug => "<7>",
        }
    }
}

static CHOSEN: OnceLock<Format> = OnceLock::new();

/// From now on messages have the format that was understood, wherever it came from; a second choice changes nothing.
pub fn choose(matches: &ArgMatches) {
    if let Ok(Some(format)) = matches.try_get_one::<Format>("log_format") {
        let _ = CHOSEN.set(*format);
    }
}

/// Whether those who listen take lines of ours only: no bar, and no page of usage.
pub fn is_for_programs() -> bool {
    format() == Format::Json || is_journal()
}

fn format() -> Format {
    CHOSEN.get().copied().unwrap_or_else(|| asked(std::env::args_os().skip(1), std::env::var_os(VARIABLE)))
}

/// The format that a command line asks for, else a variable; text, when neither is right.
fn asked(words: impl Iterator<Item = OsString>, variable: Option<OsString>) -> Format {
    let words = words.take_while(|word| word != "--").map(|word| word.to_string_lossy().into_owned());
    let mut words = words.skip_while(|word| !word.starts_with(FLAG));
    let given = words.next().and_then(|word| match word.strip_prefix(FLAG) {
        Some("") => words.next(),
        Some(value) => value.strip_prefix('=').map(str::to_owned),
        None => None,
    });
    let given = given.or_else(|| Some(variable?.to_string_lossy().into_owned()));
    given.and_then(|given| Format::from_str(&given, false).ok()).unwrap_or(Format::Auto)
}

/// Whether standard error is the stream that systemd's journal reads. The variable alone is inherited by those whose
/// standard error is a terminal or a file, which must not see priorities.
fn is_journal() -> bool {
    static IS: OnceLock<bool> = OnceLock::new();
    *IS.get_or_init(|| {
        let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
        let ours = rustix::fs::fstat(rustix::stdio::stderr());
        ours.is_ok_and(|ours| named == format!("{}:{}", ours.st_dev, ours.st_ino))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_asked_for_on_the_command_line_or_by_the_environment() {
        let asked = |line: &str, variable: Option<&str>| {
            asked(line.split_whitespace().map(OsString::from), variable.map(OsString::from))
        };
        assert_eq!(asked("-v --log-format json dir", None), Format::Json);
        assert_eq!(asked("--log-format=json dir", Some("text")), Format::Json);
        assert_eq!(asked("--log-format text", Some("json")), Format::Text);
        assert_eq!(asked("--nothing", Some("json")), Format::Json);
        for line in ["", "--log-format", "--log-format xml", "-- --log-format json", "--log-formats json"] {
            assert_eq!(asked(line, None), Format::Auto, "{line}");
        }
    }

    #[test]
    fn a_line_of_json_is_one_line_and_fits_a_pipe_whatever_it_says() {
        for text in ["a\nb\u{7}\x1b[31m\"\\", "\u{0}", "\"", "\\", "\u{10ffff}", "é", "\n", "\u{202e}"] {
            let text = text.repeat(5000);
            let position = Position { segment: Segment { generation: u64::MAX, sequence: u64::MAX }, offset: u64::MAX };
            let message = Message {
                code: Some((10, Code::Unconfirmed)),
                hint: Some(&text),
                site: Some(&text),
                segment: Some(position.segment),
                position: Some(position),
                ..Message::new(Level::Warning, &text)
            };
            let line = message.json("repl-recover");
            assert!("<4>".len() + line.len() < LONGEST && !line.contains(char::is_control), "{}", line.len());
            let read: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert!(read["message"].as_str().unwrap().ends_with(CUT), "{read}");
        }
    }

    #[test]
    fn a_message_says_the_same_in_both_formats() {
        let message = Message {
            code: Some((6, Code::Corrupt)),
            hint: Some("look"),
            ..Message::new(Level::Error, "a\n\"b\": c\\d")
        };
        assert_eq!(message.lines("repl-ship", "<3>"), "<3>repl-ship: a\\n\"b\": c\\d\n<3>hint: look\n");
        let read: serde_json::Value = serde_json::from_str(&message.json("repl-ship")).unwrap();
        assert_eq!((&read["message"], &read["hint"]), (&"a\\n\"b\": c\\d".into(), &"look".into()));
        assert_eq!((&read["v"], &read["level"]), (&1.into(), &"error".into()));
        assert_eq!((&read["code"], &read["name"]), (&6.into(), &"corrupt".into()));
        assert!(read.get("segment").is_none() && read["pid"].is_u64(), "{read}");
    }
}
