//! Reads the text: each key in the order of the file, the first that is wrong ends it.

use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::near::nearest;
use super::{Commands, Config, LONGEST, Site, Takes, Value, Wrong};
use crate::rule::pattern::Pattern;
use crate::rule::scheme::Engine;
use crate::rule::stream::hello::is_name;
use crate::value::escape::show;

/// Keys of the top level that are no tables. This machine's own name cannot be `site`: TOML has one meaning for a key, and
/// `[[site]]` is the others.
pub const TOP: [&str; 9] = ["set", "here", "address", "engine", "pattern", "logdir", "datadir", "archive", "state"];
/// Keys of `[server]`.
pub const SERVER: [&str; 5] = ["stop", "start", "status", "promote", "demote"];
/// Keys of a `[[site]]`.
pub const SITE: [&str; 9] = ["name", "address", "rsh", "via", "config", "priority", "votes", "acks", "enabled"];
/// Keys of `[hooks]`: the points of a sync.
pub const HOOKS: [&str; 9] = [
    "before-sync",
    "after-hot-pass",
    "before-stop",
    "after-stop",
    "before-switch",
    "after-switch",
    "after-start",
    "after-sync",
    "on-error",
];

type Entry<'a, 'i> = (&'a str, Range<usize>, &'a DeValue<'i>);

/// Reads a file's text. The tables of commands have the keys that are told.
pub fn parse(text: &str, commands: &Commands) -> Result<Config, Wrong> {
    let mut reader = Reader { text, commands, config: Config::default() };
    if text.len() > LONGEST {
        return Err(Wrong { line: 1, text: format!("it has more than {LONGEST} bytes") });
    }
    let table = DeTable::parse(text).map_err(|error| reader.wrong(&error.span().unwrap_or(0..0), error.message()))?;
    reader.top(table.get_ref())?;
    Ok(reader.config)
}

struct Reader<'a> {
    text: &'a str,
    commands: &'a Commands,
    config: Config,
}

/// The entries of a table in the order of the file.
fn entries<'a, 'i>(table: &'a DeTable<'i>) -> Vec<Entry<'a, 'i>> {
    let entry = |(key, value): (&'a Spanned<_>, &'a Spanned<_>)| {
        let key: (&'a std::borrow::Cow<'i, str>, Range<usize>) = (key.get_ref(), key.span());
        (key.0.as_ref(), key.1, value.get_ref())
    };
    let mut entries: Vec<Entry<'a, 'i>> = table.iter().map(entry).collect();
    entries.sort_by_key(|(_, span, _)| span.start);
    entries
}

impl Reader<'_> {
    fn line(&self, span: &Range<usize>) -> usize {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        before.split(|byte| *byte == b'\n').count()
    }

    fn wrong(&self, span: &Range<usize>, text: impl Into<String>) -> Wrong {
        Wrong { line: self.line(span), text: text.into() }
    }

    /// What is not known, and what may have been meant.
    fn unknown<'k>(&self, span: &Range<usize>, what: &str, known: impl IntoIterator<Item = &'k str>) -> Wrong {
        let key = what.rsplit(' ').next().unwrap_or_default();
        let near = nearest(key.trim_matches(['[', ']', '\'']), known);
        let meant = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        self.wrong(span, format!("{what} is not known{meant}"))
    }

    fn top(&mut self, table: &DeTable<'_>) -> Result<(), Wrong> {
        for (key, span, value) in entries(table) {
            match (key, value) {
                ("server" | "hooks", DeValue::Table(table)) => self.plain(key, table)?,
                ("site", DeValue::Array(sites)) => {
                    for site in sites {
                        self.site(&span, site)?;
                    }
                }
                (key, DeValue::Table(table)) if self.commands.contains_key(key) => self.command(key, table)?,
                (key, _) if self.commands.contains_key(key) || ["server", "hooks"].contains(&key) => {
                    return Err(self.wrong(&span, format!("{key} is a table: [{key}]")));
                }
                ("site", _) => {
                    let text =
                        "a site is a table with two brackets, [[site]]; this machine's own name is here = \"NAME\"";
                    return Err(self.wrong(&span, text));
                }
                (key, value) if TOP.contains(&key) => {
                    let text = self.text_of(&span, key, value)?;
                    self.keep("", key, &span);
                    self.fact(key, text).map_err(|why| self.wrong(&span, format!("{key}: {why}")))?;
                }
                (key, DeValue::Table(_)) => {
                    let tables = self.commands.keys().map(String::as_str).chain(["server", "hooks", "site"]);
                    return Err(self.unknown(&span, &format!("table [{}]", show(key)), tables));
                }
                (key, _) => return Err(self.unknown(&span, &format!("key '{}'", show(key)), TOP)),
            }
        }
        Ok(())
    }

    fn keep(&mut self, table: &str, key: &str, span: &Range<usize>) {
        let line = self.line(span);
        self.config.lines.insert((table.to_owned(), key.to_owned()), line);
    }

    /// A fact of the top level.
    fn fact(&mut self, key: &str, text: String) -> Result<(), String> {
        let config = &mut self.config;
        match key {
            "set" => config.set = Some(name(text)?),
            "here" => config.site = Some(name(text)?),
            "address" => config.address = Some(text),
            "engine" if text != "sqlite" => config.engine = Engine::parse(&text).map(|_| Some(text))?,
            "engine" => config.engine = Some(text),
            "pattern" => config.pattern = Pattern::parse(&text).map(|_| Some(text))?,
            "logdir" => config.logdir = Some(path(text)?),
            "datadir" => config.datadir = Some(path(text)?),
            "archive" => config.archive = Some(path(text)?),
            _ => config.state = Some(path(text)?),
        }
        Ok(())
    }

    /// `[server]` and `[hooks]`: commands.
    fn plain(&mut self, table: &str, content: &DeTable<'_>) -> Result<(), Wrong> {
        for (key, span, value) in entries(content) {
            let known: &[&str] = if table == "server" { &SERVER } else { &HOOKS };
            if !known.contains(&key) {
                return Err(self.unknown(&span, &in_table(table, key), known.iter().copied()));
            }
            let text = self.text_of(&span, &in_table(table, key), value)?;
            self.keep(table, key, &span);
            let server = &mut self.config.server;
            match (table, key) {
                ("server", "stop") => server.stop = Some(text),
                ("server", "start") => server.start = Some(text),
                ("server", "status") => server.status = Some(text),
                ("server", "promote") => server.promote = Some(text),
                ("server", _) => server.demote = Some(text),
                _ => drop(self.config.hooks.insert(key.to_owned(), text)),
            }
        }
        Ok(())
    }

    fn command(&mut self, table: &str, content: &DeTable<'_>) -> Result<(), Wrong> {
        let Some(known) = self.commands.get(table) else {
            return Ok(());
        };
        self.config.commands.entry(table.to_owned()).or_default();
        for (key, span, value) in entries(content) {
            let shown = in_table(table, key);
            let Some(takes) = known.get(key) else {
                return Err(self.unknown(&span, &shown, known.keys().map(String::as_str)));
            };
            let value = taken(*takes, value).map_err(|why| self.wrong(&span, format!("{shown}: {why}")))?;
            self.keep(table, key, &span);
            self.config.commands.entry(table.to_owned()).or_default().push((key.to_owned(), value));
        }
        Ok(())
    }

    fn site(&mut self, span: &Range<usize>, value: &Spanned<DeValue<'_>>) -> Result<(), Wrong> {
        let DeValue::Table(content) = value.get_ref() else {
            return Err(self.wrong(span, "a site is a table: [[site]]"));
        };
        let mut site = Site::new("");
        for (key, span, value) in entries(content) {
            let shown = format!("[[site]] {}", show(key));
            if !SITE.contains(&key) {
                return Err(self.unknown(&span, &shown, SITE));
            }
            let wrong = |why: &str| self.wrong(&span, format!("{shown}: {why}"));
            match (key, value) {
                ("acks", DeValue::Boolean(is_on)) => site.acks = *is_on,
                ("enabled", DeValue::Boolean(is_on)) => site.enabled = *is_on,
                ("acks" | "enabled", _) => return Err(wrong("expected true or false")),
                ("priority", value) => site.priority = count(value).map_err(wrong)?,
                ("votes", value) => site.votes = count(value).map_err(wrong)?,
                (key, value) => {
                    let text = self.text_of(&span, &shown, value)?;
                    match key {
                        "name" => site.name = name(text).map_err(|why| wrong(&why))?,
                        "address" => site.address = Some(text),
                        "rsh" => site.rsh = Some(text),
                        "via" => site.via = Some(text),
                        _ => site.config = Some(text),
                    }
                }
            }
        }
        let span = value.span();
        if site.name.is_empty() {
            return Err(self.wrong(&span, "a [[site]] has no name"));
        }
        if self.config.sites.iter().any(|other| other.name == site.name) {
            return Err(self.wrong(&span, format!("two sites are named '{}'", show(&site.name))));
        }
        self.config.sites.push(site);
        Ok(())
    }

    /// A string that is not empty.
    fn text_of(&self, span: &Range<usize>, what: &str, value: &DeValue<'_>) -> Result<String, Wrong> {
        let text = match value {
            DeValue::String(text) => sound(text),
            other => Err(format!("expected a string, not {}", article(other))),
        };
        match text {
            Ok(text) if text.trim().is_empty() => Err(self.wrong(span, format!("{what} is empty"))),
            text => text.map_err(|why| self.wrong(span, format!("{what}: {why}"))),
        }
    }
}

fn in_table(table: &str, key: &str) -> String {
    format!("[{table}] {}", show(key))
}

/// What a flag is given.
fn taken(takes: Takes, value: &DeValue<'_>) -> Result<Value, String> {
    match (takes, value) {
        (Takes::Nothing, DeValue::Boolean(is_on)) => Ok(Value::Flag(*is_on)),
        (Takes::Nothing, _) => Err("expected true or false".to_owned()),
        (Takes::Many, DeValue::Array(values)) => {
            values.iter().map(|value| word(value.get_ref())).collect::<Result<_, _>>().map(Value::Many)
        }
        (Takes::Many, value) => word(value).map(|word| Value::Many(vec![word])),
        (Takes::One, DeValue::Array(_)) => Err("it is given once, not an array".to_owned()),
        (Takes::One, value) => word(value).map(Value::One),
    }
}

/// A value as it stands behind a flag.
fn word(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => sound(text),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Ok(number.to_string()),
            Err(_) => Err("the number is too large".to_owned()),
        },
        other => Err(format!("expected a string or an integer, not {}: put it in quotes", article(other))),
    }
}

/// What can be handed to a program.
fn sound(text: &str) -> Result<String, String> {
    if text.contains('\0') { Err("it has a zero byte".to_owned()) } else { Ok(text.to_owned()) }
}

fn count(value: &DeValue<'_>) -> Result<u32, &'static str> {
    let number = match value {
        DeValue::Integer(number) => u32::from_str_radix(number.as_str(), number.radix()).ok(),
        _ => None,
    };
    number.ok_or("expected a whole number from 0 to 4294967295")
}

fn name(text: String) -> Result<String, String> {
    if is_name(&text) {
        Ok(text)
    } else {
        Err("a name has 1 to 255 bytes (escaped) and no control characters".to_owned())
    }
}

/// A path is an operand of commands: it must not look like an option of theirs.
fn path(text: String) -> Result<PathBuf, String> {
    if text.starts_with('-') { Err("a path must not begin with '-'".to_owned()) } else { Ok(text.into()) }
}

fn article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
