//! `repl-recover` as operators run it, over plain log: what is refused and by which code, that a refusal changes nothing,
//! what commands are told, and in which order. (The databases' own recoveries have files of their own.)

mod damage;
mod kill;
mod until;

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use super::rig::{Ran, Rig, eventually, noise, segments};
use super::tree;

/// How long each segment is.
const LENGTH: usize = 5000;

/// An archive of four plain segments in `archive`, three closed and one open; with or without a base.
struct Vault {
    rig: Rig,
}

impl Vault {
    /// Log alone.
    fn logs() -> Vault {
        let vault = Vault { rig: Rig::new() };
        (1..=4).for_each(|sequence| vault.write(sequence));
        vault.ship("archive");
        vault
    }

    /// The base `one` of a directory with two segments and some files, and two more segments.
    fn based() -> Vault {
        let vault = Vault { rig: Rig::new() };
        vault.rig.write("table", noise(10_000, 9));
        vault.rig.ok("mkdir -m 750 master/dir && echo row > master/dir/row && ln master/dir/row master/twin");
        (1..=2).for_each(|sequence| vault.write(sequence));
        vault.ship("archive");
        vault.rig.ok("$BASE --name one master archive");
        (3..=4).for_each(|sequence| vault.write(sequence));
        vault.ship("archive");
        vault
    }

    /// A base that has no log: what is behind it is laid for the operator's command.
    fn bare() -> Vault {
        let vault = Vault::logs();
        vault.rig.ok("mkdir src && echo row > src/row && $BASE --name one src archive");
        vault
    }

    fn write(&self, sequence: u64) {
        self.rig.write(&format!("log.{sequence}"), noise(LENGTH, sequence));
    }

    fn ship(&self, archive: &str) {
        self.rig.ok(&format!(
            "$SHIP -S --pattern log.%S --state shipped-{archive} --via '$APPLY --acks --logs-only {archive}' master"
        ));
    }

    fn run(&self, options: &str) -> Ran {
        self.rig.run(&format!("$RECOVER --archive archive {options}"))
    }

    /// A recovery into `target` that must succeed; what it says as JSON.
    #[track_caller]
    fn recover(&self, options: &str) -> Value {
        let out = self.rig.ok(&format!("$RECOVER --archive archive --target target --json {options}"));
        serde_json::from_str(&out).unwrap()
    }

    /// All of a directory with content, inodes and times: whatever is changed shows.
    fn state(&self, dir: &str) -> String {
        // A lease has come and gone in the state: its directory's times tell of that.
        let list = "! -name .repl -printf '%p %i %T@ %C@ %s %m %l\\n'";
        self.rig.ok(&format!("find {dir} {list} | sort; find {dir} -type f -print0 | sort -z | xargs -0 b3sum"))
    }

    /// A recovery that is refused, and changes neither the archive nor what is or is not in `target`.
    #[track_caller]
    fn refuses(&self, options: &str, code: i32, says: &str) {
        let there = || self.rig.run("find target -printf '%p %i %T@ %C@ %s\\n'").out;
        let before = (self.state("archive"), there());
        self.run(&format!("--target target {options}")).fails(code, says);
        assert!(before == (self.state("archive"), there()), "{options}: something was touched");
    }

    /// Whether a server may be started on `target`.
    fn guard(&self) -> i32 {
        self.rig.run("$ROLE guard target").code
    }

    /// The segments in a directory, with their lengths, all of them a beginning of the master's.
    #[track_caller]
    fn laid(&self, dir: &str) -> BTreeMap<String, usize> {
        let mut laid = BTreeMap::new();
        for name in segments(&self.rig.path(dir)).into_keys().filter(|name| name.starts_with("log.")) {
            let bytes = fs::read(self.rig.path(dir).join(&name)).unwrap();
            assert!(fs::read(self.rig.master().join(&name)).unwrap().starts_with(&bytes), "{name}");
            laid.insert(name, bytes.len());
        }
        laid
    }
}

/// Segments 1 to `last`, whole but for the last, which has so many bytes.
fn up_to(last: u64, length: usize) -> BTreeMap<String, usize> {
    (1..=last).map(|at| (format!("log.{at}"), if at == last { length } else { LENGTH })).collect()
}

#[test]
fn log_alone_is_laid_and_the_target_says_what_it_is() {
    let vault = Vault::logs();
    let before = vault.state("archive");
    assert_eq!(
        vault.rig.ok("$RECOVER --archive archive --target target").split_once(" in ").unwrap().0.split(',').next(),
        Some("recovered up to 1-4:5000")
    );
    assert_eq!(vault.laid("target"), up_to(4, LENGTH));
    assert_eq!(vault.state("archive"), before);
    let record: Value = serde_json::from_slice(&fs::read(vault.rig.path("target/.repl-recovered")).unwrap()).unwrap();
    assert_eq!((&record["v"], &record["position"], &record["base"]), (&1.into(), &"1-4:5000".into(), &Value::Null));
    assert_eq!(record["archive"], fs::canonicalize(vault.rig.path("archive")).unwrap().to_str().unwrap());
    assert!(!vault.rig.path("target/.repl-recover").exists() && !vault.rig.path("target/.repl").exists());
}

#[test]
fn a_base_and_the_log_behind_it_are_laid_as_they_were() {
    let vault = Vault::based();
    let told = vault.recover("--reason 'power cut'");
    assert_eq!((&told["base"], &told["first"], &told["segments"]), (&"one".into(), &"1-2".into(), &3.into()));
    assert_eq!(vault.laid("target"), up_to(4, LENGTH));
    let is_log = |name: &[u8]| name.is_empty() || name.starts_with(b"log.") || name == b".repl-recovered";
    tree::assert_same_but(&vault.rig.path("archive/bases/one/data"), &vault.rig.path("target"), is_log);
    assert!(fs::read_to_string(vault.rig.path("target/.repl-recovered")).unwrap().contains("\"reason\":\"power cut\""));
}

#[test]
fn a_dry_run_says_what_would_be_done_and_touches_nothing() {
    let vault = Vault::based();
    let before = vault.state("archive");
    let plan = vault.rig.ok("$RECOVER --archive archive --target target -n");
    let lines: Vec<_> = plan.lines().collect();
    assert_eq!(lines[0], "engine plain");
    assert!(lines[1].starts_with("base one 1-2:5000 "), "{plan}");
    assert_eq!(lines[2], "log 1-2 to 1-4, 3 segments");
    assert!(lines[3].starts_with("end 1-4:5000 "), "{plan}");
    // It needs no target, and no command that would be run is.
    assert_eq!(vault.rig.ok("$RECOVER --archive archive -n --recover 'touch ran' --check 'touch ran'"), plan);
    assert_eq!(vault.rig.ok("$RECOVER --archive archive -n -q"), "");
    let cut = vault.rig.ok("$RECOVER --archive archive -n --until 1-3:7");
    assert!(cut.contains("end 1-3:7 ") && cut.ends_with(", the archive has more, to 1-4:5000\n"), "{cut}");
    assert!(!vault.rig.path("target").exists() && !vault.rig.path("ran").exists());
    assert_eq!(vault.state("archive"), before);
}

#[test]
fn json_has_these_keys() {
    let vault = Vault::based();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    let plan = "base bytes engine first held is_cut lost position segments time v";
    let out = vault.rig.ok("$RECOVER --archive archive -n --json");
    let planned: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(keys(&planned), plan);
    let told = vault.recover("");
    assert_eq!(keys(&told), "base bytes copied_bytes engine first held is_cut lost position seconds segments time v");
    assert_eq!((&told["v"], &told["engine"], &told["is_cut"]), (&1.into(), &"plain".into(), &false.into()));
    assert_eq!(told["position"], "1-4:5000");
}

#[test]
fn a_target_that_has_something_in_it_is_13() {
    let vault = Vault::logs();
    vault.rig.ok("mkdir target && echo precious > target/row");
    vault.refuses("", 13, "target is not empty: it has row");
    vault.refuses("-n", 13, "target is not empty");
    assert_eq!(fs::read_to_string(vault.rig.path("target/row")).unwrap(), "precious\n");
    vault.rig.ok("rm target/row && mkdir target/lost+found && $RECOVER --archive archive --target target");
    assert!(vault.rig.path("target/lost+found").is_dir());
}

#[test]
fn a_target_that_is_in_the_archive_or_around_it_is_13() {
    let vault = Vault::logs();
    vault.rig.ok("ln -s archive link; ln -s . here");
    let before = vault.state("archive");
    for target in ["archive", "archive/new", "archive/.repl/new", "link/new", "link", ".", "here", "here/archive/a/b"] {
        vault.run(&format!("--target {target}")).fails(13, "one is in the other");
    }
    assert_eq!(vault.state("archive"), before);
}

#[test]
fn a_recovered_target_is_13_until_it_is_finished() {
    let vault = Vault::logs();
    vault.recover("");
    vault.refuses("", 13, "was recovered already");
    vault.refuses("--until 1-2:5", 13, "hint: repl-recover --finish");
    vault.rig.ok("echo later > target/later");
    assert!(vault.rig.ok("$RECOVER --archive archive --target target --finish -n").contains("target"));
    assert!(vault.rig.path("target/later").exists());
    vault.rig.ok("$RECOVER --archive archive --target target --finish");
    assert_eq!(vault.rig.ok("ls -A target"), "");
    vault.recover("");
    assert_eq!(vault.laid("target"), up_to(4, LENGTH));
}

#[test]
fn finish_takes_only_what_is_ours_and_not_in_use() {
    let vault = Vault::logs();
    vault.rig.ok("mkdir target && echo precious > target/row");
    vault.refuses("--finish", 13, "was not made by repl-recover");
    vault.rig.ok("cp -a archive around && mv around target/archive");
    vault.rig.ok("touch target/.repl-recovered");
    vault.rig.run("$RECOVER --archive target/archive --target target --finish").fails(13, "is in ");
    assert!(vault.rig.path("target/row").exists() && vault.rig.path("target/archive/log.1").exists());
    vault.rig.ok("rm -r target");
    vault.recover("");
    vault.rig.ok("mkfifo go");
    let mut user = vault.rig.spawn("exec 3>>target/log.1; touch begun; cat go");
    eventually("somebody who uses it", || vault.rig.path("begun").exists());
    vault.rig.run("$RECOVER --archive archive --target target --finish").fails(13, "in use");
    vault.rig.ok("echo > go");
    user.wait();
    assert_eq!(vault.laid("target"), up_to(4, LENGTH));
    // An interrupted recovery is ours, too.
    vault.rig.ok("$RECOVER --archive archive --target target --finish");
    vault.refuses_after("--check false", 9);
    vault.rig.ok("$RECOVER --archive archive --target target --finish");
    assert_eq!((vault.rig.ok("ls -A target").as_str(), vault.guard()), ("", 0));
    vault.run("--finish").fails(2, "--target");
}

impl Vault {
    /// A recovery that fails and leaves the target marked.
    #[track_caller]
    fn refuses_after(&self, options: &str, code: i32) {
        let ran = self.run(&format!("--target target {options}"));
        assert_eq!((ran.code, self.guard()), (code, 5), "{ran:?}");
    }
}

#[test]
fn finish_asks_for_a_base_where_nothing_could_be_recovered_any_more() {
    let vault = Vault::logs();
    vault.recover("");
    vault.rig.ok("rm master/log.1 master/log.2");
    vault.ship("late");
    let finish = "$RECOVER --archive late --target target --finish";
    vault.rig.run(finish).fails(13, "hint: --master");
    vault.rig.run(&format!("{finish} --master false")).fails(9, "master");
    vault.rig.run(&format!("{finish} --master true")).fails(13, "nothing could be recovered");
    assert_eq!(vault.laid_again("target"), 4, "what was recovered is still there");
    vault
        .rig
        .ok(&format!("{finish} --master 'echo $REPL_ARCHIVE > told && exec $BASE --name one master $REPL_ARCHIVE'"));
    assert_eq!(vault.rig.ok("ls -A target"), "");
    assert_eq!(vault.rig.ok("cat told").trim(), fs::canonicalize(vault.rig.path("late")).unwrap().to_str().unwrap());
    // Now that there is one, another one is not asked for, and not taken.
    vault.rig.ok("$RECOVER --archive late --target target");
    vault.rig.ok("cp -a target kept");
    vault.rig.ok(&format!("{finish} --master 'touch asked'"));
    assert!(!vault.rig.path("asked").exists());
    // Nor is the last whole database given up for an archive that is damaged.
    vault.rig.ok("rmdir target && mv kept target && echo >> late/bases/one/data/table");
    vault.rig.run(finish).fails(13, "base one is damaged");
    assert_eq!(vault.laid_again("target"), 2);
}

impl Vault {
    /// How many segments are there.
    fn laid_again(&self, dir: &str) -> usize {
        segments(&self.rig.path(dir)).keys().filter(|name| name.starts_with("log.")).count()
    }
}

#[test]
fn a_check_that_fails_is_9_and_a_rerun_copies_nothing_again() {
    let vault = Vault::based();
    vault.run("--target target --check 'echo three rows are missing; exit 3'").fails(9, "three rows are missing");
    assert_eq!(vault.guard(), 5);
    let before = vault.rig.ok("find target -name .repl-recover -prune -o -type f -printf '%p %i %T@ %C@\\n' | sort");
    let told = vault.recover("--check 'test -e $REPL_TARGET/log.4'");
    assert_eq!((&told["copied_bytes"], vault.guard()), (&0.into(), 0));
    let after = vault.rig.ok("find target -type f ! -name .repl-recovered -printf '%p %i %T@ %C@\\n' | sort");
    assert_eq!(before, after);
}

#[test]
fn commands_are_told_these_things_and_what_they_leave_is_the_result() {
    let vault = Vault::based();
    let root = fs::canonicalize(vault.rig.root.path()).unwrap().display().to_string();
    let see = "env | grep ^REPL_ | grep -v REPL_TEST | sort >> ";
    vault.recover(&format!(
        "--until 1-4:77 --recover 'cat \"$REPL_LOGS\"/log.* > \"$REPL_TARGET\"/all; rm \"$REPL_TARGET\"/log.*; {see} {root}/told' \
         --check '{see} {root}/checked' --then start --start '{see} {root}/started'"
    ));
    let told = vault.rig.ok("cat told");
    for line in [
        format!("REPL_ARCHIVE={root}/archive"),
        format!("REPL_DIR={root}/target"),
        "REPL_ENGINE=plain".to_owned(),
        format!("REPL_LOGS={root}/target"),
        "REPL_POSITION=1-4:77".to_owned(),
        format!("REPL_TARGET={root}/target"),
    ] {
        assert!(told.lines().any(|found| found == line), "{line} in {told}");
    }
    assert!(told.contains("REPL_TIME=2"), "{told}");
    assert_eq!(told.lines().count(), 7, "{told}");
    assert_eq!((vault.rig.ok("cat checked"), vault.rig.ok("cat started")), (told.clone(), told));
    let all: Vec<u8> = (1..=3).flat_map(|at| noise(LENGTH, at)).chain(noise(LENGTH, 4)[..77].to_vec()).collect();
    assert!(fs::read(vault.rig.path("target/all")).unwrap() == all);
    assert_eq!(vault.rig.ok("ls target"), "all\ndir\ntable\ntwin\n");
}

#[test]
fn log_of_which_no_place_is_known_is_laid_aside_for_the_command() {
    let vault = Vault::bare();
    // Without a command it would only be thrown away.
    vault.refuses("", 13, "hint: --recover CMD");
    vault.recover("--recover 'cat \"$REPL_LOGS\"/* > \"$REPL_TARGET\"/all'");
    // The base was taken with the fourth segment held: all of that is needed.
    assert!(fs::read(vault.rig.path("target/all")).unwrap() == noise(LENGTH, 4));
    assert_eq!(vault.rig.ok("ls -A target"), ".repl-recovered\nall\nrow\n");
}

#[test]
fn log_laid_aside_for_another_end_is_not_left_for_the_command() {
    let vault = Vault::bare();
    vault.write(5);
    vault.write(6);
    vault.ship("archive");
    vault.refuses_after("--recover false", 9);
    vault.recover("--until 1-5:9 --recover 'cat \"$REPL_LOGS\"/* > \"$REPL_TARGET\"/all'");
    let wanted = [noise(LENGTH, 4), noise(LENGTH, 5)[..9].to_vec()].concat();
    assert!(fs::read(vault.rig.path("target/all")).unwrap() == wanted);
}

#[test]
fn a_recovery_that_fails_is_9_and_keeps_servers_away_until_one_succeeds() {
    let vault = Vault::based();
    let ran = vault.run("--target target --recover 'echo broken > \"$REPL_TARGET\"/table; echo no such page; exit 4'");
    ran.fails(9, "no such page");
    assert_eq!(vault.guard(), 5);
    assert!(!vault.rig.path("target/.repl-recovered").exists());
    // What it has left is mended first.
    vault.recover("--recover 'cp \"$REPL_TARGET\"/table \"$REPL_TARGET\"/seen'");
    assert!(fs::read(vault.rig.path("target/seen")).unwrap() == noise(10_000, 9));
    assert_eq!(vault.guard(), 0);
}

#[test]
fn a_command_that_takes_too_long_is_9() {
    let vault = Vault::logs();
    vault.rig.ok("mkfifo never");
    vault.run("--target target --hook-timeout 50ms --check 'cat never'").fails(9, "took too long");
    assert_eq!(vault.guard(), 5);
}

#[test]
fn the_server_is_started_last_and_once() {
    let vault = Vault::logs();
    let say = |word: &str| format!("echo {word} >> order; $ROLE guard \"$REPL_TARGET\"; echo $? >> order");
    let commands = format!("--recover '{}' --check '{}' --start '{}'", say("recover"), say("check"), say("start"));
    vault.recover(&format!("{commands} --then start"));
    assert_eq!(vault.rig.ok("paste -sd ' ' order"), "recover 5 check 5 start 0\n");
    vault.rig.ok("rm -r target order");
    // Without --then start it is left stopped.
    vault.recover(&commands);
    assert_eq!(vault.rig.ok("paste -sd ' ' order"), "recover 5 check 5\n");
    vault.rig.ok("rm -r target order");
    vault.run("--target target --then start").fails(2, "--start");
    assert!(!vault.rig.path("target").exists());
    // One that fails: the database is whole, and stays.
    vault.run("--target target --then start --start 'echo no port; exit 1'").fails(9, "no port");
    assert_eq!((vault.guard(), vault.laid("target")), (0, up_to(4, LENGTH)));
}

#[test]
fn a_start_is_not_run_after_a_check_that_fails() {
    let vault = Vault::logs();
    vault.refuses_after("--check false --then start --start 'touch started'", 9);
    assert!(!vault.rig.path("started").exists());
}

#[test]
fn a_drill_reports_and_leaves_nothing() {
    let vault = Vault::based();
    vault.rig.ok("mkdir tmp");
    let before = vault.state("archive");
    let drill = |options: &str| vault.rig.run(&format!("TMPDIR=$PWD/tmp $RECOVER --archive archive --drill {options}"));
    let empty = || assert_eq!(vault.rig.ok("ls -A tmp"), "");
    let ran = drill("--check 'cmp \"$REPL_TARGET\"/log.4 master/log.4 && touch seen'");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    assert!(ran.out.starts_with("drill: recovered and removed up to 1-4:5000"), "{ran:?}");
    assert!(vault.rig.path("seen").exists());
    empty();
    drill("--check 'echo wrong; false'").fails(9, "wrong");
    empty();
    assert_eq!(drill("-n").code, 0);
    empty();
    // Where it is told where: there, and nothing is left of it, but what failed.
    assert_eq!(drill("--target target").code, 0);
    assert!(!vault.rig.path("target").exists());
    vault.rig.ok("mkdir target");
    assert_eq!(drill("--target target").code, 0);
    assert_eq!(vault.rig.ok("ls -A target"), "");
    drill("--target target --check false").fails(9, "check");
    assert_eq!((vault.guard(), vault.laid("target")), (5, up_to(4, LENGTH)));
    vault.rig.ok("rm -r target && mkdir target && echo precious > target/row");
    drill("--target target").fails(13, "not empty");
    assert!(vault.rig.path("target/row").exists());
    assert_eq!(vault.state("archive"), before);
    drill("--then start --start true").fails(2, "--drill");
}

#[test]
fn a_disk_without_room_is_12_and_nothing_is_made() {
    let vault = Vault::based();
    if vault.rig.run("unshare -m true").code != 0 {
        return;
    }
    vault.rig.ok("mkdir small");
    let script = "mount -t tmpfs -o size=16k none small || exit 99
        $RECOVER --archive archive --target small/target -n; echo dry $?
        $RECOVER --archive archive --target small/target; echo first $?
        ls -A small
        mount -o remount,size=1m small
        $RECOVER --archive archive --target small/target && cmp master/log.4 small/target/log.4; echo second $?";
    let mut command = vault.rig.sh("exec unshare -m bash -c \"$SCRIPT\"");
    let ran = Ran::from(command.env("SCRIPT", script).output().unwrap());
    assert!(ran.out.starts_with("dry 12\nfirst 12\nrecovered"), "{ran:?}");
    assert!(ran.err.contains("bytes free"), "{ran:?}");
    assert_eq!(ran.out.lines().last(), Some("second 0"), "{ran:?}");
}

#[test]
fn a_second_recovery_at_once_is_7() {
    let vault = Vault::logs();
    vault.rig.ok("mkfifo go");
    let mut first = vault.rig.spawn("$RECOVER --archive archive --target target --recover 'touch begun; cat go'");
    eventually("the recovery", || vault.rig.path("begun").exists());
    vault.run("--target target").fails(7, "lock");
    vault.run("--target target --finish").fails(7, "lock");
    assert_eq!((vault.guard(), vault.laid("target")), (5, up_to(4, LENGTH)));
    vault.rig.ok("echo > go");
    assert_eq!(first.wait().code, 0);
    assert_eq!(vault.guard(), 0);
}

#[test]
fn what_cannot_be_meant_is_2() {
    let vault = Vault::logs();
    for wrong in [
        "",
        "--target",
        "--target target --until soon",
        "--target target --engine oracle",
        "--target target --base ../one",
        "--target target --finish --until 1-1:0",
        "--target target --master true",
        "--drill --finish --target target",
        "--drill --stay",
        "--target target --finish --json",
        "--target target --hook-timeout 0s",
        "--target target --unheard-of",
    ] {
        assert_eq!(vault.run(wrong).code, 2, "{wrong}");
    }
    // What reads log of its own would read this for ever.
    for engine in ["bdb", "postgres", "mariadb"] {
        vault.refuses(&format!("--engine {engine}"), 5, &format!("the archive's log is of engine plain, not {engine}"));
    }
    vault.refuses("--base unheard-of", 2, "there is no base 'unheard-of'");
    assert_eq!(vault.rig.run("$RECOVER --target target").code, 2);
    vault.rig.run("$RECOVER --archive master --target target").fails(2, "is not an archive");
    assert!(vault.rig.run("$RECOVER --archive nowhere --target target").code != 0);
    assert!(!vault.rig.path("target").exists());
    assert!(vault.rig.ok("$RECOVER --completions bash").contains("repl-recover"));
}
