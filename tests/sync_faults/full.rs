//! A disk without space or inodes, and every call that writes failing once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::rig::Rig;
use crate::stand::{Far, Stand, rounds, tree};

/// A small file system with the destination in it; gone when dropped.
struct Mount(PathBuf);

impl Mount {
    /// `None` where this process may not mount.
    fn new(rig: &Rig, how: &str) -> Option<Mount> {
        let ran = rig.run(&format!("mkdir -p small && {how} small && mkdir small/dst && ln -s small/dst dst"));
        if ran.code != 0 {
            eprintln!("SKIPPED: cannot mount a small file system here: {}", ran.err.trim());
        }
        (ran.code == 0).then(|| Mount(rig.path("small")))
    }

    /// Takes all but so much space.
    fn fill(&self, left: u64) {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        let free = stat.f_bavail * stat.f_frsize;
        let script = "head -c \"$1\" /dev/zero >\"$2\"";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh", &free.saturating_sub(left).to_string()]).arg(self.0.join("ballast"));
        // What the file system takes for itself may be more: then it is fuller than was asked for.
        let _ = command.output().unwrap();
    }

    /// Takes all but so many inodes.
    fn fill_inodes(&self, left: u64) {
        fs::create_dir(self.0.join("ballast")).unwrap();
        let free = rustix::fs::statvfs(&self.0).unwrap().f_ffree;
        for number in 0..free.saturating_sub(left) {
            fs::write(self.0.join(format!("ballast/{number}")), "").unwrap();
        }
    }

    fn free(&self) {
        let ballast = self.0.join("ballast");
        let _ = fs::remove_file(&ballast).or_else(|_| fs::remove_dir_all(&ballast));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

fn on_a_small_disk(how: &str, fill: impl Fn(&Mount, u64), lefts: &[u64]) {
    let rig = Rig::new();
    let Some(mount) = Mount::new(&rig, how) else { return };
    let stand = Stand::at(rig);
    stand.completes(Far::None, "--inplace", "");
    let mut refused = 0;
    for (number, left) in lefts.iter().enumerate() {
        for mode in ["--inplace", "--stage"] {
            let far = [Far::None, Far::Destination][number % 2];
            stand.advance();
            let dst = stand.path("dst").canonicalize().unwrap();
            let before = tree(&dst);
            fill(&mount, *left);
            let ran = stand.run(far, mode, "");
            stand.quiet();
            match ran.code {
                0 => {}
                code => {
                    assert_eq!(code, 12, "{mode}, {left} left: {ran:?}");
                    stand.is_as_before(&before);
                    refused += 1;
                }
            }
            mount.free();
            stand.completes(far, mode, "");
        }
    }
    eprintln!("{how}: {refused} refused");
    assert!(refused > 1, "{how}: nothing was ever full");
}

const SPACES: [u64; 5] = [0, 40_000, 150_000, 500_000, 1_500_000];

#[test]
fn a_full_tmpfs_is_12_and_it_goes_on_when_there_is_space() {
    on_a_small_disk("mount -t tmpfs -o size=16m none", Mount::fill, &SPACES);
}

#[test]
fn a_full_ext4_is_12_and_it_goes_on_when_there_is_space() {
    let how = "truncate -s 24M image && mkfs.ext4 -qF image && mount -o loop image";
    on_a_small_disk(how, Mount::fill, &SPACES);
}

#[test]
fn without_inodes_it_is_12_and_it_goes_on_when_there_are_some() {
    on_a_small_disk("mount -t tmpfs -o size=16m,nr_inodes=200 none", Mount::fill_inodes, &[0, 1, 3, 6, 20]);
}

/// Calls that write, and those by which a tree is read.
const CALLS: &str = "openat,openat2,mkdirat,ftruncate,fallocate,pwrite64,write,fsync,syncfs,renameat,renameat2,unlinkat,\
                     fchmodat,utimensat,copy_file_range,linkat,read,pread64,getdents64,flock";

/// Runs a sync under strace; the exit code, `None` when the call that was to fail does not come so often.
fn with_fault(stand: &Stand, mode: &str, call: &str, fault: &str, when: u64) -> Option<i32> {
    let inject = format!("-e trace={call} -e inject={call}:{fault}:when={when}");
    let ran = stand.rig.run(&format!(
        "strace -f --seccomp-bpf -qq -o trace {inject} {} --delete {mode} src dst; exit $?",
        crate::stand::SYNC
    ));
    assert!(!ran.err.contains("panicked"), "{ran:?}");
    let trace = fs::read_to_string(stand.path("trace")).unwrap();
    ["(INJECTED)", "killed by SIGKILL"].iter().any(|sign| trace.contains(sign)).then_some(ran.code)
}

fn failing_once(mode: &str) {
    let stand = Stand::synced();
    // A destination with all there is to do: new, changed, removed, of another kind.
    let spoil = |dst: &Path| {
        fs::write(dst.join("more"), "to be removed").unwrap();
        fs::remove_file(dst.join("d/1")).unwrap();
        fs::create_dir(dst.join("d/1")).unwrap();
        fs::remove_file(dst.join("d/e/2")).unwrap();
    };
    let (mut faults, mut fenced) = (0, 0);
    let depth = rounds(3);
    for (number, call) in CALLS.split(',').enumerate() {
        for step in 0..depth {
            let fault = ["error=EIO", "error=ENOSPC", "signal=KILL"][(number + step as usize) % 3];
            // Near the beginning each of them; then further and further in.
            let when = if step < 2 { step + 1 } else { step * step + 1 };
            stand.advance();
            spoil(&stand.path("dst"));
            stand.bless();
            let Some(code) = with_fault(&stand, mode, call, fault, when) else { break };
            faults += 1;
            let what = format!("{mode} {call} {when} {fault}: {code}");
            assert!(![101, 134, 135, 139].contains(&code), "{what}");
            eprintln!("{what}");
            stand.judge();
            fenced += u64::from(stand.is_fenced());
            if code == 0 {
                // What can be done without, such as naming oneself in a lock.
                stand.rig.ok("diff -r --no-dereference src/ dst/");
            }
            stand.completes(Far::None, mode, "");
        }
    }
    eprintln!("{mode}: {faults} faults, {fenced} in the middle of a replay");
    assert!(faults > 20, "{faults}");
}

#[test]
fn a_call_that_fails_leaves_old_or_new_or_fenced_in_place() {
    failing_once("--inplace");
}

#[test]
fn a_call_that_fails_leaves_old_or_new_or_fenced_beside_a_stage() {
    failing_once("--stage");
}
