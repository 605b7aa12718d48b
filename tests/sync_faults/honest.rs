//! A source that is honest, to a destination with less power, or at an unlucky moment.

use std::fs;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use repl::rule::sync::wire::tell::{Cause, Matter, Small, Tell};
use repl::value::entry::Kind;
use repl::value::name::Name;

use crate::far::{Alter, Word, play_source};
use crate::rig::{Ran, noise};
use crate::stand::{Far, SYNC, Stand};

/// What only root may give away: a device, set-id bits, somebody else's file.
fn with_power() -> Alter {
    Box::new(|mut tell| {
        if let Tell::Entries { entries, .. } = &mut tell
            && let Some(file) = entries.iter_mut().find(|entry| entry.name.bytes() == b"steady")
        {
            (file.mode, file.uid, file.gid) = (0o6755, 12345, 12345);
            let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            file.xattrs = vec![(b"security.capability".as_slice().into(), capability.as_slice().into())];
            let mut device = file.clone();
            (device.name, device.kind, device.links) = (Name::root().join(b"zero"), Kind::Character(1, 5), 1);
            device.xattrs.clear();
            entries.push(device);
        }
        vec![Word::Say(tell)]
    })
}

/// Takes it over as this program with these options; the mode and the owner of the file, and whether there is a device.
fn taken_over(program: &str, more: &str, prepare: &str) -> (u32, u32, bool) {
    let stand = Stand::new();
    fs::set_permissions(stand.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(SYNC, stand.path("sync")).unwrap();
    fs::set_permissions(stand.path("sync"), fs::Permissions::from_mode(0o755)).unwrap();
    stand.rig.ok(prepare);
    let ran = play_source(&stand, program, &format!("--delete --inplace {more} src host:dst"), with_power());
    assert_eq!(ran.code, 0, "{program} {more}: {ran:?}");
    let file = fs::metadata(stand.path("dst").join("steady")).unwrap();
    let device = fs::symlink_metadata(stand.path("dst").join("zero"));
    (file.mode() & 0o7777, file.uid(), device.is_ok_and(|found| found.file_type().is_char_device()))
}

#[test]
fn owners_set_id_bits_and_devices_are_roots_alone() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can become somebody else");
        return;
    }
    let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups ./sync";
    assert_eq!(taken_over(nobody, "", "mkdir dst && chown 65534:65534 dst"), (0o755, 65534, false));
    assert_eq!(taken_over("./sync", "--no-owner --no-devices", ":"), (0o755, 0, false));
    assert_eq!(taken_over("./sync", "--no-devices", ":"), (0o6755, 12345, false));
    assert_eq!(taken_over("./sync", "", ":"), (0o6755, 12345, true));
}

/// Moments of a sync from a source whose server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// Its procedure has begun.
    Begun,
    /// A pass under it is done, and the destination's server is about to be stopped.
    Held,
    /// Anything else is told.
    Other,
}

/// The source of a Berkeley DB, whose procedure is said to be such; `then` may do what it likes at each moment.
fn database(holds: &'static [&'static str], mut then: impl FnMut(Moment, &mut Tell) + Send + 'static) -> Alter {
    let (mut hooks, mut is_begun) = (0, false);
    Box::new(move |mut tell| {
        let mut moment = Moment::Other;
        match &mut tell {
            Tell::Ran(files) if files.iter().any(|(name, _)| name.bytes() == b"profile") => {
                for (_, text) in files.iter_mut().filter(|(name, _)| name.bytes() == b"profile") {
                    *text = b"bdb".to_vec();
                }
            }
            // A hook behind the last hot pass, and right behind that the begin of the procedure.
            Tell::Ran(files) if files.is_empty() => {
                hooks += 1;
                if hooks == 2 && !is_begun {
                    files.extend(holds.iter().map(|what| (Name::root().join(what.as_bytes()), Vec::new())));
                    (moment, is_begun) = (Moment::Begun, true);
                } else if hooks == 1 && is_begun {
                    moment = Moment::Held;
                }
            }
            Tell::Ran(_) => hooks = 0,
            _ => {}
        }
        then(moment, &mut tell);
        vec![Word::Say(tell)]
    })
}

/// Lets the server live on what the source is at that moment, too.
fn blessing(stand: &Stand) -> impl Fn() + Send + 'static {
    let server = stand.path("server");
    move || assert!(std::process::Command::new(&server).arg("bless").status().unwrap().success())
}

/// Syncs a stand's source so, in place and after the destination was made like it.
fn sync_database(stand: &Stand, alter: Alter) -> Ran {
    let line = stand.line(Far::Destination, "--inplace", "--adopt");
    let words = line.split_once(" --json ").unwrap().1;
    play_source(stand, SYNC, words, alter)
}

/// A file that changes between its digests and its pages, at a source whose log makes up for that.
fn changing(file: PathBuf) -> Alter {
    let mut count = 0_u8;
    let mut change = move |at: u64| {
        count += 1;
        let file = fs::OpenOptions::new().write(true).open(&file).unwrap();
        file.write_all_at(&[count; 100], at).unwrap();
    };
    let mut is_begun = false;
    database(&["may-change"], move |moment, tell| match (moment, tell) {
        (Moment::Begun, _) => {
            is_begun = true;
            change(200_000);
        }
        // So the pages are not those that the range's digest was of.
        (_, Tell::Digests(..)) if is_begun => change(200_100),
        _ => {}
    })
}

/// What it did not read, the log has only as far as it changed.
#[test]
fn a_file_of_which_not_all_could_be_read_is_read_again_whatever_the_log_makes_up_for() {
    let stand = Stand::synced();
    let (file, grown, bless) = (stand.src("3"), stand.src("3"), blessing(&stand));
    let mut growths = 0;
    let alter = database(&["may-change", "is-held"], move |moment, tell| {
        if moment == Moment::Begun {
            fs::write(&file, noise(30_000, 77)).unwrap();
            bless();
        }
        if let Tell::Smalls(files) = tell
            && files.len() == 1
            && growths < 2
        {
            growths += 1;
            files[0] = Small::Gone(Cause::new(Matter::Changed, "it grew"));
        }
    });
    let ran = sync_database(&stand, alter);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(fs::read(stand.path("dst/3")).unwrap() == fs::read(grown).unwrap());
}

/// What changes at the source between the pass under its procedure and the last one.
#[test]
fn what_the_log_makes_up_for_is_not_read_again_while_the_server_is_down_and_all_else_is() {
    for (holds, is_read) in [(&["is-held", "may-change"][..], false), (&["is-held"], true)] {
        let stand = Stand::synced();
        let (file, before) = (stand.src("steady"), fs::read(stand.src("steady")).unwrap());
        let bless = blessing(&stand);
        let alter = database(holds, move |moment, _| {
            if moment == Moment::Held {
                let file = fs::OpenOptions::new().write(true).open(&file).unwrap();
                file.write_all_at(b"changed", 300_000).unwrap();
                bless();
            }
        });
        let ran = sync_database(&stand, alter);
        assert_eq!(ran.code, 0, "{ran:?}");
        let after = fs::read(stand.src("steady")).unwrap();
        assert!(before != after, "the moment has come");
        assert!(fs::read(stand.path("dst/steady")).unwrap() == if is_read { after } else { before }, "{holds:?}");
    }
}

/// Its digest is that of what is here, or a replay that was interrupted could never be completed.
#[test]
fn an_interrupted_replay_of_a_file_that_changed_while_it_was_read_is_completed() {
    let stand = Stand::synced();
    let file = stand.path("dst").canonicalize().unwrap().join("steady");
    let inject = "-e trace=pwrite64 -e inject=pwrite64:signal=KILL:when=1";
    let program = format!("strace -f -qq -o trace -P {} {inject} {SYNC}", file.display());
    let line = stand.line(Far::Destination, "--inplace", "--adopt");
    let words = line.split_once(" --json ").unwrap().1;
    let ran = play_source(&stand, &program, words, changing(stand.src("steady")));
    stand.quiet();
    assert!(fs::read_to_string(stand.path("trace")).unwrap().contains("SIGKILL"), "{ran:?}");
    assert!(stand.is_fenced() && !stand.path("running").exists(), "{ran:?}");
    stand.rig.ok(&format!("{SYNC} --replay dst && $ROLE guard dst"));
    let (here, there) = (fs::read(file).unwrap(), fs::read(stand.src("steady")).unwrap());
    assert!(here == there, "what its pages were at last");
}
