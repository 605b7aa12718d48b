//! Every message of the protocol, whole, cut, with each bit flipped, and as any bytes at all.

use proptest::prelude::*;

use super::ask::{Ask, Errand, Pages, Part, Say};
use super::tell::{Cause, Matter, Patch, Small, Tell};
use super::*;
use crate::rule::sync::merkle::{GROUP, RANGE};
use crate::value::entry::{Entry, Kind, Moment, Seen, Stamp};
use crate::value::exit::code_of;

fn named(text: &[u8]) -> Name {
    Name::parse(text).unwrap()
}

fn seen() -> Seen {
    Seen { stamp: stamp(), xattrs: vec![(b"user.b".as_slice().into(), b"\xff".as_slice().into())] }
}

fn stamp() -> Stamp {
    let moment = Moment { seconds: -7, nanos: 999_999_999 };
    Stamp { device: 1, inode: 2, size: 3, mtime: moment, ctime: moment }
}

fn asks() -> Vec<Ask> {
    let part = || Part { name: named(b"d/x\n\xff"), offset: RANGE, length: GROUP + 5, size: RANGE + GROUP + 5 };
    let words = || vec![("REPL_POINT".to_owned(), "after-stop".to_owned()), (String::new(), "\u{1b}".to_owned())];
    let groups = |counts: [usize; 2]| {
        (0..).zip(counts).map(|(n, count)| Pages { offset: RANGE + n * GROUP, digests: vec![[7; 8]; count] }).collect()
    };
    vec![
        Ask::Pass,
        Ask::List,
        Ask::Bye,
        Ask::Small(vec![(named(b"a"), None), (named(b"a/b"), Some([9; 32]))]),
        Ask::Digests(part()),
        Ask::Bytes(part()),
        Ask::Pages(part(), 16384, groups([4, 0])),
        Ask::Moved(part(), 2048, vec![5; 24]),
        Ask::Run(Errand::Look, Vec::new()),
        Ask::Run(Errand::Hook, words()),
        Ask::Say(Say::Out, b"any \0 bytes".to_vec()),
        Ask::Fail(Code::Full, "no space".to_owned(), "make some".to_owned()),
    ]
}

fn entry(name: &[u8], kind: Kind) -> Entry {
    let xattrs = vec![(b"user.a".as_slice().into(), b"\0".as_slice().into())];
    Entry { name: named(name), kind, mode: 0o4755, uid: 1, gid: 2, links: 3, xattrs, allocated: 4096, stamp: stamp() }
}

fn tells() -> Vec<Tell> {
    let kinds = [Kind::Directory, Kind::File, Kind::Link(b"../x".as_slice().into()), Kind::Fifo, Kind::Block(8, 1)];
    let names: [&[u8]; 5] = [b"", b"a", b"b\\", b"c", b"d\xff"];
    let entries: Vec<_> = names.into_iter().zip(kinds).map(|(name, kind)| entry(name, kind)).collect();
    let unread = vec![(named(b"e"), "Permission denied".to_owned())];
    let patch = |offset| Patch { offset, cv: [1; 32], pages: 5 | 1 << 127, bytes: vec![8; 300] };
    vec![
        Tell::Entries { entries, unread, is_end: false },
        Tell::Entries { entries: Vec::new(), unread: Vec::new(), is_end: true },
        Tell::Smalls(vec![
            Small::Same(seen()),
            Small::Whole(seen(), [2; 32], b"content".to_vec()),
            Small::Gone(Cause::new(Matter::Vanished, "it vanished")),
        ]),
        Tell::Digests(seen(), [3; 32], vec![[4; 12]; 3]),
        Tell::Data(RANGE, vec![6; 2000]),
        Tell::Hole(GROUP, GROUP),
        Tell::Copy(1, 2, 3),
        Tell::Patches(vec![patch(0), patch(GROUP)]),
        Tell::Done(seen(), [5; 32]),
        Tell::Gone(Cause::new(Matter::Unreadable, "Input/output error")),
        Tell::Ran(vec![(named(b"backup_label"), b"START".to_vec()), (Name::root(), Vec::new())]),
        Tell::Failed(Code::Gap, "why".to_owned(), String::new()),
    ]
}

fn frames() -> Vec<Vec<u8>> {
    let tells = tells();
    let packed = tells.iter().map(|tell| tell.seal(0, Some(1)));
    asks().iter().map(|ask| ask.seal(63)).chain(tells.iter().map(|tell| tell.seal(9, None))).chain(packed).collect()
}

/// Reads one frame as the link does.
fn open(frame: &[u8]) -> Result<Frame> {
    let (header, payload) = frame.split_first_chunk::<HEADER>().ok_or_else(|| corrupt("short"))?;
    let header = Header::parse(header)?;
    if payload.len() < header.length {
        return Err(corrupt("cut"));
    }
    header.open(payload[..header.length].to_vec())
}

/// What the bytes of a payload say, read as whichever it may be: printed again, it says the same.
fn is_read_back(kind: u8, payload: &[u8]) -> bool {
    let frame = || Frame { kind, line: 1, payload: payload.to_vec() };
    let ask = Ask::parse(&frame());
    if let Ok(ask) = &ask {
        assert_eq!(&Ask::parse(&open(&ask.seal(1)).unwrap()).unwrap(), ask);
    }
    let tell = Tell::parse(frame());
    if let Ok(tell) = &tell {
        assert_eq!(&Tell::parse(open(&tell.seal(1, None)).unwrap()).unwrap(), tell);
    }
    ask.is_ok() || tell.is_ok()
}

#[test]
fn every_message_is_read_back_packed_or_not() {
    for ask in asks() {
        assert_eq!(Ask::parse(&open(&ask.seal(63)).unwrap()).unwrap(), ask);
    }
    for tell in tells() {
        for pack in [None, Some(1), Some(19)] {
            let frame = open(&tell.seal(9, pack)).unwrap();
            assert_eq!((frame.line, Tell::parse(frame).unwrap()), (9, tell.clone()));
        }
    }
    let long = Tell::Data(0, vec![0; 1 << 20]);
    assert!(long.seal(0, Some(1)).len() < 1000, "it is packed");
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_frame_is_refused() {
    for frame in frames() {
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let error = open(&flipped).unwrap_err();
            assert_eq!(code_of(&error), Code::Corrupt, "bit {bit} of {frame:?}");
        }
        for end in 0..frame.len() {
            assert!(open(&frame[..end]).is_err(), "{end} bytes of {frame:?}");
        }
    }
}

#[test]
fn what_a_peer_damages_on_purpose_is_refused_or_harmless() {
    for frame in frames() {
        let whole = open(&frame).unwrap();
        for end in 0..whole.payload.len() {
            is_read_back(whole.kind, &whole.payload[..end]);
        }
        for bit in 0..whole.payload.len() * 8 {
            let mut payload = whole.payload.clone();
            payload[bit / 8] ^= 1 << (bit % 8);
            is_read_back(whole.kind, &payload);
        }
        let mut longer = whole.payload.clone();
        longer.push(0);
        is_read_back(whole.kind, &longer);
    }
}

#[test]
fn no_length_is_believed() {
    let huge = u32::MAX.to_le_bytes();
    for kind in b"PLQSDBGMREFTesdbhcpzvrf" {
        for lead in 0..80 {
            let payload = [vec![0; lead], huge.to_vec(), huge.to_vec()].concat();
            is_read_back(*kind, &payload);
        }
    }
    // A header's own checksum is right, its length is not.
    let mut header = [0; HEADER];
    for length in [PAYLOAD_MAX as u32 + 1, u32::MAX] {
        header[..4].copy_from_slice(&length.to_le_bytes());
        let own = crc32c::crc32c(&header[..12]);
        header[12..].copy_from_slice(&own.to_le_bytes());
        assert_eq!(code_of(&Header::parse(&header).unwrap_err()), Code::Corrupt);
    }
}

#[test]
fn what_is_packed_has_the_length_it_says() {
    let zeros = zstd::bulk::compress(&vec![0; PAYLOAD_MAX], 19).unwrap();
    for (says, packed, fits) in [
        (PAYLOAD_MAX as u32, &zeros, true),
        (PAYLOAD_MAX as u32 - 1, &zeros, false),
        (PAYLOAD_MAX as u32 + 1, &zeros, false),
        (u32::MAX, &zeros, false),
        (0, &zeros, false),
        (9, &vec![1, 2, 3], false),
        (1, &Vec::new(), false),
        (0, &Vec::new(), true),
    ] {
        let payload = [says.to_le_bytes().to_vec(), packed.clone()].concat();
        let unpacked = unpack(&payload);
        assert_eq!(unpacked.is_ok(), fits, "{says}");
        assert!(unpacked.is_ok_and(|bytes| bytes.len() == says as usize) == fits);
    }
    for end in 0..4 {
        assert!(unpack(&vec![0; end]).is_err());
    }
    // Three hundred megabytes in thirty kilobytes.
    let bomb = zstd::bulk::compress(&vec![0; 300 << 20], 1).unwrap();
    assert!(unpack(&[(16_u32).to_le_bytes().to_vec(), bomb].concat()).is_err());
}

#[test]
fn a_failure_is_never_a_success() {
    let (ask, tell) = (
        Ask::Fail(Code::Done, String::new(), String::new()).seal(0),
        Tell::Failed(Code::Done, String::new(), String::new()).seal(0, None),
    );
    assert!(Ask::parse(&open(&ask).unwrap()).is_err());
    assert!(Tell::parse(open(&tell).unwrap()).is_err());
}

#[test]
fn names_that_lead_elsewhere_are_in_no_message() {
    for evil in [b"..".as_slice(), b"/x", b"a/../b", b"a\0", b"a//b", b"."] {
        let name = Name::root().join(evil);
        let part = Part { name: name.clone(), offset: 0, length: 1, size: 1 };
        let asks = [Ask::Small(vec![(name.clone(), None)]), Ask::Bytes(part.clone()), Ask::Digests(part)];
        for ask in asks {
            assert!(Ask::parse(&open(&ask.seal(1)).unwrap()).is_err(), "{ask:?}");
        }
        let mut bad = entry(b"a", Kind::File);
        bad.name = name.clone();
        let entries = |entries, unread| Tell::Entries { entries, unread, is_end: true };
        for tell in [
            entries(vec![bad], Vec::new()),
            entries(Vec::new(), vec![(name.clone(), String::new())]),
            Tell::Ran(vec![(name.clone(), Vec::new())]),
        ] {
            assert!(Tell::parse(open(&tell.seal(1, None)).unwrap()).is_err(), "{tell:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_refused_or_read_back(kind in any::<u8>(), payload in prop::collection::vec(any::<u8>(), 0..400)) {
        is_read_back(kind, &payload);
    }

    #[test]
    fn any_frame_is_refused_or_as_long_as_it_says(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(open(&bytes).is_err() || bytes.len() >= HEADER);
    }

    #[test]
    fn any_entry_is_read_back(
        components in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 1..5),
        target in prop::collection::vec(1_u8.., 1..50),
        numbers in any::<[u32; 4]>(),
        size in any::<u64>(),
        which in 0..4_u8,
    ) {
        let Some(name) = Name::parse(&components.join(&b'/')) else { return Ok(()) };
        let kind = match which {
            0 => Kind::File,
            1 => Kind::Directory,
            2 => Kind::Link(target.into()),
            _ => Kind::Character(numbers[0], numbers[1]),
        };
        let mut entry = entry(b"a", kind);
        (entry.name, entry.mode, entry.uid, entry.gid) = (name, numbers[0] & 0o7777, numbers[2], numbers[3]);
        entry.stamp.size = size;
        let tell = Tell::Entries { entries: vec![entry], unread: Vec::new(), is_end: false };
        prop_assert_eq!(Tell::parse(open(&tell.seal(0, Some(1))).unwrap()).unwrap(), tell);
    }
}
