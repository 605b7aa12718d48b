//! kill -9 of either end.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::rig::{Ran, eventually, noise};
use crate::stand::{Far, Stand, rounds};

#[test]
fn kill_9_at_any_instant_leaves_old_or_new_or_fenced_and_the_next_run_completes() {
    let stand = Stand::synced();
    let mut random = fastrand::Rng::with_seed(11);
    let (mut span, mut kills, mut fenced, mut early) = (Duration::from_millis(400), [0; 2], 0, 0);
    for round in 0..rounds(12) {
        let far = [Far::None, Far::Source, Far::Destination][(round % 3) as usize];
        let mode = ["--inplace", "--stage"][(round / 3 % 2) as usize];
        stand.advance();
        let mut run = stand.spawn(far, mode, "");
        // Now and then as soon as it is there: however fast this machine is, that is before its end.
        let is_soon = round % 4 == 3;
        let is_far = far != Far::None && (is_soon || random.bool());
        if is_far {
            eventually("the far end", || stand.far_end().is_some());
        }
        if !is_soon {
            std::thread::sleep(Duration::from_micros(random.u64(..span.as_micros() as u64)));
        }
        let near = Pid::from_child(&run.child);
        let (victim, is_near) = match is_far.then(|| stand.far_end()).flatten() {
            Some(far) => (far, false),
            None => (near, true),
        };
        if stand.signal(victim, Signal::KILL) {
            kills[usize::from(is_near)] += 1;
        }
        let ran = run.wait();
        stand.quiet();
        assert!([-1, 0, 8].contains(&ran.code) || is_within_a_command(&ran), "{far:?} {mode}: {ran:?}");
        stand.judge();
        fenced += u64::from(stand.is_fenced());
        let had_receiver = (far == Far::Destination) == is_near && far != Far::None;
        if had_receiver {
            // What was not killed has brought the server back, or it was never stopped.
            assert!(stand.path("running").exists(), "{far:?} {mode}: {:?} {ran:?}", stand.log());
        }
        early += u64::from(ran.code != 0);
        let begun = Instant::now();
        stand.completes(far, mode, "");
        span = begun.elapsed();
    }
    eprintln!("{kills:?} killed, {early} before their end, {fenced} in the middle of a replay");
    assert!(kills[0] > 0 && kills[1] > 0 && early > 0, "nothing was tried");
}

/// The far end was killed while the near one waited for a command of its own; that says so itself.
fn is_within_a_command(ran: &Ran) -> bool {
    ran.code == 9
}

/// What a run has brought over before it was killed is not sent again.
fn nothing_is_sent_twice(mode: &str) {
    let stand = Stand::synced();
    for number in 0..40 {
        fs::write(stand.src(&format!("big-{number}")), noise(200_000, 1000 + number)).unwrap();
    }
    let stage = stand.path(".repl-sync-dst");
    let mut run = stand.spawn(Far::Source, mode, "--bwlimit 3M --compress none");
    let size = || stand.rig.run("du -sb .repl-sync-dst | cut -f1").out.trim().parse().unwrap_or(0_u64);
    // A stage begins with the old tree.
    let old = if mode == "--stage" { 2_000_000 } else { 0 };
    eventually("half of it", || size() > old + 4_000_000);
    stand.signal(Pid::from_child(&run.child), Signal::KILL);
    run.wait();
    stand.quiet();
    stand.judge();
    assert!(stage.exists());
    let report = stand.completes(Far::Source, mode, "");
    let literal = report["literal_bytes"].as_u64().unwrap();
    assert!(literal > 0 && literal < 6_500_000, "{literal} of 8,000,000 bytes were sent again");
}

#[test]
fn a_stage_that_was_killed_is_gone_on_with() {
    nothing_is_sent_twice("--stage");
}

#[test]
fn a_journal_that_was_killed_is_gone_on_with() {
    nothing_is_sent_twice("--inplace");
}

/// All has come, the server is down, and the last instant before the point of no return is a hook that waits.
fn killed_before_the_switch(mode: &str) {
    let stand = Stand::synced();
    stand.advance();
    stand.rig.ok("mkfifo gate");
    let mut run = stand.spawn(Far::Source, mode, "--hook before-switch='echo here >held; exec cat gate'");
    eventually("the switch", || stand.path("held").exists());
    assert!(!stand.path("running").exists());
    stand.signal(Pid::from_child(&run.child), Signal::KILL);
    run.wait();
    stand.rig.ok("timeout 5 sh -c ': >gate' || :");
    stand.quiet();
    stand.judge();
    assert!(!stand.path("running").exists() && !stand.is_fenced());
    let report = stand.completes(Far::Source, mode, "");
    assert_eq!(report["literal_bytes"], 0, "{report}");
    // Stopped once, by the run that was killed; started once, by the next.
    assert_eq!(stand.log(), ["start", "stop", "start"]);
}

#[test]
fn a_server_that_a_killed_run_stopped_is_started_by_the_next_in_place() {
    killed_before_the_switch("--inplace");
}

#[test]
fn a_server_that_a_killed_run_stopped_is_started_by_the_next_with_a_stage() {
    killed_before_the_switch("--stage");
}
