//! `repl-prune`: what nobody needs goes, and nothing else, whatever is running beside it and whenever it is killed.

#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

use std::fs;
use std::path::Path;

use repl::edge::clock;
use repl::edge::dir::Dir;
use repl::edge::lock::Lock;
use repl::engine::archive::base::Record;
use repl::engine::archive::lease::Lease;
use repl::engine::sync::profile::Profile;
use repl::value::digest::Digest;
use repl::value::time::Time;

use super::rig::{Rig, Running, eventually, noise, segments};

/// An archive of plain segments of 5000 bytes, all closed but the last.
fn archive(segments: u64) -> Rig {
    let rig = Rig::new();
    for sequence in 1..=segments {
        rig.write(&format!("log.{sequence}"), noise(5000, sequence));
    }
    assert_eq!(rig.pass("--pattern log.%S", "--logs-only").code, 0);
    rig
}

/// A base of it that ended so many hours ago, from which log is needed from a position on.
fn base(rig: &Rig, name: &str, hours: i64, position: &str) {
    // As repl-base does it: never visible before it is whole.
    let (bases, dir) = (rig.path("replica/bases"), rig.path("replica/bases/.new"));
    fs::create_dir_all(dir.join("data")).unwrap();
    fs::write(dir.join("data/table"), name).unwrap();
    let sums = format!("{}  data/table\n", Digest::of(name.as_bytes()));
    fs::write(dir.join("B3SUMS"), &sums).unwrap();
    let ended = Time(clock::now().0 - hours * 3_600_000_000);
    let record = Record {
        engine: Profile::Plain,
        source: "/srv".into(),
        identity: String::new(),
        position: position.parse().ok(),
        time: None,
        log: None,
        begun: ended,
        ended,
        files: 1,
        bytes: name.len() as u64,
        sums: Digest::of(sums.as_bytes()),
        reason: None,
    };
    fs::write(dir.join("base.toml"), record.print().unwrap()).unwrap();
    fs::rename(dir, bases.join(name)).unwrap();
}

/// Eight segments, and bases of 9, 6 and 3 hours ago at the second, fourth and sixth.
fn with_bases() -> Rig {
    let rig = archive(8);
    base(&rig, "a", 9, "1-2:100");
    base(&rig, "b", 6, "1-4:100");
    base(&rig, "c", 3, "1-6:100");
    rig
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The sequences of the segments that are there, and the names of the bases.
#[track_caller]
fn left(rig: &Rig) -> (String, String) {
    let mut logs: Vec<u64> =
        segments(&rig.replica()).keys().map(|name| name.strip_prefix("log.").unwrap().parse().unwrap()).collect();
    logs.sort_unstable();
    let logs: Vec<_> = logs.iter().map(u64::to_string).collect();
    (logs.join(" "), names(&rig.path("replica/bases")).join(" "))
}

/// Proven whole, and every line of B3SUMS is of a file that is there and right.
#[track_caller]
fn assert_whole(rig: &Rig) {
    rig.ok("$VERIFY -q replica");
    assert_sums(rig);
}

#[track_caller]
fn assert_sums(rig: &Rig) {
    let there = segments(&rig.replica());
    for line in fs::read_to_string(rig.path("replica/.repl/B3SUMS")).unwrap().lines() {
        let (digest, name) = line.split_once("  ").unwrap();
        assert_eq!(there.get(name).map(ToString::to_string).as_deref(), Some(digest), "{name}");
    }
}

fn lines(rig: &Rig, file: &str) -> usize {
    fs::read_to_string(rig.path("replica/.repl").join(file)).unwrap().lines().count()
}

#[test]
fn the_newest_bases_are_kept_with_the_log_that_they_need() {
    let rig = with_bases();
    let said = rig.ok("$PRUNE -v --keep-bases 2 --reason 'the disk' replica");
    assert!(said.contains("removed base a\nremoved log.1\nremoved log.2\nremoved log.3\n"), "{said}");
    assert!(said.contains("log.4 is the first that stays, for base b"), "{said}");
    assert_eq!(left(&rig), ("4 5 6 7 8".into(), "b c".into()));
    assert_eq!((lines(&rig, "B3SUMS"), lines(&rig, "segments.jsonl")), (4, 4));
    assert_whole(&rig);
    let history = fs::read_to_string(rig.path("replica/.repl/history.jsonl")).unwrap();
    let last = history.lines().last().unwrap();
    assert!(last.contains("\"prune\"") && last.contains("the disk") && last.contains("bases a"), "{last}");
    // Silent, and idempotent.
    assert_eq!(rig.ok("$PRUNE --keep-bases 2 replica"), "");
    assert_eq!(rig.ok("$PRUNE --keep-bases 1 replica"), "");
    assert_eq!(left(&rig), ("6 7 8".into(), "c".into()));
    assert_whole(&rig);
}

#[test]
fn bases_are_kept_to_go_back_as_far_as_was_asked() {
    let rig = with_bases();
    // Five hours back is reached from the base of six hours ago.
    rig.ok("$PRUNE --keep-for 5h replica");
    assert_eq!(left(&rig), ("4 5 6 7 8".into(), "b c".into()));
    // By either: the newest two are kept though an hour is reached from the last.
    rig.ok("$PRUNE --keep-for 1h --keep-bases 2 replica");
    assert_eq!(left(&rig).1, "b c");
    rig.ok("$PRUNE --keep-for 1h replica");
    assert_eq!(left(&rig), ("6 7 8".into(), "c".into()));
}

#[test]
fn without_a_word_no_base_goes_and_log_before_the_oldest_does() {
    let rig = with_bases();
    rig.ok("$PRUNE replica");
    assert_eq!(left(&rig), ("2 3 4 5 6 7 8".into(), "a b c".into()));
    assert_whole(&rig);
}

#[test]
fn an_archive_without_a_base_is_left_alone() {
    let rig = archive(4);
    let said = rig.ok("$PRUNE -v --keep-bases 1 replica");
    assert!(said.starts_with("0 segments") && said.contains("there is no base"), "{said}");
    rig.ok("$PRUNE --consumer tape=1-4:0 replica && $PRUNE replica");
    assert_eq!(segments(&rig.replica()).len(), 4);
    assert!(rig.ok("$PRUNE --explain log.1 replica").contains("only all of the log rebuilds the database"));
    assert!(!rig.path("replica/.repl/pruned").exists());
}

#[test]
fn a_base_that_needs_all_log_keeps_all_log() {
    let rig = with_bases();
    base(&rig, "whole", 4, "none");
    rig.ok("$PRUNE replica");
    assert_eq!(left(&rig).0, "1 2 3 4 5 6 7 8");
    rig.ok("$PRUNE --keep-bases 1 replica");
    assert_eq!(left(&rig), ("6 7 8".into(), "c".into()));
}

#[test]
fn a_base_that_the_log_has_not_come_to_replaces_no_other() {
    let rig = with_bases();
    base(&rig, "d", 1, "1-9:5");
    rig.ok("$PRUNE --keep-bases 1 replica");
    assert_eq!(left(&rig), ("6 7 8".into(), "c d".into()));
    assert!(rig.ok("$PRUNE --explain d --keep-bases 1 replica").contains("has not come to its position"));
}

#[test]
fn a_consumer_keeps_what_it_has_not_got() {
    let rig = with_bases();
    rig.ok("$PRUNE --consumer tape=1-3:10 --consumer b=1-8:0 --reason new replica");
    assert_eq!(fs::read_to_string(rig.path("replica/.repl/consumers/tape")).unwrap(), "1-3:10\n");
    // Nothing was pruned by saying so.
    assert_eq!(left(&rig).0, "1 2 3 4 5 6 7 8");
    rig.ok("$PRUNE --keep-bases 1 replica");
    assert_eq!(left(&rig), ("3 4 5 6 7 8".into(), "c".into()));
    // Forwards and back, as far as log is there, and proven where it can be.
    rig.ok("$PRUNE --consumer tape=1-5:0 replica && $PRUNE --consumer tape=1-4:5000 replica && $PRUNE replica");
    assert_eq!(left(&rig).0, "4 5 6 7 8");
    rig.run("$PRUNE --consumer tape=1-3:10 replica").fails(3, "log at 1-3:10 is no longer here: it begins with 1-4");
    rig.run("$PRUNE --consumer tape=1-8:5001 replica").fails(2, "lies beyond the end of the log, 1-8:5000");
    let proof = Digest::of(&noise(5000, 5)).proof();
    rig.ok(&format!("$PRUNE --consumer tape=1-5:5000+{proof} replica"));
    rig.run(&format!("$PRUNE --consumer tape=1-6:5000+{proof} replica")).fails(4, "diverged: up to 1-6:5000");
    rig.ok("$PRUNE --consumer tape=none replica && $PRUNE replica");
    assert_eq!(left(&rig).0, "6 7 8");
    rig.run("$PRUNE --consumer tape=none replica").fails(2, "there is no consumer tape");
    for bad in ["tape", "a/b=1-6:0", ".a=1-6:0", "tape=oldest"] {
        assert_eq!(rig.run(&format!("$PRUNE --consumer {bad} replica")).code, 2, "{bad}");
    }
    fs::write(rig.path("replica/.repl/consumers/b"), "1-").unwrap();
    rig.run("$PRUNE replica").fails(6, "consumers/b is damaged");
    assert_whole(&rig);
}

#[test]
fn a_consumer_of_another_history_stops_everything() {
    let rig = with_bases();
    fs::create_dir(rig.path("replica/.repl/consumers")).unwrap();
    fs::write(rig.path("replica/.repl/consumers/tape"), "1-50:0\n").unwrap();
    let ran = rig.run("$PRUNE --keep-bases 1 replica");
    ran.fails(4, "consumer tape is at 1-50:0, and the log here ends at 1-8:5000");
    assert!(ran.err.contains("nothing is removed") && ran.err.contains("hint: "), "{ran:?}");
    assert_eq!(left(&rig).0, "1 2 3 4 5 6 7 8");
}

#[test]
fn a_running_recovery_keeps_what_it_leases_and_a_dead_one_nothing() {
    let rig = with_bases();
    let state = Dir::open(&rig.path("replica/.repl")).unwrap();
    let log = Lease::take(&state, "1-3:0".parse().ok(), None).unwrap();
    let both = Lease::take(&state, "1-4:100".parse().ok(), Some("b")).unwrap();
    fs::write(rig.path("replica/.repl/leases/1-dead"), "v=1 from=1-1:0 base=a pid=1\n").unwrap();
    rig.ok("$PRUNE --keep-bases 1 replica");
    assert_eq!(left(&rig), ("3 4 5 6 7 8".into(), "b c".into()));
    assert!(rig.ok("$PRUNE --explain log.3 replica").contains("log.3 is kept for the recovery with lease"));
    let said = rig.ok("$PRUNE --keep-bases 1 --explain b replica");
    assert_eq!(said, "base b is kept: a running recovery has it\n");
    drop(log);
    rig.ok("$PRUNE --keep-bases 1 replica");
    assert_eq!(left(&rig), ("4 5 6 7 8".into(), "b c".into()));
    drop(both);
    rig.ok("$PRUNE --keep-bases 1 replica");
    assert_eq!(left(&rig), ("6 7 8".into(), "c".into()));
    assert!(!rig.path("replica/.repl/leases").exists());
    // One who needs all keeps all.
    let _all = Lease::take(&state, None, None).unwrap();
    base(&rig, "d", 1, "1-8:1");
    rig.ok("$PRUNE --keep-bases 1 replica");
    assert_eq!(left(&rig), ("6 7 8".into(), "d".into()));
}

#[test]
fn what_is_fed_here_is_kept_until_it_was_fed() {
    let rig = with_bases();
    fs::write(rig.path("replica/.repl/applied"), "v=1 at=1-3:5000\n").unwrap();
    rig.ok("$PRUNE --keep-bases 1 replica");
    assert_eq!(left(&rig).0, "3 4 5 6 7 8");
    assert!(rig.ok("$PRUNE --explain log.3 replica").contains("for the feed"));
}

#[test]
fn a_fed_standby_needs_what_was_not_fed() {
    let rig = archive(5);
    assert!(rig.ok("$PRUNE -n --standby replica").contains("nothing was fed yet"));
    fs::write(rig.path("replica/.repl/applied"), "v=1 at=1-3:5000\n").unwrap();
    rig.ok("$PRUNE --standby replica");
    assert_eq!(segments(&rig.replica()).len(), 3);
    assert_whole(&rig);
}

#[test]
fn what_is_damaged_stops_everything() {
    type Damage = fn(&Rig);
    let matrix: [(&str, i32, &str, Damage); 6] = [
        ("record", 6, "base.toml is damaged", |rig| fs::write(rig.path("replica/bases/a/base.toml"), "v = 1").unwrap()),
        ("no record", 6, "base.toml is missing", |rig| fs::create_dir(rig.path("replica/bases/x")).unwrap()),
        ("list", 6, "is damaged: nothing is removed", |rig| fs::write(rig.path("replica/bases/c/B3SUMS"), "").unwrap()),
        ("data", 6, "is damaged: nothing is removed", |rig| {
            fs::remove_dir_all(rig.path("replica/bases/c/data")).unwrap();
        }),
        ("log", 3, "log.7 is missing, and recorded as held", |rig| fs::remove_file(rig.path("replica/log.7")).unwrap()),
        ("horizon", 6, "pruned is damaged", |rig| fs::write(rig.path("replica/.repl/pruned"), "x").unwrap()),
    ];
    for (what, code, says, damage) in matrix {
        let rig = with_bases();
        damage(&rig);
        let before = left(&rig);
        rig.run("$PRUNE --keep-bases 1 replica").fails(code, says);
        assert_eq!(left(&rig), before, "{what}");
    }
}

#[test]
fn a_dry_run_and_a_question_change_nothing() {
    let rig = with_bases();
    rig.ok("$PRUNE --consumer tape=1-5:0 replica");
    let before = rig.ok("find replica -type f -newer master/log.1 ! -name '*.lock' | sort | xargs cksum");
    let said = rig.ok("$PRUNE -n --keep-bases 1 replica");
    assert!(said.starts_with("would remove base a\nwould remove base b\nwould remove log.1\n"), "{said}");
    assert!(said.ends_with("log.5 is the first that stays, for consumer tape\n"), "{said}");
    for (name, says) in [
        ("log.1", "log.1 goes: nobody needs log before 1-5"),
        ("log.5", "log.5 is kept for consumer tape"),
        ("log.6", "log.6 is kept for base c, consumer tape"),
        ("log.8", "log.8 is kept for base c, consumer tape, the end of the log"),
        ("log.9", "log.9 is not here"),
        ("a", "base a goes"),
        ("c", "base c is kept: it is the newest"),
    ] {
        let said = rig.ok(&format!("$PRUNE --keep-bases 1 --explain {name} replica"));
        assert!(said.starts_with(says), "{said}");
    }
    rig.run("$PRUNE --explain nothing replica").fails(2, "'nothing' is neither a base nor a segment");
    let json: serde_json::Value = serde_json::from_str(&rig.ok("$PRUNE -n --json --keep-bases 1 replica")).unwrap();
    assert_eq!((&json["from"], &json["bytes"].is_u64()), (&"1-5".into(), &true));
    assert_eq!(json["removed"], serde_json::json!(["log.1", "log.2", "log.3", "log.4"]));
    assert_eq!(json["removed_bases"], serde_json::json!(["a", "b"]));
    assert_eq!(rig.ok("find replica -type f -newer master/log.1 ! -name '*.lock' | sort | xargs cksum"), before);
    rig.ok("$PRUNE --keep-bases 1 replica");
    assert!(rig.ok("$PRUNE --explain log.2 replica").starts_with("log.2 was pruned"));
}

#[test]
fn a_second_one_is_told_who_is_at_it() {
    let rig = with_bases();
    let state = Dir::open(&rig.path("replica/.repl")).unwrap();
    let held = Lock::take(&state, "prune.lock").unwrap();
    rig.run("$PRUNE --keep-bases 1 replica").fails(7, &format!("is held by process {}", std::process::id()));
    rig.run("$PRUNE --consumer a=1-8:0 replica").fails(7, "is held by process");
    // A question waits for nobody.
    rig.ok("$PRUNE -n replica");
    drop(held);
    rig.ok("$PRUNE --keep-bases 1 replica");
}

#[test]
fn a_pruned_segment_is_never_no_such_segment() {
    let rig = with_bases();
    rig.ok("$PRUNE --keep-bases 1 replica");
    rig.run("$FETCH replica log.3 out").fails(126, "log.3 was pruned: the archive keeps log from 1-6 on");
    rig.ok("$FETCH replica log.6 out && cmp out master/log.6");
    assert_eq!(rig.run("$FETCH replica log.9 out").code, 1);
    // Said so before its file and its line are gone, too.
    let rig = with_bases();
    fs::write(rig.path("replica/.repl/pruned"), "v=1 before=1-6\n").unwrap();
    rig.run("$FETCH replica log.3 out").fails(126, "log.3 was pruned");
    assert!(rig.ok("$VERIFY replica").contains("3 segments, 15000 bytes, 1-6 to 1-8:5000"));
}

#[test]
fn a_pruned_archive_goes_on_receiving_and_shipping() {
    let rig = with_bases();
    rig.ok("$PRUNE --keep-bases 1 replica");
    rig.append("log.8", noise(100, 80));
    rig.write("log.9", noise(5000, 9));
    assert_eq!(rig.pass("--pattern log.%S", "--logs-only").code, 0);
    // One that begins with the oldest brings nothing back.
    rig.ok("$SHIP -S --pattern log.%S --from oldest master | $APPLY replica");
    assert_eq!(left(&rig).0, "6 7 8 9");
    assert_whole(&rig);
    // From here on to another site: what it does not hold any more it does not offer.
    fs::write(rig.path("replica/log.2"), "litter").unwrap();
    rig.ok("$SHIP -S --state sender --via '$APPLY --acks second' replica");
    assert_eq!(segments(&rig.path("second")).len(), 4);
    rig.run("$SHIP -S --from 1-2:0 replica | cat >/dev/null").fails(3, "segment 1-2 is needed and no longer here");
    rig.ok("$PRUNE replica");
    assert_eq!(left(&rig).0, "6 7 8 9");
}

#[test]
fn receivers_of_an_archive_that_ships_on_keep_what_they_lack() {
    let rig = with_bases();
    let ship = "$SHIP -S --until 1-3:100 --state sender --via '$APPLY --acks second' replica";
    rig.ok(ship);
    rig.ok("$PRUNE --keep-bases 1 --sender sender replica");
    assert_eq!(left(&rig).0, "3 4 5 6 7 8");
    assert!(rig.ok("$PRUNE --sender sender --explain log.3 replica").contains("for receiver '$APPLY --acks second'"));
    rig.ok("$SHIP -S --state sender --via '$APPLY --acks second' replica");
    rig.ok("$PRUNE --sender sender replica");
    assert_eq!(left(&rig).0, "6 7 8");
    rig.run("$PRUNE --sender nowhere replica").fails(1, "cannot open nowhere");
    // By default it is found where repl-ship has put it.
    rig.ok("$SHIP -S --via '$APPLY --acks third' replica");
    base(&rig, "d", 1, "1-8:1");
    assert!(rig.ok("$PRUNE --explain log.8 replica").contains("receiver '$APPLY --acks third'"));
}

#[test]
fn a_receiver_of_which_nothing_is_known_keeps_all() {
    let rig = with_bases();
    rig.ok("$SHIP -S --state sender replica | cat >/dev/null");
    assert!(rig.path("sender/status.json").exists());
    rig.ok("$PRUNE --keep-bases 1 --sender sender replica");
    assert_eq!(left(&rig), ("1 2 3 4 5 6 7 8".into(), "c".into()));
    rig.ok("$PRUNE --keep-bases 1 --sender sender --no-receivers replica");
    assert_eq!(left(&rig).0, "6 7 8");
}

/// Runs it under strace with a fault; `None` when the call that was to fail does not come so often.
fn with_fault(rig: &Rig, fault: &str, call: &str, when: usize) -> Option<i32> {
    let inject = format!("-e trace={call} -e inject={call}:{fault}:when={when}");
    let ran = rig.run(&format!("strace -f --seccomp-bpf -qq -o trace {inject} $PRUNE --keep-bases 1 replica; exit $?"));
    let trace = fs::read_to_string(rig.path("trace")).unwrap();
    ["(INJECTED)", "killed by SIGKILL"].iter().any(|sign| trace.contains(sign)).then_some(ran.code)
}

#[test]
fn killed_or_failing_at_any_call_the_archive_is_whole_and_the_next_run_finishes() {
    let calls = "openat,openat2,flock,read,pread64,pwrite64,write,fsync,fdatasync,renameat,renameat2,unlinkat,mkdirat";
    let rig = with_bases();
    rig.ok("$PRUNE --consumer tape=1-8:0 replica && mv replica whole");
    for (call, fault) in calls.split(',').flat_map(|call| [(call, "signal=KILL"), (call, "error=EIO")]) {
        for when in 1..200 {
            rig.ok("rm -rf replica && cp -a whole replica");
            let Some(code) = with_fault(&rig, fault, call, when) else {
                break;
            };
            let what = format!("{call} {when}, {fault}: {code}");
            let proven = rig.run("$VERIFY replica");
            assert_eq!(proven.code, 0, "{what}: {proven:?}");
            assert_sums(&rig);
            // No base is there of which log is gone.
            for (base, first) in [("a", 2), ("b", 4), ("c", 6)] {
                if rig.path("replica/bases").join(base).exists() {
                    assert!(rig.path(&format!("replica/log.{first}")).exists(), "{what}: {base}");
                    assert!(rig.path(&format!("replica/bases/{base}/data/table")).exists(), "{what}: {base}");
                }
            }
            let again = rig.run("$PRUNE --keep-bases 1 replica");
            assert_eq!(again.code, 0, "{what}: {again:?}");
            assert_eq!(left(&rig), ("6 7 8".into(), "c".into()), "{what}");
            assert_whole(&rig);
            let is_new = |name: &String| Path::new(name).extension().is_some_and(|end| end == "new");
            // What was about to replace a file is replaced by the next that is.
            assert!(names(&rig.path("replica/.repl")).iter().filter(|name| is_new(name)).count() <= 1, "{what}");
        }
    }
    assert_eq!(rig.pass("--pattern log.%S", "--logs-only").code, 0);
    assert_whole(&rig);
}

#[test]
fn what_goes_is_durably_said_before_it_goes() {
    let rig = with_bases();
    rig.ok("strace -f -y -o trace -e trace=renameat,renameat2,fsync,unlinkat $PRUNE --keep-bases 1 replica");
    let trace = fs::read_to_string(rig.path("trace")).unwrap();
    let at = |what: &str| {
        let found = trace.lines().position(|line| line.contains(what));
        found.unwrap_or_else(|| panic!("no {what} in {trace}"))
    };
    let order = [
        at(".gone-a"),
        at("\"pruned\""),
        at("\"B3SUMS\""),
        at("\"segments.jsonl\""),
        at("\"log.1\""),
        at("\"log.2\""),
        at("\"table\""),
    ];
    assert!(order.is_sorted(), "{order:?} {trace}");
    // Between each two there is a sync of a directory, but between the segments.
    let lines: Vec<_> = trace.lines().collect();
    for pair in order[..5].windows(2) {
        assert!(lines[pair[0]..pair[1]].iter().any(|line| line.contains("fsync(")), "{trace}");
    }
}

#[test]
fn log_lands_while_an_archive_is_pruned_again_and_again() {
    let rig = archive(2);
    let ship =
        "exec $SHIP --pattern log.%S --poll 5ms --state sender --via \"exec $APPLY --acks --logs-only replica\" master";
    let mut running = rig.spawn(ship);
    // Whoever looks at it meanwhile finds it whole.
    let looks = "n=0; until [ -e stop ]; do $VERIFY -q replica || exit; n=$((n+1)); done; echo $n";
    let mut looking = Running::start(rig.sh(looks), &rig.path("looks"));
    let mut pruned = 1;
    for sequence in 3..60_u64 {
        rig.write(&format!("log.{sequence}"), noise(3000, sequence));
        let last = rig.path(&format!("replica/log.{}", sequence - 1));
        eventually("the segment before", || last.exists());
        // A base of what is there moves on, and log goes behind it.
        base(&rig, &format!("base-{sequence:03}"), 0, &format!("1-{}:0", sequence - 1));
        let ran = rig.run("$PRUNE --keep-bases 2 replica");
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
        let (logs, _) = left(&rig);
        let first: u64 = logs.split(' ').next().unwrap().parse().unwrap();
        assert!(first >= pruned, "{logs}");
        pruned = first;
        let proven = rig.run("$VERIFY replica");
        assert_eq!(proven.code, 0, "{proven:?}");
    }
    assert!(pruned > 50, "{pruned}");
    rig.write("log.60", noise(10, 60));
    eventually("the end", || rig.ok("$APPLY --position replica").starts_with("1-60:10+"));
    running.signal(rustix::process::Signal::TERM);
    assert_eq!(running.wait().code, 0);
    fs::write(rig.path("stop"), "").unwrap();
    let looked = looking.wait();
    assert_eq!(looked.code, 0, "{looked:?}");
    assert!(looked.out.trim().parse::<u32>().unwrap() > 10, "{looked:?}");
    assert_whole(&rig);
    assert_eq!(lines(&rig, "B3SUMS"), segments(&rig.replica()).len() - 1);
    let (master, replica) = (segments(&rig.master()), segments(&rig.replica()));
    assert!(replica.iter().all(|(name, digest)| master[name] == *digest));
}

#[test]
fn a_feed_goes_on_while_what_it_was_fed_is_pruned() {
    let rig = archive(2);
    fs::write(rig.path("feed"), "#!/bin/sh\necho $REPL_SEGMENT >>fed\n").unwrap();
    let ship = "exec $SHIP --pattern log.%S --poll 5ms --state sender \
                --via \"exec $APPLY --acks --feed 'sh ./feed' replica\" master";
    let mut running = rig.spawn(ship);
    for sequence in 3..30_u64 {
        rig.write(&format!("log.{sequence}"), noise(1000, sequence));
        eventually("it is fed", || {
            fs::read_to_string(rig.path("fed")).unwrap_or_default().lines().count() as u64 >= sequence - 1
        });
        rig.ok("$PRUNE --standby replica");
    }
    running.signal(rustix::process::Signal::TERM);
    assert_eq!(running.wait().code, 0);
    let fed = fs::read_to_string(rig.path("fed")).unwrap();
    let expected: Vec<_> = (1..29).map(|sequence| format!("log.{sequence}")).collect();
    assert_eq!(fed.lines().take(28).collect::<Vec<_>>(), expected);
    assert!(segments(&rig.replica()).len() <= 3);
    assert_whole(&rig);
}

#[test]
fn at_a_master_somebody_must_be_known() {
    let rig = Rig::new();
    (1..=5).for_each(|sequence| rig.write(&format!("log.{sequence}"), noise(5000, sequence)));
    let prune = "$PRUNE --state state --pattern log.%S --min-free 0";
    rig.run(&format!("{prune} master")).fails(13, "no consumer is known");
    assert!(!rig.path("state").exists() && !rig.path("master/.repl").exists());
    rig.ok(&format!("{prune} --consumer a=1-4:7 master && {prune} --consumer b=1-3:5000 master"));
    rig.ok(&format!("{prune} -n master"));
    assert_eq!(segments(&rig.master()).len(), 5);
    let said = rig.ok(&format!("{prune} -v master"));
    assert!(said.starts_with("removed log.1\nremoved log.2\n2 segments"), "{said}");
    assert!(rig.ok(&format!("{prune} --explain log.3 master")).contains("kept for consumer b"));
    // Never the last one, and never beyond the end.
    rig.ok(&format!("{prune} --consumer a=1-5:9 --consumer b=1-5:9 master && {prune} master"));
    assert_eq!(names(&rig.master()), ["log.5"]);
    fs::write(rig.path("state/consumers/a"), "1-70:0\n").unwrap();
    rig.run(&format!("{prune} master")).fails(4, "are these two histories?");
    rig.run(&format!("{prune} --consumer a=1-2:0 master")).fails(3, "it begins with 1-5");
    rig.run(&format!("{prune} --consumer a=1-6:0 master")).fails(2, "lies beyond the end");
}

#[test]
fn at_a_master_what_a_receiver_has_flushed_counts() {
    let rig = Rig::new();
    (1..=5).for_each(|sequence| rig.write(&format!("log.{sequence}"), noise(5000, sequence)));
    let prune = "$PRUNE --state state --pattern log.%S --min-free 0";
    assert_eq!(rig.pass("--state state --pattern log.%S --until 1-3:100", "").code, 0);
    rig.ok(&format!("{prune} master"));
    assert_eq!(names(&rig.master()), ["log.3", "log.4", "log.5"]);
    assert!(rig.ok(&format!("{prune} --explain log.3 master")).contains("log.3 is kept for receiver '"));
    // A receiver with another history has flushed nothing of this one.
    rig.ok("rm -r replica");
    fs::create_dir(rig.path("other")).unwrap();
    (1..=9).for_each(|sequence| fs::write(rig.path(&format!("other/log.{sequence}")), noise(5000, 77)).unwrap());
    rig.ok("$SHIP -S --state other-state --pattern log.%S --via '$APPLY --acks replica' other");
    assert_ne!(rig.pass("--state state --pattern log.%S", "").code, 0);
    rig.ok(&format!("{prune} master"));
    assert_eq!(names(&rig.master()), ["log.3", "log.4", "log.5"]);
}

#[test]
fn each_sender_of_a_master_counts() {
    let rig = Rig::new();
    (1..=5).for_each(|sequence| rig.write(&format!("log.{sequence}"), noise(5000, sequence)));
    assert_eq!(rig.pass("--state state --pattern log.%S", "").code, 0);
    rig.ok("$SHIP -S --state second --pattern log.%S --until 1-2:5 --via '$APPLY --acks far' master");
    let prune = "$PRUNE --state state --pattern log.%S --min-free 0";
    rig.ok(&format!("{prune} --sender second master"));
    assert_eq!(names(&rig.master()), ["log.2", "log.3", "log.4", "log.5"]);
    rig.ok(&format!("{prune} master"));
    assert_eq!(names(&rig.master()), ["log.5"]);
}

#[test]
fn what_root_writes_belongs_to_whose_archive_it_is() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can give files away");
        return;
    }
    let rig = with_bases();
    rig.ok("chown -R 4711:4712 replica");
    let state = Dir::open(&rig.path("replica/.repl")).unwrap();
    let _lease = Lease::take(&state, "1-7:0".parse().ok(), None).unwrap();
    rig.ok("$PRUNE --consumer tape=1-8:0 replica && $PRUNE --keep-bases 1 replica");
    assert_eq!(left(&rig).0, "6 7 8");
    assert_eq!(rig.ok("find replica ! -uid 4711 -o ! -gid 4712"), "");
}

/// A small file system of so many bytes for the master's log; `None` where this process may not mount.
struct Small<'a>(&'a Rig);

impl Small<'_> {
    fn new(rig: &Rig) -> Option<Small<'_>> {
        let ran = rig.run("mount -t tmpfs -o size=4M none master");
        if ran.code != 0 {
            eprintln!("SKIPPED: cannot mount a small file system here: {}", ran.err.trim());
            return None;
        }
        (1..=5).for_each(|sequence| rig.write(&format!("log.{sequence}"), noise(512 << 10, sequence)));
        Some(Small(rig))
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        self.0.run("umount -l master");
    }
}

const MASTER: &str = "$PRUNE --state state --pattern log.%S --min-free 2200K";

#[test]
fn a_master_whose_disk_is_full_keeps_what_is_needed_unless_told_otherwise() {
    let rig = Rig::new();
    let Some(_small) = Small::new(&rig) else { return };
    rig.ok(&format!("{MASTER} --consumer a=1-2:0 --consumer b=1-4:0 master"));
    rig.run(&format!("{MASTER} master")).fails(12, "bytes free, 2252800 are wanted");
    assert_eq!(names(&rig.master()), ["log.2", "log.3", "log.4", "log.5"]);
    // Log of 2 MiB is left of 4.
    rig.ok(&format!("{} master", MASTER.replace("2200K", "1M")));
    let stop = "--on-full stop --stop 'echo $REPL_DIR $REPL_MIN_FREE >stopped'";
    rig.run(&format!("{MASTER} {stop} master")).fails(12, "are wanted");
    assert_eq!(fs::read_to_string(rig.path("stopped")).unwrap(), "master 2252800\n");
    rig.run(&format!("{MASTER} --on-full stop --stop 'echo no; false' master")).fails(9, "the stop command");
    assert_eq!(names(&rig.master()).len(), 4);
    assert!(!rig.path("state/dropped.jsonl").exists());
}

#[test]
fn dropped_log_stays_red_until_each_who_needed_it_has_a_new_base() {
    let rig = Rig::new();
    let Some(_small) = Small::new(&rig) else { return };
    rig.ok(&format!("{MASTER} --consumer a=1-2:7 --consumer b=1-4:0 --consumer c=1-2:9 master"));
    let ran = rig.run(&format!("{MASTER} --on-full drop master"));
    ran.fails(11, "log from 1-2:7 to 1-3:0 was dropped, and consumer a, consumer c cannot go on");
    assert!(ran.err.contains("is given up: the disk is full"), "{ran:?}");
    // As little as that could be.
    assert_eq!(names(&rig.master()), ["log.3", "log.4", "log.5"]);
    for _ in 0..2 {
        rig.run(&format!("{MASTER} master")).fails(11, "was dropped");
    }
    rig.run(&format!("{MASTER} --consumer a=1-4:0 master")).fails(11, "consumer c cannot go on");
    rig.ok(&format!("{MASTER} --consumer c=1-3:0 master"));
    rig.ok(&format!("{MASTER} master"));
    let lines = fs::read_to_string(rig.path("state/dropped.jsonl")).unwrap();
    assert!(lines.lines().count() == 2 && lines.lines().last().unwrap().contains("\"covered\":\"1-3:0\""), "{lines}");
}

#[test]
fn log_that_is_dropped_is_recorded_before_it_goes() {
    let rig = Rig::new();
    let Some(_small) = Small::new(&rig) else { return };
    rig.ok(&format!("{MASTER} --consumer a=1-1:0 master"));
    let strace = "strace -f -qq -o trace -e trace=unlinkat -e inject=unlinkat:signal=KILL:when=1";
    assert_eq!(rig.run(&format!("{strace} {MASTER} --on-full drop master; exit $?")).code, 137);
    assert_eq!(names(&rig.master()).len(), 5);
    rig.run(&format!("{} master", MASTER.replace("2200K", "0"))).fails(11, "was dropped");
}

#[test]
fn options_that_do_not_go_with_the_directory_are_refused() {
    let rig = archive(2);
    for (options, dir, says) in [
        ("--on-full drop", "replica", "--on-full is for a master's log directory"),
        ("--slot x", "replica", "--slot is for a master's"),
        ("--keep-bases 2", "master --pattern log.%S", "--keep-bases is for an archive"),
        ("--standby", "master --pattern log.%S", "--standby is for an archive"),
        ("--slot x", "master --pattern log.%S --state state", "--slot is for engine postgres"),
        ("--home .", "master --pattern log.%S --state state", "--home is for engine bdb"),
        ("--dsn x", "master --pattern log.%S --state state", "--dsn is for engines postgres and mariadb"),
        ("--stop x", "master --pattern log.%S --state state", "--stop goes with --on-full stop"),
        ("--on-full stop", "master --pattern log.%S", "--stop"),
        ("--keep-bases 0", "replica", "--keep-bases"),
        ("--consumer a=1-1:0 -n", "replica", "cannot be used with"),
    ] {
        rig.run(&format!("$PRUNE {options} {dir}")).fails(2, says);
    }
    rig.run("$PRUNE nowhere").fails(1, "cannot open nowhere");
    assert!(rig.ok("$PRUNE --completions bash").contains("repl-prune"));
}
