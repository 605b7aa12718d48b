//! `repl-role switchover` between two sites on one machine, and `where`: the order of its steps, what undoes it, and a
//! kill before each durable step. The databases are plain logs, so that each round is quick; real ones are in
//! `tests/switchover.rs`.

use std::fs;

use crate::rig::{Ran, Rig, Running, Sshd, eventually, segments};

/// Two sites, `a` (the master, told so) and `b`, which has all of its log. Their servers' commands note what is done.
pub(crate) fn pair() -> Rig {
    let rig = Rig::new();
    rig.ok("mkdir a bin; ln -s $ROLE bin/repl-role; ln -s $APPLY bin/repl-apply; ln -s $SHIP bin/repl-ship");
    for (here, there) in [("a", "b"), ("b", "a")] {
        let root = rig.root.path().display();
        let act = |verb: &str, does: &str| format!("{verb} = \"echo {here} {verb} >> {root}/acts; {does}\"\n");
        let text = format!(
            "set = \"orders\"\nhere = \"{here}\"\naddress = \"{here}.example.org:5432\"\nengine = \"plain\"\n\
             pattern = \"log.%S\"\nlogdir = \"{root}/{here}\"\nstate = \"{root}/{here}-state\"\n[server]\n{}{}{}{}{}\
             [[site]]\nname = \"{there}\"\nrsh = \"env PATH={root}/bin:/usr/bin:/bin {root}/rsh\"\n\
             config = \"{root}/{there}.toml\"\n",
            act("stop", &format!("rm {root}/{here}-runs")),
            act("start", &format!("touch {root}/{here}-runs")),
            format_args!("status = \"[ -e {root}/{here}-runs ]\"\n"),
            act("promote", &format!("touch {root}/{here}-runs")),
            act("demote", "true"),
        );
        fs::write(rig.path(&format!("{here}.toml")), text).unwrap();
    }
    fs::write(rig.path("rsh"), "#!/bin/sh\n[ ! -e down ] || exit 255\nexec sh -c \"$1\"\n").unwrap();
    rig.ok("chmod 755 rsh; chmod 600 *.toml; printf 'one\\n' > a/log.1; printf 'two' > a/log.2; touch a-runs");
    rig.ok("$ROLE init --master -q -c a.toml");
    assert_eq!(ship(&rig, "a", "b").code, 0);
    rig.ok("printf ' and three' >> a/log.2");
    rig
}

pub(crate) fn ship(rig: &Rig, from: &str, to: &str) -> Ran {
    rig.run(&format!(
        "$SHIP -S --set orders --pattern log.%S --state {from}-state --retry-for 1ms \
         --via \"$APPLY --acks -c {to}.toml\" {from}"
    ))
}

pub(crate) fn switch(rig: &Rig, from: &str, to: &str, more: &str) -> Ran {
    rig.run(&format!("$ROLE switchover --to {to} {more} -c {from}.toml"))
}

/// `to` is the master, `from` follows, nobody lost anything, and it goes on the other way round.
#[track_caller]
pub(crate) fn switched(rig: &Rig, from: &str, to: &str, epoch: u64) {
    let show = |site: &str| rig.ok(&format!("$ROLE show -c {site}.toml"));
    for (site, role) in [(from, "receiver"), (to, "master")] {
        let all = show(site);
        assert!(all.starts_with(&format!("role      {role}\nepoch     {epoch}\n")), "{site}: {all}");
    }
    for site in [from, to] {
        assert_eq!(rig.ok(&format!("$ROLE where -c {site}.toml")), format!("{to}.example.org:5432\n"));
    }
    ship(rig, from, to).fails(5, "this site is a receiver since epoch");
    assert_eq!(rig.ok("ls a b"), "a:\nlog.1\nlog.2\n\nb:\nlog.1\nlog.2\n");
    rig.ok("cmp a/log.1 b/log.1; cmp a/log.2 b/log.2");
    assert!(rig.path(&format!("{to}-runs")).exists() && !rig.path(&format!("{from}-runs")).exists());
    rig.ok(&format!("echo {epoch} >> {to}/log.2"));
    let ran = ship(rig, to, from);
    assert_eq!(ran.code, 0, "{ran:?}");
    rig.ok("cmp a/log.2 b/log.2");
}

#[test]
fn the_roles_change_in_order_and_change_back() {
    let rig = pair();
    assert_eq!(rig.ok("$ROLE where -c b.toml; $ROLE where -c a.toml"), "a.example.org:5432\n".repeat(2));
    let plan = switch(&rig, "a", "b", "-n").out;
    assert!(plan.contains("b can be reached and holds this master's log to 1-2:3; it ends at 1-2:13\n"), "{plan}");
    assert!(plan.contains("epoch 2: the point of no return"), "{plan}");
    assert!(!rig.path("acts").exists() && !rig.path("a-state/switchover").exists());
    let ran = switch(&rig, "a", "b", "--reason 'new machine'");
    assert_eq!((ran.code, ran.out.as_str()), (0, "b is the master\n"), "{ran:?}");
    assert_eq!(rig.ok("cat acts"), "a stop\na demote\nb promote\n");
    for history in ["a-state", "b-state"] {
        assert!(rig.ok(&format!("cat {history}/history.jsonl")).contains("new machine"), "{history}");
    }
    // Told again, it was done.
    assert_eq!(switch(&rig, "a", "b", "-q").code, 0);
    assert_eq!(rig.ok("cat acts"), "a stop\na demote\nb promote\n");
    switched(&rig, "a", "b", 2);
    assert_eq!(switch(&rig, "b", "a", "").code, 0);
    switched(&rig, "b", "a", 3);
}

#[test]
fn what_fails_before_the_point_of_no_return_leaves_the_master_as_it_was() {
    let rig = pair();
    let intact = || {
        assert!(rig.path("a-runs").exists() && !rig.path("a-state/switchover").exists());
        assert!(rig.ok("$ROLE show -c a.toml").starts_with("role      master\nepoch     1\n"));
        assert_eq!(ship(&rig, "a", "b").code, 0);
    };
    switch(&rig, "a", "c", "").fails(2, "no [[site]] of the configuration has the name 'c'");
    switch(&rig, "b", "a", "").fails(5, "nobody has said that this site is the master");
    rig.ok("touch down");
    switch(&rig, "a", "b", "").fails(8, "at b: ");
    rig.ok("rm down");
    for (breaks, mends, code, says) in [
        ("$ROLE pause apply --reason x -c b.toml", "$ROLE resume apply -c b.toml", 13, "apply is paused at b"),
        ("$ROLE pause ship --reason x -c a.toml", "$ROLE resume ship -c a.toml", 13, "ship is paused"),
        ("cp b/log.2 was; printf x > b/log.2; rm -r b/.repl", "true", 3, "b holds nothing of this master's log"),
    ] {
        rig.ok(breaks);
        switch(&rig, "a", "b", "").fails(code, says);
        assert!(!rig.path("acts").exists(), "{says}: nothing was stopped");
        rig.ok(mends);
    }
    rig.ok("rm -r b");
    intact();
    // The stop command fails; and the last byte does not arrive, since a receiver is at work that is not ours.
    rig.ok("sed -i.bak 's/^stop = .*/stop = \"exit 3\"/' a.toml");
    switch(&rig, "a", "b", "").fails(9, "nothing was switched, the master goes on: cannot stop the master's server");
    rig.ok("mv a.toml.bak a.toml; printf ' more' >> a/log.2");
    let ran = rig.run("exec 9< b; flock 9; $ROLE switchover --to b --timeout 1s -c a.toml 9<&-; exit $?");
    ran.fails(10, "nothing was switched, the master goes on: b does not come to 1-2:18");
    assert_eq!(rig.ok("cat acts"), "a stop\na start\n");
    intact();
    assert_eq!(switch(&rig, "a", "b", "").code, 0);
    switched(&rig, "a", "b", 2);
}

/// A switchover that is killed at one of its calls, in itself or in what it runs at the other site; whether it was.
fn killed(rig: &Rig, [from, to]: [&str; 2], is_there: bool, call: &str, step: u32) -> bool {
    let kill = format!("strace -o /dev/null -e trace={call} -e inject={call}:signal=KILL:when={step}");
    if !is_there {
        // (What it starts is not traced.)
        return rig.run(&format!("{kill} $ROLE switchover --to {to} -c {from}.toml")).code != 0;
    }
    let kill = format!("exec {} sh -c \"$1\"", kill.replace("strace", "strace -f"));
    let script = format!("#!/bin/sh\ncase $1 in *become*-n*) ;; *become*) {kill} ;; esac\nexec sh -c \"$1\"\n");
    let plain = fs::read(rig.path("rsh")).unwrap();
    fs::write(rig.path("rsh"), script).unwrap();
    let is_killed = switch(rig, from, to, "").code != 0;
    fs::write(rig.path("rsh"), plain).unwrap();
    is_killed
}

/// What is durable is made so by a rename or a removal; the kill comes before it.
#[test]
fn killed_before_each_step_at_either_site_and_run_again_it_ends_the_same() {
    let rig = pair();
    let (mut sites, mut epoch) = (["a", "b"], 1);
    for (is_there, call, least) in
        [(false, "renameat", 8), (true, "renameat", 3), (false, "unlinkat", 1), (true, "unlinkat", 1)]
    {
        for step in 1.. {
            let [from, to] = sites;
            rig.ok(&format!("printf 'more ' >> {from}/log.2"));
            let is_killed = killed(&rig, sites, is_there, call, step);
            // Nobody was told to be the master while the other one was it.
            let roles = rig.ok("cat a-state/role; cat b-state/role 2>/dev/null || :");
            assert!(roles.matches("role=master").count() <= 1, "{is_there} {call} {step}: {roles}");
            let ran = switch(&rig, from, to, "");
            assert_eq!(ran.code, 0, "{is_there} {call} {step}: {ran:?}");
            epoch += 1;
            if !is_killed {
                assert!(step > least, "{call}: {step}");
                switched(&rig, from, to, epoch);
            }
            ship(&rig, from, to).fails(5, "this site is a receiver since epoch");
            rig.ok(&format!("cmp a/log.2 b/log.2; printf {epoch} >> {to}/log.2"));
            let ran = ship(&rig, to, from);
            assert_eq!(ran.code, 0, "{is_there} {call} {step}: {ran:?}");
            sites = [to, from];
            if !is_killed {
                break;
            }
        }
    }
}

/// A role that cannot be written is the master's as before; one that is written, and of which nobody knows whether it would
/// outlive a power cut, counts.
#[test]
fn a_full_disk_at_the_point_of_no_return_is_undone_or_said_to_be_behind_it() {
    let rig = pair();
    let broken = |call: &str, step: u32| {
        let inject = format!("strace -o /dev/null -e trace={call} -e inject={call}:error=ENOSPC:when={step}");
        rig.run(&format!("{inject} $ROLE switchover --to b -c a.toml"))
    };
    // Before it stands what is to be done, the server's two steps, and the proven end.
    for step in [4, 5] {
        rig.ok("rm -f acts");
        broken("renameat", step).fails(12, "nothing was switched, the master goes on");
        assert_eq!(rig.ok("cat acts"), "a stop\na start\n");
        assert!(rig.path("a-runs").exists() && rig.ok("cat a-state/role").contains("role=master"), "{step}");
    }
    // Of each file, and then of the directory: it has its new name.
    rig.ok("rm acts");
    broken("fsync", 10).fails(12, "the point of no return is passed: run this again");
    assert_eq!(rig.ok("cat acts"), "a stop\n");
    assert_eq!(switch(&rig, "a", "b", "").code, 0);
    switched(&rig, "a", "b", 2);
}

#[test]
fn a_server_that_runs_again_behind_the_point_of_no_return_is_not_touched() {
    let rig = pair();
    let untouched = |code: i32, says: &str| {
        let before = rig.ok("cat acts a/log.2; ls -A a");
        switch(&rig, "a", "b", "").fails(code, says);
        assert_eq!(rig.ok("cat acts a/log.2; ls -A a"), before, "{says}");
    };
    let awake_and_asleep = || {
        // As a reboot starts it, and when it is stopped again.
        rig.ok("touch a-runs");
        untouched(13, "behind the point of no return to b this site's server runs again");
        rig.ok("rm a-runs; cp a/log.2 was; printf ' lost' >> a/log.2");
        untouched(4, "the server has run since");
        rig.ok("mv was a/log.2");
    };
    let plain = fs::read(rig.path("rsh")).unwrap();
    fs::write(rig.path("rsh"), "#!/bin/sh\ncase $1 in *become*--held*) exit 255 ;; esac\nexec sh -c \"$1\"\n").unwrap();
    switch(&rig, "a", "b", "").fails(8, "no site is the master until this is run again");
    fs::write(rig.path("rsh"), plain).unwrap();
    awake_and_asleep();
    // Killed when the other site is the master, and nothing was received here.
    let kill = "strace -o /dev/null -e trace=renameat -e inject=renameat:signal=KILL:when=2";
    assert_ne!(rig.run(&format!("{kill} $ROLE switchover --to b -c a.toml")).code, 0);
    assert!(rig.ok("cat a-state/switchover").contains("step=handed"));
    awake_and_asleep();
    assert_eq!(switch(&rig, "a", "b", "").code, 0);
    switched(&rig, "a", "b", 2);
}

#[test]
fn a_sender_that_runs_is_asked_once_to_end() {
    let rig = pair();
    assert_eq!(ship(&rig, "a", "b").code, 0);
    // One that has much to finish.
    let sender = "#!/bin/bash\nexec 9<> a-state/lock; flock 9; echo process $$ > a-state/lock\n\
                  trap 'echo asked >> asked' TERM; touch ready\n\
                  until [ -e asked ]; do sleep .02; done\nfor i in 1 2 3 4 5 6 7 8; do sleep .05; done\n";
    rig.ok("mkdir other");
    fs::write(rig.path("other/repl-ship"), sender).unwrap();
    rig.ok("chmod 755 other/repl-ship");
    let mut running = rig.spawn("exec other/repl-ship");
    eventually("the sender", || rig.path("ready").exists());
    assert_eq!(switch(&rig, "a", "b", "").code, 0);
    assert_eq!(running.wait().code, 0);
    assert_eq!(rig.ok("cat asked"), "asked\n");
    switched(&rig, "a", "b", 2);
}

#[test]
fn a_sender_by_another_state_is_found_before_anything_is_stopped() {
    // By its place alone it is the same instance.
    if !std::path::Path::new("/etc/machine-id").exists() {
        return;
    }
    let rig = pair();
    rig.ok("$ROLE init --master -q --epoch 1 --state other -c a.toml");
    let follow =
        "exec $SHIP --set orders --pattern log.%S --state STATE --poll 10ms --via \"$APPLY --acks -c b.toml\" a";
    let sender = rig.spawn(&follow.replace("STATE", "other"));
    eventually("the log", || rig.run("cmp -s a/log.2 b/log.2").code == 0);
    let ran = switch(&rig, "a", "b", "");
    ran.fails(13, "a receiver is at work at b, and no sender by ");
    ran.fails(13, "hint: name the directory of the sender that runs: --state DIR");
    assert!(!rig.path("acts").exists());
    drop(sender);
    let mut sender = rig.spawn(&follow.replace("STATE", "a-state"));
    eventually("the sender", || rig.run("flock -sn a-state/lock true").code != 0);
    assert_eq!(switch(&rig, "a", "b", "").code, 0);
    sender.wait();
    switched(&rig, "a", "b", 2);
}

#[test]
fn a_site_that_becomes_the_master_already_is_waited_for() {
    let rig = pair();
    let waits = format!("until [ -e {root}/go ]; do sleep .02; done; ", root = rig.root.path().display());
    rig.ok(&format!("sed -i 's|^promote = \"|&touch $PWD/begun; {waits}|' b.toml"));
    let start = |how: &str, name: &str| {
        Running::start(rig.sh(&format!("exec {how} $ROLE become --epoch 2 -c b.toml")), &rig.path(name))
    };
    let mut first = start("", "first");
    eventually("the promote command", || rig.path("begun").exists());
    let mut second = start("strace -o tried -e trace=flock", "second");
    let tried = || fs::read_to_string(rig.path("tried")).unwrap_or_default();
    eventually("its try", || tried().contains("EAGAIN"));
    rig.ok("touch go");
    assert_eq!(first.wait().out, "b is the master, epoch 2\n");
    let ran = second.wait();
    assert_eq!((ran.code, ran.out.as_str()), (0, "b is the master of epoch 2 already\n"), "{ran:?}");
    assert_eq!(rig.ok("cat acts"), "b promote\n");
}

#[test]
fn an_operator_whose_master_is_lost_can_promote_what_there_is() {
    let rig = pair();
    rig.ok("touch down");
    rig.run("$ROLE become --epoch 1 -c b.toml").fails(5, "epoch 1 is known here");
    assert!(rig.ok("$ROLE become -n --epoch 2 -c b.toml").starts_with("would make "));
    assert_eq!(rig.ok("$ROLE become --epoch 2 --reason 'a burnt' -c b.toml"), "b is the master, epoch 2\n");
    rig.ok("rm down; printf '!' >> b/log.2");
    // The old one comes back: it is fenced, and proxies are told of the new one.
    ship(&rig, "a", "b").fails(5, "it is no longer the master");
    assert_eq!(rig.ok("$ROLE where -c a.toml"), "b.example.org:5432\n");
    rig.run("$ROLE become --epoch 9 -c a.toml").fails(5, "is not a receiver's directory");
}

#[test]
fn a_master_that_was_replaced_and_receives_is_a_receiver_whatever_it_was_told() {
    let rig = pair();
    rig.ok("$ROLE become --epoch 2 --reason 'a burnt' -c b.toml");
    // Made anew from the new one, it follows; nobody tells it so.
    rig.ok("rm a-runs a/log.*");
    assert_eq!(ship(&rig, "b", "a").code, 0);
    assert!(rig.ok("cat a-state/role").contains("role=master"));
    let all = rig.ok("$ROLE show -c a.toml");
    assert!(all.starts_with("role      receiver\nepoch     2\n") && all.contains("held      1-2:"), "{all}");
    ship(&rig, "a", "b").fails(5, "this site is a receiver since epoch 2");
    rig.run("$ROLE init --master --epoch 9 -q -c a.toml").fails(5, "this site is a receiver since epoch 2");
    switch(&rig, "a", "b", "").fails(5, "this site is a receiver since epoch 2: it has nothing to hand over");
    // And so it can be made the master again, in order.
    assert_eq!(switch(&rig, "b", "a", "").code, 0);
    switched(&rig, "b", "a", 3);
}

#[test]
fn a_stream_that_is_refused_makes_a_master_no_receiver_again() {
    let rig = pair();
    rig.ok("$ROLE become --epoch 2 --reason 'a burnt' -c b.toml; printf more >> b/log.2");
    for _ in 0..2 {
        ship(&rig, "a", "b").fails(5, "epoch");
    }
    rig.ok("rm a-runs a/log.*");
    assert_eq!(ship(&rig, "b", "a").code, 0);
    assert_eq!(segments(&rig.path("b")), segments(&rig.path("a")));
    assert!(rig.ok("$ROLE show -c b.toml").starts_with("role      master"));
    // One that receives again is a receiver.
    assert_eq!(switch(&rig, "b", "a", "").code, 0);
    switched(&rig, "b", "a", 3);
    assert!(!rig.path("b/.repl/given-up").exists());
}

#[test]
fn a_master_whose_heir_is_lost_on_the_way_takes_its_role_back() {
    let rig = pair();
    // It can be asked, and not be told.
    let plain = fs::read(rig.path("rsh")).unwrap();
    fs::write(rig.path("rsh"), "#!/bin/sh\ncase $1 in *become*--held*) exit 255 ;; esac\nexec sh -c \"$1\"\n").unwrap();
    let ran = switch(&rig, "a", "b", "");
    ran.fails(8, "no site is the master until this is run again: b could not be made it: at b: ");
    rig.run("$ROLE where -c b.toml").fails(1, "no site is the master of epoch 2");
    ship(&rig, "a", "b").fails(5, "this site is a receiver since epoch 2");
    assert_eq!(rig.ok("$ROLE become --epoch 3 --reason 'b burnt' -c a.toml"), "a is the master again, epoch 3\n");
    assert_eq!(rig.ok("cat acts"), "a stop\na demote\na promote\n");
    fs::write(rig.path("rsh"), plain).unwrap();
    assert_eq!(ship(&rig, "a", "b").code, 0);
    assert_eq!(switch(&rig, "a", "b", "").code, 0);
    switched(&rig, "a", "b", 4);
    // Now it is another's, whoever asks.
    switch(&rig, "a", "c", "").fails(2, "has the name 'c'");
}

#[test]
fn the_other_site_is_asked_and_told_over_ssh() {
    let rig = pair();
    let sshd = Sshd::start_with(&format!("SetEnv PATH={}/bin:/usr/bin:/bin", rig.root.path().display()));
    fs::write(rig.path("rsh"), format!("#!/bin/sh\nexec {} \"$1\"\n", sshd.ssh())).unwrap();
    let ran = switch(&rig, "a", "b", "--reason 'it'\\''s \"new\"'");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(rig.ok("cat b-state/history.jsonl").contains("it's \\\"new\\\""), "words arrive as they are");
    switched(&rig, "a", "b", 2);
}
