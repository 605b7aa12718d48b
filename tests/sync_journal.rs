//! The redo journal of a sync in place: whatever is killed, fails or is damaged, at whatever instant, the destination is
//! the old one or the new one, whole, or nobody is let in.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

#[path = "support/pair.rs"]
mod pair;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use pair::{DRESS, fill, flip, inode, make, name, noise, show, state_files, sync};
use repl::edge::dir::Dir;
use repl::edge::tree::Tree;
use repl::engine::sync::journal::op::{Extent, Op};
use repl::engine::sync::journal::recover::recover;
use repl::engine::sync::journal::replay::Committed;
use repl::engine::sync::journal::{COMMITTED, Journal};
use repl::engine::sync::marker::{MARKER, Marker, Step, guard};
use repl::engine::sync::state::State;
use repl::value::exit::{Code, code_of, hint_of};

/// The code of a result.
fn code<T>(result: &anyhow::Result<T>) -> Code {
    result.as_ref().map_or_else(code_of, |_| Code::Done)
}

/// A destination and a source, with what each shows.
struct Pair {
    root: tempfile::TempDir,
    main: PathBuf,
    want: PathBuf,
    old: pair::Shown,
    new: pair::Shown,
}

impl Pair {
    fn new() -> Pair {
        // In memory, where there is such a place: each of the many faults begins with a pair of its own.
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let (main, want) = make(&root.path().canonicalize().unwrap());
        let (old, new) = (show(&main), show(&want));
        assert_ne!(old, new);
        Pair { root, main, want, old, new }
    }

    /// A path in the state directory.
    fn state(&self, name: &str) -> PathBuf {
        self.main.with_file_name(".repl-sync-main").join(name)
    }

    fn commit(&self) -> anyhow::Result<Committed> {
        let state = State::open(&self.main)?;
        let journal = Journal::open(&state)?;
        fill(&journal, &self.main, &self.want);
        journal.commit(&Tree::open(&self.main)?, DRESS)
    }

    /// Committed, and nothing written: as after a kill at the point of no return.
    fn committed() -> Pair {
        let pair = Pair::new();
        pair.commit().unwrap();
        pair
    }

    /// The same with a replay that has begun to write: the marker says so, and some of it is done.
    fn torn() -> Pair {
        let pair = Pair::committed();
        let mut staged = fs::read_dir(pair.state("new")).unwrap().map(|entry| entry.unwrap().path());
        let staged = staged.find(|path| fs::read(path).unwrap() == noise(5000, 7)).unwrap();
        fs::remove_dir_all(pair.main.join("directory-to-file")).unwrap();
        fs::rename(staged, pair.main.join("directory-to-file")).unwrap();
        fs::remove_dir_all(pair.main.join("gone")).unwrap();
        let root = Dir::open(&pair.main).unwrap();
        let marker = Marker::read(&root).unwrap().unwrap();
        Marker { step: Step::Replaying, ..marker }.write(&root).unwrap();
        pair
    }

    #[track_caller]
    fn assert_clean(&self, what: &str) {
        assert!(guard(&self.main).is_ok(), "{what}");
        let litter = fs::read_dir(&self.main).unwrap().map(|entry| entry.unwrap().file_name());
        let litter: Vec<_> = litter.filter(|name| name.to_string_lossy().starts_with(".repl-sync")).collect();
        assert!(litter.is_empty(), "{what}: {litter:?}");
    }

    #[track_caller]
    fn assert_new(&self, what: &str) {
        let now = show(&self.main);
        for (name, facts) in &self.new {
            let there = now.get(name).map(|(facts, size, _)| (facts, size));
            assert_eq!(there, Some((&facts.0, &facts.1)), "{what}: {name}");
        }
        assert!(now == self.new, "{what}: {:?}", now.keys());
        self.assert_clean(what);
        assert_eq!(state_files(&self.state("")), [""; 0], "{what}");
    }
}

#[test]
fn a_journal_makes_one_tree_the_other() {
    let pair = Pair::new();
    let table = inode(&pair.main.join("base/table"));
    let replayed = sync(&pair.main, &pair.want).unwrap();
    assert!(replayed.names > 10 && replayed.bytes > 8192, "{replayed:?}");
    pair.assert_new("synced");
    assert_eq!(inode(&pair.main.join("base/table")), table, "a changed file is written into");
    let mtime = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    assert_eq!(mtime(&pair.main), mtime(&pair.want));
    sync(&pair.main, &pair.want).unwrap();
    pair.assert_new("synced again");
}

#[test]
fn nothing_is_written_before_the_commit_and_nobody_is_kept_out() {
    let pair = Pair::new();
    let state = State::open(&pair.main).unwrap();
    let journal = Journal::open(&state).unwrap();
    fill(&journal, &pair.main, &pair.want);
    journal.prepare().unwrap();
    assert!(show(&pair.main) == pair.old);
    pair.assert_clean("prepared");
    drop(journal);
    Journal::discard(&state).unwrap();
    assert_eq!(state_files(&pair.state("")), [""; 0]);
}

#[test]
fn a_state_directory_inside_serves_as_well() {
    let pair = Pair::new();
    fs::create_dir(pair.main.join(".repl-sync")).unwrap();
    sync(&pair.main, &pair.want).unwrap();
    assert!(show(&pair.main) == pair.new);
    assert_eq!(state_files(&pair.main.join(".repl-sync")), [""; 0]);
    assert!(!pair.state("").exists());
}

/// What the tests below run as a child: a sync, or a recovery, of the directory in the environment.
fn as_child() -> bool {
    let Some(root) = std::env::var_os("REPL_TEST_ROOT") else { return false };
    let root = Path::new(&root);
    let done = match std::env::var("REPL_TEST_DO").unwrap().as_str() {
        "sync" => sync(&root.join("main"), &root.join("want")).map(|_| ()),
        "commit" => State::open(&root.join("main")).and_then(|state| {
            let journal = Journal::open(&state)?;
            fill(&journal, &root.join("main"), &root.join("want"));
            journal.commit(&Tree::open(&root.join("main"))?, DRESS).map(|_| ())
        }),
        _ => recover(&root.join("main")).map(|_| ()),
    };
    if let Err(error) = &done {
        eprintln!("{error:#}");
    }
    std::process::exit(code(&done) as i32);
}

/// This test program as a command that does one thing, behind another command.
fn child(prefix: &str, what: &str, root: &Path) -> Command {
    let mut command = Command::new("bash");
    let again = std::env::current_exe().unwrap();
    command
        .args(["-c", &format!("{prefix} \"$0\" --exact --nocapture killed_or_failing_at_any_call_it_is_old_or_new")]);
    command.arg(again).env("REPL_TEST_ROOT", root).env("REPL_TEST_DO", what).current_dir(root);
    command
}

/// Runs it with a fault in the nth call of a kind; `None` when there are fewer.
fn with_fault(pair: &Pair, what: &str, call: &str, fault: &str, when: usize) -> Option<i32> {
    let inject =
        format!("exec strace -f --seccomp-bpf -qq -o trace -e trace={call} -e inject={call}:{fault}:when={when}");
    let output = child(&inject, what, pair.root.path()).output().unwrap();
    let trace = fs::read_to_string(pair.root.path().join("trace")).unwrap();
    assert!(!String::from_utf8_lossy(&output.stderr).contains("invalid"), "{output:?}");
    ["(INJECTED)", "killed by SIGKILL"]
        .iter()
        .any(|sign| trace.contains(sign))
        .then(|| output.status.code().unwrap_or(137))
}

/// Calls by which something is changed, and by which the journal is read. A kill between two of them is one before the
/// second.
const CALLS: [&str; 19] = [
    "mkdirat",
    "pwrite64",
    "write",
    "ftruncate",
    "fallocate",
    "renameat",
    "unlinkat",
    "linkat",
    "symlinkat",
    "mknodat",
    "fsync",
    "fdatasync",
    "syncfs",
    "pread64",
    "fchmod",
    "fchmodat",
    "fchown",
    "fchownat",
    "utimensat",
];

/// What must hold after a fault, whatever it was: nobody is let in where it is neither old nor new; a recovery makes it
/// one of both, the new one if the journal was committed; and a further run ends where an undisturbed one does.
fn judge(pair: &Pair, what: &str) {
    let now = show(&pair.main);
    let is_whole = now == pair.old || now == pair.new;
    assert!(is_whole || code(&guard(&pair.main)) == Code::Fenced, "{what}: torn, and the guard lets in");
    let was_committed = pair.state(COMMITTED).exists() || now == pair.new;
    recover(&pair.main).unwrap_or_else(|error| panic!("{what}: {error:#}"));
    let now = show(&pair.main);
    assert!(now == if was_committed { pair.new.clone() } else { pair.old.clone() }, "{what}: {was_committed}");
    pair.assert_clean(what);
    sync(&pair.main, &pair.want).unwrap_or_else(|error| panic!("{what}, again: {error:#}"));
    pair.assert_new(what);
}

#[test]
fn killed_or_failing_at_any_call_it_is_old_or_new() {
    if as_child() {
        return;
    }
    let mut tried = 0;
    for (call, fault) in CALLS.iter().flat_map(|call| [(*call, "signal=KILL"), (*call, "error=EIO")]) {
        for when in 1.. {
            let pair = Pair::new();
            let Some(ended) = with_fault(&pair, "sync", call, fault, when) else { break };
            let what = format!("{call} {when}, {fault}: {ended}");
            // 101 is the test program's own, where it could not say that it begins; 127 the loader's, before that.
            let expected: &[i32] = if fault == "signal=KILL" { &[137] } else { &[0, 1, 101, 127] };
            assert!(expected.contains(&ended), "{what}");
            judge(&pair, &what);
            tried += 1;
        }
    }
    eprintln!("{tried} faults");
    assert!(tried > 100);
}

#[test]
fn a_replay_that_is_killed_or_fails_at_any_call_is_completed_by_another() {
    let mut tried = 0;
    for (call, fault) in CALLS.iter().flat_map(|call| [(*call, "signal=KILL"), (*call, "error=ENOSPC")]) {
        for when in 1.. {
            let pair = Pair::committed();
            let Some(ended) = with_fault(&pair, "recover", call, fault, when) else { break };
            let what = format!("{call} {when}, {fault}: {ended}");
            let expected: &[i32] = if fault == "signal=KILL" { &[137] } else { &[0, 1, 12, 101, 127] };
            assert!(expected.contains(&ended), "{what}");
            recover(&pair.main).unwrap_or_else(|error| panic!("{what}: {error:#}"));
            pair.assert_new(&what);
            tried += 1;
        }
    }
    eprintln!("{tried} faults");
    assert!(tried > 50);
}

/// Of each call, its name, and which file of interest it is about.
fn steps(trace: &str) -> Vec<String> {
    let files = [
        ("blob>", "blob"),
        ("/journal>", "log"),
        ("/new/", "staged"),
        ("/new>", "new"),
        ("committed.new>", "draft"),
        ("\"committed\"", "committed"),
        (".repl-sync-incomplete.new>", "marker"),
        ("-incomplete\"", "marker"),
        ("main/base/table>", "table"),
        ("/.repl-sync-main>", "state"),
        ("/main>", "main"),
    ];
    let mut steps: Vec<String> = Vec::new();
    for line in trace.lines() {
        let Some((call, rest)) = line.split_once(' ').and_then(|(_, rest)| rest.trim().split_once('(')) else {
            continue;
        };
        let file = files.iter().find(|(sign, _)| rest.contains(sign)).map_or("", |(_, file)| file);
        let step = format!("{call} {file}");
        if !file.is_empty() && steps.last() != Some(&step) {
            steps.push(step);
        }
    }
    steps
}

#[test]
fn each_step_is_on_stable_storage_before_the_next_begins() {
    let pair = Pair::new();
    let calls = "pwrite64,write,fsync,fdatasync,syncfs,renameat,unlinkat";
    let traced = child(&format!("exec strace -f -y -o trace -e trace={calls}"), "sync", pair.root.path()).output();
    assert!(traced.unwrap().status.success());
    let steps = steps(&fs::read_to_string(pair.root.path().join("trace")).unwrap());
    let mut at = 0;
    for expected in [
        "pwrite64 blob",
        "pwrite64 log",
        "fdatasync blob",
        "fdatasync log",
        "fsync staged",
        "fsync new",
        "fsync draft",
        "fsync marker",
        "renameat marker",
        "fsync main",
        "renameat committed",
        "fsync state",
        "fsync marker",
        "renameat marker",
        "fsync main",
        "pwrite64 table",
        "syncfs main",
        "fsync marker",
        "renameat marker",
        "fsync main",
        "unlinkat committed",
        "fsync state",
        "unlinkat marker",
        "fsync main",
    ] {
        let found = steps[at..].iter().position(|step| step == expected);
        at += found.unwrap_or_else(|| panic!("'{expected}' does not come in time: {steps:#?}")) + 1;
    }
    let first = |step: &str| steps.iter().position(|other| other == step).unwrap();
    let last = |step: &str| steps.iter().rposition(|other| other == step).unwrap();
    assert!(last("pwrite64 table") < first("syncfs main"), "{steps:#?}");
    assert!(last("renameat committed") < first("pwrite64 table"), "{steps:#?}");
}

#[test]
fn an_interrupted_run_is_gone_on_with() {
    let pair = Pair::new();
    let state = State::open(&pair.main).unwrap();
    let journal = Journal::open(&state).unwrap();
    fill(&journal, &pair.main, &pair.want);
    let (names, length) = (journal.names().collect::<Vec<_>>(), journal.len());
    let ops: Vec<Op> = names.iter().map(|name| Op::clone(&journal.pending(name).unwrap())).collect();
    assert_eq!(ops.iter().map(|op| op.name().clone()).collect::<Vec<_>>(), names);
    let (orphan, _) = journal.stage().unwrap();
    let bytes = journal.bytes();
    drop(journal);

    // A torn record at the end is cut; what is whole is offered again, and new files get new numbers.
    let log = pair.state("journal");
    let mut torn = fs::read(&log).unwrap();
    torn.extend(&torn[48..70].to_vec());
    fs::write(&log, torn).unwrap();
    let journal = Journal::open(&state).unwrap();
    assert_eq!((journal.names().collect::<Vec<_>>(), journal.len(), journal.bytes()), (names.clone(), length, bytes));
    for op in &ops {
        assert_eq!(journal.pending(op.name()).as_deref(), Some(op));
    }
    assert!(!pair.state(&format!("new/{orphan}")).exists());
    let (number, _) = journal.stage().unwrap();
    assert!(ops.iter().all(|op| !matches!(op, Op::Place { staged, .. } if *staged >= number)));
    fill(&journal, &pair.main, &pair.want);
    journal.commit(&Tree::open(&pair.main).unwrap(), DRESS).unwrap().replay(&Tree::open(&pair.main).unwrap()).unwrap();
    drop(state);
    pair.assert_new("gone on with");
}

#[test]
fn what_a_power_cut_took_from_an_uncommitted_journal_is_not_offered() {
    let table = name("base/table");
    let placed = name("directory-to-file");
    for damage in
        ["blob flipped", "blob short", "staged flipped", "staged short", "staged gone", "log flipped", "log empty"]
    {
        let pair = Pair::new();
        let state = State::open(&pair.main).unwrap();
        let journal = Journal::open(&state).unwrap();
        fill(&journal, &pair.main, &pair.want);
        let Op::Patch { extents, .. } = Op::clone(&journal.pending(&table).unwrap()) else { panic!("no patch") };
        let Op::Place { staged, .. } = Op::clone(&journal.pending(&placed).unwrap()) else { panic!("no place") };
        let before = journal.len();
        drop(journal);
        let staged = pair.state(&format!("new/{staged}"));
        let cut =
            |path: &Path, length: u64| fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
        match damage {
            "blob flipped" => flip(&pair.state("blob"), extents[0].blob + 1),
            "blob short" => cut(&pair.state("blob"), extents[0].blob + 1),
            "staged flipped" => flip(&staged, 4999),
            "staged short" => cut(&staged, 4999),
            "staged gone" => fs::remove_file(&staged).unwrap(),
            "log flipped" => flip(&pair.state("journal"), 60),
            _ => cut(&pair.state("journal"), 0),
        }
        let journal = Journal::open(&state).unwrap();
        let is_there = |name| journal.pending(name).is_some();
        match damage {
            "blob flipped" | "blob short" => assert!(!is_there(&table) && is_there(&placed), "{damage}"),
            "log flipped" | "log empty" => assert_eq!(journal.len(), 0, "{damage}"),
            _ => assert!(is_there(&table) && !is_there(&placed), "{damage}"),
        }
        assert!(journal.len() < before, "{damage}");
        drop(journal);
        // Nor the next time.
        assert_eq!(Journal::open(&state).unwrap().pending(&placed).is_some(), damage.starts_with("blob"), "{damage}");
        drop(state);
        sync(&pair.main, &pair.want).unwrap();
        pair.assert_new(damage);
    }
}

#[test]
fn the_newest_op_of_a_name_counts_and_what_it_supersedes_goes() {
    let pair = Pair::new();
    let state = State::open(&pair.main).unwrap();
    let journal = Journal::open(&state).unwrap();
    fill(&journal, &pair.main, &pair.want);
    let placed = name("directory-to-file");
    let Op::Place { entry, staged, .. } = Op::clone(&journal.pending(&placed).unwrap()) else { panic!("no place") };
    let file = |number: u64| pair.state(&format!("new/{number}"));
    assert!(file(staged).exists());
    let (again, _) = journal.stage().unwrap();
    let digest = *blake3::hash(b"").as_bytes();
    let mut empty = entry.clone();
    empty.stamp.size = 0;
    let newest = Op::Place { entry: empty, staged: again, digest };
    journal.add(newest.clone()).unwrap();
    journal.add(newest.clone()).unwrap();
    assert!(!file(staged).exists() && file(again).exists());
    assert_eq!(journal.pending(&placed).as_deref(), Some(&newest));
    journal.forget(&placed).unwrap();
    journal.forget(&placed).unwrap();
    assert!(!file(again).exists() && journal.pending(&placed).is_none());
    drop(journal);
    assert!(Journal::open(&state).unwrap().pending(&placed).is_none());
    let own = Op::Remove { name: name(MARKER), is_directory: false };
    assert_eq!(code(&Journal::open(&state).unwrap().add(own)), Code::Corrupt);
}

#[test]
fn many_threads_add_to_one_journal() {
    let pair = Pair::new();
    let state = State::open(&pair.main).unwrap();
    let journal = Journal::open(&state).unwrap();
    let table = Tree::open(&pair.main).unwrap().look(&name("base/table")).unwrap().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (journal, table) = (&journal, &table);
            scope.spawn(move || {
                for at in 0..200 {
                    let bytes = noise(100 + at as usize, at);
                    let (blob, crc) = journal.store(&bytes).unwrap();
                    let extent = Extent { offset: 0, length: bytes.len() as u64, blob, crc, is_hole: false };
                    let mut entry = table.clone();
                    entry.name = name(&format!("{thread}/{at}"));
                    let digest = *blake3::hash(&bytes).as_bytes();
                    journal.add(Op::Patch { entry, base: table.stamp, extents: vec![extent], digest }).unwrap();
                }
            });
        }
        (0..20).for_each(|_| journal.prepare().unwrap());
    });
    drop(journal);
    let journal = Journal::open(&state).unwrap();
    assert_eq!(journal.len(), 800);
    let mut buffer = [0; 400];
    for name in journal.names() {
        let Op::Patch { extents, digest, .. } = Op::clone(&journal.pending(&name).unwrap()) else { panic!("no patch") };
        journal.load(&extents[0], &mut buffer).unwrap();
        assert_eq!(*blake3::hash(&buffer[..extents[0].length as usize]).as_bytes(), digest);
    }
}

/// Each thing that can be wrong with a committed journal or its destination before the first write.
#[test]
fn a_journal_that_fails_its_checks_is_corrupt_and_touches_nothing() {
    type Damage = (&'static str, &'static str, fn(&Pair));
    let matrix: [Damage; 14] = [
        ("list flipped", "committed is damaged", |pair| flip(&pair.state(COMMITTED), 100)),
        ("list's header flipped", "committed is damaged", |pair| flip(&pair.state(COMMITTED), 20)),
        ("list short", "committed is damaged", |pair| shorten(&pair.state(COMMITTED), 1)),
        ("blob flipped", "blob is damaged at", |pair| flip(&pair.state("blob"), 5)),
        ("blob short", "blob ends before", |pair| shorten(&pair.state("blob"), 1)),
        ("blob gone", "blob ends before", |pair| fs::remove_file(pair.state("blob")).unwrap()),
        ("staged gone", "is lost", |pair| fs::remove_dir_all(pair.state("new")).unwrap()),
        ("staged short", "has 4999 bytes", |pair| {
            for staged in fs::read_dir(pair.state("new")).unwrap().map(|entry| entry.unwrap().path()) {
                if fs::metadata(&staged).unwrap().len() == 5000 {
                    shorten(&staged, 1);
                }
            }
        }),
        ("base gone", "base/table is to be patched and is no more a file", |pair| {
            fs::remove_file(pair.main.join("base/table")).unwrap();
        }),
        ("base another kind", "base/table is to be patched and is no more a file", |pair| {
            fs::remove_file(pair.main.join("base/table")).unwrap();
            fs::create_dir(pair.main.join("base/table")).unwrap();
        }),
        ("base changed", "base/table is to be patched and was changed by somebody else", |pair| {
            flip(&pair.main.join("base/table"), 5);
        }),
        ("base linked", "shrunk is to be patched and ", |pair| {
            fs::hard_link(pair.main.join("shrunk"), pair.root.path().join("other")).unwrap();
        }),
        ("in the way", "unknown is in a directory that gives way", |pair| {
            fs::write(pair.main.join("directory-to-file/unknown"), "").unwrap();
        }),
        ("dressed gone", "dressed is no more a file", |pair| fs::remove_file(pair.main.join("dressed")).unwrap()),
    ];
    for (what, says, damage) in matrix {
        let pair = Pair::committed();
        damage(&pair);
        let before = show(&pair.main);
        let error = recover(&pair.main).unwrap_err();
        assert_eq!(code_of(&error), Code::Corrupt, "{what}: {error:#}");
        assert!(format!("{error:#}").contains(says), "{what}: {error:#}");
        assert!(show(&pair.main) == before, "{what}");
        assert_eq!(code(&guard(&pair.main)), Code::Fenced, "{what}");
        // It is the old one, and what is said makes it be that again.
        if !what.starts_with("list") {
            let hint = hint_of(&error).unwrap().split_once(": ").unwrap().1.to_owned();
            assert!(Command::new("sh").args(["-c", &hint]).status().unwrap().success(), "{hint}");
            assert!(guard(&pair.main).is_ok(), "{what}");
            assert!(recover(&pair.main).unwrap().is_none(), "{what}");
            pair.assert_clean(what);
        }
    }
}

fn shorten(path: &Path, less: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() - less).unwrap();
}

#[test]
fn a_journal_that_could_not_be_replayed_is_not_committed() {
    type Fault = (&'static str, fn(&Pair, &Journal));
    let faults: [Fault; 4] = [
        ("was changed by somebody else", |pair, _| flip(&pair.main.join("base/table"), 5)),
        ("has no directory to be in", |pair, journal| {
            let entry = Tree::open(&pair.want).unwrap().look(&name("link")).unwrap().unwrap();
            journal.add(Op::Make(repl::value::entry::Entry { name: name("no/such"), ..entry })).unwrap();
        }),
        ("has no directory to be in", |pair, journal| {
            let entry = Tree::open(&pair.want).unwrap().look(&name("link")).unwrap().unwrap();
            journal.add(Op::Make(repl::value::entry::Entry { name: name("gone/new"), ..entry })).unwrap();
        }),
        ("is to be linked to and is not there", |_, journal| {
            journal.add(Op::Link { name: name("link-2"), to: name("gone/with/all/z") }).unwrap();
        }),
    ];
    for (says, fault) in faults {
        let pair = Pair::new();
        let state = State::open(&pair.main).unwrap();
        let journal = Journal::open(&state).unwrap();
        fill(&journal, &pair.main, &pair.want);
        fault(&pair, &journal);
        let before = show(&pair.main);
        let error = journal.commit(&Tree::open(&pair.main).unwrap(), DRESS).unwrap_err();
        assert_eq!(code_of(&error), Code::Corrupt, "{error:#}");
        assert!(format!("{error:#}").contains(says), "{error:#}");
        assert!(show(&pair.main) == before);
        pair.assert_clean(says);
        assert_eq!(state_files(&pair.state("")), ["blob", "journal", "new"]);
    }
}

#[test]
fn a_replay_that_was_interrupted_is_not_completed_over_what_somebody_else_has_written() {
    let restored = Pair::torn();
    fs::copy(restored.main.join("base/table"), restored.main.join("copy")).unwrap();
    fs::rename(restored.main.join("copy"), restored.main.join("base/table")).unwrap();
    let before = show(&restored.main);
    let error = recover(&restored.main).unwrap_err();
    assert!(format!("{error:#}").contains("base/table is to be patched and was changed"), "{error:#}");
    assert!(show(&restored.main) == before);

    // Where the same file was written into, its digest tells.
    let edited = Pair::torn();
    flip(&edited.main.join("base/table"), 5);
    for _ in 0..2 {
        let error = recover(&edited.main).unwrap_err();
        assert!(format!("{error:#}").contains("base/table is not what it was to become"), "{error:#}");
        assert_eq!((code_of(&error), code(&guard(&edited.main))), (Code::Corrupt, Code::Fenced));
        assert!(hint_of(&error).unwrap().contains(".torn"), "{error:#}");
    }

    let untouched = Pair::torn();
    recover(&untouched.main).unwrap().unwrap();
    untouched.assert_new("completed");
}

#[test]
fn each_state_of_marker_and_journal_has_its_end() {
    let remark = |pair: &Pair, step: Step| {
        let root = Dir::open(&pair.main).unwrap();
        let marker = Marker::read(&root).unwrap().unwrap();
        Marker { step, ..marker }.write(&root).unwrap();
    };
    let without_journal = |step: Step| {
        let pair = Pair::committed();
        remark(&pair, step);
        fs::remove_file(pair.state(COMMITTED)).unwrap();
        pair
    };
    let nothing = Pair::new();
    assert_eq!(recover(&nothing.main).unwrap(), None);
    assert!(!nothing.state("").exists());

    let prepared = without_journal(Step::Prepared);
    assert_eq!(recover(&prepared.main).unwrap(), None);
    assert!(show(&prepared.main) == prepared.old);
    prepared.assert_clean("prepared");

    let torn = without_journal(Step::Replaying);
    let error = recover(&torn.main).unwrap_err();
    assert_eq!((code_of(&error), code(&guard(&torn.main))), (Code::Corrupt, Code::Fenced));
    assert!(hint_of(&error).unwrap().contains(".torn"), "{error:#}");
    assert_eq!(code(&torn.commit()), Code::Failed, "a second journal for it");

    let done = without_journal(Step::Done);
    assert_eq!(recover(&done.main).unwrap(), None);
    done.assert_clean("done");

    for step in [Step::Prepared, Step::Replaying] {
        let pair = Pair::committed();
        remark(&pair, step);
        assert!(recover(&pair.main).unwrap().is_some());
        pair.assert_new("committed");
    }
    let tidied = Pair::committed();
    remark(&tidied, Step::Done);
    assert_eq!(recover(&tidied.main).unwrap(), None);
    assert!(show(&tidied.main) == tidied.old, "what is done is not done again");
    assert_eq!(state_files(&tidied.state("")), [""; 0]);
    tidied.assert_clean("tidied");

    let unmarked = Pair::committed();
    fs::remove_file(unmarked.main.join(MARKER)).unwrap();
    let error = recover(&unmarked.main).unwrap_err();
    assert_eq!(code_of(&error), Code::Fenced, "{error:#}");
    assert!(show(&unmarked.main) == unmarked.old);
    fs::rename(&unmarked.main, unmarked.root.path().join("away")).unwrap();
    assert_eq!(code(&recover(&unmarked.main)), Code::Fenced);

    let other = Pair::committed();
    let marker = fs::read(Pair::committed().main.join(MARKER)).unwrap();
    fs::write(other.main.join(MARKER), marker).unwrap();
    assert_eq!(code(&recover(&other.main)), Code::Fenced);
    assert!(show(&other.main) == other.old);

    let held = Pair::committed();
    let _state = State::open(&held.main).unwrap();
    assert_eq!(code(&recover(&held.main)), Code::Busy);
}

#[test]
fn a_journal_that_waits_to_be_replayed_is_neither_added_to_nor_thrown_away() {
    let pair = Pair::committed();
    let state = State::open(&pair.main).unwrap();
    assert_eq!(code(&Journal::open(&state)), Code::Failed);
    assert_eq!(code(&Journal::discard(&state)), Code::Failed);
    drop(state);
    recover(&pair.main).unwrap();
    pair.assert_new("replayed");
}

#[test]
fn what_is_left_out_keeps_its_directory() {
    let pair = Pair::committed();
    fs::write(pair.main.join("gone/with/excluded"), "kept").unwrap();
    recover(&pair.main).unwrap();
    assert_eq!(fs::read(pair.main.join("gone/with/excluded")).unwrap(), b"kept");
    assert!(!pair.main.join("gone/with/all").exists());
    pair.assert_clean("kept");
}

/// Runs a child in a mount namespace of its own; `None` where that is not permitted.
fn with_mounts(root: &Path, script: &str, what: &str) -> Option<i32> {
    if !Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success()) {
        return None;
    }
    let inner = child(script, what, root);
    let mut command = Command::new("unshare");
    command.arg("-m").arg(inner.get_program()).args(inner.get_args()).current_dir(root);
    command.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let output = command.output().unwrap();
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    output.status.code()
}

#[test]
fn a_disk_without_the_space_is_found_out_before_anything_is_written() {
    let root = tempfile::tempdir().unwrap();
    // There is space for what the journal holds, and not for what the file grows by.
    let script = "
        mkdir small want && mount -t tmpfs -o size=800k none small && mkdir small/main && ln -s small/main main &&
        head -c 100000 /dev/urandom | tee main/f >old && head -c 500000 /dev/urandom >want/f || exit 99
        run() {
            \"$@\"
            [ $? = 12 ] && cmp main/f old && [ \"$(ls -A main small/.repl-sync-main | tr '\n' ' ')\" = \
            'main: f  small/.repl-sync-main: blob journal lock new ' ] || exit 98
            mount -o remount,size=8m small && REPL_TEST_DO=sync \"$@\" && cmp main/f want/f
        }
        run";
    if let Some(ended) = with_mounts(root.path(), script, "commit") {
        assert_eq!(ended, 0);
    }
}

#[test]
fn what_is_mounted_in_a_destination_is_synced_too() {
    let pair = Pair::new();
    fs::set_permissions(pair.main.join("same"), fs::Permissions::from_mode(0o755)).unwrap();
    let script =
        "mount -t tmpfs none main/same && echo old >main/same/file || exit 99; exec strace -f -y -o trace -e syncfs";
    let Some(ended) = with_mounts(pair.root.path(), script, "sync") else { return };
    assert_eq!(ended, 0);
    let trace = fs::read_to_string(pair.root.path().join("trace")).unwrap();
    let syncs: Vec<_> = trace.lines().filter(|line| line.contains("syncfs(")).collect();
    assert!(syncs.len() == 2 && syncs[1].contains("/main/same>"), "{trace}");
}
