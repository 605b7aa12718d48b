//! Where a recovery ends: at a byte, at a time, and never somewhere else without a word.

use super::{LENGTH, Vault, up_to};

/// Says when each segment was written.
fn written(vault: &Vault) {
    vault.rig.ok("for at in 1 2 3 4; do touch -d @${at}000 archive/log.$at; done");
}

#[test]
fn a_position_is_reached_to_the_byte() {
    let vault = Vault::logs();
    for (until, last, length) in [
        ("1-3:1234", 3, 1234),
        ("1-1:1", 1, 1),
        ("1-4:4999", 4, 4999),
        ("1-4:5000", 4, LENGTH),
        ("1-3:5000", 3, LENGTH),
        // Beyond the end of a segment that has a later one: all of it.
        ("1-2:9999", 2, LENGTH),
    ] {
        let told = vault.recover(&format!("--until {until}"));
        assert_eq!(vault.laid("target"), up_to(last, length), "{until}");
        assert_eq!(told["position"], format!("1-{last}:{length}"), "{until}");
        assert_eq!(told["is_cut"], (last, length) != (4, LENGTH), "{until}");
        vault.rig.ok("rm -r target");
    }
}

#[test]
fn a_position_beyond_what_is_held_is_3_and_says_where_that_ends() {
    let vault = Vault::logs();
    for until in ["1-4:5001", "1-5:0", "1-9:1", "2-1:0"] {
        vault.refuses(&format!("--until {until}"), 3, "the log that is held ends at 1-4:5000");
    }
}

#[test]
fn a_time_is_the_last_that_was_written_by_then() {
    let vault = Vault::logs();
    written(&vault);
    for (until, last) in [("@1000", 1), ("@1999", 1), ("@2000", 2), ("1970-01-01 00:50:00", 3), ("@3999", 3)] {
        let told = vault.recover(&format!("--until '{until}'"));
        assert_eq!(vault.laid("target"), up_to(last, LENGTH), "{until}: {told}");
        vault.rig.ok("rm -r target");
    }
}

#[test]
fn a_time_later_than_the_last_transaction_is_3() {
    let vault = Vault::logs();
    written(&vault);
    for until in ["@4000", "@4001", "2999-01-01T00:00:00Z"] {
        vault.refuses(&format!("--until {until}"), 3, "the log that is held ends at 1-4:5000");
    }
}

#[test]
fn the_base_is_the_newest_that_is_not_later() {
    let vault = Vault::based();
    vault.rig.ok("echo more >> master/table && $BASE --name two master archive");
    vault.write(5);
    vault.ship("archive");
    let base = |options: &str| vault.rig.ok(&format!("$RECOVER --archive archive -n {options} | sed -n 's/^base //p'"));
    assert!(base("").starts_with("two 1-4:5000 "));
    assert!(base("--until 1-4:5000").starts_with("two "));
    assert!(base("--until 1-4:4999").starts_with("one 1-2:5000 "));
    assert!(base("--base one").starts_with("one "));
    // Log alone where each of them is later, since it begins with the set.
    assert_eq!(base("--until 1-2:4999"), "none\n");
    vault.refuses("--base two --until 1-4:4999", 3, "base two ends at 1-4:5000, later than --until");
}

#[test]
fn an_earlier_end_after_an_interrupted_recovery_is_kept_to() {
    let vault = Vault::logs();
    for until in ["1-3:7", "1-4:7", "1-2:0"] {
        vault.refuses_after("--check false", 9);
        assert_eq!(vault.laid("target"), up_to(4, LENGTH));
        vault.recover(&format!("--until {until}"));
        let (sequence, length) = until[2..].split_once(':').unwrap();
        assert_eq!(vault.laid("target"), up_to(sequence.parse().unwrap(), length.parse().unwrap()), "{until}");
        vault.rig.ok("rm -r target");
    }
}
