//! `repl-wait`: durable at so many sites, or not, and told at once.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixStream;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::rig::{Rig, Running, eventually, noise};

fn follow(rig: &Rig, receivers: &[&str], options: &str) -> Running {
    let via: String = receivers.iter().map(|receiver| format!("--via '{receiver}' ")).collect();
    let ship = rig.spawn(&format!("exec $SHIP --pattern log.%S --state state {options} {via} master"));
    eventually("a sender", || rig.run("$WAIT now --state state --ack none").code == 0);
    ship
}

/// A receiver that is there while its directory's name stands in a file.
fn at_will(rig: &Rig, name: &str) -> String {
    let gate = rig.path(&format!("{name}.up")).display().to_string();
    fs::write(&gate, "").unwrap();
    format!(r#"test -e {gate} || exit 8; echo $$ >{name}.pid; exec "$APPLY" --acks {name}"#)
}

fn kill(rig: &Rig, name: &str) {
    fs::remove_file(rig.path(&format!("{name}.up"))).unwrap();
    let pid = fs::read_to_string(rig.path(&format!("{name}.pid"))).unwrap();
    kill_process(Pid::from_raw(pid.trim().parse().unwrap()).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn a_quorum_is_had_by_three_of_five_not_by_two_and_again_when_one_comes_back() {
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    let names = ["a", "b", "c", "d", "e"];
    let receivers: Vec<_> = names.iter().map(|name| at_will(&rig, name)).collect();
    let receivers: Vec<_> = receivers.iter().map(String::as_str).collect();
    let mut ship = follow(&rig, &receivers, "--heartbeat 100ms");
    rig.ok("$WAIT now --state state --ack all --timeout 60s");
    let size = |name: &str| fs::metadata(rig.path(name).join("log.1")).unwrap().len();

    kill(&rig, "d");
    kill(&rig, "e");
    rig.append("log.1", noise(1000, 2));
    rig.ok("$WAIT now --state state --ack quorum --timeout 60s");
    assert!(["a", "b", "c"].iter().all(|name| size(name) == 2000));
    rig.run("$WAIT now --state state --ack all --timeout 10ms").fails(10, "1-1:2000 is not flushed by all");

    kill(&rig, "c");
    rig.append("log.1", noise(1000, 3));
    let waits = "$WAIT 1-1:3000 --state state --ack quorum";
    rig.run(&format!("{waits} --timeout 300ms")).fails(10, "1-1:3000 is not flushed by quorum after 0.3 s");
    // It was durable before, and is.
    rig.ok("$WAIT 1-1:2000 --state state --ack quorum --timeout 0s");
    // The same wait, while a site comes back.
    let waiting = format!("exec {waits} --timeout 60s");
    let mut waiting = Running::start(rig.sh(&waiting), &rig.path("waiting"));
    fs::write(rig.path("e.up"), "").unwrap();
    ship.signal(Signal::USR1);
    assert_eq!(waiting.wait().code, 0);
    assert_eq!(["a", "b", "e"].map(size), [3000; 3]);
    ship.signal(Signal::TERM);
    ship.wait();
}

/// A configuration with these sites, each by a line of its own; `round` changes how those are reached that are down, what
/// they count for, and their order.
fn configure(rig: &Rig, up: &[(&str, String)], down: &[(&str, String)], round: usize) {
    let mut sites: Vec<_> = up.iter().map(|(name, via)| (name, via.clone(), 1)).collect();
    for (at, (name, via)) in down.iter().enumerate() {
        let place = (round * (at + 1)) % (sites.len() + 1);
        let other = if (round + at).is_multiple_of(3) { format!(" # {round}") } else { String::new() };
        sites.insert(place, (name, format!("{via}{other}"), (round + at) % 4));
    }
    let site = |(name, via, votes): &(&&str, String, usize)| {
        let via = via.replace('"', "\\\"");
        format!("[[site]]\nname = \"{name}\"\nvotes = {votes}\npriority = {votes}\nvia = \"{via}\"\n")
    };
    let sites: String = sites.iter().map(site).collect();
    fs::write(rig.path("shop.toml"), format!("pattern = \"log.%S\"\n[ship]\nack = \"quorum\"\n{sites}")).unwrap();
}

#[test]
fn sites_that_change_under_many_waits_make_no_quorum_that_there_never_was() {
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    let sites = ["a", "b", "c", "d", "e"].map(|name| (name, at_will(&rig, name)));
    let (up, down) = sites.split_at(2);
    configure(&rig, up, down, 0);
    let mut ship = rig.spawn("exec $SHIP -q -c shop.toml --state state --heartbeat 100ms master");
    let all = "$WAIT now --state state --ack all --timeout 60s";
    eventually("all of it everywhere", || rig.run(all).code == 0);
    for (name, _) in down {
        kill(&rig, name);
    }
    rig.append("log.1", noise(1000, 2));
    let wait = |at: usize| {
        // Those with the sender's policy are of the same quorum.
        let policy = if at.is_multiple_of(2) { "--ack quorum" } else { "" };
        let wait = format!("exec $WAIT 1-1:{} --state state {policy} --timeout 10m", 1001 + at * 99);
        Running::start(rig.sh(&wait), &rig.path(&format!("wait-{at}")))
    };
    let mut waits: Vec<_> = (0..10).map(wait).collect();
    rig.ok("$WAIT now --state state --ack one --timeout 60s");
    // As the status tells of the first of those that are down, what it counts for is another one in each round.
    let is_read = |round: usize| {
        let status: Value = serde_json::from_slice(&fs::read(rig.path("state/status.json")).unwrap()).unwrap();
        let sites = status["sites"].as_array().unwrap();
        sites.iter().any(|site| site["name"] == "c" && site["votes"] == round % 4)
    };
    for round in 1..=30 {
        configure(&rig, up, down, round);
        ship.signal(Signal::HUP);
        eventually("the sites", || is_read(round));
        rig.run("$WAIT now --state state --ack quorum --timeout 0s").fails(10, "by quorum after 0 s");
        let answered = waits.iter_mut().position(|wait| wait.child.try_wait().unwrap().is_some());
        assert_eq!(answered, None, "in round {round}");
    }
    // Without one of those that are down, two receivers and the master are more than half of five.
    configure(&rig, up, &down[..2], 31);
    ship.signal(Signal::HUP);
    for wait in &mut waits {
        let ran = wait.wait();
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    rig.run("$WAIT now --state state --ack all --timeout 0s").fails(10, "by all");
    // And no more of six, when it is to be there again; what was had before by all five is had still.
    configure(&rig, up, down, 32);
    ship.signal(Signal::HUP);
    eventually("the sites", || is_read(32));
    rig.run("$WAIT now --state state --ack quorum --timeout 0s").fails(10, "by quorum after 0 s");
    rig.ok("$WAIT 1-1:1000 --state state --ack one --timeout 0s");
    ship.signal(Signal::TERM);
    ship.wait();
}

#[test]
fn without_a_sender_it_says_so() {
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    rig.run("$WAIT now --state nowhere").fails(8, "no repl-ship keeps its state in nowhere");
    let mut ship = follow(&rig, &["exec \"$APPLY\" --acks a"], "");
    ship.signal(Signal::KILL);
    ship.wait();
    assert!(rig.path("state/wait").exists());
    rig.run("$WAIT now --state state").fails(8, "no repl-ship runs with its state in state");

    // One that goes away while it is asked.
    let mut ship = follow(&rig, &["exit 8"], "");
    let waiting = "exec $WAIT now --state state --ack one --timeout 60s";
    let mut waiting = Running::start(rig.sh(waiting), &rig.path("waiting"));
    eventually("a question", || open_sockets(&ship) >= 2);
    ship.signal(Signal::TERM);
    waiting.wait().fails(8, "repl-ship");
    ship.wait();
    assert!(!rig.path("state/wait").exists());
}

#[test]
fn bug_a_sender_that_ended_while_it_was_asked_said_that_the_question_was_wrong() {
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    let mut ship = follow(&rig, &["exec \"$APPLY\" --acks a"], "");
    let asking = UnixStream::connect(rig.path("state/wait")).unwrap();
    // Its turn has come when one who came later has an answer.
    rig.ok("$WAIT now --state state --ack none");
    ship.signal(Signal::TERM);
    assert_eq!(ship.wait().code, 0);
    let mut answer = String::new();
    BufReader::new(asking).read_line(&mut answer).unwrap();
    assert_eq!(answer, "refuse 8 repl-ship ends\n");
}

/// A generation that does not fork is a beginning of the log.
#[test]
fn what_is_of_an_earlier_generation_is_had_by_who_has_a_later_one() {
    let rig = Rig::new();
    rig.write("fw-1-1", noise(1000, 1));
    rig.write("fw-1-2", noise(1000, 2));
    rig.write("fw-2-1", noise(1000, 3));
    let mut ship = rig.spawn("exec $SHIP --state state --via 'exec $APPLY --acks a' master");
    eventually("all", || rig.run("$WAIT 2-1:1000 --state state --ack all --timeout 1s").code == 0);
    rig.ok("$WAIT 1-2:1000 --state state --ack all --timeout 0s");
    rig.run("$WAIT 3-1:0 --state state --ack all --timeout 0s").fails(10, "3-1:0 is not flushed by all");
    let proof = format!("1-2:1000+{}", &blake3::hash(&noise(1000, 2)).to_hex()[..16]);
    rig.ok(&format!("$WAIT {proof} --state state --ack all --timeout 0s"));
    rig.run("$WAIT 1-2:1000+0123456789abcdef --state state --ack all").fails(4, "is not what");
    ship.signal(Signal::TERM);
    assert_eq!(ship.wait().code, 0);
}

#[test]
fn bug_a_sender_that_starts_said_that_no_site_acknowledges() {
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    // What is written when it begins takes as long as on a slow disk.
    let slow = "strace -f -qq -o /dev/null -e trace=fsync,fdatasync,rename,renameat \
                -e inject=fsync,fdatasync,rename,renameat:delay_enter=50000";
    rig.ok("$SHIP -S --pattern log.%S --state state --via 'exec \"$APPLY\" --acks b' master");
    let ship = format!("exec {slow} $SHIP --pattern log.%S --state state --via 'exec \"$APPLY\" --acks a' master");
    let mut ship = rig.spawn(&ship);
    let mut ran = rig.run("$WAIT now --state state --ack one --timeout 60s");
    eventually("an answer", || {
        ran = rig.run("$WAIT now --state state --ack one --timeout 60s");
        ran.code != 8
    });
    assert_eq!(ran.code, 0, "{ran:?}");
    ship.signal(Signal::TERM);
    ship.wait();
}

/// Sockets of a process that have the name of the one that is asked.
fn open_sockets(ship: &Running) -> usize {
    let sockets = fs::read_to_string(format!("/proc/{}/net/unix", ship.id())).unwrap();
    sockets.lines().filter(|line| line.ends_with("/wait")).count()
}

#[test]
fn what_can_never_be_is_refused_at_once() {
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    let mut ship = follow(&rig, &["exec \"$APPLY\" --acks a"], "");
    rig.ok("$WAIT now --state state --ack all --timeout 60s");
    rig.run("$WAIT now --state state --level applied").fails(2, "no site feeds a database");
    rig.run("$WAIT now --state state --level done").fails(2, "received, flushed, applied");
    rig.run("$WAIT now --state state --ack some").fails(2, "one-peer");
    rig.run("$WAIT soon --state state").fails(2, "now");
    rig.run("$WAIT now").fails(2, "LOGDIR");
    let config = format!(
        "engine = \"plain\"\npattern = \"log.%S\"\nlogdir = \"{}\"\n[[site]]\nname = \"tape\"\npriority = 0\n\
         via = \"exec $APPLY --acks ${{TAPE:-t}}\"\n",
        rig.master().display()
    );
    fs::write(rig.path("tape.toml"), config).unwrap();
    rig.ok("chmod 600 tape.toml");
    let mut other = rig.spawn("exec $SHIP -c tape.toml --state other");
    eventually("a sender", || rig.run("$WAIT now --state other --ack none").code == 0);
    for policy in ["one-peer", "all-peers"] {
        let says = format!("no site that acknowledges has a priority above 0, so policy {policy} is never met");
        rig.run(&format!("$WAIT now --state other --ack {policy}")).fails(2, &says);
        rig.run(&format!("TAPE=u $SHIP -S -c tape.toml --state once --ack {policy}")).fails(10, &says);
    }
    other.signal(Signal::TERM);
    other.wait();
    rig.run("sed -i 's/^priority.*/acks = false/' tape.toml; TAPE=u $SHIP -S -c tape.toml --state once")
        .fails(10, "no site acknowledges, so policy all is never met");
    rig.ok("TAPE=u $SHIP -S -c tape.toml --state once --ack none");
    // A proof of another history.
    let proof = rig.ok("$APPLY --position a");
    rig.ok(&format!("$WAIT {} --state state --timeout 0s", proof.trim()));
    rig.run("$WAIT 1-1:1000+0123456789abcdef --state state").fails(4, "is not what");
    ship.signal(Signal::TERM);
    assert_eq!(ship.wait().code, 0);
}

/// What receivers have of before must not pass for the same positions of now.
#[test]
fn a_log_that_has_begun_anew_is_confirmed_by_nobody() {
    let rig = Rig::new();
    rig.write("log.1", noise(3000, 1));
    // The question comes before anybody has looked.
    let rarely = "--poll 60s --heartbeat 60s --timeout 90s";
    let mut ship = follow(&rig, &["exec \"$APPLY\" --acks a", "exec \"$APPLY\" --acks b"], rarely);
    rig.ok("$WAIT now --state state --ack all --timeout 60s");
    rig.ok("rm master/log.1; head -c 500 /dev/urandom >master/log.1");
    rig.run("$WAIT now --state state --ack all --timeout 60s")
        .fails(4, "the log ends at 1-1:500, and has ended at 1-1:3000");
    ship.signal(Signal::USR1);
    assert!(ship.wait().code > 0);
    // Another process knows what the one before knew, and confirms nothing by it.
    let mut ship = follow(&rig, &["exit 8", "exit 8"], "");
    rig.run("$WAIT now --state state --ack one --timeout 200ms").fails(10, "1-1:500");
    ship.signal(Signal::TERM);
    ship.wait();
}

#[test]
fn applied_is_what_the_database_was_given() {
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    let feed = "exec \"$APPLY\" --acks --feed-each boundary --feed \"test -e open\" a";
    let mut ship = follow(&rig, &[feed], "--heartbeat 100ms");
    rig.ok("$WAIT now --state state --timeout 60s");
    rig.run("$WAIT now --state state --level applied --timeout 200ms").fails(10, "is not applied");
    rig.write("../open", "");
    rig.ok("$WAIT now --state state --level applied --timeout 60s");
    ship.signal(Signal::TERM);
    assert_eq!(ship.wait().code, 0);
}

#[test]
fn the_result_as_json_and_many_at_once() {
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    let mut ship = follow(&rig, &["exec \"$APPLY\" --acks a", "exec \"$APPLY\" --acks b"], "--set shop");
    let many = "for i in $(seq 40); do $WAIT now --state state --ack all --timeout 60s || echo bad & done; wait";
    assert_eq!(rig.ok(many), "");
    let json: Value = serde_json::from_str(&rig.ok("$WAIT now --state state --json")).unwrap();
    assert_eq!((json["at"].as_str(), json["level"].as_str()), (Some("1-1:1000"), Some("flushed")));
    assert!(json["seconds"].as_f64().is_some());
    ship.signal(Signal::TERM);
    assert_eq!(ship.wait().code, 0);
}
