//! `--print-config`: what a command goes by, as a file that it could be given with `-c` instead of all that it was given.
//!
//! Keys that are no command's own stand as the file has them, but for operands that the command line gives, which have
//! their key there. The command's table has what file, environment and command line give it; what nobody gives is a
//! comment with its default, since a default may not go with what is given.

use std::ffi::{OsStr, OsString};

use anyhow::Result;
use clap::{Arg, ArgAction, Command};

use super::NEVER;
use super::feed::key_of;
use super::given::{Given, Word};
use super::merge::{Merged, Origin};
use crate::rule::config::{Config, Value};
use crate::value::exit::{Code, fail};

/// The text.
pub(super) fn print(command: &Command, merged: &Merged, mut config: Config, set: Option<String>) -> Result<String> {
    let given = merged.given();
    let name = command.get_name();
    let table = name.trim_start_matches("repl-");
    config.set = set.or(config.set);
    config.commands.clear();
    for word in merged.line.words.iter().filter(|word| word.long.is_none()) {
        if let Some(key) = key_of(name, &merged.line, &word.id) {
            let path = Some(text(word.values.first().map_or(OsStr::new(""), OsString::as_os_str), &word.id)?.into());
            match key {
                "logdir" => config.logdir = path,
                "archive" => config.archive = path,
                _ => config.datadir = path,
            }
        }
    }
    let added = merged.ranked().into_iter().filter(|added| !matches!(added.origin, Origin::Top(..)));
    let own: Vec<&Word> = added.map(|added| &added.word).chain(&merged.line.words).collect();
    let args = all(command, &merged.line.chain);
    for word in own.into_iter().filter(|word| word.id != "set") {
        let Some(long) = word.long.as_ref().filter(|long| !NEVER.contains(&long.as_str())) else {
            continue;
        };
        let Some(arg) = args.iter().find(|arg| arg.get_long() == Some(long)) else {
            continue;
        };
        let content = config.commands.entry(table.to_owned()).or_default();
        content.push((long.clone(), value(arg, word)?));
    }
    ranked(&given)?;
    let is_told = |arg: &Arg| given.has(arg.get_id().as_str());
    let remarks: Vec<String> = args.iter().filter(|arg| !is_told(arg)).filter_map(|arg| default(arg)).collect();
    Ok(format!("# what {name} goes by: see repl.toml(5)\n{}", config.print(table, &remarks)))
}

/// The arguments of a command and the subcommand that is asked for.
fn all<'a>(command: &'a Command, chain: &[String]) -> Vec<&'a Arg> {
    let mut found: Vec<&Arg> = command.get_arguments().collect();
    let mut at = command;
    for name in chain {
        let Some(below) = at.find_subcommand(name) else { break };
        found.extend(below.get_arguments().filter(|arg| !arg.is_global_set()));
        at = below;
    }
    found
}

fn value(arg: &Arg, word: &Word) -> Result<Value> {
    let texts = word.values.iter().map(|value| text(value, &word.id)).collect::<Result<Vec<_>>>()?;
    Ok(match arg.get_action() {
        ArgAction::SetTrue => Value::Flag(true),
        ArgAction::Append => Value::Many(texts),
        _ => Value::One(texts.into_iter().next_back().unwrap_or_default()),
    })
}

/// Patterns are ranked by their places, and a file has one place for all of a key.
fn ranked(given: &Given) -> Result<()> {
    let (Some(exclude), Some(include)) = (given.get("exclude"), given.get("include")) else {
        return Ok(());
    };
    if exclude.is_before(include) || include.is_before(exclude) {
        return Ok(());
    }
    fail(Code::Usage, "cannot print --exclude and --include that alternate: a file has one place for each")
}

fn default(arg: &Arg) -> Option<String> {
    let long = arg.get_long().filter(|long| !NEVER.contains(long))?;
    let values = arg.get_default_values();
    if !arg.get_action().takes_values() || values.is_empty() {
        return None;
    }
    let texts: Option<Vec<_>> = values.iter().map(|value| value.to_str()).collect();
    Some(format!("{long} = {}", Value::One(texts?.join(",")).print()))
}

fn text(value: &OsStr, id: &str) -> Result<String> {
    match value.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => fail(Code::Usage, format!("cannot print {id}: it is not UTF-8")),
    }
}
