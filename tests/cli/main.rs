//! The commands as operators run them, one file per command, and what crosses a real sshd.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../support/craft.rs"]
mod craft;
#[path = "../support/rig.rs"]
mod rig;
#[path = "../support/tree.rs"]
mod tree;

mod alert;
mod apply;
mod base;
mod config;
mod earlier;
mod fan_out;
mod faults;
mod feed;
mod fetch;
mod gathering;
mod instance;
mod judging;
mod link;
mod patch;
mod power;
mod prune;
mod recover;
mod restrict;
mod role;
mod scripts;
mod ship;
mod ssh;
mod ssh_remote;
mod ssh_url;
mod status;
mod stream;
mod sync;
mod talk;
mod verify;
mod wait;

/// A master that is a Berkeley DB environment of several log files, with so many rows.
fn made_by_berkeley_db(rig: &rig::Rig, rows: u32) {
    let script = r"
import sys
sys.path.insert(0, '/usr/lib/python3/dist-packages')
from bsddb3 import db
env = db.DBEnv()
env.set_lg_max(100000)
env.open(sys.argv[1], db.DB_CREATE | db.DB_INIT_MPOOL | db.DB_INIT_TXN | db.DB_INIT_LOG | db.DB_INIT_LOCK)
table = db.DB(env)
table.open('t.db', dbtype=db.DB_BTREE, flags=db.DB_CREATE | db.DB_AUTO_COMMIT)
for at in range(int(sys.argv[2])):
    txn = env.txn_begin(flags=db.DB_TXN_NOSYNC)
    table.put(b'%06d' % at, b'x' * 60, txn)
    txn.commit()
table.close()
env.close()
";
    let made = std::process::Command::new("/usr/bin/python3")
        .args(["-c", script])
        .arg(rig.master())
        .arg(rows.to_string())
        .status();
    assert!(made.expect("python3 is needed").success(), "python3-bsddb3 is needed: apt-get install python3-bsddb3");
}
