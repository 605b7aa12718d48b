//! Deletes what nobody needs. See repl-prune(1).

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use serde_json::json;

use repl::cli::config::Line;
use repl::cli::prune::Args;
use repl::cli::{args, config, narrate, report};
use repl::edge::dir::Dir;
use repl::engine::log;
use repl::engine::note::Monitor;
use repl::engine::prune::consumers::Sender;
use repl::engine::prune::master::{Master, Outcome};
use repl::engine::prune::plan::{File, Plan};
use repl::engine::prune::{Place, archive, forget, master, set};
use repl::engine::site;
use repl::rule::retention;

const NAME: &str = "repl-prune";

fn main() -> ExitCode {
    config::start(NAME, |line: Line<Args>| {
        let Line { mut args, config, .. } = line;
        args.sender_state = config.and_then(|config| config.state);
        run(&args)
    })
}

fn run(args: &Args) -> Result<()> {
    if let Some(shell) = args.completions {
        return args::completions(Args::command(), shell);
    }
    let path = args.dir.clone().unwrap_or_default();
    let dir = Dir::open(&path)?;
    let monitor = narrate::monitor(NAME, &args.talk);
    let outcome = if archive::is_one(&dir, args.state.as_deref())? {
        args.check_archive()?;
        at_archive(args, &dir, &path)?
    } else {
        args.check_master()?;
        at_master(args, &dir, &path, &monitor)?
    };
    let Some(Outcome { plan, verdict }) = outcome else {
        return Ok(());
    };
    tell(args, &path, &plan)?;
    verdict.map_or(Ok(()), |failure| Err(failure.into()))
}

fn at_archive(args: &Args, dir: &Dir, path: &Path) -> Result<Option<Outcome>> {
    let state = args.state.as_deref();
    if !args.consumer.is_empty() {
        let (scheme, _) = log::scheme_of(dir, args.log.kind()?, state)?;
        set(dir, &scheme, Place::Archive(state), &args.consumer, args.reason.as_deref())?;
        return Ok(None);
    }
    let (_, pinned) = log::scheme_of(dir, args.log.kind()?, state)?;
    let senders = args.senders(&pinned.unwrap_or_default(), path);
    if !args.forget.is_empty() {
        let own = site::peek(dir, state)?.context("the archive's state is gone")?;
        forget(&own, &senders, &args.forget, args.reason.as_deref())?;
        return Ok(None);
    }
    let plan = archive::run(dir, state, &senders, &args.options())?;
    Ok(Some(Outcome { plan, verdict: None }))
}

fn at_master(args: &Args, dir: &Dir, path: &Path, monitor: &Monitor) -> Result<Option<Outcome>> {
    let (scheme, pinned) = log::scheme_of(dir, args.log.kind()?, None)?;
    let state = args.master_state(&pinned.unwrap_or_default(), path)?;
    let release = args.release(&scheme, log::warning(dir, &scheme)?)?;
    let senders = args.told_senders();
    if !args.forget.is_empty() {
        let own = Sender { state: state.clone(), is_told: false };
        let all = [&[own], senders.as_slice()].concat();
        forget(&Dir::create(&state)?, &all, &args.forget, args.reason.as_deref())?;
        return Ok(None);
    }
    let master = Master { dir, scheme: &scheme, state: &state, senders: &senders, release: &release };
    if args.consumer.is_empty() {
        return master::run(master, &args.full()?, &args.options(), monitor).map(Some);
    }
    set(dir, &scheme, Place::Master(&state), &args.consumer, args.reason.as_deref())?;
    master::open(master)?.map_or(Ok(None), |failure| Err(failure.into()))
}

fn tell(args: &Args, path: &Path, plan: &Plan) -> Result<()> {
    if let Some(name) = &args.explain {
        return report::print(format!("{}\n", plan.explain(name)?).as_bytes());
    }
    if args.json {
        return report::print(format!("{}\n", object(&path.to_string_lossy(), plan, args.dry_run)).as_bytes());
    }
    if (args.dry_run && !args.talk.quiet) || args.talk.verbose {
        report::print(lines(plan, args.dry_run).as_bytes())?;
    }
    Ok(())
}

/// A line for each name that goes, then the summary.
fn lines(plan: &Plan, is_dry: bool) -> String {
    let verb = if is_dry { "would remove" } else { "removed" };
    let mut lines = String::new();
    for name in plan.going_bases() {
        lines += &format!("{verb} base {name}\n");
    }
    for File { name, .. } in &plan.going {
        lines += &format!("{verb} {name}\n");
    }
    let first = plan.kept.first();
    let keepers = first.map(|file| retention::keepers(&plan.needs, file.segment)).filter(|keepers| !keepers.is_empty());
    let kept = match (first, keepers) {
        (Some(File { name, .. }), Some(keepers)) => format!("; {name} is the first that stays, for {keepers}"),
        (Some(File { name, .. }), None) => format!("; {name} is the first that stays"),
        (None, _) => String::new(),
    };
    lines + &format!("{} segments, {} bytes{kept}\n", plan.going.len(), plan.bytes())
}

fn object(dir: &str, plan: &Plan, is_dry: bool) -> serde_json::Value {
    let names = |files: &[File]| files.iter().map(|file| file.name.clone()).collect::<Vec<_>>();
    let bases = plan.bases.iter().map(|(name, why)| json!({"name": name, "kept": why.map(|why| why.to_string())}));
    let needs =
        plan.needs.iter().map(|need| json!({"who": need.who.shown(), "from": need.from.map(|from| from.to_string())}));
    json!({
        "v": 1,
        "dir": dir,
        "engine": plan.scheme.engine().to_string(),
        "master": plan.is_master,
        "dry_run": is_dry,
        "from": plan.kept.first().map(|file| file.segment.to_string()),
        "bases": bases.collect::<Vec<_>>(),
        "needs": needs.collect::<Vec<_>>(),
        "removed": names(&plan.going),
        "removed_bases": plan.going_bases(),
        "bytes": plan.bytes(),
    })
}
