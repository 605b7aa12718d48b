//! The link is cut after so many bytes, in either direction.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::stand::{Far, Stand, rounds, tree};

/// A remote shell that lets so many bytes up to the far end (`UP`) or down from it (`DOWN`) and then is gone.
const CUT: &str = r#"#!/bin/bash
shift
let_by() { if [[ $1 ]]; then exec dd bs=1 count="$1" 2>/dev/null; else exec cat; fi; }
pipes=$(mktemp -d) && mkfifo "$pipes/up" "$pipes/down" || exit 1
exec 3<&0 4>&1 </dev/null >/dev/null
# Nobody holds an end that is not its own: when one is gone, all see it.
(exec <&3 >"$pipes/up" 3<&- 4>&-; let_by "$UP") &
(exec 3<&- 4>&- <"$pipes/up" >"$pipes/down"; exec sh -c "$*") &
(exec <"$pipes/down" >&4 3<&- 4>&-; let_by "$DOWN") &
exec 3<&- 4>&-
wait
rm -r "$pipes"
"#;

/// Bytes of one whole sync in each direction, as the end with the destination counts them, and somewhat more for the
/// greeting.
fn traffic(stand: &Stand, far: Far, mode: &str) -> (u64, u64) {
    stand.advance();
    let report = stand.completes(far, mode, "");
    let (sent, received) =
        (report["wire_sent_bytes"].as_u64().unwrap() + 300, report["wire_received_bytes"].as_u64().unwrap() + 300);
    if far == Far::Source { (sent, received) } else { (received, sent) }
}

fn cut(far: Far, mode: &str) {
    let stand = Stand::synced();
    let (up, down) = traffic(&stand, far, mode);
    fs::write(stand.path("cut"), CUT).unwrap();
    fs::set_permissions(stand.path("cut"), fs::Permissions::from_mode(0o755)).unwrap();
    let tries = rounds(4);
    let (mut cuts, mut was_stopped) = (0, 0);
    for number in 0..tries {
        for (which, all) in [("UP", up), ("DOWN", down)] {
            stand.advance();
            let before = tree(&stand.path("dst"));
            stand.bless();
            // Nearly nothing, evenly in between, and what is said when the server is down.
            let count = if number % 2 == 0 { (all * number / tries).max(1) } else { all - 310 - 150 * number };
            let stops = stand.log().len();
            let line = stand.line(far, mode, "-e ./cut").replacen("-e ./rsh", "", 1);
            let ran = stand.rig.run(&format!("export {which}={count}; {line}"));
            stand.quiet();
            assert!(!ran.err.contains("panicked"), "{ran:?}");
            if tree(&stand.path("dst")) == before {
                assert_eq!(ran.code, 8, "{which} {count} of {all}: {ran:?}");
                stand.is_as_before(&before);
                cuts += 1;
                was_stopped += u64::from(stand.log().len() > stops);
            } else {
                // It had all it needed: the new one, whole.
                assert!(matches!(ran.code, 0 | 8 | 9), "{which} {count} of {all}: {ran:?}");
                assert!(stand.path("running").exists() && !stand.is_fenced(), "{which} {count} of {all}: {ran:?}");
                stand.judge();
            }
            stand.completes(far, mode, "");
        }
    }
    eprintln!("{far:?} {mode}: {cuts} of {} cut before the switch, {was_stopped} with the server down", tries * 2);
    assert!(cuts > tries / 2, "{cuts}");
}

#[test]
fn a_cut_link_from_the_source_leaves_the_old_one_in_place() {
    cut(Far::Source, "--inplace");
}

#[test]
fn a_cut_link_from_the_source_leaves_the_old_one_beside_a_stage() {
    cut(Far::Source, "--stage");
}

#[test]
fn a_cut_link_to_the_destination_has_its_server_started_by_the_far_end_in_place() {
    cut(Far::Destination, "--inplace");
}

#[test]
fn a_cut_link_to_the_destination_has_its_server_started_by_the_far_end_beside_a_stage() {
    cut(Far::Destination, "--stage");
}

/// A peer that is there and says nothing more, when the server is down.
#[test]
fn a_far_end_whose_peer_dies_while_the_server_is_down_starts_it_again() {
    let stand = Stand::synced();
    stand.advance();
    let before = tree(&stand.path("dst"));
    stand.rig.ok("mkfifo gate");
    let mut run = stand.spawn(Far::Destination, "--inplace", "--hook after-stop='echo here >held; exec cat gate'");
    crate::rig::eventually("the stop", || stand.path("held").exists());
    assert!(!stand.path("running").exists());
    stand.signal(rustix::process::Pid::from_child(&run.child), rustix::process::Signal::KILL);
    run.wait();
    crate::rig::eventually("the start", || stand.path("running").exists());
    stand.rig.run("timeout 5 sh -c ': >gate'");
    stand.quiet();
    stand.is_as_before(&before);
    assert_eq!(stand.log(), ["start", "stop", "start"]);
    stand.completes(Far::Destination, "--inplace", "");
}
