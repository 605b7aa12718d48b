//! What repl-status gathers before it judges: which states it looks at, which it must not leave out, by which limits, and
//! what it keeps to itself.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use repl::edge::clock;
use repl::value::time::Time;

use super::rig::{Rig, noise};

/// So many seconds ago.
fn ago(seconds: i64) -> String {
    Time(clock::now().0 - seconds * 1_000_000).to_string()
}

/// The status of a sender of a quiet log, with one site that lacks so many bytes for so many seconds.
fn sender(set: &str, bytes: u64, seconds: f64) -> Value {
    json!({
        "v": 1, "logdir": "/srv/db", "engine": "bdb", "set": set, "epoch": 3, "started": ago(90_000), "updated": ago(1),
        "heartbeat": 1000.0, "end": "1-2:40", "grown": ago(5000), "policy": "all", "sites": [{
            "name": "venus", "receiver": "ssh venus repl-apply --acks /a", "state": "connected", "acks": true,
            "sent": "1-2:40", "received": "1-2:40", "flushed": "1-2:40", "proven": format!("1-2:{}", 40 - bytes),
            "lag": {"bytes": bytes, "segments": 0, "seconds": seconds}, "last_ack": ago(1), "reconnects": 0
        }]
    })
}

fn put(state: &Path, value: &Value) {
    fs::create_dir_all(state).unwrap();
    fs::write(state.join("status.json"), format!("{value:#}\n")).unwrap();
}

#[test]
fn a_standby_that_is_to_ship_one_day_has_no_state_for_that_yet() {
    let rig = Rig::new();
    rig.write("log.1", noise(3000, 1));
    let path = |name: &str| rig.path(name).display().to_string();
    let site = |name: &str| {
        let config = path(&format!("{name}.toml"));
        format!("[[site]]\nname = \"{name}\"\nrsh = \"sh -c\"\nconfig = \"{config}\"\n")
    };
    for (name, log) in [("mars", "master"), ("venus", "replica")] {
        let (log, state) = (path(log), path(&format!("{name}-state")));
        let top = format!(
            "set = \"shop\"\nhere = \"{name}\"\npattern = \"log.%S\"\nlogdir = \"{log}\"\nstate = \"{state}\"\n"
        );
        fs::write(rig.path(&format!("{name}.toml")), top + &site("mars") + &site("venus")).unwrap();
    }
    // Commands that are asked for by name are those that are tested.
    let bin = Path::new(super::rig::STATUS).parent().unwrap().display();
    let run = |line: &str| rig.run(&format!("export PATH={bin}:$PATH; {line}"));

    // Before anything was received it is not known to be a standby.
    run("$STATUS --local -c venus.toml").fails(1, "venus-state is unknown: cannot open");
    assert_eq!(run("$SHIP -S -c mars.toml").code, 0);
    for line in ["-c venus.toml --local", "-c mars.toml"] {
        let ran = run(&format!("$STATUS --nagios {line}"));
        assert!(ran.code == 0 && ran.out.starts_with("REPL OK"), "{line}: {ran:?}");
        assert!(!ran.out.contains("venus-state"), "{ran:?}");
        let ran = run(&format!("$STATUS {line}"));
        assert!(ran.code == 0 && ran.out.contains("shop, receiver: "), "{line}: {ran:?}");
    }
    // Somebody may have made the directory for it.
    fs::create_dir(rig.path("venus-state")).unwrap();
    assert_eq!(run("$STATUS --local -c venus.toml").code, 0);
    // Who names it wants to hear of it, and what lies there and cannot be read is an error.
    run("$STATUS --local -c venus.toml --state venus-state").fails(8, "no repl-ship has left word in venus-state");
    run("REPL_OPT_STATE=venus-state $STATUS --local -c venus.toml").fails(8, "no repl-ship has left word");
    fs::write(rig.path("venus-state/status.json"), "{").unwrap();
    run("$STATUS --local -c venus.toml").fails(6, "status.json is damaged");
    // A master's is one that must be there.
    fs::remove_dir_all(rig.path("mars-state")).unwrap();
    run("$STATUS --local -c mars.toml").fails(1, "mars-state is unknown: cannot open");
}

#[test]
fn a_default_limit_gives_way_to_one_that_is_named() {
    let rig = Rig::new();
    let told = |bytes: u64, seconds: f64, limits: &str| {
        put(&rig.path("state"), &sender("shop", bytes, seconds));
        rig.run(&format!("$STATUS --nagios {limits} --state state"))
    };
    for (limits, bounds) in [
        ("", "60;600;0"),
        ("--crit-age 5s", "5;5;0"),
        ("--crit-age 0s", "0;0;0"),
        ("--crit-age 90s", "60;90;0"),
        ("--warn-age 20m", "1200;1200;0"),
        ("--warn-age 2m", "120;600;0"),
        ("--warn-age 3s --crit-age 5s", "3;5;0"),
    ] {
        let ran = told(0, 0.0, limits);
        assert!(ran.code == 0 && ran.out.contains(&format!("'venus lag'=0s;{bounds} ")), "{limits}: {ran:?}");
    }
    assert_eq!(told(4, 4.0, "--crit-age 5s").code, 0);
    assert_eq!(told(4, 6.0, "--crit-age 5s").code, 2);
    // As the manual has it.
    let maintain = "$STATUS -q --crit-age 5s --crit-bytes 0 --state state && echo maintain";
    rig.run(maintain).fails(10, "4 B and 6.0 s behind");
    put(&rig.path("state"), &sender("shop", 0, 0.0));
    assert_eq!(rig.ok(maintain), "maintain\n");
    rig.run("$STATUS --warn-age 6s --crit-age 5s --state state")
        .fails(2, "--warn-age must not be longer than --crit-age");
    rig.run("$STATUS --warn-bytes 6 --crit-bytes 5 --state state").fails(2, "--warn-bytes must not be more");
}

/// A directory that goes with the test. Root's senders have theirs for the whole machine.
struct Gone(PathBuf);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_set_that_is_named_is_all_that_is_looked_at() {
    let rig = Rig::new();
    let is_root = rustix::process::geteuid().is_root();
    let home = if is_root { PathBuf::from("/var/lib/repl") } else { rig.path("xdg/repl") };
    let unique = rig.root.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.');
    let [one, two] = ["one", "two"].map(|name| format!("gathering-{unique}-{name}"));
    let made = [&one, &two].map(|set| Gone(home.join(set)));
    put(&made[0].0, &sender(&one, 0, 0.0));
    put(&made[1].0, &sender(&two, 4, 700.0));
    // The other one is behind: neither its words nor its exit code belong here.
    for (set, other, code) in [(&one, &two, 0), (&two, &one, 10)] {
        for name in [format!("--set {set}"), format!("-c {set}.toml")] {
            fs::write(rig.path(&format!("{set}.toml")), format!("set = \"{set}\"\n")).unwrap();
            let ran = rig.run(&format!("$STATUS {name}"));
            assert!(ran.code == code && ran.out.contains(&format!("{set}, sender: ")), "{name}: {ran:?}");
            assert!(!ran.out.contains(other.as_str()), "{name}: {ran:?}");
        }
    }
    let all = rig.run("$STATUS").out;
    assert!(all.contains(&one) && all.contains(&two), "{all}");
    let none = format!("{one}-none");
    rig.run(&format!("$STATUS --set {none}"))
        .fails(8, &format!("no repl-ship has left word in {}", home.join(&none).display()));
}

#[test]
fn a_state_that_cannot_be_read_is_told_of() {
    let rig = Rig::new();
    let home = rig.path("xdg/repl");
    for set in ["one", "two"] {
        put(&home.join(set), &sender(set, 0, 0.0));
    }
    fs::write(home.join("notes"), "no state").unwrap();
    fs::create_dir(home.join("empty")).unwrap();
    // Whoever runs the test, this runs as one to whom a mode means something.
    fs::copy(super::rig::STATUS, rig.path("status")).unwrap();
    let user =
        if rustix::process::geteuid().is_root() { "setpriv --reuid 65534 --regid 65534 --clear-groups" } else { "" };
    let told = |words: &str| rig.run(&format!("{user} ./status {words}"));
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(rig.root.path(), 0o755);
    let ran = told("--nagios");
    assert_eq!(ran.out.split('|').next(), Some("REPL OK - one/venus idle; two/venus idle"), "{ran:?}");

    mode(&home.join("two"), 0o000);
    let ran = told("--nagios");
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.out.starts_with("REPL UNKNOWN - ") && ran.out.contains("xdg/repl/two unknown: cannot open"), "{ran:?}");
    assert!(told("").out.contains("one, sender: idle"));
    told("").fails(1, "two is unknown: cannot open");
    told("--set two").fails(1, "two is unknown: cannot open");
    mode(&home.join("one"), 0o000);
    let ran = told("");
    assert!(ran.code == 1 && !ran.err.contains("left word") && ran.err.contains("Permission denied"), "{ran:?}");
    mode(&home, 0o000);
    for words in ["", "--set two", "master"] {
        let ran = told(words);
        assert!(ran.code == 1 && ran.err.contains("Permission denied"), "'{words}': {ran:?}");
    }
    for path in [&home, &home.join("one"), &home.join("two")] {
        mode(path, 0o755);
    }

    // Modes are not all that there is: links that lead nowhere, to themselves, and what is no file.
    for (state, make) in [
        ("three", "ln -s gone xdg/repl/three"),
        ("four", "ln -s four xdg/repl/four"),
        ("five", "mkdir -p xdg/repl/five/status.json"),
        ("six", "mkdir xdg/repl/six && ln -s gone xdg/repl/six/status.json"),
    ] {
        rig.ok(make);
        let ran = told("--json");
        let found: Value = serde_json::from_str(&ran.out).unwrap();
        let silent = found["silent"].as_array().unwrap();
        let is_of_it = |part: &Value| part["name"].as_str().unwrap().ends_with(&format!("xdg/repl/{state}"));
        assert!(ran.code != 0 && silent.len() == 1 && is_of_it(&silent[0]), "{state}: {ran:?}");
        assert!(["unknown", "critical"].contains(&found["alarm"].as_str().unwrap()), "{state}: {ran:?}");
        rig.ok(&format!("rm -r xdg/repl/{state}"));
    }
}

/// Each form of what repl-status tells of a state directory or by other words.
fn forms(rig: &Rig, of: &str) -> Vec<String> {
    let forms = ["", "-v", "--json", "--nagios", "--prometheus -", "--html -"];
    forms.map(|form| rig.run(&format!("$STATUS {form} {of}"))).map(|ran| ran.out + &ran.err).to_vec()
}

#[test]
fn a_secret_in_a_command_is_in_no_message_and_no_status() {
    let rig = Rig::new();
    rig.write("log.1", noise(3000, 1));
    let apply = super::rig::APPLY;
    let (one, two) = (format!("RSYNC_PASSWORD=hunter2 {apply} --acks replica"), "RSYNC_PASSWORD=hunter2 exit 8");
    let three = "RSYNC_PASSWORD=hunter3 exit 8";
    let config = format!(
        "pattern = \"log.%S\"\nlogdir = \"{}\"\nstate = \"{}\"\n[ship]\nvia = [\"{one}\", \"{two}\", \"{three}\"]\n",
        rig.master().display(),
        rig.path("state").display()
    );
    fs::write(rig.path("f.toml"), config).unwrap();
    fs::set_permissions(rig.path("f.toml"), fs::Permissions::from_mode(0o600)).unwrap();
    let call = "--on-error 'env | grep -a ^REPL_ >> calls'";
    for format in ["text", "json"] {
        let ran = rig.run(&format!("$SHIP -S -v --retry-for 0s --log-format {format} {call} -c f.toml"));
        assert_eq!(ran.code, 8, "{ran:?}");
        assert!(ran.err.contains("RSYNC_PASSWORD=******** exit 8") && !ran.err.contains("hunter"), "{ran:?}");
    }
    for file in ["calls", "state/alerts"] {
        let text = fs::read_to_string(rig.path(file)).unwrap();
        assert!(text.contains("RSYNC_PASSWORD=******** exit 8 (2)") && !text.contains("hunter"), "{file}: {text}");
    }

    // What is given up for whom is known by the exact text, which stays in a directory that only its owner can read.
    let status = rig.path("state/status.json");
    let kept: Value = serde_json::from_str(&fs::read_to_string(&status).unwrap()).unwrap();
    assert_eq!(kept["sites"][0]["receiver"], one);
    let names: Vec<_> = kept["sites"].as_array().unwrap().iter().map(|site| site["name"].as_str().unwrap()).collect();
    let masked = "RSYNC_PASSWORD=******** exit 8";
    assert_eq!(names, [one.replace("hunter2", "********").as_str(), masked, &format!("{masked} (2)")]);
    let modes = [&status, &rig.path("state")].map(|path| fs::metadata(path).unwrap().permissions().mode() & 0o777);
    assert_eq!(modes, [0o600, 0o700]);

    let prune = |form: &str| rig.run(&format!("$PRUNE --pattern log.%S --state state {form} master"));
    for form in ["-n", "--explain log.1", "-n --json"] {
        let ran = prune(form);
        let says = [&*ran.out, &*ran.err].concat();
        assert!(says.contains("RSYNC_PASSWORD=********") && !says.contains("hunter"), "{form}: {ran:?}");
    }

    // Also what an older release left there, and what one at another machine answers.
    let mut old = kept.clone();
    for site in old["sites"].as_array_mut().unwrap() {
        site["name"] = site["receiver"].clone();
    }
    let lag: serde_json::Map<_, _> =
        [&one, two, three].map(|name| (name.into(), json!({"bytes": 5, "seconds": 1.0}))).into_iter().collect();
    let line = json!({"v": 1, "time": ago(60), "end": "1-1:5", "sites": lag});
    let drop = json!({"v": 1, "time": ago(60), "from": "1-1:0", "to": "1-2:0", "reason": "", "who": [format!("receiver '{three}'")]});
    let part = json!({"time": ago(1), "asked": null, "sites": [{"name": one, "receiver": one}, {"name": "venus", "receiver": two}], "logdir": "/db",
        "dropped": [{"from": "1-1:0", "to": "1-2:0", "who": [format!("receiver '{two}'")]}]});
    fs::write(rig.path("answer"), json!({"v": 1, "senders": [part]}).to_string()).unwrap();
    for is_old in [false, true] {
        if is_old {
            fs::write(&status, old.to_string()).unwrap();
            fs::write(rig.path("state/lag.jsonl"), format!("{line}\n")).unwrap();
            fs::write(rig.path("state/dropped.jsonl"), format!("{drop}\n")).unwrap();
        }
        for of in ["-c f.toml", "--state state", "--ask 'far=cat answer'"] {
            for text in forms(&rig, of) {
                assert!(text.contains("********") && !text.contains("hunter"), "{of}: {text}");
            }
        }
    }
    let ran = prune("-n");
    assert!(ran.code == 11 && ran.err.contains("RSYNC_PASSWORD=********") && !ran.err.contains("hunter"), "{ran:?}");
    // Two that differ by nothing but the secret stay two: only one of them lacks what was given up.
    let found: Value = serde_json::from_str(&rig.run("$STATUS --json --state state").out).unwrap();
    let states: Vec<_> =
        found["senders"][0]["sites"].as_array().unwrap().iter().map(|site| site["state"].clone()).collect();
    assert!(states[1] != "dropped" && states[2] == "dropped", "{states:?}");
}
