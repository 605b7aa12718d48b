//! repl-status: what it makes of senders that were paused, refused or lost, and of sites whose role has changed.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::rig::{Ran, Rig, Running, eventually, noise};
use super::role::switchover::pair;

/// The limits of somebody who cannot wait.
const AT_ONCE: &str = "--warn-age 0s --crit-age 0s";

#[track_caller]
fn told(rig: &Rig, what: &str) -> Value {
    let ran = rig.run(&format!("$STATUS --json {what}"));
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

/// A sender that follows, whose site has all that is there.
fn following(rig: &Rig) -> Running {
    rig.write("log.1", noise(5000, 1));
    let ship =
        rig.spawn("exec $SHIP --pattern log.%S --state state --heartbeat 3s --via \"$APPLY --acks replica\" master");
    eventually("a site that has all", || {
        rig.path("state/status.json").exists()
            && told(rig, "--state state")["senders"][0]["sites"][0]["proven"] == "1-1:5000"
    });
    ship
}

#[test]
fn a_pause_of_a_sender_that_runs_is_no_end_and_what_piles_up_meanwhile_is_an_alarm() {
    let rig = Rig::new();
    let _ship = following(&rig);
    rig.ok("$ROLE pause ship --reason 'new disk' --state state master");
    eventually("a link that has come to its end", || {
        told(&rig, "--state state")["senders"][0]["sites"][0]["link"] == "done"
    });
    let found = told(&rig, "--state state");
    let sender = &found["senders"][0];
    assert_eq!((&sender["state"], &sender["alarm"], &sender["exit"]), (&json!("paused"), &json!("warning"), &json!(0)));
    assert_eq!((&sender["sites"][0]["state"], &sender["running"]), (&json!("paused"), &json!(true)));
    assert!(sender["why"].as_str().unwrap().ends_with(" ago: new disk"), "{sender}");
    assert_eq!(rig.run("$STATUS --nagios --state state").code, 1);

    rig.append("log.1", noise(7000, 2));
    eventually("what it lacks", || told(&rig, "--state state")["senders"][0]["sites"][0]["lag"]["bytes"] == 7000);
    rig.run("$STATUS --crit-bytes 6999 --state state").fails(10, "6.8 KiB");
    eventually("an age of that", || rig.run(&format!("$STATUS {AT_ONCE} --state state")).code == 10);
    assert_eq!(rig.run("$STATUS --nagios --crit-bytes 0 --state state").code, 2);
    let metrics = rig.ok("$STATUS --prometheus - --crit-bytes 0 --state state");
    let is_paused =
        |line: &str| line.starts_with("repl_site_state") && line.contains("state=\"paused\"") && line.ends_with("} 1");
    assert!(metrics.lines().any(is_paused), "{metrics}");

    rig.ok("$ROLE resume ship --state state master");
    eventually("all of it", || told(&rig, "--state state")["senders"][0]["sites"][0]["proven"] == "1-1:12000");
    assert_eq!(rig.run("$STATUS --crit-bytes 0 --state state").code, 0);
}

#[test]
fn a_verdict_that_ended_its_sender_is_what_is_told() {
    let rig = Rig::new();
    rig.write("log.1", noise(5000, 1));
    assert_eq!(rig.pass("--pattern log.%S", "").code, 0);
    rig.write("log.1", noise(5000, 2));
    for (via, code, says) in [
        ("$APPLY --acks replica", 4, "diverged: up to 1-1:5000"),
        ("exit 127", 2, "the receiver's command cannot be run"),
    ] {
        rig.run(&format!("$SHIP --pattern log.%S --state state --via \"{via}\" master")).fails(code, says);
        let ran = rig.run("$STATUS --state state");
        ran.fails(code, says);
        assert!(ran.out.contains("  refused  ") && !ran.out.contains("stale"), "{ran:?}");
        let found = told(&rig, "--state state");
        assert_eq!((&found["alarm"], &found["code"]), (&json!("critical"), &json!(code)), "{found}");
        let ran = rig.run("$STATUS --nagios --state state");
        assert!(ran.code == 2 && ran.out.contains(" refused: ") && ran.out.contains(says), "{ran:?}");
        assert!(rig.ok("$STATUS --html - --state state").contains(" refused</strong>: "), "{via}");
    }
}

#[test]
fn a_verdict_on_one_site_outlives_a_sender_that_was_killed_and_what_it_said_of_lag_does_not() {
    let rig = Rig::new();
    rig.write("log.1", noise(5000, 1));
    assert_eq!(rig.pass("--pattern log.%S", "").code, 0);
    rig.write("log.1", noise(5000, 2));
    let mut ship = rig.spawn(
        "exec $SHIP --pattern log.%S --state state --heartbeat 3s --via \"$APPLY --acks replica\" \
         --via \"$APPLY --acks other\" master",
    );
    let states = || {
        let found = told(&rig, "--state state");
        [0, 1].map(|at| found["senders"][0]["sites"][at]["state"].as_str().unwrap_or_default().to_owned())
    };
    eventually("a site that refuses and one that does not", || {
        rig.path("state/status.json").exists()
            && states()[0] == "refused"
            && ["idle", "current"].contains(&states()[1].as_str())
    });
    ship.signal(Signal::KILL);
    ship.child.wait().unwrap();
    assert_eq!(states(), ["refused", "stale"]);
    rig.run("$STATUS --state state").fails(4, "diverged");
    let ran = rig.run("$STATUS --nagios --state state");
    assert!(
        ran.code == 2 && ran.out.contains(" stale: repl-ship (process ") && ran.out.contains("diverged"),
        "{ran:?}"
    );
    assert!(!ran.out.contains(" lag'") && !ran.out.contains(" bytes'"), "{ran:?}");
    assert!(!rig.ok("$STATUS --prometheus - --state state").contains("repl_site_lag"));
}

/// Ships from one site of a pair to the other until it is told to end.
fn shipping(rig: &Rig, from: &str, to: &str) -> Running {
    rig.spawn(&format!(
        "exec $SHIP --set orders --pattern log.%S --state {from}-state --heartbeat 3s \
         --via \"$APPLY --acks -c {to}.toml\" {from}"
    ))
}

fn status(rig: &Rig, site: &str) -> Ran {
    rig.run(&format!("$STATUS {AT_ONCE} --local -c {site}.toml"))
}

/// State, alarm, exit code and why.
fn verdict(of: &Value) -> [&Value; 4] {
    ["state", "alarm", "exit", "why"].map(|key| &of[key])
}

#[test]
fn after_a_switchover_what_ended_with_a_role_is_history_at_both_sites_and_from_afar() {
    let rig = pair();
    // As long as roles are as they were, an end has an age.
    status(&rig, "a").fails(8, "is ended: ended ");
    rig.run(&format!("$STATUS {AT_ONCE} b")).fails(8, "is ended: ended ");
    rig.ok("$ROLE switchover --to b --reason drill -c a.toml");
    let mut ship = shipping(&rig, "b", "a");
    eventually("two quiet sites", || status(&rig, "a").code == 0 && status(&rig, "b").code == 0);
    let history = |why: &str| [json!("ended"), json!("ok"), json!(0), json!(why)];
    let (a, b) = (told(&rig, "--local -c a.toml"), told(&rig, "--local -c b.toml"));
    assert_eq!(verdict(&a["senders"][0]), history("this site is a receiver since epoch 2").each_ref());
    assert_eq!(verdict(&a["senders"][0]["sites"][0]), history("this site is a receiver since epoch 2").each_ref());
    assert_eq!(verdict(&b["receivers"][0]), history("this site is the master since epoch 2").each_ref());
    assert_eq!(b["receivers"][0]["told"], json!({"role": "master", "site": "b", "epoch": 2}));
    assert_eq!(a["senders"][0]["told"], json!({"role": "receiver", "site": "a", "epoch": 2}));
    // A log directory alone is known by the state that is its own, and by no other's.
    rig.run(&format!("$STATUS {AT_ONCE} --state a-state b")).fails(8, "is ended: ended ");
    assert_eq!(rig.run(&format!("$STATUS {AT_ONCE} --state b-state b")).code, 0);
    // From afar as here; one that does not tell its role is judged by age.
    let ask = |site: &str, then: &str| {
        rig.run(&format!("$STATUS {AT_ONCE} --ask \"{site}=$STATUS --json --local -c {site}.toml {then}\""))
    };
    fs::write(rig.path("older"), r#"s/"told":{[^}]*}/"tell":0/g"#).unwrap();
    for site in ["a", "b"] {
        assert_eq!(ask(site, "").code, 0, "{site}");
        ask(site, "| sed -f older").fails(8, "is ended: ended ");
    }
    // What ends in the role that a site has is told as ever.
    ship.signal(Signal::TERM);
    ship.child.wait().unwrap();
    eventually("both ends", || told(&rig, "a")["receivers"][0]["state"] == "ended");
    status(&rig, "a").fails(8, "is ended: ended ");
    status(&rig, "b").fails(8, "is ended: ended ");
}

#[test]
fn a_former_master_that_takes_over_again_is_no_unknown_receiver() {
    let rig = pair();
    rig.ok("$ROLE switchover --to b -c a.toml");
    rig.run("$STATUS --local -c a.toml").fails(10, "no repl-apply has said");
    rig.ok("$ROLE become --epoch 3 --reason 'b burnt' -c a.toml");
    let ran = rig.run("$STATUS --local -c a.toml");
    assert!(ran.code == 0 && ran.out.contains("receiver: ended: this site is the master since epoch 3"), "{ran:?}");
    // A newer master has shipped there since: it is none, whatever it was told.
    fs::write(rig.path("a/.repl/epoch"), "v=1 epoch=4\n").unwrap();
    rig.run("$STATUS --local -c a.toml").fails(10, "no repl-apply has said");
}
