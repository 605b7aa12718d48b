//! Whether a segment is finished, judged by the next.

use super::*;

fn judge(scanner: &Scanner, next: &[u8], is_passed: bool) -> Closure {
    scanner.closure(Beside { own: &[], segment: segment(FIRST + 1), next, is_passed })
}

fn damage(closure: Closure) -> String {
    match closure {
        Closure::Damaged(why) => why,
        other => panic!("{other:?}"),
    }
}

/// Two segments; the first ends with the end of a record.
fn clean() -> Log {
    let mut log = Log::sample();
    log.plain_to(SIZE as usize);
    log.plain(2000);
    log.commit(4000);
    log
}

/// Two segments; a record goes on from the first to the second, for more than two pages.
fn spanning() -> Log {
    let mut log = Log::sample();
    log.plain_to(SIZE as usize - 64);
    log.plain(20_000);
    log.commit(4000);
    log
}

#[test]
fn only_the_beginning_of_the_next_segment_closes_one() {
    for log in [clean(), spanning()] {
        let (scanner, next) = (scan(&log.file(FIRST)), log.file(FIRST + 1));
        for is_passed in [false, true] {
            assert_eq!(judge(&scanner, &next, is_passed), Closure::Closed);
            let mut old = next.clone();
            old[8..16].copy_from_slice(&((FIRST - 2) * SIZE).to_le_bytes());
            for absent in [&[] as &[u8], &next[..39], &[0; 512], &[0xa5; 512], &old] {
                assert_eq!(judge(&scanner, absent, is_passed), Closure::Open);
            }
        }
    }
}

#[test]
fn a_segment_that_ends_with_a_record_is_closed_by_the_next_ones_first_page_alone() {
    let log = clean();
    let (scanner, next) = (scan(&log.file(FIRST)), log.file(FIRST + 1));
    for length in [40, 41, 100, 512] {
        assert_eq!(judge(&scanner, &next[..length], false), Closure::Closed, "{length}");
    }
    let mut torn = next[..512].to_vec();
    torn[40..].fill(0);
    assert_eq!(judge(&scanner, &torn, false), Closure::Closed);
}

#[test]
fn a_segment_whose_last_record_goes_on_is_closed_when_that_record_is_whole() {
    let log = spanning();
    let (scanner, next) = (scan(&log.file(FIRST)), log.file(FIRST + 1));
    let end = log.records.iter().map(|record| record.1).find(|end| *end > SIZE as usize).unwrap() - SIZE as usize;
    for length in (40..next.len()).step_by(8).take_while(|length| *length < end + 100) {
        let expected = if length < end { Closure::More } else { Closure::Closed };
        assert_eq!(judge(&scanner, &next[..length], false), expected, "{length}");
        let mut torn = next[..length].to_vec();
        torn.resize(3 * 8192, 0);
        // Zeros behind the first page's header could only be a torn record's.
        assert_eq!(
            judge(&scanner, &torn, false),
            if length < end { Closure::Open } else { Closure::Closed },
            "{length}"
        );
        assert_eq!(matches!(judge(&scanner, &torn, true), Closure::Damaged(_)), length < end, "{length}");
    }
}

#[test]
fn a_record_that_was_given_up_closes_its_segment() {
    let mut log = spanning();
    log.records.pop();
    log.give_up(SIZE as usize);
    let (scanner, next) = (scan(&log.file(FIRST)), log.file(FIRST + 1));
    assert_eq!(judge(&scanner, &next[..512], false), Closure::Closed);
    assert_eq!(judge(&scanner, &next[..40], true), Closure::Closed);
}

#[test]
fn a_damaged_end_of_a_record_is_damage_when_a_later_segment_is_there_and_perhaps_unfinished_before() {
    let log = spanning();
    let (scanner, mut next) = (scan(&log.file(FIRST)), log.file(FIRST + 1));
    next[9000] ^= 1;
    assert_eq!(judge(&scanner, &next, false), Closure::Open);
    let why = damage(judge(&scanner, &next, true));
    assert!(why.contains("goes on in the next segment") && why.contains("checksum"), "{why}");
    next[8192..2 * 8192].fill(0);
    assert_eq!(judge(&scanner, &next, false), Closure::Open);
    assert!(damage(judge(&scanner, &next, true)).contains("does not end"));
}

#[test]
fn a_segment_that_is_cut_or_damaged_or_short_is_never_closed() {
    for log in [clean(), spanning()] {
        let (file, next) = (log.file(FIRST), log.file(FIRST + 1));
        for at in [0, 41, 5000, 8192, 8200, 20_000, 500_000, SIZE as usize - 100] {
            let mut flipped = file.clone();
            flipped[at] ^= 1;
            let why = damage(judge(&scan(&flipped), &next, false));
            assert!(why.starts_with("the next segment has begun, and here "), "{at}: {why}");
            let mut torn = file.clone();
            torn[at..].fill(0);
            damage(judge(&scan(&torn), &next, false));
            damage(judge(&scan(&file[..at]), &next, false));
        }
        let end = log.end_within(SIZE as usize / 2);
        assert!(damage(judge(&scan(&file[..end]), &next, false)).contains("too short"));
        damage(judge(&scan(&[file.as_slice(), &[0]].concat()), &next, false));
    }
}

/// A record that fills the next segment never came to its end there, and the log stood still for ever.
#[test]
fn bug_a_record_longer_than_a_segment_was_never_closed() {
    let mut log = Log::sample();
    log.plain(2 * SIZE as usize + 5000);
    log.commit(4000);
    let (first, second, third) = (log.file(FIRST), log.file(FIRST + 1), log.file(FIRST + 2));
    let scanner = scan(&first);
    assert_eq!(judge(&scanner, &second, false), Closure::More, "a later one may never come");
    assert_eq!(judge(&scanner, &second[..SIZE as usize / 2], true), Closure::More);
    assert_eq!(judge(&scanner, &second, true), Closure::Closed);
    let mut middle = Scanner::new(cluster(), segment(FIRST + 1), None);
    middle.follow(&scanner);
    middle.take(&second);
    let beside = |next| Beside { own: &[], segment: segment(FIRST + 2), next, is_passed: false };
    assert_eq!(middle.closure(beside(&third[..512])), Closure::More);
    assert_eq!(middle.closure(beside(&third)), Closure::Closed);
    let mut alone = Scanner::new(cluster(), segment(FIRST + 1), None);
    alone.take(&second);
    assert_eq!(alone.closure(beside(&third)), Closure::Closed);
}

/// The system and the addresses are right, and yet it is the log of another life of the database.
#[test]
fn a_next_segment_of_another_history_is_damage_though_each_is_whole() {
    let (one, mut other) = (clean(), Log::sample());
    other.plain_to(SIZE as usize - 800);
    other.plain_to(SIZE as usize);
    other.plain(2000);
    let (mine, theirs) = (scan(&one.file(FIRST)), other.file(FIRST + 1));
    assert_eq!(judge(&mine, &theirs, false), Closure::Closed, "it is judged by itself, in order");
    assert!(damage(judge(&mine, &theirs, true)).contains("does not go on from here"));
    let spanning = spanning().file(FIRST + 1);
    assert!(damage(judge(&mine, &spanning, true)).contains("does not go on from here"));
    // What is wrong with the next one alone is said of that one.
    let mut flipped = one.file(FIRST + 1);
    flipped[16..24].fill(1);
    flipped[24] ^= 1;
    assert_eq!(judge(&mine, &flipped, true), Closure::Closed);
}
