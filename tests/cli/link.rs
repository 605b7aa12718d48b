//! The link as the sender sees it: runs that are repeated, whose verdict counts, receivers that print.

use super::rig::{Rig, noise};

fn three(rig: &Rig) {
    for sequence in 1..=3 {
        rig.write(&format!("log.{sequence}"), noise(3000, sequence));
    }
}

#[test]
fn a_pass_that_finds_nothing_new_is_acknowledged_and_exits_0() {
    let rig = Rig::new();
    three(&rig);
    for pass in 0..3 {
        let ran = rig.pass("--pattern log.%S --retry-for 0s", "");
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "pass {pass}");
    }
    rig.assert_equal();
}

#[test]
fn a_gap_at_the_sender_is_its_verdict_though_the_receiver_sees_a_cut_stream() {
    let rig = Rig::new();
    three(&rig);
    assert_eq!(rig.pass("--pattern log.%S", "").code, 0);
    rig.write("log.5", b"x");
    rig.pass("--pattern log.%S --retry-for 0s", "").fails(3, "gap: segment 1-5 comes after 1-3");
}

#[test]
fn an_archive_command_ships_segments_in_turn_and_any_of_them_again() {
    let rig = Rig::new();
    three(&rig);
    let archive = |sequence: u64, state: &str| {
        rig.run(&format!(
            "$SHIP --segment master/log.{sequence} --pattern log.%S --state {state} --retry-for 0s --via '$APPLY --acks replica'"
        ))
    };
    for sequence in [1, 2, 1, 2, 3, 3, 1] {
        let ran = archive(sequence, "kept");
        assert_eq!(ran.code, 0, "{sequence}: {ran:?}");
    }
    rig.assert_equal();
    rig.write("log.4", noise(10, 4));
    rig.write("log.5", noise(10, 5));
    // Without a memory of what was shipped, the segment before is read.
    assert_eq!(archive(4, "new").code, 0);
    rig.write("log.2", noise(3000, 9));
    archive(2, "kept").fails(4, "diverged");
    rig.write("log.7", b"x");
    archive(7, "kept").fails(3, "gap");
}

#[test]
fn a_tail_that_is_set_aside_lets_the_same_connection_go_on() {
    let rig = Rig::new();
    three(&rig);
    assert_eq!(rig.pass("--pattern log.%S", "").code, 0);
    // The master lost its tail: it is shorter, and the same before.
    rig.write("log.3", &noise(3000, 3)[..1000]);
    rig.pass("--pattern log.%S", "").fails(4, "ahead");
    let ran = rig.pass("--pattern log.%S --retry-for 0s --timeout 11s", "--set-aside");
    assert_eq!(ran.code, 0, "{ran:?}");
    rig.assert_equal();
    // Other bytes: the segment starts over on a connection of its own.
    rig.write("log.3", noise(2000, 7));
    rig.pass("--pattern log.%S", "").fails(4, "diverged");
    let ran = rig.pass("--pattern log.%S", "--set-aside");
    assert_eq!(ran.code, 0, "{ran:?}");
    rig.assert_equal();
}

#[test]
fn a_receiver_that_prints_words_is_a_usage_error_and_not_tried_again() {
    let rig = Rig::new();
    three(&rig);
    rig.run("$SHIP -S --pattern log.%S --via 'echo You have mail.; $APPLY --acks replica' master")
        .fails(2, "You have mail.");
    assert!(!rig.replica().join("log.1").exists());
    assert_eq!(rig.pass("--pattern log.%S", "").code, 0);
}
