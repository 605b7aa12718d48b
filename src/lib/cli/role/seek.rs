//! Where the master is: all sites are asked at once, and the newest epoch decides. One that is a master of an older epoch
//! is none; two of one epoch are a fault that nobody should be sent to.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::place::Site;
use crate::cli::report;
use crate::engine::role::far::{self, Far};
use crate::engine::role::record::Role;
use crate::engine::role::show;
use crate::rule::config;
use crate::value::escape::show as harmless;
use crate::value::exit::{Code, Failure, fail};

/// What a site has answered.
struct Answer {
    name: String,
    address: String,
    is_master: bool,
    epoch: u64,
}

pub(super) fn run(site: &Site<'_>, timeout: Duration, as_object: bool) -> Result<()> {
    let mut answers = vec![own(site)?];
    let mut silent = Vec::new();
    for (name, asked) in ask_all(site, timeout) {
        match asked {
            Ok(answer) => answers.push(answer),
            Err(error) => silent.push(format!("{name}: {error:#}")),
        }
    }
    let found = judge(&answers, &silent)?;
    if as_object {
        let object =
            json!({"v": 1, "site": found.name, "address": found.address, "epoch": found.epoch, "silent": silent});
        return report::print(format!("{object}\n").as_bytes());
    }
    report::print(format!("{}\n", harmless(&found.address)).as_bytes())
}

/// The master of the newest epoch that anybody knows.
fn judge<'a>(answers: &'a [Answer], silent: &[String]) -> Result<&'a Answer> {
    let newest = answers.iter().map(|answer| answer.epoch).max().unwrap_or_default();
    let masters: Vec<_> = answers.iter().filter(|answer| answer.is_master && answer.epoch == newest).collect();
    match masters.as_slice() {
        [one] => Ok(one),
        [one, other, ..] => {
            let text = format!("{} and {} are both masters of epoch {newest}", one.name, other.name);
            Err(Failure::new(Code::Fenced, text)
                .hint("stop one of them; repl-role init gives the other a new epoch")
                .into())
        }
        [] if silent.is_empty() => fail(Code::Failed, format!("no site is the master of epoch {newest}")),
        [] => fail(Code::Link, format!("no site that answers is the master; {}", silent.join("; "))),
    }
}

fn own(site: &Site<'_>) -> Result<Answer> {
    let state = site.state_there()?;
    let standing = show::run(&site.place(state.as_ref()))?;
    let object = standing.object(&site.facts(&standing));
    let found = far::Answer::parse(&object).context("this site has no epoch")?;
    Ok(read(found, "this site", site.address().as_deref()))
}

/// Asks every other site that can be asked, each in a thread of its own.
fn ask_all(site: &Site<'_>, timeout: Duration) -> Vec<(String, Result<Answer>)> {
    let sites = site.config.map_or(&[][..], |config| &config.sites);
    let sites = sites.iter().filter(|other| other.enabled && other.rsh.is_some());
    std::thread::scope(|scope| {
        let asking: Vec<_> =
            sites.map(|other| (other.name.clone(), scope.spawn(|| ask(other, site.set(), timeout)))).collect();
        let joined = |thread: std::thread::ScopedJoinHandle<'_, Result<Answer>>| {
            thread.join().unwrap_or_else(|_| fail(Code::Failed, "the asking thread failed"))
        };
        asking.into_iter().map(|(name, thread)| (name, joined(thread))).collect()
    })
}

fn ask(other: &config::Site, set: &str, timeout: Duration) -> Result<Answer> {
    let found = Far { site: other, set, timeout }.show()?;
    Ok(read(found, &other.name, other.address.as_deref()))
}

/// An address that is configured here wins over the one that is there; a site without one is called by its name.
fn read(found: far::Answer, name: &str, address: Option<&str>) -> Answer {
    let name = found.site.unwrap_or_else(|| name.to_owned());
    let address = address.map(str::to_owned).or(found.address).unwrap_or_else(|| name.clone());
    Answer { name, address, is_master: found.role == Some(Role::Master), epoch: found.epoch }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::exit::code_of;

    fn answer(name: &str, role: &str, epoch: u64) -> Answer {
        read(far::Answer::parse(&json!({"role": role, "epoch": epoch, "site": name})).unwrap(), "x", None)
    }

    #[test]
    fn the_newest_epoch_decides_who_is_the_master() {
        let (old, new, other) = (answer("old", "master", 3), answer("new", "master", 4), answer("b", "receiver", 4));
        assert_eq!(judge(&[old, new, other], &[]).map(|found| found.name.clone()).unwrap(), "new");
        let code = |answers: &[Answer], silent: &[String]| code_of(&judge(answers, silent).err().unwrap());
        assert_eq!(code(&[answer("a", "master", 4), answer("b", "master", 4)], &[]), Code::Fenced);
        // Told that there is a newer one, the old one is none, whether or not the new one answers.
        assert_eq!(code(&[answer("a", "master", 3), answer("b", "receiver", 4)], &[]), Code::Failed);
        assert_eq!(code(&[answer("b", "receiver", 4)], &["a: gone".into()]), Code::Link);
    }
}
