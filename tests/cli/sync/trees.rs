//! Whole trees: what is there after a sync is what is at the source, in every mode, after every change.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use super::super::rig::SYNC;
use super::super::tree::{self, Editor, assert_same, assert_same_but, noise};
use super::{Site, assert_idle, number, read};

/// How many seeds a random test takes: more with `REPL_TEST_ROUNDS`.
fn rounds(usual: u64) -> u64 {
    std::env::var("REPL_TEST_ROUNDS").map_or(usual, |rounds| rounds.parse().unwrap())
}

#[test]
fn a_tree_with_everything_is_copied_and_a_second_run_has_nothing_to_do() {
    let site = Site::empty();
    tree::small(&site.src());
    tree::large(&site.src());
    tree::touch(&site.src(), 1_234_567_890, 5);
    let first = site.report("src dst");
    assert_eq!(first["mode"], "stage", "{first}");
    assert_same(&site.src(), &site.dst());
    assert_eq!(number(&first, "bytes"), number(&first, "literal_bytes") + number(&first, "matched_bytes"), "{first}");

    // The stage was ours alone, so each of its stamps can be trusted at once.
    let second = site.report("--delete src dst");
    assert_idle(&second);
    // But what has got another name since then is read once more.
    assert!(number(&second, "matched_bytes") < 70_000, "{second}");
    assert_eq!(second["mode"], "inplace", "{second}");
    let third = site.report("--delete src dst");
    assert_idle(&third);
    assert_eq!(number(&third, "trusted_bytes"), number(&third, "bytes"), "{third}");
    for name in ["16M-1", "16M", "33M", "sparse", "hollow"] {
        fs::remove_file(site.src().join(name)).unwrap();
    }
    assert_eq!(number(&site.report("--delete src dst"), "deleted"), 5);
    for options in ["--delete", "--stage --delete", "--inplace --delete --checksum", "-n --delete"] {
        assert_eq!(site.ok(&format!("-i {options} src dst")), "", "{options}");
        assert_idle(&site.report(&format!("{options} src dst")));
        assert_same(&site.src(), &site.dst());
    }
}

#[test]
fn a_tree_in_place_of_nothing_is_a_copy_too() {
    let site = Site::empty();
    tree::small(&site.src());
    site.ok("--inplace src dst");
    assert_same(&site.src(), &site.dst());
    assert_eq!(site.litter(), [".repl-sync-dst"]);
}

#[test]
fn a_hole_in_the_place_of_bytes_is_a_hole() {
    for mode in ["--inplace", "--stage"] {
        let site = Site::empty();
        for name in ["one", "long"] {
            site.write(name, noise(100_000, 1));
        }
        fs::hard_link(site.src().join("one"), site.src().join("two")).unwrap();
        site.ok(&format!("{mode} src dst"));
        // One that has a name of what goes on under another, and one that is all there was.
        for name in ["one", "long"] {
            fs::remove_file(site.src().join(name)).unwrap();
            File::create(site.src().join(name)).unwrap().set_len(40 << 20).unwrap();
        }
        site.ok(&format!("{mode} src dst"));
        assert_same(&site.src(), &site.dst());
    }
}

#[test]
fn random_edits_arrive_in_both_modes() {
    for seed in 0..rounds(3) {
        let site = Site::empty();
        tree::small(&site.src());
        fs::write(site.src().join("long"), noise(1_500_000, 4)).unwrap();
        let mut editor = Editor::new(&site.src(), seed);
        for round in 0..4 {
            for (destination, mode) in [("in", "--inplace"), ("st", "--stage")] {
                let ran = site.run(&format!("{mode} --delete src {destination}"));
                let path = site.rig.path(destination);
                assert_eq!(ran.code, 0, "seed {seed}, round {round}, {mode}: {ran:?}\n{:#?}", editor.said);
                let same = std::panic::catch_unwind(|| assert_same(&site.src(), &path));
                assert!(same.is_ok(), "seed {seed}, round {round}, {mode}: {:#?}", editor.said);
                let again = site.report(&format!("{mode} --delete src {destination}"));
                assert_idle(&again);
                assert_eq!(site.ok(&format!("{mode} -i --delete src {destination}")), "", "{mode}");
            }
            editor.said.clear();
            editor.edit(60);
        }
    }
}

#[test]
fn changed_pages_of_long_files_are_all_that_is_sent() {
    let site = Site::empty();
    tree::large(&site.src());
    site.ok("src in");
    site.ok("src st");
    let open = |name: &str| File::options().write(true).open(site.src().join(name)).unwrap();
    // Pages here and there, one of them across the end of a range, one the last.
    for page in [0_u64, 77, 4095, 4096, 8000] {
        open("33M").write_all_at(&noise(4096, page), page * 4096).unwrap();
    }
    open("16M+1").write_all_at(b"x", 16 << 20).unwrap();
    open("16M").set_len((16 << 20) + 5000).unwrap();
    open("16M-1").set_len(5_000_001).unwrap();
    open("sparse").write_all_at(b"in the hole", 1 << 32).unwrap();
    open("hollow").set_len(1 << 20).unwrap();
    for (destination, mode) in [("in", "--inplace"), ("st", "--stage")] {
        let report = site.report(&format!("{mode} --delete src {destination}"));
        assert_same(&site.src(), &site.rig.path(destination));
        let sent = number(&report, "literal_bytes");
        assert!((1..200_000).contains(&sent), "{mode}: {report}");
        assert!(number(&report, "wire_received_bytes") < 1 << 20, "{mode}: {report}");
    }
    assert_idle(&site.report("--delete src in"));
}

#[test]
fn files_that_are_one_at_one_side_and_two_at_the_other_become_what_the_source_has() {
    for mode in ["--inplace", "--stage"] {
        for (linked, single) in [("src", "dst"), ("dst", "src")] {
            let site = Site::empty();
            let long = noise(200_000, 1);
            for (name, bytes) in [("same", &b"same"[..]), ("none", b""), ("long", &long)] {
                for (side, is_linked) in [(linked, true), (single, false)] {
                    let dir = site.rig.path(side);
                    super::write(&dir.join(name), bytes);
                    if is_linked {
                        fs::hard_link(dir.join(name), dir.join(format!("{name}-too"))).unwrap();
                    } else {
                        super::write(&dir.join(format!("{name}-too")), bytes);
                    }
                }
            }
            site.ok(&format!("{mode} --delete src dst"));
            assert_same(&site.src(), &site.dst());
            assert_idle(&site.report(&format!("{mode} --delete src dst")));
        }
    }
}

#[test]
fn a_file_with_a_name_outside_is_replaced_and_that_name_keeps_what_it_wears() {
    for mode in ["--inplace", "--stage"] {
        let site = Site::empty();
        for (name, length) in [("small", 3000), ("long", 300_000), ("pair", 100)] {
            site.write(name, noise(length, 1));
        }
        fs::hard_link(site.src().join("pair"), site.src().join("pair-too")).unwrap();
        site.ok("src dst");
        fs::create_dir(site.rig.path("outside")).unwrap();
        for name in ["small", "long", "pair"] {
            fs::hard_link(site.dst().join(name), site.rig.path("outside").join(name)).unwrap();
        }
        let before = tree::look(&site.rig.path("outside")).0;
        // Known to be equal, and not known: neither is written through, nor dressed.
        for options in ["--delete", "--delete --checksum"] {
            for (name, bits) in [("small", 0o640), ("long", 0o604), ("pair", 0o600)] {
                tree::chmod(&site.src().join(name), bits + u32::from(options.len() > 10));
                tree::touch(&site.src().join(name), 1_000_000_000, options.len() as i64);
            }
            let report = site.report(&format!("{mode} {options} src dst"));
            assert_eq!(number(&report, "literal_bytes"), 0, "{mode}: {report}");
            assert_same(&site.src(), &site.dst());
            assert_eq!(tree::look(&site.rig.path("outside")).0, before, "{mode}");
            assert_idle(&site.report(&format!("{mode} {options} src dst")));
        }
    }
}

#[test]
fn what_the_source_does_not_have_stays_unless_it_is_to_go() {
    for mode in ["--inplace", "--stage"] {
        let site = Site::synced();
        for name in ["extra", "dir/extra", "more/below/extra"] {
            super::write(&site.dst().join(name), name);
        }
        fs::remove_file(site.src().join("a")).unwrap();
        site.write("dir/b", "new");
        let report = site.report(&format!("{mode} src dst"));
        assert_eq!((number(&report, "deleted"), number(&report, "updated")), (0, 1), "{mode}: {report}");
        for name in ["extra", "dir/extra", "more/below/extra", "a", "dir/b"] {
            assert!(site.dst().join(name).exists(), "{mode}: {name}");
        }
        let report = site.report(&format!("{mode} --delete src dst"));
        assert_eq!(number(&report, "deleted"), 6, "{mode}: {report}");
        assert_same(&site.src(), &site.dst());
    }
}

#[test]
fn names_that_the_journal_changed_twice_are_right_in_the_end() {
    // Each hot pass finds the same pages changed once more.
    let site = Site::empty();
    site.write("pages", noise(1_000_000, 1));
    site.write("small", "1");
    site.write("gone", "x");
    site.ok("src dst");
    fs::write(site.src().join("pages"), noise(1_000_000, 2)).unwrap();
    let change = "n=$(cat passes 2>/dev/null || echo 0); echo $((n + 1)) >passes; \
         printf \"%$((n * 700 + 3000))s\" \"$n\" | dd of=src/pages bs=1 seek=66000 conv=notrunc 2>/dev/null; \
         printf 'small%s' \"$n\" >src/small; rm -f src/gone; mkdir -p src/gone; ln -sf \"$n\" src/link";
    site.rig.ok(&format!(
        "$SYNC --inplace --delete --max-downtime 1ms --start true --stop true --hook after-hot-pass='{}' src dst",
        change.replace('\'', "'\\''")
    ));
    assert!(read(site.rig.path("passes")).trim().parse::<u32>().unwrap() >= 2);
    assert_same(&site.src(), &site.dst());
}

#[test]
fn somebody_who_is_not_root_copies_what_is_theirs() {
    let site = Site::empty();
    let (home, nobody) = (site.rig.path("home"), "65534");
    for name in ["home", "home/src"] {
        fs::create_dir_all(site.rig.path(name)).unwrap();
    }
    super::write(&home.join("src/dir/a"), noise(200_000, 1));
    super::write(&home.join("src/b"), "b");
    fs::hard_link(home.join("src/b"), home.join("src/c")).unwrap();
    tree::attribute(&home.join("src/b"), "user.x", b"y");
    tree::attribute(&home.join("src/dir"), "system.posix_acl_access", &tree::acl(5));
    tree::chmod(&home.join("src/dir/a"), 0o400);
    tree::chmod(&home.join("src/dir"), 0o555);
    let script = format!("chown -hR {nobody}:{nobody} . && chmod 755 .. .");
    assert!(Command::new("sh").args(["-c", &script]).current_dir(&home).status().unwrap().success());
    let run = |arguments: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", nobody, "--regid", nobody, "--clear-groups", "sh", "-c"]);
        command.arg(format!("\"$0\" {arguments}")).arg(copy_of_program(&site)).current_dir(&home);
        super::Ran::from(command.output().unwrap())
    };
    for mode in ["--stage", "--inplace --delete", "--stage --delete"] {
        let ran = run(&format!("{mode} src dst"));
        assert_eq!(ran.code, 0, "{mode}: {ran:?}");
        assert_same(&home.join("src"), &home.join("dst"));
        let ran = run(&format!("-i {mode} src dst"));
        assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{mode}: {ran:?}");
        super::write(&home.join("src/b"), mode);
        fs::write(home.join("src/dir/a"), noise(200_000, mode.len() as u64)).unwrap();
    }
}

/// The program where anybody may run it.
fn copy_of_program(site: &Site) -> std::path::PathBuf {
    let path = site.rig.path("repl-sync");
    if !path.exists() {
        fs::copy(SYNC, &path).unwrap();
        tree::chmod(site.rig.root.path(), 0o755);
    }
    path
}

#[test]
fn a_destination_whose_parent_is_not_ours_keeps_its_state_inside() {
    let site = Site::some();
    let program = copy_of_program(&site);
    let (parent, dst) = (site.rig.path("parent"), site.rig.path("parent/dst"));
    fs::create_dir_all(&dst).unwrap();
    tree::chmod(&parent, 0o755);
    assert!(Command::new("chown").args(["-R", "65534:65534"]).args([&dst, &site.src()]).status().unwrap().success());
    let run = |options: &[&str], from: &Path| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&program);
        super::Ran::from(command.args(options).arg(from).arg(&dst).output().unwrap())
    };
    for round in 0..3 {
        site.write("dir/c.log", noise(100_000 + round, 2));
        let ran = run(&["--delete"], &site.src());
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_same(&site.src(), &dst);
        assert!(dst.join(".repl-sync").is_dir() && !parent.join(".repl-sync-dst").exists());
    }
    run(&["--stage"], &site.src()).fails(13, "--inplace");
    assert_same_but(&site.src(), &dst, |_| false);
}

#[test]
fn what_only_the_destination_has_stays_though_it_came_or_changed_since_the_stage_was_made() {
    let site = Site::synced();
    let at = |name: &str| site.dst().join(name);
    for name in ["dir/own", "changes", "goes"] {
        fs::write(at(name), "old").unwrap();
    }
    // The stage that this one leaves is a copy from before.
    site.run("--stage --stop : --start : --hook 'before-switch=exit 1' src dst").fails(9, "before-switch");
    fs::create_dir(at("late")).unwrap();
    fs::write(at("late/file"), "new").unwrap();
    fs::write(at("changes"), "new").unwrap();
    fs::remove_file(at("goes")).unwrap();
    site.ok("--stage --stop : --start : --hook 'after-hot-pass=echo new >dst/during' src dst");
    assert_eq!((read(at("dir/own")), read(at("late/file"))), ("old".to_owned(), "new".to_owned()));
    assert_eq!((read(at("changes")), read(at("during"))), ("new".to_owned(), "new\n".to_owned()));
    assert!(!at("goes").exists());
    site.ok("--stage --delete src dst");
    assert_same(&site.src(), &site.dst());
}
