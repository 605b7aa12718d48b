//! What stops a sync before anything is touched, and the option that overrides it.

use std::fs;
use std::os::unix::fs::symlink;

use super::super::rig::Running;
use super::super::tree::{self, assert_same, assert_same_but};
use super::{Site, read, write};

/// All of a directory with inodes, times and sizes: whatever is changed shows.
fn state(site: &Site, below: &str) -> String {
    site.rig.ok(&format!("find {below} -printf '%P %i %T@ %C@ %s %m %l\\n' | sort"))
}

#[test]
fn an_empty_source_is_not_taken_for_one_that_is_not_mounted() {
    for made in ["", "lost+found", ".repl", ".repl-sync-x"] {
        let site = Site::synced();
        fs::remove_dir_all(site.src()).unwrap();
        fs::create_dir_all(site.src().join(made)).unwrap();
        let before = state(&site, "dst");
        for mode in ["--inplace", "--stage", "-n"] {
            site.run(&format!("{mode} --delete src dst")).fails(13, "--allow-empty");
            assert_eq!(state(&site, "dst"), before, "{made} {mode}");
        }
        site.ok("--allow-empty --delete src dst");
        assert!(!site.dst().join("a").exists() && !site.dst().join("dir").exists(), "{made}");
    }
}

#[test]
fn a_directory_is_not_synced_with_itself_or_with_one_in_it() {
    let site = Site::some();
    fs::create_dir(site.src().join("sub")).unwrap();
    symlink("src", site.rig.path("alias")).unwrap();
    symlink("src/dir", site.rig.path("inner")).unwrap();
    symlink(".", site.rig.path("here")).unwrap();
    let before = state(&site, ".");
    for pair in [
        "src src",
        "src/ src/.",
        "src alias",
        "alias src",
        "src here/src",
        "src src/dir",
        "src src/sub",
        "src src/new",
        "src alias/new",
        "src inner",
        "src inner/new",
        "src/dir src",
        "inner src",
        "inner alias",
        ". src",
        "src .",
        "src here",
    ] {
        for options in ["--inplace --adopt --allow-empty", "--stage --delete", "-n"] {
            site.run(&format!("{options} {pair}")).fails(13, "one is in the other");
            assert_eq!(state(&site, "."), before, "{options} {pair}");
        }
    }
    // A name that only begins alike is another one.
    site.ok("src src2");
    assert_same(&site.src(), &site.rig.path("src2"));
}

#[test]
fn the_same_directory_mounted_twice_is_the_same() {
    let site = Site::some();
    fs::create_dir(site.rig.path("again")).unwrap();
    let ran = site.rig.run("unshare -m sh -c 'mount --bind src again && exec \"$SYNC\" src again'");
    ran.fails(13, "one is in the other");
}

#[test]
fn more_removals_than_allowed_are_none() {
    for mode in ["--inplace", "--stage", "-n"] {
        let site = Site::synced();
        fs::remove_dir_all(site.src().join("dir")).unwrap();
        site.write("a", "changed");
        let before = state(&site, "dst");
        site.run(&format!("{mode} --delete --max-delete 2 src dst")).fails(13, "--max-delete 2");
        assert_eq!(state(&site, "dst"), before, "{mode}");
        site.ok(&format!("{mode} --delete --max-delete 3 src dst"));
        assert_eq!(site.dst().join("dir").exists(), mode == "-n");
    }
}

/// A directory that looks like PostgreSQL's.
fn postgres(site: &Site, name: &str, system: u64) {
    let dir = site.rig.path(name);
    write(&dir.join("PG_VERSION"), "15\n");
    write(&dir.join("base/1/PG_VERSION"), "15\n");
    fs::create_dir_all(dir.join("pg_wal")).unwrap();
    let mut control = vec![0; 8192];
    control[..8].copy_from_slice(&system.to_le_bytes());
    control[8..12].copy_from_slice(&1300_u32.to_le_bytes());
    write(&dir.join("global/pg_control"), control);
    tree::chmod(&dir, 0o700);
}

#[test]
fn a_database_is_not_laid_over_something_else() {
    let site = Site::empty();
    postgres(&site, "src", 1);
    site.ok("src dst");
    site.ok("--delete src dst");
    assert_same(&site.src(), &site.dst());
    // Foreign files.
    write(&site.rig.path("home/letter"), "dear");
    site.run("--delete src home").fails(13, "--adopt");
    assert_eq!(read(site.rig.path("home/letter")), "dear");
    // Our own files and a file system's are not foreign.
    for name in ["fresh/.repl", "fresh/lost+found"] {
        fs::create_dir_all(site.rig.path(name)).unwrap();
    }
    site.ok("--exclude lost+found src fresh");
    site.ok("--adopt --delete src home");
    assert_same(&site.src(), &site.rig.path("home"));
}

#[test]
fn another_database_is_not_overwritten() {
    let site = Site::empty();
    postgres(&site, "src", 1);
    postgres(&site, "other", 2);
    let before = state(&site, "other");
    for mode in ["--inplace", "--stage"] {
        site.run(&format!("{mode} --delete src other")).fails(13, "holds another database");
        assert_eq!(state(&site, "other"), before, "{mode}");
    }
    // Files that are no database over one that is.
    write(&site.rig.path("plain/file"), "x");
    for options in ["", "--delete", "-n --delete"] {
        site.run(&format!("{options} plain other")).fails(13, "--adopt");
        assert_eq!(state(&site, "other"), before, "{options}");
    }
    // Unless the operator says that it is none.
    site.ok("-n --engine plain --delete plain other");
    site.ok("--adopt --delete src other");
    assert_same(&site.src(), &site.rig.path("other"));
    site.ok("--adopt --delete plain other");
    assert_same(&site.rig.path("plain"), &site.rig.path("other"));
}

#[test]
fn a_database_with_files_of_another_time_among_its_own_is_none() {
    let site = Site::empty();
    postgres(&site, "src", 1);
    site.ok("src dst");
    write(&site.dst().join("base/1/2619"), "of a table that is gone");
    site.run("src dst").fails(13, "--delete");
    assert!(site.dst().join("base/1/2619").exists());
    site.ok("--exclude /base/1/2619 src dst");
    site.ok("--delete src dst");
    assert_same(&site.src(), &site.dst());
}

#[test]
fn files_of_a_server_that_is_gone_do_not_mislead_the_next_one() {
    for mode in ["--inplace", "--stage"] {
        let site = Site::empty();
        postgres(&site, "src", 1);
        site.write("postmaster.pid", "999999999\n");
        site.ok("src dst");
        write(&site.dst().join("postmaster.pid"), "999999999\n");
        write(&site.dst().join("pg_stat_tmp/x"), "x");
        site.write("base/1/2619", mode);
        site.ok(&format!("{mode} --delete src dst"));
        assert!(!site.dst().join("postmaster.pid").exists(), "{mode}");
        assert_same_but(&site.src(), &site.dst(), |name| name == b"postmaster.pid" || name.is_empty());
    }
}

#[test]
fn of_two_at_once_the_second_is_busy() {
    let site = Site::synced();
    site.rig.ok("mkfifo hold");
    site.write("a", "changed");
    let script = "exec $SYNC --hook before-sync='echo up >held; read x <hold' src dst";
    let mut first = Running::start(site.rig.sh(script), &site.rig.path("first"));
    super::super::rig::eventually("the first one", || site.rig.path("held").exists());
    for arguments in ["src dst", "--stage src dst", "src/dir dst", "--delete src dst/."] {
        site.run(arguments).fails(7, "is held by process");
    }
    site.run("--rollback dst").fails(7, "is held by process");
    site.run("--replay dst").fails(7, "is held by process");
    // Another destination has nothing to do with it.
    site.ok("src other");
    assert_eq!(read(site.dst().join("a")), "one");
    site.rig.ok("echo go >hold");
    assert_eq!(first.wait().code, 0);
    assert_same(&site.src(), &site.dst());
}

#[test]
fn a_server_that_runs_is_not_written_under() {
    let site = Site::synced();
    site.write("a", "changed");
    let before = state(&site, "dst");
    // It says that it stopped and did not, or nobody said how to stop it.
    for options in ["--status true --stop true --start true", "--status true"] {
        for mode in ["--inplace", "--stage"] {
            let hurry = "--hook-timeout 1s";
            site.run(&format!("{mode} {hurry} {options} src dst")).fails(13, "still runs");
            assert_eq!(state(&site, "dst"), before, "{options} {mode}");
        }
    }
}

#[test]
fn a_mount_point_keeps_its_state_inside_and_is_not_staged() {
    let site = Site::some();
    fs::create_dir(site.dst()).unwrap();
    let script = "mount -t tmpfs -o size=8m,mode=750 tmpfs dst && \"$SYNC\" src dst && test -d dst/.repl-sync && \
         ! test -e .repl-sync-dst && echo more >>src/a && \"$SYNC\" --delete src dst && cmp src/a dst/a && \
         cmp src/dir/c.log dst/dir/c.log && \"$SYNC\" --stage src dst";
    let ran = site.rig.run(&format!("unshare -m sh -c '{script}'"));
    ran.fails(13, "--inplace");
}
