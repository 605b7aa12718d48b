//! Frame header and payload, as they are and with checksums put right: what is decoded is within bounds and encodes to
//! the same bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use repl::rule::stream::frame::{DATA_MAX, HEADER, Header, KINDS, header};
use repl::rule::stream::magic;
use repl::rule::stream::message::{Message, decode};

fuzz_target!(|bytes: &[u8]| {
    if let Some(first) = bytes.first_chunk::<8>() {
        let _ = magic::judge(*first);
    }
    if let Some((head, payload)) = bytes.split_first_chunk::<HEADER>() {
        if let Ok(head) = Header::parse(head) {
            let _ = head.check(payload);
        }
    }
    let [which, flags, payload @ ..] = bytes else { return };
    let (kind, least, most) = KINDS[usize::from(*which) % KINDS.len()];
    let Ok(parsed) = Header::parse(&header(kind, *flags, &[payload])) else { return };
    assert!((least..=most).contains(&parsed.length) && parsed.length == payload.len());
    parsed.check(payload).expect("its own checksum");
    let Ok(message) = decode(kind, *flags, payload) else { return };
    let extent = match &message {
        Message::Data { offset, bytes } | Message::Patch { offset, bytes } => Some((*offset, bytes.len() as u64)),
        Message::Packed { offset, length, .. } => Some((*offset, *length as u64)),
        Message::Hole { offset, length } => Some((*offset, *length)),
        _ => None,
    };
    if let Some((offset, length)) = extent {
        assert!(length > 0 && offset.checked_add(length).is_some_and(|end| i64::try_from(end).is_ok()), "{message:?}");
    }
    if let Message::Data { bytes, .. } = &message {
        assert!(bytes.len() <= DATA_MAX);
    }
    assert_eq!(message.encode(), (kind, payload.to_vec()));
});
