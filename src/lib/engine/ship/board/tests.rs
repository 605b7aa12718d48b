//! What counts of a receiver's words, and what does not.

use super::*;

fn at(text: &str) -> Position {
    text.parse().unwrap()
}

fn board(policy: Policy, names: &[&str]) -> Board {
    let board = Board::new(policy, Duration::from_secs(5));
    for name in names {
        board.change(&[], &[(&Receiver::command(name), None)]);
    }
    board
}

fn flushed(text: &str) -> Ack {
    Ack { received: Some(at(text)), flushed: Some(at(text)), applied: None }
}

fn welcome(at: &str) -> Welcome {
    let at = at.parse().unwrap();
    Welcome { set: String::new(), engine: String::new(), site: String::new(), epoch: 0, at, feeds: false }
}

fn has(board: &Board, policy: Policy, position: &str) -> bool {
    board.look(|facts| facts.confirmed(policy, Level::Flushed)).has(at(position))
}

/// One that has not been compared, or is beyond what was sent, may be of another history.
#[test]
fn a_word_counts_only_up_to_the_place_that_was_proven_and_sent() {
    let board = board(Policy::One, &["a"]);
    board.greeted(0, &welcome("1-3:9"));
    board.heard(0, flushed("1-3:9"));
    assert!(!has(&board, Policy::One, "1-1:0"));
    board.placed(0, at("1-3:4"));
    assert!(!has(&board, Policy::One, "1-1:0"), "it said 9, and 4 is proven");
    // The acknowledgement overtakes what the lane writes down.
    board.sent(0, Some(at("1-3:9")));
    assert!(has(&board, Policy::One, "1-3:9") && !has(&board, Policy::One, "1-3:10"));
    board.heard(0, flushed("1-3:20"));
    assert!(!has(&board, Policy::One, "1-3:10"));
    board.sent(0, Some(at("1-3:20")));
    assert!(has(&board, Policy::One, "1-3:20"));
}

#[test]
fn what_a_site_has_set_aside_is_taken_back_and_a_dead_site_still_has_what_it_had() {
    let board = board(Policy::One, &["a"]);
    board.placed(0, at("1-3:9"));
    board.heard(0, flushed("1-3:9"));
    board.lost(0, Link::Retrying, Some((Code::Link, "gone".into())));
    assert!(has(&board, Policy::One, "1-3:9"));
    board.greeted(0, &welcome("1-3:9"));
    board.placed(0, at("1-3:9"));
    board.heard(0, flushed("1-3:4"));
    assert!(!has(&board, Policy::One, "1-3:9") && has(&board, Policy::One, "1-3:4"));
    board.greeted(0, &welcome("oldest"));
    assert!(!has(&board, Policy::One, "1-1:0"));
}

#[test]
fn a_site_that_comes_back_with_less_or_with_another_log_counts_for_no_more_than_that() {
    let board = board(Policy::One, &["a", "b"]);
    for id in [0, 1] {
        board.placed(id, at("1-3:9"));
        board.heard(id, flushed("1-3:9"));
    }
    board.greeted(0, &welcome("1-2:5"));
    assert!(has(&board, Policy::One, "1-3:9") && !has(&board, Policy::All, "1-2:6"));
    board.lost(1, Link::Refused, Some((Code::Diverged, "another".into())));
    assert!(has(&board, Policy::One, "1-2:5") && !has(&board, Policy::One, "1-2:6"));
}

/// Between two processes a log may have begun anew, with the same positions.
#[test]
fn what_an_earlier_process_knew_keeps_log_and_confirms_nothing() {
    let board = board(Policy::One, &[]);
    let id = board.change(&[], &[(&Receiver::command("a"), Some(at("1-3:9")))])[0];
    assert_eq!(board.look(Facts::least), Some(at("1-3:9")));
    assert!(!has(&board, Policy::One, "1-1:0"));
    board.greeted(id, &welcome("1-2:0"));
    assert_eq!(board.look(Facts::least), Some(at("1-2:0")));
}

#[test]
fn what_a_site_has_beyond_the_place_where_its_generation_was_left_is_of_another_log() {
    let board = board(Policy::One, &["a"]);
    board.placed(0, at("1-15:0"));
    board.left(0, at("1-15:7"));
    board.sent(0, Some(at("2-15:9")));
    board.heard(0, flushed("1-20:3"));
    assert!(!has(&board, Policy::One, "1-15:0"));
    board.heard(0, flushed("1-15:7"));
    assert!(has(&board, Policy::One, "1-15:7") && !has(&board, Policy::One, "2-15:0"));
    board.heard(0, flushed("2-15:9"));
    assert!(has(&board, Policy::One, "2-15:9"));
    // All of it was set aside.
    board.heard(0, Ack::default());
    assert!(!has(&board, Policy::One, "1-1:0"));
}

/// A site that changes is never missing, and is known for what it has.
#[test]
fn receivers_change_all_at_once() {
    let board = board(Policy::All, &["a", "b"]);
    board.placed(1, at("1-3:9"));
    board.heard(1, flushed("1-3:9"));
    let changed = Receiver { votes: 3, ..Receiver::command("b") };
    let ids = board.change(&[1], &[(&changed, Some(at("1-1:0"))), (&Receiver::command("c"), None)]);
    assert_eq!(ids, [2, 3]);
    assert!(has(&board, Policy::One, "1-3:9") && !has(&board, Policy::All, "1-1:0"));
    assert_eq!(board.look(|facts| facts.sites.keys().copied().collect::<Vec<_>>()), [0, 2, 3]);
}

#[test]
fn what_a_pass_asks_for_is_met_by_those_that_have_ended_well_and_by_acknowledgements() {
    let board = board(Policy::One, &["a", "b", "c"]);
    let met = |policy, last: Option<&str>| board.look(|facts| facts.is_met(policy, last.map(at)));
    board.lost(0, Link::Done, None);
    assert!(met(Policy::One, None) && !met(Policy::Quorum, None));
    board.lost(1, Link::Done, Some((Code::Link, "gone".into())));
    assert!(!met(Policy::Quorum, None));
    board.placed(2, at("1-3:9"));
    board.heard(2, flushed("1-3:9"));
    assert!(met(Policy::Quorum, Some("1-3:9")) && !met(Policy::Quorum, None) && !met(Policy::All, Some("1-3:9")));
}

#[test]
fn a_site_that_does_not_acknowledge_is_in_no_policy_but_its_log_is_kept() {
    let board = board(Policy::All, &["a"]);
    let quiet = Receiver { acks: false, ..Receiver::command("b") };
    let id = board.change(&[], &[(&quiet, None)])[0];
    board.placed(0, at("1-3:9"));
    board.heard(0, flushed("1-3:9"));
    assert!(has(&board, Policy::All, "1-3:9"));
    assert_eq!(board.look(Facts::least), None);
    board.placed(id, at("1-2:0"));
    board.heard(id, flushed("1-2:0"));
    assert_eq!(board.look(Facts::least), Some(at("1-2:0")));
}

#[test]
fn who_waits_is_woken_by_the_acknowledgement_and_by_the_end() {
    let board = board(Policy::One, &["a"]);
    board.placed(0, at("1-1:5"));
    let far = Instant::now() + Duration::from_secs(600);
    let wait = |position: &'static str| {
        board.wait(far, |facts| facts.confirmed(Policy::One, Level::Flushed).has(at(position)).then_some(()))
    };
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| wait("1-1:5"));
        board.heard(0, flushed("1-1:5"));
        assert_eq!(waits.join().unwrap(), Waited::So(()));
        let waits = scope.spawn(|| wait("1-1:6"));
        board.end();
        assert_eq!(waits.join().unwrap(), Waited::Over);
    });
    assert_eq!(board.wait(Instant::now(), |_| None::<()>), Waited::Over);
}
