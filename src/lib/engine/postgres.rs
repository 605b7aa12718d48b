//! A PostgreSQL server as its own client reaches it.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::edge::program::Program;
use crate::rule::scheme::Scheme;
use crate::value::exit::{Code, Failure, fail};
use crate::value::position::Position;

/// How long a question may take.
const QUESTION: Duration = Duration::from_secs(60);

/// A physical replication slot: the server keeps all log from its place on.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// How to reach the server (libpq); without it, the PG* variables say.
    pub dsn: Option<String>,
}

impl Slot {
    /// What to do about a slot that the server has given up.
    pub const LOST_HINT: &str = "resync the replica with repl-sync, then drop the slot; a new one is made at the start";

    /// Reads a slot's name as the server allows it, so that it can stand in a statement.
    pub fn parse_name(name: &str) -> Result<String, String> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if (1..=63).contains(&name.len()) && name.bytes().all(is_plain) {
            return Ok(name.to_owned());
        }
        Err("a slot's name has 1 to 63 lower-case letters, digits and underscores".to_owned())
    }

    /// Makes the slot if there is none; refuses one that keeps nothing.
    pub(super) fn prepare(&self) -> Result<()> {
        if self.look()?.is_none() {
            let made = format!("select pg_create_physical_replication_slot('{}', true)", self.name);
            self.ask(&made).context("cannot make the replication slot")?;
        }
        Ok(())
    }

    /// Moves the slot on to what the receiver has on its disk. The server never moves it beyond its own log.
    pub(super) fn advance(&self, scheme: &Scheme, flushed: Position) -> Result<()> {
        let Some(reserved) = self.look()? else {
            return fail(Code::Failed, format!("replication slot {} is gone", self.name));
        };
        let place = flushed.segment.sequence.saturating_mul(scheme.segment_size()).saturating_add(flushed.offset);
        if place > reserved {
            let (high, low) = (place >> 32, place & 0xffff_ffff);
            self.ask(&format!("select pg_replication_slot_advance('{}', '{high:X}/{low:X}')", self.name))
                .context("cannot move the replication slot on")?;
        }
        Ok(())
    }

    /// From which place on the slot keeps log; `None` when there is no slot. One that the server has given up, or that
    /// is of another kind, is an error.
    fn look(&self) -> Result<Option<u64>> {
        let answer = self.ask(&format!(
            "select slot_type, coalesce(wal_status, 'lost'), coalesce(restart_lsn - '0/0'::pg_lsn, 0) \
             from pg_replication_slots where slot_name = '{}'",
            self.name
        ))?;
        let mut fields = answer.trim().split('|');
        match (fields.next(), fields.next(), fields.next()) {
            (Some(""), ..) => Ok(None),
            (Some("physical"), Some("lost"), _) => {
                let text = format!("gap: the server has given up replication slot {}: log is missing", self.name);
                Err(Failure::new(Code::Gap, text).hint(Slot::LOST_HINT).into())
            }
            (Some("physical"), Some(_), Some(place)) => Ok(Some(place.parse().unwrap_or(0))),
            (Some(kind), ..) => {
                fail(Code::Usage, format!("replication slot {} is {kind}, a physical one is needed", self.name))
            }
            (None, ..) => fail(Code::Hook, "psql does not say what slots there are"),
        }
    }

    fn ask(&self, statement: &str) -> Result<String> {
        let fixed = ["-X", "-w", "-A", "-t", "-q", "-F", "|", "-v", "ON_ERROR_STOP=1", "-c", statement];
        let dsn = self.dsn.iter().flat_map(|dsn| ["-d", dsn.as_str()]);
        Program::new("psql", fixed.into_iter().chain(dsn), QUESTION).ask()
    }
}

/// Refuses a password in a conninfo: command lines are there for everybody to read.
pub fn check_dsn(dsn: &str) -> Result<String, String> {
    let is_uri_with_password = dsn.split_once("://").is_some_and(|(_, rest)| {
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
    });
    let words = dsn.to_ascii_lowercase();
    if is_uri_with_password || words.split(['&', '?', ' ']).any(|word| word.trim_start().starts_with("password")) {
        return Err("no password here, where ps(1) shows it: use a password file, a service file or PGPASSWORD".into());
    }
    Ok(dsn.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_on_a_command_line_is_refused() {
        for good in ["", "host=/run/pg port=5433 user=repl", "postgresql://repl@db:5432/postgres?sslmode=require"] {
            assert_eq!(check_dsn(good).as_deref(), Ok(good));
        }
        for bad in ["host=a password=x", "PassWord = x", "postgres://u:p@h/d", "postgresql://h/d?user=u&password=p"] {
            assert!(check_dsn(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_slots_name_cannot_leave_its_quotes() {
        assert_eq!(Slot::parse_name("venus_2").as_deref(), Ok("venus_2"));
        for bad in ["", "Venus", "a-b", "a'b", "a\\", &"a".repeat(64)] {
            assert!(Slot::parse_name(bad).is_err(), "{bad}");
        }
    }
}
