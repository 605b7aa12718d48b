//! What each option promises.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, chown};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::inotify;

use super::super::tree::{self, assert_same, assert_same_but, noise};
use super::{Site, assert_idle, number, read, write};

/// Everything below the scratch directory but the source, with inodes, times and sizes.
fn state(site: &Site) -> String {
    // A lock is taken and let go of.
    site.rig.ok("find . -path ./src -prune -o -name lock -o -printf '%p %i %T@ %C@ %s %m\\n' | sort")
}

#[test]
fn of_patterns_the_first_that_matches_wins_and_both_sides_are_passed_over() {
    for mode in ["--inplace", "--stage"] {
        let site = Site::empty();
        for name in
            ["keep.log", "a.log", "dir/b.log", "dir/keep.log", "cache/x", "dir/cache/y", "cache2", "top", "dir/top"]
        {
            site.write(name, name);
        }
        site.write("dir/sub/cache", "a file of that name");
        for name in ["theirs.log", "dir/own.log", "cache/theirs", "top"] {
            write(&site.dst().join(name), "the destination's");
        }
        let owner = site.dst().join("dir/own.log");
        chown(&owner, Some(7), Some(8)).unwrap();
        tree::chmod(&owner, 0o604);
        tree::touch(&owner, 77, 7);
        fs::hard_link(&owner, site.dst().join("dir/same.log")).unwrap();
        let before = tree::look(&site.dst()).0;
        let patterns = "--include keep.log --exclude '*.log' --exclude cache/ --exclude /top --include '*.log'";
        site.ok(&format!("{mode} --delete {patterns} src dst"));
        let is_out = |name: &[u8]| {
            let name = std::str::from_utf8(name).unwrap();
            let log = name.strip_suffix(".log").is_some_and(|stem| !stem.ends_with("keep"));
            log || name.split('/').any(|part| part == "cache") && name != "dir/sub/cache" || name == "top"
        };
        assert_same_but(&site.src(), &site.dst(), is_out);
        let after = tree::look(&site.dst()).0;
        for name in ["theirs.log", "dir/own.log", "dir/same.log", "cache", "cache/theirs", "top"] {
            assert_eq!(after.get(name.as_bytes()), before.get(name.as_bytes()), "{mode} {name}");
        }
        for name in ["a.log", "dir/b.log", "cache/x", "dir/cache"] {
            assert!(!site.dst().join(name).exists(), "{mode} {name}");
        }
        assert_eq!(site.ok(&format!("{mode} -i --delete {patterns} src dst")), "", "{mode}");
        assert_idle(&site.report(&format!("{mode} --delete {patterns} src dst")));
    }
}

#[test]
fn what_is_excluded_holds_the_directory_that_it_is_in() {
    // As with rsync: the source has no such directory, and it stays with what takes no part.
    for mode in ["--inplace", "--stage"] {
        let site = Site::synced();
        for name in ["gone/own.log", "gone/x", "gone/deep/er/own.log", "went/x"] {
            write(&site.dst().join(name), name);
        }
        site.ok(&format!("{mode} --delete --exclude 'own.log' src dst"));
        assert_eq!(read(site.dst().join("gone/own.log")), "gone/own.log", "{mode}");
        assert_eq!(read(site.dst().join("gone/deep/er/own.log")), "gone/deep/er/own.log", "{mode}");
        for name in ["gone/x", "went"] {
            assert!(!site.dst().join(name).exists(), "{mode} {name}");
        }
        assert_same_but(&site.src(), &site.dst(), |name| name.starts_with(b"gone") || name.is_empty());
    }
}

#[test]
fn what_is_left_out_is_not_lost_with_the_directory_that_it_is_in() {
    for mode in ["--inplace", "--stage", "-n"] {
        let site = Site::synced();
        write(&site.dst().join("a-dir/own.log"), "own");
        site.write("a-dir", "a file at the source");
        site.run(&format!("{mode} --delete --exclude own.log src dst")).fails(13, "left out");
        assert_eq!(read(site.dst().join("a-dir/own.log")), "own", "{mode}");
        site.ok(&format!("{mode} --delete src dst"));
        assert_eq!(site.dst().join("a-dir").is_file(), mode != "-n");
    }
}

#[test]
fn a_rehearsal_changes_nothing_at_all_and_says_what_would_be_done() {
    let site = Site::some();
    let before = state(&site);
    for mode in ["", "--stage", "--inplace", "--mkpath"] {
        let lines = site.ok(&format!("-n -i {mode} src dst"));
        assert!(lines.contains(">f+++++++++ a\n") && lines.contains("cd+++++++++ dir/\n"), "{lines}");
        assert_eq!(state(&site), before, "{mode}");
    }
    site.ok("src dst");
    site.write("a", "changed");
    fs::remove_file(site.src().join("dir/b")).unwrap();
    // Neither does it run anything.
    let commands = "--stop 'touch ran' --start 'touch ran' --hook before-sync='touch ran' --hook after-sync='touch ran' \
         --freeze 'touch ran' --thaw 'touch ran' --keep-old";
    let before = state(&site);
    let report = site.report(&format!("-n --delete {commands} src dst"));
    assert_eq!((number(&report, "updated"), number(&report, "deleted")), (1, 1), "{report}");
    assert_eq!(state(&site), before);
    let said = site.ok(&format!("-n -i --delete {commands} src dst"));
    assert_eq!(state(&site), before);
    let sorted = |lines: &str| {
        let mut lines: Vec<_> = lines.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&site.ok("-i --delete src dst")), sorted(&said));
}

#[test]
fn the_old_tree_can_be_taken_back_and_the_new_one_again() {
    let site = Site::synced();
    site.rig.ok("cp -a dst before");
    site.write("a", "changed");
    fs::remove_file(site.src().join("dir/b")).unwrap();
    site.run("--rollback dst").fails(1, "no old tree");
    site.ok("--stage --keep-old --delete src dst");
    for (was, options) in [("src", ""), ("before", "--rollback dst"), ("src", "--rollback dst")] {
        if !options.is_empty() {
            site.ok(options);
        }
        assert_same(&site.rig.path(was), &site.dst());
    }
    // A later switch that keeps none leaves none that is older than what it replaced.
    site.write("a", "changed again");
    site.ok("--stage --delete src dst");
    site.run("--rollback dst").fails(1, "--keep-old");
    assert_same(&site.src(), &site.dst());
}

#[test]
fn the_way_to_the_destination_is_made_when_asked_for() {
    let site = Site::some();
    site.run("src new/way/dst").fails(1, "--mkpath");
    assert!(!site.rig.path("new").exists());
    site.ok("--mkpath src new/way/dst");
    assert_same(&site.src(), &site.rig.path("new/way/dst"));
    site.ok("--mkpath src new/way/dst");
}

#[test]
fn a_change_of_the_same_size_with_its_time_put_back_is_found() {
    for mode in ["--inplace", "--stage"] {
        for options in ["", "--checksum"] {
            let site = Site::synced();
            let (path, length) = (site.src().join("dir/c.log"), 100_000);
            let time = path.metadata().unwrap();
            fs::write(&path, noise(length, 99)).unwrap();
            tree::touch(&path, time.mtime(), time.mtime_nsec());
            let report = site.report(&format!("{mode} {options} src dst"));
            assert_eq!(number(&report, "updated"), 1, "{mode} {options}: {report}");
            assert_same(&site.src(), &site.dst());
        }
    }
}

#[test]
fn a_change_at_the_destination_is_put_right() {
    for mode in ["--inplace", "--stage"] {
        let site = Site::synced();
        let path = site.dst().join("dir/c.log");
        let time = path.metadata().unwrap();
        fs::File::options().write(true).open(&path).unwrap().write_all_at(b"flipped", 50_000).unwrap();
        tree::touch(&path, time.mtime(), time.mtime_nsec());
        let report = site.report(&format!("{mode} src dst"));
        assert_eq!(number(&report, "updated"), 1, "{mode}: {report}");
        assert_same(&site.src(), &site.dst());
    }
}

/// Whether a command has the kernel tell that somebody reads a file.
fn is_read(file: &Path, act: impl FnOnce()) -> bool {
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&watch, file, inotify::WatchFlags::ACCESS).unwrap();
    act();
    let mut buffer = [std::mem::MaybeUninit::uninit(); 512];
    match inotify::Reader::new(&watch, &mut buffer).next() {
        Ok(_) => true,
        Err(rustix::io::Errno::AGAIN) => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn what_has_changed_at_the_source_alone_is_not_read_here() {
    let site = Site::empty();
    // Not at the top, where the first bytes of a file may tell which engine's it is.
    let mut bytes = noise(17 << 20, 1);
    site.write("dir/file", &bytes);
    site.ok("--inplace src dst");
    let (src, dst) = (site.src().join("dir/file"), site.dst().join("dir/file"));
    for round in 0..3 {
        // Nothing but a time: were it read here, it would be read whole.
        tree::touch(&src, 1_000_000_000 + round as i64, 5);
        assert!(!is_read(&dst, || drop(site.ok("--inplace src dst"))), "{round}");
        assert_same(&site.src(), &site.dst());
        bytes[(16 << 20) + round] ^= 1;
        site.write("dir/file", &bytes);
        assert!(is_read(&dst, || drop(site.ok("--inplace src dst"))), "{round}");
        assert_same(&site.src(), &site.dst());
    }
    tree::touch(&src, 1_500_000_000, 5);
    assert!(is_read(&dst, || drop(site.ok("--inplace --checksum src dst"))));
    // Its end may be another one, in a group or between two.
    for length in [17 << 20, (16 << 20) + 5, (16 << 20) + 70_000, 5_000_001, 17 << 20] {
        bytes.resize(length, 7);
        site.write("dir/file", &bytes);
        site.ok("--inplace src dst");
        assert_same(&site.src(), &site.dst());
    }
    // What has changed here as well is read, however it was dressed; and so is all of which the digests are damaged.
    let digests = site.rig.path(".repl-sync-dst/digests");
    for round in 0..8 {
        let (byte, step) = ((round * 523_261) % bytes.len(), 1 << (round % 8));
        bytes[byte] ^= step;
        match round % 4 {
            0 => write(&dst, noise(17 << 20, 2)),
            1 => {
                let mut damaged = std::fs::read(&digests).unwrap();
                let at = damaged.len() - 1 - (round * 7919) % (32 * 272);
                damaged[at] ^= 1;
                write(&digests, &damaged);
            }
            2 => write(&digests, noise(round * 1000, 3)),
            _ => {}
        }
        site.write("dir/file", &bytes);
        site.ok("--inplace src dst");
        assert_same(&site.src(), &site.dst());
    }
}

#[test]
fn without_checksum_nothing_is_read_and_with_it_everything() {
    let site = Site::synced();
    let report = site.report("src dst");
    assert_eq!((number(&report, "trusted_bytes"), number(&report, "matched_bytes")), (100_006, 0), "{report}");
    let report = site.report("--checksum src dst");
    assert_eq!((number(&report, "trusted_bytes"), number(&report, "matched_bytes")), (0, 100_006), "{report}");
    assert_idle(&report);
}

#[test]
fn pages_have_the_size_that_is_asked_for() {
    for (size, pages) in [("1K", 1), ("4K", 4), ("8192", 8), ("64K", 64)] {
        let site = Site::empty();
        site.write("file", noise(1 << 20, 1));
        site.ok("src dst");
        let file = fs::File::options().write(true).open(site.src().join("file")).unwrap();
        file.write_all_at(b"x", 200_000).unwrap();
        let report = site.report(&format!("--inplace --block-size {size} src dst"));
        assert_eq!(number(&report, "literal_bytes"), 1024 * pages, "{size}: {report}");
        assert_same(&site.src(), &site.dst());
    }
}

#[test]
fn each_way_to_compress_brings_the_same() {
    for how in ["auto", "none", "zstd", "zstd:1", "zstd:19"] {
        let site = Site::empty();
        site.write("text", "all work and no play\n".repeat(20_000));
        site.write("noise", noise(100_000, 1));
        let report = site.report(&format!("--compress {how} src dst"));
        assert_same(&site.src(), &site.dst());
        let wire = number(&report, "wire_received_bytes");
        assert_eq!(wire < 200_000, how != "none", "{how}: {report}");
    }
}

#[test]
fn a_limit_of_the_rate_is_kept() {
    let site = Site::empty();
    site.write("noise", noise(2 << 20, 1));
    let began = Instant::now();
    site.ok("--bwlimit 1M src dst");
    // It can be later for any reason, and earlier for none.
    assert!(began.elapsed() > Duration::from_secs(1), "{:?}", began.elapsed());
    assert_same(&site.src(), &site.dst());
}

#[test]
fn owners_stay_as_they_come_without_leave_to_give_files_away() {
    let site = Site::some();
    chown(site.src().join("a"), Some(7), Some(8)).unwrap();
    for mode in ["--stage", "--inplace", "--inplace"] {
        site.ok(&format!("{mode} --no-owner --delete src dst"));
        let meta = site.dst().join("a").metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid()), (0, 0), "{mode}");
        assert_eq!(read(site.dst().join("a")), "one");
        assert_eq!(site.ok(&format!("{mode} -i --no-owner --delete src dst")), "", "{mode}");
    }
    site.ok("--delete src dst");
    assert_same(&site.src(), &site.dst());
}

#[test]
fn devices_are_passed_over_when_asked_for() {
    for mode in ["--stage", "--inplace"] {
        let site = Site::some();
        site.rig.ok("mknod src/null c 1 3 && mkfifo src/fifo");
        site.ok(&format!("{mode} --no-devices --delete src dst"));
        assert!(!site.dst().join("null").exists() && site.dst().join("fifo").exists(), "{mode}");
        assert_eq!(site.ok(&format!("{mode} -i --no-devices --delete src dst")), "", "{mode}");
        assert_same_but(&site.src(), &site.dst(), |name| name == b"null");
    }
}

#[test]
fn sockets_are_passed_over() {
    for mode in ["--stage", "--inplace"] {
        let site = Site::synced();
        let _theirs = std::os::unix::net::UnixListener::bind(site.src().join("socket")).unwrap();
        let _ours = std::os::unix::net::UnixListener::bind(site.dst().join("own")).unwrap();
        site.ok(&format!("{mode} --delete src dst"));
        assert!(!site.dst().join("socket").exists(), "{mode}");
        assert_same_but(&site.src(), &site.dst(), <[u8]>::is_empty);
    }
}

#[test]
fn a_command_line_that_cannot_be_meant_is_refused() {
    let site = Site::some();
    for (arguments, says) in [
        ("", "SRC"),
        ("src", "DST"),
        ("src dst more", "unexpected argument"),
        ("host:src other:dst", "must be here"),
        ("ssh://h/src ssh://h/dst", "must be here"),
        ("'' dst", "empty operand"),
        ("-- -x:src dst", "no host"),
        (":src dst", "no host"),
        ("ssh://u:secret@h/d dst", "password"),
        ("ssh://-oProxyCommand=x/d dst", "not a host"),
        ("--stage --inplace src dst", "cannot be used with"),
        ("--hook nowhere=true src dst", "POINT=CMD"),
        ("--hook before-sync src dst", "POINT=CMD"),
        ("--block-size 1000 src dst", "power of two"),
        ("--block-size 128K src dst", "power of two"),
        ("--engine oracle src dst", "not an engine"),
        ("--exclude 'a[' src dst", "pattern"),
        ("--exclude '' src dst", "pattern"),
        ("--thaw true src dst", "--freeze"),
        ("--hook-timeout 0s src dst", "--hook-timeout"),
        ("--compress gzip src dst", "--compress"),
        ("--bwlimit fast src dst", "--bwlimit"),
        ("--restrict / src dst", "--server"),
        ("--no-such src dst", "--no-such"),
        ("--rollback h:dst", "where DST is"),
    ] {
        site.run(arguments).fails(2, says);
        assert_eq!(site.litter(), [""; 0], "{arguments}");
    }
    site.run("--run-as nobody-of-that-name src dst").fails(2, "nobody-of-that-name");
    assert!(!site.dst().exists());
}

#[test]
fn what_is_not_there_or_no_directory_is_said() {
    let site = Site::some();
    site.run("nothing dst").fails(1, "nothing");
    site.run("src/a dst").fails(1, "src/a");
    site.run("src src2/dst").fails(1, "--mkpath");
    write(&site.rig.path("file"), "x");
    site.run("src file").fails(1, "file");
    assert_eq!(read(site.rig.path("file")), "x");
    site.run("--replay nothing").fails(1, "nothing");
    site.run("--rollback nothing").fails(1, "nothing");
    assert!(!site.dst().exists());
    assert_eq!(site.litter(), [""; 0]);
}

#[test]
fn names_with_a_colon_and_odd_names_of_trees_are_directories_here() {
    let site = Site::some();
    for odd in ["./a:b", "sp ace", "-n", "new\nline", "it's; $(touch oops)", "\u{e9}"] {
        let quoted = odd.replace('\'', "'\\''");
        site.ok(&format!("-- src '{quoted}'"));
        assert_same(&site.src(), &site.rig.path(odd));
        site.ok(&format!("--inplace -- '{quoted}' 'from {}'", quoted.replace(['/', ':'], "")));
    }
    for mode in ["", "--inplace"] {
        site.ok(&format!("{mode} src $'not\\xff\\xfeUTF-8{mode}'"));
    }
}

#[test]
fn what_is_said_is_little_unless_asked_for() {
    let site = Site::some();
    for options in ["", "-q", "--progress"] {
        let ran = site.run(&format!("{options} src dst"));
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", ""), "{options}");
    }
    site.write("a", "changed");
    let ran = site.run("-v src dst");
    assert!(ran.code == 0 && ran.out.is_empty() && ran.err.contains("1 updated"), "{ran:?}");
    for shell in ["bash", "zsh", "fish"] {
        assert!(site.ok(&format!("--completions {shell}")).contains("max-downtime"), "{shell}");
    }
}
