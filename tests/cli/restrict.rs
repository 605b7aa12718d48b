//! A forced command: what a key may ask for, and that it gets no further.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use super::craft::{Stream, bookmark, feed, position, tree};
use super::rig::{APPLY, Ran, Rig};

/// As sshd would run it: the forced line with what the key's owner asked for in the environment.
fn asks(rig: &Rig, forced: &[&str], line: &str, stream: &Stream) -> Ran {
    let mut command = Command::new(APPLY);
    command.arg("--restrict").arg(rig.path("archive")).args(forced).env("SSH_ORIGINAL_COMMAND", line);
    command.current_dir(rig.root.path());
    feed(command, &stream.bytes)
}

fn archive() -> Rig {
    let rig = Rig::new();
    fs::create_dir(rig.path("archive")).unwrap();
    rig
}

fn short() -> Stream {
    Stream::new().begin(1).data(b"abc").bye().clone()
}

#[test]
fn ordinary_use_goes_through() {
    let rig = archive();
    let absolute = format!("repl-apply --acks {}/b/c", rig.path("archive").display());
    for (line, directory) in [
        ("repl-apply --acks a", "a"),
        (absolute.as_str(), "b/c"),
        ("/usr/local/bin/repl-apply --acks -- d", "d"),
        ("repl-apply -v --acks 'with space'", "with space"),
        ("repl-apply --acks --engine plain --pattern=log.%S --logs-only ./e", "e"),
    ] {
        assert_eq!(asks(&rig, &[], &line.replace("--acks", "--position"), &short()).out, "oldest\n", "{line}");
        assert!(!rig.path("archive").join(directory).exists(), "{line}");
        let ran = asks(&rig, &[], line, &short());
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
        assert!(ran.out.starts_with("welcome ") && ran.out.contains("flushed=1-1:3"), "{ran:?}");
        assert_eq!(position(&rig.path("archive").join(directory)), bookmark(1, b"abc"));
        let said = asks(&rig, &[], &line.replace("--acks", "--position"), &short()).out;
        assert_eq!(said.trim_end(), bookmark(1, b"abc"), "{line}");
    }
}

#[test]
fn a_forced_directory_needs_no_name_and_takes_no_other() {
    let rig = archive();
    let forced = ["--acks", "mine"];
    assert_eq!(asks(&rig, &forced, "repl-apply", &short()).code, 0);
    assert_eq!(asks(&rig, &forced, "repl-apply mine", &short()).code, 0);
    asks(&rig, &forced, "repl-apply other", &short()).fails(5, "this key may write to mine only");
    asks(&rig, &["--acks"], "repl-apply", &short()).fails(2, "no LOGDIR is named");
    assert_eq!(fs::read_dir(rig.path("archive")).unwrap().count(), 1);
}

#[test]
fn what_is_not_on_the_list_is_usage() {
    let rig = archive();
    for line in [
        "",
        "sh",
        "repl-applyx a",
        "rm -rf a",
        "repl-apply --set-aside a",
        "repl-apply --adopt a",
        "repl-apply --feed 'touch hacked' a",
        "repl-apply --gate true a",
        "repl-apply --state /tmp/x a",
        "repl-apply --restrict / a",
        "repl-apply --restrict=/ a",
        "repl-apply --timeout 9h a",
        "repl-apply --reason x a",
        "repl-apply --append-only=false a",
        "repl-apply -vq --set-aside a",
        "repl-apply --acks --position --pattern",
        "repl-apply --completions bash",
        "repl-apply --help",
        "repl-apply a b",
        "repl-apply a; touch hacked",
        "repl-apply a && touch hacked",
        "repl-apply 'a",
        "repl-apply --pattern ../%S a",
    ] {
        let ran = asks(&rig, &[], line, &short());
        assert_eq!(ran.code, 2, "{line}: {ran:?}");
        assert!(ran.out.is_empty() && ran.err.starts_with("repl-apply: "), "{line}: {ran:?}");
    }
    assert_eq!(fs::read_dir(rig.path("archive")).unwrap().count(), 0);
    assert!(!rig.path("hacked").exists());
}

#[test]
fn no_word_is_run_by_a_shell() {
    let rig = archive();
    assert_eq!(asks(&rig, &["--acks"], "repl-apply '$(touch hacked)'", &short()).code, 0);
    assert_eq!(asks(&rig, &["--acks"], "repl-apply `touch-hacked`", &short()).code, 0);
    assert!(!rig.path("hacked").exists() && rig.path("archive/$(touch hacked)").exists());
}

#[test]
fn nothing_leads_out_of_the_root() {
    let rig = archive();
    fs::create_dir(rig.path("outside")).unwrap();
    fs::create_dir(rig.path("archive/inside")).unwrap();
    symlink(rig.path("outside"), rig.path("archive/link")).unwrap();
    symlink("../outside", rig.path("archive/relative")).unwrap();
    symlink("inside", rig.path("archive/within")).unwrap();
    symlink("/nowhere/at/all", rig.path("archive/dangling")).unwrap();
    fs::write(rig.path("archive/file"), "x").unwrap();
    let before = tree(rig.root.path());
    let outside = rig.path("outside").display().to_string();
    let sneaky = format!("{}/../outside", rig.path("archive").display());
    let similar = format!("{}d", rig.path("archive").display());
    for directory in [
        "..",
        "../outside",
        "inside/../../outside",
        &outside,
        &sneaky,
        &similar,
        "/",
        "/etc",
        "link",
        "link/x",
        "relative",
        "within",
        "dangling",
        "dangling/x",
        "file",
        "file/x",
        "a/.repl",
        "inside/.repl/aux",
    ] {
        for option in ["--acks", "--position"] {
            let ran = asks(&rig, &[], &format!("repl-apply {option} {directory}"), &short());
            ran.fails(5, "");
            assert!(!ran.out.contains("welcome"), "{directory}: {ran:?}");
        }
    }
    assert_eq!(tree(rig.root.path()), before);
    assert_eq!(asks(&rig, &[], "repl-apply inside", &short()).code, 0);
}

#[test]
fn options_of_the_forced_line_stay_in_force() {
    let rig = archive();
    let forced = ["--append-only", "--set", "orders", "--pattern", "log.%S"];
    assert_eq!(asks(&rig, &forced, "repl-apply --acks a", &short()).code, 0);
    let other = Stream::new().begin(1).data(b"aXX").bye().clone();
    let before = tree(rig.root.path());
    asks(&rig, &forced, "repl-apply --acks a", &other).fails(4, "diverged");
    asks(&rig, &forced, "repl-apply --acks --set-aside a", &other).fails(2, "not allowed");
    // What the wire says of the engine does not replace what the line says.
    asks(&rig, &["--set", "stock"], "repl-apply --acks b", &short()).fails(5, "takes set 'stock' only");
    asks(&rig, &["--pattern", "x.%S"], "repl-apply --acks --pattern log.%S c", &short()).fails(5, "another pattern");
    assert_eq!(tree(&rig.path("archive/a")), {
        let mut a = before;
        a.retain(|name, _| name.starts_with("archive/a/"));
        a.into_iter().map(|(name, what)| (name.trim_start_matches("archive/a/").to_owned(), what)).collect()
    });
    assert_eq!(
        asks(&rig, &forced, "repl-apply --acks a", Stream::new().begin_after(1, b"abc").data(b"d").bye()).code,
        0
    );
}
