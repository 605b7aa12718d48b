//! What commands say on standard error to programs: lines of JSON, and priorities for systemd's journal.

use std::fs;

use serde_json::Value;

use super::rig::{COMMANDS, Rig, eventually, noise};

/// All of standard error as objects; each line must be one, with what every line has.
#[track_caller]
fn objects(err: &str) -> Vec<Value> {
    assert!(err.is_empty() || err.ends_with('\n'), "{err}");
    let parse = |line: &str| {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line.len() < 4096 && object["v"] == 1 && object["pid"].is_u64(), "{line}");
        assert!(["error", "warning", "info", "debug"].contains(&object["level"].as_str().unwrap()), "{line}");
        assert!(object["command"].as_str().unwrap().starts_with("repl-"), "{line}");
        assert!(object["time"].as_str().unwrap().ends_with('Z') && object["message"].is_string(), "{line}");
        object
    };
    err.lines().map(parse).collect()
}

#[test]
fn an_error_is_one_object_with_its_hint_and_the_exit_code() {
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    let ran = rig.run("$SHIP -S -q --log-format json --pattern log.%S --retry-for 0s --via 'exit 8' master");
    let said = objects(&ran.err);
    assert_eq!((ran.code, said.len()), (8, 1), "{ran:?}");
    assert_eq!((&said[0]["code"], &said[0]["name"], &said[0]["level"]), (&8.into(), &"link".into(), &"error".into()));

    rig.ok("mkdir replica; touch replica/foreign; $SHIP -S --pattern log.%S master > stream");
    let text = rig.run("$APPLY replica < stream");
    let ran = rig.run("export REPL_OPT_LOG_FORMAT=json; $APPLY replica < stream");
    let said = objects(&ran.err);
    assert_eq!((ran.code, said.len(), &said[0]["name"]), (13, 1, &"guarded".into()), "{ran:?}");
    // The words are those of the text.
    let (message, hint) = (said[0]["message"].as_str().unwrap(), said[0]["hint"].as_str().unwrap());
    assert_eq!(text.err, format!("repl-apply: {message}\nhint: {hint}\n"));

    // repl-fetch exits with PostgreSQL's codes, and says which of ours it is.
    let ran = rig.run("$FETCH --log-format json replica log.1 to");
    let said = objects(&ran.err);
    assert_eq!((ran.code, said.len(), &said[0]["code"]), (126, 1, &126.into()), "{ran:?}");
    assert_eq!(said[0]["name"], "usage", "{ran:?}");
}

#[test]
fn the_format_comes_from_the_configuration_unless_it_is_told_otherwise() {
    let rig = Rig::new();
    fs::write(rig.path("shop.toml"), "[verify]\nlog-format = \"json\"\n").unwrap();
    let ran = rig.run("$VERIFY -c shop.toml none");
    assert_eq!((ran.code, objects(&ran.err).len()), (1, 1), "{ran:?}");
    rig.run("$VERIFY -c shop.toml --log-format text none").fails(1, "repl-verify: ");
    rig.run("export REPL_OPT_LOG_FORMAT=text; $VERIFY -c shop.toml none").fails(1, "repl-verify: ");
}

#[test]
fn a_sender_that_follows_tells_of_its_link_in_objects() {
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    let mut ship = rig.spawn(
        "exec $SHIP -v --log-format json --pattern log.%S --poll 50ms --via 'test -e up || exit 8; echo $$ > receiver; \
         exec $APPLY --log-format json --acks replica' master",
    );
    eventually("a link that fails", || ship.err().contains("trying again"));
    rig.ok("touch up");
    eventually("the link", || ship.err().contains("up to date"));
    rig.ok("rm up; kill -9 $(cat receiver)");
    eventually("the link to be lost", || ship.err().lines().last().is_some_and(|line| line.contains("trying again")));
    ship.signal(rustix::process::Signal::TERM);
    let ran = ship.wait();
    assert_eq!(ran.code, 0, "{ran:?}");
    let said = objects(&ran.err);
    let find = |words: &str| said.iter().find(|line| line["message"].as_str().unwrap().starts_with(words)).unwrap();
    assert_eq!((&find("processing")["segment"], &find("processing")["level"]), (&"1-1".into(), &"info".into()));
    assert!(find("found synchronization point")["position"].as_str().unwrap().starts_with("1-1:"), "{said:?}");
    let lost = said.iter().filter(|line| line["level"] == "warning").collect::<Vec<_>>();
    assert!(lost.len() >= 2 && lost.iter().all(|line| line["code"] == 8 && line["name"] == "link"), "{lost:?}");
}

#[test]
fn names_cannot_break_a_line_in_either_format() {
    let rig = Rig::new();
    let name = r#"$'no\nsuch "one"\e[31m\\ \u202e{}'"#;
    let text = rig.run(&format!("$VERIFY {name}"));
    assert_eq!((text.code, text.err.lines().count()), (1, 1), "{text:?}");
    let ran = rig.run(&format!("$VERIFY --log-format json {name}"));
    let said = objects(&ran.err);
    assert_eq!((ran.code, said.len(), &said[0]["code"]), (1, 1, &1.into()), "{ran:?}");
    assert_eq!(text.err, format!("repl-verify: {}\n", said[0]["message"].as_str().unwrap()));
    assert!(!said[0]["message"].as_str().unwrap().contains(char::is_control), "{said:?}");
}

#[test]
fn a_wrong_command_line_is_told_in_the_format_that_it_asks_for() {
    let rig = Rig::new();
    for (name, _) in COMMANDS {
        let code = if name == "FETCH" { 126 } else { 2 };
        for wrong in [
            "--log-format json --no-such-flag",
            "--no-such-flag\n --log-format=json",
            "--log-format json --log-format json",
        ] {
            let ran = rig.run(&format!("${name} {}", wrong.replace('\n', "")));
            let said = objects(&ran.err);
            assert_eq!((ran.code, said.len(), &said[0]["code"]), (code, 1, &code.into()), "{name}: {ran:?}");
            assert_eq!((&said[0]["name"], ran.out.as_str()), (&"usage".into(), ""), "{name}: {ran:?}");
        }
        let ran = rig.run(&format!("${name} --no-such-flag"));
        assert!(ran.err.contains("Usage: ") && ran.code == code, "{name}: {ran:?}");
        let help = rig.run(&format!("${name} --log-format json --help"));
        assert!(help.code == 0 && help.err.is_empty() && help.out.contains("Usage: "), "{name}: {help:?}");
    }
    let said = objects(&rig.run("$SHIP --log-format json").err).remove(0);
    assert_eq!(said["message"], "the following required arguments were not provided: <LOGDIR>");
    assert_eq!(said["hint"], "repl-ship --help");
}

#[test]
fn priorities_are_for_the_journal_alone() {
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    let warned =
        "-S -v --pattern log.%S --via 'test -e up && exec $APPLY --acks replica 2>/dev/null; touch up; exit 8' master";
    let listened = |stream: &str, command: &str| {
        let ran = rig.run(&format!("rm -f up; : > err; export JOURNAL_STREAM={stream}; {command} 2>> err"));
        (ran.code, fs::read_to_string(rig.path("err")).unwrap())
    };
    let ours = "$(stat -c %d:%i err)";
    let (code, said) = listened(ours, &format!("$SHIP {warned}"));
    assert_eq!(code, 0, "{said}");
    let is_prior = |line: &str| ["<4>", "<6>", "<7>"].contains(&line.split("repl-ship: ").next().unwrap());
    assert!(said.lines().all(is_prior), "{said}");
    for expected in ["<4>repl-ship: the receiver exited", "<6>repl-ship: processing ", "<7>repl-ship: 1000 bytes"] {
        assert!(said.contains(expected), "{said}");
    }

    // An error and its hint are one; a wrong command line has no lines of its own.
    let (code, said) =
        listened(ours, "mkdir other; touch other/foreign; $SHIP -S --pattern log.%S master | $APPLY -q other");
    assert_eq!(code, 13, "{said}");
    let lines: Vec<_> = said.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("<3>repl-apply: ") && lines[1].starts_with("<3>hint: "), "{said}");
    let (code, said) = listened(ours, "$ROLE --no-such-flag");
    assert_eq!(code, 2, "{said}");
    assert!(said.lines().all(|line| line.starts_with("<3>")) && said.lines().count() == 2, "{said}");
    let (_, said) = listened(ours, "$ROLE --log-format json --no-such-flag");
    assert_eq!(objects(said.strip_prefix("<3>").unwrap()).len(), 1);

    // The variable of somebody else's standard error, or nonsense.
    for other in ["$(stat -c %d:%i master/log.1)", "''", "1:2:3", "x"] {
        let (code, said) = listened(other, "$VERIFY none");
        assert!(code == 1 && said.starts_with("repl-verify: "), "{other}: {said}");
    }
}
