//! TERM, INT and HUP to either end: before the point of no return that is a cut link; behind it, nothing keeps the work
//! from its end.

use rustix::process::{Pid, Signal};

use crate::rig::eventually;
use crate::stand::{Far, Stand, tree};

/// The points at which a hook can hold a sync, and whether the new directory is in its place there.
const POINTS: [(&str, bool); 7] = [
    ("before-sync", false),
    ("after-hot-pass", false),
    ("before-stop", false),
    ("after-stop", false),
    ("before-switch", false),
    ("after-switch", true),
    ("after-start", true),
];

/// Which process gets it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Whom {
    Client,
    FarEnd,
}

fn signalled(far: Far, mode: &str, whom: Whom, signals: &[Signal]) {
    let stand = Stand::synced();
    stand.rig.ok("mkfifo gate");
    for (number, (point, is_behind)) in POINTS.into_iter().enumerate() {
        let signal = signals[number % signals.len()];
        stand.advance();
        let before = tree(&stand.path("dst"));
        let stops = stand.log().len();
        let _ = std::fs::remove_file(stand.path("held"));
        let hook = format!("--hook {point}='echo here >held; exec cat gate'");
        let mut run = stand.spawn(far, mode, &hook);
        eventually(point, || stand.path("held").exists());
        let victim = match whom {
            Whom::Client => Pid::from_child(&run.child),
            Whom::FarEnd => stand.far_end().unwrap(),
        };
        assert!(stand.signal(victim, signal));
        // Whoever is left of the hook is let go; it may be gone with its parent.
        stand.rig.run("timeout 5 sh -c ': >gate'");
        let ran = run.wait();
        stand.quiet();
        let what = format!("{far:?} {mode} {whom:?} {point} {signal:?}: {ran:?}");
        assert!(!ran.err.contains("panicked"), "{what}");
        stand.judge();
        assert!(stand.path("running").exists() && !stand.is_fenced(), "{what}");
        let is_old = tree(&stand.path("dst")) == before;
        if is_behind {
            assert!(!is_old, "{what}");
        } else if is_old {
            assert!(matches!(ran.code, 1 | 8), "{what}");
        } else {
            // All had been read: what is left to do needs no link.
            assert_eq!(point, "before-switch", "{what}");
        }
        let log = stand.log();
        assert!(log.len() == stops || log[stops..] == ["stop", "start"], "{what}: {log:?}");
        stand.completes(far, mode, "");
    }
}

const ALL: [Signal; 3] = [Signal::TERM, Signal::INT, Signal::HUP];

#[test]
fn here_in_place() {
    signalled(Far::None, "--inplace", Whom::Client, &ALL);
}

#[test]
fn here_with_a_stage() {
    signalled(Far::None, "--stage", Whom::Client, &ALL);
}

#[test]
fn the_near_receiver() {
    signalled(Far::Source, "--inplace", Whom::Client, &[Signal::TERM, Signal::HUP]);
}

#[test]
fn the_far_source() {
    signalled(Far::Source, "--inplace", Whom::FarEnd, &[Signal::TERM]);
}

#[test]
fn the_far_receiver() {
    signalled(Far::Destination, "--inplace", Whom::FarEnd, &[Signal::TERM, Signal::INT]);
}

#[test]
fn the_near_source() {
    signalled(Far::Destination, "--stage", Whom::Client, &ALL);
}
