//! Hostile, damaged and unlucky streams into repl-apply: each with its exit code, its words, and nothing changed. Each
//! refusal has an ordinary use beside it that still works.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use repl::rule::scheme::{self, Engine, Scheme};
use repl::rule::stream::frame::{COMPRESSED, DATA_MAX, Kind, header};
use repl::rule::stream::message::{Begin, HOLE_MAX, Message, data_head};
use repl::value::digest::Digest;
use repl::value::position::{Position, Segment};

use super::craft::{Stream, acked, apply, apply_to, at, bookmark, feed, hello, landed, position, refused, taken, tree};
use super::rig::{APPLY, Rig, noise};

/// Segments 1 (closed) and 2 (open), with all kinds of frames.
fn short() -> Stream {
    let mut stream = Stream::new();
    stream.begin(1).data(b"one").hole(5).mark(100).data(b"two").end().heartbeat();
    stream.begin(2).data(b"three").mark(200).heartbeat().bye();
    stream
}

const ONE: &[u8] = b"one\0\0\0\0\0two";
const TWO: &[u8] = b"three";

fn bdb() -> repl::rule::stream::hello::Hello {
    let scheme = repl::rule::scheme::Scheme::Bdb;
    repl::rule::stream::hello::Hello { scheme, ..hello() }
}

#[test]
fn an_ordinary_stream_lands_is_acked_and_taken_again() {
    let rig = Rig::new();
    let ran = taken(&rig, "--site venus", &short());
    assert_eq!(landed(&rig, "log.1"), ONE);
    assert_eq!(landed(&rig, "log.2"), TWO);
    assert!(ran.out.starts_with("welcome v=1 set=- engine=- site=venus epoch=0 at=oldest\n"), "{ran:?}");
    assert_eq!(acked(&ran, "flushed").as_deref(), Some("1-2:5"));
    assert_eq!(position(&rig.replica()), bookmark(2, TWO));
    // The same bytes again: compared, not written.
    let before = tree(&rig.replica());
    let ran = taken(&rig, "-v", &short());
    assert!(
        ran.out.starts_with(&format!("welcome v=1 set=orders engine=plain site=- epoch=3 at={}\n", bookmark(2, TWO)))
    );
    assert!(ran.err.contains("16 bytes were there already and are equal"), "{ran:?}");
    assert_eq!(acked(&ran, "flushed").as_deref(), Some("1-2:5"), "{ran:?}");
    assert_eq!(tree(&rig.replica()), before);
}

#[test]
fn hostile_patterns_are_refused_and_nothing_is_created() {
    let long = format!("{}%25S", "x".repeat(240));
    for pattern in [
        "../%25S",
        "a/%25S",
        "/etc/%25S",
        ".repl%25S",
        ".%25S",
        "-%25S",
        "a%00%25S",
        "a%0A%25S",
        "a%1B%25S",
        "a%7F%25S",
        "a%5C%25S",
        "%25S%25S",
        "log",
        "..",
        "a..%25S/..",
        &long,
    ] {
        let rig = Rig::new();
        let text = hello().print().replace("pattern=log.%25S", &format!("pattern={pattern}"));
        assert!(text.contains(pattern));
        let mut stream = Stream::saying(&text);
        refused(&rig, "", stream.begin(1).data(b"x").bye(), 6, "is not a segment name pattern");
        assert!(tree(&rig.replica()).is_empty(), "{pattern}");
    }
    for pattern in ["log.%25S", "fw-%25N", "%25010S.bin", "b%C3%BCch%20er%25S"] {
        let rig = Rig::new();
        let text = hello().print().replace("pattern=log.%25S", &format!("pattern={pattern}"));
        taken(&rig, "", Stream::saying(&text).begin(1).data(b"x").bye());
        assert_eq!(tree(&rig.replica()).len(), 1);
    }
}

#[test]
fn a_segment_without_a_name_of_its_own_is_refused() {
    let rig = Rig::new();
    let begin =
        |segment: Segment| Begin { position: segment.at(0), end: at(99, 0), digest: Digest::of(b""), previous: None };
    for segment in [Segment::new(2, 1), Segment::new(0, 1), Segment::new(u64::MAX, u64::MAX)] {
        let mut stream = Stream::new();
        refused(&rig, "", stream.frame(&Message::Begin(begin(segment))), 6, "has no file name of its own");
    }
    let mut stream = Stream::of(&bdb());
    let segment = Segment::new(1, 10_000_000_000);
    refused(&rig, "", stream.frame(&Message::Begin(begin(segment))), 6, "has no file name of its own");
    // In the middle of a stream as well; what came before it is kept.
    let mut stream = Stream::new();
    stream.segment(1, b"abc").frame(&Message::Begin(begin(Segment::new(2, 1))));
    apply(&rig, "", &stream).fails(6, "2-1 has no file name of its own");
    assert_eq!(position(&rig.replica()), bookmark(1, b"abc"));
}

#[test]
fn hostile_aux_names_are_refused_and_an_honest_one_lands() {
    let names: [&[u8]; 16] = [
        b"../x",
        b"..",
        b".",
        b".repl",
        b"/etc/passwd",
        b"a/b",
        b"-rf",
        b"a\0b",
        b"a\nb",
        b"a\x1bb",
        b"a\xffb",
        b"",
        b"position",
        b"lock",
        b"DB_CONFIG.new",
        b"log.0000000001",
    ];
    for name in names {
        let rig = Rig::new();
        let payload = [&[name.len() as u8], name, b"content"].concat();
        let mut stream = Stream::of(&bdb());
        stream.raw(Kind::Aux, 0, &payload).begin(1).data(b"x").bye();
        refused(&rig, "", &stream, 6, "aux");
        assert!(tree(&rig.replica()).is_empty(), "{name:?}");
    }
    let rig = Rig::new();
    refused(&rig, "", Stream::new().frame(&Message::Aux { name: "DB_CONFIG", bytes: b"x" }), 6, "DB_CONFIG");
    let aux = Message::Aux { name: "DB_CONFIG", bytes: b"set_lg_max 1\n" };
    taken(&rig, "", Stream::of(&bdb()).frame(&aux).begin(1).data(b"x").bye());
    assert_eq!(landed(&rig, "DB_CONFIG"), b"set_lg_max 1\n");
}

/// The bug: an aux frame before the first begin was landed before the stream was proven.
#[test]
fn an_aux_file_of_a_stream_that_is_refused_changes_nothing() {
    let rig = Rig::new();
    let aux = |text: &'static str| Message::Aux { name: "DB_CONFIG", bytes: text.as_bytes() };
    taken(&rig, "", Stream::of(&bdb()).frame(&aux("old\n")).begin(1).data(b"abc").bye());
    let state = fs::read(rig.replica().join(".repl/aux/DB_CONFIG")).unwrap();
    let mut other = Stream::of(&bdb());
    refused(&rig, "", other.frame(&aux("new\n")).begin_after(1, b"abX"), 4, "diverged");
    assert_eq!(fs::read(rig.replica().join(".repl/aux/DB_CONFIG")).unwrap(), state);
    taken(&rig, "", Stream::of(&bdb()).frame(&aux("new\n")).begin_after(1, b"abc").bye());
    assert_eq!(landed(&rig, "DB_CONFIG"), b"new\n");
}

/// 300 MB of zeros in some kilobytes, within the window that a sender may use.
fn bomb() -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(20).unwrap();
    for _ in 0..300 {
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
    }
    encoder.finish().unwrap()
}

/// Frames whose checksums are right and whose content is out of bounds, each behind an ordinary beginning.
#[test]
fn bounds_are_judged_before_memory_is_taken() {
    let data = |offset: u64, announced: Option<usize>, bytes: &[u8]| {
        let (head, length) = data_head(offset, announced);
        [&head[..length], bytes].concat()
    };
    let most = i64::MAX as u64;
    let numbers = |one: u64, other: u64| [one.to_le_bytes(), other.to_le_bytes()].concat();
    let huge_window = {
        use zstd::stream::raw::Operation as _;
        let mut encoder = zstd::stream::raw::Encoder::new(1).unwrap();
        encoder.set_parameter(zstd::zstd_safe::CParameter::WindowLog(27)).unwrap();
        let mut output = vec![0; 1000];
        let mut out = zstd::stream::raw::OutBuffer::around(output.as_mut_slice());
        encoder.run(&mut zstd::stream::raw::InBuffer::around(&[7; 90][..]), &mut out).unwrap();
        while encoder.flush(&mut out).unwrap() > 0 {}
        let length = out.pos();
        output[..length].to_vec()
    };
    let bomb = bomb();
    assert!(bomb.len() < 40_000, "{}", bomb.len());
    let frames = [
        (Kind::Data, 0, data(u64::MAX, None, b"x"), "beyond any file"),
        (Kind::Data, 0, data(most, None, b"x"), "no part of any file"),
        (Kind::Data, 0, data(0, None, b"x"), "goes back to 0"),
        (Kind::Data, 0, data(3, None, &vec![0; DATA_MAX + 1]), "a data frame of 1048577 bytes"),
        (Kind::Data, COMPRESSED, data(3, Some(DATA_MAX + 1), b"x"), "a data frame of 1048577 bytes"),
        (Kind::Data, COMPRESSED, data(3, Some(u32::MAX as usize), b"x"), "a data frame of 4294967295 bytes"),
        (Kind::Data, COMPRESSED, data(3, Some(0), b"x"), "a data frame of 0 bytes"),
        (Kind::Data, COMPRESSED, data(3, Some(1000), &bomb), "compressed data"),
        (Kind::Data, COMPRESSED, data(3, Some(DATA_MAX), &bomb), "compressed data"),
        (Kind::Data, COMPRESSED, data(3, Some(90), &huge_window), "compressed data is damaged"),
        (Kind::Data, COMPRESSED, data(3, Some(5), b"garbage"), "compressed data is damaged"),
        (Kind::Hole, 0, numbers(3, HOLE_MAX + 1), "a hole of 1073741825 bytes"),
        (Kind::Hole, 0, numbers(3, u64::MAX), "a hole of"),
        (Kind::Hole, 0, numbers(3, 0), "no part of any file"),
        (Kind::Hole, 0, numbers(most, 1), "no part of any file"),
        (Kind::Patch, 0, data(0, None, b"x"), "a patch at 0"),
        (Kind::Bye, 0, vec![0; 23], "Bye frame of 23 bytes"),
        (Kind::Hello, 0, vec![b'x'; 4097], "Hello frame of 4097 bytes"),
        (Kind::Hello, 0, hello().print().into_bytes(), "a second hello"),
        (Kind::Hole, COMPRESSED, numbers(3, 1), "unknown flags"),
        (Kind::Data, 2, data(3, None, b"x"), "unknown flags"),
    ];
    for (kind, flags, payload, says) in frames {
        let rig = Rig::new();
        let mut stream = Stream::new();
        stream.begin(1).data(b"abc").raw(kind, flags, &payload);
        // Far below the 300 MB of the bomb and the 4 GB that is announced.
        let command = rig.sh("ulimit -v 250000; exec $APPLY --acks replica");
        let ran = feed(command, &stream.bytes);
        ran.fails(6, says);
        ran.fails(6, "stream refused in segment 1-1 at 3");
        assert_eq!((landed(&rig, "log.1"), position(&rig.replica())), (b"abc".to_vec(), bookmark(1, b"abc")));
    }
}

#[test]
fn a_length_beyond_its_kind_is_refused_without_waiting_for_the_bytes() {
    for (kind, length) in [(b'D', u32::MAX), (b'H', 4097), (b'Q', 25), (b'A', 1 << 20), (b'?', 10)] {
        let rig = Rig::new();
        let mut stream = Stream::new();
        let mut head = header(Kind::Bye, 0, &[]);
        head[0] = kind;
        head[4..8].copy_from_slice(&length.to_le_bytes());
        let sum = crc32c::crc32c(&head[..12]).to_le_bytes();
        head[12..].copy_from_slice(&sum);
        stream.bytes.extend(head);
        refused(&rig, "", &stream, 6, "rame");
    }
}

#[test]
fn memory_stays_within_64_mib_for_any_stream() {
    use repl::rule::stream::codec::Packer;
    let rig = Rig::new();
    let mut stream = Stream::new();
    stream.begin(1);
    let (mut packer, bytes) = (Packer::new(1).unwrap(), noise(DATA_MAX, 1));
    for frame in 0..24u64 {
        let part = packer.pack(&bytes).unwrap().to_vec();
        stream.frame(&Message::Packed { offset: frame << 20, length: DATA_MAX, packed: &part });
    }
    stream.frame(&Message::Hole { offset: 24 << 20, length: HOLE_MAX / 16 });
    stream.frame(&Message::Heartbeat { end: at(99, 0), clock: repl::value::time::Time(0) });
    let mut command = Command::new(APPLY);
    command.args(["--acks"]).arg(rig.replica()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let end = format!("flushed={}", at(1, (24 << 20) + HOLE_MAX / 16));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| std::io::Write::write_all(&mut input, &stream.bytes).unwrap());
        assert!(lines.any(|line| line.unwrap().contains(&end)));
        writer.join().unwrap();
    });
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    drop(input);
    assert_eq!(child.wait().unwrap().code(), Some(8));
    assert!(peak <= 64 << 10, "{peak} kB");
}

/// A directory in memory, for tests of very many runs.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Two processes at a time, since the tests share the machine.
fn for_each_of(count: usize, run: impl Fn(usize) + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let item = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    if item >= count {
                        break;
                    }
                    run(item);
                }
            });
        }
    });
}

fn file(directory: &std::path::Path, name: &str) -> Vec<u8> {
    fs::read(directory.join(name)).unwrap_or_default()
}

#[test]
fn a_stream_cut_at_any_byte_keeps_and_acks_all_whole_frames_and_exits_8() {
    let stream = short();
    let root = in_memory();
    for_each_of(stream.bytes.len(), |cut| {
        let directory = root.path().join(format!("cut-{cut}"));
        let ran = apply_to(&directory, &["--acks"], &stream.bytes[..cut]);
        assert_eq!(ran.code, 8, "cut at {cut}: {ran:?}");
        let held = stream.held_after(cut);
        let (one, two) = (file(&directory, "log.1"), file(&directory, "log.2"));
        let (first, second) = match held {
            None => (0, 0),
            Some(held) if held.segment.sequence == 1 => (held.offset as usize, 0),
            Some(held) => (ONE.len(), held.offset as usize),
        };
        assert_eq!((one.as_slice(), two.as_slice()), (&ONE[..first], &TWO[..second]), "cut at {cut}: {ran:?}");
        let acked = acked(&ran, "flushed").filter(|level| level != "-");
        assert_eq!(acked, held.map(|held| held.to_string()), "cut at {cut}: {ran:?}");
        let bytes = if second > 0 { (2, &TWO[..second]) } else { (1, &ONE[..first]) };
        let wanted = held.map_or("oldest".to_owned(), |_| bookmark(bytes.0, bytes.1));
        assert_eq!(position(&directory), wanted, "cut at {cut}");
        // It goes on by itself.
        if cut % 16 == 0 {
            let ran = apply_to(&directory, &["--acks"], &stream.bytes);
            assert_eq!(ran.code, 0, "after cut at {cut}: {ran:?}");
            assert_eq!((file(&directory, "log.1").as_slice(), file(&directory, "log.2").as_slice()), (ONE, TWO));
        }
        fs::remove_dir_all(directory).unwrap();
    });
}

#[test]
fn every_flipped_bit_is_refused_and_earlier_bytes_are_untouched() {
    let stream = short();
    let root = in_memory();
    for_each_of(stream.bytes.len() * 8, |bit| {
        let mut flipped = stream.bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let directory = root.path().join(format!("bit-{bit}"));
        let ran = apply_to(&directory, &["--acks"], &flipped);
        assert_eq!(ran.code, 6, "bit {bit}: {ran:?}");
        let (one, two) = (file(&directory, "log.1"), file(&directory, "log.2"));
        assert!(ONE.starts_with(&one) && TWO.starts_with(&two), "bit {bit}: {ran:?}");
        // All frames before the damaged one are kept: the last frame that can hold the bit begins before it.
        let held = stream.held.iter().rev().find(|(end, _)| *end <= bit / 8).and_then(|(_, held)| *held);
        assert_eq!(
            acked(&ran, "flushed").filter(|level| level != "-"),
            held.map(|held| held.to_string()),
            "bit {bit}: {ran:?}"
        );
        fs::remove_dir_all(directory).unwrap();
    });
}

#[test]
fn damage_names_segment_offset_and_both_digests() {
    let rig = Rig::new();
    let mut stream = Stream::new();
    stream.begin(1).data(b"abcdef");
    let length = stream.bytes.len();
    stream.bytes[length - 1] ^= 1;
    let ran = apply(&rig, "", &stream);
    ran.fails(6, "segment 1-1 at 0");
    assert_eq!((landed(&rig, "log.1"), position(&rig.replica())), (Vec::new(), "oldest".to_owned()));
    let (wanted, got) = (crc(b"abcdef"), crc(b"abcdeg"));
    assert!(ran.err.contains(&wanted) && ran.err.contains(&got), "{ran:?}");
    // Damage that no checksum of a frame sees: the sender's memory, or a lie.
    let rig = Rig::new();
    let mut stream = Stream::new();
    stream.begin(1).data(b"abc").frame(&Message::End { length: 3, digest: Digest::of(b"abd") });
    let ran = apply(&rig, "", &stream);
    ran.fails(6, &format!("up to 1-1:3 its digest is {}, the master's is {}", Digest::of(b"abc"), Digest::of(b"abd")));
    assert_eq!(fs::read_to_string(rig.replica().join(".repl/B3SUMS")).unwrap(), "");
}

fn crc(bytes: &[u8]) -> String {
    format!("{:08x}", crc32c::crc32c(&[&0u64.to_le_bytes(), bytes].concat()))
}

#[test]
fn other_bytes_at_a_position_held_are_refused_with_both_digests() {
    let rig = Rig::new();
    taken(&rig, "", &short());
    let mut other = Stream::new();
    let ran = refused(&rig, "", other.begin(1).data(b"oneX"), 4, "diverged");
    for digest in [Digest::of(b"one\0"), Digest::of(b"oneX")] {
        assert!(ran.err.contains(&digest.to_string()), "{digest} in {ran:?}");
    }
    // Zeros where bytes are, and bytes where zeros are.
    let ran = refused(&rig, "", Stream::new().begin(1).hole(8), 4, "diverged");
    for digest in [Digest::of(b"o"), Digest::of(b"\0")] {
        assert!(ran.err.contains(&digest.to_string()), "{digest} in {ran:?}");
    }
    refused(&rig, "", Stream::new().begin(1).data(b"one\0\0\0\0\x01"), 4, "diverged");
    // What lies before the beginning.
    let ran = refused(&rig, "", Stream::new().begin_after(2, b"thREE").data(b"x"), 4, "diverged");
    for digest in [Digest::of(b"three"), Digest::of(b"thREE")] {
        assert!(ran.err.contains(&digest.to_string()), "{digest} in {ran:?}");
    }
    taken(&rig, "", Stream::new().begin_after(2, b"three").data(b" four").bye());
    assert_eq!(landed(&rig, "log.2"), b"three four");
}

/// The bug: a closed segment that goes on at the master was appended to before anything was refused.
#[test]
fn a_closed_segment_is_neither_extended_nor_cut() {
    let rig = Rig::new();
    taken(&rig, "", Stream::new().segment(1, b"abc\0\0").segment(2, b"x").bye());
    refused(&rig, "", Stream::new().begin(1).data(b"abc\0\0").data(b"more"), 4, "diverged");
    refused(&rig, "", Stream::new().begin(1).data(b"abc\0\0more"), 4, "diverged");
    refused(&rig, "", Stream::new().begin(1).data(b"abc\0\0").hole(5), 4, "diverged");
    refused(&rig, "", Stream::new().begin(1).data(b"abc").end(), 4, "diverged");
    refused(&rig, "", Stream::new().begin(1).data(b"abc\0").end(), 4, "diverged");
    // The last one too.
    refused(&rig, "", Stream::new().begin_after(2, b"x").data(b"y"), 4, "diverged");
    refused(&rig, "", Stream::new().begin(2).end(), 4, "diverged");
    taken(&rig, "", Stream::new().segment(1, b"abc\0\0").segment(2, b"x").segment(3, b"z").bye());
}

/// An `archive_command` that is run again: nothing is said about what follows the segment.
#[test]
fn a_closed_segment_that_comes_again_alone_is_not_ahead() {
    let rig = Rig::new();
    taken(&rig, "", Stream::new().segment(1, b"abc").segment(2, b"x").bye());
    let mut alone = Stream::new();
    alone.end = at(1, 3);
    taken(&rig, "", alone.segment(1, b"abc").bye());
    assert_eq!(position(&rig.replica()), bookmark(2, b"x"));
}

#[test]
fn a_gap_is_refused_wherever_it_is() {
    let rig = Rig::new();
    // Nothing is held: a beginning in the middle cannot be proven.
    refused(&rig, "", Stream::new().begin_after(1, b"abc").data(b"def"), 3, "gap");
    taken(&rig, "", Stream::new().segment(1, b"abc").begin(2).data(b"de").bye());
    let skip = |offset: u64| Message::Data { offset, bytes: b"x" };
    // A step in the stream: whole frames before it stay, and the ack never passes it.
    let ran = apply(&rig, "", Stream::new().begin_after(2, b"de").data(b"f").frame(&skip(4)));
    ran.fails(3, "gap: the stream goes on at 4 after 1-2:3");
    assert_eq!(acked(&ran, "flushed").as_deref(), Some("1-2:3"));
    assert_eq!(position(&rig.replica()), bookmark(2, b"def"));
    assert_eq!(landed(&rig, "log.2"), b"def");
    refused(&rig, "", Stream::new().begin_after(2, b"def").frame(&skip(4)), 3, "gap");
    refused(&rig, "", Stream::new().begin_after(2, b"def").frame(&Message::Hole { offset: 9, length: 3 }), 3, "gap");
    // Steps before the stream.
    refused(&rig, "", Stream::new().begin_after(2, b"defg").data(b"h"), 3, "gap");
    refused(&rig, "", Stream::new().begin_behind(3, b"def").data(b"h"), 3, "gap");
    refused(&rig, "", Stream::new().begin(9).data(b"h"), 3, "gap");
    taken(&rig, "", Stream::new().begin_after(2, b"def").data(b"g").end().begin(3).bye());
    assert_eq!(landed(&rig, "log.2"), b"defg");
    refused(&rig, "", Stream::new().begin_after(2, b"defg").end().begin(4), 3, "goes on at 1-4:0 after segment 1-2");
    taken(&rig, "", Stream::new().begin_behind(3, b"defg").data(b"h").bye());
}

#[test]
fn frames_out_of_order_are_refused() {
    let rig = Rig::new();
    let bytes = Message::Data { offset: 0, bytes: b"x" };
    refused(&rig, "", Stream::new().frame(&bytes), 6, "before any segment begins");
    refused(&rig, "", Stream::new().end(), 6, "before any segment begins");
    let mut no_hello = Stream::new();
    no_hello.bytes.truncate(8);
    refused(&rig, "", no_hello.begin(1), 6, "does not begin with a hello");
    taken(&rig, "", Stream::new().begin(1).data(b"abc").bye());
    refused(&rig, "", Stream::new().begin_after(1, b"abc").begin(2), 6, "before 1-1 has ended");
    refused(
        &rig,
        "",
        Stream::new().begin_after(1, b"abc").frame(&Message::End { length: 4, digest: Digest::of(b"x") }),
        6,
        "speaks of 4",
    );
    refused(
        &rig,
        "",
        Stream::new().begin_after(1, b"abc").frame(&Message::Mark { offset: 2, time: None, digest: Digest::of(b"ab") }),
        6,
        "speaks of 2",
    );
    taken(&rig, "", Stream::new().begin_after(1, b"abc").data(b"d").bye());
}

#[test]
fn another_set_engine_pattern_identity_or_segment_size_is_refused() {
    let rig = Rig::new();
    // Options refuse before the first attach.
    refused(&rig, "--set stock", &short(), 5, "takes set 'stock' only, the stream is of set 'orders'");
    refused(&rig, "--engine bdb", &short(), 5, "takes engine bdb only");
    refused(&rig, "--pattern other.%S", &short(), 5, "takes engine plain only (or another pattern)");
    taken(&rig, "--set orders --engine plain --pattern log.%S", &short());
    let good = hello().print();
    for (from, to, says) in [
        ("set=orders", "set=stock", "belongs to set 'orders', the stream is of 'stock'"),
        ("set=orders", "set=-", "belongs to set 'orders'"),
        ("set=orders", "set=a%1B", "control characters"),
        ("engine=plain", "engine=eloquence", "belongs to engine 'plain log.%S', the stream is of 'eloquence log.%S'"),
        (
            "pattern=log.%25S",
            "pattern=log.%2503S",
            "belongs to engine 'plain log.%S', the stream is of 'plain log.%03S'",
        ),
        ("identity=-", "identity=7", "no identity and no segment size"),
    ] {
        let text = good.replace(from, to);
        assert_ne!(text, good);
        let code = if text.contains("set=a") || text.contains("identity=7") { 6 } else { 5 };
        let mut stream = Stream::saying(&text);
        refused(&rig, "", stream.begin_after(2, TWO).data(b"x").bye(), code, says);
    }
    taken(&rig, "", Stream::new().begin_after(2, TWO).data(b"x").bye());
    // Engines with an identity and a fixed size: another cluster's log never gets in.
    let rig = Rig::new();
    let kind = scheme::Kind::new(Engine::Postgres, None).unwrap();
    let of = |identity, size| repl::rule::stream::hello::Hello {
        scheme: Scheme::new(&kind, identity, size).unwrap(),
        ..hello()
    };
    taken(&rig, "", Stream::of(&of("7", 1 << 20)).begin(1).hole(1 << 20).bye());
    for (hello, says) in [
        (of("8", 1 << 20), "the database with identity '7', the stream is of '8'"),
        (of("7", 1 << 24), "belongs to segment size '1048576', the stream is of '16777216'"),
    ] {
        refused(&rig, "", Stream::of(&hello).begin_after(1, &[0; 9]).bye(), 5, says);
    }
}

/// The bug: the set of a stream was pinned before its beginning was proven.
#[test]
fn a_set_is_named_later_by_a_proven_stream_only() {
    let rig = Rig::new();
    let unnamed = repl::rule::stream::hello::Hello { set: String::new(), ..hello() };
    taken(&rig, "", Stream::of(&unnamed).begin(1).data(b"abc").bye());
    refused(&rig, "", Stream::new().begin_after(1, b"abX"), 4, "diverged");
    taken(&rig, "", Stream::of(&unnamed).begin_after(1, b"abc").data(b"d").bye());
    taken(&rig, "", Stream::new().begin_after(1, b"abcd").data(b"e").bye());
    refused(&rig, "", Stream::of(&unnamed).begin_after(1, b"abcde"), 5, "belongs to set 'orders'");
}

#[test]
fn a_segment_size_bounds_every_segment() {
    let rig = Rig::new();
    let kind = scheme::Kind::new(Engine::Postgres, None).unwrap();
    let scheme = Scheme::new(&kind, "7", 1 << 20).unwrap();
    let sized = repl::rule::stream::hello::Hello { scheme, ..hello() };
    taken(&rig, "", Stream::of(&sized).begin(1).hole(1 << 20).bye());
    let (whole, beyond) = (vec![0; 1 << 20], "beyond the segment size 1048576");
    refused(&rig, "", Stream::of(&sized).begin_after(1, &whole).data(b"9"), 6, beyond);
    refused(&rig, "", Stream::of(&sized).begin_after(1, &whole).hole(1), 6, beyond);
}

#[test]
fn foreign_files_are_a_guard_until_they_are_adopted() {
    let rig = Rig::new();
    fs::create_dir(rig.replica()).unwrap();
    fs::write(rig.replica().join("my \x1b thesis"), b"precious").unwrap();
    let ran = refused(&rig, "", &short(), 13, "has a foreign file, my \\u{1b} thesis");
    assert!(ran.err.contains("hint: use an empty directory, or repl-apply --adopt"), "{ran:?}");
    taken(&rig, "--adopt --reason moved", &short());
    assert_eq!(landed(&rig, "my \x1b thesis"), b"precious");
    assert!(fs::read_to_string(rig.replica().join(".repl/history.jsonl")).unwrap().contains("\"reason\":\"moved\""));
    // Once it is ours, what lies beside the log is not asked for again.
    fs::write(rig.replica().join("other"), b"x").unwrap();
    taken(&rig, "", &short());
    // lost+found alone is empty.
    let rig = Rig::new();
    fs::create_dir_all(rig.replica().join("lost+found")).unwrap();
    taken(&rig, "", &short());
}

#[test]
fn an_older_epoch_is_fenced_and_a_newer_one_is_kept() {
    let rig = Rig::new();
    let of = |epoch: u64| Stream::of(&repl::rule::stream::hello::Hello { epoch, ..hello() });
    taken(&rig, "", of(3).begin(1).data(b"abc").bye());
    refused(&rig, "", of(2).begin_after(1, b"abc").data(b"d"), 5, "of epoch 2, this site has seen epoch 3");
    refused(&rig, "--adopt", of(0).begin_after(1, b"abc").data(b"d"), 5, "no longer the master");
    // A newer epoch counts only with a beginning that is proven.
    refused(&rig, "", of(9).begin_after(1, b"abX"), 4, "diverged");
    taken(&rig, "", of(3).begin_after(1, b"abc").bye());
    taken(&rig, "", of(4).begin_after(1, b"abc").data(b"d").bye());
    refused(&rig, "", of(3).begin_after(1, b"abcd").data(b"e"), 5, "epoch 4");
    assert_eq!(fs::read_to_string(rig.replica().join(".repl/epoch")).unwrap(), "v=1 epoch=4\n");
}

#[test]
fn what_is_no_file_of_its_own_is_never_opened_as_a_segment() {
    for (make, says) in [
        ("ln -s ../target replica/log.2", "a symbolic link"),
        ("ln -s ../nowhere replica/log.2", "a symbolic link"),
        ("mkfifo replica/log.2", "a fifo"),
        ("mkdir replica/log.2", "a directory"),
        ("ln target replica/log.2", "2 names (hard links)"),
        ("[ $(id -u) = 0 ] || exit 77; mknod replica/log.2 c 1 3", "a device"),
    ] {
        let rig = Rig::new();
        fs::write(rig.path("target"), b"target").unwrap();
        taken(&rig, "", Stream::new().segment(1, ONE).bye());
        if rig.run(make).code == 77 {
            continue;
        }
        refused(&rig, "", Stream::new().segment(1, ONE).begin(2), 5, says);
        refused(&rig, "", Stream::new().begin_behind(2, ONE).data(b"three"), 5, says);
        refused(&rig, "--set-aside", Stream::new().begin_behind(2, ONE).data(b"three"), 5, says);
        assert_eq!(fs::read(rig.path("target")).unwrap(), b"target");
        rig.ok("rm -r replica/log.2");
        taken(&rig, "", &short());
    }
    // Before the first attach, too.
    let rig = Rig::new();
    fs::create_dir(rig.replica()).unwrap();
    fs::write(rig.path("target"), b"target").unwrap();
    symlink("../target", rig.replica().join("log.1")).unwrap();
    refused(&rig, "", &short(), 5, "a symbolic link");
}

#[test]
fn state_is_never_kept_through_a_link() {
    for (make, undo) in [
        ("ln -s ../elsewhere replica/.repl", "rm replica/.repl"),
        ("touch replica/.repl", "rm replica/.repl"),
        ("mkdir replica/.repl && ln -s ../../target replica/.repl/position", "rm -r replica/.repl"),
        ("mkdir replica/.repl && ln -s ../../target replica/.repl/lock", "rm -r replica/.repl"),
        (
            "mkdir replica/.repl && ln target replica/.repl/B3SUMS && ln target replica/.repl/history.jsonl",
            "rm -r replica/.repl",
        ),
        ("mkdir replica/.repl && mkfifo replica/.repl/origin", "rm -r replica/.repl"),
    ] {
        let rig = Rig::new();
        rig.ok(&format!("mkdir elsewhere replica && printf target > target && {make}"));
        apply(&rig, "", &short()).fails(5, "replica/.repl");
        assert_eq!(rig.ok("cat target; ls elsewhere; ls replica"), "target", "{make}");
        rig.ok(undo);
        taken(&rig, "", &short());
    }
}

#[test]
fn a_link_that_prints_or_translates_is_usage() {
    let rig = Rig::new();
    let stream = short();
    let made = |bytes: Vec<u8>| stream.instead(bytes);
    let crlf: Vec<u8> =
        stream.bytes.iter().flat_map(|byte| if *byte == b'\n' { vec![b'\r', b'\n'] } else { vec![*byte] }).collect();
    refused(&rig, "", &made(crlf), 2, "LF to CR LF");
    let lf = stream.bytes.iter().copied().filter(|byte| *byte != b'\r').collect();
    refused(&rig, "", &made(lf), 2, "translated");
    let seven = stream.bytes.iter().map(|byte| byte & 0x7f).collect();
    refused(&rig, "", &made(seven), 2, "not 8-bit clean");
    for words in ["Welcome to venus!\n", "Linux\n", "hi\n", "\n", "grüße\r\n", "\x1b[0m", "7 chars"] {
        let printed = [words.as_bytes(), &stream.bytes].concat();
        let ran = refused(&rig, "", &made(printed), 2, "a login shell that prints?");
        assert!(!ran.err.contains('\x1b'), "{ran:?}");
        // And nothing behind the words.
        refused(&rig, "", &made(words.into()), 2, "a login shell that prints?");
    }
    refused(&rig, "", &made(noise(100, 1)), 6, "not a log stream");
    refused(&rig, "", &made(Vec::new()), 8, "ended before it began");
    taken(&rig, "", &stream);
}

/// The time-out is this side's: a sender that says nothing is taken for dead though its end of the link is open.
#[test]
fn a_silent_sender_is_given_up() {
    let stream = short();
    let whole = stream.bytes.len() - 40;
    for (count, held) in [(0, "-"), (3, "-"), (60, "-"), (whole, "1-2:5"), (whole - 7, "1-2:5")] {
        let rig = Rig::new();
        let mut command = Command::new(APPLY);
        command.args(["--acks", "--timeout", "300ms"]).arg(rig.replica());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut input, &stream.bytes[..count]).unwrap();
        let ran = super::rig::Ran::from(child.wait_with_output().unwrap());
        drop(input);
        ran.fails(8, "the other end is silent: no heartbeat came in time");
        assert_eq!(acked(&ran, "flushed").unwrap_or("-".into()), held, "{ran:?}");
    }
}

/// The other end of the link, too.
#[test]
fn a_silent_receiver_is_given_up() {
    let rig = Rig::new();
    rig.write("log.1", "abc");
    for receiver in ["sleep 1000", "echo welcome v=1 set=- engine=- site=- epoch=0 at=oldest; exec sleep 1000"] {
        let ran = rig.run(&format!(
            "$SHIP -S --timeout 300ms --heartbeat 100ms --retry-for 1ms --state st --pattern log.%S --via '{receiver}' master"
        ));
        ran.fails(8, "repl-ship: ");
    }
}

/// The bug: a sender that is silent and takes no lines either kept the receiver, and its lock, for ever.
#[test]
fn a_sender_that_takes_no_acks_is_given_up() {
    let rig = Rig::new();
    let mut stream = Stream::new();
    stream.begin(1).data(b"abc");
    // Each is answered by a line, and there is room for 70 of them at most.
    for _ in 0..20_000 {
        stream.heartbeat();
    }
    let (out, full) = std::io::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&full, 4096).unwrap();
    let mut command = Command::new(APPLY);
    command.args(["--acks", "--timeout", "300ms"]).arg(rig.replica());
    let mut child = command.stdin(Stdio::piped()).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    drop(command);
    let mut input = child.stdin.take().unwrap();
    // It may end while we write; the end of this write is not the end of the link.
    let _ = std::io::Write::write_all(&mut input, &stream.bytes);
    let mut code = None;
    super::rig::eventually("the end", || {
        code = child.try_wait().unwrap();
        code.is_some()
    });
    drop((input, out));
    let mut err = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut err).unwrap();
    assert_eq!(code.unwrap().code(), Some(8), "{err}");
    assert!(err.contains("takes no lines"), "{err}");
    assert_eq!(position(&rig.replica()), bookmark(1, b"abc"));
}

#[test]
fn text_of_a_peer_is_shown_harmless() {
    let rig = Rig::new();
    let text = hello().print().replace("engine=plain", "engine=%1B[31m%0Aplain");
    let ran = refused(&rig, "", &Stream::saying(&text), 6, "is not an engine");
    assert!(!ran.err.contains('\x1b') && ran.err.lines().count() == 1, "{ran:?}");
    let _: Position = at(1, 0);
}
