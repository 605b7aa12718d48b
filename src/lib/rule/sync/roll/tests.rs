use super::*;

/// Bytes that are nowhere alike.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..length).map(|_| random.u8(..)).collect()
}

fn known(old: &[u8], block: u32) -> Known {
    let mut entries = Vec::new();
    sign(old, block, &mut entries);
    Known::parse(block, &entries).unwrap()
}

/// What the other end makes of the pieces, and how many bytes of them were new.
fn made(old: &[u8], new: &[u8], pieces: &[Piece]) -> (Vec<u8>, u64) {
    let (mut out, mut literal) = (Vec::new(), 0);
    for piece in pieces {
        match piece {
            Piece::Copy(from, length) => out.extend(&old[*from as usize..(from + length) as usize]),
            Piece::Data(length) => {
                literal += length;
                out.extend(&new[out.len()..out.len() + *length as usize]);
            }
        }
    }
    (out, literal)
}

/// The bytes that are new, by our account; the result is right.
#[track_caller]
fn literal(old: &[u8], new: &[u8], block: u32) -> u64 {
    let pieces = known(old, block).search(new, || false);
    let (out, literal) = made(old, new, &pieces);
    assert!(out == new);
    literal
}

#[test]
fn what_moved_is_found_wherever_it_is() {
    let old = noise(3 << 20, 1);
    let with = |at: usize, new: &[u8]| [&old[..at], new, &old[at..]].concat();
    let near = u64::from(BLOCK) * 2;
    assert_eq!(literal(&old, &old, BLOCK), 0);
    for at in [0, 1, 2047, 2048, 1 << 20, (1 << 20) + 7, old.len()] {
        for length in [1, 100, 5000] {
            let new = literal(&old, &with(at, &noise(length, 2)), BLOCK);
            assert!((length as u64..length as u64 + near).contains(&new), "{new} for {length} at {at}");
        }
    }
    assert!(literal(&old, &old[777..], BLOCK) < near);
    let swapped = [&old[1_000_003..], &old[..1_000_003]].concat();
    assert!(literal(&old, &swapped, BLOCK) < 2 * near);
    let twice = [b"a".as_slice(), &old[..700_001], b"b", &old[700_001..]].concat();
    assert!(literal(&old, &twice, BLOCK) < 2 * near);
    assert_eq!(literal(&old, &noise(3 << 20, 3), BLOCK), 3 << 20);
}

#[test]
fn every_length_and_every_block_is_done() {
    for block in [256, 1024, 16 << 10] {
        for length in [0, 1, 255, 256, 257, 20_000, 70_000, STEP - 1, STEP, STEP + 1] {
            let (old, more) = (noise(length, 4), noise(length + 3, 5));
            literal(&old, &more, block);
            assert!(literal(&old, &[b"x", old.as_slice()].concat(), block) < 2 * u64::from(block) + 1);
        }
    }
}

#[test]
fn the_same_block_many_times_is_copied_in_one_piece() {
    let old = [noise(4096, 6), vec![0; 1 << 20], noise(4096, 7)].concat();
    let new = [b"new".as_slice(), &old].concat();
    let pieces = known(&old, BLOCK).search(&new, || false);
    assert_eq!(pieces, [Piece::Data(3), Piece::Copy(0, old.len() as u64)]);
    let longer = vec![0; 2 << 20];
    assert_eq!(literal(&old, &longer, BLOCK), 0);
}

#[test]
fn entries_that_nobody_would_send_are_refused_before_the_library_sees_them() {
    let entry = [7; ENTRY];
    for block in [0, 1, 3, 128, 1000, 3 << 9, 32 << 10, 1 << 31, u32::MAX] {
        assert!(Known::parse(block, &entry).is_none(), "{block}");
    }
    assert!(Known::parse(BLOCK, &entry[1..]).is_none());
    let most = (WINDOW_MAX / u64::from(BLOCK)) as usize;
    assert!(Known::parse(BLOCK, &entry.repeat(most + 1)).is_none());
    assert!(Known::parse(BLOCK, &entry.repeat(most)).is_some());
    assert_eq!(Known::parse(BLOCK, &[]).unwrap().search(&[0; 9000], || false), [Piece::Data(9000)]);
}

#[test]
fn equal_weak_sums_in_numbers_cost_nothing() {
    // The weak sum of zeros, with as many strong ones as a question may have: each offset of the data asks for it.
    let mut entries = Vec::new();
    sign(&vec![0; BLOCK as usize], BLOCK, &mut entries);
    let weak = entries[..4].to_vec();
    let most = (WINDOW_MAX / u64::from(BLOCK)) as u32;
    let hostile: Vec<u8> = (0..most).flat_map(|n| [&weak, &n.to_le_bytes()[..], &[1; 4]].concat()).collect();
    let known = Known::parse(BLOCK, &hostile).unwrap();
    assert_eq!(known.firsts.len(), usize::from(EQUAL_MAX));
    assert_eq!(known.search(&vec![0; 1 << 16], || false), [Piece::Data(1 << 16)]);
}

#[test]
fn a_search_that_takes_too_long_is_given_up() {
    let old = noise(3 << 20, 8);
    let mut steps = 0;
    let pieces = known(&old, BLOCK).search(&old, || {
        steps += 1;
        steps > 2
    });
    assert_eq!(steps, 3);
    assert_eq!(pieces, [Piece::Copy(0, 2 << 20), Piece::Data(1 << 20)]);
}

#[test]
fn a_step_is_small_enough_for_the_dearest_blocks() {
    for block in BLOCKS.step_by(256).map(|block| block as usize) {
        let step = STEP.min(STEP_WORK / block);
        assert!(step >= 2 * block && step * block <= STEP_WORK);
    }
}

#[test]
fn a_delta_that_is_none_says_nothing() {
    let (good, bad) = (
        |bytes: &[u8]| read(&[&DELTA, bytes].concat()),
        |bytes: &[u8]| {
            assert_eq!(read(&[&DELTA, bytes].concat()), None, "{bytes:?}");
        },
    );
    assert_eq!(good(&[0]), Some(vec![]));
    assert_eq!(good(&[2, b'a', b'b', 0x45, 1, 2, 0]), Some(vec![Piece::Data(2), Piece::Copy(1, 2)]));
    assert_eq!(good(&[0x41, 1, b'a', 0x4a, 1, 0, 2, 0, 0]), Some(vec![Piece::Data(1), Piece::Copy(256, 512)]));
    for bytes in [&[][..], &[0, 0], &[2, b'a'], &[0x55], &[0x45, 1], &[0x44, 255, 255, 255, 255, 255, 255, 255, 255]] {
        bad(bytes);
    }
    bad(&[&[0x54][..], &[255; 16], &[0]].concat());
    assert_eq!(read(b"none"), None);
}

/// Two blocks of 256 bytes with the same MD4 and the same weak sum: four pairs of colliding pieces one behind the other
/// (Wang and others, 2005), of which each block has the one or the other such that the sums of their differences, and
/// those by place, are nothing.
fn collision() -> [Vec<u8>; 2] {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/md4-collision.txt"));
    let mut blocks = text
        .lines()
        .map(|line| (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap()).collect());
    [blocks.next().unwrap(), blocks.next().unwrap()]
}

/// Why its word only proposes.
#[test]
fn two_blocks_may_be_one_to_the_library() {
    let [one, other] = collision();
    assert!(one != other && one.len() == 256);
    assert_eq!(known(&one, 256).search(&other, || false), [Piece::Copy(0, 256)]);
    // What is behind them in a larger block changes nothing.
    let tail = noise(BLOCK as usize - 256, 9);
    let [one, other] = [one, other].map(|block| [block, tail.clone()].concat());
    assert_eq!(known(&one, BLOCK).search(&other, || false), [Piece::Copy(0, u64::from(BLOCK))]);
}
