//! Two sites whose switchover is cut short, run again, cut short at the next step the other way round, and so on.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cut::Cut;
use crate::rig::{Ran, Running, eventually};

/// The sites.
pub const SITES: [&str; 2] = ["a", "b"];

/// Two servers of one kind, and writers that write to whichever of them takes it.
pub trait Servers {
    /// Where everything is.
    fn root(&self) -> &Path;
    /// Runs a script there.
    fn run(&self, script: &str) -> Ran;
    /// The same in the background.
    fn spawn(&self, script: &str) -> Running;
    /// The log directory of a site.
    fn log(&self, site: usize) -> String;
    /// Whether a site's server takes writes.
    fn leads(&self, site: usize) -> bool;
    /// What a master does not have of these rows.
    fn lacks(&self, site: usize, rows: &Path) -> String;

    fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }
}

/// Both sites.
pub struct Pair<S> {
    pub servers: S,
    /// Which of them is the master.
    pub master: usize,
}

impl<S: Servers> Pair<S> {
    /// Tries each step of each cut from one on until one is not reached any more; so many there are at least.
    pub fn cut_everywhere(&mut self, cuts: &[(Cut, u32, u32)]) {
        for (cut, first, least) in cuts {
            let mut step = *first;
            while self.round(*cut, step) {
                step += 1;
            }
            assert!(step > *least, "{cut:?} has {} steps", step - 1);
        }
    }

    /// A switchover that is cut short, and run again; whether it was.
    fn round(&mut self, cut: Cut, step: u32) -> bool {
        let (from, to, when) = (self.master, 1 - self.master, format!("{cut:?} {step}"));
        // A command is cut short where it is the one that ships; else a sender is at work.
        let has_sender = matches!(cut, Cut::Here(call) | Cut::There(call) if !call.is_commands());
        let sender = has_sender.then(|| self.sender(&when));
        self.wait_for_rows();
        let (is_cut, first) = cut.run(step, &self.command(), self.servers.root(), &|script| self.servers.run(script));
        self.check_masters(&when);
        let ran = self.servers.run(&self.command());
        assert_eq!(ran.code, 0, "{when}: {ran:?} after {first:?}");
        self.master = to;
        self.check_masters(&when);
        self.check_rows(&when);
        self.ship(from).fails(5, "this site is a receiver since epoch");
        if let Some(mut sender) = sender {
            sender.wait();
        }
        is_cut
    }

    /// Changes roles, with nothing in the way.
    pub fn switch(&mut self) {
        self.wait_for_rows();
        let ran = self.servers.run(&self.command());
        assert_eq!(ran.code, 0, "{ran:?}");
        self.master = 1 - self.master;
        self.check_rows("in order");
    }

    /// What changes roles.
    pub fn command(&self) -> String {
        format!("$ROLE switchover --to {} -c {}.toml", SITES[1 - self.master], SITES[self.master])
    }

    /// Begins to follow from the master to the other one.
    fn sender(&self, when: &str) -> Running {
        let sender = self.servers.spawn(&format!("exec {}", self.shipping(self.master, "")));
        let state = SITES[self.master];
        eventually(when, || self.servers.run(&format!("flock -sn {state}-state/lock true")).code != 0);
        sender
    }

    /// A pass from a site.
    pub fn ship(&self, from: usize) -> Ran {
        self.servers.run(&self.shipping(from, "-S --retry-for 1ms"))
    }

    fn shipping(&self, from: usize, how: &str) -> String {
        let (site, other, log) = (SITES[from], SITES[1 - from], self.servers.log(from));
        format!("$SHIP {how} --set orders --state {site}-state --via \"$APPLY --acks -c {other}.toml\" {log}")
    }

    /// At most one site says that it is the master, and at most one takes writes.
    fn check_masters(&self, when: &str) {
        let roles = self.servers.run("cat a-state/role b-state/role 2>/dev/null").out;
        assert!(roles.matches("role=master").count() <= 1, "{when}: {roles}");
        assert!(!(self.servers.leads(0) && self.servers.leads(1)), "{when}: both take writes");
    }

    /// The master has each row that either server has said to be committed.
    pub fn check_rows(&self, when: &str) {
        let rows = SITES.map(|site| whole_lines(&self.servers.path(&format!("acked-{site}")))).concat();
        let path = self.servers.path("rows");
        fs::write(&path, &rows).unwrap();
        let lacks = self.servers.lacks(self.master, &path);
        assert!(lacks.trim().is_empty(), "{when}: of {} rows there are lost: {lacks}", rows.lines().count());
    }

    pub fn wait_for_rows(&self) {
        let before = self.acked();
        eventually("rows of this master", || self.acked() > before);
    }

    /// How many rows the master has said to be committed.
    fn acked(&self) -> usize {
        whole_lines(&self.servers.path(&format!("acked-{}", SITES[self.master]))).lines().count()
    }
}

/// What a file has of lines that are written to the end.
fn whole_lines(path: &Path) -> String {
    let mut text = fs::read_to_string(path).unwrap_or_default();
    text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
    text
}
