//! The rules of the house, as tests: floors, pages, flags, samples, sizes. What a reviewer would otherwise have to see.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use repl::rule::config::{HOOKS, SERVER, SITE, TOP};
use repl::value::exit::{Code, RECOVERY_ENDS, REGISTER};

/// The floors, lowest first.
const FLOORS: [&str; 5] = ["value", "rule", "edge", "engine", "cli"];

/// The longest a file may be, in lines.
const LONGEST: usize = 500;

/// Files that are longer for now, with the length they may not pass. Nothing joins this list; a file that has become
/// short enough must leave it.
const STILL_LONGER: [(&str, usize); 0] = [];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a directory of the project, as paths from its root.
fn files(below: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![root().join(below)];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                waiting.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn sources(below: &str) -> Vec<String> {
    files(below).into_iter().filter(|path| is_rust(path)).collect()
}

fn is_rust(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "rs")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names of the commands: one for each file in `src/bin`.
fn commands() -> Vec<String> {
    let stem = |path: &String| Path::new(path).file_stem().unwrap().to_str().unwrap().to_owned();
    sources("src/bin").iter().map(stem).collect()
}

/// No faults, or a failure that lists all of them.
#[track_caller]
fn none(what: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{what}:\n  {}", faults.join("\n  "));
}

#[test]
fn a_module_imports_its_own_floor_or_lower() {
    let mut faults = Vec::new();
    for path in sources("src/lib") {
        let inside = path.strip_prefix("src/lib/").unwrap();
        if inside == "lib.rs" {
            continue;
        }
        let top = inside.split('/').next().unwrap().trim_end_matches(".rs");
        let Some(own) = FLOORS.iter().position(|floor| *floor == top) else {
            faults.push(format!("{path} is on no floor: {FLOORS:?}"));
            continue;
        };
        faults.extend(crossings(&read(&path), own).into_iter().map(|fault| format!("{path}:{fault}")));
    }
    none("higher floors are imported", &faults);
}

/// Lines of a source that name a floor above `own`, or that hide which one they name.
fn crossings(source: &str, own: usize) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, line) in source.lines().enumerate() {
        let line = line.trim_start();
        if line.starts_with("//") {
            continue;
        }
        for rest in line.split("crate::").skip(1) {
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            match FLOORS.iter().position(|floor| **floor == name) {
                Some(floor) if floor <= own => {}
                _ => faults.push(format!("{}: {line}", number + 1)),
            }
        }
    }
    faults
}

#[test]
fn crossings_are_seen() {
    assert_eq!(crossings("use crate::rule::scheme;\nuse crate::value::units;", 1), [""; 0]);
    assert_eq!(crossings("// crate::cli\nuse crate::engine::ship;", 2).len(), 1);
    assert_eq!(crossings("let x = crate::cli::report::say();", 0).len(), 1);
    assert_eq!(crossings("use crate::{value, cli};", 4).len(), 1);
    assert_eq!(crossings("use crate::*;", 4).len(), 1);
}

#[test]
fn the_library_does_not_print() {
    let mut faults = Vec::new();
    for path in sources("src/lib").iter().filter(|path| !path.starts_with("src/lib/cli")) {
        for (number, line) in read(path).lines().enumerate() {
            if ["println!", "eprintln!", "stderr()", "stdout().write"].iter().any(|word| line.contains(word)) {
                faults.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    none("below cli nothing prints", &faults);
}

#[test]
fn every_command_has_a_page_and_a_test_file() {
    let mut faults = Vec::new();
    for command in commands() {
        let short = command.strip_prefix("repl-").unwrap_or(&command);
        for needed in [format!("man/{command}.1"), format!("tests/cli/{short}.rs")] {
            if !root().join(&needed).is_file() {
                faults.push(needed);
            }
        }
    }
    none("missing", &faults);
}

#[test]
fn every_page_belongs_to_a_command() {
    let commands = commands();
    let pages = files("man").into_iter().filter(|path| path.ends_with(".1"));
    let stray = pages.filter(|path| !commands.iter().any(|command| *path == format!("man/{command}.1")));
    none("pages of no command", &stray.collect::<Vec<_>>());
}

#[test]
fn every_flag_is_in_help_and_in_the_page() {
    let mut faults = Vec::new();
    for (command, page) in pages() {
        let help = help_flags(&help(&command));
        let (named, listed) = (page_flags(&page), listed_flags(&page));
        faults.extend(help.difference(&named).map(|flag| format!("man/{command}.1 does not name {flag}")));
        faults.extend(
            listed.difference(&help).map(|flag| format!("{command} has no {flag}, which man/{command}.1 lists")),
        );
        if help.is_empty() {
            faults.push(format!("{command} --help names no flag"));
        }
    }
    none("help and manual differ", &faults);
}

/// The commands that have a page, with the page. (That each has one is another test.)
fn pages() -> BTreeMap<String, String> {
    let pages = commands().into_iter().filter_map(|command| {
        let page = fs::read_to_string(root().join(format!("man/{command}.1"))).ok()?;
        Some((command, page))
    });
    pages.collect()
}

/// What a command prints with `--help`, and what each of its subcommands does.
fn help(command: &str) -> String {
    let own = words_of(command, &["--help"]);
    let below = own.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // A description that goes on in the next line is indented further.
    let names = below.filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|name| !name.is_empty()));
    names.fold(own.clone(), |all, name| all + &words_of(command, &[name, "--help"]))
}

/// What a command prints. All commands are built into one directory.
fn words_of(command: &str, args: &[&str]) -> String {
    let path = PathBuf::from(env!("CARGO_BIN_EXE_repl-ship")).with_file_name(command);
    let output = Command::new(&path).args(args).output().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    String::from_utf8(output.stdout).unwrap()
}

/// Flags that every command has and no page needs to list.
fn is_common(flag: &str) -> bool {
    ["--help", "--version"].contains(&flag)
}

/// Long flags of a help text: lines such as `  -S, --once` and `      --via <CMD>`. Descriptions are indented further.
fn help_flags(help: &str) -> BTreeSet<String> {
    let mut flags = BTreeSet::new();
    for line in help.lines() {
        let text = line.trim_start();
        if line.len() - text.len() <= 6 && text.starts_with('-') {
            let words = text.split_whitespace().take(2);
            flags.extend(words.filter_map(long_flag).filter(|flag| !is_common(flag)));
        }
    }
    flags
}

/// All long flags that a page marks as flags, wherever it does.
fn page_flags(page: &str) -> BTreeSet<String> {
    page.lines().flat_map(line_flags).collect()
}

/// Long flags that stand in the heads of a page's lists: those it says the command has.
fn listed_flags(page: &str) -> BTreeSet<String> {
    let heads = page.lines().filter(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some(".It") && words.next() == Some("Fl")
    });
    heads.flat_map(line_flags).filter(|flag| !is_common(flag)).collect()
}

/// Long flags of one mdoc line: `Fl -once`, `Fl Fl once`, `Fl S , -once`, with `\-` for a hyphen or not.
fn line_flags(line: &str) -> Vec<String> {
    let mut flags = Vec::new();
    if !line.starts_with('.') {
        return flags;
    }
    let line = line.replace("\\-", "-").replace("\\(mi", "-").replace("\\&", "");
    // Hyphens that `Fl` puts before a word; `None` outside of `Fl`.
    let mut hyphens: Option<usize> = None;
    let mut before = "";
    for word in line.trim_start_matches('.').split_whitespace().map(|word| word.trim_matches('"')) {
        match word {
            "Fl" if before == "Fl" => hyphens = Some(2),
            "Fl" => hyphens = Some(1),
            _ if is_macro(word) => hyphens = None,
            _ => {
                if let Some(count) = hyphens {
                    flags.extend(long_flag(&format!("{}{word}", "-".repeat(count))));
                    // A doubled `Fl Fl` is spent on its word; a single one goes on to the words that follow.
                    hyphens = Some(1);
                }
            }
        }
        before = word;
    }
    flags
}

/// mdoc's callable macros are two or three letters, a capital first.
fn is_macro(word: &str) -> bool {
    let bytes = word.as_bytes();
    (2..=3).contains(&bytes.len()) && bytes[0].is_ascii_uppercase() && bytes[1..].iter().all(u8::is_ascii_lowercase)
}

/// `--name` of a word such as `--name,` or `--name=VALUE`.
fn long_flag(word: &str) -> Option<String> {
    let name = word.strip_prefix("--")?;
    let name: String = name.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    (!name.is_empty()).then(|| format!("--{name}"))
}

#[test]
fn flags_are_read_from_help() {
    let help = "Options:\n  -S, --once\n          Ship all\n      --via <CMD>\n          --not-a-flag at a line's start\n  \
                -h, --help\n";
    assert_eq!(help_flags(help), BTreeSet::from(["--once".to_owned(), "--via".to_owned()]));
}

#[test]
fn flags_are_read_from_every_common_shape_of_mdoc() {
    for (line, flags) in [
        (".It Fl -via Ar CMD", vec!["--via"]),
        (".It Fl S , Fl -once", vec!["--once"]),
        (".It Fl S , -once", vec!["--once"]),
        (".It Fl Fl via Ar CMD", vec!["--via"]),
        (".It Fl S | Fl Fl once", vec!["--once"]),
        (".Op Fl S | -once", vec!["--once"]),
        (".Op Fl -ack Ns = Ns Ar POLICY", vec!["--ack"]),
        (".It Fl \\-via Ns \\&= Ns Ar CMD", vec!["--via"]),
        (".Op Fl -acks Ar FIFO Oc Op Fl -ack-timeout Ar TIME", vec!["--acks", "--ack-timeout"]),
        (".It Fl -quiet , Fl q", vec!["--quiet"]),
        (".Fl -once ,", vec!["--once"]),
        (".Fl v", vec![]),
        ("text with --flag", vec![]),
    ] {
        assert_eq!(line_flags(line), flags, "{line}");
    }
}

#[test]
fn no_page_eats_the_quotes_of_a_command() {
    let mut faults = Vec::new();
    for page in files("man") {
        let lines = read(&page);
        let eaten = lines.lines().enumerate().filter(|(_, line)| eats_quotes(line));
        faults.extend(eaten.map(|(number, line)| format!("{page}:{}: {line}", number + 1)));
    }
    none("write \\(dq for a quote that is to be seen", &faults);
}

/// Whether mdoc takes a quote of this line for its own, where none is meant to group words: to it, one that begins a word
/// of a macro's line is no text. The widths and the cells of lists are meant so.
fn eats_quotes(line: &str) -> bool {
    let is_meant =
        line.starts_with(".\\\"") || line.starts_with(".Bl ") || (line.starts_with(".It ") && line.contains(" Ta "));
    line.starts_with('.') && !is_meant && line.contains(" \"")
}

#[test]
fn quotes_that_are_eaten_are_seen() {
    for line in [".Dl psql -c \"select 1\"", ".Ql a \"b\"", ".It Ic via No = \"x\""] {
        assert!(eats_quotes(line), "{line}");
    }
    for line in [
        ".Dl psql -c \\(dqselect 1\\(dq",
        ".Dl a --via='x' b=\"c\"",
        "psql -c \"select 1\"",
        ".Bl -tag -width \"ab c\"",
        ".It Sy \"a b\" Ta c",
        ".\\\" a \"remark\"",
    ] {
        assert!(!eats_quotes(line), "{line}");
    }
}

#[test]
fn every_command_has_its_table_in_the_configuration() {
    let tables: Vec<String> = repl::cli::config::commands().keys().map(|table| format!("repl-{table}")).collect();
    assert_eq!(tables, commands());
}

#[test]
fn every_key_of_the_configuration_is_in_its_page() {
    let page = read("man/repl.toml.5");
    let mut known: BTreeMap<String, Vec<String>> = repl::cli::config::commands()
        .into_iter()
        .map(|(table, keys)| (format!("[{table}]"), keys.into_keys().collect()))
        .collect();
    let fixed = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
    known.insert("Top level".to_owned(), fixed(&TOP));
    known.insert("[server]".to_owned(), fixed(&SERVER));
    known.insert("[hooks]".to_owned(), fixed(&HOOKS));
    known.insert("[[site]]".to_owned(), fixed(&SITE));
    let mut faults = Vec::new();
    for (table, keys) in known {
        let keys: BTreeSet<String> = keys.into_iter().collect();
        let listed = page_keys(&page, &table);
        faults.extend(keys.difference(&listed).map(|key| format!("{key} of {table} is not in man/repl.toml.5")));
        faults.extend(listed.difference(&keys).map(|key| format!("man/repl.toml.5 has {key} in {table}")));
    }
    none("keys and repl.toml(5) differ", &faults);
}

/// Keys that stand in a page under a table's name: in the heads of lists, or on lines of their own behind a head or a name.
fn page_keys(page: &str, table: &str) -> BTreeSet<String> {
    let is_name = |line: &&str| *line == format!(".Ss {table}") || *line == format!(".Ic {table}");
    let begins = |line: &&str| {
        line.starts_with(".Ss ")
            || line.starts_with(".Sh ")
            || line.starts_with(".Ic [")
            || line.starts_with(".Bl -column")
    };
    let mut lines = page.lines();
    let mut found = BTreeSet::new();
    while lines.by_ref().any(|line| is_name(&line)) {
        let mut is_list = false;
        for line in lines.clone().take_while(|line| !begins(line)) {
            let is_one = line.starts_with(".It Ic ") || (is_list && line.starts_with(".Ic "));
            if is_one {
                let words = line.trim_start_matches('.').split_whitespace().skip_while(|word| *word != "Ic").skip(1);
                let words = words.take_while(|word| *word != "No").filter(|word| *word != ",");
                found.extend(words.map(str::to_owned));
            }
            is_list = (is_list && is_one) || [".It", ".It value", ".It array", ".It boolean"].contains(&line);
        }
    }
    found
}

#[test]
fn every_page_names_the_exit_codes() {
    let mut faults = Vec::new();
    for (command, page) in pages() {
        let codes = exit_codes(&page);
        if command == "repl-fetch" {
            // It speaks PostgreSQL's codes, and no other ones.
            if codes != BTreeSet::from([0, 1, usize::from(RECOVERY_ENDS)]) {
                faults.push(format!("man/{command}.1 names exit codes {codes:?}"));
            }
            continue;
        }
        for code in [Code::Done, Code::Failed, Code::Usage] {
            if !codes.contains(&(code as usize)) {
                faults.push(format!("man/{command}.1 does not name exit code {}", code as u8));
            }
        }
        let unknown = codes.iter().filter(|code| **code >= REGISTER.len());
        faults.extend(unknown.map(|code| format!("man/{command}.1 names exit code {code}, which is not registered")));
    }
    none("EXIT STATUS", &faults);
}

/// The numbers in the list heads of a page's EXIT STATUS.
fn exit_codes(page: &str) -> BTreeSet<usize> {
    let section = page.lines().skip_while(|line| !is_heading(line, "EXIT STATUS")).skip(1);
    let section = section.take_while(|line| !line.starts_with(".Sh"));
    let heads = section.filter(|line| line.starts_with(".It"));
    heads.flat_map(|head| head.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<_>>()).collect()
}

fn is_heading(line: &str, title: &str) -> bool {
    line.strip_prefix(".Sh").is_some_and(|rest| rest.replace('"', "").trim() == title)
}

#[test]
fn exit_codes_are_read_from_a_page() {
    let page =
        ".Sh OPTIONS\n.It 99\n.Sh EXIT STATUS\n.Bl -tag\n.It 0\nDone.\n.It Li 1\n.It 2 , 5\n.El\n.Sh SEE ALSO\n.It 7";
    assert_eq!(exit_codes(page), BTreeSet::from([0, 1, 2, 5]));
}

#[test]
fn every_sample_is_tested() {
    let test = read("tests/frozen.rs");
    let named = |path: &String| test.contains(path.strip_prefix("tests/").unwrap());
    let untested: Vec<_> = files("tests/data").into_iter().filter(|path| !named(path)).collect();
    none("samples that tests/frozen.rs does not name", &untested);
}

#[test]
fn files_are_short_enough_to_be_read() {
    let mut faults = Vec::new();
    for path in sources("src") {
        let lines = read(&path).lines().count();
        match STILL_LONGER.iter().find(|(longer, _)| *longer == path) {
            Some(_) if lines <= LONGEST => faults.push(format!("{path} has become short: take it off the list here")),
            Some((_, most)) if lines > *most => faults.push(format!("{path}: {lines} lines, it had {most} at most")),
            None if lines > LONGEST => faults.push(format!("{path}: {lines} lines: look for the second noun inside")),
            _ => {}
        }
    }
    none("too long", &faults);
}

#[test]
fn a_module_stands_beside_its_folder() {
    let named_mod = |path: &String| path.ends_with("/mod.rs");
    let found: Vec<_> = ["src", "tests"].into_iter().flat_map(sources).filter(named_mod).collect();
    none("mod.rs", &found);
}

#[test]
fn nothing_is_left_undone_or_left_out() {
    // Put together here, so that this file does not find itself.
    let words = [["to", "do!("].concat(), ["unimpl", "emented!("].concat(), ["#[", "ignore"].concat()];
    let mut faults = Vec::new();
    for path in ["src", "tests"].into_iter().flat_map(sources) {
        for (number, line) in read(&path).lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                faults.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    none("undone", &faults);
}

#[test]
fn every_script_says_what_it_is_for() {
    let mut faults = Vec::new();
    for path in files("scripts").into_iter().chain(files(".ci")) {
        let text = read(&path);
        if text.starts_with("#!") {
            let why = text.lines().nth(1).unwrap_or_default();
            if !why.starts_with("# ") || !text.contains("--help") {
                faults.push(format!("{path}: a comment that says why it exists and --help are expected"));
            }
            let mode = fs::metadata(root().join(&path)).unwrap().permissions();
            if std::os::unix::fs::PermissionsExt::mode(&mode) & 0o111 == 0 {
                faults.push(format!("{path} is not executable"));
            }
        }
    }
    none("scripts", &faults);
}
