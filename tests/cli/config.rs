//! The configuration, as every command reads it: who may write it, what it gives, and what a peer may say of it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use repl::cli::config::load;

use super::craft::{Stream, bookmark, feed, position};
use super::rig::{APPLY, COMMANDS, Ran, Rig, Sshd};

/// Writes a configuration that is believed.
fn place(rig: &Rig, name: &str, text: &str) {
    fs::write(rig.path(name), text).unwrap();
    fs::set_permissions(rig.path(name), fs::Permissions::from_mode(0o600)).unwrap();
}

/// Every kind of key, and a table for every command that has something to say there.
const WHOLE: &str = r#"set = "orders"
here = "mars"
address = "mars:1"
engine = "plain"
pattern = "log.%S"
logdir = "/nowhere/log"
datadir = "/nowhere/data"
archive = "/nowhere/archive"
state = "/nowhere/state"

[ship]
via = "cat"
commit-only = true
heartbeat = "5s"

[apply]
feed = "true"
delay = "1h"

[sync]
include = ["a b", "c\"d"]
exclude = ["*"]
hook = ["on-error=true"]

[base]
name = "one"

[prune]
keep-bases = 3
sender = ["/a", "/b"]

[recover]
until = "1-1:0"

[verify]
no-bases = true

[fetch]
closed = true

[server]
stop = "stop it"
start = "start it"
promote = "promote it"

[hooks]
after-sync = "true"

[[site]]
name = "venus"
rsh = "ssh venus"
votes = 2
"#;

#[test]
fn what_any_command_prints_is_read_back_to_the_same() {
    let rig = Rig::new();
    place(&rig, "whole.toml", WHOLE);
    place(&rig, "least.toml", "");
    for (command, _) in COMMANDS {
        for file in ["whole", "least"] {
            let first = rig.ok(&format!("${command} -c {file}.toml --print-config"));
            place(&rig, "again.toml", &first);
            assert_eq!(rig.ok(&format!("${command} -c again.toml --print-config")), first, "{command}, {file}");
            assert!(first.starts_with(&format!("# what repl-{} goes by", command.to_lowercase())), "{first}");
            assert_eq!(first.contains("[[site]]\nname = \"venus\"\nrsh"), file == "whole", "{first}");
        }
    }
}

#[test]
fn what_is_printed_is_what_holds() {
    let rig = Rig::new();
    place(&rig, "a.toml", WHOLE);
    let line = "REPL_OPT_HEARTBEAT=7s $SHIP -c a.toml --to ssh://h/d --ack one --print-config /here";
    let first = rig.ok(line);
    for holds in [
        "\nlogdir = \"/here\"\n",
        "\nheartbeat = \"7s\"\n",
        "\nto = [\"ssh://h/d\"]\n",
        "\nack = \"one\"\n",
        "\ncommit-only = true\n",
        "\n# ack-timeout = \"30s\"\n",
    ] {
        assert!(first.contains(holds), "{holds} in {first}");
    }
    assert!(!first.contains("[apply]"), "{first}");
    place(&rig, "b.toml", &first);
    assert_eq!(rig.ok("$SHIP -c b.toml --print-config"), first);
    // As a file, it does what the line and the variable did.
    rig.run("$SHIP -c b.toml").fails(1, "cannot open /here");
    let ranked = rig.ok("$SYNC -c a.toml --print-config --exclude x --include y h:/s");
    assert!(ranked.contains("exclude = [\"x\"]\ninclude = [\"y\"]\n"), "{ranked}");
    rig.run("$SYNC --print-config --exclude x --include y --exclude z a b").fails(2, "that alternate");
}

#[test]
fn secrets_are_masked_and_a_mask_is_not_run() {
    let rig = Rig::new();
    place(&rig, "a.toml", "[server]\nstop = \"PGPASSWORD=hidden true\"\n[sync]\ncheck = \"x --token hidden\"\n");
    let printed = rig.ok("$SYNC -c a.toml --hook 'on-error=curl -u me:hidden x' --print-config");
    assert_eq!(printed.matches("********").count(), 3, "{printed}");
    assert!(!printed.contains("hidden"), "{printed}");
    place(&rig, "b.toml", &printed);
    assert_eq!(rig.ok("$SYNC -c b.toml --print-config"), printed);
    rig.run("$SYNC -c b.toml master copy").fails(2, "b.toml has secrets masked");
    assert!(!rig.path("copy").exists());
}

#[test]
fn a_file_that_others_could_have_written_is_refused() {
    let rig = Rig::new();
    place(&rig, "a.toml", "");
    rig.ok("chmod 664 a.toml");
    let whole = rig.root.path().canonicalize().unwrap().join("a.toml");
    for (command, _) in COMMANDS {
        let code = if command == "FETCH" { 126 } else { 2 };
        let ran = rig.run(&format!("${command} -c a.toml --print-config"));
        ran.fails(code, "a.toml can be written by others than its owner (mode 0664)");
        ran.fails(code, &format!("hint: chmod go-w {}\n", whole.display()));
    }
    rig.ok("chmod 600 a.toml; chmod 777 .");
    rig.run("$SHIP -c a.toml --print-config").fails(2, "can be written by others than its owner (mode 0777)");
    rig.ok("chmod 1777 .");
    rig.ok("$SHIP -c a.toml --print-config");
    rig.run("$SHIP -c none.toml master").fails(2, "cannot read none.toml: No such file");
    place(&rig, "a.toml", "[ship]\n\nvai = \"x\"\n");
    rig.run("$APPLY -c a.toml replica").fails(2, "a.toml, line 3: [ship] vai is not known; did you mean via?");
    assert!(!rig.path("replica").exists());
}

#[test]
fn a_pipeline_goes_by_two_files() {
    let rig = Rig::new();
    let root = rig.root.path().display();
    place(
        &rig,
        "mars.toml",
        &format!(
            "set = \"orders\"\nhere = \"mars\"\nengine = \"plain\"\npattern = \"log.%S\"\nlogdir = \"{root}/master\"\nstate = \"{root}/sender\"\n[ship]\nonce = true\n"
        ),
    );
    place(
        &rig,
        "venus.toml",
        &format!("set = \"orders\"\nhere = \"venus\"\narchive = \"{root}/replica\"\n[apply]\nlogs-only = true\n"),
    );
    rig.write("log.1", "one");
    rig.write("log.2", "two");
    rig.ok("$SHIP -c mars.toml | $APPLY -c venus.toml");
    rig.assert_equal();
    assert!(rig.path("sender/segments.jsonl").exists());
    assert!(rig.ok("$VERIFY -v -c venus.toml").contains("set 'orders'"));
    // The receiver of the same set says who it is, and takes no other one.
    let greeting =
        rig.ok("$SHIP -c mars.toml --via 'tee -a sent | $APPLY -c venus.toml --acks | tee -a heard'; cat heard");
    assert!(greeting.contains(" set=orders ") && greeting.contains(" site=venus "), "{greeting}");
    assert!(rig.ok("strings sent || cat sent").contains("site=mars"));
    rig.run("$SHIP -c mars.toml --set stock | $APPLY -c venus.toml").fails(5, "takes set 'orders' only");
}

#[test]
fn a_set_s_own_file_is_found_by_its_name() {
    let rig = Rig::new();
    rig.write("log.1", "one");
    place(&rig, "orders.toml", "engine = \"plain\"\npattern = \"log.%S\"\n[apply]\nlogs-only = true\n");
    place(&rig, "stock.toml", "set = \"other\"\n");
    let named = |line: &str| {
        let inside = "mount -t tmpfs none /etc && mkdir /etc/repl && cp *.toml /etc/repl";
        rig.run(&format!("unshare -m bash -c '{inside} && {line}'"))
    };
    let printed = named("$APPLY --set orders --print-config");
    assert_eq!(printed.code, 0, "{printed:?}");
    assert!(printed.out.contains("set = \"orders\"\nengine = \"plain\"\n"), "{printed:?}");
    assert_eq!(named("REPL_OPT_SET=orders $APPLY --print-config").out, printed.out);
    let shipped = named("$SHIP -S --set orders master | $APPLY --set orders replica");
    assert_eq!(shipped.code, 0, "{shipped:?}");
    rig.assert_equal();
    named("$APPLY --set stock --print-config").fails(2, "/etc/repl/stock.toml is of set 'other'");
    // No file, and no name that leads elsewhere, is no fault: --set was there before the file.
    assert_eq!(named("$APPLY --set ../repl/stock --print-config | grep -c other").out, "0\n");
    assert_eq!(named("$VERIFY -q --set nowhere replica").code, 0);
}

/// As sshd would run it.
fn asks(rig: &Rig, forced: &[&str], line: &str, variables: &[(&str, &str)]) -> Ran {
    let mut command = Command::new(APPLY);
    command.arg("--restrict").arg(rig.path("archive")).args(forced).env("SSH_ORIGINAL_COMMAND", line);
    command.envs(variables.iter().copied()).current_dir(rig.root.path());
    feed(command, &Stream::new().begin(1).data(b"abc").bye().bytes)
}

#[test]
fn behind_restrict_a_peer_names_the_key_s_own_file_or_none() {
    let rig = Rig::new();
    fs::create_dir(rig.path("archive")).unwrap();
    let logdir = rig.path("archive/mine").canonicalize().unwrap_or(rig.path("archive/mine"));
    place(&rig, "a.toml", &format!("logdir = \"{}\"\n[apply]\nappend-only = true\n", logdir.display()));
    place(&rig, "b.toml", &format!("logdir = \"{}\"\n", rig.path("elsewhere").display()));
    let forced = ["-c", "a.toml"];
    for line in [
        "repl-apply --acks -c a.toml",
        "repl-apply --acks --config a.toml",
        "repl-apply --acks",
        "repl-apply --acks mine",
    ] {
        let ran = asks(&rig, &forced, line, &[]);
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
        assert!(ran.out.contains("flushed=1-1:3"), "{ran:?}");
    }
    assert_eq!(position(&rig.path("archive/mine")), bookmark(1, b"abc"));
    for (forced, line, code, why) in [
        (&forced[..], "repl-apply --acks -c b.toml", 2, "this key does not use b.toml"),
        (&forced, "repl-apply --acks -c ./a.toml", 2, "this key does not use ./a.toml"),
        (&[], "repl-apply --acks -c a.toml mine", 2, "hint: -c a.toml in the forced command"),
        (&forced, "repl-apply --acks -c", 2, "-c has no value"),
        (&forced, "repl-apply --acks -ca.toml", 2, "option '-ca.toml' is not allowed"),
        (&forced, "repl-apply --acks --set orders", 2, "option '--set' is not allowed"),
        (&forced, "repl-apply --print-config", 2, "option '--print-config' is not allowed"),
        (&forced, "repl-apply --acks -c a.toml other", 5, "this key may write to mine only"),
        (&["-c", "b.toml"], "repl-apply --acks", 5, "leads out of"),
    ] {
        let ran = asks(&rig, forced, line, &[]);
        ran.fails(code, why);
        assert!(ran.out.is_empty(), "{ran:?}");
    }
    // A client of sshd may have set them.
    let variables = [("REPL_OPT_FEED", "touch hacked"), ("REPL_OPT_CONFIG", "b.toml"), ("REPL_OPT_STATE", "elsewhere")];
    assert_eq!(asks(&rig, &forced, "repl-apply --acks", &variables).code, 0);
    assert_eq!(asks(&rig, &[], "repl-apply --acks --pattern log.%S other", &variables).code, 0);
    assert!(!rig.path("hacked").exists() && !rig.path("elsewhere").exists());
}

#[test]
fn a_site_s_rsh_reaches_its_receiver_behind_a_forced_command() {
    let (rig, sshd) = (Rig::new(), Sshd::start());
    rig.write("log.1", "one");
    let replica = rig.replica().display().to_string();
    let file = rig.path("venus's own.toml").display().to_string();
    place(&rig, "venus's own.toml", &format!("here = \"venus\"\nlogdir = \"{replica}\"\n"));
    fs::copy(&file, rig.path("plain.toml")).unwrap();
    let plain = rig.path("plain.toml").display().to_string();
    place(&rig, "mars.toml", &format!("pattern = \"log.%S\"\n[[site]]\nname = \"venus\"\nrsh = \"{}\"\n", sshd.ssh()));
    let mut venus = load(&rig.path("mars.toml")).unwrap().sites.remove(0);
    let ship =
        |via: String| Ran::from(rig.sh("$SHIP -S -c mars.toml master").env("REPL_OPT_VIA", via).output().unwrap());
    sshd.force(&format!("restrict,command=\"{APPLY} --restrict {} -c {plain}\"", rig.root.path().display()));
    venus.config = Some(plain);
    let ran = ship(venus.via("orders").unwrap());
    assert_eq!(ran.code, 0, "{ran:?}");
    rig.assert_equal();
    // A name that a shell would take apart arrives whole, and is not this key's.
    venus.config = Some(file);
    ship(venus.via("orders").unwrap()).fails(2, "this key does not use /");
    // Without a forced command the far shell runs what the site's prefix is given.
    sshd.force("restrict");
    rig.append("log.1", "two");
    let there = format!("{APPLY} --acks -c {}", shell_words::quote(venus.config.as_ref().unwrap()));
    let ran = ship(venus.far(&there).unwrap());
    assert_eq!(ran.code, 0, "{ran:?}");
    rig.assert_equal();
}

#[test]
fn what_a_command_runs_is_not_told_its_variables() {
    let rig = Rig::new();
    rig.write("log.1", "one");
    let via = "--via 'env > via; $APPLY --acks replica'";
    rig.ok(&format!("REPL_OPT_STATE=$PWD/sender REPL_OPT_PATTERN=log.%S $SHIP -S {via} master"));
    assert!(rig.path("sender/segments.jsonl").exists() && rig.path("replica/.repl/position").exists());
    rig.ok("REPL_OPT_ITEMIZE=1 $SYNC --hook 'after-sync=env > hook' master copy");
    for file in ["via", "hook"] {
        let told = fs::read_to_string(rig.path(file)).unwrap();
        assert!(told.contains("PATH=") && !told.contains("REPL_OPT_"), "{told}");
    }
}

#[test]
fn a_server_is_stopped_by_the_configuration_of_the_site_where_it_is() {
    let rig = Rig::new();
    rig.write("a", "one");
    let ran = |site: &str| format!("echo $1 >> {}/{site}", rig.root.path().display());
    for site in ["here", "there"] {
        let command = |what: &str| ran(site).replace("$1", what);
        let text = format!(
            "[server]\nstop = \"{}\"\nstart = \"{}\"\n[sync]\nengine = \"plain\"\n",
            command("stop"),
            command("start")
        );
        place(&rig, &format!("{site}.toml"), &text);
    }
    // A remote shell takes a host and a command line.
    let shell = "-e 'sh -c \"shift; eval \\\"\\$*\\\"\" at' --remote-command \"$SYNC -c $PWD/there.toml\"";
    rig.ok("$SYNC -c here.toml master one");
    let ran = |site: &str| fs::read_to_string(rig.path(site)).unwrap_or_default();
    let (before, both) = (ran("here"), "stop\nstart\n");
    rig.append("a", "two");
    rig.ok("$SYNC -c here.toml master one");
    assert_eq!(ran("here"), before + both);
    let before = ran("here");
    rig.ok(&format!("$SYNC {shell} -c here.toml master host:$PWD/two"));
    rig.append("a", "three");
    rig.ok(&format!("$SYNC {shell} -c here.toml master host:$PWD/two"));
    assert!(ran("there").ends_with(both), "{}", ran("there"));
    assert_eq!(ran("here"), before);
}

#[test]
fn completions_know_what_every_command_takes() {
    let rig = Rig::new();
    for (command, _) in COMMANDS {
        let script = rig.ok(&format!("${command} --completions bash"));
        assert!(
            script.contains("--print-config") && script.contains("--config") && script.contains("--set"),
            "{command}"
        );
    }
}

#[test]
fn the_examples_are_understood() {
    let rig = Rig::new();
    let page = include_str!("../../man/repl.toml.5");
    let blocks = page.split(".Bd -literal -offset indent\n").skip(1).filter_map(|rest| rest.split(".Ed").next());
    let mut examples: Vec<&str> = blocks.filter(|block| block.starts_with("set = ")).collect();
    assert_eq!(examples.len(), 3);
    examples.push(include_str!("../../scripts/repl.toml"));
    for text in examples {
        place(&rig, "a.toml", text);
        let config = load(Path::new(&rig.path("a.toml"))).unwrap();
        assert_eq!(config.set.as_deref(), Some("orders"));
        for site in &config.sites {
            let via =
                format!("ssh -T -i /etc/repl/key repl@{} 'repl-apply --acks -c /etc/repl/orders.toml'", site.name);
            assert_eq!(site.via("orders").unwrap(), via);
        }
        for (command, _) in COMMANDS {
            rig.ok(&format!("${command} -c a.toml --print-config"));
        }
    }
}
