//! Directories that become symbolic links and are directories again, at several depths, while they are synced: no byte
//! of what the links lead to comes into the destination, and none is written there.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::rig::{Rig, noise};
use crate::stand::{SYNC, rounds, tree};

const CANARY: &str = "the canary";
const DEPTHS: [&str; 3] = ["a", "a/b", "a/b/c"];

/// A tree with files at all depths; beside it one of the same names, with other content, that links lead to.
fn plant(rig: &Rig) {
    for dir in ["", "a", "a/b", "a/b/c"] {
        fs::create_dir_all(rig.path("src").join(dir)).unwrap();
        // What each link leads to has what is expected behind it.
        fs::create_dir_all(rig.path("outside").join(dir)).unwrap();
        fs::create_dir_all(rig.path("outside/b/c")).unwrap();
        for number in 0..6 {
            let name = format!("{dir}/{number}");
            fs::write(rig.path("src").join(name.trim_start_matches('/')), noise(30_000 * number + 9, number as u64))
                .unwrap();
        }
    }
    for dir in ["", "a", "a/b", "a/b/c", "b", "b/c", "c"] {
        fs::create_dir_all(rig.path("outside").join(dir)).unwrap();
        for number in 0..6 {
            fs::write(
                rig.path("outside").join(dir).join(number.to_string()),
                format!("{CANARY} {}", "x".repeat(40_000)),
            )
            .unwrap();
        }
    }
    fs::create_dir(rig.path("alt")).unwrap();
}

/// Flips until told to stop; each directory is in its place again at the end.
fn flip(links: &[(PathBuf, PathBuf)], is_over: &AtomicBool, flips: &AtomicU64) {
    let exchange =
        |(place, link): &(PathBuf, PathBuf)| renameat_with(CWD, place, CWD, link, RenameFlags::EXCHANGE).is_ok();
    while !is_over.load(Ordering::Acquire) {
        for pair in links {
            let there = exchange(pair);
            std::thread::sleep(Duration::from_micros(150));
            if there {
                exchange(pair);
                flips.fetch_add(1, Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

/// Ends the flips, also when the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// In files: a link that is a copy of a link leads where it leads. Nobody may flip directories on the way there.
#[track_caller]
fn nothing_came_in(rig: &Rig) {
    assert_ne!(rig.run(&format!("grep -rqs '{CANARY}' dst")).code, 0, "what is outside came in");
}

fn flipped(which: &str) {
    let rig = Rig::new();
    plant(&rig);
    rig.ok(&format!("{SYNC} src dst"));
    let outside = tree(&rig.path("outside"));
    let links: Vec<_> = DEPTHS
        .iter()
        .enumerate()
        .map(|(number, place)| {
            let link = rig.path("alt").join(number.to_string());
            symlink(rig.path("outside"), &link).unwrap();
            (rig.path(which).join(place), link)
        })
        .collect();
    let (is_over, flips) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut codes = Vec::new();
    std::thread::scope(|scope| {
        let end = End(&is_over);
        let flipper = scope.spawn(|| flip(&links, &is_over, &flips));
        for round in 0..rounds(12) {
            let mode = ["--inplace", "--stage"][(round % 2) as usize];
            fs::write(rig.path("src/own"), noise(90_000, round)).unwrap();
            for dir in DEPTHS {
                // In whatever is there now.
                if which == "dst" {
                    fs::write(rig.path("src").join(dir).join("1"), noise(70_000, 100 + round)).unwrap();
                }
            }
            let ran = rig.run(&format!("{SYNC} --delete --checksum {mode} src dst"));
            assert!(![101, 134, 135, 139].contains(&ran.code) && !ran.err.contains("panicked"), "{ran:?}");
            codes.push(ran.code);
            if which == "src" {
                nothing_came_in(&rig);
            }
            assert_eq!(tree(&rig.path("outside")), outside, "{which}: what is outside was changed: {ran:?}");
        }
        drop(end);
        flipper.join().unwrap();
    });
    nothing_came_in(&rig);
    eprintln!("{which}: {} flips, {codes:?}", flips.load(Ordering::Relaxed));
    assert!(flips.load(Ordering::Relaxed) > 20, "nothing was flipped");
    settle(&rig, &links);
    let last = || rig.run(&format!("{SYNC} --delete --inplace src dst"));
    let mut ran = last();
    // What a replay had placed may have been flipped out of the tree with the directory that it was in: nobody can
    // complete that one, and what to do is said.
    if let Some((_, way)) = ran.err.split_once("\nhint: sync anew after: ") {
        assert!(which == "dst" && ran.code == 6, "{which}: {ran:?}");
        rig.ok(way);
        ran = last();
    }
    assert_eq!(ran.code, 0, "{which}: {ran:?}");
    rig.ok("diff -r --no-dereference src/ dst/");
    assert_eq!(tree(&rig.path("outside")), outside);
}

/// A sync may have made a directory where a link was, so that the two are still the wrong way round.
fn settle(rig: &Rig, links: &[(PathBuf, PathBuf)]) {
    let is_link = |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    for (place, link) in links {
        if place.starts_with(rig.path("src")) && is_link(place) && !is_link(link) {
            renameat_with(CWD, place, CWD, link, RenameFlags::EXCHANGE).unwrap();
        }
    }
}

#[test]
fn links_in_the_source_lead_nowhere() {
    flipped("src");
}

#[test]
fn links_in_the_destination_lead_nowhere() {
    flipped("dst");
}
