//! Compressed frames of one connection: never more than was announced, nor more than a frame may hold.
//!
//! Input: a byte that says whether the rest is packed frames (each two bytes of announced length in units of 17, two of
//! packed length, and the packed bytes), or plain bytes to be packed, damaged at one place and unpacked.

#![no_main]

use libfuzzer_sys::fuzz_target;
use repl::rule::stream::codec::{Packer, Unpacker};
use repl::rule::stream::frame::DATA_MAX;

fuzz_target!(|bytes: &[u8]| match bytes {
    [mode, rest @ ..] if mode & 1 == 0 => foreign(rest),
    [_, flip, place, rest @ ..] => own(*flip, usize::from(*place), rest),
    _ => {}
});

/// Frames as a hostile sender may write them. A connection ends at its first corrupt one.
fn foreign(mut rest: &[u8]) {
    let mut unpacker = Unpacker::new().expect("a decoder");
    while let Some(([a, b, c, d], tail)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes([*a, *b])) * 17;
        let (packed, tail) = tail.split_at(usize::from(u16::from_le_bytes([*c, *d])).min(tail.len()));
        let Ok(unpacked) = unpacker.unpack(packed, length) else { return };
        assert!(unpacked.len() == length && length <= DATA_MAX);
        rest = tail;
    }
}

/// Frames as our own sender writes them: read back as they are, and of the announced length or refused when damaged.
fn own(flip: u8, place: usize, rest: &[u8]) {
    let mut packer = Packer::new(1).expect("an encoder");
    let (mut whole, mut hurt) = (Unpacker::new().expect("a decoder"), Unpacker::new().expect("a decoder"));
    let mut is_alive = true;
    for frame in rest.chunks(1000) {
        let mut packed = packer.pack(frame).expect("packing").to_vec();
        assert_eq!(whole.unpack(&packed, frame.len()), Ok(frame));
        let at = place % packed.len();
        packed[at] ^= flip;
        let unpacked = if is_alive { hurt.unpack(&packed, frame.len()).ok() } else { None };
        is_alive = unpacked.is_some();
        assert!(is_alive || flip != 0);
        assert!(unpacked.is_none_or(|unpacked| unpacked.len() == frame.len() && (flip != 0 || unpacked == frame)));
    }
}
