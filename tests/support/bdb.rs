//! Berkeley DB environments to test with, and their log read in the shortest way there is, as a judge of ours.

#![allow(dead_code, reason = "each test crate uses its own part")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Walks record headers (prev, len, chksum, rectype, txnid, `prev_lsn`, opcode) and prints the id of each commit.
pub(crate) const COMMITS: &str = r"
import glob, struct, sys
for path in sorted(glob.glob(sys.argv[1] + '/log.*')):
    log, at = open(path, 'rb').read(), 28
    while at + 32 <= len(log):
        length, kind, txn, opcode = struct.unpack_from('<4xI4xII8xI', log, at)
        if length == 0: break
        if kind == 10 and opcode == 1 and at + length <= len(log): print('%x' % txn)
        at += length
";

/// Writes to a Berkeley DB environment until it is killed, and not as fast as it can: disks are small. Each
/// row is named by its transaction, as the log names it.
pub(crate) const WRITE: &str = r"
import sys, time
from bsddb3 import db
home = sys.argv[1]
env = db.DBEnv()
env.set_lg_max(300000)
env.set_cachesize(0, 4 << 20)
env.set_flags(db.DB_TXN_WRITE_NOSYNC, 1)
env.open(home, db.DB_INIT_TXN | db.DB_INIT_LOG | db.DB_INIT_LOCK | db.DB_INIT_MPOOL | db.DB_CREATE)
rows, t, n = db.DB(env), env.txn_begin(), 0
rows.open('rows.db', None, db.DB_BTREE, db.DB_CREATE, 0o600, txn=t)
rows.put(b'%x' % (t.id() & 0xffffffff), b'opened', txn=t)
t.commit()
while True:
    t, n = env.txn_begin(), n + 1
    rows.put(b'%x' % (t.id() & 0xffffffff), b'%d' % n * (n % 300), txn=t)
    t.abort() if n % 10 == 0 else t.commit()
    if n % 1000 == 0: env.txn_checkpoint()
    time.sleep(.0005)
";

/// Opens an environment, looks into it, and leaves its regions behind.
pub(crate) const LOOK: &str = r"
import os, sys
from bsddb3 import db
env = db.DBEnv()
env.open(sys.argv[1], db.DB_INIT_TXN | db.DB_INIT_LOG | db.DB_INIT_LOCK | db.DB_INIT_MPOOL | db.DB_CREATE)
rows = db.DB(env)
rows.open('rows.db', None, db.DB_BTREE, db.DB_RDONLY)
for key in rows.keys(): print(key.decode())
sys.stdout.flush()
os._exit(0)
";

/// Runs a script for an environment; returns the lines that it prints.
pub(crate) fn python(script: &str, home: &Path) -> BTreeSet<String> {
    let ran = Command::new("/usr/bin/python3").arg("-c").arg(script).arg(home).output().unwrap();
    assert!(ran.status.success(), "is python3-bsddb3 installed? {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap().lines().map(str::to_owned).collect()
}
