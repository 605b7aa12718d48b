use std::fs;

use super::*;
use crate::value::exit::{code_of, hint_of};

/// A destination with a server that is two files: what it was told, and whether it runs.
struct Scene {
    root: tempfile::TempDir,
}

const STOP: &str = "echo stop >>\"$REPL_DIR/../told\"; rm -f \"$REPL_DIR/../runs\"";
const START: &str = "echo start >>\"$REPL_DIR/../told\"; : >\"$REPL_DIR/../runs\"";
const STATUS: &str = "test -e \"$REPL_DIR/../runs\"";

impl Scene {
    fn new() -> Scene {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("dst")).unwrap();
        fs::create_dir(root.path().join("state")).unwrap();
        Scene { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn commands(stop: Option<&str>, start: Option<&str>, status: Option<&str>) -> Commands {
        let text = |told: Option<&str>| told.map(str::to_owned);
        Commands {
            stop: text(stop),
            start: text(start),
            status: text(status),
            check: None,
            run_as: None,
            dsn: None,
            timeout: Duration::from_secs(20),
        }
    }

    fn with(&self, commands: Commands) -> Server {
        let state = Dir::open(&self.path("state")).unwrap();
        Server::new(Profile::Plain, commands, &state, &self.path("dst"), "run-1").unwrap()
    }

    /// A later run, too: it has only the state directory to know from.
    fn server(&self) -> Server {
        self.with(Scene::commands(Some(STOP), Some(START), Some(STATUS)))
    }

    fn blind(&self) -> Server {
        self.with(Scene::commands(Some(STOP), Some(START), None))
    }

    fn runs(&self) {
        fs::write(self.path("runs"), "").unwrap();
    }

    fn told(&self) -> String {
        fs::read_to_string(self.path("told")).unwrap_or_default().replace('\n', " ")
    }

    fn has_record(&self) -> bool {
        self.path("state/run").exists()
    }
}

#[allow(clippy::unnecessary_wraps, reason = "it is a guard")]
fn free() -> Result<()> {
    Ok(())
}

#[test]
fn it_is_stopped_once_and_started_once() {
    let scene = Scene::new();
    scene.runs();
    let mut server = scene.server();
    server.stop().unwrap();
    assert!(server.was_stopped_by_us() && scene.has_record());
    server.stop().unwrap();
    server.confirm_down().unwrap();
    assert!(server.start(&free).unwrap());
    assert!(!server.was_stopped_by_us() && !scene.has_record());
    assert_eq!(scene.told(), "stop start ");
    server.bring_back(&free).unwrap();
    assert_eq!(scene.told(), "stop start ");
}

#[test]
fn a_later_run_neither_stops_it_twice_nor_forgets_to_start_it() {
    for blind in [false, true] {
        let scene = Scene::new();
        scene.runs();
        let server = || if blind { scene.blind() } else { scene.server() };
        server().stop().unwrap();
        // The first run is killed here.
        let mut later = server();
        assert!(later.was_stopped_by_us());
        later.stop().unwrap();
        assert_eq!(scene.told(), "stop ");
        later.start(&free).unwrap();
        assert_eq!(scene.told(), "stop start ");
        assert!(!server().was_stopped_by_us());
    }
}

#[test]
fn the_record_is_there_before_the_command_runs() {
    let scene = Scene::new();
    scene.runs();
    let looks = format!("grep -q phase=stopping \"$REPL_DIR/../state/run\" && {{ {STOP}; }}");
    let starts = format!("grep -q phase=starting \"$REPL_DIR/../state/run\" && {{ {START}; }}");
    let mut server = scene.with(Scene::commands(Some(&looks), Some(&starts), Some(STATUS)));
    server.stop().unwrap();
    server.start(&free).unwrap();
    assert_eq!(scene.told(), "stop start ");
}

#[test]
fn a_run_that_was_killed_before_its_stop_command_stops_it_again() {
    let scene = Scene::new();
    scene.runs();
    fs::write(scene.path("state/run"), "v=1 phase=stopping since=- run=run-0\n").unwrap();
    // Without a stop, it still runs: there is nothing to bring back.
    scene.server().bring_back(&free).unwrap();
    assert_eq!((scene.told().as_str(), scene.has_record()), ("", false));
    fs::write(scene.path("state/run"), "v=1 phase=stopping since=- run=run-0\n").unwrap();
    scene.blind().stop().unwrap();
    assert_eq!(scene.told(), "stop ");
}

#[test]
fn one_that_was_down_before_is_not_ours_to_bring_back() {
    let scene = Scene::new();
    let mut server = scene.server();
    server.stop().unwrap();
    assert!(!server.was_stopped_by_us());
    server.bring_back(&free).unwrap();
    assert_eq!(scene.told(), "");
    // But who says how it is started has asked for it, once the copy is made.
    assert!(server.start(&free).unwrap());
    assert_eq!(scene.told(), "start ");

    let mut silent = scene.with(Scene::commands(None, None, None));
    silent.stop().unwrap();
    assert!(!silent.start(&free).unwrap());
}

#[test]
fn one_that_still_runs_is_a_guard_and_is_left_running() {
    let scene = Scene::new();
    scene.runs();
    let mut commands = Scene::commands(Some("echo stop >>\"$REPL_DIR/../told\""), Some(START), Some(STATUS));
    commands.timeout = Duration::from_millis(900);
    let mut server = scene.with(commands);
    let error = server.stop().unwrap_err();
    assert_eq!(code_of(&error), Code::Guarded);
    assert!(hint_of(&error).unwrap().contains("--stop"), "{error}");
    server.bring_back(&free).unwrap();
    assert_eq!((scene.told().as_str(), scene.has_record()), ("stop ", false));
    // The same when there is no way to stop it.
    let error = scene.with(Scene::commands(None, None, Some(STATUS))).stop().unwrap_err();
    assert_eq!(code_of(&error), Code::Guarded);
}

#[test]
fn files_that_somebody_writes_are_in_use_whatever_the_status_says() {
    let scene = Scene::new();
    let mut command = std::process::Command::new("sleep");
    let held = fs::File::create(scene.path("dst/held")).unwrap();
    let mut other = command.arg("1000").stdout(held).spawn().unwrap();
    let stopped = scene.with(Scene::commands(None, Some(START), Some("exit 3"))).stop();
    other.kill().unwrap();
    other.wait().unwrap();
    let error = stopped.unwrap_err();
    assert_eq!(code_of(&error), Code::Guarded);
    assert!(error.to_string().contains(&format!("process {} (sleep)", other.id())), "{error}");
}

#[test]
fn a_guard_is_asked_before_the_start_and_a_refusal_keeps_the_record() {
    let scene = Scene::new();
    scene.runs();
    let mut server = scene.server();
    server.stop().unwrap();
    let torn = || fail(Code::Fenced, "torn");
    assert_eq!(code_of(&server.start(&torn).unwrap_err()), Code::Fenced);
    assert_eq!(code_of(&server.bring_back(&torn).unwrap_err()), Code::Fenced);
    assert_eq!((scene.told().as_str(), scene.has_record()), ("stop ", true));
}

#[test]
fn a_start_that_fails_shows_its_output_and_is_still_to_be_done() {
    let scene = Scene::new();
    scene.runs();
    let mut server = scene.with(Scene::commands(Some(STOP), Some("echo why; exit 4"), Some(STATUS)));
    server.stop().unwrap();
    let error = server.start(&free).unwrap_err();
    assert_eq!(code_of(&error), Code::Hook);
    assert!(error.to_string().contains("exited with 4: why"), "{error}");
    let mut later = scene.server();
    assert!(later.was_stopped_by_us());
    later.start(&free).unwrap();
    assert_eq!(scene.told(), "stop start ");
}

#[test]
fn a_stop_that_fails_leaves_a_server_to_bring_back() {
    let scene = Scene::new();
    scene.runs();
    let half = format!("{STOP}; exit 7");
    let mut server = scene.with(Scene::commands(Some(&half), Some(START), Some(STATUS)));
    assert_eq!(code_of(&server.stop().unwrap_err()), Code::Hook);
    server.bring_back(&free).unwrap();
    assert_eq!(scene.told(), "stop start ");
}

#[test]
fn a_check_that_fails_is_a_hooks_failure() {
    let scene = Scene::new();
    let mut commands = Scene::commands(None, None, None);
    commands.check = Some("echo broken; exit 1".to_owned());
    let error = scene.with(commands).check().unwrap_err();
    assert_eq!(code_of(&error), Code::Hook);
    scene.server().check().unwrap();
}

#[test]
fn a_record_of_another_version_is_not_guessed_at() {
    let scene = Scene::new();
    fs::write(scene.path("state/run"), "v=9 phase=sleeping\n").unwrap();
    let state = Dir::open(&scene.path("state")).unwrap();
    let commands = Scene::commands(None, None, None);
    let error = Server::new(Profile::Plain, commands, &state, &scene.path("dst"), "run-2").unwrap_err();
    assert_eq!(code_of(&error), Code::Corrupt);
}
