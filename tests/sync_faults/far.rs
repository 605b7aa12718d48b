//! The far end of a link, played by the test.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use repl::edge::dir::Dir;
use repl::edge::tree::Tree;
use repl::engine::sync::channel;
use repl::engine::sync::drive::filter_of;
use repl::engine::sync::errand::Errands;
use repl::engine::sync::greeting::{self, Role};
use repl::engine::sync::procedure::Settings;
use repl::engine::sync::profile::Profile;
use repl::engine::sync::receiver::identity;
use repl::engine::sync::source::{Source, serve};
use repl::rule::sync::filter::Filter;
use repl::rule::sync::wire::Frame;
use repl::rule::sync::wire::tell::Tell;

use crate::rig::{Ran, Running};
use crate::stand::Stand;

/// What goes out for an answer of the honest source.
pub enum Word {
    /// An answer on the same line.
    Say(Tell),
    /// One on another line.
    On(u16, Tell),
    /// Bytes as they are.
    Raw(Vec<u8>),
    /// The end of the link.
    Cut,
}

/// What is made of each answer.
pub type Alter = Box<dyn FnMut(Tell) -> Vec<Word> + Send>;

/// Starts `repl-sync --server`, which may not have more than this address space (in KiB), as one with that role.
pub fn call(stand: &Stand, role: Role, memory: u64, program: &str, words: &str) -> (Running, ChildStdin, ChildStdout) {
    let script = format!("ulimit -v {memory}; export MALLOC_ARENA_MAX=2; exec {program} --server");
    let mut command = stand.rig.sh(&script);
    command.stdin(Stdio::piped());
    let mut running = Running::start_talking(command, &stand.path("far"));
    let (mut to, mut from) = (running.child.stdin.take().unwrap(), running.child.stdout.take().unwrap());
    let words = shell_words::split(words).unwrap();
    let words: Vec<_> = words.into_iter().map(Into::into).collect();
    greeting::call(&mut from, &mut to, role, &words).unwrap();
    (running, to, from)
}

/// Plays a source for a real destination: that of the stand, with its answers altered on the way.
pub fn play_source(stand: &Stand, program: &str, words: &str, mut alter: Alter) -> Ran {
    stand.bless();
    let (mut running, mut to, mut from) = call(stand, Role::Destination, 2_000_000, program, words);
    let (near, far) = UnixStream::pair().unwrap();
    let (mut near_read, far_read) = (near.try_clone().unwrap(), far.try_clone().unwrap());
    let source = source(stand);
    std::thread::scope(|scope| {
        // Its end comes with that of the link, which is an error to it.
        scope.spawn(|| serve(&source, far_read, far));
        scope.spawn(move || {
            let mut near = near;
            let _ = std::io::copy(&mut from, &mut near);
            // The other end is gone.
            let _ = near.shutdown(Shutdown::Both);
        });
        while let Some(frame) = frame(&mut near_read) {
            let line = frame.line;
            let words = alter(Tell::parse(frame).unwrap());
            let sent = words.into_iter().try_for_each(|word| match word {
                Word::Say(tell) => to.write_all(&tell.seal(line, None)),
                Word::On(line, tell) => to.write_all(&tell.seal(line, None)),
                Word::Raw(bytes) => to.write_all(&bytes),
                Word::Cut => Err(std::io::ErrorKind::BrokenPipe.into()),
            });
            if sent.and_then(|()| to.flush()).is_err() {
                break;
            }
        }
        drop(to);
        let ran = running.wait();
        let _ = near_read.shutdown(Shutdown::Both);
        ran
    })
}

/// The next frame that is not only a sign of life.
pub fn frame(input: &mut impl Read) -> Option<Frame> {
    loop {
        let frame = channel::frame(input).ok()?;
        if frame.kind != b'T' {
            return Some(frame);
        }
    }
}

/// The stand's source as the library serves it.
fn source(stand: &Stand) -> Source<'static> {
    let root = stand.path("src");
    let tree = Tree::open(&root).unwrap();
    let timeout = Duration::from_secs(60);
    let settings = Settings {
        profile: Profile::Plain,
        source: root.clone(),
        dsn: None,
        freeze: None,
        thaw: None,
        run_as: None,
        timeout,
    };
    let identity = identity(&tree).unwrap();
    let mut errands = Errands::new(settings, Dir::open(&root).unwrap(), identity.clone());
    Source {
        identity,
        tree,
        filter: Arc::new(filter_of(&Filter::default(), Profile::Plain).unwrap()),
        pack: None,
        rate: None,
        errand: Mutex::new(Box::new(move |errand, _| errands.run(errand))),
        say: Box::new(|_, _| ()),
        traffic: Arc::default(),
    }
}
