//! The ways in which a switchover is cut short.
//!
//! What lasts of it is made by six calls, and a kill before each of them cuts between any two things that last: a small
//! file takes its place (`renameat`: roles, the journal, what was done to the server, `standby.signal`), what was held is
//! forgotten (`unlinkat`), the last segment is blanked (`ftruncate`), positions and histories are written in place
//! (`pwrite64`), a state directory is made (`mkdirat`), and a sender is told to end (`kill`). Files that are only opened to
//! be made are empty, which is as good as none, or a `.new` that nobody reads. A sync changes nothing that a kill would
//! show; `tests/cli/power.rs` cuts there.
//!
//! All else is done by commands: stop, ship, promote, start, and what runs at the other site. They are cut before they are
//! begun, when they are, so that they go on alone while the switchover is run again, and with all that they have begun. In
//! the end of a command nothing has come to last since the call before it.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use crate::rig::Ran;

/// How it is cut short at its n-th step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Killed before a call of its own.
    Here(Call),
    /// The same in what it runs at the other site, `repl-role become`.
    There(Call),
    /// Killed once it has begun a command, with all that this has begun, save servers.
    Tree,
    /// A command does not get to the other site.
    Lost,
    /// The other site has become the master, and its answer does not get here.
    Unheard,
}

/// A call of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Renameat,
    Unlinkat,
    Ftruncate,
    Pwrite,
    Mkdirat,
    Kill,
    /// A command is about to be begun: it will have no standard input.
    Begin,
    /// A command has been begun, and is about to be waited for.
    Wait,
}

impl Call {
    /// Whether it is made for each command.
    pub fn is_commands(self) -> bool {
        matches!(self, Call::Begin | Call::Wait)
    }

    /// What `strace` is told.
    fn name(self) -> &'static str {
        match self {
            Call::Renameat => "renameat",
            Call::Unlinkat => "unlinkat",
            Call::Ftruncate => "ftruncate",
            Call::Pwrite => "pwrite64",
            Call::Mkdirat => "mkdirat",
            Call::Kill => "kill",
            Call::Begin => "openat",
            Call::Wait => "pidfd_open",
        }
    }

    /// The beginning of a command line that is killed before the n-th of these calls.
    fn kill(self, step: u32) -> String {
        let (name, only) = (self.name(), if self == Call::Begin { "-P /dev/null " } else { "" });
        format!("strace -qq -o /dev/null {only}-e trace={name} -e inject={name}:signal=KILL:when={step}")
    }
}

/// Runs a command line at the other site, as a configuration's `rsh`; or fails to, as the environment has it.
pub const RSH: &str = r#"#!/bin/sh
case $CUT_LINK-$1 in
lost-* | unheard-*'become --epoch'*)
    echo >> calls
    [ "$(wc -l < calls)" != "$CUT_CALL" ] || { [ $CUT_LINK = lost ] || sh -c "exec $1" > /dev/null; exit 255; } ;;
esac
case $1 in *'become --epoch'*) exec $CUT_THERE sh -c "exec $1" ;; esac
exec sh -c "exec $1"
"#;

impl Cut {
    /// Runs a command line, cut short at this step; whether it was.
    pub fn run(self, step: u32, command: &str, root: &Path, run: &dyn Fn(&str) -> Ran) -> (bool, Ran) {
        let calls = root.join("calls");
        let _ = fs::remove_file(&calls);
        let ran = match self {
            Cut::Here(call) => run(&format!("{} {command}", call.kill(step))),
            Cut::There(call) => run(&format!("export CUT_THERE='{}'; {command}", call.kill(step))),
            Cut::Tree => {
                let mark = format!("CUT_TREE={}", root.display());
                let ran = run(&format!("export {mark}; {} {command}", Call::Wait.kill(step)));
                end_all(&mark);
                ran
            }
            Cut::Lost => run(&format!("export CUT_LINK=lost CUT_CALL={step}; {command}")),
            Cut::Unheard => run(&format!("export CUT_LINK=unheard CUT_CALL={step}; {command}")),
        };
        // A link that fails once may not be the end of it.
        let is_lost = fs::read_to_string(&calls).is_ok_and(|calls| calls.lines().count() >= step as usize);
        (is_lost || ran.code != 0, ran)
    }
}

/// Kills each process that has this in its environment, save servers, which get it from whoever starts them.
fn end_all(mark: &str) {
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let is_marked = environ.split(|byte| *byte == 0).any(|value| value == mark.as_bytes());
        if let Some(pid) = pid.filter(|_| is_marked && !["postgres", "python3"].contains(&name.trim())) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}
