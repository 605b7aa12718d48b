//! Many files in little memory, and a peer that neither speaks nor listens. `REPL_TEST_ROUNDS=400` makes two hundred
//! thousand files.

use std::fs;

use rustix::process::Signal;

use crate::rig::{Rig, Running, noise};
use crate::stand::{Far, SYNC, Stand, rounds, tree};

/// How many in a directory.
const FILES: u64 = 500;

/// Runs to its end; the most memory it had, in KiB.
fn peak(mut running: Running) -> u64 {
    let status = format!("/proc/{}/status", running.child.id());
    let mut most = 0;
    while running.child.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let anonymous = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let now = anonymous.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok());
        most = most.max(now.unwrap_or(0));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let ran = running.wait();
    assert_eq!(ran.code, 0, "{ran:?}");
    most
}

#[test]
fn memory_is_bounded_with_very_many_files() {
    let rig = Rig { root: tempfile::tempdir_in("/dev/shm").unwrap() };
    let dirs = rounds(20);
    for dir in 0..dirs {
        let dir = rig.path(&format!("src/{dir}"));
        fs::create_dir_all(&dir).unwrap();
        for file in 0..FILES {
            fs::write(dir.join(format!("a file with an ordinary name {file}")), file.to_le_bytes()).unwrap();
        }
    }
    // 256 MiB for a million, and what both ends need whatever they do.
    let most = dirs * FILES * 256 / 1000 + 40_000;
    let sync = |what: &str, line: &str| {
        let found = peak(rig.spawn(&format!("exec {SYNC} {line} src dst")));
        eprintln!("{what}: {found} KiB");
        assert!(found < most, "{what}: {found} KiB are more than {most}");
    };
    sync("all new, beside", "--stage");
    sync("all equal", "--inplace --checksum");
    rig.ok("for dir in src/*; do printf changed. | tee \"$dir\"/*1 >/dev/null; done; rm -r src/7");
    sync("a tenth changed, in place", "--inplace --delete");
    rig.ok("rm -r dst");
    sync("all new, in place", "--inplace");
    rig.ok("diff -rq src dst");
}

#[test]
fn few_files_are_open_however_many_wait_for_a_slow_source() {
    let stand = Stand::new();
    for number in 0..4 * FILES {
        fs::write(stand.src(&format!("d/many-{number}")), number.to_le_bytes()).unwrap();
    }
    stand.completes(Far::None, "--inplace", "");
    let slow = format!("--checksum --bwlimit 400K -e ./rsh --remote-command {SYNC} host:src dst");
    stand.rig.ok(&format!("ulimit -n 128; exec {SYNC} --inplace {slow}"));
}

#[test]
fn a_source_that_takes_nothing_and_says_nothing_is_given_up() {
    give_up(Far::Source, "--inplace");
}

#[test]
fn a_destination_that_takes_nothing_and_says_nothing_is_given_up() {
    give_up(Far::Destination, "--stage");
}

fn give_up(far: Far, mode: &str) {
    let stand = Stand::synced();
    stand.advance();
    fs::write(stand.src("long"), noise(40_000_000, 1)).unwrap();
    let before = tree(&stand.path("dst"));
    let mut run = stand.spawn(far, mode, "--bwlimit 8M --compress none --hook before-sync='echo here >held'");
    crate::rig::eventually("the begin", || stand.path("held").exists());
    let far_end = stand.far_end().unwrap();
    stand.signal(far_end, Signal::STOP);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(200);
    while run.child.try_wait().unwrap().is_none() {
        assert!(std::time::Instant::now() < deadline, "{far:?}: it waits for ever");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let ran = run.wait();
    stand.signal(far_end, Signal::CONT);
    assert_eq!(ran.code, 8, "{far:?}: {ran:?}");
    stand.quiet();
    stand.is_as_before(&before);
}
