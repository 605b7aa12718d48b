//! What each option promises, and what is refused.

use std::fs;
use std::os::unix::fs::symlink;

use super::super::rig::{Running, eventually};
use super::super::tree::assert_same_but;
use super::{Vault, assert_whole};

#[test]
fn a_base_has_the_name_it_is_given_or_the_time() {
    let vault = Vault::some();
    let out = vault.ok("src archive");
    let name = out.strip_suffix(" -\n").unwrap_or_else(|| panic!("{out}"));
    assert!(name.starts_with("20") && name.ends_with('Z') && name.len() == 20, "{name}");
    assert_eq!(vault.ok("-q --name quiet src archive"), "");
    assert_eq!(vault.ok("--name v1.0_a-b src archive"), "v1.0_a-b -\n");
    let before = vault.state("archive");
    for bad in ["''", ".", "..", ".new", "-n", "a/b", "'a b'", "history.jsonl", "\u{e9}", &"a".repeat(201)] {
        vault.run(&format!("--name={bad} src archive")).fails(2, "--name");
        vault.run(&format!("--drop={bad} archive")).fails(2, "--drop");
    }
    assert_eq!(vault.state("archive"), before);
    vault.run("--name v1.0_a-b src archive").fails(13, "give another one --name");
    vault.run("-n --name v1.0_a-b src archive").fails(13, "give another one --name");
    vault.run(&format!("--reason {} src archive", "x".repeat(5000))).fails(2, "4096 bytes");
    vault.run("--engine ingres src archive").fails(2, "is not an engine");
}

#[test]
fn bases_are_listed_in_the_order_of_their_ends() {
    let vault = Vault::some();
    fs::create_dir(vault.rig.path("archive")).unwrap();
    assert_eq!(vault.ok("--list archive"), "");
    for name in ["zeta", "alpha", "mid"] {
        vault.take(name, "");
    }
    let out = vault.ok("--list archive");
    let lines: Vec<Vec<&str>> = out.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(lines.iter().map(|line| line[0]).collect::<Vec<_>>(), ["zeta", "alpha", "mid"]);
    let src = vault.src().display().to_string();
    assert_eq!((lines[0][1], lines[0][2], &lines[0][4..]), ("-", "-", &["3", "100006", "plain", &*src][..]));
    let objects = vault.ok("--list --json archive");
    let object: serde_json::Value = serde_json::from_str(objects.lines().next().unwrap()).unwrap();
    let keys: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        ["begun", "bytes", "ended", "engine", "files", "identity", "name", "position", "reason", "source", "time", "v"]
    );
    assert_eq!((&object["name"], &object["bytes"], &object["v"]), (&"zeta".into(), &100_006.into(), &1.into()));
    vault.run("--list nowhere").fails(1, "cannot open nowhere");
    vault.run("--list host:archive").fails(2, "where the archive is");
    // One that is none, or not any more.
    fs::write(vault.bases().join("alpha/base.toml"), "v = 1\n").unwrap();
    vault.run("--list archive").fails(6, "alpha/base.toml is damaged");
    vault.ok("--drop alpha archive");
    assert_eq!(vault.listed(), ["mid", "zeta"]);
}

#[test]
fn a_base_that_is_dropped_is_gone_and_so_is_what_interrupted_runs_left() {
    let vault = Vault::some();
    fs::create_dir(vault.rig.path("archive")).unwrap();
    vault.run("--drop one archive").fails(2, "there is no base 'one'");
    assert!(!vault.bases().exists());
    vault.take("one", "");
    vault.take("two", "");
    vault.run("--drop three archive").fails(2, "there is no base 'three'");
    vault.ok("--drop one --reason 'too old' archive");
    assert_eq!(vault.names(), ["two"]);
    let history = fs::read_to_string(vault.bases().join("history.jsonl")).unwrap();
    assert!(history.lines().last().unwrap().contains("too old"), "{history}");
    // Killed in the middle, and taken once more: both go.
    for what in ["--drop one archive", "--name three src archive"] {
        vault.rig.ok("cp -a archive/bases/two archive/bases/.gone-one");
        vault.rig.ok("rm -rf archive/bases/one && cp -a archive/bases/two archive/bases/one");
        vault.ok(what);
        assert!(!vault.bases().join(".gone-one").exists(), "{what}");
    }
}

#[test]
fn a_source_and_an_archive_are_never_in_one_another() {
    let vault = Vault::some();
    vault.take("one", "");
    fs::create_dir(vault.rig.path("archive/db")).unwrap();
    symlink("src", vault.rig.path("alias")).unwrap();
    let before = vault.state(".");
    for pair in [
        "src src",
        "src src/archive",
        "src src/not/there/yet",
        "src alias/archive",
        "src src/dir",
        "archive archive",
        "archive/db archive",
        "archive/bases archive",
        "archive/bases/one/data archive",
        ". archive",
        "src .",
    ] {
        for options in ["--adopt", "-n"] {
            vault.run(&format!("{options} {pair}")).fails(13, "one is in the other");
            assert_eq!(vault.state("."), before, "{options} {pair}");
        }
    }
}

#[test]
fn a_dry_run_changes_nothing_at_all() {
    let vault = Vault::some();
    let rehearse = |sent: u64| {
        let before = vault.state(".");
        let ran = vault.run("-n src archive");
        assert!(ran.err.contains(&format!("; {sent} bytes would be sent")), "{ran:?}");
        assert_eq!((ran.code, ran.out.as_str()), (0, ""));
        let report = vault.report("-n src archive");
        assert_eq!((&report["base"], &report["sync"]["literal_bytes"]), (&serde_json::Value::Null, &sent.into()));
        assert_eq!(vault.state("."), before);
    };
    rehearse(100_006);
    fs::create_dir(vault.rig.path("archive")).unwrap();
    rehearse(100_006);
    fs::create_dir(vault.bases()).unwrap();
    rehearse(100_006);
    vault.run("--thaw false --freeze true src archive").fails(9, "thaw");
    rehearse(100_006);
    vault.take("one", "");
    rehearse(0);
    vault.write("a", "changed");
    rehearse(7);
    let ran = vault.run("-n --freeze 'touch ran' src archive");
    assert_eq!((ran.code, vault.rig.path("ran").exists()), (0, false), "{ran:?}");
}

#[test]
fn names_that_are_excluded_are_in_no_base() {
    let vault = Vault::some();
    vault.write("dir/keep.log", "kept");
    vault.write("cache/x", "x");
    vault.take("whole", "");
    vault.ok("--name part --include keep.log --exclude '*.log' --exclude cache/ src archive");
    let is_out = |name: &[u8]| name.starts_with(b"cache") || name == b"dir/c.log";
    assert_same_but(&vault.src(), &vault.data("part"), is_out);
    for name in ["cache", "dir/c.log"] {
        assert!(!vault.data("part").join(name).exists() && vault.data("whole").join(name).exists(), "{name}");
    }
    assert_whole(&vault.bases().join("part"));
}

#[test]
fn a_source_is_frozen_for_the_last_pass_and_thawed_whatever_fails() {
    let vault = Vault::some();
    let log = || fs::read_to_string(vault.rig.path("log")).unwrap_or_default();
    vault.take("one", "--freeze 'echo frozen $REPL_DIR >>log; echo late >src/late' --thaw 'echo thawed >>log'");
    assert_eq!(log(), format!("frozen {}\nthawed\n", vault.src().display()));
    assert!(vault.data("one").join("late").exists());
    vault.write("a", "changed");
    for (freeze, thaw) in [("false", "echo thawed"), ("true", "false")] {
        let ran = vault.run(&format!("--freeze '{freeze}' --thaw '{thaw} >>log' src archive"));
        assert_eq!(ran.code, 9, "{ran:?}");
        assert_eq!(vault.listed(), ["one"]);
    }
    assert!(log().ends_with("thawed\nthawed\n"), "{}", log());
    vault.take("two", "");
    vault.run("--thaw true src archive").fails(2, "--freeze");
}

#[test]
fn an_empty_source_is_not_taken_for_one_that_is_not_mounted() {
    let vault = Vault::empty();
    vault.run("src archive").fails(13, "--allow-empty");
    assert_eq!((vault.names(), vault.listed()), (vec![], vec![]));
    vault.take("none", "--allow-empty");
}

#[test]
fn of_two_at_once_the_second_is_busy() {
    let vault = Vault::some();
    vault.rig.ok("mkfifo hold");
    let script = "exec $BASE --name first --freeze 'echo up >held; read x <hold' --thaw true src archive";
    let mut first = Running::start(vault.rig.sh(script), &vault.rig.path("first"));
    eventually("the first one", || vault.rig.path("held").exists());
    vault.run("src archive").fails(7, "is held by process");
    vault.run("--drop one archive").fails(7, "is held by process");
    assert_eq!(vault.ok("--list archive"), "");
    vault.ok("-n src archive");
    vault.rig.ok("echo go >hold");
    assert_eq!(first.wait().code, 0);
    assert_eq!(vault.listed(), ["first"]);
}
