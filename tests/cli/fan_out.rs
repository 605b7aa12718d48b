//! One sender, many receivers: each at its own pace, one reader for those that are up to date, and whose word counts.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::rig::{Rig, Running, eventually, noise, segments};

/// A sender that follows, with receivers `r1` to `rN` whose process is in `r1.pid` and so on.
fn follow(rig: &Rig, sites: usize, options: &str) -> Running {
    let via = |site: usize| format!(r#"--via 'echo $$ >r{site}.pid; exec "$APPLY" --acks r{site}'"#);
    let all: Vec<_> = (1..=sites).map(via).collect();
    rig.spawn(&format!("exec $SHIP --pattern log.%S --state state {options} {} master", all.join(" ")))
}

fn pid(rig: &Rig, site: &str) -> Pid {
    let file = rig.path(&format!("{site}.pid"));
    let read = || fs::read_to_string(&file).ok().and_then(|text| Pid::from_raw(text.trim().parse().ok()?));
    eventually("a process", || read().is_some());
    read().unwrap()
}

fn wait(rig: &Rig, options: &str) {
    rig.ok(&format!("$WAIT now --state state --timeout 60s {options}"));
}

/// The sender answers, so everything is set up.
fn wait_for_sender(rig: &Rig) {
    let answers = || rig.run("$WAIT now --state state --ack none").code == 0;
    eventually("a sender", || answers() && rig.path("state/status.json").exists());
}

fn status(rig: &Rig) -> Value {
    serde_json::from_slice(&fs::read(rig.path("state/status.json")).unwrap()).unwrap()
}

/// The status of one site by its receiver's directory.
fn site(rig: &Rig, name: &str) -> Value {
    let status = status(rig);
    let is_of = |site: &&Value| site["receiver"].as_str().unwrap().ends_with(&format!(" {name}"));
    status["sites"].as_array().unwrap().iter().find(is_of).unwrap().clone()
}

#[track_caller]
fn assert_equal(rig: &Rig, sites: &[&str]) {
    let master = segments(&rig.master());
    for site in sites {
        assert_eq!(master, segments(&rig.path(site)), "{site}");
    }
}

#[test]
fn one_pass_ships_to_all_and_ends_where_the_policy_is_met() {
    let rig = Rig::new();
    for sequence in 1..=3 {
        rig.write(&format!("log.{sequence}"), noise(30_000, sequence));
    }
    let pass = |good: usize, bad: usize, options: &str| {
        let via = |site| format!("--via \"$APPLY --acks p{site}\" ");
        let mut receivers: String = (1..=good).map(via).collect();
        receivers.push_str(&"--via 'exit 8' ".repeat(bad));
        rig.run(&format!("$SHIP -S --pattern log.%S --retry-for 0s {options} {receivers} master"))
    };
    let ran = pass(5, 0, "");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    assert_equal(&rig, &["p1", "p2", "p3", "p4", "p5"]);
    // Of five sites and the master three sites are, with the master, a majority.
    for (good, bad, policy, code) in [
        (3, 2, "quorum", 0),
        (2, 3, "quorum", 8),
        (1, 4, "one", 0),
        (0, 2, "one", 8),
        (4, 1, "all", 8),
        (3, 2, "all-available", 0),
        (2, 3, "all-available", 8),
        (1, 1, "none", 8),
    ] {
        let ran = pass(good, bad, &format!("--ack {policy}"));
        assert_eq!(ran.code, code, "{good} {bad} {policy}: {ran:?}");
        assert!(ran.err.contains("the receiver exited with 8"), "those that failed are named: {ran:?}");
    }
}

#[test]
fn what_one_site_refuses_is_final_for_that_one_and_told_at_the_end() {
    let rig = Rig::new();
    rig.write("log.1", noise(3000, 1));
    rig.ok("mkdir other; head -c 3000 /dev/urandom >other/log.1");
    rig.ok("$SHIP -S --pattern log.%S --via \"$APPLY --acks r2\" other");
    let ran = rig.run("$SHIP -S --pattern log.%S --via \"$APPLY --acks r1\" --via \"$APPLY --acks r2\" master");
    ran.fails(5, "another instance");
    assert!(ran.err.contains("(1 of 2 sites failed)"), "{ran:?}");
    assert_equal(&rig, &["r1"]);

    let mut ship = follow(&rig, 3, "--heartbeat 100ms");
    eventually("a refusal", || rig.path("state/status.json").exists() && site(&rig, "r2")["state"] == "refused");
    rig.append("log.1", noise(500, 2));
    wait(&rig, "--ack quorum");
    rig.run("$WAIT now --state state --timeout 10ms --ack all").fails(10, "may come yet");
    assert_eq!(site(&rig, "r2")["code"], 5);
    assert_equal(&rig, &["r1", "r3"]);
    ship.signal(Signal::TERM);
    ship.wait().fails(5, "another instance");
}

/// What the sender has read so far, of files and of everything else.
fn read_by(ship: &Running) -> u64 {
    let io = fs::read_to_string(format!("/proc/{}/io", ship.id())).unwrap();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

#[test]
fn the_log_is_read_once_for_all_that_are_up_to_date() {
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    let mut ship = follow(&rig, 5, "");
    wait_for_sender(&rig);
    rig.append("log.1", noise(1000, 2));
    wait(&rig, "--ack all");
    let (before, written) = (read_by(&ship), 24 << 20);
    for step in 0..24 {
        rig.append("log.1", noise(1 << 20, step));
        wait(&rig, "--ack all");
    }
    // Once by the reader, once by the one that finds "now"; the rest is what receivers say, and looks at what is known.
    let read = read_by(&ship) - before;
    assert!(read < 3 * written, "{read} bytes were read for {written} of log and five receivers");
    assert_equal(&rig, &["r1", "r2", "r3", "r4", "r5"]);
    ship.signal(Signal::TERM);
    assert_eq!(ship.wait().code, 0);
}

/// More than the window of pieces, and over the ends of segments.
#[test]
fn a_stopped_receiver_holds_up_nobody_and_catches_up() {
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    let mut ship = follow(&rig, 3, "--heartbeat 100ms");
    wait_for_sender(&rig);
    wait(&rig, "--ack all");
    let stopped = pid(&rig, "r2");
    kill_process(stopped, Signal::STOP).unwrap();
    for sequence in 1..=3 {
        rig.append(&format!("log.{sequence}"), noise(12 << 20, sequence));
        wait(&rig, "--ack quorum");
    }
    rig.append("log.3", noise(100, 9));
    // Both others have it; the one that is stopped counts for what it had.
    wait(&rig, "--ack quorum");
    eventually("the others", || ["r1", "r3"].iter().all(|name| site(&rig, name)["lag"]["bytes"] == 0));
    let behind = site(&rig, "r2");
    assert!(behind["lag"]["bytes"].as_u64().unwrap() > 24 << 20, "{behind}");
    assert_eq!(behind["lag"]["segments"], 2);
    let peak = fs::read_to_string(format!("/proc/{}/status", ship.id())).unwrap();
    let peak = peak.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB");
    assert!(peak.parse::<u64>().unwrap() < 96 << 10, "{peak} kB");
    kill_process(stopped, Signal::CONT).unwrap();
    wait(&rig, "--ack all");
    assert_equal(&rig, &["r1", "r2", "r3"]);
    ship.signal(Signal::TERM);
    assert_eq!(ship.wait().code, 0);
}

/// It reads all that it had of its segment again, on a disk that takes its time: three seconds in all, of which a receiver
/// waits for one.
#[test]
fn bug_a_lane_that_fell_behind_was_silent_while_it_read_its_segment_again() {
    let rig = Rig::new();
    rig.write("log.1", noise(20 << 20, 1));
    let via = |name: &str| format!("--via 'echo $$ >{name}.pid; exec \"$APPLY\" --acks --timeout 1s {name}'");
    let (r1, r2) = (via("r1"), via("r2"));
    let mut ship = rig.spawn(&format!("exec $SHIP --heartbeat 100ms --state state --pattern log.%S {r1} {r2} master"));
    wait_for_sender(&rig);
    wait(&rig, "--ack all");
    kill_process(pid(&rig, "r2"), Signal::STOP).unwrap();
    for _ in 0..17 {
        rig.append("log.1", noise(1 << 20, 2));
        wait(&rig, "--ack one");
    }
    let slow = format!(
        "exec strace -f -qq -o /dev/null -e trace=pread64 -e inject=pread64:delay_enter=40000 -p {}",
        ship.id()
    );
    let mut slow = Running::start(rig.sh(&slow), &rig.path("slow"));
    let is_slow = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", ship.id())).unwrap();
        let status = |task: fs::DirEntry| fs::read_to_string(task.path().join("status")).unwrap_or_default();
        tasks.map(|task| status(task.unwrap())).all(|status| !status.contains("TracerPid:\t0\n"))
    };
    eventually("a slow disk", is_slow);
    kill_process(pid(&rig, "r2"), Signal::CONT).unwrap();
    let received = || fs::metadata(rig.path("r2/log.1")).unwrap().len();
    eventually("more", || received() > 21 << 20);
    slow.signal(Signal::INT);
    slow.wait();
    wait(&rig, "--ack all");
    assert_equal(&rig, &["r1", "r2"]);
    assert_eq!(site(&rig, "r2")["reconnects"], 0, "{}", ship.err());
    ship.signal(Signal::TERM);
    assert_eq!(ship.wait().code, 0);
}

/// The digest of the segment before is told with it; nobody remembers that.
#[test]
fn bug_a_sender_was_silent_while_it_read_the_segment_before_the_one_it_began_with() {
    let rig = Rig::new();
    rig.write("log.1", noise(20 << 20, 1));
    rig.write("log.2", noise(1000, 2));
    let slow = "strace -f -qq -o /dev/null -e trace=pread64 -e inject=pread64:delay_enter=40000";
    let ship = "$SHIP -S --heartbeat 100ms --state state --pattern log.%S --from 1-2:0 master";
    rig.ok(&format!("{slow} {ship} | $APPLY --timeout 1s replica"));
    assert_eq!(fs::read(rig.path("replica/log.2")).unwrap(), noise(1000, 2));
}

#[test]
fn a_receiver_that_is_killed_again_and_again_comes_back_each_time() {
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    let mut ship = follow(&rig, 3, "--heartbeat 100ms");
    wait_for_sender(&rig);
    for round in 1..=4 {
        wait(&rig, "--ack all");
        kill_process(pid(&rig, "r2"), Signal::KILL).unwrap();
        rig.append(&format!("log.{}", 1 + round / 2), noise(200_000, round));
        wait(&rig, "--ack quorum");
    }
    wait(&rig, "--ack all");
    assert_equal(&rig, &["r1", "r2", "r3"]);
    eventually("the count", || site(&rig, "r2")["reconnects"].as_u64().unwrap() >= 4);
    assert_eq!(site(&rig, "r1")["reconnects"], 0);
    ship.signal(Signal::TERM);
    assert_eq!(ship.wait().code, 0);
}

#[test]
fn usr1_is_a_look_at_once() {
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    // Nothing else would make it look for an hour.
    let mut ship = follow(&rig, 2, "--poll 1h --heartbeat 1h --timeout 2h");
    wait_for_sender(&rig);
    wait(&rig, "--ack all");
    // An acknowledgement on its way wakes the sender, too; then the next change is the one.
    eventually("a change that nobody sees", || {
        rig.append("log.1", noise(1000, 2));
        rig.run("$WAIT now --state state --timeout 200ms --ack one").code == 10
    });
    ship.signal(Signal::USR1);
    wait(&rig, "--ack all");
    assert_equal(&rig, &["r1", "r2"]);
    ship.signal(Signal::TERM);
    assert_eq!(ship.wait().code, 0);
}

#[test]
fn boundaries_are_counted_as_confirmed_in_time_or_not() {
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    let mut ship = follow(&rig, 2, "--heartbeat 50ms --ack all --ack-timeout 300ms");
    wait_for_sender(&rig);
    wait(&rig, "--ack all");
    eventually("a confirmation", || status(&rig)["confirmed_to"] == "1-1:1000");
    let stopped = pid(&rig, "r2");
    kill_process(stopped, Signal::STOP).unwrap();
    rig.append("log.1", noise(1000, 2));
    eventually("one that is out of time", || status(&rig)["unconfirmed"] == 1);
    kill_process(stopped, Signal::CONT).unwrap();
    wait(&rig, "--ack all");
    rig.append("log.1", noise(1000, 3));
    eventually("the next one", || status(&rig)["confirmed_to"] == "1-1:3000");
    assert_eq!(status(&rig)["unconfirmed"], 1, "each is counted once");
    eventually("the end of it", || ship.err().contains("all is confirmed by all again"));
    ship.signal(Signal::TERM);
    let ran = ship.wait();
    assert_eq!(ran.code, 0);
    assert!(ran.err.contains("1-1:2000 is not confirmed by all within 0.3 s"), "{ran:?}");
}

/// A configuration with these sites, each with a receiver in its own directory.
fn configure(rig: &Rig, sites: &[&str]) {
    let site = |name: &&str| {
        let enabled = if *name == "off" { "enabled = false\n" } else { "" };
        let via = format!("exec {} --acks {}", super::rig::APPLY, rig.path(name).display());
        format!("[[site]]\nname = \"{name}\"\n{enabled}via = \"{via}\"\n")
    };
    let (logdir, state) = (rig.master(), rig.path("state"));
    let paths = format!("logdir = \"{}\"\nstate = \"{}\"\n", logdir.display(), state.display());
    let top = format!("set = \"shop\"\nhere = \"me\"\n{paths}");
    let text = format!(
        "{top}pattern = \"log.%S\"\n[ship]\nheartbeat = \"100ms\"\n{}",
        sites.iter().map(site).collect::<String>()
    );
    fs::write(rig.path("shop.toml"), text).unwrap();
}

fn names(rig: &Rig) -> Vec<String> {
    let status = status(rig);
    status["sites"].as_array().unwrap().iter().map(|site| site["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn sites_come_from_the_configuration_and_hup_reads_it_again() {
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    configure(&rig, &["venus", "me", "off", "mars"]);
    assert_eq!(rig.run("$SHIP -S -c shop.toml").code, 0);
    assert_equal(&rig, &["venus", "mars"]);
    assert!(!rig.path("me").exists() && !rig.path("off").exists());

    let mut ship = rig.spawn("exec $SHIP -v -c shop.toml");
    wait_for_sender(&rig);
    assert_eq!(names(&rig), ["venus", "mars"]);
    configure(&rig, &["venus", "pluto"]);
    ship.signal(Signal::HUP);
    eventually("the new sites", || names(&rig) == ["venus", "pluto"]);
    rig.append("log.1", noise(500, 2));
    wait(&rig, "--ack all");
    assert_equal(&rig, &["venus", "pluto"]);
    assert_eq!(fs::metadata(rig.path("mars/log.1")).unwrap().len(), 1000);
    assert_eq!(site_named(&rig, "venus")["reconnects"], 0, "who stays is not disturbed");

    // What cannot be read changes nothing.
    fs::write(rig.path("shop.toml"), "[[site]]\nnam = 1\n").unwrap();
    ship.signal(Signal::HUP);
    eventually("a complaint", || ship.err().contains("the sites stay as they are"));
    rig.append("log.1", noise(500, 3));
    wait(&rig, "--ack all");
    ship.signal(Signal::TERM);
    assert_eq!(ship.wait().code, 0);
    configure(&rig, &["me", "off"]);
    rig.run("$SHIP -S -c shop.toml").fails(2, "nobody to ship to");
    // One who says where to begin builds the pipe.
    rig.ok("$SHIP -S -c shop.toml --from oldest | $APPLY piped");
    assert_equal(&rig, &["piped"]);
}

fn site_named(rig: &Rig, name: &str) -> Value {
    status(rig)["sites"].as_array().unwrap().iter().find(|site| site["name"] == name).unwrap().clone()
}

#[test]
fn a_sender_that_is_paused_ships_nothing_says_why_and_goes_on_by_itself() {
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    let pause = "$ROLE pause ship --state state --pattern log.%S --reason 'disk swap' master";
    rig.ok(pause);
    rig.run("$SHIP -S --state state --pattern log.%S --via '$APPLY --acks r1' master").fails(13, "disk swap");
    // It begins paused, ships when it is resumed, and stops again.
    let mut ship = follow(&rig, 2, "--heartbeat 100ms");
    let is_paused = || rig.path("state/status.json").exists() && status(&rig)["paused"]["reason"] == "disk swap";
    eventually("a pause", is_paused);
    assert!(!rig.path("r1").exists());
    for round in 2..4 {
        rig.ok("$ROLE resume ship --state state --pattern log.%S --reason 'it is in' master");
        rig.append("log.1", noise(1000, round));
        eventually("everything", || rig.run("$WAIT now --state state --timeout 5s --ack all").code == 0);
        rig.ok(pause);
        eventually("another pause", is_paused);
        let is_done = |name| site(&rig, name)["state"] == "done";
        eventually("the end of both", || is_done("r1") && is_done("r2"));
        assert_equal(&rig, &["r1", "r2"]);
    }
    rig.append("log.1", noise(1000, 4));
    rig.run("$WAIT now --state state --timeout 300ms --ack one").fails(10, "may come yet");
    ship.signal(Signal::TERM);
    let ran = ship.wait();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("ship is paused since") && ran.err.contains("disk swap"), "{ran:?}");
}

#[test]
fn hup_ends_no_sender_that_has_a_configuration() {
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    let via = format!("exec {} --acks {}", super::rig::APPLY, rig.path("r1").display());
    let text = |more: &str| format!("pattern = \"log.%S\"\n[ship]\nheartbeat = \"100ms\"\nvia = [\"{via}\"{more}]\n");
    fs::write(rig.path("shop.toml"), text("")).unwrap();
    let mut ship = rig.spawn("exec $SHIP -c shop.toml --state state master");
    wait_for_sender(&rig);
    fs::write(rig.path("shop.toml"), text(&format!(", \"{}\"", via.replace("r1", "r2")))).unwrap();
    ship.signal(Signal::HUP);
    eventually("another receiver", || status(&rig)["sites"].as_array().unwrap().len() == 2);
    wait(&rig, "--ack all");
    assert_equal(&rig, &["r1", "r2"]);
    ship.signal(Signal::TERM);
    assert_eq!(ship.wait().code, 0);
}

#[test]
fn a_sender_whose_site_becomes_another_ends_so_that_it_starts_as_that() {
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    let mut ship = follow(&rig, 2, "--heartbeat 100ms");
    wait_for_sender(&rig);
    wait(&rig, "--ack all");
    rig.ok("$ROLE init --master --epoch 5 --state state --pattern log.%S master");
    ship.wait().fails(1, "is of epoch 5 now");
    let mut ship = follow(&rig, 2, "");
    rig.append("log.1", noise(1000, 2));
    eventually("the new epoch", || rig.run("$WAIT now --state state --timeout 5s --ack all").code == 0);
    assert_equal(&rig, &["r1", "r2"]);
    ship.signal(Signal::TERM);
    assert_eq!(ship.wait().code, 0);
}
