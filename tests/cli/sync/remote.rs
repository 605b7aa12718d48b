//! One end at another machine, over a real sshd on loopback: by the ssh program, and by `ssh://`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::super::rig::{Ran, Running, SYNC, Sshd, eventually};
use super::super::tree::{self, Editor, assert_same, noise};
use super::{Site, assert_idle, number, read, write};

/// A site and an sshd, with a home that knows it.
struct Net {
    site: Site,
    sshd: Sshd,
}

impl Net {
    fn new(site: Site) -> Net {
        let sshd = Sshd::start();
        let ssh = site.rig.path("home/.ssh");
        fs::create_dir_all(&ssh).unwrap();
        fs::write(ssh.join("known_hosts"), sshd.known()).unwrap();
        fs::copy(sshd.path("key"), ssh.join("id_ed25519")).unwrap();
        Net { site, sshd }
    }

    /// The option by which the other end is reached.
    fn shell(&self) -> String {
        format!("-e '{}'", self.sshd.ssh().trim_end_matches(" slave"))
    }

    /// The options by which the program at the other end is.
    fn by(&self) -> String {
        format!("{} --remote-command {SYNC}", self.shell())
    }

    #[expect(clippy::unused_self, reason = "a place at a host")]
    fn at(&self, path: impl AsRef<Path>) -> String {
        format!("slave:{}", path.as_ref().display())
    }

    fn url(&self, path: impl AsRef<Path>) -> String {
        format!("ssh://127.0.0.1:{}{}", self.sshd.port, path.as_ref().display())
    }

    fn run(&self, arguments: &str) -> Ran {
        let mut command = self.site.rig.sh(&format!("$SYNC {arguments}"));
        command.env("HOME", self.site.rig.path("home")).env_remove("SSH_AUTH_SOCK");
        Ran::from(command.output().unwrap())
    }

    #[track_caller]
    fn ok(&self, arguments: &str) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{arguments}: {ran:?}");
        ran.out
    }

    #[track_caller]
    fn report(&self, arguments: &str) -> serde_json::Value {
        serde_json::from_str(&self.ok(&format!("--json {arguments}"))).unwrap()
    }
}

#[test]
fn a_tree_with_everything_goes_there_and_comes_back() {
    let net = Net::new(Site::empty());
    let (site, by) = (&net.site, net.by());
    tree::small(&site.src());
    let mut editor = Editor::new(&site.src(), 7);
    let (there, back) = (site.rig.path("there"), site.rig.path("back"));
    for mode in ["", "--inplace", "--stage"] {
        let push = format!("{by} {mode} --delete src {}", net.at(&there));
        let first = net.report(&push);
        assert!(number(&first, "wire_received_bytes") >= number(&first, "literal_bytes") / 10, "{first}");
        assert_same(&site.src(), &there);
        assert_idle(&net.report(&push));
        assert_eq!(net.ok(&format!("-i {push}")), "", "{mode}");
        let pull = format!("{mode} --delete --remote-command {SYNC} {} back", net.url(&there));
        net.ok(&pull);
        assert_same(&site.src(), &back);
        assert_idle(&net.report(&pull));
        editor.edit(50);
    }
    for (destination, options) in [(net.url(&there), "--remote-command $SYNC"), (net.at(&there), by.as_str())] {
        editor.edit(30);
        let lines = |more: &str| {
            let out = net.ok(&format!("{more} -i --delete {options} src {destination}"));
            out.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
        };
        let rehearsed = lines("-n");
        assert!(!rehearsed.is_empty());
        assert_eq!(lines(""), rehearsed);
        assert_same(&site.src(), &there);
    }
}

#[test]
fn an_odd_directory_is_one_argument_at_the_other_end() {
    let net = Net::new(Site::some());
    for odd in ["sp ace", "it's; $(touch oops)", "-x", "a:b", "new\nline", "\u{e9}*?"] {
        let path = net.site.rig.path(odd);
        let quoted = net.at(&path).replace('\'', "'\\''");
        net.ok(&format!("{} src '{quoted}'", net.by()));
        assert_same(&net.site.src(), &path);
        net.ok(&format!("{} --delete '{quoted}' back", net.by()));
        assert_same(&net.site.src(), &net.site.rig.path("back"));
    }
    assert!(!net.site.rig.path("oops").exists());
}

#[test]
fn patterns_and_options_count_at_both_ends() {
    let net = Net::new(Site::some());
    let options = format!("{} --include keep.log --exclude '*.log' --no-owner --delete", net.by());
    net.site.write("keep.log", "k");
    write(&net.site.dst().join("own.log"), "own");
    for pair in [format!("src {}", net.at(net.site.dst())), format!("{} dst", net.at(net.site.src()))] {
        net.ok(&format!("{options} {pair}"));
        assert!(net.site.dst().join("keep.log").exists() && !net.site.dst().join("dir/c.log").exists(), "{pair}");
        assert_eq!(read(net.site.dst().join("own.log")), "own", "{pair}");
    }
}

#[test]
fn guards_hold_across_a_link_to_the_same_machine() {
    let net = Net::new(Site::synced());
    let (site, by) = (&net.site, net.by());
    symlink("src", site.rig.path("alias")).unwrap();
    let before = tree::look(site.rig.root.path()).0;
    for (one, other) in
        [("src", "src"), ("src", "alias"), ("alias/dir", "src"), ("src", "src/dir"), ("src", "alias/new")]
    {
        let path = |name: &str| site.rig.path(name);
        for pair in [format!("{one} {}", net.at(path(other))), format!("{} {other}", net.at(path(one)))] {
            net.run(&format!("{by} --delete {pair}")).fails(13, "one is in the other");
        }
    }
    fs::create_dir(site.rig.path("nothing")).unwrap();
    net.run(&format!("{by} --delete nothing {}", net.at(site.dst()))).fails(13, "--allow-empty");
    net.run(&format!("{by} --delete {} dst", net.at(site.rig.path("nothing")))).fails(13, "--allow-empty");
    fs::remove_dir(site.rig.path("nothing")).unwrap();
    let mut after = tree::look(site.rig.root.path()).0;
    // A directory was made in it and removed.
    after.insert(Vec::new(), before[&Vec::new()].clone());
    assert!(after == before);
}

#[test]
fn a_host_that_is_down_is_said() {
    let mut net = Net::new(Site::some());
    net.sshd.stop();
    let url = net.url(net.site.dst());
    for pair in [format!("src {url}"), format!("{url} back"), format!("{} src {}", net.by(), net.at(net.site.dst()))] {
        net.run(&pair).fails(8, "");
    }
    assert_eq!(net.site.litter(), [""; 0]);
}

#[test]
fn an_end_that_cannot_be_reached_or_is_none_is_said() {
    let net = Net::new(Site::some());
    let (by, at, shell) = (net.by(), net.at(net.site.dst()), net.shell());
    let here = net.site.dst();
    for (arguments, code, says) in [
        ("-e 'ssh -o BatchMode=yes -p 1' src 127.0.0.1:/x".to_owned(), 8, "exited with 255"),
        ("-e 'ssh -o BatchMode=yes -p 1' 127.0.0.1:/x dst".to_owned(), 8, "exited with 255"),
        ("-e no-such-shell src h:/x".to_owned(), 8, "exited with 127"),
        (format!("{shell} --remote-command no-such-sync src {at}"), 8, "no-such-sync"),
        (format!("--remote-command no-such-sync src {}", net.url(&here)), 8, "no-such-sync"),
        (format!("{shell} --remote-command 'echo hello;' src {at}"), 2, "hello"),
        (format!("{shell} --remote-command 'echo words >&2; exit 3;' src {at}"), 8, "words"),
        (format!("{by} {} dst", net.at("/no/such")), 1, "/no/such"),
        (format!("{by} src {}", net.at("/no/such/dst")), 1, "--mkpath"),
    ] {
        net.run(&arguments).fails(code, says);
        assert!(!here.exists(), "{arguments}");
        assert_eq!(net.site.litter(), [""; 0], "{arguments}");
    }
}

#[test]
fn commands_run_where_they_belong_and_what_they_say_comes_here() {
    // The remote shell tells its commands which side they are on.
    let net = Net::new(Site::synced());
    let shell = net.site.rig.path("shell");
    write(&shell, "#!/bin/sh\nshift\nSIDE=there exec sh -c \"$*\"\n");
    tree::chmod(&shell, 0o755);
    let log = net.site.rig.path("log");
    let say = |what: &str| format!("echo {what} ${{SIDE:-here}} >>{}", log.display());
    let commands = format!(
        "-e {} --remote-command $SYNC --stop '{}' --start '{}' --check '{}' --freeze '{}' --thaw '{}' --hook before-sync='{}' \
         --hook after-sync='{}'",
        shell.display(),
        say("stop"),
        say("start"),
        say("check"),
        say("freeze"),
        say("thaw"),
        say("before-sync"),
        say("after-sync"),
    );
    for (pair, source, destination) in [
        (format!("src x:{}", net.site.dst().display()), "here", "there"),
        (format!("x:{} dst", net.site.src().display()), "there", "here"),
    ] {
        let _ = fs::remove_file(&log);
        net.site.write("a", source);
        let ran = net.run(&format!("{commands} {pair}"));
        assert!(ran.code == 0 && ran.err.contains("the server was down for"), "{ran:?}");
        let expected = format!(
            "before-sync here\nfreeze {source}\nstop {destination}\nthaw {source}\nstart {destination}\ncheck {destination}\n\
             after-sync here\n"
        );
        assert_eq!(read(&log), expected, "{pair}");
    }
    // What fails there is said here, with its code.
    let ran = net.run(&format!("{commands} --check 'echo it is broken; false' src x:{}", net.site.dst().display()));
    assert_eq!(ran.code, 2, "{ran:?}");
    let by = format!("-e {} --remote-command $SYNC", shell.display());
    for pair in [format!("src x:{}", net.site.dst().display()), format!("x:{} dst", net.site.src().display())] {
        net.site.write("a", &pair);
        net.run(&format!("{by} --start true --check 'echo it is broken; false' {pair}")).fails(9, "it is broken");
        net.run(&format!("{by} --freeze 'echo it is hot; false' {pair}")).fails(9, "it is hot");
        net.run(&format!("{by} --hook before-switch='echo not now; false' {pair}")).fails(9, "not now");
    }
}

#[test]
fn a_destination_that_is_busy_there_is_said_here() {
    let net = Net::new(Site::synced());
    net.site.rig.ok("mkfifo hold");
    let script = "exec $SYNC --hook before-sync='echo up >held; read x <hold' src dst";
    let mut first = Running::start(net.site.rig.sh(script), &net.site.rig.path("first"));
    eventually("the first one", || net.site.rig.path("held").exists());
    net.run(&format!("{} src {}", net.by(), net.at(net.site.dst()))).fails(7, "is held by process");
    net.site.rig.ok("echo go >hold");
    assert_eq!(first.wait().code, 0);
}

#[test]
fn a_link_that_comes_and_goes_leads_no_restricted_key_out_of_its_root() {
    let net = Net::new(Site::some());
    let (root, out) = (net.site.rig.path("root"), net.site.rig.path("out/secret"));
    for path in [root.join("sub/one"), out.join("one")] {
        fs::create_dir_all(path).unwrap();
    }
    write(&out.join("file"), "secret");
    write(&out.join("one/file"), "secret");
    // Of the directory itself, and of one above it.
    symlink(&out, root.join("link")).unwrap();
    symlink(&out, root.join("sub/link")).unwrap();
    net.sshd.force(&format!("restrict,command=\"{SYNC} --server --restrict {}\"", root.display()));
    net.site.rig.ok("cp -a out before");
    let by = net.by();
    let ways = ["--inplace src slave:sub/one", "--stage src slave:sub/one", "slave:sub/one back"];
    let flips = [("sub", "link"), ("sub/one", "sub/link")].map(|(one, other)| (root.join(one), root.join(other)));
    let mut codes = Vec::new();
    for (round, way) in (0..6).flat_map(|round| ways.map(|way| (round, way))) {
        let (one, other) = &flips[round % 2];
        let (is_over, mut random) = (AtomicBool::new(false), fastrand::Rng::with_seed(round as u64));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
                    std::thread::park_timeout(Duration::from_micros(random.u64(..30_000)));
                }
            });
            let ran = net.run(&format!("{by} --delete --max-delete 100 {way}"));
            is_over.store(true, Ordering::Relaxed);
            assert!([0, 1, 5, 13].contains(&ran.code), "{way}: {}: {}", ran.code, ran.err);
            codes.push(ran.code);
        });
        if one.is_symlink() {
            renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
        }
    }
    assert!(codes.contains(&5), "no flip was seen: {codes:?}");
    assert_same(&net.site.rig.path("before"), &net.site.rig.path("out"));
    assert!(!net.site.rig.path("back/file").exists());
}

#[test]
fn a_restricted_key_can_sync_what_lies_in_its_root_and_run_nothing() {
    let net = Net::new(Site::some());
    let root = net.site.rig.path("root");
    fs::create_dir(&root).unwrap();
    net.sshd.force(&format!("restrict,command=\"{SYNC} --server --restrict {}\"", root.display()));
    let by = net.by();
    // Ordinary use, both ways.
    net.ok(&format!("{by} --delete src slave:one"));
    net.site.write("a", noise(5000, 1));
    net.ok(&format!("{by} --delete src {}", net.at(root.join("one"))));
    assert_same(&net.site.src(), &root.join("one"));
    net.ok(&format!("{by} slave:one back"));
    assert_same(&net.site.src(), &net.site.rig.path("back"));
    // Commands that are for this end are no concern of that one.
    net.ok(&format!("{by} --dsn dbname=x --freeze true --thaw true src slave:one"));
    net.ok(&format!("{by} --dsn dbname=x --stop true --start true --status false --check true --adopt slave:one back"));
    // Everything else.
    write(&net.site.rig.path("secret/file"), "s");
    symlink(net.site.rig.path("secret"), root.join("way-out")).unwrap();
    let out = net.site.rig.path("secret");
    for pair in [
        format!("src {}", net.at(&out)),
        format!("{} dst", net.at(&out)),
        "src slave:../secret".to_owned(),
        "slave:../secret dst".to_owned(),
        "src slave:way-out".to_owned(),
        "slave:way-out dst".to_owned(),
        "src slave:way-out/new".to_owned(),
        "src slave:/".to_owned(),
    ] {
        let ran = net.run(&format!("{by} --delete {pair}"));
        assert_eq!(ran.code, 5, "{pair}: {ran:?}");
        assert!(!net.site.dst().exists() && read(out.join("file")) == "s", "{pair}");
    }
    net.run(&format!("{by} --adopt --delete src slave:one")).fails(2, "--restrict");
    for (command, to) in [
        ("stop", "src slave:one"),
        ("start", "src slave:one"),
        ("status", "src slave:one"),
        ("check", "src slave:one"),
        ("freeze", "slave:one dst"),
    ] {
        let ran = net.run(&format!("{by} --{command} 'touch {}' {to}", net.site.rig.path("ran").display()));
        assert!([2, 5].contains(&ran.code), "{command}: {ran:?}");
        assert!(!net.site.rig.path("ran").exists(), "{command}");
    }
}
