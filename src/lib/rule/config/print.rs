//! Prints a configuration so that it can be read back to the same. Secrets are masked: what is printed is for people,
//! and ends in tickets.

use std::path::Path;

use super::secret::mask;
use super::{Config, Site, Value};

impl Config {
    /// The file's text. `remarks` come as comments at the end of this command's table: what its flags are by default.
    pub fn print(&self, table: &str, remarks: &[String]) -> String {
        let mut out = String::new();
        let path = |path: &Option<_>| path.as_deref().map(Path::to_string_lossy).map(String::from);
        let top = [
            ("set", self.set.clone()),
            ("here", self.site.clone()),
            ("address", self.address.as_deref().map(mask)),
            ("engine", self.engine.clone()),
            ("pattern", self.pattern.clone()),
            ("logdir", path(&self.logdir)),
            ("datadir", path(&self.datadir)),
            ("archive", path(&self.archive)),
            ("state", path(&self.state)),
        ];
        // Names and paths hold no secret, and a mask would make other ones of them.
        out += &top.iter().map(|(key, text)| named(key, text.as_deref())).collect::<String>();
        for (name, content) in &self.commands {
            let keys: String = content.iter().map(|(key, value)| format!("{key} = {}\n", value.print())).collect();
            let remarks: String = remarks.iter().filter(|_| name == table).map(|text| format!("# {text}\n")).collect();
            out += &section(name, &(keys + &remarks));
        }
        if !self.commands.contains_key(table) {
            out += &section(table, &remarks.iter().map(|text| format!("# {text}\n")).collect::<String>());
        }
        out += &section("server", &self.server());
        out += &section("hooks", &self.hooks.iter().map(|(point, text)| line(point, Some(text))).collect::<String>());
        out + &self.sites.iter().map(|site| site.print(self.set.as_deref())).collect::<String>()
    }

    fn server(&self) -> String {
        let server = &self.server;
        let commands = [
            ("stop", &server.stop),
            ("start", &server.start),
            ("status", &server.status),
            ("promote", &server.promote),
            ("demote", &server.demote),
        ];
        commands.iter().map(|(key, text)| line(key, text.as_deref())).collect()
    }
}

impl Site {
    /// With what runs its receiver by default as a comment, where the set is known.
    fn print(&self, set: Option<&str>) -> String {
        let texts = [("address", &self.address), ("rsh", &self.rsh), ("via", &self.via), ("config", &self.config)];
        let texts: String = texts.iter().map(|(key, text)| line(key, text.as_deref())).collect();
        let via = set.filter(|_| self.via.is_none()).and_then(|set| self.via(set).ok());
        let via = line("# via", via.as_deref());
        let Site { priority, votes, acks, enabled, .. } = self;
        format!(
            "\n[[site]]\n{}{texts}{via}priority = {priority}\nvotes = {votes}\nacks = {acks}\nenabled = {enabled}\n",
            named("name", Some(&self.name)),
        )
    }
}

impl Value {
    /// As it stands behind its key.
    pub fn print(&self) -> String {
        match self {
            Value::Flag(is_on) => is_on.to_string(),
            Value::One(text) => quoted(text),
            Value::Many(texts) => format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", ")),
        }
    }
}

fn section(name: &str, content: &str) -> String {
    if content.is_empty() { String::new() } else { format!("\n[{name}]\n{content}") }
}

fn named(key: &str, text: Option<&str>) -> String {
    text.map(|text| format!("{key} = {}\n", string(text))).unwrap_or_default()
}

fn line(key: &str, text: Option<&str>) -> String {
    named(key, text.map(mask).as_deref())
}

fn quoted(text: &str) -> String {
    string(&mask(text))
}

/// A string in TOML, on one line.
fn string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out += &format!("\\u{:04X}", u32::from(c)),
            c => out.push(c),
        }
    }
    out + "\""
}
