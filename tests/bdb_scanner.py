"""Writes transactions into a new Berkeley DB environment: python3 bdb_scanner.py HOME SEED ROUNDS

Small log files, values of many sizes, records above 64 KiB, nested, aborted and unfinished transactions, checkpoints.
At the end prints the log as the engine's own cursor sees it, a line `FILE OFFSET LENGTH` for each record, and ends as a
crash would: the environment is not closed.
"""

import os
import random
import sys

from bsddb3 import db

home, seed, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = random.Random(seed)
# A record header on disk; the cursor gives what is behind it.
HEADER = 12

env = db.DBEnv()
env.set_lg_bsize(128 << 10)
env.set_lg_max(600_000)
env.set_cachesize(0, 8 << 20, 1)
env.open(home, db.DB_CREATE | db.DB_INIT_TXN | db.DB_INIT_LOG | db.DB_INIT_MPOOL | db.DB_INIT_LOCK)


def table(name, kind, page):
    opened = db.DB(env)
    opened.set_pagesize(page)
    opened.open(name, None, kind, db.DB_CREATE | db.DB_AUTO_COMMIT)
    return opened


small = table("small.db", db.DB_BTREE, 4096)
hashed = table("hashed.db", db.DB_HASH, 512)
# Overflow pages of this one are logged as records of nearly 64 KiB, its new pages as records above that.
large = table("large.db", db.DB_BTREE, 65536)

for turn in range(rounds):
    txn = env.txn_begin()
    for key in range(rng.randrange(1, 6)):
        small.put(b"k%d-%d" % (turn, key), rng.randbytes(rng.randrange(0, 400)), txn=txn)
        hashed.put(b"h%d" % rng.randrange(200), rng.randbytes(rng.randrange(0, 100)), txn=txn)
    if turn % 25 == 7:
        large.put(b"big%d" % turn, rng.randbytes(65536 + rng.randrange(100_000)), txn=txn)
    if turn % 10 == 3:
        child = env.txn_begin(txn)
        small.put(b"child%d" % turn, b"x" * turn, txn=child)
        child.commit() if turn % 20 == 3 else child.abort()
    txn.abort() if turn % 9 == 4 else txn.commit()
    if turn % 60 == 59:
        env.txn_checkpoint()

unfinished = env.txn_begin()
small.put(b"unfinished", b"never committed", txn=unfinished)
env.log_flush()

cursor = env.log_cursor()
record = cursor.first()
while record:
    (number, offset), data = record
    print(number, offset, HEADER + len(data))
    record = cursor.next()
sys.stdout.flush()
os._exit(0)
