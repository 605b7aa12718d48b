//! Kinds of logs: what an operator says, or file names show.

use std::fmt;

use super::{Scheme, bdb, eloquence, mariadb, postgres};
use crate::rule::pattern::Pattern;
use crate::value::escape::show;

/// A database kind, as `--engine` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Numbered files, append-only.
    Plain,
    /// Eloquence forward logs, `fw-1-1`.
    Eloquence,
    /// Berkeley DB and Berkeley DB SQL, `log.0000000001`.
    Bdb,
    /// PostgreSQL, `000000010000000000000001`.
    Postgres,
    /// MariaDB binary logs, `mysql-bin.000001`.
    Mariadb,
}

/// Every engine with its name.
pub const ENGINES: [(Engine, &str); 5] = [
    (Engine::Plain, "plain"),
    (Engine::Eloquence, "eloquence"),
    (Engine::Bdb, "bdb"),
    (Engine::Postgres, "postgres"),
    (Engine::Mariadb, "mariadb"),
];

/// What an operator says of a log, or its file names show: enough to know names, not enough to read records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The engine.
    pub engine: Engine,
    /// Names of segments, for engines that have no fixed ones. `mariadb` may be without one until names are looked at.
    pub pattern: Option<Pattern>,
}

impl Engine {
    /// The engine of this name.
    pub fn parse(name: &str) -> Result<Engine, String> {
        let found = ENGINES.iter().find(|(_, known)| *known == name).map(|(engine, _)| *engine);
        found.ok_or_else(|| {
            let known: Vec<_> = ENGINES.iter().map(|(_, name)| *name).collect();
            format!("'{}' is not an engine: expected {}", show(name), known.join(", "))
        })
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = ENGINES.iter().find(|(engine, _)| engine == self).map_or("", |(_, name)| name);
        out.write_str(name)
    }
}

impl Kind {
    /// A pattern is required by `plain`, has a default for `eloquence`, is found by [`Kind::complete`] for `mariadb`, and is
    /// wrong for others.
    pub fn new(engine: Engine, pattern: Option<Pattern>) -> Result<Kind, String> {
        let pattern = match (engine, pattern) {
            (Engine::Plain, None) => return Err("engine plain needs --pattern, such as 'log.%S'".to_owned()),
            (Engine::Eloquence, None) => Some(eloquence::default_pattern()),
            (Engine::Mariadb, Some(pattern)) if !mariadb::is_pattern(&pattern) => {
                return Err(format!("engine mariadb needs a --pattern such as 'mysql-bin.%06S', not '{pattern}'"));
            }
            (Engine::Plain | Engine::Eloquence | Engine::Mariadb, pattern) => pattern,
            (_, None) => None,
            (engine, Some(_)) => return Err(format!("engine {engine} has fixed names; leave --pattern out")),
        };
        Ok(Kind { engine, pattern })
    }

    /// With the pattern that file names show, where the engine has one and none was told.
    pub fn complete<'a>(self, names: impl IntoIterator<Item = &'a str>) -> Result<Kind, String> {
        if self.engine != Engine::Mariadb || self.pattern.is_some() {
            return Ok(self);
        }
        let found = mariadb::detect(&names.into_iter().collect::<Vec<_>>());
        match found.as_slice() {
            [pattern] => Kind::new(self.engine, Some(pattern.clone())),
            [] => {
                Err("no index file with its binary logs is there; say --pattern, such as 'mysql-bin.%06S'".to_owned())
            }
            [one, other, ..] => Err(format!("binary logs of both '{one}' and '{other}' are there; say --pattern")),
        }
    }

    /// What file names show: exactly one engine must know some of them.
    pub fn detect<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Kind, String> {
        let names: Vec<_> = names.into_iter().collect();
        let candidates = [Engine::Bdb, Engine::Eloquence, Engine::Postgres];
        let candidates = candidates.map(|engine| Kind { engine, pattern: None });
        let mut known = [false; 3];
        for name in &names {
            for (known, kind) in known.iter_mut().zip(&candidates) {
                *known |= match kind.engine {
                    Engine::Bdb => bdb::segment(name).is_some(),
                    Engine::Postgres => postgres::is_name(name),
                    _ => eloquence::default_pattern().segment(name).is_some(),
                };
            }
        }
        let is_mariadb = !mariadb::detect(&names).is_empty();
        let mariadb = is_mariadb.then_some(Kind { engine: Engine::Mariadb, pattern: None });
        let found = candidates.into_iter().zip(known).filter_map(|(kind, known)| known.then_some(kind));
        let mut found = found.chain(mariadb);
        match (found.next(), found.next()) {
            (Some(kind), None) => Kind::new(kind.engine, None)?.complete(names),
            (None, _) => Err("no file name shows which engine this is".to_owned()),
            (Some(one), Some(other)) => {
                Err(format!("file names of both {} and {} are there", one.engine, other.engine))
            }
        }
    }

    /// Whether these are the rules of this kind of log.
    pub fn fits(&self, scheme: &Scheme) -> bool {
        let is_open = self.engine == Engine::Mariadb && self.pattern.is_none();
        self.engine == scheme.engine() && (is_open || self.pattern.as_ref() == scheme.pattern())
    }

    /// Whether a file's first bytes are needed to make a scheme of it, and this one may have them.
    pub fn wants_head_of(&self, name: &str) -> bool {
        self.engine == Engine::Postgres && postgres::is_name(name)
    }

    /// The rules, given the first bytes ([`super::HEAD`] or fewer) of some segment where [`Kind::wants_head_of`] asks for them;
    /// `None` when these bytes do not tell.
    pub fn scheme(&self, head: &[u8]) -> Option<Scheme> {
        match self.engine {
            Engine::Postgres => postgres::Cluster::read(head).map(Scheme::Postgres),
            _ => Scheme::new(self, "", 0).ok(),
        }
    }
}
