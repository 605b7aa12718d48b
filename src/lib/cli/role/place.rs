//! Which directories a site has: as the command line says, or its configuration, or as they are by default.

use std::path::PathBuf;

use anyhow::Result;

use super::At;
use crate::cli::args;
use crate::edge::dir::{Dir, shown};
use crate::engine::role::Place;
use crate::engine::role::pause::Direction;
use crate::engine::role::show::Standing;
use crate::engine::{log, site};
use crate::rule::config::{Config, Value};
use crate::rule::pattern::Pattern;
use crate::rule::scheme::{Engine, Kind, Scheme};
use crate::value::exit::{Code, Failure, fail};

/// This machine's copy of a set.
pub(super) struct Site<'a> {
    pub(super) config: Option<&'a Config>,
    at: &'a At,
    dir: Dir,
    scheme: Option<Scheme>,
    set: String,
}

impl Site<'_> {
    /// Opens its log directory, and finds out what that is of.
    pub(super) fn open<'a>(at: &'a At, config: Option<&'a Config>, set: Option<&str>) -> Result<Site<'a>> {
        // A site that keeps log only has its archive for that.
        let configured = config.and_then(|config| config.logdir.clone().or_else(|| config.archive.clone()));
        let Some(logdir) = at.logdir.clone().or(configured) else {
            return fail(Code::Usage, "no log directory: name LOGDIR, or a configuration that has logdir or archive");
        };
        let dir = Dir::open(&logdir)?;
        // A directory without log, or with any log, may be asked about.
        let (scheme, pinned) = match kind(at, config)? {
            Some(told) => log::scheme_of(&dir, Some(told), None).map_or((None, None), |(one, set)| (Some(one), set)),
            None => log::scheme_of(&dir, None, None).map_or((None, None), |(one, set)| (Some(one), set)),
        };
        let told = set.map(str::to_owned).or_else(|| config?.set.clone());
        Ok(Site { config, at, dir, scheme, set: told.or(pinned).unwrap_or_default() })
    }

    /// Its name, as the configuration has it.
    pub(super) fn name(&self) -> Option<String> {
        self.config?.site.clone()
    }

    /// Whether its configuration has an archive, and no log directory of a database.
    pub(super) fn keeps_log_only(&self) -> bool {
        self.at.logdir.is_none() && self.config.is_some_and(|config| config.logdir.is_none())
    }

    /// Its log directory.
    pub(super) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// What its log is of.
    pub(super) fn scheme(&self) -> Result<&Scheme> {
        self.scheme.as_ref().ok_or_else(|| {
            let text = format!("{}: no log here says what it is of", shown(self.dir.path()));
            Failure::new(Code::Usage, text).hint("say it with --engine or --pattern").into()
        })
    }

    /// For the engine.
    pub(super) fn place<'b>(&'b self, state: Option<&'b Dir>) -> Place<'b> {
        Place { dir: &self.dir, state, scheme: self.scheme.as_ref() }
    }

    fn state_path(&self) -> Result<PathBuf> {
        let told = self.at.state.clone().or_else(|| self.config?.state.clone());
        let found = told.or_else(|| args::default_state(&self.set, self.dir.path()));
        found.ok_or_else(|| Failure::new(Code::Usage, "no state directory is known").hint("--state DIR").into())
    }

    /// Where its sender keeps state, made if it is missing.
    pub(super) fn state(&self) -> Result<Dir> {
        Dir::create(&self.state_path()?)
    }

    /// The same, if it is there.
    pub(super) fn state_there(&self) -> Result<Option<Dir>> {
        let path = self.state_path()?;
        path.exists().then(|| Dir::open(&path)).transpose()
    }

    /// Where a direction's pause is kept.
    pub(super) fn state_of(&self, direction: Direction) -> Result<Dir> {
        if direction == Direction::Ship {
            return self.state();
        }
        let configured = || {
            let (_, value) = self.config?.commands.get("apply")?.iter().find(|(key, _)| key == "state")?;
            if let Value::One(path) = value { Some(PathBuf::from(path)) } else { None }
        };
        site::peek(&self.dir, configured().as_deref())?.ok_or_else(|| {
            let text = format!("no receiver has ever been at {}", shown(self.dir.path()));
            Failure::new(Code::Failed, text)
                .hint("state = \"DIR\" in [apply] of the configuration, where repl-apply has one")
                .into()
        })
    }

    /// What only the command line and the configuration say.
    pub(super) fn facts(&self, standing: &Standing) -> Vec<(&'static str, Option<String>)> {
        vec![
            ("set", Some(self.set.clone()).filter(|set| !set.is_empty())),
            ("site", standing.site.clone().or_else(|| self.name())),
            ("address", self.address()),
            ("engine", self.scheme.as_ref().map(|scheme| scheme.engine().to_string())),
            ("logdir", Some(shown(self.dir.path()))),
            ("state", self.state_path().ok().map(|path| shown(&path))),
        ]
    }

    /// What clients connect to when the master is here.
    pub(super) fn address(&self) -> Option<String> {
        self.config?.address.clone()
    }

    /// The set's name.
    pub(super) fn set(&self) -> &str {
        &self.set
    }
}

/// The kind of log, where it was told.
fn kind(at: &At, config: Option<&Config>) -> Result<Option<Kind>> {
    if let Some(kind) = at.log.kind()? {
        return Ok(Some(kind));
    }
    let Some(config) = config else {
        return Ok(None);
    };
    let usage = |why: String| Failure::new(Code::Usage, why);
    let engine = config.engine.as_deref().map(Engine::parse).transpose().map_err(usage)?;
    let pattern = config.pattern.as_deref().map(Pattern::parse).transpose().map_err(usage)?;
    args::Log { engine, pattern }.kind()
}
