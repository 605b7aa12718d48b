//! The two ends of a sync from a command line: who is here, who is called, and what each is given.

use std::cell::OnceCell;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, FromArgMatches as _};
use parking_lot::Mutex;

use super::tell::Told;
use super::{Args, Place};
use crate::cli::args::ssh_options;
use crate::cli::report;
use crate::edge::bell::Bell;
use crate::edge::dir::{self, Dir};
use crate::edge::hook::describe;
use crate::edge::link::{self, Far, Inlet, Peer};
use crate::edge::signal::Stop;
use crate::edge::tree::Tree;
use crate::engine::sync::channel::SILENCE;
use crate::engine::sync::drive::{self, Options};
use crate::engine::sync::errand::Errands;
use crate::engine::sync::greeting::{self, Role};
use crate::engine::sync::profile::Profile;
use crate::engine::sync::receiver::{Desk, Link, Operator, identity};
use crate::engine::sync::source::{Source, serve};
use crate::engine::sync::{journal, stage, state};
use crate::rule::sync::filter::Filter;
use crate::rule::sync::wire::ask::{Errand, Say};
use crate::rule::sync::wire::corrupt;
use crate::value::escape::show;
use crate::value::exit::{Code, Failure, code_of, fail};

/// This command.
pub(super) const NAME: &str = "repl-sync";
/// How long a far end may take to come to its end once the link is closed.
const PARTING: Duration = Duration::from_secs(30);

/// What a hook is told.
const TOLD: [&str; 5] = ["REPL_POINT", "REPL_DIR", "REPL_ENGINE", "REPL_ERROR", "REPL_CODE"];

/// A link that works both ways.
struct Ends {
    input: OwnedFd,
    output: OwnedFd,
}

/// What the end with the destination does.
pub type Task<'a> = dyn Fn(&mut Link, &Operator<'_>) -> Result<()> + 'a;

/// Does what the command line asks.
pub fn run(args: &Args, filter: Filter, words: Vec<OsString>) -> Result<()> {
    if args.server {
        return answer(args);
    }
    if args.replicas.is_some() {
        return run_nearest(args, filter, &words);
    }
    let (source, destination) = args.places()?;
    let (path, options) = (destination.path(), args.options(filter.clone()));
    let report = join(args, filter, (&source, &destination), &words, &sync(&path, &options))?;
    report.map_or(Ok(()), |text| super::tell::report(args, &text))
}

/// A sync of this directory.
fn sync<'a>(destination: &'a Path, options: &'a Options) -> Box<Task<'a>> {
    Box::new(|link, operator| {
        let report = super::tell::object(&drive::run(link, destination, options, operator)?);
        link.tell(operator, Say::Report, report.to_string().as_bytes());
        Ok(())
    })
}

/// Brings two ends together. The task is this end's, if it has the destination; another end is called with these words.
/// Returns the report.
pub fn join(
    args: &Args,
    filter: Filter,
    (source, destination): (&Place, &Place),
    words: &[OsString],
    task: &Task<'_>,
) -> Result<Option<Vec<u8>>> {
    let told = Arc::new(Told::new(args));
    let stop = Stop::catch(Bell::new()).context("cannot catch signals")?;
    let done = match (source, destination) {
        (Place::Here(source), Place::Here(_)) => between(args, filter, source, &told, &stop, task),
        (Place::Here(source), _) => {
            let (peer, ends) = called(args, destination, Role::Destination, words)?;
            finish(peer, give(args, filter, source, ends, &told, &stop))
        }
        (_, Place::Here(_)) => {
            let (peer, ends) = called(args, source, Role::Source, words)?;
            finish(peer, take(ends, &here(args, &told), &stop, task))
        }
        _ => fail(Code::Usage, "one of SRC and DST must be here"),
    };
    match done {
        Err(error) if stop.is_asked() && code_of(&error) == Code::Link => fail(Code::Failed, "stopped by a signal"),
        done => done.map(|()| told.report.lock().take()),
    }
}

/// Syncs from the replica that has come farthest.
fn run_nearest(args: &Args, filter: Filter, words: &[OsString]) -> Result<()> {
    let mut farthest: Option<((u64, u64), OsString)> = None;
    for replica in args.candidates()? {
        let shown = replica.to_string_lossy().into_owned();
        match place_of(args, &replica, words) {
            Ok(Some(place)) if farthest.as_ref().is_none_or(|(best, _)| place > *best) => {
                farthest = Some((place, replica));
            }
            Ok(Some(_)) => {}
            Ok(None) => say(&format!("{shown} does not say where it stands")),
            Err(error) => say(&format!("{shown}: {error:#}")),
        }
    }
    let Some((_, chosen)) = farthest else {
        return fail(Code::Link, "none of the replicas says where it stands");
    };
    if !args.talk.quiet {
        say(&format!("{} has come farthest", chosen.to_string_lossy()));
    }
    let line = with_source(words, &chosen);
    let matches = Args::command().get_matches_from([OsString::from(NAME)].into_iter().chain(line.clone()));
    let args = Args::from_arg_matches(&matches).map_err(|error| Failure::new(Code::Usage, error.to_string()))?;
    run(&args, filter, line)
}

/// The command line with a source instead of replicas.
fn with_source(words: &[OsString], source: &OsString) -> Vec<OsString> {
    let mut line = vec![source.clone()];
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--replicas") => drop(words.next()),
            Some(word) if word.starts_with("--replicas=") => {}
            _ => line.push(word.clone()),
        }
    }
    line
}

/// How far a replica has come.
fn place_of(args: &Args, replica: &OsString, words: &[OsString]) -> Result<Option<(u64, u64)>> {
    let place = Place::parse(replica)?;
    if let Place::Here(path) = &place {
        let dir = Dir::open(path)?;
        return Ok(args.engine.map_or_else(|| Profile::detect(&dir), Ok)?.facts(&dir)?.place);
    }
    let (peer, ends) = called(args, &place, Role::Source, &with_source(words, replica))?;
    let link = Link::start(inlet(ends.input, None), std::fs::File::from(ends.output));
    let looked = Desk::new(&link.control, &Operator::There).look().map(|look| look.facts.place);
    let told = link.finish(&looked.as_ref().map(drop).map_err(|error| anyhow::anyhow!("{error:#}")));
    finish(peer, told)?;
    looked
}

/// Completes or takes back, here.
pub fn mend(args: &Args) -> Result<()> {
    let place = Place::parse(args.source.as_ref().context("no DST")?)?;
    let Place::Here(path) = place else {
        return fail(Code::Usage, "run this where DST is");
    };
    let destination = std::fs::canonicalize(&path).with_context(|| format!("cannot use {}", path.display()))?;
    if args.replay {
        return journal::recover::recover(&destination).map(drop);
    }
    let state = state::State::find(&destination)?;
    let state = state.with_context(|| format!("there is no old tree of {}", destination.display()))?;
    if let Some(who) = Profile::detect(&Dir::open(&destination)?)?.user(&Dir::open(&destination)?)? {
        let text = format!("a server still runs on {}: {who}", destination.display());
        return Err(Failure::new(Code::Guarded, text).hint("stop it first").into());
    }
    stage::roll_back(&state, &destination, args.reason.as_deref())
}

/// Both ends are here.
fn between(args: &Args, filter: Filter, source: &Path, told: &Arc<Told>, stop: &Stop, task: &Task<'_>) -> Result<()> {
    // One for each direction: an end that writes no more is seen at the other one, whatever it still reads.
    let pipe = || std::io::pipe().context("cannot make a pipe");
    let ((questions, asking), (answers, telling)) = (pipe()?, pipe()?);
    let given = give_end(args, filter, source, told)?;
    std::thread::scope(|scope| {
        let telling = std::fs::File::from(OwnedFd::from(telling));
        let giving = scope.spawn(|| serve(&given, inlet(questions.into(), None), telling));
        let ends = Ends { input: answers.into(), output: asking.into() };
        let taken = take(ends, &here(args, told), stop, task);
        let given = giving.join().unwrap_or_else(|_| fail(Code::Failed, "the source's end ended abruptly"));
        taken.and(given)
    })
}

/// A request to stop is the end of the link: until the switch, everything is left as it was.
fn inlet(fd: OwnedFd, stop: Option<&Stop>) -> Inlet<OwnedFd> {
    Inlet::new(fd, SILENCE, stop.cloned())
}

/// The end with the source.
fn give(args: &Args, filter: Filter, source: &Path, ends: Ends, told: &Arc<Told>, stop: &Stop) -> Result<()> {
    let source = give_end(args, filter, source, told)?;
    serve(&source, inlet(ends.input, Some(stop)), std::fs::File::from(ends.output))
}

fn give_end<'a>(args: &'a Args, filter: Filter, source: &Path, told: &Arc<Told>) -> Result<Source<'a>> {
    let tree = Tree::open(source)?;
    let told = Arc::clone(told);
    let dir = Dir::open(source)?;
    let profile = args.engine.map_or_else(|| Profile::detect(&dir), Ok)?;
    let settings = args.settings(profile, &std::path::absolute(source)?);
    let mut errands = Errands::new(settings, dir, identity(&tree)?);
    Ok(Source {
        identity: identity(&tree)?,
        tree,
        filter: Arc::new(drive::filter_of(&filter, profile)?),
        pack: args.pack(),
        rate: args.bwlimit,
        errand: Mutex::new(Box::new(move |errand, values| match errand {
            Errand::Hook => {
                // They become a hook's environment: nothing but what a hook is told gets in there.
                if let Some((key, _)) = values.iter().find(|(key, _)| !TOLD.contains(&key.as_str())) {
                    return Err(corrupt(format!("no hook is told {}", show(key))));
                }
                let point = values.iter().find(|(key, _)| key == "REPL_POINT").map(|(_, point)| point.clone());
                args.run_hooks(&point.unwrap_or_default(), &values).map(|()| Vec::new())
            }
            errand => errands.run(errand),
        })),
        say: Box::new(move |say, bytes| super::tell::say(args, &told, say, bytes)),
        traffic: Arc::default(),
    })
}

/// The operator, when they are at the end with the destination.
fn here<'a>(args: &'a Args, told: &Arc<Told>) -> Operator<'a> {
    let told = Arc::clone(told);
    Operator::Here {
        hook: Box::new(|point, values| args.run_hooks(point, values)),
        say: Box::new(move |say, bytes| super::tell::say(args, &told, say, bytes)),
    }
}

/// The end with the destination.
fn take(ends: Ends, operator: &Operator<'_>, stop: &Stop, task: &Task<'_>) -> Result<()> {
    let mut link = Link::start(inlet(ends.input, Some(stop)), std::fs::File::from(ends.output));
    let done = task(&mut link, operator);
    let told = link.finish(&done);
    // That the link broke at the very end changes nothing that was done.
    done.or_else(|error| told.and(Err(error)))
}

/// Calls the other end.
fn called(args: &Args, place: &Place, role: Role, words: &[OsString]) -> Result<(Peer, Ends)> {
    let far = far(args, place)?;
    let (peer, input, output) = far.start()?;
    let mut to = std::fs::File::from(input);
    let greeted = greeting::call(inlet(output.try_clone()?, None), &mut to, role, words);
    if let Err(error) = greeted {
        drop(to);
        let status = peer.finish(PARTING);
        let why = match status {
            Ok(status) if !status.success() => format!("the command for the other end {}", describe(status)),
            Ok(_) => "the other end ended".to_owned(),
            Err(error) => return Err(error),
        };
        return Err(if code_of(&error) == Code::Link { error.context(why) } else { error });
    }
    Ok((peer, Ends { input: output, output: to.into() }))
}

fn far(args: &Args, place: &Place) -> Result<Far> {
    let command = format!("{} --server", args.remote_command);
    match place {
        Place::Host(host, _) => {
            Ok(Far::Command(format!("exec {} {} {}", args.rsh, shell_words::quote(host), shell_words::quote(&command))))
        }
        Place::Url(url) => {
            let options = ssh_options(&args.identity)?;
            Ok(Far::Ssh { url: url.clone(), command, options })
        }
        Place::Here(_) => fail(Code::Usage, "one of SRC and DST must be elsewhere"),
    }
}

/// Waits for the far end once the link is closed; its own failure has been told over the link.
fn finish(peer: Peer, done: Result<()>) -> Result<()> {
    let ended = peer.finish(PARTING);
    done?;
    match ended? {
        status if status.success() => Ok(()),
        status => fail(Code::Link, format!("the other end {}", describe(status))),
    }
}

/// This is the other end: it says nothing but over the link.
fn answer(args: &Args) -> Result<()> {
    let kept = OnceCell::new();
    answered(|role, words| {
        let (asked, filter, root) = begin(args, role, words)?;
        let asked = kept.get_or_init(|| asked);
        Ok(match role {
            // What is wrong with it is said before anything is done.
            Role::Source => Part::Source(give_end(asked, filter, &root, &Arc::new(Told::new(args)))?),
            Role::Destination => {
                let options = asked.options(filter);
                Part::Destination(Box::new(move |link, operator| sync(&root, &options)(link, operator)))
            }
        })
    })
}

/// What an end that was called is to do.
pub enum Part<'a> {
    /// It has the source.
    Source(Source<'a>),
    /// It has the destination.
    Destination(Box<Task<'a>>),
}

/// Answers a call; what it asks for is read by `begin`, and refused over the link.
pub fn answered<'a>(begin: impl FnOnce(Role, Vec<OsString>) -> Result<Part<'a>>) -> Result<()> {
    let stop = Stop::catch(Bell::new()).context("cannot catch signals")?;
    let input = link::stream_input()?;
    let mut output = link::stream_output()?;
    let called = greeting::answer(inlet(input.try_clone()?, None), &mut output);
    let (rest, role, words) = greeting::or_refuse(&mut output, called)?;
    drop(rest);
    let begun = begin(role, words);
    let part = greeting::or_refuse(&mut output, begun)?;
    greeting::welcome(&mut output)?;
    match part {
        Part::Source(source) => serve(&source, inlet(input, Some(&stop)), std::fs::File::from(OwnedFd::from(output))),
        Part::Destination(task) => take(Ends { input, output: output.into() }, &Operator::There, &stop, &task),
    }
}

/// Reads what the client wants.
fn begin(args: &Args, role: Role, words: Vec<OsString>) -> Result<(Args, Filter, std::path::PathBuf)> {
    let line = [OsString::from(NAME)].into_iter().chain(words);
    let matches = Args::command().try_get_matches_from(line);
    let matches = matches.or_else(|error| fail(Code::Usage, format!("the other end's command line: {error}")))?;
    let mut asked = Args::from_arg_matches(&matches).map_err(|error| Failure::new(Code::Usage, error.to_string()))?;
    let filter = asked.filter(&matches)?;
    let (source, destination) = asked.places()?;
    let path = match role {
        Role::Source => source.path(),
        Role::Destination => destination.path(),
    };
    let path = match &args.restrict {
        Some(root) => {
            asked.submit(args, role)?;
            confined(root, &path)?
        }
        None => {
            asked.lend(args, role);
            path
        }
    };
    Ok((asked, filter, path))
}

/// A path below a root.
pub fn confined(root: &Path, path: &Path) -> Result<std::path::PathBuf> {
    let root = std::fs::canonicalize(root).with_context(|| format!("cannot use {}", root.display()))?;
    let below = if path.is_absolute() { path.strip_prefix(&root).ok() } else { Some(path) };
    let is_below = |path: &&Path| {
        path.components().all(|part| matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir))
    };
    let Some(below) = below.filter(is_below) else {
        return fail(Code::Fenced, format!("{} is outside of what this key may use", path.display()));
    };
    // A link may lead anywhere, and whoever may sync can make one: also a moment after this.
    dir::confine(&root)?;
    let mut way = root;
    for part in below.components() {
        way.push(part);
        if way.is_symlink() {
            return fail(Code::Fenced, format!("{} is a symbolic link: this key may not use it", way.display()));
        }
    }
    Ok(way)
}

/// For the words of this command.
pub fn say(text: &str) {
    report::say(NAME, text);
}
