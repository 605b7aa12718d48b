//! Bases beside log: an archive is one before its first stream and after it, and nobody minds `bases`.

use std::fs;

use super::Vault;

/// A vault whose source is also a log directory, `log.1` and so on.
fn vault() -> Vault {
    let vault = Vault::some();
    for (name, text) in [("log.1", "first"), ("log.2", "second"), ("log.3", "")] {
        vault.write(name, text);
    }
    vault
}

fn ship(vault: &Vault) {
    vault.rig.ok("$SHIP -S --pattern log.%S --state state --via '$APPLY --acks --logs-only archive' src");
}

#[test]
fn log_is_received_where_bases_are_and_bases_are_taken_where_log_is() {
    for is_base_first in [true, false] {
        let vault = vault();
        if is_base_first {
            let report = vault.take("early", "");
            assert_eq!(report["base"]["position"], serde_json::Value::Null, "{report}");
        }
        ship(&vault);
        let report = vault.take("late", "--engine plain");
        // Its own log makes the base whole up to there.
        assert_eq!(report["base"]["position"], "1-3:0", "{report}");
        assert!(fs::read_to_string(vault.bases().join("late/base.toml")).unwrap().contains("log = \".\""));
        vault.write("log.3", "third");
        vault.write("log.4", "");
        ship(&vault);
        assert_eq!(vault.take("last", "")["base"]["position"], "1-4:0");
        // Nobody else minds.
        vault.rig.ok("$VERIFY archive && $FETCH archive log.1 fetched && cmp src/log.1 fetched");
        vault.rig.ok("$SHIP -S --state on --via '$APPLY --acks other' archive && cmp src/log.3 other/log.3");
        assert!(!vault.rig.path("other/bases").exists());
        let listed = vault.ok("--list archive");
        let first = listed.lines().next().unwrap();
        assert!(first.starts_with(if is_base_first { "early\t-\t" } else { "late\t1-3:0\t" }), "{listed}");
    }
}

#[test]
fn a_directory_of_bases_is_ours_and_a_file_of_that_name_is_not() {
    let vault = vault();
    let ship = "$SHIP -S --pattern log.%S --state state --via '$APPLY --acks --logs-only archive' src";
    fs::create_dir(vault.rig.path("archive")).unwrap();
    fs::write(vault.bases(), "").unwrap();
    vault.rig.run(ship).fails(13, "bases");
    fs::remove_file(vault.bases()).unwrap();
    std::os::unix::fs::symlink("../src", vault.bases()).unwrap();
    vault.rig.run(ship).fails(13, "bases");
    vault.run("src archive").fails(5, "is not a directory");
}

#[test]
fn a_source_of_another_history_than_the_log_is_refused_and_not_in_the_way_of_the_right_one() {
    let vault = vault();
    ship(&vault);
    vault.rig.ok("cp -a src other && printf FIRST >other/log.2");
    let ran = vault.run("other archive");
    ran.fails(4, "of another history");
    assert_eq!(vault.names(), [""; 0]);
    vault.take("one", "");
    vault.run("other archive").fails(4, "of another history");
    assert_eq!(vault.names(), ["one"]);
}
