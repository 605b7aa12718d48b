//! What operators copy from `scripts/`: the cron job, the key's line, completions, and the service units.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use super::rig::{APPLY, COMMANDS, Ran, Rig, SHIP, Sshd, eventually, noise};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts");

/// A shell line that runs a script of ours, with our commands in PATH.
fn script(name: &str) -> String {
    let bin = Path::new(SHIP).parent().unwrap().display();
    format!("export PATH={bin}:$PATH; {SCRIPTS}/{name}")
}

/// Settings of a cron job that ships to `replica`; `via` may replace how.
fn settings(rig: &Rig, via: Option<&str>) {
    let via = via.map_or_else(|| format!("{APPLY} --acks {}", rig.replica().display()), str::to_owned);
    let text = format!(
        "# one pass each five minutes\nREPL_LOGDIR={}\nREPL_VIA=\"{via}\"\n\nREPL_OPTIONS=--pattern log.%S --retry-for 0s\n",
        rig.master().display()
    );
    fs::write(rig.path("job.env"), text).unwrap();
}

#[track_caller]
fn silent(ran: &Ran) {
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", ""));
}

#[test]
fn a_cron_pass_that_succeeds_is_silent() {
    let rig = Rig::new();
    settings(&rig, None);
    rig.write("log.1", noise(100_000, 1));
    silent(&rig.run(&format!("{} job.env", script("repl-cron"))));
    rig.assert_equal();
    // With nothing new, too.
    silent(&rig.run(&format!("{} job.env", script("repl-cron"))));
    // The environment wins over the file, and needs no file.
    rig.append("log.1", noise(100, 2));
    let environment = format!(
        "export REPL_LOGDIR=master REPL_VIA='{APPLY} --acks replica' REPL_OPTIONS='--pattern log.%S'; {}",
        script("repl-cron")
    );
    silent(&rig.run(&environment));
    rig.assert_equal();
}

#[test]
fn a_cron_pass_that_fails_says_why_and_keeps_the_exit_code() {
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    settings(&rig, None);
    silent(&rig.run(&format!("{} job.env", script("repl-cron"))));
    rig.write("log.1", noise(1000, 2));
    let ran = rig.run(&format!("{} job.env", script("repl-cron")));
    ran.fails(4, "repl-ship: ");
    ran.fails(4, "hint: ");
    ran.fails(4, "repl-cron: the pass over ");
    assert_eq!(ran.out, "");
    settings(&rig, Some("exit 5"));
    rig.run(&format!("{} job.env", script("repl-cron"))).fails(5, "exit code 5");
    settings(&rig, Some("exit 8"));
    rig.run(&format!("{} job.env", script("repl-cron"))).fails(8, "repl-ship: ");
}

#[test]
fn a_cron_pass_that_is_still_running_is_an_error_only_after_a_limit() {
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    rig.ok("mkfifo go");
    // It hangs where the receiver should start.
    settings(&rig, Some(&format!("cat go >&2; exec {APPLY} --acks {}", rig.replica().display())));
    let job = format!("export REPL_LOCK=$PWD/job.lock; {} job.env", script("repl-cron"));
    let mut first = rig.spawn(&job);
    let begun = || fs::read(rig.path("job.lock")).is_ok_and(|text| text.ends_with(b"\n"));
    eventually("the first pass", begun);
    silent(&rig.run(&job));
    let limited = format!("export REPL_LIMIT=0; {job}");
    eventually("the limit", || rig.run(&limited).code == 7);
    rig.run(&limited).fails(7, "is still running");
    rig.ok("echo > go");
    silent(&first.wait());
    rig.assert_equal();
    assert_eq!(fs::read(rig.path("job.lock")).unwrap(), b"");
}

#[test]
fn a_lock_file_that_a_killed_pass_left_alarms_nobody() {
    let rig = Rig::new();
    settings(&rig, None);
    rig.write("log.1", noise(1000, 1));
    // Begun in 1970 by a process that is gone; held by one that has not written yet.
    fs::write(rig.path("job.lock"), "1 4194999\n").unwrap();
    rig.ok("mkfifo go");
    let mut holder = rig.spawn("flock job.lock cat go");
    eventually("the lock to be taken", || rig.run("flock -sn job.lock true").code == 1);
    let job = format!("export REPL_LOCK=$PWD/job.lock; {} job.env", script("repl-cron"));
    silent(&rig.run(&job));
    assert!(!rig.replica().exists());
    rig.ok("echo > go");
    holder.wait();
    silent(&rig.run(&job));
    rig.assert_equal();
}

#[test]
fn a_cron_pass_takes_the_configuration_of_a_set() {
    let rig = Rig::new();
    // One that says what it was told.
    rig.ok("mkdir bin; printf '%s\\n' '#!/bin/sh' 'echo \"$@\" > told; exit \"$(cat code)\"' > bin/repl-ship; chmod +x bin/repl-ship");
    rig.ok("touch shop.toml; echo 0 > code");
    let pass = format!("export PATH=$PWD/bin:$PATH REPL_LOCK=$PWD/lock; {SCRIPTS}/repl-cron shop.toml");
    let config = fs::canonicalize(rig.path("shop.toml")).unwrap();
    silent(&rig.run(&pass));
    assert_eq!(rig.ok("cat told"), format!("-S -c {}\n", config.display()));
    silent(&rig.run(&format!("export REPL_OPTIONS='--bwlimit 1M' REPL_VIA='ssh x' REPL_LOGDIR=/srv/db; {pass}")));
    assert_eq!(rig.ok("cat told"), format!("-S --bwlimit 1M -c {} --via ssh x -- /srv/db\n", config.display()));
    rig.ok("echo 4 > code");
    rig.run(&pass).fails(4, &format!("repl-cron: the pass over {} ended with exit code 4", config.display()));
    rig.run(&pass.replace("shop.toml", "none.toml")).fails(2, "cannot read none.toml");
}

#[test]
fn cron_settings_that_are_wrong_are_usage() {
    let rig = Rig::new();
    let run = |text: &str| {
        fs::write(rig.path("job.env"), text).unwrap();
        rig.run(&format!("{} job.env", script("repl-cron")))
    };
    run("REPL_VIA=x\n").fails(2, "REPL_LOGDIR is not set");
    run("REPL_LOGDIR=x\n").fails(2, "REPL_VIA is not set");
    run("REPL_LOGDRI=x\n").fails(2, "not a setting: REPL_LOGDRI=x");
    run("touch run-as-code\n").fails(2, "not a setting");
    run("REPL_LOGDIR=master\nREPL_VIA=true\nREPL_LIMIT=$(touch run-as-code)\n").fails(2, "REPL_LIMIT");
    assert!(!rig.path("run-as-code").exists());
    rig.run(&format!("{} none.env", script("repl-cron"))).fails(2, "cannot read none.env");
    rig.ok("chmod 666 job.env");
    rig.run(&format!("{} job.env", script("repl-cron"))).fails(2, "others can write");
}

#[test]
fn a_key_with_the_printed_line_can_append_and_nothing_else() {
    let (rig, sshd) = (Rig::new(), Sshd::start());
    fs::create_dir(rig.path("archive")).unwrap();
    let (key, root) = (sshd.public_key(), rig.path("archive"));
    let line = rig.ok(&format!("{} --program {APPLY} {} {}/", script("authorized-key"), key.display(), root.display()));
    let expected = format!("restrict,command=\"{APPLY} --restrict {} --append-only\" ssh-ed25519 AAAA", root.display());
    assert!(line.starts_with(&expected), "{line}");
    sshd.authorize(&line);
    rig.write("log.1", noise(50_000, 1));
    let pass = format!("$SHIP -S --pattern log.%S --via '{} repl-apply --acks site' master", sshd.ssh());
    rig.ok(&pass);
    rig.append("log.1", noise(500, 2));
    rig.ok(&pass);
    assert_eq!(fs::read(root.join("site/log.1")).unwrap(), fs::read(rig.master().join("log.1")).unwrap());
    for (asked, code) in [
        ("cat /etc/passwd", 2),
        ("repl-apply --set-aside site", 2),
        ("repl-apply --feed id site", 2),
        ("repl-apply --restrict / site", 2),
        ("repl-apply --position ../..", 5),
        ("", 2),
    ] {
        let ran = rig.run(&format!("{} {asked} < /dev/null", sshd.ssh()));
        assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{asked}: {ran:?}");
    }
    rig.write("log.1", noise(50_500, 3));
    rig.run(&pass).fails(4, "repl-ship: ");
}

#[test]
fn a_line_is_printed_only_for_one_public_key_and_a_plain_root() {
    let rig = Rig::new();
    rig.ok("ssh-keygen -q -t ed25519 -N '' -C 'site one' -f key; ssh-keygen -q -t ed25519 -N '' -f other");
    let line = rig.ok(&format!("{} --replica key.pub /srv/archive", script("authorized-key")));
    assert!(line.starts_with("restrict,command=\"repl-apply --restrict /srv/archive\" ssh-ed25519 "), "{line}");
    assert!(line.ends_with(" site one\n"), "{line}");
    rig.ok("cat key.pub other.pub > two.pub; { printf 'no-pty '; cat key.pub; } > options.pub");
    rig.ok("cut -c 1-40 key.pub > short.pub; : > empty.pub");
    for (arguments, says) in [
        ("key /archive", "private key"),
        ("two.pub /archive", "must have one key, it has 2"),
        ("empty.pub /archive", "must have one key, it has 0"),
        ("options.pub /archive", "not a plain public key"),
        ("short.pub /archive", "cannot read the key"),
        ("none.pub /archive", "cannot read none.pub"),
        ("key.pub archive", "absolute"),
        ("key.pub /archive/../etc", "must not have"),
        ("key.pub /", "whole file system"),
        ("key.pub ///", "whole file system"),
        ("key.pub '/a b'", "misread"),
        ("key.pub '/a\"; id; \"'", "misread"),
        ("key.pub '/a$(id)'", "misread"),
        ("--program 'x; id' key.pub /archive", "misread"),
        ("key.pub", "usage:"),
        ("--nothing key.pub /archive", "usage:"),
    ] {
        let ran = rig.run(&format!("{} {arguments}", script("authorized-key")));
        ran.fails(2, says);
        assert_eq!(ran.out, "", "{arguments}");
    }
}

/// Whether a program is installed here.
fn is_installed(program: &str) -> bool {
    let paths = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    paths.split(':').any(|path| Path::new(path).join(program).exists())
}

#[test]
fn completions_are_written_for_every_command_and_shells_can_read_them() {
    let rig = Rig::new();
    let names = COMMANDS.map(|(name, _)| format!("repl-{}", name.to_lowercase()));
    let links: Vec<_> = COMMANDS.iter().map(|(name, _)| format!("${name}")).collect();
    rig.ok(&format!("mkdir bin; ln -s {} bin; touch bin/repl-ship.d bin/repl-nothing", links.join(" ")));
    rig.ok(&format!("{} --bin bin out", script("completions")));
    for (shell, before, after) in [("bash", "", ""), ("zsh", "_", ""), ("fish", "", ".fish")] {
        let mut expected: Vec<_> = names.iter().map(|name| format!("{before}{name}{after}")).collect();
        expected.sort();
        assert_eq!(rig.ok(&format!("LC_ALL=C ls out/{shell}")).lines().collect::<Vec<_>>(), expected, "{shell}");
        if shell == "bash" || is_installed(shell) {
            rig.ok(&format!("for file in out/{shell}/*; do {shell} -n $file || exit; done"));
        }
    }
    rig.ok("head -n 1 out/zsh/_repl-ship | grep -q '^#compdef repl-ship'; grep -q -- '-l via' out/fish/repl-ship.fish");
    rig.ok("grep -q -- --append-only out/bash/repl-apply && grep -q -w guard out/bash/repl-role");
    // What bash offers behind the beginning of a word.
    let offered = ". out/bash/repl-ship; offer=$(complete -p repl-ship | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \
                   COMP_WORDS=(repl-ship --log-f) COMP_CWORD=1; $offer repl-ship --log-f repl-ship; echo ${COMPREPLY[*]}";
    assert_eq!(rig.ok(offered), "--log-format\n");
    rig.run(&format!("{} --bin master out", script("completions"))).fails(2, "no commands in master");
}

#[test]
fn a_key_that_is_refused_is_not_retried_for_ever() {
    let (rig, sshd) = (Rig::new(), Sshd::start());
    fs::create_dir(rig.path("archive")).unwrap();
    sshd.force(&format!("restrict,command=\"{APPLY} --restrict {}\"", rig.path("archive").display()));
    rig.write("log.1", noise(1000, 1));
    // The receiver ends before it can speak: its exit code is the verdict.
    for (asked, code) in [("repl-apply --acks ../elsewhere", 5), ("repl-apply --acks --adopt site", 2)] {
        let ship = format!("$SHIP --pattern log.%S --via '{} {asked}' master", sshd.ssh());
        rig.spawn(&ship).wait().fails(code, &format!("the receiver exited with {code}"));
    }
}

/// Messages that have come to a notification socket.
struct Notified(UnixDatagram);

impl Notified {
    fn bind(path: &Path) -> Notified {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Notified(socket)
    }

    /// Whether this message has come, now or among those before it.
    fn has(&self, message: &str) -> bool {
        let mut bytes = [0; 4096];
        while let Ok(count) = self.0.recv(&mut bytes) {
            if String::from_utf8_lossy(&bytes[..count]).lines().any(|line| line == message) {
                return true;
            }
        }
        false
    }
}

#[test]
fn the_service_manager_is_told_ready_and_alive_also_while_the_receiver_is_away() {
    let rig = Rig::new();
    let socket = Notified::bind(&rig.path("notify"));
    rig.write("log.1", noise(1000, 1));
    // Without the file the link fails, as to a slave that is down.
    rig.ok("touch up");
    let period = Duration::from_millis(400).as_micros();
    let mut ship = rig.spawn(&format!(
        "exec env NOTIFY_SOCKET=$PWD/notify WATCHDOG_USEC={period} $SHIP --pattern log.%S --via 'unset NOTIFY_SOCKET; \
         test -e up || exit 8; echo $$ > receiver; exec $APPLY --acks replica' --poll 50ms master"
    ));
    eventually("READY=1", || socket.has("READY=1"));
    eventually("WATCHDOG=1", || socket.has("WATCHDOG=1"));
    rig.ok("rm up; kill $(cat receiver)");
    eventually("the link to be missed", || ship.err().contains("trying again"));
    while socket.has("WATCHDOG=1") {}
    for _ in 0..5 {
        eventually("WATCHDOG=1 while the receiver is away", || socket.has("WATCHDOG=1"));
    }
    assert!(!rig.path("up").exists());
    ship.signal(rustix::process::Signal::TERM);
    assert_eq!(ship.wait().code, 0, "{}", ship.err());
}

/// The services, with their text.
fn services() -> Vec<(String, String)> {
    let names = fs::read_dir(format!("{SCRIPTS}/systemd")).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.into_string().unwrap()).filter(|name| name.ends_with("@.service"));
    names
        .map(|name| (fs::read_to_string(format!("{SCRIPTS}/systemd/{name}")).unwrap(), name))
        .map(|(a, b)| (b, a))
        .collect()
}

/// The command line of a unit.
fn started(text: &str) -> &str {
    text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap()
}

/// What `--help` of a command says; `None` where there is no such command.
fn help(command: &str) -> Option<String> {
    let ran = std::process::Command::new(Path::new(SHIP).with_file_name(command)).arg("--help").output().ok()?;
    Some(String::from_utf8(ran.stdout).unwrap())
}

#[test]
fn the_command_lines_of_the_units_ship() {
    let rig = Rig::new();
    let via = format!("{APPLY} --acks {}", rig.replica().display());
    let text =
        format!("set = 'shop'\npattern = 'log.%S'\nlogdir = '{}'\n[ship]\nvia = '{via}'\n", rig.master().display());
    fs::write(rig.path("shop.toml"), text).unwrap();
    for (round, unit) in ["repl-ship@.service", "repl-cron@.service"].into_iter().enumerate() {
        rig.append("log.1", noise(1000, round as u64));
        let (_, text) = services().into_iter().find(|(name, _)| name == unit).unwrap();
        // systemd's `${X}` is one word, its `$X` is split, and so it is in bash.
        let line = started(&text).replace("/etc/repl/%i", "shop").replace("${STATE_DIRECTORY}", "\"$STATE_DIRECTORY\"");
        rig.ok(&format!(
            "STATE_DIRECTORY=$PWD/state; PATH=$(dirname $SHIP):$PATH; REPL_OPTIONS=--once; {}",
            line.replace(" -S ", " ")
        ));
        rig.assert_equal();
    }
    assert!(rig.path("state/status.json").exists());
    rig.append("log.1", noise(1000, 3));
    silent(
        &rig.run(&format!(
            "export REPL_OPTIONS='--state state' REPL_LOCK=$PWD/lock; {} shop.toml",
            script("repl-cron")
        )),
    );
    rig.assert_equal();
}

/// The bug: only root looked where `repl-ship@.service` keeps state, and the unit that tells of it is not root's.
#[test]
fn the_unit_of_the_status_finds_what_the_unit_of_the_sender_has_left() {
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    let text = format!("set = 'shop'\npattern = 'log.%S'\nlogdir = '{}'\n", rig.master().display());
    fs::write(rig.path("shop.toml"), text).unwrap();
    let (_, unit) = services().into_iter().find(|(name, _)| name == "repl-status@.service").unwrap();
    let home = unit.lines().find_map(|line| line.strip_prefix("Environment=")).unwrap_or_default();
    let home = home.replace("/var/lib", "$PWD/lib");
    let line = started(&unit).replace("/etc/repl/%i", "shop").replace("/run/repl/%i", "shop");
    let script = format!(
        "PATH=$PWD/bin:$PATH; repl-ship -S -c shop.toml --state lib/repl/shop > stream; env -u XDG_STATE_HOME {home} {line}"
    );
    fs::write(rig.path("script"), script).unwrap();
    rig.ok("mkdir bin lib && cp $SHIP $STATUS bin");
    let is_root = rustix::process::geteuid().is_root();
    let other = "chown -R 65534:65534 . && setpriv --reuid 65534 --regid 65534 --clear-groups";
    rig.ok(&format!("{} bash -e script", if is_root { other } else { "" }));
    let metrics = fs::read_to_string(rig.path("shop.prom")).unwrap();
    let up =
        metrics.lines().find(|line| line.starts_with("repl_up{set=\"shop\"")).unwrap_or_else(|| panic!("{metrics}"));
    assert!(up.ends_with("role=\"sender\"} 1") && rig.path("shop.html").exists(), "{metrics}");
}

#[test]
fn the_units_name_flags_that_their_commands_have() {
    let mut seen = 0;
    for (name, text) in services() {
        let line = started(&text);
        let Some(help) = line.split(' ').next().filter(|command| command.starts_with("repl-")).and_then(help) else {
            continue;
        };
        for flag in line.split(' ').filter(|word| word.starts_with("--") && word.len() > 2) {
            assert!(help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}\n")), "{name}: {flag}");
            seen += 1;
        }
    }
    assert!(seen >= 5, "{seen}");
}

#[test]
fn a_unit_that_ships_is_not_restarted_for_what_asks_for_a_person() {
    let (_, text) = services().into_iter().find(|(name, _)| name == "repl-ship@.service").unwrap();
    for line in ["RestartPreventExitStatus=2 3 4 5 6 11 13", "Restart=on-failure", "ExecReload=/bin/kill -HUP $MAINPID"]
    {
        assert!(text.lines().any(|other| other == line), "{line}");
    }
}

#[test]
fn every_timer_starts_a_service_and_every_service_gives_up_its_rights() {
    for (name, text) in services() {
        for line in ["NoNewPrivileges=yes", "CapabilityBoundingSet=", "User=repl"] {
            assert!(text.lines().any(|other| other == line), "{name}: {line}");
        }
    }
    let timers = fs::read_dir(format!("{SCRIPTS}/systemd")).unwrap().map(|entry| entry.unwrap().path());
    let timers: Vec<_> = timers.filter(|path| path.extension().is_some_and(|end| end == "timer")).collect();
    assert!(timers.len() >= 6 && timers.iter().all(|timer| timer.with_extension("service").exists()), "{timers:?}");
}

#[test]
fn users_and_directories_are_made_as_the_units_need_them() {
    // Without root nobody can be given a directory.
    if !is_installed("systemd-sysusers") || !is_installed("systemd-tmpfiles") || !rustix::process::geteuid().is_root() {
        return;
    }
    let rig = Rig::new();
    // The group that Debian reads logs by is there before us.
    rig.ok("mkdir -p root/etc; printf 'root:x:0:\\nadm:x:4:\\n' > root/etc/group; printf 'root:x:0:0::/:/bin/sh\\n' > root/etc/passwd");
    rig.ok(&format!("systemd-sysusers --root=$PWD/root {SCRIPTS}/sysusers.d/repl.conf"));
    for _ in 0..2 {
        rig.ok(&format!("systemd-tmpfiles --create --root=$PWD/root {SCRIPTS}/tmpfiles.d/repl.conf"));
    }
    let user = rig.ok("grep ^repl: root/etc/passwd");
    let id = user.split(':').nth(2).unwrap();
    let group = rig.ok("grep ^repl: root/etc/group").split(':').nth(2).unwrap().to_owned();
    let expected = format!(
        "750 0:{group} etc/repl\n755 {id}:{group} run/repl\n755 0:0 var/lib/repl\n700 {id}:{group} var/lib/repl/.ssh\n\
         750 {id}:4 var/log/repl\n"
    );
    assert_eq!(
        rig.ok("cd root; stat -c '%a %u:%g %n' etc/repl run/repl var/lib/repl var/lib/repl/.ssh var/log/repl"),
        expected
    );
}

#[test]
fn logs_are_turned_under_those_who_write_them() {
    if !is_installed("logrotate") {
        return;
    }
    let rig = Rig::new();
    rig.ok("mkdir logs; chmod 750 logs; echo before > logs/shop.log");
    // As the one who runs this, in this directory.
    let text = fs::read_to_string(format!("{SCRIPTS}/logrotate.d/repl")).unwrap();
    let text = text.replace("/var/log/repl", rig.path("logs").to_str().unwrap()).replace("    su repl adm\n", "");
    fs::write(rig.path("turn"), text).unwrap();
    let path = "export PATH=$PATH:/usr/sbin; chmod 600 turn";
    let checked = rig.run(&format!("{path}; logrotate -d -s state turn"));
    assert!(checked.code == 0 && !checked.err.contains("error"), "{checked:?}");
    rig.ok(&format!("{path}; exec 3>> logs/shop.log; logrotate -f -s state turn; echo after >&3"));
    assert_eq!(rig.ok("cat logs/shop.log.1; echo --; cat logs/shop.log"), "before\n--\nafter\n");
}

#[test]
fn quiet_silences_warnings_and_verbose_does_not_repeat_itself() {
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    let flaky = "--pattern log.%S --retry-for 0s --via 'exit 8' master";
    let warned = "$SHIP -S --retry-for 5s --pattern log.%S --via 'test -e up && exec $APPLY --acks replica; touch up; exit 8' master";
    let ran = rig.run(warned);
    assert!(ran.code == 0 && ran.err.contains("trying again"), "{ran:?}");
    rig.ok("rm up");
    rig.append("log.1", b"more");
    silent(&rig.run(&warned.replace("-S", "-S -q")));
    rig.run(&format!("$SHIP -S -q {flaky}")).fails(8, "repl-ship: ");
    // It is up to date each time something was appended; that is said once for each second.
    let mut ship = rig.spawn("exec $SHIP -v --poll 10ms --pattern log.%S --via '$APPLY --acks replica' master");
    let shipped = || {
        fs::read(rig.replica().join("log.1")).is_ok_and(|bytes| bytes == fs::read(rig.master().join("log.1")).unwrap())
    };
    for round in 0..5 {
        rig.append("log.1", noise(10, round));
        eventually("appended bytes", shipped);
    }
    ship.signal(rustix::process::Signal::TERM);
    let ran = ship.wait();
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines: Vec<_> = ran.err.lines().collect();
    assert!(lines.windows(2).all(|two| two[0] != two[1]), "{ran:?}");
}
