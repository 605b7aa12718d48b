//! `repl-role guard`: what whoever starts a server goes by.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::rig::Rig;

mod heir;
pub(crate) mod switchover;
mod told;

/// A directory with a marker of this state, and its state directory beside it, with a committed journal or without.
fn marked(state: &str, is_committed: bool) -> Rig {
    let rig = Rig::new();
    fs::create_dir(rig.path(".repl-sync-master")).unwrap();
    let line = format!(
        "repl-sync v=1 state={state} journal=000102030405060708090a0b0c0d0e0f directory={}/.repl-sync-master \
         time=2026-04-18T18:54:17Z\n",
        rig.root.path().display()
    );
    rig.write(".repl-sync-incomplete", line);
    if is_committed {
        fs::write(rig.path(".repl-sync-master/committed"), "").unwrap();
    }
    rig
}

#[test]
fn a_directory_that_no_sync_writes_into_may_be_used() {
    let rig = Rig::new();
    for command in ["$ROLE guard master", "$ROLE guard $PWD/master/", "cd master; $ROLE guard ."] {
        let ran = rig.run(command);
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", ""), "{command}");
    }
    rig.run("$ROLE guard nowhere").fails(1, "cannot open nowhere");
}

#[test]
fn each_state_of_the_marker_has_its_answer() {
    for (state, is_committed, code) in [
        ("prepared", false, 0),
        ("prepared", true, 5),
        ("replaying", false, 5),
        ("replaying", true, 5),
        ("done", false, 0),
        ("done", true, 0),
        ("unheard-of", false, 5),
    ] {
        let rig = marked(state, is_committed);
        let ran = rig.run("$ROLE guard master");
        assert_eq!(ran.code, code, "{state}, {is_committed}: {ran:?}");
        if code == 5 {
            ran.fails(5, "repl-role: master must not be used: ");
            ran.fails(5, "\nhint: repl-sync --replay master\n");
        } else {
            assert_eq!((ran.out, ran.err), (String::new(), String::new()));
        }
    }
}

#[test]
fn the_words_name_the_journal_and_the_time() {
    marked("replaying", true).run("$ROLE guard master").fails(5, "since 2026-04-18 18:54:17");
    marked("prepared", true).run("$ROLE guard master").fails(5, "/.repl-sync-master/committed is about to be written");
}

#[test]
fn it_changes_nothing_and_opens_nothing_for_writing() {
    let rig = marked("prepared", true);
    rig.run("strace -f -o trace -e trace=%file,fsync,flock,ftruncate $ROLE guard master; exit $?").fails(5, "hint: ");
    let trace = fs::read_to_string(rig.path("trace")).unwrap();
    assert!(trace.contains(".repl-sync-incomplete"), "{trace}");
    let writing = ["O_WRONLY", "O_RDWR", "O_CREAT", "flock(", "unlink", "rename", "mkdir", "chmod", "fsync("];
    let calls = trace.lines().filter(|line| writing.iter().any(|word| line.contains(word)));
    assert_eq!(calls.collect::<Vec<_>>(), [""; 0], "{trace}");
}

#[test]
fn a_user_who_cannot_look_is_told_no() {
    let rig = marked("prepared", false);
    rig.ok("chmod 755 . master; chown nobody master master/.repl-sync-incomplete; cp $ROLE role; chmod 755 role");
    fs::set_permissions(rig.path(".repl-sync-master"), fs::Permissions::from_mode(0o700)).unwrap();
    let as_nobody = "setpriv --reuid nobody --clear-groups ./role guard master";
    rig.run(as_nobody).fails(5, "Permission denied");
    assert_eq!(rig.run("$ROLE guard master").code, 0);
    rig.ok("rm master/.repl-sync-incomplete");
    rig.ok(as_nobody);
}

#[test]
fn a_marker_that_is_no_file_is_refused_unopened() {
    let rig = Rig::new();
    for make in ["mkfifo", "ln -s nowhere", "mkdir"] {
        rig.ok(&format!("rm -rf master/.repl-sync-incomplete; {make} master/.repl-sync-incomplete"));
        rig.run("$ROLE guard master").fails(5, "hint: repl-sync --replay master");
    }
}

#[test]
fn the_drop_in_guards_a_server() {
    let text = include_str!("../../scripts/systemd/repl-guard.conf");
    let line = text.lines().find_map(|line| line.strip_prefix("ExecStartPre=+repl-role ")).unwrap();
    assert_eq!(line, "guard /var/lib/postgresql/15/main");
    assert!(text.contains("\nRestartPreventExitStatus=5\n"));
}

#[test]
fn a_command_line_that_is_wrong_is_2() {
    let rig = Rig::new();
    for wrong in ["", "guard", "guard a b", "unheard-of", "guard --no-such master"] {
        assert_eq!(rig.run(&format!("$ROLE {wrong}")).code, 2, "{wrong}");
    }
    assert!(rig.ok("$ROLE --completions bash").contains("repl-role"));
    assert!(rig.ok("$ROLE --help").contains("guard"));
}
