//! To whom `repl-ship` ships: sites of its configuration, commands and machines of its command line, or the pipeline that
//! the shell has built.

use anyhow::Result;

use super::Args;
use crate::cli::args;
use crate::cli::config;
use crate::edge::link::{self, Far};
use crate::engine::ship::{Receiver, To};
use crate::rule::config::{Config, Site};
use crate::value::exit::{Code, fail};

/// The sites of a configuration that are shipped to: all that are enabled, but not this one itself.
pub fn sites(config: &Config, set: &str) -> Result<Vec<Receiver>> {
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

/// The sites as they are configured now.
pub fn read_again(command: &str, set: &str) -> Result<Vec<Receiver>> {
    let line: config::Line<Args> = config::parse(command).or_else(|code| fail(code, "cannot use the configuration"))?;
    sites(&line.config.unwrap_or_default(), set)
}

/// Those that the command line names, or what stands at the end of its pipe.
pub fn told(args: &Args) -> Result<Vec<Receiver>> {
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
    Ok(vec![Receiver { acks, ..Receiver::new("standard output", to) }])
}

fn named(args: &Args) -> Result<Vec<Receiver>> {
    let via = |command: &String| Receiver::new(command, To::Via(Far::Command(command.clone())));
    let mut receivers: Vec<_> = args.via.iter().map(via).collect();
    for url in &args.to {
        let Some(dir) = &url.path else {
            return fail(Code::Usage, format!("--to {url} names no directory there"));
        };
        let options = args::ssh_options(&args.identity)?;
        let command = format!("{} --acks {}", args.remote_command, shell_words::quote(dir));
        receivers.push(Receiver::new(&url.to_string(), To::Via(Far::Ssh { url: url.clone(), command, options })));
    }
    Ok(receivers)
}
