//! A destination that asks for what is not its to have: the source's end reads nothing but what takes part, within
//! bounds, and runs and shows nothing but what the operator has said.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::process::{ChildStdin, ChildStdout};
use std::sync::atomic::{AtomicUsize, Ordering};

use repl::engine::sync::greeting::{self, Role};
use repl::rule::sync::merkle::{GROUP, RANGE};
use repl::rule::sync::wire::ask::{Ask, Errand, Pages, Part, Say};
use repl::rule::sync::wire::tell::{Small, Tell};
use repl::rule::sync::wire::{Frame, seal};
use repl::value::exit::Code;
use repl::value::name::Name;

use crate::far::{call, frame};
use crate::rig::{Ran, Running, eventually};
use crate::stand::{Far, SYNC, Stand};

/// A destination's side of a link to a real source.
struct Asker {
    running: Running,
    to: ChildStdin,
    from: ChildStdout,
}

impl Asker {
    fn start(stand: &Stand, memory: u64, more: &str) -> Asker {
        let line = stand.line(Far::Source, "", more);
        let (running, to, from) = call(stand, Role::Source, memory, SYNC, line.split_once(" --json ").unwrap().1);
        Asker { running, to, from }
    }

    fn send(&mut self, frame: &[u8]) {
        // One that has had enough of us does not read any more.
        let _ = self.to.write_all(frame).and_then(|()| self.to.flush());
    }

    fn ask(&mut self, ask: &Ask) -> Tell {
        self.send(&ask.seal(1));
        Tell::parse(self.hear().unwrap()).unwrap()
    }

    fn hear(&mut self) -> Option<Frame> {
        frame(&mut self.from)
    }

    fn end(self) -> Ran {
        let Asker { mut running, to, from } = self;
        drop((to, from));
        running.wait()
    }
}

fn name(bytes: &[u8]) -> Name {
    Name::root().join(bytes)
}

fn part(file: &[u8], offset: u64, length: u64, size: u64) -> Part {
    Part { name: name(file), offset, length, size }
}

#[test]
fn questions_that_no_honest_end_has_are_refused() {
    let stand = Stand::new();
    let mut bad: Vec<(String, Vec<u8>)> = Vec::new();
    for file in [b"../outside/canary".as_slice(), b"/etc/passwd", b"..", b"d/../../x", b"d\0", b"d//e", &[b'z'; 256]] {
        let shown = String::from_utf8_lossy(file).into_owned();
        bad.push((format!("small {shown}"), Ask::Small(vec![(name(file), None)]).seal(1)));
        bad.push((format!("bytes {shown}"), Ask::Bytes(part(file, 0, 1, 1)).seal(1)));
    }
    for (offset, length, size) in [
        (1, 1, 2),
        (0, 0, 1),
        (0, RANGE + 1, RANGE * 2),
        (0, 2, 1),
        (u64::MAX / RANGE * RANGE, RANGE, u64::MAX),
        (0, 1, 1 << 63),
    ] {
        let part = part(b"steady", offset, length, size);
        bad.push((format!("{part:?}"), Ask::Digests(part).seal(1)));
    }
    let whole = || part(b"steady", 0, 500_000, 500_000);
    let group = |offset: u64, count: usize| Pages { offset, digests: vec![[0; 8]; count] };
    for (size, groups) in [
        (3, vec![group(0, 1)]),
        (0, vec![group(0, 1)]),
        (16384, vec![group(0, 5)]),
        (16384, vec![group(GROUP * 8, 1)]),
        (16384, vec![group(GROUP, 0), group(0, 0)]),
        (16384, vec![group(0, 0); 100_000]),
    ] {
        bad.push((format!("{} groups of {size}", groups.len()), Ask::Pages(whole(), size, groups).seal(1)));
    }
    for (block, entries) in [(0, 12), (3, 12), (1 << 31, 12), (2048, 13), (2048, 12 * 30_000)] {
        bad.push((format!("blocks of {block}"), Ask::Moved(whole(), block, vec![0; entries]).seal(1)));
    }
    let many = Ask::Small(vec![(name(b"x"), None); 2000]);
    bad.push(("too many files".to_owned(), many.seal(1)));
    bad.push(("a line that is none".to_owned(), Ask::List.seal(64)));
    bad.push(("a kind that is none".to_owned(), seal(b'?', 1, b"", None)));
    bad.push(("an errand that is none".to_owned(), seal(b'R', 0, &[99], None)));
    bad.push(("a failure that is none".to_owned(), seal(b'F', 0, &[0, 0, 0, 0, 0, 0, 0, 0, 0], None)));
    for (what, frame) in bad {
        let mut asker = Asker::start(&stand, 1_000_000, "");
        asker.send(&frame);
        assert!(asker.hear().is_none(), "{what} was answered");
        let ran = asker.end();
        assert!(ran.code == 6 && !ran.err.contains("panicked"), "{what}: {ran:?}");
    }
}

#[test]
fn nothing_is_read_that_takes_no_part() {
    let stand = Stand::new();
    fs::create_dir_all(stand.path("outside")).unwrap();
    fs::create_dir_all(stand.src(".repl")).unwrap();
    fs::create_dir_all(stand.src("private")).unwrap();
    for secret in ["outside/canary", "src/.repl/epoch", "src/private/key", "src/d/x.secret"] {
        fs::write(stand.path(secret), "the canary").unwrap();
    }
    symlink("../outside/canary", stand.src("link")).unwrap();
    symlink("../outside", stand.src("way")).unwrap();
    stand.rig.ok("mkfifo src/fifo");
    let mut asker = Asker::start(&stand, 1_000_000, "--exclude /private/ --exclude '*.secret'");
    for file in ["link", "way/canary", "way", "fifo", "d", "", ".repl/epoch", "private/key", "d/x.secret", "nothing"] {
        let file = file.as_bytes();
        let own = if file.is_empty() { Name::root() } else { name(file) };
        let told = asker.ask(&Ask::Small(vec![(own, None)]));
        assert!(matches!(&told, Tell::Smalls(files) if matches!(files[..], [Small::Gone(_)])), "{told:?}");
        if file.is_empty() {
            continue;
        }
        for ask in [
            Ask::Digests(part(file, 0, 10, 10)),
            Ask::Bytes(part(file, 0, 10, 10)),
            Ask::Pages(part(file, 0, 10, 10), 4096, vec![Pages { offset: 0, digests: Vec::new() }]),
            Ask::Moved(part(file, 0, 10, 10), 2048, Vec::new()),
        ] {
            let told = asker.ask(&ask);
            assert!(matches!(told, Tell::Gone(_)), "{ask:?}: {told:?}");
        }
    }
    // An ordinary one.
    let told = asker.ask(&Ask::Small(vec![(name(b"d/1"), None)]));
    assert!(matches!(&told, Tell::Smalls(files) if matches!(files[..], [Small::Whole(..)])), "{told:?}");
    // Behind its end a file has nothing.
    assert!(matches!(asker.ask(&Ask::Bytes(part(b"steady", 0, RANGE, 1 << 40))), Tell::Gone(_)));
    asker.send(&Ask::Bye.seal(0));
    let ran = asker.end();
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn questions_without_end_wait_until_the_answers_are_read() {
    const COUNT: usize = 400;
    let stand = Stand::new();
    let mut asker = Asker::start(&stand, 700_000, "");
    // 2 MB each, and all that the source would need to remember of it.
    let long = [b"y".repeat(250), b"y".repeat(250), b"y".repeat(250), b"y".repeat(250)].join(&b'/');
    let question = Ask::Small(vec![(name(&[long.as_slice(), b"/x"].concat()), Some([0; 32])); 1000]).seal(1);
    let sent = AtomicUsize::new(0);
    let pid = asker.running.child.id();
    let status = || fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    std::thread::scope(|scope| {
        let (to, sent) = (&mut asker.to, &sent);
        scope.spawn(move || {
            for _ in 0..COUNT {
                to.write_all(&question).unwrap();
                sent.fetch_add(1, Ordering::SeqCst);
            }
        });
        // It takes no more, or it has taken all of it.
        let (mut last, mut same) = (0, 0);
        eventually("a stop", || {
            let now = sent.load(Ordering::SeqCst);
            same = if now == last { same + 1 } else { 0 };
            last = now;
            same > 100 || now == COUNT
        });
        let peak: u64 = status()
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap();
        assert!(last < COUNT, "all were taken, {peak} KiB");
        assert!(peak < 400_000, "{peak} KiB");
        let mut answers = 0;
        while answers < COUNT * 1000 {
            let Tell::Smalls(files) = Tell::parse(frame(&mut asker.from).unwrap()).unwrap() else {
                panic!("no answer")
            };
            answers += files.len();
        }
    });
    asker.send(&Ask::Bye.seal(0));
    let ran = asker.end();
    assert_eq!(ran.code, 0, "{ran:?}");
}

/// A client whose far end is the test, by two fifos.
fn called(stand: &Stand, more: &str, play: impl FnOnce(fs::File, fs::File)) -> Ran {
    stand.rig.ok("mkfifo up down; printf '#!/bin/bash\\ncat down & exec cat >up\\n' >far; chmod +x far");
    let line = stand.line(Far::Destination, "", more).replacen("-e ./rsh", "-e ./far", 1);
    let mut running = stand.rig.spawn(&line);
    let mut input = fs::File::open(stand.path("up")).unwrap();
    let mut output = fs::OpenOptions::new().write(true).open(stand.path("down")).unwrap();
    let (_, role, _) = greeting::answer(&mut input, &mut output).unwrap();
    assert_eq!(role, Role::Destination);
    greeting::welcome(&mut output).unwrap();
    play(input, output);
    let ran = running.wait();
    stand.quiet();
    fs::remove_file(stand.path("up")).unwrap();
    fs::remove_file(stand.path("down")).unwrap();
    ran
}

#[test]
fn a_hook_is_told_only_what_hooks_are_told() {
    let stand = Stand::new();
    let hook = "--hook before-sync='env >seen'";
    let run = |values: &[(&str, &str)]| {
        let values = values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let mut told = None;
        let ran = called(&stand, hook, |mut input, mut output| {
            output.write_all(&Ask::Run(Errand::Hook, values).seal(0)).unwrap();
            told = Some(Tell::parse(frame(&mut input).unwrap()).unwrap());
            output.write_all(&Ask::Bye.seal(0)).unwrap();
        });
        (told.unwrap(), ran)
    };
    for key in ["LD_PRELOAD", "PATH", "BASH_ENV", "REPL_OPT_X", "ENV", "REPL_", ""] {
        let (told, _) = run(&[("REPL_POINT", "before-sync"), (key, "/tmp/evil")]);
        assert!(matches!(told, Tell::Failed(Code::Corrupt, ..)), "{key}: {told:?}");
        assert!(!stand.path("seen").exists(), "{key}");
    }
    let (told, ran) = run(&[("REPL_POINT", "before-sync"), ("REPL_DIR", "/there")]);
    assert_eq!(told, Tell::Ran(Vec::new()), "{ran:?}");
    assert!(fs::read_to_string(stand.path("seen")).unwrap().contains("REPL_DIR=/there\n"));
    // A point that the operator has no hook for is none; one that does not exist, neither.
    for point in ["after-sync", "../x", "before-sync; id"] {
        assert_eq!(run(&[("REPL_POINT", point)]).0, Tell::Ran(Vec::new()), "{point}");
    }
}

#[test]
fn what_it_shows_is_harmless_and_its_end_is_no_success() {
    let stand = Stand::new();
    let evil = "\u{1b}]0;evil\u{7}\u{1b}[2J\u{9b}1m";
    let ran = called(&stand, "-v", |_, mut output| {
        for say in [Say::Out, Say::Warning, Say::Verbose, Say::Progress, Say::Report] {
            output.write_all(&Ask::Say(say, format!("{evil}said\n").into_bytes()).seal(0)).unwrap();
        }
        output.write_all(&Ask::Fail(Code::Full, evil.to_owned(), evil.to_owned()).seal(0)).unwrap();
    });
    ran.fails(12, "said");
    assert!(ran.out.contains("said"), "{ran:?}");
    let is_harmless = |text: &str| text.chars().all(|ch| ch == '\n' || !ch.is_control());
    assert!(is_harmless(&ran.out) && is_harmless(&ran.err), "{ran:?}");
    // A report that is none, at an end that claims success.
    let ran = called(&stand, "", |_, mut output| {
        output.write_all(&Ask::Say(Say::Report, evil.into()).seal(0)).unwrap();
        output.write_all(&Ask::Bye.seal(0)).unwrap();
    });
    assert!(is_harmless(&ran.out) && is_harmless(&ran.err), "{ran:?}");
}
