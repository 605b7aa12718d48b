//! What the parser takes, and what it refuses.

use super::*;
use crate::value::exit::code_of;

fn commands() -> Commands {
    let keys =
        [("once", Takes::Nothing), ("heartbeat", Takes::One), ("exclude", Takes::Many), ("keep-for", Takes::One)];
    let keys: BTreeMap<_, _> = keys.into_iter().map(|(key, takes)| (key.to_owned(), takes)).collect();
    ["ship", "prune"].into_iter().map(|table| (table.to_owned(), keys.clone())).collect()
}

fn read(text: &str) -> Result<Config, Wrong> {
    parse(text, &commands())
}

const WHOLE: &str = r#"
set = "orders"
here = "mars"
address = "db1.example.org:5432"
engine = "plain"
pattern = "log.%S"
logdir = "/srv/db"
datadir = "/srv/data"
archive = "/srv/archive"
state = "/srv/state"

[ship]
once = true
heartbeat = 5
exclude = ["a", "b"]

[prune]
keep-for = "30d"
exclude = "c"

[server]
stop = "systemctl stop db"
start = "systemctl start db"
status = "systemctl is-active db"
promote = "p"
demote = """two
lines"""

[hooks]
before-sync = "logger sync"
on-error = "mail -s sync root"

[[site]]
name = "venus"
rsh = "ssh -T repl@venus"

[[site]]
name = "pluto"
address = "pluto:5432"
via = "repl-apply --acks /a"
config = "/etc/pluto.toml"
priority = 0
votes = 0
acks = false
enabled = false
"#;

#[test]
fn everything_is_read() {
    let config = read(WHOLE).unwrap();
    assert_eq!(config.set.as_deref(), Some("orders"));
    assert_eq!(config.site.as_deref(), Some("mars"));
    assert_eq!(config.address.as_deref(), Some("db1.example.org:5432"));
    assert_eq!((config.engine.as_deref(), config.pattern.as_deref()), (Some("plain"), Some("log.%S")));
    let places = [&config.logdir, &config.datadir, &config.archive, &config.state];
    assert_eq!(
        places.map(|place| place.clone().unwrap().to_str().unwrap().to_owned()),
        ["/srv/db", "/srv/data", "/srv/archive", "/srv/state"]
    );
    let exclude = Value::Many(vec!["a".into(), "b".into()]);
    let values = [("once", Value::Flag(true)), ("heartbeat", Value::One("5".into())), ("exclude", exclude)];
    assert_eq!(config.commands["ship"], values.map(|(key, value)| (key.to_owned(), value)));
    assert_eq!(config.commands["prune"][1], ("exclude".to_owned(), Value::Many(vec!["c".into()])));
    assert_eq!(config.server.stop.as_deref(), Some("systemctl stop db"));
    assert_eq!(config.server.demote.as_deref(), Some("two\nlines"));
    assert_eq!(config.hooks["on-error"], "mail -s sync root");
    let venus = Site { rsh: Some("ssh -T repl@venus".into()), ..Site::new("venus") };
    assert_eq!(config.sites[0], venus);
    let Site { priority, votes, acks, enabled, .. } = config.sites[1];
    assert_eq!((priority, votes, acks, enabled), (0, 0, false, false));
    assert_eq!(
        (config.line("", "set"), config.line("ship", "exclude"), config.line("", "x")),
        (Some(2), Some(15), None)
    );
}

#[test]
fn what_is_printed_is_read_back() {
    let mut config = read(WHOLE).unwrap();
    let text = config.print("ship", &["ack = \"all\"".to_owned()]);
    assert!(text.contains("# ack = \"all\"\n\n[server]"), "{text}");
    let mut again = read(&text).unwrap();
    assert_eq!(again.print("ship", &["ack = \"all\"".to_owned()]), text);
    config.lines.clear();
    again.lines.clear();
    assert_eq!(again, config);
    assert!(text.contains("\n# via = \"ssh -T repl@venus 'repl-apply --acks -c /etc/repl/orders.toml'\"\n"), "{text}");
    assert_eq!(Config::default().print("ship", &[]), "");
    assert_eq!(read("").unwrap(), Config::default());
}

#[test]
fn secrets_are_not_printed() {
    let text = "[server]\nstop = \"PGPASSWORD=hidden pg_ctl stop\"\n[ship]\nexclude = [\"token=hidden\"]\n";
    let printed = read(text).unwrap().print("ship", &[]);
    assert!(!printed.contains("hidden") && printed.contains("PGPASSWORD=******** pg_ctl stop"), "{printed}");
    assert_eq!(read(&printed).unwrap().print("ship", &[]), printed);
    let names = "set = \"token=a\"\npattern = \"token=%S\"\nlogdir = \"/pwd=a\"\n";
    assert_eq!(read(names).unwrap().print("ship", &[]), names);
}

#[test]
fn what_is_not_known_is_refused_in_every_table() {
    for (text, line, why) in [
        ("sett = \"a\"", 1, "key 'sett' is not known; did you mean set?"),
        ("\n\nwhatever = 1", 3, "key 'whatever' is not known"),
        ("[shipp]", 1, "table [shipp] is not known; did you mean ship?"),
        ("[x]\na = 1", 1, "table [x] is not known"),
        ("[ship]\nhartbeat = 1", 2, "[ship] hartbeat is not known; did you mean heartbeat?"),
        ("[ship]\nonce = true\n[prune]\nkeep_for = 1", 4, "[prune] keep_for is not known; did you mean keep-for?"),
        ("[server]\nrestart = \"a\"", 2, "[server] restart is not known; did you mean start?"),
        ("[hooks]\nbefore-sink = \"a\"", 2, "[hooks] before-sink is not known; did you mean before-sync?"),
        ("[[site]]\nname = \"a\"\nack = true", 3, "[[site]] ack is not known; did you mean acks?"),
        ("\"a\\u001bb\" = 1", 1, "key 'a\\u{1b}b' is not known"),
        ("[[ship]]\nonce = true", 1, "ship is a table: [ship]"),
        ("ship = 1", 1, "ship is a table: [ship]"),
        ("[site]\nname = \"a\"", 1, "a site is a table with two brackets"),
        ("site = \"a\"", 1, "this machine's own name is here = \"NAME\""),
        ("site = [1]", 1, "a site is a table: [[site]]"),
    ] {
        let wrong = read(text).unwrap_err();
        assert!(wrong.line == line && wrong.text.contains(why), "{text}: {wrong}");
    }
}

#[test]
fn what_is_of_another_type_is_refused() {
    for (text, line, why) in [
        ("set = 1", 1, "set: expected a string, not an integer"),
        ("set = [\"a\"]", 1, "not an array"),
        ("set = \"\"", 1, "set is empty"),
        ("set = \"a\\nb\"", 1, "set: a name has 1 to 255 bytes"),
        ("engine = \"oracle\"", 1, "engine: 'oracle' is not an engine"),
        ("pattern = \"log\"", 1, "pattern: "),
        ("logdir = \"-x\"", 1, "must not begin with '-'"),
        ("state = \"a\\u0000b\"", 1, "state: it has a zero byte"),
        ("[ship]\nonce = \"yes\"", 2, "[ship] once: expected true or false"),
        ("[ship]\nonce = 1", 2, "[ship] once: expected true or false"),
        ("[ship]\nheartbeat = true", 2, "expected a string or an integer, not true or false: put it in quotes"),
        ("[ship]\nheartbeat = 1.5", 2, "not a number with a point"),
        ("[ship]\nheartbeat = 2026-04-18", 2, "not a date or time"),
        ("[ship]\nheartbeat = [\"5s\"]", 2, "it is given once"),
        ("[ship]\nheartbeat = 99999999999999999999", 2, "too large"),
        ("[ship]\nexclude = [true]", 2, "not true or false"),
        ("[ship]\nexclude = {a = 1}", 2, "not a table"),
        ("[server]\nstop = [\"a\"]", 2, "[server] stop: expected a string"),
        ("[hooks]\nafter-sync = 1", 2, "[hooks] after-sync: expected a string"),
        ("[[site]]\nname = 7", 2, "[[site]] name: expected a string"),
        ("[[site]]\nname = \"a\"\nvotes = -1", 3, "votes: expected a whole number"),
        ("[[site]]\nname = \"a\"\npriority = 4294967296", 3, "priority: expected a whole number"),
        ("[[site]]\nname = \"a\"\nacks = 1", 3, "acks: expected true or false"),
        ("\n[[site]]\nrsh = \"a\"", 2, "a [[site]] has no name"),
        ("[[site]]\nname = \"a\"\n[[site]]\nname = \"a\"", 3, "two sites are named 'a'"),
        ("set = \"a\"\nset = \"b\"", 2, "duplicate"),
        ("[ship]\n[ship]", 2, "duplicate"),
        ("[ship]\nonce = true\nonce = true", 3, "duplicate"),
        ("set = ", 1, ""),
        ("\n[ship\n", 2, ""),
    ] {
        let wrong = read(text).unwrap_err();
        assert!(wrong.line == line && wrong.text.contains(why), "{text}: {wrong}");
    }
    assert_eq!(read(&"#".repeat(LONGEST + 1)).unwrap_err().line, 1);
}

#[test]
fn a_site_is_reached_by_via_or_by_rsh() {
    let site = Site { rsh: Some("ssh -T repl@venus".into()), ..Site::new("venus") };
    let via = site.via("orders").unwrap();
    assert_eq!(via, "ssh -T repl@venus 'repl-apply --acks -c /etc/repl/orders.toml'");
    let named = Site { config: Some("/etc/my sets/a".into()), ..site.clone() };
    let quoted = named.via("orders").unwrap();
    let words = shell_words::split(&quoted).unwrap();
    assert_eq!(words[3], "repl-apply --acks -c '/etc/my sets/a'", "{quoted}");
    let told = Site { via: Some("cat".into()), ..site };
    assert_eq!(told.via("orders").unwrap(), "cat");
    let bare = Site::new("venus");
    let error = bare.via("orders").unwrap_err();
    assert_eq!(code_of(&error), Code::Usage);
    assert_eq!(error.to_string(), "site 'venus' has neither via nor rsh");
    assert_eq!(bare.far("true"), None);
}

#[test]
fn a_far_command_line_reaches_the_far_shell_as_one_word() {
    // What ssh does: the words behind the host are joined and given to a shell there.
    let site = Site { rsh: Some("sh -c".into()), ..Site::new("here") };
    for words in [vec!["a b", "it's", "$HOME", "\"x\"", "back\\slash", "*"], vec!["line\nend", "", "#"]] {
        let line = shell_words::join(
            ["printf".to_owned(), "<%s>".to_owned()].into_iter().chain(words.iter().map(|word| (*word).to_owned())),
        );
        let ran = std::process::Command::new("/bin/sh").arg("-c").arg(site.far(&line).unwrap()).output().unwrap();
        let expected: String = words.iter().map(|word| format!("<{word}>")).collect();
        assert_eq!(String::from_utf8_lossy(&ran.stdout), expected);
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_back_from_its_print(text in proptest::collection::vec("[^\0]{1,20}", 1..4)) {
        let many = Value::Many(text.iter().map(|text| secret::mask(text)).collect());
        let mut config = Config::default();
        config.commands.insert("ship".into(), vec![("exclude".to_owned(), many)]);
        let printed = config.print("ship", &[]);
        let again = read(&printed).unwrap();
        proptest::prop_assert_eq!(&again.commands, &config.commands);
        proptest::prop_assert_eq!(again.print("ship", &[]), printed);
    }
}
