//! Kills and full disks: no base is to be seen before it is whole.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::super::rig::Running;
use super::super::tree::{self, Editor, assert_same, noise};
use super::{Vault, assert_whole};

/// How many kills a test takes: more with `REPL_TEST_ROUNDS`.
fn rounds(usual: u64) -> u64 {
    std::env::var("REPL_TEST_ROUNDS").map_or(usual, |rounds| rounds.parse().unwrap())
}

#[test]
fn kill_9_at_any_instant_shows_no_base_that_is_not_whole_and_the_next_run_completes() {
    let vault = Vault::empty();
    tree::small(&vault.src());
    vault.write("long", noise(2_000_000, 1));
    let (mut editor, mut random) = (Editor::new(&vault.src(), 5), fastrand::Rng::with_seed(5));
    let begun = Instant::now();
    vault.take("base", "");
    let (mut span, mut early) = (begun.elapsed(), 0);
    let mut earlier = vec![("base".to_owned(), tree::look(&vault.data("base")).0)];
    for round in 0..rounds(12) {
        editor.edit(20);
        for attempt in 0..3 {
            let name = format!("b{round}-{attempt}");
            let script = format!("exec $BASE --name {name} src archive");
            let mut run = Running::start(vault.rig.sh(&script), &vault.rig.path("run"));
            std::thread::sleep(Duration::from_micros(random.u64(..span.as_micros() as u64)));
            if matches!(run.child.try_wait(), Ok(None)) {
                run.signal(Signal::KILL);
            }
            let ran = run.wait();
            assert!([-1, 0].contains(&ran.code), "{ran:?}");
            early += u64::from(ran.code != 0);
            for found in vault.listed() {
                assert_whole(&vault.bases().join(&found));
                if found == name {
                    assert_same(&vault.src(), &vault.data(&name));
                    earlier.push((found, tree::look(&vault.data(&name)).0));
                }
            }
        }
        let (name, begun) = (format!("b{round}"), Instant::now());
        vault.take(&name, "");
        span = begun.elapsed();
        earlier.push((name.clone(), tree::look(&vault.data(&name)).0));
        for (name, before) in &earlier {
            assert!(tree::look(&vault.data(name)).0 == *before, "{name} in round {round}");
        }
    }
    assert!(early > 0, "nothing was killed before its end");
}

#[test]
fn a_full_disk_shows_no_base_and_leaves_the_earlier_ones() {
    let vault = Vault::some();
    vault.write("big", noise(3_000_000, 1));
    let script = "mkdir archive && mount -t tmpfs -o size=5m tmpfs archive && \"$BASE\" --name one src archive && \
                  head -c 3000000 /dev/urandom >src/big && { \"$BASE\" src archive; echo \"code $?\"; } && \
                  \"$BASE\" --list archive | cut -f 1 && head -c 1000 src/big >cut && mv cut src/big && \
                  \"$BASE\" --name two src archive && diff -r src archive/bases/two/data && ls -A archive/bases && \
                  cd archive/bases/one && b3sum --quiet --check B3SUMS";
    let ran = vault.rig.run(&format!("unshare -m sh -c '{script}'"));
    assert_eq!(ran.out, "one -\ncode 12\none\ntwo -\n.lock\nhistory.jsonl\none\ntwo\n", "{ran:?}");
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn an_interrupted_base_is_gone_on_with() {
    let vault = Vault::some();
    vault.write("big", noise(3_000_000, 1));
    // All is copied, and then the source is not let go of.
    vault.run("--freeze true --thaw false src archive").fails(9, "thaw");
    assert_eq!(vault.names(), [".new"]);
    assert_eq!(vault.listed(), [""; 0]);
    let report = vault.report("--name one src archive");
    assert_eq!(report["sync"]["literal_bytes"], 0, "{report}");
    assert_eq!(vault.names(), ["one"]);
    // It may be removed by hand as well.
    vault.run("--freeze true --thaw false src archive").fails(9, "thaw");
    fs::remove_dir_all(vault.bases().join(".new")).unwrap();
    vault.take("two", "");
}
