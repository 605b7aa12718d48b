//! A Berkeley DB pair whose switchover is cut short at each step, under a writer's load.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::cut::{Call, Cut, RSH};
use crate::pair::{Pair, SITES, Servers};
use crate::rig::{Ran, Rig, Running, eventually};

/// Opens an environment, tells which of the rows that were said to be committed it lacks, and commits more of them until a
/// file says stop. Each goes to `acked` once it is committed.
const WRITER: &str = r"
import os, sys, time
from bsddb3 import db
home, root = sys.argv[1], sys.argv[2]
site = os.path.basename(home)
env = db.DBEnv()
env.set_lg_max(200000)
env.open(home, db.DB_INIT_TXN | db.DB_INIT_LOG | db.DB_INIT_LOCK | db.DB_INIT_MPOOL | db.DB_CREATE)
rows, t = db.DB(env), env.txn_begin()
rows.open('rows.db', None, db.DB_BTREE, db.DB_CREATE, 0o600, txn=t)
t.commit()
acked = [open(root + '/acked-' + name, 'a+') for name in 'ab']
lacks = set()
for file in acked:
    file.seek(0)
    lacks.update(file.read().split())
lacks -= {key.decode() for key in rows.keys()}
with open(home + '-lacks.new', 'w') as file:
    file.write(' '.join(sorted(lacks)))
os.rename(home + '-lacks.new', home + '-lacks')
n = len(rows)
while not os.path.exists(home + '-stop'):
    n, t = n + 1, env.txn_begin()
    rows.put(b'%s%08d' % (site.encode(), n), b'x' * 200, txn=t)
    t.commit()
    acked['ab'.index(site)].write('%s%08d\n' % (site, n))
    acked['ab'.index(site)].flush()
    time.sleep(.001)
rows.close()
env.close()
";

struct Two<'a>(&'a Rig);

/// Two environments, of which that of `a` is written to; the other one has some of its log.
fn pair(rig: &Rig) -> Pair<Two<'_>> {
    rig.ok("mkdir a bin; for c in $ROLE $APPLY $SHIP; do ln -s $c bin; done");
    fs::write(rig.path("writer.py"), WRITER).unwrap();
    fs::write(rig.path("rsh"), RSH).unwrap();
    fs::set_permissions(rig.path("rsh"), fs::Permissions::from_mode(0o755)).unwrap();
    let root = rig.root.path().display().to_string();
    for sites in [["a", "b"], ["b", "a"]] {
        let (home, runs) = (format!("{root}/{}", sites[0]), runs(rig, sites[0]));
        let server = format!(
            "stop = \"touch {home}-stop; while {runs}; do sleep .02; done\"\nstart = \"{}\"\nstatus = \"{runs}\"",
            start(rig, sites[0])
        );
        let text = crate::config(rig.root.path(), sites, "bdb", sites[0], &server)
            .replace("sh -c", &format!("env PATH={root}/bin:/usr/sbin:/usr/bin:/bin {root}/rsh"));
        fs::write(rig.path(&format!("{}.toml", sites[0])), text).unwrap();
    }
    let pair = Pair { servers: Two(rig), master: 0 };
    rig.ok(&format!("chmod 600 *.toml; setsid sh -c '{}' >a.log 2>&1", start(rig, "a")));
    pair.wait_for_rows();
    rig.ok("$ROLE init --master -q -c a.toml");
    assert_eq!(pair.ship(0).code, 0);
    pair
}

fn start(rig: &Rig, site: &str) -> String {
    let root = rig.root.path().display();
    format!("rm -f {root}/{site}-stop {root}/{site}-lacks; /usr/bin/python3 {root}/writer.py {root}/{site} {root} &")
}

/// Whether it runs, or is being started: the command for that has the words in it, too.
fn runs(rig: &Rig, site: &str) -> String {
    format!("pgrep -f '[w]riter.py {}/{site} ' >/dev/null", rig.root.path().display())
}

impl Servers for Two<'_> {
    fn root(&self) -> &Path {
        self.0.root.path()
    }

    fn run(&self, script: &str) -> Ran {
        self.0.run(script)
    }

    fn spawn(&self, script: &str) -> Running {
        self.0.spawn(script)
    }

    fn log(&self, site: usize) -> String {
        SITES[site].to_owned()
    }

    fn leads(&self, site: usize) -> bool {
        self.0.run(&runs(self.0, SITES[site])).code == 0
    }

    /// The writer looks when it begins. What is said to be committed later is its own.
    fn lacks(&self, site: usize, _rows: &Path) -> String {
        let path = self.path(&format!("{}-lacks", SITES[site]));
        eventually("the writer's look", || path.exists());
        fs::read_to_string(path).unwrap()
    }
}

impl Drop for Two<'_> {
    fn drop(&mut self) {
        let [a, b] = SITES.map(|site| runs(self.0, site));
        self.0
            .run(&format!("touch a-stop b-stop; for try in 1 2 3 4 5 6 7 8 9; do {a} || {b} || break; sleep .1; done"));
    }
}

/// All that was said to be committed is at the master, and was written once.
fn check_all(pair: &Pair<Two<'_>>) {
    let Two(rig) = pair.servers;
    let site = SITES[pair.master];
    fs::write(rig.path("keys.py"), crate::KEYS).unwrap();
    rig.ok(&format!("touch {site}-stop; while {}; do sleep .02; done", runs(rig, site)));
    assert_eq!(rig.ok(&format!("/usr/bin/python3 keys.py {site}")), rig.ok("cat acked-a acked-b"));
}

// What is not cut here is of no engine, and is cut in PostgreSQL's pair: before a command is begun, and with all that it
// has begun. (Its own lock is taken by the first calls that are left out; the first commands ask only, and no segment is
// blanked.)

#[test]
fn a_berkeley_db_pair_changes_roles_wherever_the_switchover_is_killed() {
    let rig = Rig::new();
    let mut pair = pair(&rig);
    pair.cut_everywhere(&[
        (Cut::Here(Call::Mkdirat), 1, 1),
        (Cut::Here(Call::Renameat), 1, 10),
        (Cut::Here(Call::Unlinkat), 1, 6),
        (Cut::Here(Call::Pwrite), 2, 5),
        (Cut::Here(Call::Kill), 1, 1),
    ]);
    check_all(&pair);
}

#[test]
fn a_berkeley_db_pair_changes_roles_wherever_a_command_the_other_site_or_the_link_fails() {
    let rig = Rig::new();
    let mut pair = pair(&rig);
    pair.cut_everywhere(&[
        (Cut::There(Call::Mkdirat), 1, 1),
        (Cut::There(Call::Renameat), 1, 4),
        (Cut::There(Call::Unlinkat), 1, 1),
        (Cut::There(Call::Pwrite), 2, 4),
        (Cut::There(Call::Begin), 1, 3),
        (Cut::There(Call::Wait), 1, 3),
        (Cut::Here(Call::Wait), 3, 12),
        (Cut::Lost, 1, 6),
        (Cut::Unheard, 1, 1),
    ]);
    check_all(&pair);
}

#[test]
fn a_recovery_that_goes_on_alone_is_not_taken_for_the_server() {
    let rig = Rig::new();
    let mut pair = pair(&rig);
    let slow = "#!/bin/sh\nexec 9>> $3/used; rm $3/used; touch recovers\n\
                until [ -e go ] || [ ! -d $3 ]; do sleep .02; done\nexec 9>&-; exec /usr/bin/db5.3_recover \"$@\"\n";
    fs::write(rig.path("bin/db5.3_recover"), slow).unwrap();
    let asks = format!("s|^status = \"|&echo >> {}/asked; |", rig.root.path().display());
    rig.ok(&format!("chmod 755 bin/db5.3_recover; sed -i '{asks}' b.toml"));
    // The second of its commands.
    let (is_cut, _) = Cut::There(Call::Wait).run(2, &pair.command(), rig.root.path(), &|script| rig.run(script));
    assert!(is_cut);
    eventually("the recovery", || rig.path("recovers").exists());
    fs::write(rig.path("asked"), "").unwrap();
    let mut again = rig.spawn(&pair.command());
    eventually("its wait", || {
        assert!(again.child.try_wait().unwrap().is_none(), "it ends with {:?}", again.wait());
        fs::read_to_string(rig.path("asked")).unwrap().lines().count() > 4
    });
    rig.ok("touch go");
    assert_eq!(again.wait().code, 0, "{}", again.err());
    pair.master = 1;
    pair.check_rows("recovered");
    check_all(&pair);
}
