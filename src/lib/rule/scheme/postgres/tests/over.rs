//! Records that go on: over pages, over segments, past a crash, behind a switch, on another timeline.

use super::*;

/// A scanner of a whole segment that follows those before it.
fn chain(log: &Log, count: u64) -> Scanner {
    let mut scanner = scan(&log.file(FIRST));
    for number in FIRST + 1..FIRST + count {
        let mut next = Scanner::new(cluster(), segment(number), None);
        next.follow(&scanner);
        next.take(&log.file(number));
        scanner = next;
    }
    scanner
}

/// A log whose first segment's last record ends `over` bytes into the rest of the log, and that has one record more.
fn spanning(over: usize) -> Log {
    let mut log = Log::sample();
    log.plain_to(SIZE as usize - 512);
    log.plain(over + 512 - 29);
    log.commit(4000);
    log
}

#[test]
fn records_of_any_length_fit_every_place_on_a_page() {
    for before in (0..8192 - 40 - 29).step_by(8).rev().take(40) {
        for length in [0, 1, 8, 100, 8168, 8170, 20_000] {
            let mut log = Log::new();
            log.plain(before);
            log.plain(length);
            log.commit(1);
            let scanner = scan(&log.bytes);
            assert_eq!((scanner.safe() as usize, scanner.trouble()), (log.bytes.len(), None), "{before} {length}");
        }
    }
}

#[test]
fn a_record_that_goes_on_in_the_next_segment_is_safe_in_neither_alone() {
    for over in [8, 100, 9000, 300_000] {
        let log = spanning(over);
        let first = scan(&log.file(FIRST));
        assert_eq!((first.safe(), first.at(), first.is_hungry()), (SIZE - 512, SIZE, true), "{over}");
        assert_eq!(first.trouble().as_deref(), Some("a record is cut off"));
        // Followed, it counts from its end on; alone, it is passed over, and the one behind it counts.
        let second = log.file(FIRST + 1);
        let ends: Vec<u64> = log.records.iter().map(|record| record.1 as u64).collect();
        let ends: Vec<u64> = ends.into_iter().filter(|end| *end > SIZE).map(|end| end - SIZE).collect();
        for (is_followed, expected) in [(true, &ends[..]), (false, &ends[1..])] {
            let mut scanner = Scanner::new(cluster(), segment(FIRST + 1), None);
            if is_followed {
                scanner.follow(&first);
            }
            let mut found = Vec::new();
            for byte in &second[..*ends.last().unwrap() as usize] {
                let before = scanner.safe();
                scanner.take(std::slice::from_ref(byte));
                if scanner.safe() > before {
                    found.push(scanner.safe());
                }
            }
            assert_eq!(found, expected, "{over}");
        }
    }
}

#[test]
fn going_back_to_the_beginning_of_a_segment_keeps_what_was_carried_into_it() {
    let log = spanning(9000);
    let first = scan(&log.file(FIRST));
    let mut scanner = Scanner::new(cluster(), segment(FIRST + 1), None);
    scanner.follow(&first);
    let bytes = log.file(FIRST + 1);
    let mut at = 0;
    for cut in (1..10_000).step_by(37).chain([bytes.len()]) {
        scanner.take(&bytes[at..cut]);
        let before = said(&scanner);
        scanner.rewind();
        at = scanner.at() as usize;
        assert_eq!((at as u64, scanner.safe()), (before.safe, before.safe), "{cut}");
    }
    assert_eq!(scanner.safe() as usize, log.bytes.len() - SIZE as usize);
}

#[test]
fn damage_in_a_record_that_goes_on_is_seen_in_the_segment_where_it_ends() {
    let log = spanning(9000);
    let first = scan(&log.file(FIRST));
    for at in [40, 1000, 8191, 8192 + 24, 8192 + 800] {
        let mut bytes = log.file(FIRST + 1);
        bytes[at] ^= 1;
        let mut scanner = Scanner::new(cluster(), segment(FIRST + 1), None);
        scanner.follow(&first);
        scanner.take(&bytes);
        assert!(scanner.safe() == 0 && says(&scanner, "checksum"), "{at}: {:?}", scanner.trouble());
    }
    let mut torn = scan(&log.file(FIRST));
    torn.take(&[0]);
    assert!(says(&torn, "longer"), "a file with a byte more hands nothing over");
    let mut scanner = Scanner::new(cluster(), segment(FIRST + 1), None);
    scanner.follow(&torn);
    scanner.take(&log.file(FIRST + 1));
    assert!(scanner.safe() > 0, "it is taken as if alone");
}

#[test]
fn the_first_page_must_go_on_as_the_segment_before_it_ended() {
    let bytes_of = |log: &Log| log.file(FIRST + 1);
    let followed = |before: &Log, bytes: &[u8]| {
        let mut scanner = Scanner::new(cluster(), segment(FIRST + 1), None);
        scanner.follow(&scan(&before.file(FIRST)));
        scanner.take(bytes);
        scanner
    };
    let (spanning, mut clean) = (spanning(3000), Log::sample());
    clean.plain_to(SIZE as usize);
    clean.commit(4000);
    assert!(followed(&clean, &bytes_of(&clean)).safe() > 0);
    assert!(says(&followed(&spanning, &bytes_of(&clean)), "does not go on"));
    assert!(says(&followed(&clean, &bytes_of(&spanning)), "goes on with"));
    let mut shorter = bytes_of(&spanning);
    shorter[16] -= 1;
    assert!(says(&followed(&spanning, &shorter), "are missing"));
    let mut both = bytes_of(&spanning);
    both[2] |= 8;
    assert!(says(&followed(&spanning, &both), "gives it up"));
    // A page that says it goes on, with nothing.
    let mut nothing = bytes_of(&clean);
    nothing[2] |= 1;
    assert!(says(&followed(&clean, &nothing), "goes on with"));
    let mut scanner = Scanner::new(cluster(), segment(FIRST + 1), None);
    scanner.take(&nothing);
    assert!(says(&scanner, "goes on with 0 bytes"));
    let mut release = bytes_of(&clean);
    release[0] ^= 1;
    assert!(says(&followed(&clean, &release), "of another kind"));
}

#[test]
fn a_record_longer_than_a_segment_is_followed_through_all_of_them() {
    let mut log = Log::sample();
    log.plain(3 * SIZE as usize + 5000);
    log.commit(5000);
    let scanner = chain(&log, 4);
    assert_eq!(scanner.safe() as usize, log.bytes.len() - 3 * SIZE as usize);
    assert_eq!(scanner.boundary().map(|mark| mark.time), Some(Some(time(5000))));
    // From the middle on: passed over, in step with what each page says is left.
    let mut scanner = Scanner::new(cluster(), segment(FIRST + 1), None);
    scanner.take(&log.file(FIRST + 1));
    let mut next = Scanner::new(cluster(), segment(FIRST + 2), None);
    next.follow(&scanner);
    next.take(&log.file(FIRST + 2));
    assert_eq!((next.safe(), next.at(), next.trouble().as_deref()), (0, SIZE, Some("a record is cut off")));
    let mut jumped = Scanner::new(cluster(), segment(FIRST + 2), None);
    jumped.follow(&scanner);
    let mut bytes = log.file(FIRST + 2);
    bytes[8192 + 17] ^= 1;
    jumped.take(&bytes);
    assert!(says(&jumped, "are missing"));
}

#[test]
fn the_server_goes_on_behind_a_record_that_a_crash_tore() {
    let mut log = Log::sample();
    let safe = log.bytes.len();
    log.plain(20_000);
    log.give_up(4 * 8192);
    log.commit(6000);
    let end = log.bytes.len();
    let scanner = scan(&log.bytes);
    assert_eq!((scanner.safe() as usize, scanner.boundary()), (end, Some(mark(end, 6000))));
    // While only the torn record is there, nothing of it counts; what counted before it is what counts now.
    assert_eq!(scan(&log.bytes[..4 * 8192]).safe() as usize, safe);
    let mut unmarked = log.bytes.clone();
    unmarked[4 * 8192 + 2] &= !8;
    assert!(says(&scan(&unmarked), "does not go on"));
    assert_eq!(scan(&unmarked).safe() as usize, safe);
}

#[test]
fn the_server_goes_on_in_the_next_segment_when_the_torn_record_began_in_this_one() {
    let mut log = spanning(9000);
    log.records.pop();
    log.give_up(SIZE as usize);
    log.commit(6000);
    let scanner = chain(&log, 2);
    assert_eq!(scanner.safe() as usize, log.bytes.len() - SIZE as usize);
    let mut again = scanner.clone();
    again.take(&[]);
    // A record of which only the end is known can be given up, too.
    let mut long = Log::sample();
    long.plain(2 * SIZE as usize + 5000);
    long.give_up(SIZE as usize + 5 * 8192);
    long.commit(6000);
    let mut alone = Scanner::new(cluster(), segment(FIRST + 1), None);
    alone.take(&long.bytes[SIZE as usize..]);
    assert_eq!(alone.safe() as usize, long.bytes.len() - SIZE as usize);
}

#[test]
fn behind_a_switch_the_segment_is_zeros_to_its_end() {
    let mut log = Log::sample();
    log.switch();
    log.commit(7000);
    let file = log.file(FIRST);
    let end = log.records[log.records.len() - 2].1;
    let scanner = scan(&file);
    assert_eq!((scanner.safe(), scanner.at(), scanner.trouble()), (SIZE, SIZE, None));
    assert_eq!(scan(&file[..file.len() - 1]).safe() as usize, end, "not before all of them are there");
    for at in [end, end + 1, end.next_multiple_of(8192), end.next_multiple_of(8192) + 30, SIZE as usize - 1] {
        let mut flipped = file.clone();
        flipped[at] = 4;
        assert_eq!(scan(&flipped).safe() as usize, end, "{at}");
        assert!(says(&scan(&flipped), "behind a segment switch"), "{at}");
        let mut again = scan(&flipped);
        again.rewind();
        again.take(&file[end..]);
        assert_eq!(again.safe(), SIZE, "{at}");
    }
    assert_eq!(chain(&log, 2).safe() as usize, log.bytes.len() - SIZE as usize);
}

#[test]
fn a_switch_may_lie_anywhere_even_over_the_end_of_a_segment() {
    for from_end in [8, 16, 24, 32, 8192, 8192 - 56, 8192 + 8] {
        let mut log = Log::sample();
        log.plain_to(SIZE as usize - from_end);
        log.switch();
        log.commit(7000);
        let number = (log.bytes.len() as u64 - 1) / SIZE;
        let scanner = chain(&log, number + 1);
        assert_eq!((number, scanner.trouble()), (1 + u64::from(from_end < 24), Some("no record begins there".into())));
        assert_eq!(scanner.safe(), log.bytes.len() as u64 % SIZE, "{from_end}");
    }
}

/// The server writes the zeros after the switch. Killed in between, it goes on in the next segment, and a file that was used
/// before keeps its old pages for ever.
#[test]
fn bug_old_pages_behind_a_switch_after_a_crash_were_damage() {
    let mut log = Log::sample();
    log.switch();
    log.commit(7000);
    let mut old = Log::new();
    old.plain_to(SIZE as usize);
    let mut file = log.file(FIRST);
    let end = log.records[log.records.len() - 2].1;
    let from = end.next_multiple_of(8192) + 2 * 8192;
    file[from..].copy_from_slice(&old.bytes[from..]);
    for page in (from..SIZE as usize).step_by(8192) {
        let address = ((FIRST - 3) * SIZE + page as u64).to_le_bytes();
        file[page + 8..page + 16].copy_from_slice(&address);
    }
    for chunk in [1, 5000, SIZE as usize] {
        let scanner = scan_in_chunks(&file, chunk, None);
        assert_eq!((scanner.safe() as usize, scanner.at()), (end, SIZE), "it may be that the zeros are still to come");
        let head = &log.file(FIRST + 1)[..512];
        let beside = Beside { own: &[], segment: segment(FIRST + 1), next: head, is_passed: true };
        assert_eq!(scanner.closure(beside), Closure::Closed);
        let mut next = Scanner::new(cluster(), segment(FIRST + 1), None);
        next.follow(&scanner);
        next.take(&log.bytes[SIZE as usize..]);
        assert_eq!(next.safe() as usize, log.bytes.len() - SIZE as usize);
        let mut later = scanner;
        later.rewind();
        later.take(&log.file(FIRST)[end..]);
        assert_eq!(later.safe(), SIZE);
    }
    file[from + 8..from + 16].copy_from_slice(&(FIRST * SIZE + from as u64).to_le_bytes());
    assert!(says(&scan(&file), "behind a segment switch"), "a page of this very place is none of an old file's");
}

#[test]
fn a_timeline_begins_with_its_parents_bytes_and_what_its_parent_carried() {
    let parent = {
        let mut log = spanning(9000);
        log.plain(100);
        log
    };
    let fork = parent.bytes.len();
    let (mut old, mut new) = (parent.clone(), parent.fork());
    old.plain(5000);
    new.commit(8000);
    new.plain(30_000);
    assert_eq!(new.bytes[..fork], old.bytes[..fork]);
    let first = scan(&parent.file(FIRST));
    let mut left = Scanner::new(cluster(), segment(FIRST + 1), None);
    left.follow(&first);
    left.take(&old.file(FIRST + 1));
    let child = Segment::new(2, FIRST + 1);
    let file = new.file(FIRST + 1);
    assert!(cluster().is_begun(child, &file) && cluster().is_inherited(child, &file));
    let mut scanner = Scanner::new(cluster(), child, None);
    scanner.follow(&left);
    scanner.take(&file[..13_000]);
    assert!(scanner.safe() > 0 && scanner.trouble().as_deref() == Some("a record is cut off"));
    scanner.take(&file[13_000..]);
    assert_eq!(scanner.safe() as usize, new.bytes.len() - SIZE as usize);
    // The parent's own end is nobody's business, once its child has begun.
    let beside = |next| Beside { own: &[], segment: child, next, is_passed: true };
    assert_eq!(left.closure(beside(&file)), Closure::Closed);
    assert_eq!(left.closure(beside(&[0; 512])), Closure::Open);
    // A child that begins with a segment of its own.
    let mut whole = Log::sample();
    whole.plain_to(SIZE as usize);
    let mut own = whole.fork();
    own.commit(9000);
    let mut scanner = Scanner::new(cluster(), child, None);
    scanner.follow(&scan(&whole.file(FIRST)));
    scanner.take(&own.file(FIRST + 1));
    assert_eq!(scanner.boundary().map(|mark| mark.time), Some(Some(time(9000))));
    assert!(!cluster().is_inherited(child, &own.file(FIRST + 1)));
}

/// A server that leaves a timeline gives the files that lie beyond the fork new names: one may become the same segment of
/// the new timeline, and its pages name their very place.
#[test]
fn bug_a_segment_of_the_timeline_that_was_left_counted_under_its_new_name() {
    let mut parent = Log::sample();
    parent.plain_to(SIZE as usize);
    let mut old = parent.clone();
    old.plain_to(2 * SIZE as usize);
    let mut new = Log::sample().fork();
    new.plain_to(SIZE as usize);
    let mut first = Scanner::new(cluster(), Segment::new(2, FIRST), None);
    first.take(&new.file(FIRST));
    assert_eq!(first.safe(), SIZE);
    let name = Segment::new(2, FIRST + 1);
    let renamed = old.file(FIRST + 1);
    assert!(cluster().is_inherited(name, &renamed));
    let mut scanner = Scanner::new(cluster(), name, None);
    scanner.follow(&first);
    scanner.take(&renamed);
    assert_eq!((scanner.safe(), scanner.trouble().as_deref()), (0, Some("no record begins there")));
    let beside = Beside { own: &[], segment: name, next: &renamed[..512], is_passed: true };
    assert_eq!(first.closure(beside), Closure::Open);
    // Behind its first records, too: the file has been used again up to there.
    new.plain(100);
    let mut half = new.bytes[SIZE as usize..].to_vec();
    half.resize(8192, 0);
    half.extend(&renamed[8192..]);
    scanner.rewind();
    scanner.take(&half);
    assert_eq!(scanner.safe() as usize, new.bytes.len() - SIZE as usize);
}
