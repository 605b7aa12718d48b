//! Which sites can become the master, and what an operator who thinks better of it gets.

use std::fs;

use rustix::process::Signal;

use super::switchover::{pair, ship, switch, switched};
use crate::rig::eventually;

#[test]
fn one_that_could_not_be_a_master_is_refused_before_anything_is_stopped() {
    let rig = pair();
    for (file, from, to, says) in [
        ("a.toml", "name = \"b\"", "name = \"b\"\npriority = 0", "b has priority 0: it never becomes the master"),
        ("b.toml", "promote = ", "# ", "repl-role: nothing says how the server of"),
        ("b.toml", "logdir = ", "archive = ", "repl-role: this site keeps log only"),
    ] {
        let text = fs::read_to_string(rig.path(file)).unwrap();
        let mut broken = text.replace(from, to);
        if from == "promote = " {
            broken = broken.replace("start = ", "# ");
        }
        assert_ne!(text, broken);
        fs::write(rig.path(file), broken).unwrap();
        for more in ["-n", ""] {
            switch(&rig, "a", "b", more).fails(13, says);
        }
        assert!(!rig.path("acts").exists(), "{says}");
        if file == "b.toml" {
            rig.run("$ROLE become --epoch 7 -c b.toml").fails(13, says);
        }
        fs::write(rig.path(file), text).unwrap();
    }
    assert_eq!(ship(&rig, "a", "b").code, 0);
    assert_eq!(switch(&rig, "a", "b", "").code, 0);
    switched(&rig, "a", "b", 2);
}

/// The end of a terminal, or an operator who waits no longer.
#[test]
fn a_signal_before_the_point_of_no_return_undoes_it_at_once() {
    let rig = pair();
    let plain = fs::read(rig.path("rsh")).unwrap();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        rig.ok("rm -f acts hangs");
        fs::write(
            rig.path("rsh"),
            "#!/bin/sh\ncase $1 in *repl-apply*) touch hangs; exec sleep 600 ;; esac\nexec sh -c \"$1\"\n",
        )
        .unwrap();
        let mut switching = rig.spawn("exec $ROLE switchover --to b --timeout 5m -c a.toml");
        eventually("the last byte on its way", || rig.path("hangs").exists());
        switching.signal(signal);
        switching.wait().fails(1, "nothing was switched, the master goes on: stopped by a signal");
        assert_eq!(rig.ok("cat acts"), "a stop\na start\n");
        fs::write(rig.path("rsh"), &plain).unwrap();
    }
    assert_eq!(switch(&rig, "a", "b", "").code, 0);
    switched(&rig, "a", "b", 2);
}

#[test]
fn what_is_refused_leaves_no_trace_and_names_what_is_missing() {
    let rig = pair();
    switch(&rig, "b", "a", "").fails(5, "nobody has said that this site is the master");
    assert!(!rig.path("b-state").exists());
    // No kind of log was told, and none shows.
    rig.run("mkdir c; echo x >c/log.1; $ROLE init --master c").fails(13, "c has no log that is known by its names");
    rig.run("$ROLE init --master --epoch 9223372036854775808 -c a.toml").fails(2, "--epoch");
    rig.ok("$ROLE init --master -q --epoch 9223372036854775807 -c a.toml");
    switch(&rig, "a", "b", "-n").fails(5, "there is no epoch after 9223372036854775807");
}
