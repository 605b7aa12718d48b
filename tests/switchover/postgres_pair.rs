//! A PostgreSQL pair whose switchover is cut short at each step, under a writer's load.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::cut::{Call, Cut, RSH};
use crate::pair::{Pair, SITES, Servers};
use crate::postgres::{Postgres, Stage};
use crate::rig::{Ran, Running};

/// Tries to write to a server, master or not, without end. Each row is another, and goes to `acked` once the server has said
/// that it is committed; one that is refused goes nowhere.
const WRITER: &str = r#"
pace='do $$ begin perform pg_sleep(case when pg_is_in_recovery() then .03 else .002 end); end $$;'
run=0
while run=$((run + 1)); do
    seq -f "$pace insert into told values ('$SITE $run %.0f') returning i;" 1000000 |
        psql -X -q -A -t -d "$DSN" 2>/dev/null >> acked-$SITE
    sleep .1
done
"#;

/// What PostgreSQL has by default.
const DEFAULT: &str = "5s";

struct Two<'a> {
    stage: &'a Stage,
    servers: [Postgres<'a>; 2],
    _writers: [Running; 2],
}

/// Two servers with a writer each, who is not told which of them is the master: `a`, at first. A standby looks for a new
/// timeline this often.
fn pair<'a>(stage: &'a Stage, interval: &str) -> Pair<Two<'a>> {
    // No server crashes here, and no machine.
    let quick = "fsync = off\nwal_keep_size = 32MB\nmin_wal_size = 4MB\nmax_wal_size = 16MB\n";
    let a = Postgres::init(stage, SITES[0], 1, quick);
    a.sql("create table told (i text primary key)");
    let mut b = a.standby(SITES[1]);
    for sites in [["a", "b"], ["b", "a"]] {
        let text = crate::config(stage.root(), sites, "postgres", &format!("{}/pg_wal", sites[0]), "");
        let text = text.replace("sh -c", &format!("{}/rsh", stage.root().display()));
        fs::write(stage.path("config"), text).unwrap();
        crate::stage_own(stage, &format!("{}.toml", sites[0]));
    }
    fs::write(stage.path("rsh"), RSH).unwrap();
    fs::set_permissions(stage.path("rsh"), fs::Permissions::from_mode(0o755)).unwrap();
    stage.ok("$ROLE init --master -q -c a.toml");
    let ship = "exec $SHIP --state a-state --set orders --via \"$APPLY --acks -c b.toml\" a/pg_wal";
    let sender = stage.spawn("ship", ship);
    b.start();
    drop(sender);
    for server in [&a, &b] {
        server.set(&format!("wal_retrieve_retry_interval = {interval}\n"));
        server.sql("select pg_reload_conf()");
    }
    let write = |site: &str, server: &Postgres<'_>| {
        stage.spawn(&format!("writer-{site}"), &format!("export SITE={site} DSN='{}'; {WRITER}", server.dsn()))
    };
    let writers = [write(SITES[0], &a), write(SITES[1], &b)];
    Pair { servers: Two { stage, servers: [a, b], _writers: writers }, master: 0 }
}

impl Servers for Two<'_> {
    fn root(&self) -> &Path {
        self.stage.root()
    }

    fn run(&self, script: &str) -> Ran {
        self.stage.run(script)
    }

    fn spawn(&self, script: &str) -> Running {
        self.stage.spawn("ship", script)
    }

    fn log(&self, site: usize) -> String {
        format!("{}/pg_wal", SITES[site])
    }

    fn leads(&self, site: usize) -> bool {
        self.servers[site].query("select pg_is_in_recovery()").out.trim() == "f"
    }

    fn lacks(&self, site: usize, rows: &Path) -> String {
        self.stage.ok(&format!(
            "psql -X -q -A -t -v ON_ERROR_STOP=1 -d '{}' -c 'create temp table acked (i text)' \
             -c \"\\copy acked from '{}'\" -c 'select i from acked except select i from told'",
            self.servers[site].dsn(),
            rows.display()
        ))
    }
}

#[test]
fn a_postgres_pair_changes_roles_wherever_the_switchover_is_killed() {
    let stage = Stage::new();
    // The first of these calls that are left out take its own lock; the first commands ask only.
    pair(&stage, DEFAULT).cut_everywhere(&[
        (Cut::Here(Call::Mkdirat), 1, 1),
        (Cut::Here(Call::Renameat), 1, 12),
        (Cut::Here(Call::Unlinkat), 1, 6),
        (Cut::Here(Call::Ftruncate), 2, 4),
        (Cut::Here(Call::Pwrite), 2, 5),
        (Cut::Here(Call::Kill), 1, 1),
        (Cut::Here(Call::Begin), 3, 7),
        (Cut::Here(Call::Wait), 3, 7),
    ]);
}

#[test]
fn a_postgres_pair_changes_roles_wherever_the_other_site_or_the_link_fails() {
    let stage = Stage::new();
    pair(&stage, DEFAULT).cut_everywhere(&[
        (Cut::There(Call::Mkdirat), 1, 1),
        (Cut::There(Call::Renameat), 1, 6),
        (Cut::There(Call::Unlinkat), 1, 2),
        (Cut::There(Call::Ftruncate), 2, 2),
        (Cut::There(Call::Pwrite), 2, 3),
        (Cut::There(Call::Begin), 1, 3),
        (Cut::There(Call::Wait), 1, 3),
        (Cut::Tree, 3, 7),
        (Cut::Lost, 1, 6),
        (Cut::Unheard, 1, 1),
    ]);
}

/// A standby looks for a new timeline now and then, and here never again; it is promoted with all of it for all that.
#[test]
fn a_postgres_standby_that_has_not_found_the_new_timeline_yet_loses_nothing_of_it() {
    let stage = Stage::new();
    let mut pair = pair(&stage, "1h");
    for _ in 0..3 {
        pair.switch();
    }
}
