//! Which instance ships: a clone of a server is told from the server itself, and nothing of the original is harmed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use repl::rule::instance::Instance;
use repl::rule::stream::hello::Hello;

use crate::craft::{Stream, hello, refused, taken};
use crate::rig::{Ran, Rig, segments};

/// A pass from a directory, by a state, into `replica`.
fn pass(rig: &Rig, from: &str, state: &str, apply: &str) -> Ran {
    rig.run(&format!(
        "$SHIP -S --pattern log.%S --set orders --retry-for 1ms --state {state} --via \"$APPLY --acks {apply} replica\" {from}"
    ))
}

/// A replica that has what a master has shipped.
fn shipped() -> Rig {
    let rig = Rig::new();
    rig.write("log.1", "abc");
    assert_eq!(pass(&rig, "master", "st", "").code, 0);
    rig
}

/// All that a receiver has, but for its lock and its report.
fn all(dir: &Path) -> BTreeMap<String, blake3::Hash> {
    let mut all = segments(&dir.join(".repl"));
    // What was refused is told there.
    all.remove("status.json");
    all.remove("lock");
    all.extend(segments(dir));
    all
}

/// Whether the machine has an identity: only then a place is known by more than the sender's state.
fn has_identity() -> bool {
    fs::read_to_string("/etc/machine-id").is_ok_and(|text| text.trim().len() == 32)
}

#[test]
fn a_clone_of_the_master_is_refused_with_its_state_and_without() {
    for copy in ["cp -a master clone; cp -a st clone-st", "cp -a master clone"] {
        let rig = shipped();
        rig.ok(&format!("{copy}; printf d >> clone/log.1; printf e >> master/log.1"));
        let before = all(&rig.replica());
        let ran = pass(&rig, "clone", "clone-st", "");
        ran.fails(5, "another instance than the one that ships here in epoch 0");
        ran.fails(5, "hint: if it is the master now: repl-role init --master --epoch N there");
        assert_eq!(all(&rig.replica()), before, "{copy}");
        assert_eq!(pass(&rig, "master", "st", "").code, 0);
        rig.assert_equal();
        pass(&rig, "clone", "clone-st", "--set-aside").fails(5, "another instance");
        rig.assert_equal();
    }
}

#[test]
fn the_same_server_stays_the_same() {
    let rig = shipped();
    // Its state is lost; its directory has another name; its state is elsewhere.
    if has_identity() {
        rig.append("log.1", "d");
        assert_eq!(pass(&rig, "master", "new", "").code, 0);
        rig.assert_equal();
        rig.ok("mv new st-before; mv st-before st2");
    }
    rig.ok("mv master other; printf e >> other/log.1; cp -a st moved");
    assert_eq!(pass(&rig, "other", "moved", "").code, 0);
    assert_eq!(fs::read(rig.replica().join("log.1")).unwrap(), fs::read(rig.path("other/log.1")).unwrap());
    // Without a state nothing is said, as by an older release.
    let ran = rig.run(
        "env -u HOME XDG_STATE_HOME=/dev/null $SHIP --pattern log.%S --set orders -S other | $APPLY replica; exit $?",
    );
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn the_operator_can_take_another_instance_and_the_history_says_why() {
    let rig = shipped();
    rig.ok("cp -a master clone; printf d >> clone/log.1");
    pass(&rig, "clone", "clone-st", "").fails(5, "another instance");
    assert_eq!(pass(&rig, "clone", "clone-st", "--adopt --reason 'the old one burnt'").code, 0);
    assert_eq!(fs::read(rig.replica().join("log.1")).unwrap(), b"abcd");
    let history = fs::read_to_string(rig.replica().join(".repl/history.jsonl")).unwrap();
    let line = history.lines().last().unwrap();
    assert!(line.contains("\"adopt\"") && line.contains("the old one burnt") && line.contains("instead of"), "{line}");
    // From now on it is the other way round, and told once is enough.
    assert_eq!(pass(&rig, "clone", "clone-st", "").code, 0);
    pass(&rig, "master", "st", "").fails(5, "another instance");
}

#[test]
fn nobody_adopts_from_the_wire() {
    let rig = shipped();
    rig.ok("cp -a master clone; printf d >> clone/log.1");
    let before = all(&rig.replica());
    let far = "SSH_ORIGINAL_COMMAND='repl-apply --acks --adopt replica' $APPLY --restrict . --append-only";
    let ran = rig.run(&format!("$SHIP -S --pattern log.%S --set orders --state clone-st --via \"{far}\" clone"));
    ran.fails(2, "refused by --restrict");
    let far = "SSH_ORIGINAL_COMMAND='repl-apply --acks replica' $APPLY --restrict . --append-only";
    let ran = rig.run(&format!("$SHIP -S --pattern log.%S --set orders --state clone-st --via \"{far}\" clone"));
    ran.fails(5, "another instance");
    assert_eq!(all(&rig.replica()), before);
    rig.append("log.1", "e");
    let ran = rig.run(&format!("$SHIP -S --pattern log.%S --set orders --state st --via \"{far}\" master"));
    assert_eq!(ran.code, 0, "{ran:?}");
}

/// An instance with these two digits for all of its identity and its place.
fn instance(id: char, place: char) -> Option<Instance> {
    Instance::parse(&format!("{}.{}", id.to_string().repeat(32), place.to_string().repeat(16)))
}

#[test]
fn a_newer_epoch_is_another_masters_and_an_older_one_stays_refused() {
    let rig = Rig::new();
    let of = |epoch, instance| Stream::of(&Hello { epoch, instance, ..hello() });
    let (one, other) = (instance('a', 'a'), instance('b', 'b'));
    taken(&rig, "", of(3, one.clone()).begin(1).data(b"abc").bye());
    refused(&rig, "", of(3, other.clone()).begin_after(1, b"abc").data(b"d"), 5, "another instance");
    // A newer one counts only with a beginning that is proven.
    refused(&rig, "", of(4, other.clone()).begin_after(1, b"abX").data(b"d"), 4, "diverged");
    taken(&rig, "", of(3, one.clone()).begin_after(1, b"abc").bye());
    taken(&rig, "", of(4, other.clone()).begin_after(1, b"abc").data(b"d").bye());
    refused(&rig, "--adopt", of(3, one.clone()).begin_after(1, b"abcd"), 5, "no longer the master");
    refused(&rig, "", of(4, one.clone()).begin_after(1, b"abcd"), 5, "another instance");
    // The record of who ships is written first; a crash before the epoch's leaves no way back.
    fs::write(rig.replica().join(".repl/epoch"), "v=1 epoch=3\n").unwrap();
    refused(&rig, "", of(3, one.clone()).begin_after(1, b"abcd"), 5, "no longer the master");
    taken(&rig, "", of(4, other).begin_after(1, b"abcd").bye());
    let master = rig.ok("cat replica/.repl/instance");
    assert!(
        master.starts_with(&format!("v=1 instance={}.{} epoch=4 crc=", "b".repeat(32), "b".repeat(16))),
        "{master}"
    );
    fs::write(rig.replica().join(".repl/instance"), "v=1 instance=b\n").unwrap();
    refused(&rig, "", of(4, one).begin_after(1, b"abcd"), 6, ".repl/instance is damaged");
}

#[test]
fn a_replica_speaks_for_its_master_so_that_a_cascade_can_be_hung_anew() {
    let rig = shipped();
    let on = |from: &str, state: &str| {
        rig.run(&format!("$SHIP -S --set orders --pattern log.%S --state {state} --via \"$APPLY --acks leaf\" {from}"))
    };
    assert_eq!(on("replica", "replica-st").code, 0);
    rig.append("log.1", "d");
    assert_eq!(on("master", "st").code, 0);
    rig.append("log.1", "e");
    assert_eq!((pass(&rig, "master", "st", "").code, on("replica", "replica-st").code), (0, 0));
    assert_eq!(segments(&rig.path("leaf")), segments(&rig.master()));
    assert!(!rig.path("replica-st/instance").exists(), "a replica is no instance");
    // A clone of the master is not let in through the other door, either.
    rig.ok("cp -a master clone; printf f >> clone/log.1");
    on("clone", "clone-st").fails(5, "another instance");
}

#[test]
fn a_record_that_is_damaged_is_told_and_can_be_made_anew() {
    let rig = shipped();
    let text = rig.ok("cat st/instance");
    assert!(text.starts_with("v=1 id=") && text.contains(" machine=") && text.contains(" boot="), "{text}");
    fs::write(rig.path("st/instance"), "v=1 id=x\n").unwrap();
    pass(&rig, "master", "st", "").fails(6, "st/instance is damaged");
    if has_identity() {
        rig.ok("rm st/instance");
        assert_eq!(pass(&rig, "master", "st", "").code, 0);
    }
}
