//! Which flags and operands of a command the keys stand for that are no command's own: those of the top level,
//! `[server]` and `[hooks]`. The table of this is in repl.toml(5).

use std::ffi::OsString;
use std::path::Path;

use super::given::Given;
use crate::cli::sync::Place;
use crate::rule::config::Config;

/// A key, and what it gives to a flag or an operand.
#[derive(Debug)]
pub(super) struct Feed {
    /// The flag or operand, as clap calls it.
    pub(super) id: &'static str,
    /// Its table: empty for the top level.
    pub(super) table: &'static str,
    /// Its key there.
    pub(super) key: &'static str,
    /// What it gives.
    pub(super) values: Vec<OsString>,
}

/// The key of the top level under which an operand of a command is printed.
pub(super) fn key_of(command: &str, given: &Given, id: &str) -> Option<&'static str> {
    match (command, id) {
        (_, "logdir") | ("repl-status", "dirs") => Some("logdir"),
        ("repl-role", "dir") if given.chain == ["guard"] => Some("datadir"),
        ("repl-prune" | "repl-verify", "dir") | ("repl-fetch" | "repl-base", "archive") => Some("archive"),
        ("repl-base", "source") | ("repl-sync", "destination") => Some("datadir"),
        _ => None,
    }
}

/// What a configuration gives to a command of which so much is given. Of what the command does not have, it is passed
/// over.
pub(super) fn feeds(command: &str, config: &Config, given: &Given) -> Vec<Feed> {
    let top = Top { config, found: Vec::new() };
    let mut top = top.text("set", "set", config.set.as_deref()).text("engine", "engine", config.engine.as_deref());
    top = top.text("pattern", "pattern", config.pattern.as_deref());
    let is = |id: &str| given.has(id);
    let log = [("logdir", config.logdir.as_deref())];
    let archive = [("archive", config.archive.as_deref())];
    let data = [("datadir", config.datadir.as_deref())];
    let state = [("state", config.state.as_deref())];
    let server = &config.server;
    let top = match command {
        // Without a position its place would be taken.
        "repl-wait" if !is("what") => top.path("state", &state),
        "repl-ship" | "repl-wait" => top.path("logdir", &log).path("state", &state),
        "repl-status" => top.path("dirs", &[log, archive].concat()).path("state", &state),
        "repl-apply" => top.text("site", "here", config.site.as_deref()).path("logdir", &[log, archive].concat()),
        "repl-role" => {
            let top = top.path("logdir", &log).path("state", &state);
            if given.chain == ["guard"] { top.path("dir", &data) } else { top }
        }
        "repl-verify" => top.path("dir", &[archive, log].concat()),
        "repl-fetch" => top.path("archive", &[archive, log].concat()),
        "repl-prune" => {
            let stops = given.get("on_full").is_some_and(|word| word.values.iter().any(|value| value == "stop"));
            top.path("dir", &[archive, log].concat()).server("stop", "stop", server.stop.as_ref().filter(|_| stops))
        }
        "repl-recover" => {
            let here = !is("at");
            let top = top.path("archive", &[archive, log].concat());
            // A drill has a scratch directory, and what is recovered elsewhere another target.
            let top = if is("drill") || !here { top } else { top.path("target", &data) };
            top.server("start", "start", server.start.as_ref().filter(|_| here))
        }
        "repl-base" if is("server") => top,
        "repl-base" if is("list") || is("verify") || is("drop") => top.path("source", &archive),
        // Never the log directory: a master's is not to be written to.
        "repl-base" => top.path("source", &data).path("archive", &archive),
        "repl-sync" => sync(top, config, given),
        _ => top,
    };
    top.found
}

/// The database's directory is the one that becomes equal. Server commands are run where it is: they are this site's,
/// and another one has its own.
fn sync<'a>(top: Top<'a>, config: &'a Config, given: &Given) -> Top<'a> {
    let data = [("datadir", config.datadir.as_deref())];
    let is_only = ["replay", "rollback", "replicas"].iter().any(|id| given.has(id));
    let target = if is_only { "source" } else { "destination" };
    let is_server = given.has("server");
    // Without a source its place would be taken.
    let top = if is_server || !(is_only || given.has("source")) { top } else { top.path(target, &data) };
    let is_here = match given.get(target).and_then(|word| word.values.first()) {
        Some(operand) => matches!(Place::parse(operand), Ok(Place::Here(_))),
        None => true,
    };
    let server = &config.server;
    let top = if is_here {
        top.server("stop", "stop", server.stop.as_ref()).server("start", "start", server.start.as_ref()).server(
            "status",
            "status",
            server.status.as_ref(),
        )
    } else {
        top
    };
    if is_server { top } else { top.hooks() }
}

struct Top<'a> {
    config: &'a Config,
    found: Vec<Feed>,
}

impl<'a> Top<'a> {
    fn add(mut self, id: &'static str, table: &'static str, key: &'static str, values: Vec<OsString>) -> Top<'a> {
        self.found.push(Feed { id, table, key, values });
        self
    }

    fn text(self, id: &'static str, key: &'static str, text: Option<&str>) -> Top<'a> {
        match text {
            Some(text) => self.add(id, "", key, vec![text.into()]),
            None => self,
        }
    }

    /// The first of these that is there.
    fn path(self, id: &'static str, from: &[(&'static str, Option<&Path>)]) -> Top<'a> {
        match from.iter().find_map(|(key, path)| Some((*key, (*path)?))) {
            Some((key, path)) => self.add(id, "", key, vec![path.into()]),
            None => self,
        }
    }

    fn server(self, id: &'static str, key: &'static str, command: Option<&String>) -> Top<'a> {
        match command {
            Some(command) => self.add(id, "server", key, vec![command.into()]),
            None => self,
        }
    }

    fn hooks(self) -> Top<'a> {
        let hooks: Vec<OsString> = self.config.hooks.iter().map(|(at, run)| format!("{at}={run}").into()).collect();
        if hooks.is_empty() { self } else { self.add("hook", "hooks", "", hooks) }
    }
}
