//! Power cuts: each receiver has a file system of its own, which is cut off from its disk in the middle of its work. What
//! was not synced by then is gone, as it would be. What `repl-wait` has confirmed must not be.

#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use repl::value::position::Start;
use rustix::process::Signal;

use super::rig::{Rig, Running, eventually, noise};

/// `EXT4_IOC_SHUTDOWN`, which is `XFS_IOC_GOINGDOWN` too, without a flush of the file system's journal: nothing is written from then on.
const CUT: &str = "import fcntl, os, struct, sys
files = [os.open(path, os.O_RDONLY) for path in sys.argv[1:]]
for file in files: fcntl.ioctl(file, 0x8004587d, struct.pack('I', 2))";

/// File systems in files, one for each receiver.
struct Disks<'a> {
    rig: &'a Rig,
    names: Vec<&'static str>,
}

impl<'a> Disks<'a> {
    /// Made by a command; `None` where this process may not mount, or the kernel has no such file system.
    fn new(rig: &'a Rig, names: &[&'static str], make: &str) -> Option<Disks<'a>> {
        let disks = Disks { rig, names: names.to_vec() };
        for name in names {
            let ran = rig.run(&format!("mkdir {name}; truncate -s 320M {name}.img && {make} {name}.img"));
            assert_eq!(ran.code, 0, "{ran:?}");
        }
        let ran = disks.mount();
        if ran.code != 0 {
            eprintln!("SKIPPED: cannot mount file systems here: {}", ran.err.trim());
            return None;
        }
        Some(disks)
    }

    fn each(&self, script: &str) -> super::rig::Ran {
        let all: Vec<_> = self.names.iter().map(|name| script.replace('@', name)).collect();
        self.rig.run(&all.join(" && "))
    }

    fn mount(&self) -> super::rig::Ran {
        self.each("mount -o loop @.img @")
    }

    fn cut(&self) {
        let cut = self.rig.run(&format!("python3 -c \"{CUT}\" {}", self.names.join(" ")));
        assert_eq!(cut.code, 0, "{cut:?}");
    }

    /// The machines come back.
    fn restore(&self) {
        // (What is cut off may not tell that it is a mount point.)
        let unmount = "{ ! grep -q \" $PWD/@ \" /proc/self/mounts || umount @; }";
        eventually("an end of all use", || self.each(unmount).code == 0);
        assert_eq!(self.mount().code, 0);
    }
}

impl Drop for Disks<'_> {
    fn drop(&mut self) {
        self.each("{ umount -l @; true; }");
    }
}

fn follow(rig: &Rig, names: &[&str]) -> Running {
    let via: String = names.iter().map(|name| format!("--via 'exec \"$APPLY\" --acks {name}/replica' ")).collect();
    rig.spawn(&format!("exec $SHIP -q --pattern log.%S --state state --heartbeat 100ms {via} master"))
}

/// The offset that a receiver says it holds, of which every byte is the master's.
fn held(rig: &Rig, name: &str) -> u64 {
    let at: Start = rig.ok(&format!("$APPLY --position {name}/replica")).trim().parse().unwrap();
    let Start::At(mark) = at else { return 0 };
    let length = mark.position.offset as usize;
    let mut master = vec![0; length];
    fs::File::open(rig.master().join("log.1")).unwrap().read_exact_at(&mut master, 0).unwrap();
    let mut here = Vec::new();
    let path: PathBuf = rig.path(name).join("replica/log.1");
    fs::File::open(path).unwrap().take(length as u64).read_to_end(&mut here).unwrap();
    assert!(here == master, "{name}: what it says it holds is not the master's");
    length as u64
}

#[test]
fn what_was_confirmed_by_a_quorum_is_on_a_quorum_after_power_cuts_on_ext4() {
    quorum_outlives_power_cuts("mkfs.ext4 -qF");
}

#[test]
fn what_was_confirmed_by_a_quorum_is_on_a_quorum_after_power_cuts_on_xfs() {
    quorum_outlives_power_cuts("mkfs.xfs -q");
}

fn quorum_outlives_power_cuts(make: &str) {
    let names = ["a", "b", "c"];
    let rig = Rig::new();
    let Some(disks) = Disks::new(&rig, &names, make) else { return };
    rig.write("log.1", noise(100, 0));
    let (confirmed, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let write_and_wait = |round: u64| {
        let mut size = fs::metadata(rig.master().join("log.1")).unwrap().len();
        for step in 0.. {
            let bytes = noise(fastrand::usize(1..20_000), round * 1000 + step);
            size += bytes.len() as u64;
            rig.append("log.1", bytes);
            let wait = format!("$WAIT 1-1:{size} --state state --ack quorum --timeout 2s");
            if is_over.load(Ordering::SeqCst) || rig.run(&wait).code != 0 {
                return;
            }
            confirmed.store(size, Ordering::SeqCst);
        }
    };
    for round in 1..=5 {
        let mut ship = follow(&rig, &names);
        let begun = confirmed.load(Ordering::SeqCst);
        eventually("a sender", || rig.run("$WAIT now --state state --ack none").code == 0);
        std::thread::scope(|scope| {
            is_over.store(false, Ordering::SeqCst);
            scope.spawn(|| write_and_wait(round));
            let enough = fastrand::u64(1..300_000);
            eventually("confirmations", || confirmed.load(Ordering::SeqCst) > begun + enough);
            disks.cut();
            is_over.store(true, Ordering::SeqCst);
            ship.signal(Signal::KILL);
        });
        ship.wait();
        disks.restore();
        let confirmed = confirmed.load(Ordering::SeqCst);
        let having: Vec<u64> = names.iter().map(|name| held(&rig, name)).collect();
        let count = having.iter().filter(|held| **held >= confirmed).count();
        // Of three sites and the master three are a majority: two sites, and the master.
        assert!(count >= 2, "round {round}: {confirmed} was confirmed, {having:?} is held");
    }
    let mut ship = follow(&rig, &names);
    eventually("a sender", || rig.run("$WAIT now --state state --ack none").code == 0);
    rig.ok("$WAIT now --state state --ack all --timeout 60s");
    let size = fs::metadata(rig.master().join("log.1")).unwrap().len();
    assert_eq!(names.map(|name| held(&rig, name)), [size; 3]);
    ship.signal(Signal::TERM);
    assert_eq!(ship.wait().code, 0);
}
