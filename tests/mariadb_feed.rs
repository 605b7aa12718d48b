//! MariaDB itself, fed by its own client from what is durable at a replica.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/mariadb.rs"]
mod mariadb;

use mariadb::Mariadb;

#[test]
fn a_server_comes_and_goes() {
    let mut server = Mariadb::start_new(&["max_binlog_size=64K"]);
    server.sql("create database d; create table d.t(a int); insert into d.t values(1);");
    assert_eq!(server.checksums().lines().count(), 1);
    server.kill9();
    server.start();
    assert_eq!(server.sql("select a from d.t;"), "1");
    assert_eq!(server.logs(), ["bin.000001", "bin.000002"]);
    assert_eq!(server.master_status().0, "bin.000002");
    server.stop();
}
