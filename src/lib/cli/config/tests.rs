//! Ranks, who gives way to whom, and whose fault it is said to be.

use super::*;
use crate::value::exit::{code_of, hint_of};

fn command(table: &str) -> Command {
    let (_, command) = COMMANDS.iter().find(|(name, _)| *name == table).unwrap();
    let mut command = complete(command());
    command.build();
    command
}

/// What a command is told by a file of this text, variables and a line; `SET` in messages is the file.
fn told(table: &str, text: &str, variables: &[(&str, &str)], line: &str) -> Result<Vec<String>, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.toml");
    std::fs::write(&path, text).unwrap();
    let command = command(table);
    let words = format!("{} -c {} {line}", command.get_name(), path.display());
    let words = shell_words::split(&words).unwrap().into_iter().map(OsString::from).collect();
    let variables: Vec<_> = variables.iter().map(|(key, value)| ((*key).to_owned(), OsString::from(value))).collect();
    match read(&command, words, &variables) {
        Ok(read) => Ok(read.unwrap().words.into_iter().map(|word| word.into_string().unwrap()).collect()),
        Err(error) => {
            assert!(error.downcast_ref::<clap::Error>().is_some() || code_of(&error) == Code::Usage, "{error:#}");
            Err(format!("{error:#}").replace(&path.display().to_string(), "SET"))
        }
    }
}

#[track_caller]
fn gives(table: &str, text: &str, variables: &[(&str, &str)], line: &str, words: &str) {
    let told = told(table, text, variables, line).unwrap();
    assert_eq!(told, shell_words::split(words).unwrap(), "{text}");
}

#[track_caller]
fn refuses(table: &str, text: &str, variables: &[(&str, &str)], line: &str, why: &str) {
    let error = told(table, text, variables, line).unwrap_err();
    assert!(error.contains(why), "{error}");
}

const FILE: &str = "[ship]\nheartbeat = \"1s\"\n";
const ENV: (&str, &str) = ("HEARTBEAT", "2s");

#[test]
fn a_flag_is_of_the_highest_rank_that_gives_it() {
    gives("ship", FILE, &[], "a", "--heartbeat=1s -- a");
    gives("ship", FILE, &[ENV], "a", "--heartbeat=2s -- a");
    gives("ship", FILE, &[ENV], "--heartbeat 3s a", "--heartbeat=3s -- a");
    gives("ship", FILE, &[], "--heartbeat 3s a", "--heartbeat=3s -- a");
    gives("ship", "set = \"top\"\n[ship]\nset = \"table\"", &[], "a", "--set=table -- a");
}

#[test]
fn a_flag_without_a_value_is_taken_back_by_a_variable() {
    let file = "[ship]\ncommit-only = true\n";
    gives("ship", file, &[], "a", "--commit-only -- a");
    gives("ship", file, &[("COMMIT_ONLY", "false")], "a", "-- a");
    gives("ship", "[ship]\ncommit-only = false\n", &[("COMMIT_ONLY", "yes")], "a", "--commit-only -- a");
    gives("ship", "[ship]\ncommit-only = false\n", &[], "--commit-only a", "--commit-only -- a");
    gives("ship", file, &[("COMMIT_ONLY", "0")], "--commit-only a", "--commit-only -- a");
    refuses("ship", file, &[("COMMIT_ONLY", "maybe")], "a", "cannot use REPL_OPT_COMMIT_ONLY: expected true or false");
}

#[test]
fn one_that_may_be_repeated_is_replaced_as_a_whole() {
    let file = "[prune]\nsender = [\"/a\", \"/b\"]\n";
    gives("prune", file, &[], "d", "--sender=/a --sender=/b -- d");
    gives("prune", file, &[("SENDER", "/c\n/d e\n")], "d", "--sender=/c '--sender=/d e' -- d");
    gives("prune", file, &[("SENDER", "/c")], "--sender /f --sender /g d", "--sender=/f --sender=/g -- d");
    gives("sync", "[sync]\ninclude = [\"a\"]\nexclude = \"*\"", &[], "s d", "--include=a '--exclude=*' -- s d");
    gives("sync", "[sync]\nexclude = \"*\"\ninclude = [\"a\"]", &[], "s d", "'--exclude=*' --include=a -- s d");
}

#[test]
fn what_conflicts_with_a_higher_rank_gives_way() {
    let via = "[ship]\nvia = \"x\"\nslot = \"s\"\n";
    gives("ship", via, &[], "a", "--via=x --slot=s -- a");
    // Receivers may be many, so that one does not take the place of another.
    gives("ship", via, &[], "--to ssh://h/d a", "--via=x --slot=s --to=ssh://h/d -- a");
    gives("ship", via, &[], "--acks f a", "--slot=s --acks=f -- a");
    // What needs it goes with it.
    let purge = "[ship]\nvia = \"x\"\npurge = true\nhome = \"/h\"\n";
    gives("ship", purge, &[("PURGE", "false")], "a", "--via=x -- a");
    // A false gives nothing, and nothing gives way to it.
    gives("ship", via, &[("PURGE", "false")], "a", "--via=x --slot=s -- a");
    gives("ship", "logdir = \"/l\"\n", &[], "--segment s", "--segment=s");
    gives("apply", "logdir = \"/l\"\n[apply]\nfeed = \"f\"", &[], "--logs-only", "--logs-only -- /l");
    refuses(
        "ship",
        "[ship]\nvia = \"x\"\nacks = \"f\"",
        &[],
        "a",
        "cannot use [ship] via in SET, line 2 with [ship] acks in SET, line 3: the argument '--",
    );
    refuses("ship", "", &[("VIA", "x"), ("ACKS", "f")], "a", "cannot use REPL_OPT_VIA with REPL_OPT_ACKS: ");
}

#[test]
fn it_is_said_whose_fault_it_is() {
    refuses(
        "ship",
        "\n[ship]\nheartbeat = \"x\"",
        &[],
        "a",
        "cannot use [ship] heartbeat in SET, line 3: invalid value 'x'",
    );
    refuses(
        "ship",
        "logdir = \"/l\"",
        &[("ACK", "some")],
        "",
        "cannot use REPL_OPT_ACK: invalid value 'some' for '--ack",
    );
    refuses("ship", "logdir = \"/l\"\nengine = \"sqlite\"", &[], "", "cannot use engine in SET, line 2: invalid value");
    refuses("apply", "logdir = \"/l\"\n[apply]\ndelay = \"1h\"", &[], "", "cannot use [apply] delay in SET, line 3: ");
    refuses("prune", "archive = \"/l\"\n[prune]\non-full = \"stop\"", &[], "", "[prune] on-full in SET, line 3: ");
    refuses(
        "ship",
        "[ship]\nheartbeet = 1",
        &[],
        "a",
        "SET, line 2: [ship] heartbeet is not known; did you mean heartbeat?",
    );
    refuses("ship", "[sync]\nlogdir = 1", &[], "a", "SET, line 2: [sync] logdir is not known");
    refuses("ship", "", &[("HEARTBEET", "1")], "a", "cannot use REPL_OPT_HEARTBEET: no command has --heartbeet");
    refuses("ship", "", &[("Heartbeat", "1s")], "a", "REPL_OPT_Heartbeat");
    refuses("ship", "", &[("COMPLETIONS", "bash")], "a", "no command has --completions");
    refuses("ship", "", &[], "", "required arguments were not provided");
    refuses("ship", "logdir = \"/l\"", &[], "--heartbeat x", "invalid value 'x' for '--heartbeat");
    refuses("ship", "logdir = \"/l\"", &[], "a b", "unexpected argument 'b'");
    refuses("ship", "[server]\nstop = \"p=********\"", &[], "a", "SET has secrets masked");
    gives("ship", "# ***************\nset = \"a\" # ***********", &[], "a", "--set=a -- a");
    // Another command's variable is nothing to this one.
    gives("ship", "", &[("TARGET", "/t")], "a", "-- a");
}

#[test]
fn keys_of_the_top_level_are_what_each_command_makes_of_them() {
    let file = "set = \"o\"\nhere = \"h\"\nengine = \"plain\"\npattern = \"l.%S\"\nlogdir = \"/l\"\ndatadir = \"/d\"\n\
                archive = \"/a\"\nstate = \"/s\"\n[server]\nstop = \"o\"\nstart = \"a\"\nstatus = \"u\"\npromote = \"p\"\n\
                [hooks]\non-error = \"e\"\nafter-sync = \"f\"\n";
    let log = "--engine=plain --pattern=l.%S";
    for (table, line, words) in [
        ("ship", "", format!("--set=o {log} --state=/s -- /l")),
        ("ship", "/x", format!("--set=o {log} --state=/s -- /x")),
        ("apply", "", format!("--set=o {log} --site=h -- /l")),
        ("verify", "", format!("{log} -- /a")),
        ("prune", "", format!("--set=o {log} -- /a")),
        ("prune", "--on-full stop", format!("--set=o {log} --stop=o --on-full=stop -- /a")),
        ("fetch", "N D", "-- /a N D".to_owned()),
        ("fetch", "/b N D", "-- /b N D".to_owned()),
        ("recover", "", "--engine=plain --archive=/a --target=/d --start=a".to_owned()),
        ("recover", "--drill", "--engine=plain --archive=/a --drill".to_owned()),
        ("recover", "--at x --target /t", "--engine=plain --archive=/a --at=x --target=/t".to_owned()),
        ("base", "", "--engine=plain -- /d /a".to_owned()),
        ("base", "h:/x", "--engine=plain -- h:/x /a".to_owned()),
        ("base", "--list", "--engine=plain --list -- /a".to_owned()),
        ("base", "--server", "--engine=plain --server".to_owned()),
        ("sync", "h:/x", format!("{SYNC} --hook=after-sync=f --hook=on-error=e -- h:/x /d")),
        ("sync", "/x h:/y", "--engine=plain --hook=after-sync=f --hook=on-error=e -- /x h:/y".to_owned()),
        ("sync", "--replay", format!("{SYNC} --hook=after-sync=f --hook=on-error=e --replay -- /d")),
        ("sync", "--hook on-error=x /x /y", format!("{SYNC} --hook=on-error=x -- /x /y")),
        ("sync", "--server", format!("{SYNC} --server")),
        ("role", "guard", "guard -- /d".to_owned()),
        ("role", "guard /x", "guard -- /x".to_owned()),
    ] {
        gives(table, file, &[], line, &words);
    }
    gives("apply", "archive = \"/a\"", &[], "", "-- /a");
    gives("verify", "logdir = \"/l\"", &[], "", "-- /l");
    // A base is never taken into a log directory because it is the only one that is known.
    refuses("base", "logdir = \"/l\"\ndatadir = \"/d\"", &[], "", "<ARCHIVE>");
}

const SYNC: &str = "--engine=plain --stop=o --start=a --status=u";

#[test]
fn behind_restrict_no_variable_counts() {
    let file = "[apply]\nlogs-only = true\n";
    gives("apply", file, &[("APPEND_ONLY", "1")], "d", "--logs-only --append-only -- d");
    gives("apply", file, &[("APPEND_ONLY", "1")], "--restrict /r d", "--logs-only --restrict=/r -- d");
    gives("apply", "[apply]\nrestrict = \"/r\"\n", &[("APPEND_ONLY", "1")], "d", "--restrict=/r -- d");
    gives("sync", "", &[("STOP", "x")], "--server --restrict /r", "--server --restrict=/r");
}

#[test]
fn a_file_of_another_set_is_not_taken_for_a_set_s_own() {
    let own = |set: &str, path: Option<&str>| Own { path: path.map(Into::into), set: Some(set.into()), prints: false };
    assert!(own("no-such-set-anywhere", None).file().unwrap().is_none());
    assert!(own("../../etc/passwd", None).file().unwrap().is_none());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.toml");
    std::fs::write(&path, "").unwrap();
    let (config, _) = own("orders", path.to_str()).file().unwrap().unwrap();
    assert_eq!(config.set.as_deref(), Some("orders"));
    let error = load(&dir.path().join("none")).unwrap_err();
    assert_eq!((code_of(&error), hint_of(&error)), (Code::Usage, None));
}

#[test]
fn completions_need_nothing_else() {
    gives("ship", "[ship]\nvia = \"x\"", &[], "a", "--via=x -- a");
    let words = ["repl-ship", "--completions", "bash"].map(OsString::from).to_vec();
    let read = read(&command("ship"), words, &[("NONSENSE".into(), "x".into())]).unwrap().unwrap();
    assert_eq!(read.words, ["--completions=bash"]);
}

#[test]
fn every_key_of_every_table_is_judged_by_its_flag() {
    let known = commands();
    let read = |text: &str| config::parse(text, &known);
    for (table, keys) in &known {
        let wrong = read(&format!("\n[{table}]\nno-such-flag = 1")).unwrap_err();
        assert!(wrong.line == 3 && wrong.text.starts_with(&format!("[{table}] no-such-flag is not known")), "{wrong}");
        for key in NEVER {
            assert!(read(&format!("[{table}]\n{key} = true")).is_err(), "{table} {key}");
        }
        for (key, takes) in keys {
            let (right, wrong) = match takes {
                Takes::Nothing => (vec!["true", "false"], vec!["\"true\"", "1", "[true]"]),
                Takes::One => (vec!["\"a\"", "1"], vec!["true", "1.5", "[\"a\"]", "{a = 1}", "2026-04-18"]),
                Takes::Many => (vec!["\"a\"", "[]", "[\"a\", 1]"], vec!["true", "[true]", "[[\"a\"]]"]),
            };
            let line = |value: &str| format!("[{table}]\n{key} = {value}\n");
            for value in right {
                let printed = read(&line(value)).unwrap().print("", &[]);
                assert_eq!(read(&printed).unwrap().print("", &[]), printed, "{table} {key}");
            }
            for value in wrong {
                assert!(read(&line(value)).is_err(), "{table} {key} {value}");
            }
            assert!(read(&(line("1") + &line("1"))).is_err(), "{table} {key}");
        }
    }
}
