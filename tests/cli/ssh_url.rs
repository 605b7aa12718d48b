//! `repl-ship --to ssh://…`: the main job over a real sshd, without the ssh program, in a home of its own.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use super::rig::{APPLY, Ran, Rig, Running, Sshd, eventually, make_key, noise, segments};

/// A rig with a home directory that knows an sshd and has a key for it.
struct Home {
    rig: Rig,
    sshd: Sshd,
}

impl Home {
    fn new() -> Home {
        let (rig, sshd) = (Rig::new(), Sshd::start());
        let ssh = rig.path("home/.ssh");
        std::fs::create_dir_all(&ssh).unwrap();
        std::fs::write(ssh.join("known_hosts"), sshd.known()).unwrap();
        std::fs::copy(sshd.path("key"), ssh.join("id_ed25519")).unwrap();
        Home { rig, sshd }
    }

    fn url(&self, path: impl AsRef<Path>) -> String {
        format!("ssh://127.0.0.1:{}{}", self.sshd.port, path.as_ref().display())
    }

    /// A script that ships to the replica's directory; `options` come before the log directory.
    fn ship(&self, options: &str) -> String {
        let to = self.url(self.rig.replica());
        format!("exec $SHIP --pattern log.%S --state state --to {to} --remote-command {APPLY} {options} master")
    }

    fn sh(&self, script: &str) -> Command {
        let mut command = self.rig.sh(script);
        command.env("HOME", self.rig.path("home")).env_remove("SSH_AUTH_SOCK");
        command
    }

    fn run(&self, script: &str) -> Ran {
        Ran::from(self.sh(script).output().unwrap())
    }

    #[track_caller]
    fn ok(&self, script: &str) {
        let ran = self.run(script);
        assert_eq!(ran.code, 0, "{ran:?}");
    }

    fn spawn(&self, script: &str) -> Running {
        Running::start(self.sh(script), &self.rig.path("spawn"))
    }

    fn holds(&self, name: &str) -> u64 {
        std::fs::metadata(self.rig.replica().join(name)).map_or(0, |meta| meta.len())
    }
}

#[test]
fn a_pass_resumes_where_the_receiver_stands() {
    let home = Home::new();
    home.rig.write("log.1", noise(300_000, 1));
    home.rig.write("log.2", noise(5_000, 2));
    home.ok(&home.ship("-S"));
    home.rig.assert_equal();
    home.rig.append("log.2", noise(70_000, 3));
    home.rig.write("log.3", b"x");
    let ran = home.run(&home.ship("-S -v"));
    assert!(ran.code == 0 && ran.err.contains("found synchronization point 1-2:5000"), "{ran:?}");
    home.rig.assert_equal();
    let status = std::fs::read_to_string(home.rig.path("state/status.json")).unwrap();
    assert!(status.contains(&home.url(home.rig.replica())), "{status}");
}

#[test]
fn one_segment_is_shipped_as_an_archive_command_does() {
    let home = Home::new();
    home.rig.write("log.1", noise(100_000, 1));
    let to = home.url(home.rig.replica());
    let ship = format!("$SHIP --pattern log.%S --segment master/log.1 --to {to} --remote-command {APPLY}");
    home.ok(&ship);
    home.rig.assert_equal();
}

#[test]
fn a_directory_with_odd_characters_is_one_argument() {
    let home = Home::new();
    home.rig.write("log.1", noise(1000, 1));
    let odd = home.rig.path("it's; $(touch oops) here");
    let to = home.url(odd.display().to_string().replace(' ', "%20").as_str());
    home.ok(&format!("$SHIP -S --pattern log.%S --to \"{}\" --remote-command {APPLY} master", to.replace('$', "\\$")));
    assert_eq!(segments(&odd), segments(&home.rig.master()));
}

#[test]
fn a_host_that_goes_away_and_comes_back_is_shipped_to_again() {
    let mut home = Home::new();
    home.rig.write("log.1", noise(3_000_000, 1));
    let mut ship = home.spawn(&home.ship("-v --bwlimit 1M --heartbeat 200ms"));
    eventually("the first bytes", || home.holds("log.1") > 0);
    home.sshd.stop();
    eventually("a word about it", || ship.err().contains("trying again in"));
    let before = home.holds("log.1");
    assert!(before < 3_000_000, "it was over too soon");
    home.sshd.start_again();
    eventually("all of it", || home.holds("log.1") == 3_000_000);
    ship.signal(Signal::TERM);
    let ran = ship.wait();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("127.0.0.1"), "{ran:?}");
    home.rig.assert_equal();
}

#[test]
fn a_host_that_cannot_be_reached_is_given_up_with_8() {
    let mut home = Home::new();
    home.rig.write("log.1", b"x");
    home.sshd.stop();
    home.run(&home.ship("-S --retry-for 0s")).fails(8, "cannot connect to 127.0.0.1");
}

#[test]
fn a_host_that_is_not_known_or_not_the_same_is_refused_at_once() {
    let mut home = Home::new();
    home.rig.write("log.1", b"x");
    let known = home.rig.path("home/.ssh/known_hosts");
    std::fs::write(&known, "").unwrap();
    // Without -S: a failing link would be tried for ever.
    let ran = home.run(&home.ship(""));
    ran.fails(5, "is not known");
    assert!(ran.err.contains("hint: ") && ran.err.contains("ssh-keyscan -p"), "{ran:?}");
    assert!(!ran.err.contains("trying again"), "{ran:?}");
    std::fs::write(&known, home.sshd.known()).unwrap();
    std::fs::remove_file(home.sshd.path("host")).unwrap();
    home.sshd.stop();
    home.sshd.start_again();
    home.run(&home.ship("")).fails(5, "was changed");
    assert!(!home.rig.replica().exists());
}

/// An agent of our own.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn keys_come_from_a_file_that_is_named_from_an_agent_or_from_the_home() {
    let home = Home::new();
    home.rig.write("log.1", b"x");
    let usual = home.rig.path("home/.ssh/id_ed25519");
    std::fs::remove_file(&usual).unwrap();
    // Final, whether it follows or not.
    home.run(&home.ship("")).fails(2, "takes no key of ours");
    home.ok(&home.ship(&format!("-S -i {}", home.sshd.path("key").display())));
    // A key with a passphrase, in an agent that has another one first.
    let socket = home.rig.path("agent");
    let agent = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn();
    let _agent = Agent(agent.expect("ssh-agent is needed: install openssh-client"));
    eventually("the agent", || socket.exists());
    make_key(&home.rig.path("stranger"), &[]);
    let with_agent = |script: &str| {
        let mut command = home.sh(script);
        command.env("SSH_AUTH_SOCK", &socket);
        Ran::from(command.output().unwrap())
    };
    assert_eq!(with_agent("ssh-add -q stranger").code, 0);
    with_agent(&home.ship("-S")).fails(2, "the agent's");
    assert_eq!(with_agent(&format!("ssh-add -q {}", home.sshd.path("key").display())).code, 0);
    let ran = with_agent(&home.ship("-S"));
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn a_restricted_key_ships_to_what_lies_in_its_root() {
    let home = Home::new();
    let root = home.rig.path("archive");
    std::fs::create_dir(&root).unwrap();
    home.sshd.force(&format!("restrict,command=\"{APPLY} --restrict {}\"", root.display()));
    home.rig.write("log.1", noise(100_000, 1));
    let to = |path: String| format!("$SHIP -S --pattern log.%S --to {} master", home.url(path));
    home.ok(&to("/~/one".into()));
    home.ok(&to(format!("{}/two", root.display())));
    for site in ["one", "two"] {
        assert_eq!(segments(&root.join(site)), segments(&home.rig.master()));
    }
    home.run(&to("/etc".into())).fails(5, "");
    home.run(&to("/~/../out".into())).fails(5, "");
    assert!(!home.rig.path("out").exists());
}

#[test]
fn what_the_receiver_says_and_how_it_ends_come_through() {
    let home = Home::new();
    home.rig.write("log.1", noise(1000, 1));
    home.ok(&home.ship("-S"));
    home.rig.write("log.1", noise(2000, 2));
    home.run(&home.ship("-S")).fails(4, "diverged");
    let with = |command: &str| {
        let to = home.url("/x");
        home.run(&format!("$SHIP --pattern log.%S --to {to} --remote-command '{command}' master"))
    };
    with("no-such-command").fails(2, "cannot be run");
    with("echo words >&2; exit 6;").fails(6, "words");
}

#[test]
fn a_url_that_cannot_be_meant_is_refused() {
    let home = Home::new();
    home.rig.write("log.1", b"x");
    for (arguments, says) in [
        ("--to ssh://u:secret@h/d", "password"),
        ("--to ssh://-oProxyCommand=x/d", "not a host"),
        ("--to h:/d", "expected ssh://"),
        ("--to ssh://h", "names no directory"),
        ("--to ssh://h/d --acks x", "cannot be used with"),
        ("--to ssh://h/d --from oldest", "cannot be used with"),
        ("--via x -i key", "--to <URL>"),
        ("--via x --remote-command y", "--to <URL>"),
        ("-i key", "--to <URL>"),
    ] {
        home.run(&format!("$SHIP --pattern log.%S {arguments} master")).fails(2, says);
    }
}
