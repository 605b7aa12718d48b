//! Streams made by hand: what an honest sender writes, frame by frame, and what a hostile or unlucky one might.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use repl::rule::pattern::Pattern;
use repl::rule::scheme::Scheme;
use repl::rule::stream::frame::{COMPRESSED, Kind, header};
use repl::rule::stream::hello::Hello;
use repl::rule::stream::magic::MAGIC;
use repl::rule::stream::message::{Begin, Message, Previous};
use repl::value::digest::{Digest, Running};
use repl::value::position::{Position, Segment};
use repl::value::time::Time;

use super::rig::{APPLY, Ran, Rig};

/// The hello that most tests use: set `orders`, plain segments `log.1`, `log.2`.
pub fn hello() -> Hello {
    Hello {
        set: "orders".into(),
        scheme: Scheme::Plain(Pattern::parse("log.%S").unwrap()),
        epoch: 3,
        fingerprint: String::new(),
        site: "mars".into(),
        instance: None,
    }
}

/// `1-SEQUENCE:OFFSET`.
pub fn at(sequence: u64, offset: u64) -> Position {
    Segment::new(1, sequence).at(offset)
}

/// A stream being written.
#[derive(Clone)]
pub struct Stream {
    pub bytes: Vec<u8>,
    /// After how many bytes of the stream which position is received.
    pub held: Vec<(usize, Option<Position>)>,
    /// What each begin says of the master's end.
    pub end: Position,
    place: Position,
    running: Running,
    /// Of no bytes.
    nothing: Running,
    previous: Option<Previous>,
}

impl Stream {
    pub fn new() -> Stream {
        Stream::of(&hello())
    }

    pub fn of(hello: &Hello) -> Stream {
        let nothing = hello.scheme.running();
        Stream { running: nothing.clone(), nothing, ..Stream::saying(&hello.print()) }
    }

    /// With this text as its hello.
    pub fn saying(hello: &str) -> Stream {
        let mut stream = Stream {
            bytes: MAGIC.to_vec(),
            held: vec![(0, None)],
            end: at(99, 0),
            place: at(1, 0),
            running: Running::new(),
            nothing: Running::new(),
            previous: None,
        };
        stream.frame(&Message::Hello(hello.as_bytes()));
        stream
    }

    pub fn frame(&mut self, message: &Message<'_>) -> &mut Stream {
        let flags = if matches!(message, Message::Packed { .. }) { COMPRESSED } else { 0 };
        let (kind, payload) = message.encode();
        self.raw(kind, flags, &payload)
    }

    /// A frame with right checksums, whatever is in it.
    pub fn raw(&mut self, kind: Kind, flags: u8, payload: &[u8]) -> &mut Stream {
        self.bytes.extend(header(kind, flags, &[payload]));
        self.bytes.extend(payload);
        self
    }

    /// Begins a segment at its first byte; the one that ended before is named.
    pub fn begin(&mut self, sequence: u64) -> &mut Stream {
        self.begin_after(sequence, b"")
    }

    /// Begins behind bytes that the receiver should have.
    pub fn begin_after(&mut self, sequence: u64, before: &[u8]) -> &mut Stream {
        self.running = self.nothing.clone();
        self.running.update(before);
        self.place = at(sequence, before.len() as u64);
        let previous = self.previous.take().filter(|_| before.is_empty());
        let begin = Begin { position: self.place, end: self.end, digest: self.running.digest(), previous };
        self.frame(&Message::Begin(begin))
    }

    /// As `begin`, with this segment said to be the one before.
    pub fn begin_behind(&mut self, sequence: u64, before: &[u8]) -> &mut Stream {
        let segment = Segment::new(1, sequence - 1);
        self.previous = Some(Previous { segment, length: before.len() as u64, digest: Digest::of(before) });
        self.begin(sequence)
    }

    pub fn data(&mut self, bytes: &[u8]) -> &mut Stream {
        self.frame(&Message::Data { offset: self.place.offset, bytes });
        self.running.update(bytes);
        self.went(bytes.len() as u64)
    }

    pub fn hole(&mut self, length: u64) -> &mut Stream {
        self.frame(&Message::Hole { offset: self.place.offset, length });
        self.running.zeros(length);
        self.went(length)
    }

    fn went(&mut self, length: u64) -> &mut Stream {
        self.place.offset += length;
        self.held.push((self.bytes.len(), Some(self.place)));
        self
    }

    pub fn mark(&mut self, seconds: i64) -> &mut Stream {
        let (offset, digest) = (self.place.offset, self.running.digest());
        self.frame(&Message::Mark { offset, time: Some(Time(seconds * 1_000_000)), digest })
    }

    pub fn end(&mut self) -> &mut Stream {
        let (length, digest) = (self.place.offset, self.running.digest());
        self.previous = Some(Previous { segment: self.place.segment, length, digest });
        self.frame(&Message::End { length, digest });
        self.held.push((self.bytes.len(), Some(self.place)));
        self
    }

    /// A whole segment.
    pub fn segment(&mut self, sequence: u64, bytes: &[u8]) -> &mut Stream {
        self.begin(sequence).data(bytes).end()
    }

    pub fn patch(&mut self, offset: u64, bytes: &[u8]) -> &mut Stream {
        self.frame(&Message::Patch { offset, bytes })
    }

    pub fn heartbeat(&mut self) -> &mut Stream {
        self.frame(&Message::Heartbeat { end: self.end, clock: Time(0) })
    }

    pub fn bye(&mut self) -> &mut Stream {
        self.frame(&Message::Bye { end: self.place })
    }

    /// Other bytes in the place of these.
    pub fn instead(&self, bytes: Vec<u8>) -> Stream {
        Stream { bytes, ..self.clone() }
    }

    /// What a receiver of the first `count` bytes holds.
    pub fn held_after(&self, count: usize) -> Option<Position> {
        self.held.iter().rev().find(|(least, _)| *least <= count).and_then(|(_, held)| *held)
    }
}

/// Runs a command with this on its standard input.
pub fn feed(mut command: Command, stream: &[u8]) -> Ran {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        // A receiver that refuses closes its end: then there is nothing more to write.
        scope.spawn(move || drop(input.write_all(stream)));
        child.wait_with_output().unwrap()
    });
    Ran::from(output)
}

/// `repl-apply ARGS DIRECTORY` fed with this.
pub fn apply_to(directory: &Path, args: &[&str], stream: &[u8]) -> Ran {
    let mut command = Command::new(APPLY);
    command.args(args).arg(directory);
    feed(command, stream)
}

/// `repl-apply --acks ARGS replica` fed with this; arguments are separated by spaces.
pub fn apply(rig: &Rig, args: &str, stream: &Stream) -> Ran {
    let args: Vec<&str> = ["--acks"].into_iter().chain(args.split_whitespace()).collect();
    apply_to(&rig.replica(), &args, &stream.bytes)
}

/// What `--position` says of a directory.
pub fn position(directory: &Path) -> String {
    let output = Command::new(APPLY).arg("--position").arg(directory).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// A bookmark of these bytes of a segment.
pub fn bookmark(sequence: u64, bytes: &[u8]) -> String {
    format!("{}+{}", at(sequence, bytes.len() as u64), Digest::of(bytes).proof())
}

/// Everything below a directory but `.repl`: kind, mode, owner, links, size, time of last write, and content.
pub fn tree(directory: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    if directory.exists() {
        walk(directory, directory, &mut found);
    }
    found
}

fn walk(root: &Path, directory: &Path, found: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().is_some_and(|name| name == ".repl") {
            continue;
        }
        let meta = path.symlink_metadata().unwrap();
        let more = if meta.is_symlink() {
            format!("to {}", path.read_link().unwrap().display())
        } else if meta.is_file() {
            let digest = Digest::of(&std::fs::read(&path).unwrap());
            format!("{} {} {}.{} {digest}", meta.nlink(), meta.len(), meta.mtime(), meta.mtime_nsec())
        } else {
            String::new()
        };
        if meta.is_dir() {
            walk(root, &path, found);
        }
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes();
        found.insert(String::from_utf8_lossy(name).into_owned(), format!("{:o} {} {more}", meta.mode(), meta.uid()));
    }
}

/// A refusal: this code, these words, and nothing changed, neither in the directory nor in what is held.
#[track_caller]
pub fn refused(rig: &Rig, args: &str, stream: &Stream, code: i32, says: &str) -> Ran {
    let before = (tree(rig.root.path()), position(&rig.replica()));
    let ran = apply(rig, args, stream);
    ran.fails(code, says);
    let mut after = (tree(rig.root.path()), position(&rig.replica()));
    // The directory itself may have been made; nothing in it.
    if !before.0.contains_key("replica") {
        after.0.remove("replica");
    }
    assert_eq!(after, before, "{ran:?}");
    let first = ran.err.lines().next().unwrap_or_default();
    assert!(first.starts_with("repl-apply: "), "{ran:?}");
    let told = format!("refuse {code} ");
    assert!(code == 7 || code == 2 || ran.out.lines().last().is_some_and(|line| line.starts_with(&told)), "{ran:?}");
    ran
}

/// A stream that is taken whole.
#[track_caller]
pub fn taken(rig: &Rig, args: &str, stream: &Stream) -> Ran {
    let ran = apply(rig, args, stream);
    assert_eq!(ran.code, 0, "{ran:?}");
    ran
}

/// A file of the replica.
pub fn landed(rig: &Rig, name: &str) -> Vec<u8> {
    std::fs::read(rig.replica().join(name)).unwrap()
}

/// A field of the last ack line.
pub fn acked(ran: &Ran, level: &str) -> Option<String> {
    let line = ran.out.lines().rev().find(|line| line.starts_with("ack "))?;
    line.split(' ').find_map(|pair| pair.strip_prefix(level)?.strip_prefix('=')).map(str::to_owned)
}
