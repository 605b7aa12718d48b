//! kill -9 at any instant: nothing starts on what is there, and the same command again ends the same.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Vault, eventually, tree};

/// How often to kill.
fn rounds() -> u64 {
    std::env::var("REPL_TEST_ROUNDS").map_or(100, |rounds| rounds.parse().unwrap())
}

/// Whether a command that was told of this target is running.
fn is_told_of(target: &Path) -> bool {
    let told = format!("REPL_TARGET={}", target.display());
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut environments = processes.filter_map(|process| fs::read(process.path().join("environ")).ok());
    environments.any(|environment| environment.split(|byte| *byte == 0).any(|value| value == told.as_bytes()))
}

#[test]
fn kill_9_at_any_instant_leaves_nothing_that_a_rerun_does_not_mend() {
    let vault = Vault::based();
    let before = vault.state("archive");
    let command = "$RECOVER --archive archive --target target --until 1-4:3000 \
                   --recover 'cat \"$REPL_LOGS\"/log.* >> \"$REPL_TARGET\"/table; touch -d @5 \"$REPL_TARGET\"/table; \
                   rm \"$REPL_TARGET\"/log.1' \
                   --check 'test -s \"$REPL_TARGET\"/table'";
    let begun = Instant::now();
    vault.rig.ok(command);
    let span = begun.elapsed();
    vault.rig.ok("mv target wanted");
    let (mut random, mut marked, mut early) = (fastrand::Rng::with_seed(5), 0, 0);
    for _ in 0..rounds() {
        let mut run = vault.rig.spawn(command);
        std::thread::sleep(Duration::from_micros(random.u64(..span.as_micros() as u64)));
        if run.child.try_wait().unwrap().is_none() {
            run.signal(Signal::KILL);
        }
        early += u64::from(run.wait().code != 0);
        // What it had started goes on.
        eventually("the end of its command", || !is_told_of(&vault.rig.path("target")));
        let is_whole = vault.rig.path("target/.repl-recovered").exists();
        let is_marked = vault.rig.path("target/.repl-recover").exists();
        let names = vault.rig.run("ls -A target").out;
        assert!(is_whole || is_marked || names.is_empty(), "{names}");
        if vault.rig.path("target").exists() {
            assert_eq!(vault.guard(), if is_marked { 5 } else { 0 });
        }
        marked += u64::from(is_marked);
        if is_marked || !is_whole {
            vault.rig.ok(command);
        }
        assert_eq!(vault.guard(), 0);
        tree::assert_same_but(&vault.rig.path("wanted"), &vault.rig.path("target"), |name| {
            name.is_empty() || name == b".repl-recovered"
        });
        vault.rig.ok("rm -r target");
    }
    assert!(vault.state("archive") == before, "the archive was changed");
    assert!(rounds() < 100 || (marked > 0 && early > 0), "nothing was tried: {marked} of {early}");
}
