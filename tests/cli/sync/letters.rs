//! What `--itemize` prints is what rsync prints of the same changes, and what `--json` counts is what was done.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, lchown, symlink};

use super::super::tree::{self, Editor, assert_same, noise};
use super::{Site, number};

/// What rsync says that it does to make a directory what the source is.
fn rsync(site: &Site, destination: &str) -> BTreeSet<String> {
    // A copy that is the destination in everything: what rsync leaves is not.
    site.rig.ok(&format!("rm -rf theirs && cp -a {destination} theirs"));
    let out = site.rig.ok("LC_ALL=C rsync -aHXA -c -i --delete src/ theirs");
    out.lines().map(plain).collect()
}

/// A mode that changes the mask of an ACL is a changed ACL to us, and not to rsync.
fn plain(line: &str) -> String {
    let mut line = line.to_owned();
    if line.as_bytes().get(5) == Some(&b'p') {
        line.replace_range(9..10, ".");
    }
    line
}

fn ours(site: &Site, options: &str, destination: &str) -> Vec<String> {
    let out = site.ok(&format!("-i --delete {options} src {destination}"));
    let mut lines: Vec<_> = out.lines().map(plain).collect();
    lines.sort();
    lines
}

/// Compares what both print; the destinations are the source's copies before and afterwards.
#[track_caller]
fn compare(site: &Site, what: &str) {
    let theirs: Vec<_> = rsync(site, "in").into_iter().collect();
    for (destination, mode) in [("in", "--inplace"), ("st", "--stage")] {
        let rehearsed = ours(site, &format!("-n {mode}"), destination);
        let ours = ours(site, mode, destination);
        let only = |one: &[String], other: &[String]| -> Vec<String> {
            one.iter().filter(|line| !other.contains(line)).cloned().collect()
        };
        let (only_ours, only_theirs) = (only(&ours, &theirs), only(&theirs, &ours));
        assert!(ours == theirs, "{what} {mode}: ours {only_ours:#?}, theirs {only_theirs:#?}");
        assert_eq!(ours, rehearsed, "{what} {mode}, with -n and without");
        assert_same(&site.src(), &site.rig.path(destination));
    }
    settle(site);
}

/// Gives everything an old time, at both sides: rsync sees no difference that is less than a second.
fn settle(site: &Site) {
    for (number, name) in tree::look(&site.src()).0.keys().enumerate() {
        let path = site.src().join(OsStr::from_bytes(name));
        tree::touch(&path, 1_000_000_000 + number as i64, 5);
    }
    site.ok("--inplace src in");
    site.ok("--stage src st");
}

/// A site that is copied twice, without further names: which of them is told as changed is not the same.
fn twice() -> Site {
    let site = Site::empty();
    tree::small(&site.src());
    for name in ["dir/uno", "zz-one", "dir/deep/over", "empty-too", "dir/link-again"] {
        fs::remove_file(site.src().join(name)).unwrap();
    }
    settle(&site);
    site
}

#[test]
fn each_kind_of_change_has_the_letters_of_rsync() {
    let site = twice();
    compare(&site, "nothing");
    let at = |name: &str| site.src().join(name);

    fs::write(at("dir/deep/odd"), "shorter").unwrap();
    fs::write(at("acl/new"), "new").unwrap();
    fs::create_dir_all(at("new/dir/below")).unwrap();
    compare(&site, "a file that is shorter, new ones, new directories");

    let page = File::options().write(true).open(at("dir/page")).unwrap();
    page.write_all_at(b"other bytes", 4000).unwrap();
    tree::touch(&at("dir/page"), 1_700_000_000, 0);
    compare(&site, "other bytes, the same length");

    tree::chmod(&at("over"), 0o600);
    tree::touch(&at("zeros"), 1, 1);
    lchown(at("..."), Some(77), Some(78)).unwrap();
    lchown(at("link"), None, Some(79)).unwrap();
    tree::chmod(&at("empty"), 0o711);
    tree::touch(&at("empty"), 5, 0);
    tree::touch(&at("dangling"), 5, 0);
    tree::touch(&at("fifo"), 5, 0);
    tree::attribute(&at("dir/page"), "user.new", b"1");
    tree::attribute(&at("dir/deep"), "system.posix_acl_access", &tree::acl(4));
    compare(&site, "what they wear");

    fs::remove_file(at("dangling")).unwrap();
    symlink("elsewhere now", at("dangling")).unwrap();
    tree::remove(&at("dir/deep"));
    fs::remove_file(at("back\\slash")).unwrap();
    compare(&site, "a link that leads elsewhere, a directory with all in it");

    fs::hard_link(at("acl/new"), at("acl/new-too")).unwrap();
    fs::hard_link(at("whole"), at("zz")).unwrap();
    compare(&site, "further names");

    fs::write(at("\\#134 \x07\u{e9}\\"), "odd").unwrap();
    compare(&site, "a name that a terminal should not see");
}

#[test]
fn random_changes_have_the_letters_of_rsync() {
    for seed in 100..103 {
        let site = twice();
        let mut editor = Editor::new(&site.src(), seed);
        for _ in 0..3 {
            editor.said.clear();
            editor.without_links().edit(12);
            compare(&site, &format!("seed {seed}: {:#?}", editor.said));
        }
    }
}

#[test]
fn the_report_counts_what_was_done() {
    let site = Site::synced();
    site.write("new/file", noise(1000, 1));
    fs::write(site.src().join("a"), "another").unwrap();
    tree::chmod(&site.src().join("dir/b"), 0o600);
    fs::remove_file(site.src().join("dir/c.log")).unwrap();
    for (destination, mode) in [("dst", "inplace"), ("other", "stage")] {
        if destination == "other" {
            site.rig.ok("cp -a dst-before other");
        } else {
            site.rig.ok("cp -a dst dst-before");
        }
        let report = site.report(&format!("--delete --{mode} src {destination}"));
        for (key, value) in [
            ("v", 1),
            ("passes", 1),
            ("entries", 6),
            ("files", 3),
            ("bytes", 1010),
            ("created", 2),
            ("updated", 1),
            ("deleted", 1),
            ("literal_bytes", 1007),
        ] {
            assert_eq!(number(&report, key), value, "{key} in {report}");
        }
        assert!(number(&report, "dressed") >= 1, "{report}");
        assert_eq!(report["mode"], mode);
        assert!(report["downtime_seconds"].is_null() && report["seconds"].as_f64().unwrap() > 0.0, "{report}");
        assert!(number(&report, "wire_received_bytes") > 1007 && number(&report, "wire_sent_bytes") > 0, "{report}");
    }
}

#[test]
fn passes_that_come_back_to_it_tell_a_change_once() {
    for (destination, mode) in [("in", "--inplace"), ("st", "--stage")] {
        let site = twice();
        Editor::new(&site.src(), 5).edit(40);
        let once = site.report(&format!("-n --delete src {destination}"));
        let lines = ours(&site, "-n", destination);
        site.rig.ok(&format!("cp -a {destination} copy"));
        let hot = format!("--max-downtime 1ms --stop true --start true {mode}");
        assert_eq!(ours(&site, &hot, destination), lines, "{mode}");
        assert_same(&site.src(), &site.rig.path(destination));
        let report = site.report(&format!("{hot} --delete src copy"));
        for key in ["created", "updated", "dressed", "deleted"] {
            assert_eq!(number(&report, key), number(&once, key), "{mode} {key}: {report}");
        }
        assert!(number(&report, "passes") > 1, "{report}");
    }
}
