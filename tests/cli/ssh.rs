//! The main job over a real sshd on loopback: pipe, command link, fifo, forced command.

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
