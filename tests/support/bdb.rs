//! Berkeley DB's log read in the shortest way there is, as a judge of ours.

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
