//! Another site of the set, asked and told by its own `repl-role` over the prefix that runs a command there.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::record::Role;
use crate::edge::hook::Hook;
use crate::rule::config;
use crate::rule::instance::Instance;
use crate::value::exit::{Code, Failure, fail};
use crate::value::position::Start;

/// Bytes of an answer.
const ANSWER: u64 = 1 << 16;

/// How a site is reached.
#[derive(Clone, Copy, Debug)]
pub struct Far<'a> {
    /// Its entry in the configuration.
    pub site: &'a config::Site,
    /// The set's name.
    pub set: &'a str,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// What `repl-role show --json` says of a site.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What it is.
    pub role: Option<Role>,
    /// The newest epoch that it knows.
    pub epoch: u64,
    /// Its name there.
    pub site: Option<String>,
    /// Its address there.
    pub address: Option<String>,
    /// Name of the set there.
    pub set: Option<String>,
    /// Kind of log there.
    pub engine: Option<String>,
    /// Which master's log it holds, or which master it is.
    pub instance: Option<Instance>,
    /// What it holds.
    pub held: Option<Start>,
    /// Whether a receiver is at work there.
    pub is_fed: bool,
    /// Since when landing is paused.
    pub paused: Option<String>,
}

impl Answer {
    /// Reads the object; `None` for one that has no epoch.
    pub fn parse(object: &Value) -> Option<Answer> {
        let text = |key: &str| object.get(key).and_then(Value::as_str).map(str::to_owned);
        Some(Answer {
            epoch: object.get("epoch")?.as_u64()?,
            role: text("role").and_then(|role| Role::parse(&role)),
            site: text("site"),
            address: text("address"),
            set: text("set"),
            engine: text("engine"),
            instance: text("instance").and_then(|instance| Instance::parse(&instance)),
            held: text("held").and_then(|held| held.parse().ok()),
            is_fed: object.get("receiving").and_then(Value::as_bool).unwrap_or_default(),
            paused: object["paused"]["apply"]["since"].as_str().map(str::to_owned),
        })
    }
}

impl Far<'_> {
    /// What it is now.
    pub fn show(&self) -> Result<Answer> {
        let bytes = self.role(&["show", "--json"])?;
        let object = serde_json::from_slice(&bytes).ok();
        let answer = object.as_ref().and_then(Answer::parse);
        answer.map_or_else(|| fail(Code::Link, format!("{} answers in other words", self.site.name)), Ok)
    }

    /// Runs its `repl-role`, with its own configuration; what that prints. Its exit code is the error's.
    pub fn role(&self, words: &[&str]) -> Result<Vec<u8>> {
        let config = self.site.config(self.set);
        let line = shell_words::join(["repl-role"].iter().chain(words).chain(&["-c", &config]));
        let Some(command) = self.site.far(&line) else {
            let text = format!("site '{}' has no rsh", self.site.name);
            return Err(Failure::new(Code::Usage, text).hint("rsh = \"ssh USER@HOST\" in its [[site]]").into());
        };
        let answer = Hook { name: "rsh", command, timeout: Some(self.timeout) }.listen(&[], ANSWER)?;
        let Some(words) = answer.words else {
            return Ok(answer.bytes);
        };
        let code = answer.status.and_then(|status| u8::try_from(status).ok()).and_then(Code::from_number);
        // What ssh says of a link, and a time-out.
        let code = if matches!(answer.status, Some(255) | None) { Code::Link } else { code.unwrap_or(Code::Hook) };
        fail(code, format!("at {}: {words}", self.site.name))
    }
}
