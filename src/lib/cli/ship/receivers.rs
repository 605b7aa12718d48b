//! To whom `repl-ship` ships: sites of its configuration, commands and machines of its command line, or the pipeline that
//! the shell has built.

use anyhow::Result;
use clap::parser::ValueSource;

use super::Args;
use crate::cli::args;
use crate::cli::config::{self, Line};
use crate::edge::link::{self, Far};
use crate::engine::ship::{Receiver, To};
use crate::rule::config::secret::Apart;
use crate::rule::config::{Config, Site};
use crate::value::exit::{Code, fail};

/// To whom a command line with its configuration ships. Who says where to begin builds the pipe, and who names receivers
/// means no others.
pub fn of(line: &Line<Args>, set: &str) -> Result<Vec<Receiver>> {
    let Line { args, config, .. } = line;
    let is_told = is_piped(line) || !args.via.is_empty() || !args.to.is_empty();
    match config.as_ref().filter(|config| !is_told && !config.sites.is_empty()) {
        Some(config) => sites(config, set),
        None => told(args),
    }
}

/// Whether the command line says that the receiver is at the other end of a pipe.
fn is_piped(line: &Line<Args>) -> bool {
    let is_from = line.matches.value_source("from") == Some(ValueSource::CommandLine);
    line.args.acks.is_some() || is_from
}

/// The sites of a configuration that are shipped to: all that are enabled, but not this one itself.
fn sites(config: &Config, set: &str) -> Result<Vec<Receiver>> {
    let others = config.sites.iter().filter(|site| site.enabled && config.site.as_ref() != Some(&site.name));
    let receiver = |site: &Site| {
        let via = site.via(set)?;
        let (name, to) = (site.name.clone(), To::Via(Far::Command(via.clone())));
        Ok(Receiver { name, shown: via, to, acks: site.acks, votes: site.votes, priority: site.priority })
    };
    let receivers: Vec<_> = others.map(receiver).collect::<Result<_>>()?;
    if receivers.is_empty() {
        return fail(Code::Usage, "no [[site]] is enabled, so there is nobody to ship to");
    }
    Ok(receivers)
}

/// The same as they are configured now.
pub fn read_again(command: &str, set: &str) -> Result<Vec<Receiver>> {
    let line: Line<Args> = config::parse(command).or_else(|code| fail(code, "cannot use the configuration"))?;
    let receivers = of(&line, set)?;
    if receivers.iter().any(|receiver| !matches!(receiver.to, To::Via(_))) {
        return fail(Code::Usage, "the configuration names no receiver any more");
    }
    Ok(receivers)
}

/// Those that are named, or what stands at the end of the pipe.
fn told(args: &Args) -> Result<Vec<Receiver>> {
    let receivers = named(args)?;
    if !receivers.is_empty() {
        return Ok(receivers);
    }
    if args.slot.is_some() || args.purge {
        return fail(Code::Usage, "--slot and --purge need a receiver that acknowledges: --via, --to or a [[site]]");
    }
    let to = match &args.acks {
        Some(fifo) => To::OutputWithAcks(link::stream_output()?, link::open_acks(fifo)?),
        None => To::Output(link::stream_output()?),
    };
    let acks = args.acks.is_some();
    Ok(vec![Receiver { acks, ..Receiver::new("standard output", "standard output", to) }])
}

fn named(args: &Args) -> Result<Vec<Receiver>> {
    // Without a name they are called by how they are reached.
    let mut names = Apart::default();
    let via = |command: &String| Receiver::new(&names.mask(command), command, To::Via(Far::Command(command.clone())));
    let mut receivers: Vec<_> = args.via.iter().map(via).collect();
    for url in &args.to {
        let Some(dir) = &url.path else {
            return fail(Code::Usage, format!("--to {url} names no directory there"));
        };
        let options = args::ssh_options(&args.identity)?;
        let command = format!("{} --acks {}", args.remote_command, shell_words::quote(dir));
        let (shown, to) = (url.to_string(), To::Via(Far::Ssh { url: url.clone(), command, options }));
        receivers.push(Receiver::new(&names.mask(&shown), &shown, to));
    }
    Ok(receivers)
}
