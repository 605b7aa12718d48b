//! Files that change while nobody looks, and while somebody does.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::rig::{Rig, eventually, noise};
use crate::stand::{Far, SYNC, Stand, rounds, tree};

/// Other content of the same length, with the old time put back.
fn lie(path: &Path, content: &[u8]) {
    let old = fs::metadata(path).unwrap();
    assert_eq!(old.len(), content.len() as u64);
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all(content).unwrap();
    file.set_modified(old.modified().unwrap()).unwrap();
    assert_eq!(fs::metadata(path).unwrap().modified().unwrap(), old.modified().unwrap());
}

#[test]
fn the_same_size_and_time_hide_nothing_on_either_side() {
    for mode in ["--inplace", "--stage"] {
        let rig = Rig::new();
        fs::create_dir(rig.path("src")).unwrap();
        for (name, length) in [("small", 100), ("group", 65_536), ("long", 3_000_000)] {
            fs::write(rig.path("src").join(name), noise(length, 1)).unwrap();
        }
        rig.ok(&format!("{SYNC} {mode} src dst"));
        for side in ["src", "dst"] {
            for (name, length) in [("small", 100), ("group", 65_536), ("long", 3_000_000)] {
                let mut content = fs::read(rig.path("src").join(name)).unwrap();
                content[length / 2] ^= 1;
                lie(&rig.path(side).join(name), &content);
                rig.ok(&format!("{SYNC} {mode} src dst && diff -r src dst"));
            }
        }
        if mode == "--stage" {
            // A stage is a new copy each time, where there are no reflinks.
            continue;
        }
        // And where nothing was hidden, nothing is read.
        let report = rig.ok(&format!("{SYNC} {mode} src dst && {SYNC} {mode} --json src dst"));
        let report: serde_json::Value = serde_json::from_str(report.lines().last().unwrap()).unwrap();
        assert_eq!((&report["matched_bytes"], &report["literal_bytes"]), (&0.into(), &0.into()), "{mode}: {report}");
    }
}

#[test]
fn a_change_in_the_same_instant_is_found() {
    let rig = Rig::new();
    fs::create_dir(rig.path("src")).unwrap();
    fs::write(rig.path("src/x"), "0000").unwrap();
    fs::write(rig.path("ref"), "").unwrap();
    // Right behind each hot pass, whose stamps are of the same tick of the clock: other bytes, the same length and time.
    let hook = "printf %s \"$NEW\" >src/x; touch -r ref src/x";
    for round in 0..rounds(10) {
        let mode = ["--inplace", "--stage"][(round % 2) as usize];
        let (first, second) = (format!("{:04}", 2 * round), format!("{:04}", 2 * round + 1));
        let line = format!("{SYNC} {mode} --stop : --start : --hook after-hot-pass='{hook}' src dst");
        rig.ok(&format!("export NEW={second}; printf %s {first} >src/x; touch -r ref src/x; {line}"));
        assert_eq!(fs::read_to_string(rig.path("dst/x")).unwrap(), second, "{mode}");
        // And right behind the whole of it.
        rig.ok(&format!("printf %s {first} >src/x; touch -r ref src/x; {SYNC} {mode} src dst"));
        assert_eq!(fs::read_to_string(rig.path("dst/x")).unwrap(), first, "{mode}");
    }
}

/// Grows, shrinks, replaces and removes files until told to hold still.
fn write(src: &Path, root: &Path, is_over: &AtomicBool) {
    let mut random = fastrand::Rng::with_seed(5);
    let mut number = 0;
    while !is_over.load(Ordering::Acquire) {
        // Whoever freezes waits for the answer.
        if root.join("freeze").exists() {
            fs::write(root.join("still"), "").unwrap();
        } else {
            let _ = fs::remove_file(root.join("still"));
            number += 1;
            let path = src.join(format!("f{}", random.u8(..6)));
            let content = noise(random.usize(..900_000), number);
            match random.u8(..6) {
                0 => drop(fs::remove_file(&path)),
                1 => fs::write(&path, &content).unwrap(),
                2 => {
                    drop(
                        fs::OpenOptions::new().write(true).open(&path).map(|file| file.set_len(random.u64(..900_000))),
                    );
                }
                3 => {
                    fs::write(root.join("draft"), &content).unwrap();
                    fs::rename(root.join("draft"), &path).unwrap();
                }
                4 => {
                    let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
                    let _ = fs::create_dir(&path).and_then(|()| fs::write(path.join("x"), "below"));
                    let _ = fs::remove_dir_all(&path);
                }
                _ => {
                    let appended = fs::OpenOptions::new().append(true).open(&path);
                    let _ = appended.map(|mut file| file.write_all(&content));
                }
            }
        }
        std::thread::sleep(Duration::from_micros(300));
    }
}

#[test]
fn whatever_changes_in_hot_passes_is_equal_after_a_last_one_that_holds_still() {
    for (far, mode) in [(Far::None, "--inplace"), (Far::Source, "--stage"), (Far::Destination, "--inplace")] {
        let stand = Stand::synced();
        let is_over = AtomicBool::new(false);
        let (src, root) = (stand.path("src"), stand.path(""));
        std::thread::scope(|scope| {
            scope.spawn(|| write(&src, &root, &is_over));
            for _ in 0..rounds(3) {
                let freeze = "--freeze ': >freeze; until [ -e still ]; do sleep 0.01; done' --thaw ':'";
                // Equal to what it is now depends on this moment: the server can only say that it is old or new.
                let line = stand.line(far, mode, freeze).replace("./server start", "./server bless; ./server start");
                let ran = stand.rig.run(&format!("cd {}; {line}", root.display()));
                assert_eq!(ran.code, 0, "{far:?} {mode}: {ran:?}");
                stand.rig.ok("diff -r --no-dereference src/ dst/");
                fs::remove_file(root.join("freeze")).unwrap();
            }
            is_over.store(true, Ordering::Release);
        });
        stand.check_litter();
    }
}

#[test]
fn a_file_that_never_holds_still_is_named_and_the_destination_stays() {
    for (name, length) in [("steady", 500_000), ("d/1", 3000)] {
        for mode in ["--inplace", "--stage"] {
            // Where a sync of the disk does not hold the writer still.
            let stand = Stand::at(Rig { root: tempfile::tempdir_in("/dev/shm").unwrap() });
            stand.completes(Far::None, "--stage", "");
            stand.advance();
            let before = tree(&stand.path("dst"));
            let is_over = AtomicBool::new(false);
            let (path, writes) = (stand.src(name), AtomicU64::new(0));
            let contents = [noise(length, 1), noise(length, 2)];
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Acquire) {
                        let number = writes.fetch_add(1, Ordering::Relaxed);
                        fs::write(&path, &contents[(number % 2) as usize]).unwrap();
                        std::thread::sleep(Duration::from_micros(100));
                    }
                });
                eventually("the first change", || writes.load(Ordering::Relaxed) > 3);
                let ran = stand.run(Far::None, mode, "");
                is_over.store(true, Ordering::Release);
                ran.fails(1, name);
                ran.fails(1, "--freeze");
            });
            stand.is_as_before(&before);
            stand.completes(Far::None, mode, "");
        }
    }
}
