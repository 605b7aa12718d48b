//! `repl-role init`, `show`, `pause` and `resume`: what a site was told, and who goes by it.

use std::fs;

use crate::craft::{Stream, hello, position, taken};
use crate::rig::{Ran, Rig, Running, eventually};

fn ship(rig: &Rig, more: &str) -> Ran {
    rig.run(&format!(
        "$SHIP -S --pattern log.%S --set orders --retry-for 1ms --state st {more} --via \"$APPLY --acks replica\" master"
    ))
}

fn with_log() -> Rig {
    let rig = Rig::new();
    rig.write("log.1", "abc");
    rig
}

/// A file that the receiver keeps.
fn state(rig: &Rig, name: &str) -> String {
    fs::read_to_string(rig.replica().join(".repl").join(name)).unwrap()
}

const INIT: &str = "$ROLE init --master --site mars --state st --pattern log.%S";

#[test]
fn a_master_is_told_once_and_ships_in_its_epoch() {
    let rig = with_log();
    assert_eq!(rig.ok(&format!("{INIT} -n master")), "mars would be the master, epoch 1\n");
    assert!(!rig.path("st").exists());
    assert_eq!(rig.ok(&format!("{INIT} --reason 'new set' master")), "mars is the master, epoch 1\n");
    assert!(rig.ok("cat st/role").starts_with("v=1 role=master site=mars epoch=1 crc="));
    let history = rig.ok("cat st/history.jsonl");
    assert!(history.contains("\"init\"") && history.contains("new set"), "{history}");
    assert_eq!(rig.ok(&format!("{INIT} master")), "mars was already the master, epoch 1\n");
    rig.run("$ROLE init --master --site venus --state st --pattern log.%S master").fails(5, "by the name 'mars'");
    assert_eq!(rig.ok("ls -A master; cat st/history.jsonl"), format!("log.1\n{history}"), "nothing else is touched");
    assert_eq!(ship(&rig, "").code, 0);
    assert_eq!(state(&rig, "epoch"), "v=1 epoch=1\n");
    // A new epoch is the operator's word that there is a new master; an older one is none.
    assert_eq!(rig.ok(&format!("{INIT} --epoch 4 master")), "mars is the master, epoch 4\n");
    rig.run(&format!("{INIT} --epoch 3 master")).fails(5, "epoch 3 is older than 4");
    rig.append("log.1", "d");
    assert_eq!(ship(&rig, "").code, 0);
    assert_eq!(state(&rig, "epoch"), "v=1 epoch=4\n");
}

#[test]
fn a_clone_is_taken_with_an_epoch_of_its_own() {
    let rig = with_log();
    assert_eq!(ship(&rig, "").code, 0);
    rig.ok("mv master old; cp -a old master; rm -r st; printf d >> master/log.1");
    ship(&rig, "").fails(5, "another instance");
    rig.ok(&format!("{INIT} master"));
    assert_eq!(ship(&rig, "").code, 0);
    rig.assert_equal();
}

#[test]
fn what_is_no_masters_directory_is_not_taken_for_one() {
    let rig = with_log();
    assert_eq!(ship(&rig, "").code, 0);
    let init = |dir: &str| rig.run(&format!("$ROLE init --master --state new {dir}"));
    init("replica").fails(5, "replica is a receiver's: what it holds is of another master");
    rig.ok("mkdir empty");
    init("empty").fails(13, "hint: name the log directory, or its kind by --engine or --pattern; or --allow-empty");
    assert!(!rig.path("new/role").exists());
    let name = rig.ok("hostname");
    assert_eq!(rig.ok("$ROLE init --master --allow-empty --state new empty").split(' ').next(), Some(name.trim()));
    init("nowhere").fails(1, "nowhere");
}

#[test]
fn one_that_was_told_to_receive_ships_nothing() {
    let rig = with_log();
    rig.ok(&format!("{INIT} master"));
    // As a switchover leaves it.
    let facts = "v=1 role=receiver site=mars epoch=2";
    fs::write(rig.path("st/role"), format!("{facts} crc={:08x}\n", crc32c::crc32c(facts.as_bytes()))).unwrap();
    let ran = ship(&rig, "");
    ran.fails(5, "this site is a receiver since epoch 2");
    ran.fails(5, "hint: repl-role where");
    assert!(!rig.replica().exists());
    rig.run(&format!("{INIT} --epoch 9 master")).fails(5, "hint: repl-role switchover --to mars");
    fs::write(rig.path("st/role"), format!("{facts} crc=00000000\n")).unwrap();
    ship(&rig, "").fails(6, "st/role is damaged");
}

#[test]
fn show_tells_what_is_known_and_changes_nothing() {
    let rig = with_log();
    let all = rig.ok("$ROLE show --pattern log.%S --state st master");
    assert!(all.starts_with("role      not told\nepoch     0\n") && !rig.path("st").exists(), "{all}");
    rig.ok(&format!("{INIT} master"));
    assert_eq!(ship(&rig, "").code, 0);
    let all = rig.ok("$ROLE show --pattern log.%S --state st master");
    for line in ["role      master\n", "epoch     1\n", "site      mars\n", "engine    plain\n", "instance  "] {
        assert!(all.contains(line), "{line}: {all}");
    }
    let there = rig.ok("$ROLE show --state none replica");
    for line in ["role      receiver\n", "epoch     1\n", "set       orders\n", "held      1-1:3+"] {
        assert!(there.contains(line), "{line}: {there}");
    }
    let instance = |text: &str| text.lines().find(|line| line.starts_with("instance")).map(str::to_owned);
    assert_eq!(instance(&all), instance(&there), "a replica speaks for its master");
    let object: serde_json::Value = serde_json::from_str(&rig.ok("$ROLE show --json --state none replica")).unwrap();
    assert_eq!(
        (object["v"].as_u64(), object["role"].as_str(), object["epoch"].as_u64()),
        (Some(1), Some("receiver"), Some(1))
    );
    assert!(object["held"].as_str().unwrap().starts_with("1-1:3+") && object["paused"]["ship"].is_null(), "{object}");
    assert!(!rig.path("none").exists());
}

#[test]
fn a_pass_that_is_paused_is_refused_until_it_is_resumed() {
    let rig = with_log();
    rig.run("$ROLE pause ship --state st master").fails(2, "--reason");
    assert_eq!(rig.ok("$ROLE pause ship -n --reason x --state st master"), "would pause ship\n");
    rig.ok("$ROLE pause ship --reason 'disk swap' --state st master");
    for how in ["", "--segment master/log.1"] {
        let log = if how.is_empty() { "master" } else { "" };
        let ran = rig.run(
            &format!("$SHIP -S {how} --pattern log.%S --state st --via \"$APPLY --acks replica\" {log}; exit $?")
                .replace("-S --segment", "--segment"),
        );
        ran.fails(13, "ship is paused since 20");
        ran.fails(13, ": disk swap\nhint: repl-role resume ship --reason TEXT master");
    }
    assert!(!rig.replica().exists());
    assert!(rig.ok("$ROLE pause ship --reason other --state st master").contains("is paused since"));
    let all = rig.ok("$ROLE show --state st --pattern log.%S master");
    assert!(all.contains("paused    ship since 20") && all.ends_with(": disk swap\n"), "{all}");
    assert!(rig.ok("$ROLE resume ship --reason done --state st master").starts_with("ship goes on"));
    assert_eq!(rig.ok("$ROLE resume ship --state st master"), "ship was not paused\n");
    assert_eq!(ship(&rig, "").code, 0);
    let history = rig.ok("cat st/history.jsonl");
    let said: Vec<_> = ["\"pause\"", "disk swap", "\"resume\"", "done"].map(|word| history.contains(word)).into();
    assert_eq!(said, [true; 4], "{history}");
}

#[test]
fn a_receiver_that_is_paused_is_tried_again_and_goes_on_where_it_was() {
    let rig = with_log();
    rig.run("$ROLE pause apply --reason x master").fails(1, "no receiver has ever been at master");
    assert_eq!(ship(&rig, "").code, 0);
    rig.ok("$ROLE pause apply --reason 'file system check' replica");
    rig.append("log.1", "d");
    // It is busy, so a sender comes again, and gives up when it is told how long.
    let ran = ship(&rig, "");
    ran.fails(8, "apply is paused since");
    ran.fails(8, "file system check");
    assert_eq!(position(&rig.replica()).split('+').next(), Some("1-1:3"));
    // One that runs stops at the next bytes.
    rig.ok("$ROLE resume apply replica");
    let mut ship = rig.spawn(
        "exec $SHIP --pattern log.%S --set orders --state st --poll 10ms --via \"$APPLY --acks replica\" master",
    );
    let holds = |at: &'static str| position(&rig.replica()).starts_with(at);
    eventually("what was left", || holds("1-1:4"));
    rig.ok("$ROLE pause apply --reason again replica");
    rig.append("log.1", "e");
    eventually("the refusal", || ship.err().contains("apply is paused since"));
    assert!(holds("1-1:4"), "{}", ship.err());
    rig.ok("$ROLE resume apply replica");
    eventually("what came meanwhile", || holds("1-1:5"));
    end(&mut ship);
}

fn end(ship: &mut Running) {
    ship.signal(rustix::process::Signal::TERM);
    assert_eq!(ship.wait().code, 0);
}

#[test]
fn feeding_can_be_paused_while_log_lands() {
    let rig = Rig::new();
    let feed = "--feed 'echo $REPL_SEGMENT >> fed'";
    let of = || Stream::of(&hello());
    taken(&rig, "", of().begin(1).data(b"abc").bye());
    rig.ok("$ROLE pause feed --reason report replica");
    let apply = |stream: &Stream| {
        fs::write(rig.path("stream"), &stream.bytes).unwrap();
        rig.ok(&format!("$APPLY {feed} replica < stream"));
    };
    apply(of().begin_after(1, b"abc").end().begin(2).data(b"d").bye());
    assert!(!rig.path("fed").exists() && position(&rig.replica()).starts_with("1-2:1"));
    rig.ok("$ROLE resume feed replica");
    apply(of().begin_after(2, b"d").bye());
    assert_eq!(rig.ok("cat fed"), "log.1\n");
}

#[test]
fn an_environment_of_which_nothing_tells_whether_it_is_in_use_is_not_recovered() {
    let rig = Rig::new();
    rig.ok("mkdir master/.repl st; head -c 1024 /dev/zero > master/.repl/position; cp $ROLE role; chmod 755 role .");
    let ask = "become -n --epoch 9 --engine bdb --state st master";
    // Another's processes do not show.
    let ran = rig.run(&format!("setpriv --reuid nobody --clear-groups ./role {ask}"));
    ran.fails(13, "nothing tells whether master is in use");
    ran.fails(13, "hint: status = \"CMD\" in [server]");
    // Ours do; there is no other objection than that nobody could start it.
    rig.run(&format!("./role {ask}")).fails(13, "nothing says how the server of master is started");
}
