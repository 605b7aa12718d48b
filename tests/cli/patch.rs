//! Bits that an engine rewrites: MariaDB's flag in byte 21 of a file that is in use. They are patched before the segment
//! ends; digests leave them out, and `B3SUMS` does not.

use std::fs;

use repl::rule::pattern::Pattern;
use repl::rule::scheme::Scheme;
use repl::rule::stream::hello::Hello;
use repl::value::digest::Digest;

use super::craft::{Stream, acked, apply, bookmark, hello, landed, position, refused, taken, tree};
use super::rig::Rig;

const NAME: &str = "bin.000001";

fn stream() -> Stream {
    let scheme = Scheme::Mariadb(Pattern::parse("bin.%06S").unwrap());
    Stream::of(&Hello { scheme, ..hello() })
}

/// 40 bytes, the flag set or clear.
fn file(flags: u8) -> Vec<u8> {
    let mut bytes: Vec<u8> = (1..=40).collect();
    bytes[21] = 0xf0 | flags;
    bytes
}

fn check(rig: &Rig) {
    rig.ok("cd replica && b3sum --check --quiet .repl/B3SUMS");
}

#[test]
fn a_flag_that_the_master_clears_is_cleared_before_the_segment_ends() {
    let rig = Rig::new();
    taken(&rig, "", stream().begin(1).data(&file(1)).bye());
    assert_eq!(landed(&rig, NAME), file(1));
    rig.ok("$FETCH replica bin.000001 copy && cmp copy replica/bin.000001");
    // What is proven does not depend on it.
    assert_eq!(position(&rig.replica()), bookmark(1, &file(0)));
    let ran = taken(&rig, "", stream().begin_after(1, &file(0)).patch(21, &[0xf0]).end().segment(2, b"x").bye());
    assert_eq!(acked(&ran, "flushed").as_deref(), Some("1-2:1"));
    assert_eq!(landed(&rig, NAME), file(0));
    check(&rig);
    let kept = fs::read_to_string(rig.replica().join(".repl/segments.jsonl")).unwrap();
    assert!(kept.contains(&Digest::of(&file(0)).to_string()), "{kept}");
}

#[test]
fn a_flag_that_a_crash_has_left_stays_and_the_sums_are_of_the_file() {
    let rig = Rig::new();
    taken(&rig, "", stream().begin(1).data(&file(1)).patch(21, &[0xf1]).end().bye());
    assert_eq!((landed(&rig, NAME), position(&rig.replica())), (file(1), bookmark(1, &file(0))));
    check(&rig);
    let sums = fs::read_to_string(rig.replica().join(".repl/B3SUMS")).unwrap();
    assert_eq!(sums, format!("{}  {NAME}\n", Digest::of(&file(1))));
    rig.ok("$FETCH replica bin.000001 copy && cmp copy replica/bin.000001");
    // The next segment is proven by the other digest.
    taken(&rig, "", stream().begin_behind(2, &file(0)).data(b"x").bye());
}

#[test]
fn a_segment_that_comes_again_with_another_flag_is_the_same() {
    let rig = Rig::new();
    taken(&rig, "", stream().begin(1).data(&file(0)[..30]).bye());
    // The flag that arrives is not written over the one that is there; the patch decides.
    taken(&rig, "", stream().begin(1).data(&file(1)).bye());
    taken(&rig, "", stream().begin(1).data(&file(1)).patch(21, &[0xf0]).end().segment(2, b"x").bye());
    let before = tree(&rig.replica());
    // A closed segment is not touched again.
    for flags in [0, 1] {
        let ran = taken(
            &rig,
            "-v",
            stream().begin(1).data(&file(flags)).patch(21, &[0xf0 | flags]).end().segment(2, b"x").bye(),
        );
        assert!(ran.err.contains("41 bytes were there already and are equal"), "{ran:?}");
        assert_eq!(tree(&rig.replica()), before);
    }
    check(&rig);
    // Any other bit of that byte is a difference.
    let mut other = file(0);
    other[21] ^= 2;
    refused(&rig, "", stream().begin(1).data(&other).bye(), 4, "the byte at 1-1:21 differs");
}

#[test]
fn a_patch_of_anything_else_is_refused() {
    for (offset, bytes, says) in [
        (20, [0xf0].as_slice(), "a patch at 20, but this engine does not rewrite that"),
        (21, &[0xf0, 0], "a patch at 21, but this engine does not rewrite that"),
        (21, &[0xf2], "a patch at 21, but it is of bits that this engine does not rewrite"),
        (21, &[0x70], "a patch at 21, but it is of bits that this engine does not rewrite"),
    ] {
        let rig = Rig::new();
        taken(&rig, "", stream().begin(1).data(&file(1)).bye());
        refused(&rig, "", stream().begin_after(1, &file(0)).patch(offset, bytes), 6, says);
        taken(&rig, "", stream().begin_after(1, &file(0)).patch(21, &[0xf0]).end().bye());
    }
    let rig = Rig::new();
    let ran = apply(&rig, "", stream().begin(1).data(&file(1)[..21]).patch(21, &[0xf0]));
    ran.fails(6, "a patch at 21, but the stream has not come to it");
    let ran = apply(&rig, "", stream().patch(21, &[0xf0]));
    ran.fails(6, "the stream has log bytes before any segment begins");
    let rig = Rig::new();
    apply(&rig, "", Stream::new().begin(1).data(&file(1)).patch(21, &[0xf0])).fails(6, "does not rewrite that");
}
