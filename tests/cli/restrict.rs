//! A forced command: what a key may ask for, and that it gets no further.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use serde_json::{Value, json};

use super::craft::{Stream, bookmark, feed, position, tree};
use super::rig::{APPLY, Ran, Rig, Sshd};

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

fn place(rig: &Rig, name: &str, text: &str) {
    fs::write(rig.path(name), text).unwrap();
    fs::set_permissions(rig.path(name), fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_key_with_a_configuration_tells_the_other_sites_how_its_own_is() {
    let (rig, sshd) = (Rig::new(), Sshd::start());
    rig.write("log.1", "one");
    let dir = |key: &str, name: &str| format!("{key} = \"{}\"\n", rig.path(name).display());
    let top = |here: &str| format!("set = \"shop\"\nhere = \"{here}\"\npattern = \"log.%S\"\naddress = \"{here}:1\"\n");
    let site = format!("[[site]]\nname = \"venus\"\nrsh = \"{}\"\n", sshd.ssh());
    let mars = top("mars") + &dir("logdir", "master") + &dir("state", "state") + &site + &dir("config", "venus.toml");
    place(&rig, "mars.toml", &mars);
    // What the file has of files and other machines is not for a peer to set off.
    let more = "[status]\nprometheus = \"written\"\nask = [\"pluto=touch asked\"]\n";
    place(&rig, "venus.toml", &(top("venus") + &dir("logdir", "replica") + more));
    let file = rig.path("venus.toml").display().to_string();
    let root = rig.root.path().display();
    sshd.force(&format!("restrict,command=\"{APPLY} --restrict {root} --append-only -c {file}\""));
    rig.ok("$ROLE init --master --reason first -c mars.toml && $SHIP -S -c mars.toml");
    let report: Value = serde_json::from_str(&rig.ok("$STATUS --json -c mars.toml")).unwrap();
    let venus = &report["receivers"][0];
    assert_eq!((&report["alarm"], &report["silent"]), (&json!("ok"), &json!([])), "{report}");
    assert_eq!((&venus["asked"], &venus["held"]), (&json!("venus"), &json!("1-1:3")), "{report}");
    let found: Value = serde_json::from_str(&rig.ok("$ROLE where --json -c mars.toml")).unwrap();
    assert_eq!((&found["site"], &found["silent"]), (&json!("mars"), &json!([])), "{found}");
    assert!(!rig.path("replica/written").exists() && !rig.path("replica/asked").exists());
}

#[test]
fn beside_log_a_key_asks_two_things_in_these_words_and_changes_nothing() {
    let rig = archive();
    let dir = |name: &str| format!("pattern = \"log.%S\"\nlogdir = \"{}\"\n", rig.path(name).display());
    place(&rig, "a.toml", &dir("archive/a"));
    place(&rig, "b.toml", &dir("elsewhere"));
    place(&rig, "none.toml", "pattern = \"log.%S\"\n");
    let own = ["-c", "a.toml"];
    assert_eq!(asks(&rig, &own, "repl-apply --acks -c a.toml", &short()).code, 0);
    fs::create_dir(rig.path("elsewhere")).unwrap();
    let before = tree(rig.root.path());
    for (line, what) in [
        ("repl-status --json --local -c a.toml", "\"held\":\"1-1:3\""),
        ("repl-role show --json -c a.toml", "\"role\":\"receiver\""),
    ] {
        let ran = asks(&rig, &own, line, &short());
        assert!(ran.code == 0 && ran.out.contains(what), "{line}: {ran:?}");
        // Nobody has said what this key may be told, or it is another's, or what it says lies elsewhere.
        asks(&rig, &[], line, &short()).fails(2, "hint: -c a.toml in the forced command");
        asks(&rig, &["-c", "b.toml"], line, &short()).fails(2, "this key does not use a.toml");
        asks(&rig, &["-c", "b.toml"], &line.replace("a.toml", "b.toml"), &short()).fails(5, "leads out of");
        asks(&rig, &["-c", "none.toml"], &line.replace("a.toml", "none.toml"), &short()).fails(2, "logdir");
    }
    for line in [
        "repl-status",
        "repl-status -c a.toml",
        "repl-status --json -c a.toml",
        "repl-status --json --local",
        "repl-status --json --local -c b.toml",
        "repl-status --json --local -c ./a.toml",
        "repl-status --json --local -c a.toml elsewhere",
        "repl-status --json --local -c a.toml --state elsewhere",
        "repl-status --json --local --ask 'x=touch hacked' -c a.toml",
        "repl-status --html hacked -c a.toml",
        "repl-status --json --local -c a.toml; touch hacked",
        "repl-role",
        "repl-role show -c a.toml",
        "repl-role show --json elsewhere -c a.toml",
        "repl-role where --json -c a.toml",
        "repl-role pause apply --reason x -c a.toml",
        "repl-role switchover --to b -c a.toml",
        "repl-role become --epoch 9 -c a.toml",
        "repl-role --json show -c a.toml",
        "repl-verify -c a.toml",
    ] {
        let ran = asks(&rig, &own, line, &short());
        ran.fails(2, "refused by --restrict: ");
        assert!(ran.out.is_empty(), "{line}: {ran:?}");
    }
    assert_eq!(tree(rig.root.path()), before);
}
