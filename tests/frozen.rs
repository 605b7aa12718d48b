//! Formats that are out in the world: each committed sample is decoded, and every field is compared with a value
//! written here. A sample is never edited and never written again; a change of layout is a new version with a new sample.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::Value;

use repl::edge::dir::Dir;
use repl::edge::lock::Lock;
use repl::engine::archive::lease::{self, Lease};
use repl::engine::prune::dropped::{self, Dropped};
use repl::engine::role::pause::{self, Direction};
use repl::engine::role::record::{self as role, Role};
use repl::engine::ship::{earlier, status};
use repl::engine::site::{horizon, master};
use repl::engine::sync::journal::op::{Extent, Op};
use repl::engine::sync::journal::record::{self, Header as SyncHeader, Id, Record};
use repl::engine::sync::marker::{Marker, Step};
use repl::rule::digests::{Digests, Held, Log};
use repl::rule::instance;
use repl::rule::pattern::Pattern;
use repl::rule::scheme::{Engine, Scheme};
use repl::rule::status::judge::Limits;
use repl::rule::status::past::Sample;
use repl::rule::status::receiver::{Receiver, Session};
use repl::rule::status::sender::{Lag, Link, Paused, Sender, Site};
use repl::rule::status::{Part, Report, What, json};
use repl::rule::stream::back::{Ack, Line, Welcome};
use repl::rule::stream::codec::Unpacker;
use repl::rule::stream::frame::{COMPRESSED, HEADER, Header, KINDS, Kind, header};
use repl::rule::stream::hello::Hello;
use repl::rule::stream::magic::{MAGIC, judge};
use repl::rule::stream::message::{Begin, Message, Previous, decode};
use repl::value::digest::{Digest, Running};
use repl::value::entry::{Entry, Kind as EntryKind, Moment, Stamp};
use repl::value::exit::Code;
use repl::value::name::Name;
use repl::value::position::{Position, Segment, Start};
use repl::value::time::Time;

const STREAM: &[u8] = include_bytes!("data/stream-v1.bin");
const STREAM_ZSTD: &[u8] = include_bytes!("data/stream-v1-zstd.bin");
const STREAM_RARE: &[u8] = include_bytes!("data/stream-v1-rare.bin");
const BACK: &[u8] = include_bytes!("data/back-v1.txt");
const DIGESTS: &[u8] = include_bytes!("data/digests-v1.txt");
const SYNC_MARKER: &[u8] = include_bytes!("data/sync-marker-v1.txt");
const PRUNED: &str = include_str!("data/prune-pruned-v1.txt");
const LEASE: &str = include_str!("data/prune-lease-v1.txt");
const DROPPED: &str = include_str!("data/prune-dropped-v1.txt");
const STATUS_SENDER: &[u8] = include_bytes!("data/status-sender-v1.json");
const STATUS_RECEIVER: &[u8] = include_bytes!("data/status-receiver-v1.json");
const STATUS_LAG: &str = include_str!("data/status-lag-v1.jsonl");
const STATUS_REPORT: &[u8] = include_bytes!("data/status-report-v1.json");
const RECEIVER: &str = include_str!("data/receiver-v1.json");
const INSTANCE: &str = include_str!("data/instance-v1.txt");
const ROLE: &str = include_str!("data/role-v1.txt");
const MD4_COLLISION: &[u8] = include_bytes!("data/md4-collision.txt");
const SYNC_LOG: &[u8] = include_bytes!("data/sync-log-v1.bin");
const SYNC_FINAL: &[u8] = include_bytes!("data/sync-fin-v1.bin");

/// What the samples' three data frames hold.
const LOG: [&[u8]; 3] = [
    b"order 1: 3 apples\norder 2: 5 pears\n",
    b"order 3: 3 apples\norder 4: 5 pears\n",
    b"order 5: 3 apples\norder 6: 5 pears\n",
];
const EMPTY: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
const FIRST_35: &str = "607fff3f1ca88ac46b6029e2dd8081145d8f34efd2079f576683c1663d9964ec";
const WHOLE: &str = "45e423245e39398fcd9603972730ea932c921ba61f51a9fd67f97fc39f8db6d3";

fn digest(text: &str) -> Digest {
    Digest::parse(text).unwrap()
}

fn position(text: &str) -> Position {
    text.parse().unwrap()
}

/// A stream's frames, their headers and payloads checked.
fn frames(stream: &[u8]) -> Vec<(Header, &[u8])> {
    let (magic, mut rest) = stream.split_first_chunk().unwrap();
    assert_eq!(judge(*magic), None);
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let (bytes, behind) = rest.split_first_chunk::<HEADER>().unwrap();
        let header = Header::parse(bytes).unwrap();
        let (payload, behind) = behind.split_at(header.length);
        header.check(payload).unwrap();
        frames.push((header, payload));
        rest = behind;
    }
    frames
}

fn messages(stream: &[u8]) -> Vec<Message<'_>> {
    frames(stream).into_iter().map(|(header, payload)| decode(header.kind, header.flags, payload).unwrap()).collect()
}

/// The bytes of a stream of these messages.
fn encode(messages: &[Message<'_>]) -> Vec<u8> {
    let mut stream = MAGIC.to_vec();
    for message in messages {
        let flags = if matches!(message, Message::Packed { .. }) { COMPRESSED } else { 0 };
        let (kind, payload) = message.encode();
        stream.extend(header(kind, flags, &[&payload]));
        stream.extend(payload);
    }
    stream
}

const HELLO: &[u8] =
    b"v=1\nset=orders\nengine=plain\npattern=log.%25S\nidentity=-\nsegment-size=0\nepoch=1\nfingerprint=-\nsite=venus\n";

/// The samples' messages; `data` makes the n-th data frame.
fn conversation<'a>(data: impl Fn(usize, u64) -> Message<'a>) -> Vec<Message<'a>> {
    let end = position("1-2:35");
    vec![
        Message::Hello(HELLO),
        Message::Begin(Begin { position: position("1-1:0"), end, digest: digest(EMPTY), previous: None }),
        data(0, 0),
        Message::Mark { offset: 35, time: Some(Time(1_776_538_457_000_000)), digest: digest(FIRST_35) },
        Message::Hole { offset: 35, length: 4061 },
        data(1, 4096),
        Message::End { length: 4131, digest: digest(WHOLE) },
        Message::Begin(Begin {
            position: position("1-2:0"),
            end,
            digest: digest(EMPTY),
            previous: Some(Previous { segment: Segment::new(1, 1), length: 4131, digest: digest(WHOLE) }),
        }),
        data(2, 0),
        Message::Heartbeat { end, clock: Time(1_776_538_460_250_000) },
        Message::Bye { end },
    ]
}

#[test]
fn the_magic_and_the_letters_of_the_kinds_stay() {
    assert_eq!(MAGIC, [0x93, 0x52, 0x50, 0x4c, 0x0d, 0x0a, 0x1a, 0x8a]);
    assert_eq!(STREAM[..8], MAGIC);
    let kinds: Vec<u8> = frames(STREAM).iter().map(|(header, _)| header.kind as u8).collect();
    assert_eq!(kinds, b"HBDMZDEBDTQ");
    let kinds: Vec<u8> = frames(STREAM_RARE).iter().map(|(header, _)| header.kind as u8).collect();
    assert_eq!(kinds, b"HABDMPTQ");
}

#[test]
fn a_plain_stream_of_version_1_is_read_and_written_as_ever() {
    let messages = messages(STREAM);
    assert_eq!(messages, conversation(|n, offset| Message::Data { offset, bytes: LOG[n] }));
    assert_eq!(encode(&messages), STREAM);
    let hello = Hello {
        set: "orders".into(),
        scheme: Scheme::Plain(Pattern::parse("log.%S").unwrap()),
        epoch: 1,
        fingerprint: String::new(),
        site: "venus".into(),
        instance: None,
    };
    assert_eq!(Hello::parse(HELLO), Ok(hello.clone()));
    assert_eq!(hello.print().as_bytes(), HELLO);
}

/// The digests in the sample are of the log that it carries, as the manual says.
#[test]
fn digests_are_of_the_segments_bytes() {
    let mut segment = Running::new();
    assert_eq!(segment.digest(), digest(EMPTY));
    segment.update(LOG[0]);
    assert_eq!(segment.digest(), digest(FIRST_35));
    segment.zeros(4061);
    segment.update(LOG[1]);
    assert_eq!(segment.digest(), digest(WHOLE));
    assert_eq!(segment.digest().proof().to_string(), WHOLE[..16]);
}

/// Reading alone is frozen: another release of zstd may compress otherwise.
#[test]
fn a_compressed_stream_of_version_1_is_read() {
    let mut unpacker = Unpacker::new().unwrap();
    let mut plain = Vec::new();
    for (header, payload) in frames(STREAM_ZSTD) {
        match decode(header.kind, header.flags, payload).unwrap() {
            Message::Packed { offset, length, packed } => {
                assert_eq!((header.kind, header.flags, length), (Kind::Data, 1, 35));
                plain.push((offset, unpacker.unpack(packed, length).unwrap().to_vec(), packed.len()));
            }
            message => assert!(header.flags == 0 && !matches!(message, Message::Data { .. }), "{message:?}"),
        }
    }
    let [first, second, third] = LOG.map(<[u8]>::to_vec);
    assert_eq!(plain, [(0, first, 44), (4096, second, 15), (0, third, 14)]);
    let messages = messages(STREAM_ZSTD);
    let packed: Vec<_> = messages.iter().filter(|message| matches!(message, Message::Packed { .. })).cloned().collect();
    assert_eq!(messages, conversation(|n, _| packed[n].clone()));
    assert_eq!(encode(&messages), STREAM_ZSTD);
}

/// Kinds and forms that an ordinary stream does not show.
#[test]
fn rare_frames_of_version_1_are_read_and_written_as_ever() {
    let hello: &[u8] =
        b"v=1\nset=B%C3%BCcher%20-\nengine=postgres\npattern=-\nidentity=7\nsegment-size=16777216\nepoch=3\n\
        fingerprint=log-version%3D19%20byte-order%3Dlittle\nsite=-\n";
    let end = position("1-13:28");
    let before = digest("b1ebb1e92c760e4e0dcfc2d998c05b78f5ac0950da6013c128265ca4a1d4bbdd");
    let messages = messages(STREAM_RARE);
    assert_eq!(
        messages,
        [
            Message::Hello(hello),
            Message::Aux { name: "DB_CONFIG", bytes: b"set_lg_max 16777216\n" },
            Message::Begin(Begin { position: position("1-12:40960"), end, digest: before, previous: None }),
            Message::Data { offset: 40_960, bytes: b"abc" },
            Message::Mark {
                offset: 40_963,
                time: None,
                digest: digest("5cfad3f3a4f1a95aa72043f28299b7e7bdea783972e087daa65a8d34f33ad2f4")
            },
            Message::Patch { offset: 20, bytes: &[1, 0] },
            Message::Heartbeat { end, clock: Time(-1) },
            Message::Bye { end },
        ]
    );
    assert_eq!(encode(&messages), STREAM_RARE);
    let parsed = Hello::parse(hello).unwrap();
    let scheme = &parsed.scheme;
    assert_eq!((parsed.set.as_str(), scheme.engine(), scheme.identity().as_str()), ("Bücher -", Engine::Postgres, "7"));
    assert_eq!((scheme.segment_size(), parsed.epoch, parsed.site.as_str()), (16_777_216, 3, ""));
    assert_eq!(parsed.fingerprint, "log-version=19 byte-order=little");
    assert_eq!(parsed.print().as_bytes(), hello);
}

#[test]
fn lines_of_the_back_channel_are_read_and_written_as_ever() {
    let welcome = |set: &str, engine: &str, site: &str, epoch: u64, at: &str| {
        let at = at.parse().unwrap();
        Line::Welcome(Welcome { set: set.into(), engine: engine.into(), site: site.into(), epoch, at, feeds: false })
    };
    let ack = |received: &str, flushed: &str, applied: Option<&str>| {
        let level = |at: &str| Some(position(at));
        Line::Ack(Ack { received: level(received), flushed: level(flushed), applied: applied.and_then(level) })
    };
    let refusal = "segment 1-12 differs at 4096: ours is \"a\\u{1b}\", the master's is \"b c\"";
    let want = [
        welcome("", "", "", 0, "oldest"),
        welcome("Bücher -", "bdb", "venus", 3, "1-12:40960+0123456789abcdef"),
        ack("1-12:50000", "1-12:40960", None),
        ack("2-1:0", "2-1:0", Some("1-12:50000")),
        Line::Refuse(Code::Diverged, refusal.into()),
    ];
    let text = std::str::from_utf8(BACK).unwrap();
    let lines: Vec<Line> = text.lines().map(|line| Line::parse(line.as_bytes()).unwrap()).collect();
    assert_eq!(lines, want);
    assert_eq!(want.iter().map(Line::to_string).collect::<Vec<_>>().join("\n") + "\n", text);
    assert!(matches!(&lines[0], Line::Welcome(welcome) if welcome.at == Start::Oldest));
}

#[test]
fn the_marker_of_a_sync_is_read_and_written_as_ever() {
    let id = Id(std::array::from_fn(|at| at as u8));
    let directory = "/srv/.repl-sync-a b%".into();
    let marker = Marker { step: Step::Replaying, journal: id, directory, time: Time(1_776_538_457_250_000) };
    let steps = [("prepared", Step::Prepared), ("replaying", Step::Replaying), ("done", Step::Done)];
    for (word, step) in steps {
        let line = std::str::from_utf8(SYNC_MARKER).unwrap().replace("replaying", word);
        let marker = Marker { step, ..marker.clone() };
        assert_eq!(Marker::parse(line.as_bytes()), Some(marker.clone()));
        assert_eq!(marker.print(), line);
    }
}

/// What the samples of a sync's journal say to do.
#[test]
fn what_a_prune_keeps_is_read_and_written_as_ever() {
    let root = tempfile::tempdir().unwrap();
    let state = Dir::open(root.path()).unwrap();
    horizon::write(&state, Segment::new(2, 7)).unwrap();
    assert_eq!(std::fs::read_to_string(root.path().join("pruned")).unwrap(), PRUNED);
    assert_eq!(horizon::read(&state).unwrap(), Some(Segment::new(2, 7)));

    let leases = state.subdir("leases").unwrap();
    let _held = Lock::on_new(&leases, "one", LEASE).unwrap();
    let base = Some("before_upgrade".to_owned());
    let held = lease::Held { name: "one".into(), from: Some(position("1-12:40960")), base };
    assert_eq!(Lease::held(&state).unwrap(), [held]);

    std::fs::write(root.path().join("dropped.jsonl"), DROPPED).unwrap();
    let who = ["consumer tape", "receiver 'ssh venus repl-apply --acks /a'"].map(str::to_owned).to_vec();
    let open = Dropped { from: position("1-2:7"), to: position("1-5:0"), who };
    assert_eq!(dropped::open(&state).unwrap(), [open]);
}

#[test]
fn who_ships_is_read_and_written_as_ever() {
    let (sender, receiver) = INSTANCE.split_at(INSTANCE.find('\n').unwrap() + 1);
    let home = instance::Home {
        machine: Some(digest(FIRST_35).proof()),
        device: 2049,
        inode: 77,
        boot: "b0a1c2d3-0000-4000-8000-00000000beef".into(),
    };
    let record = instance::Record::new(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef, home);
    assert_eq!((record.print().as_str(), instance::Record::parse(sender)), (sender, Some(record.clone())));
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("instance"), receiver).unwrap();
    let pinned = master::read(&Dir::open(root.path()).unwrap()).unwrap().unwrap();
    assert_eq!((pinned.epoch, pinned.instance), (3, record.instance()));
}

#[test]
fn what_a_site_was_told_is_read_and_written_as_ever() {
    let (told, paused) = ROLE.split_at(ROLE.find('\n').unwrap() + 1);
    let root = tempfile::tempdir().unwrap();
    let state = Dir::open(root.path()).unwrap();
    let record = role::Record { role: Role::Receiver, site: "north sea".into(), epoch: 3 };
    record.write(&state).unwrap();
    assert_eq!(std::fs::read_to_string(root.path().join("role")).unwrap(), told);
    assert_eq!(role::read(&state).unwrap(), Some(record));
    std::fs::write(root.path().join("paused-feed"), paused).unwrap();
    let since = pause::Paused { since: "2026-04-18T18:54:17Z".into(), reason: "disk swap".into() };
    assert_eq!(pause::read(&state, Direction::Feed).unwrap(), Some(since));
}

#[test]
fn a_receiver_of_an_earlier_run_is_read_and_written_as_ever() {
    let root = tempfile::tempdir().unwrap();
    let state = Dir::open(root.path()).unwrap();
    let site = status::Site {
        name: "mars".into(),
        receiver: "ssh mars repl-apply --acks /replica".into(),
        log: "/srv/log".into(),
        proven: Some(position("1-2:40960")),
        last_ack: Some("2026-04-18T18:54:17.250000Z".into()),
    };
    earlier::keep(&state, &site).unwrap();
    let file = std::fs::read_dir(root.path().join("receivers")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), RECEIVER);
    std::fs::write(root.path().join("receivers/any.json"), RECEIVER).unwrap();
    assert_eq!(earlier::read(&state).unwrap(), [site.clone(), site]);
}

fn ops() -> Vec<Op> {
    let name = |text: &str| Name::parse(text.as_bytes()).unwrap();
    let mtime = Moment { seconds: -5, nanos: 999_999_999 };
    let ctime = Moment { seconds: 1_776_538_457, nanos: 1 };
    let stamp = Stamp { device: 2049, inode: 1 << 40, size: 20_000, mtime, ctime };
    let entry = |text: &str, kind: EntryKind| {
        let xattrs = vec![(b"user.a".as_slice().into(), b"\0\xff".as_slice().into())];
        Entry { name: name(text), kind, mode: 0o4750, uid: 26, gid: 27, links: 2, xattrs, allocated: 8192, stamp }
    };
    let bytes = Extent { offset: 4096, length: 8192, blob: 7, crc: 0xdead_beef, is_hole: false };
    let extents = vec![Extent::hole(0, 4096), bytes, Extent { offset: 16_384, blob: 1 << 33, length: 1, ..bytes }];
    vec![
        Op::Remove { name: name("z/y"), is_directory: false },
        Op::Remove { name: name("z"), is_directory: true },
        Op::Dress(entry("", EntryKind::Directory)),
        Op::Make(entry("a", EntryKind::Link(b"../b\xff".as_slice().into()))),
        Op::Make(entry("d", EntryKind::Block(8, 1))),
        Op::Place { entry: entry("d-e", EntryKind::File), staged: 12, digest: [1; 32] },
        Op::Patch { entry: entry("f", EntryKind::File), base: stamp, extents, digest: [2; 32] },
        Op::Link { name: name("g\n"), to: name("f") },
    ]
}

fn journal(magic: [u8; 16], root: u64, dress: u32, records: &[Record]) -> Vec<u8> {
    let header = SyncHeader { magic, id: Id(std::array::from_fn(|at| at as u8)), root, dress };
    let mut bytes = header.print().to_vec();
    bytes.extend(records.iter().flat_map(|record| record.print().unwrap()));
    assert_eq!(SyncHeader::parse(bytes.first_chunk().unwrap(), magic), Some(header));
    bytes
}

/// The records of a journal's file behind its header.
fn records(file: &[u8]) -> Vec<Record> {
    let (mut rest, mut payload, mut records) = (&file[48..], Vec::new(), Vec::new());
    while record::next(&mut rest, &mut payload).unwrap() {
        records.push(Record::parse(&payload).unwrap());
    }
    assert!(rest.is_empty());
    records
}

#[test]
fn the_journal_of_a_sync_is_read_and_written_as_ever() {
    let mut want: Vec<Record> = ops().into_iter().map(|op| Record::Op(op.into())).collect();
    let digest = *blake3::hash(&journal(record::FINAL, 77, 3, &want)).as_bytes();
    want.push(Record::End(8, digest));
    assert_eq!(records(SYNC_FINAL), want);
    assert_eq!(journal(record::FINAL, 77, 3, &want), SYNC_FINAL);
    want.pop();
    want.reverse();
    want.push(Record::Forget(Name::parse(b"d-e").unwrap()));
    assert_eq!(records(SYNC_LOG), want);
    assert_eq!(journal(record::LOG, 0, 0, &want), SYNC_LOG);
}

/// A time of 2026-11-23 after four o'clock.
fn at(minute: i64, second: i64, micros: i64) -> Time {
    Time((1_795_406_400 + minute * 60 + second) * 1_000_000 + micros)
}

fn status_of_a_sender() -> Sender {
    let end = Some(position("1-12:4096"));
    let venus = Site {
        name: "venus".into(),
        receiver: "ssh -T venus repl-apply --acks /a".into(),
        link: Some("connected".into()),
        acks: Some(true),
        votes: Some(1),
        priority: Some(1),
        sent: end,
        received: Some(position("1-12:4095")),
        flushed: Some(position("1-12:4094")),
        applied: Some(position("1-12:4093")),
        proven: Some(position("1-12:4094")),
        lag: Lag { bytes: Some(2), segments: Some(0), seconds: Some(0.25) },
        last_ack: Some(at(9, 59, 500_000)),
        connected: Some(at(0, 1, 0)),
        reconnects: 3,
        ..Site::default()
    };
    let moon = Site {
        name: "moon".into(),
        receiver: "ssh -T moon repl-apply --acks /a".into(),
        link: Some("refused".into()),
        acks: Some(false),
        votes: Some(0),
        priority: Some(0),
        error: Some("diverged: segment 1-4".into()),
        code: Some(4),
        ..Site::default()
    };
    Sender {
        logdir: "/srv/db".into(),
        engine: "bdb".into(),
        set: "orders".into(),
        site: "mars".into(),
        epoch: Some(3),
        pid: Some(123),
        started: Some(at(0, 0, 0)),
        updated: Some(at(10, 0, 0)),
        heartbeat: Some(10.0),
        end,
        grown: Some(at(9, 12, 0)),
        policy: Some("quorum".into()),
        ack_timeout: Some(30.0),
        confirmed: Some(1203),
        unconfirmed: Some(4),
        confirmed_to: end,
        paused: Some(Paused { since: Some(at(5, 0, 0)), reason: Some("move".into()) }),
        sites: vec![venus, moon],
        ..Sender::default()
    }
}

fn status_of_a_receiver() -> Session {
    let mut session = Session::begin(Session::default(), "venus", 124, at(0, 0, 0));
    (session.set, session.engine, session.epoch, session.connected) = ("orders".into(), "bdb".into(), 3, true);
    (session.updated, session.heard, session.master_clock) =
        (Some(at(10, 0, 0)), Some(at(9, 59, 0)), Some(at(9, 58, 750_000)));
    (session.grown, session.behind, session.master_end) =
        (Some(at(9, 12, 0)), Some(at(9, 57, 0)), Some(position("1-12:4096")));
    session.stand(Some(position("1-12:4095")), Some(position("1-12:4094")), None);
    session
}

#[test]
fn what_a_sender_and_a_receiver_say_is_read_from_version_1() {
    let sender = Sender::parse(STATUS_SENDER).unwrap();
    assert_eq!(sender, status_of_a_sender());
    assert_eq!(sender.sites.iter().map(Site::link).collect::<Vec<_>>(), [Link::Connected, Link::Refused]);
    let session = Session::parse(STATUS_RECEIVER).unwrap();
    assert_eq!(session, status_of_a_receiver());
    let [written, sample] =
        [session.print().as_bytes(), STATUS_RECEIVER].map(|text| serde_json::from_slice(text).unwrap());
    // A later release may tell more.
    assert!(has_all_of(&written, &sample), "{written:#}");
    let sample = Sample::parse(STATUS_LAG.trim_end()).unwrap();
    let sites = [("mars".to_owned(), (None, None)), ("venus".to_owned(), (Some(123), Some(0.4)))];
    assert_eq!(sample, Sample { time: at(10, 0, 0), sites: sites.into() });
}

/// Whether every key of a sample is there, with its value.
fn has_all_of(value: &Value, sample: &Value) -> bool {
    match (value, sample) {
        (Value::Object(value), Value::Object(sample)) => {
            sample.iter().all(|(key, sample)| value.get(key).is_some_and(|value| has_all_of(value, sample)))
        }
        (Value::Array(value), Value::Array(sample)) => {
            value.len() == sample.len() && value.iter().zip(sample).all(|(value, sample)| has_all_of(value, sample))
        }
        _ => value == sample,
    }
}

/// What machines of different releases tell each other.
#[test]
fn a_report_of_version_1_is_read_and_written_as_ever() {
    let time = at(10, 1, 0);
    let held = Some(position("1-12:4094"));
    let receiver = Receiver {
        dir: "/a".into(),
        set: "orders".into(),
        held,
        session: Some(status_of_a_receiver()),
        ..Receiver::default()
    };
    let parts = vec![
        Part::new(time, What::Sender(Box::new(status_of_a_sender()))),
        Part::new(time, What::Receiver(Box::new(receiver.clone()))),
    ];
    let report = Report { time, limits: Limits::default(), parts };
    let [written, sample] =
        [json::render(&report).as_bytes(), STATUS_REPORT].map(|text| serde_json::from_slice(text).unwrap());
    // A later release may tell more.
    assert!(has_all_of(&written, &sample), "{written:#}");
    let read = json::parse(STATUS_REPORT, "mars").unwrap();
    assert!(read.iter().all(|part| part.asked.as_deref() == Some("mars") && part.time == time));
    let [What::Sender(sender), What::Receiver(other)] = [&read[0].what, &read[1].what] else { panic!("{read:?}") };
    assert_eq!((&**sender, &**other), (&status_of_a_sender(), &receiver));
}

/// A sample that was edited together with the values above is seen here.
#[test]
fn samples_are_what_they_were() {
    for (sample, frozen) in [
        (STREAM, "afab88cc7ef36746ce902286a65748a2e753dd16ed2e7b3ff11326693486f08d"),
        (STREAM_ZSTD, "f363b16e7933210d383f5983f779346054920abaf60c217121aeb3c0ed80ff52"),
        (STREAM_RARE, "a7e86fe9f154407f263ec6317948a3862fc619ad3e97391c9f9cdad2365d048e"),
        (MD4_COLLISION, "25447da6390e4dfecf67ffde181df56dd0ba44879003a67f7189a42b3fa1e617"),
        (SYNC_MARKER, "d9b4de3ef1069d355ce10a89658b916d0ab06ce1845596c6d533e1b3697474ec"),
        (SYNC_LOG, "2cbce102d43d9e6d86ef256c37a652d3fee0324a6adb3fcd3dab9ad30ecf5075"),
        (SYNC_FINAL, "cf2f865c872602c552ded047f7ee6f5d34bdda7b590a8386dd604ddedb84a014"),
        (DIGESTS, "064bc8bdbe98ab05ada9fd49ee665de4c5a7921589b2a6bfb89a61fd2a6887e3"),
        (PRUNED.as_bytes(), "b83566da47040303e26e9a2cda60ebd1d3e0b78e07e26e26c4aa345657db99e0"),
        (LEASE.as_bytes(), "f87417174ef776d1fb5fcaac7ec69d4428bc4201c35c6e384a3783c4f1d69c67"),
        (DROPPED.as_bytes(), "5969c3827b1a6ff91b8ba22eda91c5071c30dbffb6d5e5cb7e9867ea6800cca2"),
        (STATUS_SENDER, "1d1a8304adf72aa8e4c6765c5c3de7dcfb14fb92c30bcd3a93d37fe6e55fc3ad"),
        (STATUS_RECEIVER, "586a28af8fc0647321d3abab0be3cfc501f407d065f1e5e1d38b143b1620fad5"),
        (STATUS_LAG.as_bytes(), "806fad5f0b6da9b17606831ebf0f79b6dc8dca5523235dec95a7a8dcae3e0d70"),
        (STATUS_REPORT, "befbb67e3962e48dd44e910e01f70fb94c0f88255d50120457f2eb7a54007339"),
        (ROLE.as_bytes(), "f7ade811b25af09106dc712f1c5e9108b944dbcc2e8125da86dafbeff1b22498"),
        (INSTANCE.as_bytes(), "f3b1a3379bce9e74ca4a8313ebd0022f54f80da019a9d2b5573cbcef8defa27b"),
        (RECEIVER.as_bytes(), "cc5b206f0708fbf1ff5b53ec5db4797424c0081e4bc9f8074005b34db94a254e"),
        (BACK, "4c2155d896a90f98e179461df4de134a7066b1c471b372d29287523b22cba17b"),
    ] {
        assert_eq!(Digest::of(sample).to_string(), frozen);
    }
}

#[test]
fn what_a_site_holds_is_read_from_version_1() {
    let scheme = Scheme::Mariadb(Pattern::parse("bin.%06S").unwrap());
    let held = |length, bytes, is_closed| Held { length, digest: Digest::of(bytes), is_closed };
    let segments = [(Segment::new(1, 7), held(1 << 20, b"one", true)), (Segment::new(1, 8), held(4096, b"two", false))];
    let expected = Digests {
        log: Log::new(&scheme, "north sea"),
        segments: segments.into(),
        prefix: Some((position("1-8:256"), Digest::of(b"three"))),
    };
    assert_eq!(Digests::parse(DIGESTS), Ok(expected));
}

#[test]
fn the_manual_gives_each_kind_with_its_bounds() {
    let manual = include_str!("../man/repl-stream.5");
    for (kind, least, most) in KINDS {
        let (name, letter) = (format!("{kind:?}").to_lowercase(), kind as u8);
        let row = format!("\n.It {name} Ta {} Ta {letter:02x} Ta {least} Ta {most} Ta ", char::from(letter));
        assert!(manual.contains(&row), "{row}");
    }
}

/// Lines of the manual's example are `OFFSET  BYTES ; WORDS`.
#[test]
fn the_manual_shows_the_frozen_stream() {
    let manual = include_str!("../man/repl-stream.5");
    let mut shown = Vec::new();
    for line in manual.lines() {
        let Some((offset, rest)) = line.split_once("  ").filter(|(offset, _)| offset.len() == 4) else { continue };
        let Ok(offset) = usize::from_str_radix(offset, 16) else { continue };
        assert_eq!(offset, shown.len(), "{line}");
        let bytes = rest.split(';').next().unwrap_or_default().split_whitespace();
        shown.extend(bytes.map(|byte| u8::from_str_radix(byte, 16).unwrap()));
    }
    assert_eq!(shown, STREAM);
}
