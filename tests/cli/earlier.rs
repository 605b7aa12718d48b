//! Receivers of earlier runs with the same state: what they lack stays, until somebody lets them go.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use super::rig::{APPLY, Rig, eventually, noise, segments};

const PRUNE: &str = "$PRUNE --state state --pattern log.%S --min-free 0";

fn with_segments(count: u64) -> Rig {
    let rig = Rig::new();
    (1..=count).for_each(|sequence| rig.write(&format!("log.{sequence}"), noise(5000, sequence)));
    rig
}

fn via(name: &str) -> String {
    format!("exec {APPLY} --acks --logs-only {name}")
}

fn pass(rig: &Rig, name: &str, options: &str) {
    rig.ok(&format!("$SHIP -S --state state --pattern log.%S {options} --via '{}' master", via(name)));
}

fn oldest(rig: &Rig) -> String {
    segments(&rig.master()).into_keys().min().unwrap()
}

/// What is kept in mind of receivers of earlier runs.
fn earlier(rig: &Rig) -> Vec<Value> {
    let entries = fs::read_dir(rig.path("state/receivers")).into_iter().flatten();
    entries.map(|entry| serde_json::from_slice(&fs::read(entry.unwrap().path()).unwrap()).unwrap()).collect()
}

#[test]
fn bug_what_a_receiver_of_an_earlier_run_lacks_was_given_up() {
    let rig = with_segments(5);
    pass(&rig, "far", "--until 1-2:5");
    pass(&rig, "near", "");
    rig.ok(&format!("{PRUNE} master"));
    assert_eq!(oldest(&rig), "log.2");
    let kept = earlier(&rig);
    assert_eq!((kept.len(), &kept[0]["receiver"], &kept[0]["proven"]), (1, &via("far").into(), &"1-2:5".into()));
    assert!(kept[0]["last_ack"].is_string(), "{kept:?}");
    // It is named wherever one asks.
    let named = format!("receiver '{}'", via("far"));
    for how in ["-n", "-v", "--json", "--explain log.2"] {
        let said = rig.ok(&format!("{PRUNE} {how} master"));
        assert!(said.contains(&named), "{how}: {said}");
    }

    // When it comes back, it is the other that is of an earlier run; and that has all.
    pass(&rig, "far", "");
    assert_eq!(earlier(&rig).iter().map(|one| one["receiver"].clone()).collect::<Vec<_>>(), [via("near")]);
    rig.write("log.6", noise(5000, 6));
    pass(&rig, "far", "");
    rig.ok(&format!("{PRUNE} master"));
    assert_eq!(oldest(&rig), "log.5");
}

#[test]
fn a_receiver_of_an_earlier_run_is_let_go_by_name_and_no_other_is() {
    let rig = with_segments(5);
    pass(&rig, "far", "--until 1-2:5");
    pass(&rig, "near", "--until 1-4:5");
    let forget = |name: &str| rig.run(&format!("{PRUNE} --reason gone --forget '{}' master", via(name)));
    forget("near").fails(2, "is one of those that repl-ship ships to");
    forget("farther").fails(2, "there is no receiver");
    assert_eq!(forget("far").code, 0);
    forget("far").fails(2, "there is no receiver");
    assert_eq!(oldest(&rig), "log.1", "nothing was pruned");
    assert!(rig.ok("cat state/history.jsonl").contains("--logs-only far"));
    rig.ok(&format!("{PRUNE} master"));
    assert_eq!(oldest(&rig), "log.4");
    // One that never had anything needs nothing; and what cannot be read keeps all.
    rig.run("$SHIP -S --state state --pattern log.%S --retry-for 0s --via 'exit 8' master").fails(8, "");
    pass(&rig, "near", "");
    assert!(earlier(&rig).is_empty());
    pass(&rig, "far", "--from latest; true");
    fs::write(rig.path("state/receivers/0123456789abcdef.json"), "{\"v\":1}\n").unwrap();
    rig.run(&format!("{PRUNE} master")).fails(6, "0123456789abcdef.json is damaged");
}

/// A configuration with sites by these names.
fn configure(rig: &Rig, names: &[&str]) {
    let site = |name: &&str| format!("[[site]]\nname = \"{name}\"\nvia = \"{}\"\n", via(name));
    let (logdir, state) = (rig.master(), rig.path("state"));
    let paths = format!("logdir = \"{}\"\nstate = \"{}\"\n", logdir.display(), state.display());
    let sites: String = names.iter().map(site).collect();
    let text = format!("{paths}pattern = \"log.%S\"\n[ship]\nheartbeat = \"100ms\"\n{sites}");
    fs::write(rig.path("shop.toml"), text).unwrap();
}

#[test]
fn a_site_that_is_taken_out_of_the_configuration_is_let_go_by_hup_and_by_a_start() {
    let rig = with_segments(5);
    configure(&rig, &["venus", "mars", "pluto"]);
    rig.ok("$SHIP -S -c shop.toml --until 1-2:5");
    // Another run has somebody else; the sites are sites still.
    pass(&rig, "tape", "--until 1-3:5");
    assert_eq!(earlier(&rig).len(), 3);
    rig.ok(&format!("{PRUNE} master"));
    assert_eq!(oldest(&rig), "log.2");

    configure(&rig, &["venus", "mars"]);
    let mut ship = rig.spawn("exec $SHIP -c shop.toml");
    eventually("a sender", || rig.run("$WAIT now --state state --ack all --timeout 60s").code == 0);
    assert_eq!(earlier(&rig).iter().map(|one| one["receiver"].clone()).collect::<Vec<_>>(), [via("tape")]);
    eventually("what two have", || {
        rig.ok(&format!("{PRUNE} master"));
        oldest(&rig) == "log.3"
    });
    // Who is not of the configuration is let go while the sender runs, too.
    rig.ok(&format!("{PRUNE} --forget '{}' master", via("tape")));
    configure(&rig, &["venus"]);
    ship.signal(Signal::HUP);
    let status = || fs::read_to_string(rig.path("state/status.json")).unwrap();
    eventually("one site", || !status().contains("mars"));
    ship.signal(Signal::TERM);
    assert_eq!(ship.wait().code, 0);
    pass(&rig, "tape", "");
    assert_eq!(earlier(&rig).iter().map(|one| one["name"].clone()).collect::<Vec<_>>(), ["venus"]);
}

/// The sample is frozen: what it says holds for every later release.
#[test]
fn what_was_kept_in_mind_by_an_earlier_release_is_read() {
    const SAMPLE: &str = include_str!("../data/receiver-v1.json");
    let rig = with_segments(3);
    rig.ok("mkdir -p state/receivers");
    let here = rig.master().canonicalize().unwrap().display().to_string();
    fs::write(rig.path("state/receivers/0123456789abcdef.json"), SAMPLE.replace("/srv/log", &here)).unwrap();
    rig.ok(&format!("{PRUNE} master"));
    assert_eq!(oldest(&rig), "log.2");
    let said = rig.ok(&format!("{PRUNE} --explain log.2 master"));
    assert!(said.contains("receiver 'ssh mars repl-apply --acks /replica'"), "{said}");
}

#[test]
fn an_archive_keeps_what_an_earlier_receiver_of_it_lacks() {
    let rig = with_segments(5);
    // With its first segment it would be left as it is.
    rig.ok("rm master/log.1");
    pass(&rig, "replica", "");
    let on = |to: &str, until: &str| format!("$SHIP -S --state on {until} --via '{}' replica", via(to));
    rig.ok(&format!("{} && {}", on("far", "--until 1-3:5"), on("near", "")));
    rig.ok("$PRUNE --sender on --consumer tape=1-5:0 replica && $PRUNE --sender on replica");
    let held = || segments(&rig.replica()).into_keys().filter(|name| name.starts_with("log.")).min().unwrap();
    assert_eq!(held(), "log.3");
    rig.ok(&format!("$PRUNE --sender on --forget '{}' replica && $PRUNE --sender on replica", via("far")));
    assert_eq!(held(), "log.5");
}
