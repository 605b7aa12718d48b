//! What is run, where, when and how often: in success, and whatever fails.

use std::fs;

use super::super::tree::{self, assert_same};
use super::{Ran, Site, read};

/// A site with something to sync, and a server at the destination that is a file: it runs while `running` is there.
/// Everything that is run writes its name to `log`.
struct Served {
    site: Site,
}

impl Served {
    fn new() -> Served {
        let site = Site::synced();
        site.rig.ok("cp -a dst old && touch running");
        site.write("a", "changed");
        site.write("new", "new");
        Served { site }
    }

    /// The options for a server; a command of this name, or a hook at this point, fails.
    fn options(failing: &str) -> String {
        let fail = |name: &str| if name == failing { "; echo it broke; false" } else { "" };
        let mut options = "--status 'test -e running'".to_owned();
        for (name, act) in
            [("stop", "rm running; "), ("start", "touch running; "), ("check", ""), ("freeze", ""), ("thaw", "")]
        {
            let act = if name == failing { "" } else { act };
            options += &format!(" --{name} '{act}echo {name} >>log{}'", fail(name));
        }
        for point in POINTS {
            options += &format!(" --hook {point}='echo {point} >>log{}'", fail(point));
        }
        options
    }

    fn run(&self, options: &str) -> Ran {
        let _ = fs::remove_file(self.site.rig.path("log"));
        self.site.run(&format!("{options} src dst"))
    }

    /// What was run, one hot pass after the other told once.
    fn log(&self) -> Vec<String> {
        let path = self.site.rig.path("log");
        let text = if path.exists() { read(path) } else { String::new() };
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.dedup();
        lines
    }

    fn runs(&self) -> bool {
        self.site.rig.path("running").exists()
    }

    #[track_caller]
    fn assert_old(&self, what: &str) {
        assert_same(&self.site.rig.path("old"), &self.site.dst());
        assert!(!self.site.dst().join(".repl-sync-incomplete").exists(), "{what}");
    }

    #[track_caller]
    fn assert_new(&self, what: &str) {
        assert_same(&self.site.src(), &self.site.dst());
        assert!(!self.site.dst().join(".repl-sync-incomplete").exists(), "{what}");
    }
}

const POINTS: [&str; 9] = [
    "before-sync",
    "after-hot-pass",
    "before-stop",
    "after-stop",
    "before-switch",
    "after-switch",
    "after-start",
    "after-sync",
    "on-error",
];

/// All that is run when nothing fails, in order.
const ALL: [&str; 13] = [
    "before-sync",
    "after-hot-pass",
    "freeze",
    "before-stop",
    "stop",
    "after-stop",
    "thaw",
    "before-switch",
    "after-switch",
    "start",
    "after-start",
    "check",
    "after-sync",
];

#[test]
fn in_success_each_is_run_once_and_in_order() {
    for mode in ["--inplace", "--stage"] {
        let served = Served::new();
        let ran = served.run(&format!("{mode} {}", Served::options("")));
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.err.starts_with("repl-sync: the server was down for ") && ran.err.ends_with(" s\n"), "{ran:?}");
        assert_eq!(served.log(), ALL, "{mode}");
        assert!(served.runs());
        served.assert_new(mode);
        // Nothing to change is no reason for another order.
        assert_eq!(served.run(&format!("{mode} {}", Served::options(""))).code, 0);
        assert_eq!(served.log(), ALL, "{mode}");
    }
}

#[test]
fn the_report_has_the_down_time() {
    let served = Served::new();
    let report = served.site.report(&format!("{} src dst", Served::options("")));
    let down = report["downtime_seconds"].as_f64().unwrap();
    assert!(down > 0.0 && down <= report["seconds"].as_f64().unwrap(), "{report}");
    assert!(super::number(&report, "passes") >= 2, "{report}");
}

/// What is run up to a name, and then.
fn up_to(failing: &str, then: &[&'static str]) -> Vec<&'static str> {
    let end = ALL.iter().position(|name| *name == failing).unwrap();
    ALL[..=end].iter().chain(then).copied().collect()
}

/// A failure of each: what is run from then on, whether the server runs, whether the destination is the new one.
const FAILURES: [(&str, &[&str], bool, bool); 13] = [
    ("before-sync", &["on-error"], true, false),
    ("after-hot-pass", &["on-error"], true, false),
    // One that has failed may have done half of it.
    ("freeze", &["thaw", "on-error"], true, false),
    ("before-stop", &["thaw", "on-error"], true, false),
    ("stop", &["thaw", "on-error"], true, false),
    ("after-stop", &["start", "thaw", "on-error"], true, false),
    ("thaw", &["start", "on-error"], true, false),
    ("before-switch", &["start", "on-error"], true, false),
    ("after-switch", &["start", "on-error"], true, true),
    ("start", &["on-error"], false, true),
    ("after-start", &["on-error"], true, true),
    ("check", &["stop", "on-error"], false, true),
    ("after-sync", &["on-error"], true, true),
];

#[test]
fn whatever_fails_the_server_runs_on_a_whole_directory_or_stands_still() {
    for (failing, then, runs, is_new) in FAILURES {
        for mode in ["--inplace", "--stage --keep-old"] {
            let served = Served::new();
            let what = format!("{failing} {mode}");
            let ran = served.run(&format!("{mode} {}", Served::options(failing)));
            ran.fails(9, "it broke");
            // When the source is let go of, and when the server comes back, are two ends' business.
            let sorted = |mut lines: Vec<String>| {
                let at = lines.iter().position(|line| line == failing).unwrap_or(lines.len());
                lines[at..].sort();
                lines
            };
            let expected = up_to(failing, then).into_iter().map(str::to_owned).collect();
            assert_eq!(sorted(served.log()), sorted(expected), "{what}: {ran:?}");
            assert_eq!(served.runs(), runs, "{what}");
            if is_new {
                served.assert_new(&what);
            } else {
                served.assert_old(&what);
            }
            let is_down = ["start", "check"].contains(&failing);
            assert_eq!(
                ran.err.contains("hint: repl-sync --rollback"),
                is_down && mode.contains("old"),
                "{what}: {ran:?}"
            );
            // The next run finds its way.
            let next = served.run(&format!("{mode} {}", Served::options("")));
            assert_eq!(next.code, 0, "{what}: {next:?}");
            assert!(served.runs(), "{what}");
            assert_eq!(served.log().contains(&"stop".to_owned()), runs, "{what}: it is not stopped twice");
            served.assert_new(&what);
        }
    }
}

#[test]
fn on_error_is_told_what_happened_and_changes_no_exit_code() {
    let served = Served::new();
    let hook = "--hook on-error='env | grep ^REPL_ | sort >env; echo and more; exit 3'";
    let ran = served.run(&format!("--hook before-sync='echo it broke; exit 4' {hook}"));
    ran.fails(9, "it broke");
    assert!(ran.err.contains("and more"), "{ran:?}");
    let env = read(served.site.rig.path("env"));
    for line in ["REPL_CODE=9\n", "REPL_POINT=on-error\n", "REPL_ENGINE=plain\n"] {
        assert!(env.contains(line), "{env}");
    }
    assert!(env.contains(&format!("REPL_DIR={}\n", served.site.dst().display())), "{env}");
    assert!(env.lines().any(|line| line.starts_with("REPL_ERROR=") && line.contains("it broke")), "{env}");
    // A guard is an error, too.
    fs::remove_dir_all(served.site.src()).unwrap();
    fs::create_dir(served.site.src()).unwrap();
    served.run(&format!("{hook} --stop false --start false")).fails(13, "--allow-empty");
    assert!(read(served.site.rig.path("env")).contains("REPL_CODE=13\n"));
    served.assert_old("nothing was run");
}

#[test]
fn each_is_told_where_and_why_by_its_environment_alone() {
    let served = Served::new();
    let note = |name: &str| format!("echo {name} $# $REPL_POINT $REPL_ENGINE $REPL_DIR $REPL_TIMEOUT >>env");
    let mut options = "--hook-timeout 77s".to_owned();
    for name in ["stop", "start", "check", "freeze", "thaw"] {
        options += &format!(" --{name} '{}'", note(name));
    }
    for point in &POINTS[..8] {
        options += &format!(" --hook {point}='{}'", note(point));
    }
    assert_eq!(served.run(&options).code, 0);
    let env = read(served.site.rig.path("env"));
    let path = |name: &str| served.site.rig.path(name).display().to_string();
    for name in ALL {
        let (dir, timeout) = match name {
            "stop" | "start" | "check" => (path("dst"), " 77"),
            "freeze" | "thaw" => (path("src"), ""),
            _ => (path("dst"), ""),
        };
        assert!(env.contains(&format!("{name} 0 {name} plain {dir}{timeout}\n")), "{name}: {env}");
    }
}

#[test]
fn one_that_takes_too_long_is_ended() {
    let served = Served::new();
    for option in ["--hook before-sync='echo begun; sleep 1000'", "--freeze 'sleep 1000'"] {
        served.run(&format!("--hook-timeout 200ms {option}")).fails(9, "was ended");
        served.assert_old(option);
    }
    served
        .run("--hook-timeout 200ms --start 'echo start >>log' --stop 'echo stop >>log; sleep 1000'")
        .fails(9, "was ended");
    // It may have stopped; nobody knows, so it is started.
    assert_eq!(served.log(), ["stop", "start"]);
    served.assert_old("stop");
}

#[test]
fn several_hooks_of_a_point_run_in_their_order_until_one_fails() {
    let served = Served::new();
    let hooks =
        "--hook before-sync='echo 1 >>log' --hook before-sync='echo 2 >>log; false' --hook before-sync='echo 3 >>log'";
    served.run(hooks).fails(9, "");
    assert_eq!(served.log(), ["1", "2"]);
}

#[test]
fn a_server_that_was_down_is_not_stopped() {
    for mode in ["--inplace", "--stage"] {
        let served = Served::new();
        fs::remove_file(served.site.rig.path("running")).unwrap();
        assert_eq!(served.run(&format!("{mode} {}", Served::options(""))).code, 0);
        let log = served.log();
        assert!(!log.contains(&"stop".to_owned()) && log.contains(&"start".to_owned()), "{log:?}");
        served.assert_new(mode);
        // And stays down when it fails.
        fs::remove_file(served.site.rig.path("running")).unwrap();
        served.run(&format!("{mode} {}", Served::options("before-switch"))).fails(9, "it broke");
        assert!(!served.runs() && !served.log().contains(&"start".to_owned()), "{mode}");
    }
}

#[test]
fn a_server_is_started_in_a_session_of_its_own_with_nothing_of_ours_open() {
    let served = Served::new();
    let start =
        "ls -l /proc/$$/fd | sed \"s/.* -> //\" >fds; cut -d\" \" -f6 /proc/$$/stat >session; echo $$ >>session";
    assert_eq!(served.run(&format!("--stop true --start '{start}'")).code, 0);
    let session = read(served.site.rig.path("session"));
    let lines: Vec<_> = session.lines().collect();
    assert_eq!(lines[0], lines[1], "{session}");
    let fds = read(served.site.rig.path("fds"));
    assert!(!fds.contains("lock") && !fds.contains("socket") && !fds.contains("blob"), "{fds}");
}

#[test]
fn a_first_copy_has_no_server_to_stop() {
    let served = Served::new();
    tree::remove(&served.site.dst());
    fs::remove_file(served.site.rig.path("running")).unwrap();
    assert_eq!(served.run(&Served::options("")).code, 0);
    assert!(!served.log().contains(&"stop".to_owned()), "{:?}", served.log());
    assert!(served.runs());
    served.assert_new("first");
}
