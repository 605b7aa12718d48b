//! kill -9 of either end at any instant: what is there is right at once, and the next start goes on by itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

#[path = "support/rig.rs"]
mod rig;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use repl::value::digest::Digest;
use rig::{Rig, eventually, noise};
use rustix::process::{Pid, Signal, kill_process};

/// How often to kill.
fn rounds() -> u64 {
    std::env::var("REPL_TEST_ROUNDS").map_or(40, |rounds| rounds.parse().unwrap())
}

/// Names of regular files in a directory, sorted.
fn files(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What must hold at any instant: each of our segments begins like the master's, and is as long as `position` says.
fn check_prefixes(rig: &Rig) {
    for name in files(&rig.replica()) {
        if name == ".repl" {
            continue;
        }
        let (ours, theirs) =
            (fs::read(rig.replica().join(&name)).unwrap(), fs::read(rig.master().join(&name)).unwrap());
        assert!(theirs.starts_with(&ours), "{name} is no prefix of the master's");
    }
    let Some((segment, offset, digest)) = position(rig) else {
        return;
    };
    let ours = fs::read(rig.replica().join(format!("log.{segment}"))).unwrap();
    let held =
        ours.get(..offset).unwrap_or_else(|| panic!("log.{segment} has {} bytes, {offset} are held", ours.len()));
    assert_eq!(Digest::of(held).proof().to_string(), digest, "log.{segment} up to {offset}");
}

/// What `--position` prints: sequence, offset, proof.
fn position(rig: &Rig) -> Option<(u64, usize, String)> {
    let text = rig.ok("$APPLY --position replica");
    let (at, proof) = text.trim().strip_prefix("1-")?.split_once('+')?;
    let (segment, offset) = at.split_once(':')?;
    Some((segment.parse().unwrap(), offset.parse().unwrap(), proof.to_owned()))
}

/// Only what belongs there is there.
fn check_litter(rig: &Rig, last: u64) {
    let expected: Vec<_> = (1..=last).map(|sequence| format!("log.{sequence}")).collect();
    let mut found = files(&rig.replica());
    found.retain(|name| name != ".repl");
    found.sort_by_key(|name| name[4..].parse::<u64>().unwrap());
    assert_eq!(found, expected);
    let known = [
        "B3SUMS",
        "epoch",
        "history.jsonl",
        "instance",
        "lines.lock",
        "lock",
        "origin",
        "position",
        "segments.jsonl",
        "status.json",
    ];
    for name in files(&rig.replica().join(".repl")) {
        assert!(known.contains(&name.as_str()), "litter: {name}");
    }
    for name in files(&rig.path("state")) {
        assert!(
            ["history.jsonl", "instance", "lag.jsonl", "lines.lock", "lock", "segments.jsonl", "status.json", "wait"]
                .contains(&name.as_str()),
            "litter: {name}"
        );
    }
}

/// Each closed segment stands in the manifest and in the journal once, and right.
fn check_records(rig: &Rig, last: u64) {
    let sums = fs::read_to_string(rig.replica().join(".repl/B3SUMS")).unwrap();
    let mut seen = BTreeSet::new();
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").unwrap();
        assert_eq!(sum, Digest::of(&fs::read(rig.replica().join(name)).unwrap()).to_string(), "{name}");
        assert!(seen.insert(name.to_owned()), "{name} stands there twice");
    }
    assert_eq!(seen.len() as u64, last - 1, "{sums}");
    let journal = fs::read_to_string(rig.replica().join(".repl/segments.jsonl")).unwrap();
    assert_eq!(journal.lines().count() as u64, last - 1, "{journal}");
}

fn pid_in(lock: &Path) -> Option<Pid> {
    Pid::from_raw(fs::read_to_string(lock).ok()?.trim().strip_prefix("process ")?.parse().ok()?)
}

#[test]
fn kill_9_at_any_instant_leaves_a_prefix_and_the_next_start_goes_on() {
    let rig = Rig::new();
    let (mut last, mut random) = (1, fastrand::Rng::with_seed(7));
    rig.write("log.1", b"");
    let follow = "exec $SHIP --pattern log.%S --state state --poll 2ms --no-sync-source --via \"exec $APPLY --acks replica\" master";
    let mut ship = rig.spawn(follow);
    let (mut kills, mut landed) = ([0; 2], 0);
    for round in 0..rounds() {
        let before = position(&rig);
        // Work is under way when the blow falls, at an instant that nothing else decides.
        for piece in 0..random.u64(1..8) {
            if random.u8(..4) == 0 {
                last += 1;
            }
            let length = [1, 300, 70_000, 400_000][random.usize(..4)];
            rig.append(&format!("log.{last}"), noise(length, round * 100 + piece));
        }
        std::thread::sleep(Duration::from_micros(random.u64(..40_000)));
        let applier = pid_in(&rig.replica().join(".repl/lock"));
        if random.bool() {
            ship.signal(Signal::KILL);
            ship.wait();
            kills[0] += 1;
            // Its receiver sees the end of its input; it is a group of its own.
            check_prefixes(&rig);
            ship = rig.spawn(follow);
        } else if let Some(applier) = applier {
            kills[1] += usize::from(kill_process(applier, Signal::KILL).is_ok());
            check_prefixes(&rig);
        }
        if round % 8 == 7 {
            let whole = rig::segments(&rig.master());
            eventually("all of it", || rig::segments(&rig.replica()) == whole);
        }
        landed += u64::from(position(&rig) != before);
    }
    let whole = rig::segments(&rig.master());
    eventually("all of it", || rig::segments(&rig.replica()) == whole);
    ship.signal(Signal::TERM);
    assert_eq!(ship.wait().code, 0, "{}", ship.err());
    eprintln!("{} times ship, {} times apply, {landed} rounds with progress, {last} segments", kills[0], kills[1]);
    assert!(kills[0] > 0 && kills[1] > 0 && landed > 0, "nothing was tried");
    rig.assert_equal();
    check_prefixes(&rig);
    check_litter(&rig, last);
    check_records(&rig, last);
}
