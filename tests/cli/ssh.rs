//! The main job over a real sshd on loopback: pipe, command link, fifo, forced command.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use super::rig::{APPLY, Rig, Sshd, eventually, noise};

#[test]
fn a_one_way_pipe_resumes_from_the_position_that_the_slave_prints() {
    let (rig, sshd) = (Rig::new(), Sshd::start());
    let replica = rig.replica().display().to_string();
    let pass = format!(
        "from=$({ssh} {APPLY} --position {replica}) && $SHIP -S --pattern log.%S --from $from master | {ssh} {APPLY} {replica}",
        ssh = sshd.ssh()
    );
    rig.write("log.1", noise(300_000, 1));
    rig.write("log.2", noise(5_000, 2));
    rig.ok(&pass);
    rig.assert_equal();
    rig.append("log.2", noise(70_000, 3));
    rig.write("log.3", b"x");
    rig.ok(&pass);
    rig.assert_equal();
}

#[test]
fn a_followed_log_arrives_by_a_command_link_and_term_ends_it_with_0() {
    let (rig, sshd) = (Rig::new(), Sshd::start());
    rig.write("fw-1-1", noise(1000, 1));
    let replica = rig.replica();
    let mut ship =
        rig.spawn(&format!("exec $SHIP -v --via '{} {APPLY} --acks {}' master", sshd.ssh(), replica.display()));
    let holds = |name: &str, length: u64| std::fs::metadata(replica.join(name)).is_ok_and(|meta| meta.len() == length);
    eventually("the first bytes", || holds("fw-1-1", 1000));
    rig.append("fw-1-1", noise(50, 2));
    eventually("appended bytes", || holds("fw-1-1", 1050));
    rig.write("fw-1-2", noise(10, 3));
    eventually("the next segment", || holds("fw-1-2", 10));
    ship.signal(rustix::process::Signal::TERM);
    assert_eq!(ship.wait().code, 0, "{}", ship.err());
    rig.assert_equal();
}

#[test]
fn a_fifo_brings_acknowledgements_back_over_ssh() {
    let (rig, sshd) = (Rig::new(), Sshd::start());
    rig.write("log.1", noise(300_000, 1));
    let replica = rig.replica().display().to_string();
    let pipeline = format!(
        "$SHIP -S --pattern log.%S --state state --acks back master | {} {APPLY} --acks {replica} >back",
        sshd.ssh()
    );
    rig.ok(&format!("mkfifo back; {pipeline}"));
    rig.append("log.1", b"more");
    rig.ok(&pipeline);
    rig.assert_equal();
}

/// The sshd process that serves the receiver which holds this lock: the child of the one that listens, which is ours.
fn session(lock: &Path) -> Option<Pid> {
    let parent = |pid: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    let mut pid: u32 = std::fs::read_to_string(lock).ok()?.trim().strip_prefix("process ")?.parse().ok()?;
    loop {
        let listener = parent(pid).filter(|listener| *listener > 1)?;
        if parent(listener)? == std::process::id() {
            return Pid::from_raw(pid.cast_signed());
        }
        pid = listener;
    }
}

#[test]
fn a_session_that_is_killed_in_the_middle_is_opened_again() {
    let (rig, sshd) = (Rig::new(), Sshd::start());
    rig.write("log.1", noise(3_000_000, 1));
    let link = format!("{} {APPLY} --acks {}", sshd.ssh(), rig.replica().display());
    let ship =
        format!("exec $SHIP --pattern log.%S --state state --bwlimit 1M --heartbeat 200ms --via '{link}' master");
    let mut ship = rig.spawn(&ship);
    let log = rig.replica().join("log.1");
    let length = || std::fs::metadata(&log).map_or(0, |meta| meta.len());
    let mut before = 0;
    for _ in 0..2 {
        eventually("more of it", || length() > before);
        before = length();
        assert!(before < 3_000_000, "it was over too soon");
        eventually("a session to kill", || {
            let session = session(&rig.replica().join(".repl/lock"));
            session.is_some_and(|session| kill_process(session, Signal::KILL).is_ok())
        });
    }
    eventually("all of it", || length() == 3_000_000);
    ship.signal(rustix::process::Signal::TERM);
    let ran = ship.wait();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("trying again in"), "{ran:?}");
    rig.assert_equal();
}

#[test]
fn a_restricted_key_can_append_and_nothing_else() {
    let (rig, sshd) = (Rig::new(), Sshd::start());
    let root = rig.path("archive");
    std::fs::create_dir(&root).unwrap();
    sshd.force(&format!("restrict,command=\"{APPLY} --restrict {} --append-only\"", root.display()));
    let ssh = sshd.ssh();
    // Ordinary use.
    rig.write("log.1", noise(100_000, 1));
    let pass = format!("$SHIP -S --pattern log.%S --state state --via '{ssh} repl-apply --acks one' master");
    rig.ok(&pass);
    rig.append("log.1", noise(10, 2));
    rig.write("log.2", noise(10, 3));
    rig.ok(&pass);
    let whole = super::rig::segments(&rig.master());
    assert_eq!(super::rig::segments(&root.join("one")), whole);
    assert!(rig.ok(&format!("{ssh} repl-apply --position one")).starts_with("1-2:10+"));
    // Everything else.
    for (command, code) in [
        ("sh -c id", 2),
        ("cat one/log.1", 2),
        ("rm -rf one", 2),
        ("", 2),
        ("repl-apply --set-aside one", 2),
        ("repl-apply --adopt one", 2),
        ("repl-apply --state /tmp/x one", 2),
        ("repl-apply --feed \"touch /tmp/x\" one", 2),
        ("repl-apply --restrict / one", 2),
        ("repl-apply one two", 2),
        ("\"repl-apply one; id\"", 2),
        ("repl-apply --acks ../out", 5),
        ("repl-apply --acks /etc", 5),
    ] {
        let ran = rig.run(&format!("{ssh} '{command}' </dev/null"));
        assert!(ran.code == code || (command.is_empty() && ran.code != 0), "{command}: {ran:?}");
        assert!(!ran.out.contains("uid="), "{command}: {ran:?}");
    }
    // Copying either way, and forwarding a port.
    let scp = ssh.trim_end_matches(" slave").replacen("ssh", "scp", 1);
    for copy in [format!("{scp} slave:{}/one/log.1 stolen", root.display()), format!("{scp} master/log.1 slave:/tmp/")]
    {
        assert_ne!(rig.run(&format!("{copy} </dev/null")).code, 0, "{copy}");
    }
    assert!(!rig.path("stolen").exists());
    let forward = ssh.replacen(" slave", " -o ExitOnForwardFailure=yes -N -R 0:127.0.0.1:1 slave", 1);
    assert_ne!(rig.run(&format!("timeout 20 {forward} </dev/null")).code, 0);
    // Other bytes over what is there.
    rig.write("log.2", noise(10, 99));
    rig.run(&pass).fails(4, "diverged");
    assert_eq!(super::rig::segments(&root.join("one")), whole);
}

/// A network of its own, of which one packet in ten is lost, and now and then all for four seconds.
#[test]
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn a_link_that_loses_packets_and_is_gone_now_and_then_lands_every_byte_once() {
    let (rig, mut sshd) = (Rig::new(), Sshd::start());
    // It is started again in that network.
    sshd.stop();
    let lossy = "ip link set lo up && nft 'add table inet l; add chain inet l in { type filter hook input priority 0; }; \
                 add rule inet l in numgen random mod 10 == 0 drop'";
    let ran = rig.run(&format!("unshare -n sh -c \"{lossy}\""));
    if ran.code != 0 {
        eprintln!("SKIPPED: cannot make a network here: {}", ran.err.trim());
        return;
    }
    let flap = "while :; do sleep 4; nft 'add chain inet l out { type filter hook output priority 0; policy drop; }'; \
                sleep 4; nft 'delete chain inet l out'; done";
    let script = format!(
        "set -e; {lossy}; /usr/sbin/sshd -D -e -f {} 2>sshd.err & {{ {flap}; }} & trap 'kill $(jobs -p)' EXIT\n\
         $SHIP --pattern log.%S --state state --heartbeat 500ms --timeout 3s --via '{} {APPLY} --acks --timeout 3s {}' \
         master",
        sshd.path("sshd_config").display(),
        sshd.ssh(),
        rig.replica().display()
    );
    std::fs::write(rig.path("lossy.sh"), script).unwrap();
    rig.write("log.1", noise(100_000, 1));
    let mut ship = rig.spawn("exec unshare -n bash lossy.sh");
    let held = || rig.run("$APPLY --position replica").out;
    for sequence in 1..=3u64 {
        eventually("a new segment", || held().starts_with(&format!("1-{sequence}:")));
        for step in 0..50 {
            rig.append(&format!("log.{sequence}"), noise(30_000, sequence * 100 + step));
        }
        rig.write(&format!("log.{}", sequence + 1), noise(10, sequence));
    }
    eventually("a link that was lost", || rig.run("grep -q '\"reconnects\": *[1-9]' state/status.json").code == 0);
    rig.append("log.4", noise(100_000, 4));
    eventually("all of it", || held().starts_with("1-4:100010"));
    rig.assert_equal();
    rig.run("kill $(sed 's/process //' state/lock)");
    ship.wait();
}
