//! Write at the master to *flushed* at the replica, over a real sshd on loopback, at 1 MB/s.
//!
//! A writer appends 1000 bytes a thousand times a second. This process stands between the receiver's acknowledgements and
//! the sender's fifo, and notes when an `ack flushed=` line passes: the figure holds the whole way there, both syncs at
//! the replica, and the way back. Beside it, in the same run, what the machine gives: an `fdatasync` and a round trip over
//! the same ssh. `cargo bench --bench latency [-- SECONDS]`; with `-- SECONDS --poll 50ms` the sender only polls.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::cast_sign_loss)]

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[path = "../tests/support/rig.rs"]
mod rig;

use rig::{APPLY, Rig, SHIP, Sshd};

const RECORD: usize = 1000;
const PERIOD: Duration = Duration::from_millis(1);

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let seconds: u64 = args.next().and_then(|text| text.parse().ok()).unwrap_or(20);
    let ship_options: Vec<String> = args.collect();
    let (rig, sshd) = (Rig::new(), Sshd::start());
    print("fdatasync of 1000 appended bytes", fdatasyncs(&rig));
    print("round trip of 1000 bytes over ssh", round_trips(&sshd));
    print("write to flushed, acknowledged back", shipped(&rig, &sshd, seconds, &ship_options));
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    let (median, p99, most) = (at(0.5), at(0.99), at(1.0));
    println!("{what:38} median {median:7.0} us   p99 {p99:7.0} us   most {most:8.0} us   ({} times)", times.len());
}

fn fdatasyncs(rig: &Rig) -> Vec<Duration> {
    let mut file = File::create(rig.path("probe")).unwrap();
    let mut once = || {
        file.write_all(&[7; RECORD]).unwrap();
        let began = Instant::now();
        file.sync_data().unwrap();
        began.elapsed()
    };
    (0..2000).map(|_| once()).collect()
}

fn round_trips(sshd: &Sshd) -> Vec<Duration> {
    let mut far = Command::new("sh");
    far.arg("-c").arg(format!("exec {} cat", sshd.ssh())).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut far = far.spawn().unwrap();
    let (mut out, mut back) = (far.stdin.take().unwrap(), far.stdout.take().unwrap());
    let mut once = || {
        let began = Instant::now();
        out.write_all(&[7; RECORD]).unwrap();
        back.read_exact(&mut [0; RECORD]).unwrap();
        began.elapsed()
    };
    once();
    let times = (0..2000).map(|_| once()).collect();
    drop(out);
    far.wait().unwrap();
    times
}

fn shipped(rig: &Rig, sshd: &Sshd, seconds: u64, ship_options: &[String]) -> Vec<Duration> {
    let log = rig.master().join("log.1");
    File::create(&log).unwrap();
    let fifo = rig.path("acks");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut apply = Command::new("sh");
    apply.arg("-c").arg(format!("exec {} {APPLY} --acks {}", sshd.ssh(), rig.replica().display()));
    let mut apply = apply.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut ship = Command::new(SHIP);
    ship.args(["--pattern", "log.%S", "--acks"]).arg(&fifo).arg("--state").arg(rig.path("state")).args(ship_options);
    let mut ship = ship.arg(rig.master()).stdout(apply.stdin.take().unwrap()).spawn().unwrap();
    let mut forward = OpenOptions::new().write(true).open(&fifo).unwrap();
    let mut lines = BufReader::new(apply.stdout.take().unwrap()).lines();
    let welcome = lines.next().unwrap().unwrap();
    writeln!(forward, "{welcome}").unwrap();

    let records = seconds * 1000;
    let writer = std::thread::spawn(move || {
        let mut file = OpenOptions::new().append(true).open(log).unwrap();
        let began = Instant::now();
        let mut written = Vec::new();
        for record in 0..records {
            let due = began + PERIOD * record as u32;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            written.push(Instant::now());
            file.write_all(&[record as u8; RECORD]).unwrap();
        }
        written
    });
    let mut flushed = Vec::new();
    for line in lines {
        let line = line.unwrap();
        let now = Instant::now();
        let offset =
            line.split_once("flushed=1-1:").and_then(|(_, rest)| rest.split(' ').next()?.parse::<usize>().ok());
        while let Some(offset) = offset
            && flushed.len() < offset / RECORD
        {
            flushed.push(now);
        }
        if writeln!(forward, "{line}").is_err() || flushed.len() as u64 == records {
            break;
        }
    }
    let written = writer.join().unwrap();
    let _ = ship.kill();
    let _ = (ship.wait(), apply.kill(), apply.wait());
    written.iter().zip(&flushed).map(|(from, to)| to.saturating_duration_since(*from)).collect()
}
