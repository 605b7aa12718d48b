//! repl-status: what it says of real senders and receivers, of state files that lie, are damaged or hostile, and in each
//! of its forms as those who read them do.

#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use repl::edge::clock;
use repl::value::time::Time;

use super::rig::{Ran, Rig, eventually, noise};

/// A name that would end any form it is put into, were it not escaped.
const HOSTILE: &str = "</script><b>'\"=|%\\\u{1b}[31m\n# x{} é\u{202e}";

/// So many seconds ago.
fn ago(seconds: i64) -> String {
    Time(clock::now().0 - seconds * 1_000_000).to_string()
}

/// A site that has all, changed by these keys.
fn site(name: &str, change: Value) -> Value {
    let site = json!({
        "name": name, "receiver": format!("ssh {name} repl-apply --acks /a"), "state": "connected", "acks": true, "votes": 1,
        "sent": "1-2:40", "received": "1-2:40", "flushed": "1-2:40", "applied": null, "proven": "1-2:40",
        "lag": {"bytes": 0, "segments": 0, "seconds": 0.0}, "last_ack": ago(1), "connected": ago(900), "reconnects": 3,
        "error": null, "code": null
    });
    merged(site, change)
}

fn merged(mut value: Value, change: Value) -> Value {
    value.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    value
}

/// The status of a sender of a quiet log.
fn sender(sites: &[Value]) -> Value {
    json!({
        "v": 1, "logdir": "/srv/db", "engine": "bdb", "set": "shop", "site": "mars", "epoch": 3, "started": ago(90_000),
        "updated": ago(1), "heartbeat": 10.0, "end": "1-2:40", "grown": ago(5000), "policy": "quorum", "ack_timeout": 30.0,
        "confirmed": 1203, "unconfirmed": 4, "confirmed_to": "1-2:40", "paused": null, "sites": sites
    })
}

/// Puts a status file into a state directory.
fn put(rig: &Rig, state: &str, value: &Value) {
    fs::create_dir_all(rig.path(state)).unwrap();
    fs::write(rig.path(state).join("status.json"), format!("{value:#}\n")).unwrap();
}

fn two(rig: &Rig) {
    let mars = json!({"proven": "1-2:9", "lag": {"bytes": 31, "segments": 0, "seconds": 0.4}});
    put(rig, "state", &sender(&[site("venus", json!({})), site("mars", mars)]));
}

#[track_caller]
fn json_of(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

#[test]
fn a_running_pair_is_idle_and_one_that_was_killed_is_stale() {
    let rig = Rig::new();
    rig.write("log.1", noise(5000, 1));
    rig.write("log.2", noise(700, 2));
    let mut ship = rig.spawn(
        "exec $SHIP --pattern log.%S --set shop --state state --heartbeat 100ms --via \"$APPLY --acks replica\" master",
    );
    let told = || json_of(&rig.run("$STATUS --json --state state"));
    eventually("an idle site", || {
        rig.path("state/status.json").exists() && told()["senders"][0]["sites"][0]["state"] == "idle"
    });
    let table = rig.ok("$STATUS -v --state state");
    assert!(table.contains("shop, sender: idle") && table.contains("1-2:700"), "{table}");
    let found = told();
    assert_eq!((&found["alarm"], &found["code"]), (&json!("ok"), &json!(0)));
    assert_eq!(found["senders"][0]["running"], true);

    ship.signal(rustix::process::Signal::KILL);
    ship.child.wait().unwrap();
    let ran = rig.run("$STATUS --state state");
    ran.fails(8, "repl-ship (process");
    assert!(ran.out.contains("shop, sender: stale"), "{ran:?}");
    // By the log directory too, where the sender's state is in its usual place.
    let usual =
        rig.ok("$SHIP -S --pattern log.%S --via \"$APPLY --acks other\" $PWD/master; $STATUS --json master || :");
    let usual: Value = serde_json::from_str(&usual).unwrap();
    assert_eq!(usual["senders"][0]["sites"][0]["proven"], "1-2:700", "{usual}");
    // And in the place of a set, by what is written there.
    let by_set = rig.ok("home=${XDG_STATE_HOME}/repl; [ $(id -u) = 0 ] && home=/var/lib/repl; \
         name=set-$(basename $PWD | tr -d .); $SHIP -S --set $name --pattern log.%S --via \"$APPLY --acks third\" $PWD/master; \
         $STATUS --json master || :; rm -r $home/$name");
    let by_set: Value = serde_json::from_str(&by_set).unwrap();
    assert_eq!(by_set["senders"].as_array().unwrap().len(), 2, "{by_set}");
}

#[test]
fn exit_codes_say_the_worst_and_words_say_of_what() {
    let rig = Rig::new();
    let with = |change: Value| {
        put(&rig, "state", &sender(&[site("venus", json!({})), site("mars", change)]));
        rig.run("$STATUS --state state")
    };
    let lag = |seconds: f64| json!({"proven": "1-2:9", "lag": {"bytes": 31, "segments": 0, "seconds": seconds}});
    assert_eq!(with(lag(0.4)).code, 0);
    assert_eq!(with(lag(61.0)).code, 0);
    with(lag(601.0)).fails(10, "31 B and 10 m 1 s behind");
    // A link that is down is a warning, which asks nothing of a script, until it was silent for too long.
    let retrying =
        |seconds| json!({"state": "retrying", "error": "no route to host", "code": 8, "last_ack": ago(seconds)});
    for seconds in [2, 61] {
        let ran = with(retrying(seconds));
        assert!(ran.code == 0 && ran.out.contains("no route to host"), "{ran:?}");
        let ran = rig.run("$STATUS --json --state state");
        assert_eq!((ran.code, &json_of(&ran)["alarm"], &json_of(&ran)["code"]), (0, &json!("warning"), &json!(0)));
        assert_eq!(rig.run("$STATUS --nagios --state state").code, 1);
    }
    with(retrying(601)).fails(8, "no route to host");
    with(json!({"state": "refused", "error": "gap: 1-1", "code": 3})).fails(3, "refused: gap: 1-1");
    let table = with(json!({"state": "refused", "error": "gap: 1-1", "code": 3})).out;
    assert!(table.contains("venus  idle") && table.contains("mars   refused"), "{table}");
    assert_eq!(rig.run("$STATUS -q --state state").out, "");
    rig.run("$STATUS --state none").fails(1, "cannot open none");
    rig.run("$STATUS master").fails(8, "no repl-ship has left word in");
    rig.run("$STATUS --warn-age 2h --crit-age 1h --state state").fails(2, "--warn-age must not be longer");
    // A limit of bytes, where one is given.
    put(&rig, "state", &sender(&[site("mars", lag(0.4))]));
    rig.run("$STATUS --crit-bytes 30 --state state").fails(10, "31 B");
}

#[test]
fn a_quiet_log_is_no_lag_and_a_silent_sender_is_an_alarm() {
    let rig = Rig::new();
    let quiet = sender(&[site("venus", json!({}))]);
    put(&rig, "state", &quiet);
    let line = |rig: &Rig| rig.run("$STATUS --nagios --state state");
    let ran = line(&rig);
    assert_eq!((ran.code, ran.out.split('|').next().unwrap()), (0, "REPL OK - venus idle"));
    put(&rig, "state", &merged(quiet.clone(), json!({"updated": ago(40)})));
    let ran = line(&rig);
    assert_eq!(ran.code, 3);
    assert!(ran.out.starts_with("REPL UNKNOWN - shop stale: no news for 4"), "{ran:?}");
    assert!(!ran.out.contains("lag"), "what a dead sender said of lag is not data: {ran:?}");
    rig.run("$STATUS --state state").fails(8, "no news for");
    // The clock was set back by a day, and the sender has died before.
    put(&rig, "state", &merged(quiet, json!({"updated": ago(-86_400)})));
    assert_eq!(line(&rig).code, 3);
}

/// Labels with value, unit, warn, crit and min, by the Monitoring Plugins' guidelines: the format in full, nothing else.
fn perfdata(line: &str) -> BTreeMap<String, (f64, String, [String; 3])> {
    let mut rest = line;
    let mut found = BTreeMap::new();
    while !rest.is_empty() {
        let quoted = rest.strip_prefix('\'').unwrap_or_else(|| panic!("an unquoted label: {rest}"));
        let (label, behind) = quoted.split_once("'=").unwrap_or_else(|| panic!("an open label: {rest}"));
        assert!(!label.contains(['\'', '=', '|', '\n']) && !label.is_empty(), "{label}");
        let (data, behind) = behind.split_once(' ').unwrap_or((behind, ""));
        let fields: Vec<&str> = data.split(';').collect();
        assert!(fields.len() == 1 || fields.len() == 4, "{data}");
        let unit = fields[0].trim_start_matches(|ch: char| ch.is_ascii_digit() || ch == '.');
        let value = fields[0].strip_suffix(unit).unwrap();
        assert!(["s", "B", "c"].contains(&unit), "{data}");
        let bound = |at: usize| fields.get(at).copied().unwrap_or_default().to_owned();
        for bound in [bound(1), bound(2), bound(3)] {
            assert!(bound.is_empty() || bound.parse::<f64>().is_ok(), "{data}");
        }
        let old =
            found.insert(label.to_owned(), (value.parse().unwrap(), unit.to_owned(), [bound(1), bound(2), bound(3)]));
        assert!(old.is_none(), "{label} is there twice");
        rest = behind;
    }
    found
}

#[test]
fn nagios_gets_one_line_with_data_that_its_readers_take() {
    let rig = Rig::new();
    two(&rig);
    let ran = rig.run("$STATUS --nagios --warn-age 30s --crit-age 5m --warn-bytes 1K --state state");
    assert_eq!((ran.code, ran.out.lines().count(), ran.err.as_str()), (0, 1, ""));
    let (words, data) = ran.out.trim_end().split_once('|').unwrap();
    assert_eq!(words, "REPL OK - venus idle; mars current");
    let found = perfdata(data);
    let bounds = |warn: &str, crit: &str, least: &str| [warn, crit, least].map(str::to_owned);
    assert_eq!(found["mars lag"], (0.4, "s".into(), bounds("30", "300", "0")));
    assert_eq!(found["mars bytes"], (31.0, "B".into(), bounds("1024", "", "0")));
    assert_eq!(found["venus reconnects"], (3.0, "c".into(), bounds("", "", "")));
    assert_eq!(found["unconfirmed"], (4.0, "c".into(), bounds("", "", "")));
    read_by_perl(data, found.len());

    // Each severity, worst words first, and nothing that a name or an error can do about it.
    let bad = json!({"state": "refused", "error": format!("a|b\n{HOSTILE}"), "code": 4});
    let slow = json!({"proven": "1-2:9", "lag": {"bytes": 31, "segments": 0, "seconds": 61.0}});
    put(&rig, "state", &sender(&[site("mars", slow.clone()), site(HOSTILE, bad), site("venus", json!({}))]));
    let ran = rig.run("$STATUS --nagios --state state");
    assert_eq!((ran.code, ran.out.lines().count(), ran.out.matches('|').count()), (2, 1, 1), "{ran:?}");
    assert!(
        ran.out.starts_with("REPL CRITICAL - ") && ran.out.contains("; mars lagging: 31 B and 1 m 1 s behind|"),
        "{ran:?}"
    );
    assert!(!ran.out.contains('\u{1b}') && !ran.out.contains("venus idle"), "{ran:?}");
    let data = ran.out.trim_end().split_once('|').unwrap().1;
    read_by_perl(data, perfdata(data).len());
    put(&rig, "state", &sender(&[site("mars", slow)]));
    assert_eq!(rig.run("$STATUS --nagios --state state").code, 1);
    let none = rig.run("$STATUS --nagios --state none");
    assert_eq!((none.code, none.out.lines().count()), (3, 1));
    assert_eq!(rig.run("$STATUS --nagios --warn-age 2h --crit-age 1h --state state").code, 3);
}

/// The parser that Perl's plugins have, where it is installed: it must see as many values.
fn read_by_perl(data: &str, count: usize) {
    let script = "use Monitoring::Plugin::Performance; my @p = Monitoring::Plugin::Performance->parse_perfstring($ARGV[0]); \
                  print scalar(@p)";
    let ran = Command::new("perl").args(["-e", script, data]).output();
    match ran {
        Ok(ran) if ran.status.success() => {
            assert_eq!(String::from_utf8_lossy(&ran.stdout), count.to_string(), "{data}");
        }
        _ => eprintln!("libmonitoring-plugin-perl is not installed: only this test's own parser has read the data"),
    }
}

/// Names with their series, each with its labels and value, by the text format's grammar; panics at what is not in it.
fn metrics(text: &str) -> BTreeMap<String, BTreeMap<String, f64>> {
    let mut found: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
    let (mut helped, mut typed, mut current) = (BTreeSet::new(), BTreeSet::new(), String::new());
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.is_empty() && helped.insert(name.to_owned()), "{line}");
            name.clone_into(&mut current);
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["gauge", "counter"].contains(&kind) && name == current, "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(typed.insert(name.to_owned()), "{line}");
            continue;
        }
        let (name, rest) = line.split_once('{').unwrap_or_else(|| panic!("{line}"));
        assert!(name == current && typed.contains(name), "{line}");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
        let labels = labels(rest);
        let value = rest[labels..].strip_prefix("} ").unwrap_or_else(|| panic!("{line}"));
        assert!(!value.contains(' '), "a time is there: {line}");
        let old = found.entry(name.to_owned()).or_default().insert(rest[..labels].to_owned(), value.parse().unwrap());
        assert!(old.is_none(), "twice: {line}");
    }
    found
}

/// How long the labels at the beginning of a text are: `name="value"` with commas between, `\`, `"` and line ends escaped.
fn labels(text: &str) -> usize {
    let mut at = 0;
    loop {
        let name = text[at..].find("=\"").unwrap_or_else(|| panic!("{text}"));
        assert!(text[at..at + name].bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{text}");
        at += name + 2;
        loop {
            match text.as_bytes()[at] {
                b'\\' => {
                    assert!(matches!(text.as_bytes()[at + 1], b'\\' | b'"' | b'n'), "{text}");
                    at += 2;
                }
                b'"' => break,
                _ => at += 1,
            }
        }
        at += 1;
        if text.as_bytes()[at] == b'}' {
            return at;
        }
        assert_eq!(text.as_bytes()[at], b',', "{text}");
        at += 1;
    }
}

#[test]
fn prometheus_gets_a_file_that_is_replaced_whole_and_read_by_its_own_tool() {
    let rig = Rig::new();
    two(&rig);
    rig.ok("umask 022; $STATUS --prometheus repl.prom --state state");
    let text = fs::read_to_string(rig.path("repl.prom")).unwrap();
    let mode = |name: &str| fs::metadata(rig.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("repl.prom"), 0o644);
    rig.ok("umask 077; $STATUS --prometheus close.prom --state state");
    assert_eq!(mode("close.prom"), 0o600);
    let names: Vec<_> = fs::read_dir(rig.root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_str().unwrap().starts_with('.')), "{names:?}");
    let found = metrics(&text);
    let of = |name: &str, labels: &str| found[name][labels];
    let mars = "set=\"shop\",logdir=\"/srv/db\",site=\"mars\"";
    assert!((of("repl_site_lag_seconds", mars) - 0.4).abs() < 1e-9);
    assert!((of("repl_site_lag_bytes", mars) - 31.0).abs() < 1e-9);
    assert!((of("repl_site_connected", mars) - 1.0).abs() < 1e-9);
    let own = "set=\"shop\",logdir=\"/srv/db\",role=\"sender\"";
    assert!((of("repl_unconfirmed_boundaries_total", own) - 4.0).abs() < 1e-9);
    assert!((of("repl_up", own) - 1.0).abs() < 1e-9);
    assert!(of("repl_status_updated_timestamp_seconds", own) > 1.7e9);
    checked_by_promtool(&text);

    // Names that would end a label, two sites of one name, a state that is there twice, and one that is not there.
    put(&rig, "state", &sender(&[site(HOSTILE, json!({})), site("a", json!({})), site("a", json!({}))]));
    let text = rig.ok("$STATUS --prometheus - --state state --state state --state none");
    let found = metrics(&text);
    assert_eq!(found["repl_site_lag_bytes"].len(), 2);
    assert!((found["repl_up"]["logdir=\"none\""]).abs() < 1e-9);
    checked_by_promtool(&text);
    // What a dead sender has said of lag is no more told.
    put(&rig, "state", &merged(sender(&[site("a", json!({}))]), json!({"updated": ago(100)})));
    let found = metrics(&rig.ok("$STATUS --prometheus - --state state"));
    assert!(!found.contains_key("repl_site_lag_bytes") && found["repl_up"][own].abs() < 1e-9);
    rig.run("$STATUS --prometheus none/x.prom --state state").fails(1, "cannot open none");
}

fn checked_by_promtool(text: &str) {
    let tool = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut tool) = tool else {
        return eprintln!("promtool is not installed: only this test's own parser has read the metrics");
    };
    tool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = tool.wait_with_output().unwrap();
    assert!(said.status.success() && said.stderr.is_empty(), "{said:?}");
}

#[test]
fn other_machines_are_asked_at_once_and_one_that_fails_hides_none() {
    let rig = Rig::new();
    two(&rig);
    let ask = "--ask venus='echo one >gate; $STATUS --json --state state' --ask mars='read x <gate; exec cat answer'";
    rig.ok("mkfifo gate; $STATUS --json --state state >answer");
    // Each waits for the other, so one after the other would never end.
    let ran = rig.run(&format!("export STATUS; $STATUS {ask} --json"));
    let found = json_of(&ran);
    let asked: Vec<_> = found["senders"].as_array().unwrap().iter().map(|part| &part["asked"]).collect();
    assert_eq!((ran.code, asked), (0, vec![&json!("venus"), &json!("mars")]));
    assert_eq!(found["senders"][1]["sites"][1]["lag"]["bytes"], 31);
    assert_eq!(found["senders"][1]["sites"][1]["state"], "current");

    let bad = "--ask a='echo no route >&2; exit 255' --ask b='echo {' --ask c='exec sleep 100' --ask d='exec yes' \
               --ask-timeout 200ms --ask e='cat answer; exit 10'";
    let ran = rig.run(&format!("$STATUS {bad}"));
    ran.fails(8, " is unknown: ");
    for words in [
        "a: unknown: the ask command exited with 255: no route",
        "b: unknown: ",
        "c: unknown: ",
        "d: unknown: ",
        "e: shop, sender: idle",
    ] {
        assert!(ran.out.contains(words), "{words}: {ran:?}");
    }
    let ran = rig.run(&format!("$STATUS --nagios {bad}"));
    assert_eq!(ran.code, 2);
    rig.run("$STATUS --ask a").fails(2, "'a' is not NAME=COMMAND");
}

#[test]
fn state_that_is_damaged_or_hostile_is_told_of_and_hides_nothing() {
    let rig = Rig::new();
    two(&rig);
    fs::create_dir(rig.path("bad")).unwrap();
    let write = |bytes: &[u8]| fs::write(rig.path("bad/status.json"), bytes).unwrap();
    let long = format!("{{\"v\":1,\"set\":\"{}\"}}", "x".repeat(2 << 20));
    let deep = format!("{{\"v\":1,\"sites\":{}", "[".repeat(200_000));
    let cases: [&[u8]; 7] =
        [b"", b"{\"v\":1,", b"\xff\xfe", b"{\"v\":2}", long.as_bytes(), deep.as_bytes(), b"{\"v\":1,\"end\":\"\x1b\"}"];
    for case in cases {
        write(case);
        for form in ["", "-v", "--json", "--nagios"] {
            let ran = rig.run(&format!("$STATUS {form} --state bad --state state"));
            let expected = if form == "--nagios" { 2 } else { 6 };
            assert_eq!(ran.code, expected, "{form} {ran:?}");
            assert!(ran.out.contains("mars") || form == "--nagios", "{form} {ran:?}");
            assert!(!ran.out.contains('\u{1b}') && !ran.err.contains('\u{1b}'), "{ran:?}");
        }
    }
    // A link in the place of the file is not followed.
    fs::remove_file(rig.path("bad/status.json")).unwrap();
    std::os::unix::fs::symlink(rig.path("state/status.json"), rig.path("bad/status.json")).unwrap();
    rig.run("$STATUS --state bad").fails(5, "symbolic link");
    // Names that are no names, in a table.
    let site = site(HOSTILE, json!({"state": "retrying", "error": HOSTILE, "code": 8}));
    put(
        &rig,
        "state",
        &merged(sender(&[site]), json!({"set": HOSTILE, "paused": {"reason": HOSTILE}, "policy": HOSTILE})),
    );
    let ran = rig.run("$STATUS -v --state state");
    assert!(!ran.out.contains(['\u{1b}', '\u{202e}']) && ran.out.lines().count() == 5, "{ran:?}");
    // What was given up, and a record of that which cannot be read.
    two(&rig);
    let gap = |who: &str| {
        format!(
            "{{\"v\":1,\"time\":\"{}\",\"from\":\"1-1:0\",\"to\":\"1-3:0\",\"reason\":\"full\",\"who\":[\"{who}\"]}}\n",
            ago(9)
        )
    };
    fs::write(rig.path("state/dropped.jsonl"), gap("receiver 'ssh venus repl-apply --acks /a'")).unwrap();
    let ran = rig.run("$STATUS --state state");
    ran.fails(11, "log from 1-1:0 to 1-3:0 was given up");
    assert!(ran.out.contains("venus  dropped") && ran.out.contains("mars   current"), "{ran:?}");
    fs::write(rig.path("state/dropped.jsonl"), "{\n").unwrap();
    rig.run("$STATUS --state state").fails(1, "dropped.jsonl is damaged");
}

#[test]
fn watching_prints_again_until_it_is_interrupted() {
    let rig = Rig::new();
    two(&rig);
    let mut watch = rig.spawn("exec $STATUS --watch=50ms --state state");
    let printed = || fs::read_to_string(rig.path("spawn.out")).unwrap();
    eventually("a second table", || printed().matches("shop, sender: idle").count() > 1);
    watch.signal(rustix::process::Signal::INT);
    assert_eq!(watch.wait().code, 0);
    assert!(printed().contains("\n\n20") && !printed().contains('\u{1b}'), "not a terminal: {}", printed());
    // On a terminal each table is drawn over the one before.
    let mut drawing = rig.spawn("exec script -qfec \"$STATUS --watch=50ms --state state\" drawn");
    let drawn = || fs::read_to_string(rig.path("drawn")).unwrap_or_default();
    eventually("a table over another", || drawn().matches("\u{1b}[H\u{1b}[2J").count() > 1);
    drawing.signal(rustix::process::Signal::TERM);
    drawing.wait();
}

/// A page with everything on it: each kind of state, a past with holes, and names that are none.
fn page(rig: &Rig) -> String {
    let slow = json!({"proven": "1-2:9", "lag": {"bytes": 31, "segments": 0, "seconds": 92.0}});
    let bad = json!({"state": "refused", "error": HOSTILE, "code": 4, "lag": {}});
    let far = json!({"state": "retrying", "error": "no route ".repeat(60), "last_ack": ago(900), "proven": "1-1:9", "reconnects": 123_456});
    let long = "jupiter-".repeat(12);
    let sites = [site("venus", json!({})), site(&long, slow), site(HOSTILE, bad), site("saturn", far)];
    put(rig, "state", &merged(sender(&sites), json!({"set": HOSTILE, "logdir": "/x".repeat(200)})));
    let mut samples = String::new();
    for minute in (1..1400).rev().filter(|minute| !(600..700).contains(minute)) {
        let seconds = if minute == 77 {
            json!(417.25)
        } else if minute > 1300 {
            Value::Null
        } else {
            json!(0.4)
        };
        let sites = json!({"venus": {"bytes": 1, "seconds": seconds}, HOSTILE: {"bytes": 1, "seconds": 1e300}});
        samples += &format!("{}\n", json!({"v": 1, "time": ago(minute * 60), "end": "1-2:40", "sites": sites}));
    }
    fs::write(rig.path("state/lag.jsonl"), samples + "nonsense\n{\"v\":1,\"time\":\"cut").unwrap();
    let event = |age: i64, what: &str, reason: Option<&str>| {
        json!({"v": 1, "time": ago(age), "what": what, "detail": HOSTILE, "reason": reason}).to_string()
    };
    let events =
        [event(900, "pause", Some("ticket 4411")), event(800, "resume", None), event(300, "switchover", Some(HOSTILE))];
    fs::write(rig.path("state/history.jsonl"), events.join("\n") + "\n").unwrap();
    rig.write("log.1", noise(900, 1));
    assert_eq!(rig.pass("--pattern log.%S --set shop", "--logs-only").code, 0);
    let ran = rig.run("umask 022; $STATUS --html page.html --state state replica none");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    fs::read_to_string(rig.path("page.html")).unwrap()
}

/// Every tag is closed in its turn, every value quoted, every `&` of a known name: so no text of others was taken for ours.
fn well_formed(page: &str) -> Vec<String> {
    let mut rest = page.strip_prefix("<!DOCTYPE html>\n").expect("a doctype");
    let (mut open, mut seen) = (Vec::new(), Vec::new());
    while let Some((text, tag)) = rest.split_once('<') {
        if open.last() != Some(&"style") {
            assert!(!text.contains('>'), "{text}");
            for entity in text.split('&').skip(1) {
                assert!(
                    ["amp;", "lt;", "gt;", "quot;", "#39;", "#8211;"].iter().any(|name| entity.starts_with(name)),
                    "{text}"
                );
            }
        }
        let (tag, behind) = tag.split_once('>').unwrap_or_else(|| panic!("an open tag: {tag}"));
        rest = behind;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
            continue;
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        let name = tag.split([' ', '/']).next().unwrap();
        seen.push(name.to_owned());
        if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
    seen
}

#[test]
fn the_page_needs_nothing_else_and_takes_no_text_for_its_own() {
    let rig = Rig::new();
    let page = page(&rig);
    let tags = well_formed(&page);
    let known = "html head meta link title style body main header h1 h2 p time ul li section span dl div dt dd table thead tr th tbody td \
                 strong figure figcaption svg path rect ol q";
    let strange: Vec<_> = tags.iter().filter(|tag| !known.split_whitespace().any(|name| name == **tag)).collect();
    assert!(strange.is_empty(), "{strange:?}");
    for outside in ["http://", "https://", "src=", "url(", "@import", "<script", "javascript:"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(!page.contains(['\u{1b}', '\u{202e}']), "an escape sequence");
    let mode = fs::metadata(rig.path("page.html")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    // The worst minute of the day is on the drawing; the history is newest first, with its reasons.
    assert!(page.contains("6 m 57 s at most; shaded: not known; empty: nothing recorded"), "the worst minute is lost");
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text}"));
    assert!(at("<strong>switchover") < at("<strong>resume") && at("<strong>resume") < at("<strong>pause"));
    at("<q>ticket 4411</q>");
    at("class=\"banner critical\"");
    // However long the past is, so many points are drawn and no more.
    assert!(page.len() < 60_000, "{}", page.len());
    // A sender that says nothing stands above all else.
    put(&rig, "state", &merged(sender(&[site("venus", json!({}))]), json!({"updated": ago(100)})));
    let stale = rig.ok("$STATUS --html - --state state");
    assert!(stale.contains("<li class=\"banner unknown\"><strong>shop stale</strong>: no news for 1 m 4"), "{stale}");
    put(&rig, "state", &sender(&[site("venus", json!({}))]));
    assert!(rig.ok("$STATUS --html - --since 1h --state state").contains("<p class=\"banner ok\">All is well.</p>"));
}

/// What a browser makes of the page: how wide it is on a phone and on a desk, its colours, what it has loaded.
const LOOK: &str = r#"<!DOCTYPE html><title>look</title>
<iframe id="phone" src="page.html" width="390" height="800"></iframe><iframe id="desk" src="page.html" width="1280" height="800"></iframe>
<pre></pre><script>
onload = () => {
    const look = (id) => {
        const view = document.getElementById(id).contentWindow, root = view.document.documentElement;
        return [id, view.innerWidth, root.scrollWidth - root.clientWidth, view.document.querySelectorAll("section").length,
            view.getComputedStyle(view.document.querySelector("td")).display, view.getComputedStyle(view.document.body).backgroundColor,
            view.performance.getEntriesByType("resource").length, view.document.querySelectorAll("path.line").length].join(" ");
    };
    document.querySelector("pre").textContent = [look("phone"), look("desk"), ""].join(String.fromCharCode(10));
};
</script>"#;

#[test]
fn a_browser_shows_the_page_on_a_phone_and_on_a_desk_in_light_and_in_dark() {
    if !Command::new("chromium").arg("--version").output().is_ok_and(|ran| ran.status.success()) {
        return eprintln!("chromium is not installed: nobody has looked at the page");
    }
    let rig = Rig::new();
    page(&rig);
    fs::write(rig.path("look.html"), LOOK).unwrap();
    let look = |scheme: u8| {
        // Only root has no sandbox. Two local files are of one origin for the one that looks.
        let ran = rig.run(&format!(
            "root=; [ $(id -u) = 0 ] && root=--no-sandbox; timeout 60 chromium --headless $root --disable-gpu --user-data-dir=$PWD/profile \
             --allow-file-access-from-files --enable-logging=stderr --blink-settings=preferredColorScheme={scheme} \
             --dump-dom file://$PWD/look.html"
        ));
        assert!(ran.code == 0 && ran.out.contains("<pre>phone "), "{ran:?}");
        assert!(!ran.err.contains("CONSOLE"), "{ran:?}");
        let lines = ran.out.lines().filter_map(|line| line.trim_start_matches("<pre>").split_once(' '));
        let find = |name: &str| {
            lines.clone().find(|(first, _)| first.ends_with(name)).map(|(_, rest)| rest.to_owned()).unwrap()
        };
        (find("phone"), find("desk"))
    };
    let (light, dark) = (look(1), look(0));
    // Nothing is wider than the screen, rows are blocks on a phone only, nothing was loaded, both drawings have their lines.
    assert_eq!(light.0, "390 0 4 grid rgb(247, 247, 245) 0 4".to_owned());
    assert_eq!(light.1, "1280 0 4 table-cell rgb(247, 247, 245) 0 4".to_owned());
    assert_eq!(dark.0, "390 0 4 grid rgb(19, 21, 24) 0 4".to_owned());
    assert_eq!(dark.1, "1280 0 4 table-cell rgb(19, 21, 24) 0 4".to_owned());
}

#[test]
fn a_receiver_says_what_it_has_heard_of_its_master() {
    let rig = Rig::new();
    rig.write("log.1", noise(5000, 1));
    let told = || json_of(&rig.run("$STATUS --json replica"))["receivers"][0].clone();
    let follow = "exec $SHIP --pattern log.%S --state state --heartbeat 50ms --via \"$APPLY --acks --site venus replica\" master";
    let mut ship = rig.spawn(follow);
    eventually("a connection", || {
        rig.replica().join(".repl/status.json").exists() && told()["session"]["connected"] == true
    });
    rig.append("log.1", noise(300, 2));
    eventually("the master's end", || told()["session"]["master_end"] == "1-1:5300" && told()["held"] == "1-1:5300");
    let found = told();
    assert_eq!(
        (&found["state"], &found["running"], &found["lag"]["bytes"]),
        (&json!("current"), &json!(true), &json!(0))
    );
    assert_eq!((&found["session"]["site"], &found["session"]["code"]), (&json!("venus"), &Value::Null));
    // Quiet for longer than a master may be silent: idle. Silent: stale.
    let mut quiet: Value = found["session"].clone();
    quiet["grown"] = ago(100).into();
    let status = rig.replica().join(".repl/status.json");
    ship.signal(rustix::process::Signal::KILL);
    ship.child.wait().unwrap();
    eventually("its end", || told()["session"]["connected"] == false);
    let ran = rig.run("$STATUS replica");
    assert!(ran.code == 0 && ran.out.contains("receiver: retrying: no news for "), "{ran:?}");
    assert_eq!(rig.run("$STATUS --nagios replica").code, 1);
    rig.run("$STATUS --stale 1ms replica").fails(8, "stale: no news for ");
    let own = std::process::id();
    fs::write(&status, merged(quiet.clone(), json!({"heard": ago(1), "pid": null})).to_string()).unwrap();
    assert_eq!(told()["state"], "idle");
    fs::write(&status, merged(quiet.clone(), json!({"heard": ago(1), "pid": own})).to_string()).unwrap();
    rig.run("$STATUS replica").fails(8, "is gone");
    fs::write(&status, merged(quiet.clone(), json!({"heard": ago(31), "pid": null})).to_string()).unwrap();
    rig.run("$STATUS replica").fails(8, "no news from the master for");
    assert_eq!(rig.run("$STATUS --stale 5m replica").code, 0);
    // A power cut has left nothing of it, or something.
    fs::write(&status, "").unwrap();
    assert_eq!(told()["state"], "unknown");
    fs::write(&status, "{").unwrap();
    rig.run("$STATUS replica").fails(6, "status.json is damaged");

    // A refusal stays to be seen, and so does what was heard before.
    rig.write("log.1", noise(5300, 9));
    assert_eq!(rig.pass("--pattern log.%S --retry-for 0s", "").code, 4);
    let ran = rig.run("$STATUS replica");
    ran.fails(4, "refused: diverged");
}

#[test]
fn a_receiver_is_told_of_by_what_it_holds() {
    let rig = Rig::new();
    rig.write("log.1", noise(5000, 1));
    assert_eq!(rig.pass("--pattern log.%S --set shop", "--logs-only").code, 0);
    assert!(rig.ok("$STATUS replica").contains("shop, receiver: ended"));
    fs::create_dir_all(rig.path("replica/.repl/set-aside/2026-11-23T04:00:00Z")).unwrap();
    for place in ["replica", "--state replica/.repl", "replica/.repl"] {
        let found = json_of(&rig.run(&format!("$STATUS --json {place}")));
        let part = &found["receivers"][0];
        assert_eq!((&part["set"], &part["held"]), (&json!("shop"), &json!("1-1:5000")), "{place} {found}");
        assert_eq!(part["aside"], json!(["2026-11-23T04:00:00Z"]));
    }
    fs::write(rig.path("replica/.repl/origin"), "v=1 nonsense\n").unwrap();
    rig.run("$STATUS replica").fails(6, "origin is damaged");
    assert!(!Path::new(&rig.path("replica/.repl/status.json.new")).exists());
}

/// What a site is asked for is what it knows itself: two that ask each other have an end.
#[test]
fn sites_of_the_configuration_are_asked_for_what_they_know_themselves() {
    let rig = Rig::new();
    rig.write("log.1", noise(3000, 1));
    let site = |name: &str| {
        let (rsh, path) = ("sh -c", rig.path(&format!("{name}.toml")));
        format!("[[site]]\nname = \"{name}\"\nrsh = \"{rsh}\"\nconfig = \"{}\"\n", path.display())
    };
    let place = |name: &str, top: &str, sites: &str| {
        let text = format!("set = \"shop\"\nhere = \"{name}\"\npattern = \"log.%S\"\n{top}{sites}");
        std::fs::write(rig.path(&format!("{name}.toml")), text).unwrap();
    };
    let dir = |key: &str, name: &str| format!("{key} = \"{}\"\n", rig.path(name).display());
    let all = site("mars") + &site("venus");
    place("mars", &(dir("logdir", "master") + &dir("state", "state")), &all);
    place("venus", &dir("logdir", "replica"), &all);
    // Commands that are asked for by name are those that are tested.
    let bin = std::path::Path::new(super::rig::STATUS).parent().unwrap().display();
    let path = format!("PATH={bin}:$PATH");
    rig.ok(&format!("{path} $SHIP -S -c mars.toml"));
    let told = |file: &str| -> Value {
        let ran = rig.run(&format!("{path} $STATUS -c {file}.toml --json"));
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
    };
    let roles = |report: &Value| -> Vec<String> {
        let of = |key: &'static str| {
            let asked = |part: &Value| format!("{} {key}", part["asked"].as_str().unwrap_or("-"));
            report[key].as_array().unwrap().iter().map(asked).collect::<Vec<_>>()
        };
        ["senders", "receivers", "silent"].map(of).concat()
    };
    assert_eq!(roles(&told("mars")), ["- senders", "venus receivers"]);
    assert_eq!(roles(&told("venus")), ["mars senders", "- receivers"]);
}

#[test]
fn a_feed_that_fails_and_what_is_paused_at_a_receiver_are_told_of() {
    let rig = Rig::new();
    for name in ["log.1", "log.2", "log.3"] {
        rig.write(name, noise(3000, 1));
    }
    let told = || json_of(&rig.run("$STATUS --json replica"))["receivers"][0].clone();
    // The first segment is fed, and no other before somebody has mended it.
    let feed = r#"test \"\$REPL_SEGMENT\" = log.1 -o -e mended || { echo no table; false; }"#;
    let mut ship = rig.spawn(&format!(
        "exec $SHIP --pattern log.%S --state state --heartbeat 50ms --via \"$APPLY --acks --feed '{feed}' replica\" master"
    ));
    eventually("a feed that fails", || {
        rig.replica().join(".repl/status.json").exists() && told()["session"]["feed_error"].is_string()
    });
    let found = told();
    assert_eq!((&found["session"]["connected"], &found["session"]["error"]), (&json!(true), &Value::Null), "{found}");
    assert_eq!((&found["state"], &found["alarm"], &found["exit"]), (&json!("failed"), &json!("warning"), &json!(9)));
    assert_eq!(found["feed_lag"]["segments"], 2, "{found}");
    let ran = rig.run("$STATUS replica");
    ran.fails(9, "feeding fails for");
    assert!(ran.out.contains("no table") && ran.out.contains("applied 1-1:3000 (2 seg behind)"), "{ran:?}");
    assert_eq!(rig.run("$STATUS --nagios replica").code, 1);
    assert_eq!(rig.run("$STATUS --nagios --warn-age 0s --crit-age 0s replica").code, 2);
    let metrics = rig.ok("$STATUS --prometheus - replica");
    let metric = |metrics: &str, name: &str, value: &str| {
        metrics.lines().any(|line| line.starts_with(&format!("{name}{{")) && line.ends_with(value))
    };
    assert!(metric(&metrics, "repl_receiver_feed_failing", "} 1"), "{metrics}");
    assert!(metric(&metrics, "repl_receiver_feed_lag_segments", "} 2"), "{metrics}");
    assert!(rig.ok("$STATUS --html - replica").contains("1-1:3000 (2 seg behind)"));
    fs::write(rig.path("mended"), "").unwrap();
    eventually("a feed that goes on", || told()["session"]["feed_error"].is_null());
    assert_eq!((&told()["alarm"], &told()["session"]["feed_failing"]), (&json!("ok"), &Value::Null));

    rig.ok("$ROLE pause feed --reason 'a report' replica");
    let ran = rig.run("$STATUS replica");
    assert!(ran.code == 0 && ran.out.contains("paused: feed paused ") && ran.out.contains(" ago: a report"), "{ran:?}");
    assert_eq!(rig.run("$STATUS --nagios replica").code, 1);
    // A refusal as busy comes of a pause: it is what was asked for.
    rig.ok("$ROLE pause apply --reason 'disk swap' replica");
    rig.append("log.3", noise(10, 2));
    eventually("its end", || told()["session"]["code"] == 7);
    let ran = rig.run("$STATUS --nagios replica");
    assert!(ran.code == 1 && ran.out.contains("paused: apply paused ") && ran.out.contains("disk swap"), "{ran:?}");
    assert!(metric(&rig.ok("$STATUS --prometheus - replica"), "repl_receiver_paused", "} 1"));
    ship.signal(rustix::process::Signal::KILL);
    ship.child.wait().unwrap();
    fs::write(rig.replica().join(".repl/paused-feed"), "nonsense").unwrap();
    rig.run("$STATUS replica").fails(6, "paused-feed is damaged");
}
