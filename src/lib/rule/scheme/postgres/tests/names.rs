//! Names of files, and the past that a history file tells.

use super::super::super::Scheme;
use super::*;

fn of_size(size: u64) -> Cluster {
    Cluster::new("7310000000000000001", size).unwrap()
}

#[test]
fn names_are_parsed_and_printed_for_every_segment_size() {
    for (megabytes, sequence, name) in [
        (16, 1, "000000010000000000000001"),
        (16, 255, "0000000100000000000000FF"),
        (16, 256, "000000010000000100000000"),
        (1, 4095, "000000010000000000000FFF"),
        (1, 4096, "000000010000000100000000"),
        (64, 63, "00000001000000000000003F"),
        (64, 64, "000000010000000100000000"),
        (1024, 3, "000000010000000000000003"),
        (1024, 4, "000000010000000100000000"),
    ] {
        let cluster = of_size(megabytes << 20);
        assert_eq!(cluster.name(segment(sequence)), name, "{megabytes}");
        assert_eq!(cluster.segment(name), Some(segment(sequence)), "{megabytes}");
        assert!(is_name(name));
    }
    let last = Segment::new(0xffff_ffff, (1 << 40) - 1);
    assert_eq!(of_size(16 << 20).name(last), "FFFFFFFFFFFFFFFF000000FF");
    assert_eq!(of_size(16 << 20).segment("FFFFFFFFFFFFFFFF000000FF"), Some(last));
}

#[test]
fn other_names_are_no_segments() {
    let cluster = of_size(16 << 20);
    for name in [
        "",
        "00000001000000000000000",
        "0000000100000000000000001",
        "00000000000000000000000A",
        "00000001000000000000000a",
        "000000010000000000000100",
        "00000001+000000000000001",
        "0000000100000000 0000001",
        "00000001000000000000000\u{e9}",
        "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
        "000000010000000000000001.partial",
    ] {
        assert_eq!(cluster.segment(name), None, "{name}");
    }
    assert!(!is_name("000000010000000000001000") && is_name("000000010000000000000FFF"));
}

#[test]
fn segments_that_have_no_name_are_not_nameable_and_do_no_harm() {
    let scheme = Scheme::Postgres(of_size(16 << 20));
    for (generation, sequence, nameable) in [
        (1, 0, true),
        (0xffff_ffff, (1 << 40) - 1, true),
        (0, 1, false),
        (1 << 32, 1, false),
        (1, 1 << 40, false),
        (u64::MAX, u64::MAX, false),
    ] {
        let segment = Segment::new(generation, sequence);
        assert_eq!(scheme.is_nameable(segment), nameable, "{segment}");
        let mut scanner = scheme.scanner(segment, None);
        scanner.take(&Log::sample().bytes);
        assert_eq!(scanner.safe(), 0);
        let mut next = scheme.scanner(Segment::new(generation, sequence.wrapping_add(1)), None);
        next.follow(&scanner);
    }
}

#[test]
fn a_cluster_is_known_by_a_first_page_only() {
    let bytes = Log::sample().bytes;
    assert_eq!(Cluster::read(&bytes[..512]), Some(cluster()));
    assert_eq!(Cluster::read(&bytes[..40]), Some(cluster()));
    assert_eq!(Cluster::read(&bytes[..39]), None);
    assert_eq!(Cluster::read(&bytes[8192..8192 + 512]), None);
    for (at, byte) in [(8, 1), (32, 1), (34, 0x30), (37, 0), (1, 0)] {
        let mut bad = bytes[..512].to_vec();
        bad[at] = byte;
        assert_eq!(Cluster::read(&bad), None, "{at}");
    }
    for (system, size) in [("", 1 << 24), ("0", 1 << 24), ("+5", 1 << 24), ("05", 1 << 24), ("5", 0), ("5", 1 << 19)] {
        assert!(Cluster::new(system, size).is_err(), "{system} {size}");
    }
    assert!(Cluster::new("99999999999999999999", 1 << 24).is_err() && Cluster::new("5", 3 << 20).is_err());
    assert!(Cluster::new("18446744073709551615", 1 << 30).is_ok());
}

fn lineage(cluster: Cluster, generation: u64, history: &str) -> Option<Vec<Segment>> {
    Scheme::Postgres(cluster).lineage(generation, history)
}

#[test]
fn a_history_tells_the_last_segment_of_each_timeline_before() {
    let cluster = of_size(16 << 20);
    let history = "# a comment\n\n1\t0/1334D440\tat restore point \"x\"\n  \n2\t1/0\tbefore 2026-01-01 00:00:00+00\n";
    assert_eq!(lineage(cluster, 3, history), Some(vec![segment(0x13), Segment::new(2, 0xff)]));
    assert_eq!(lineage(of_size(1 << 20), 2, "1\t0/1334D440\n"), Some(vec![segment(0x133)]));
    // A fork at the very end of a segment is in that segment.
    assert_eq!(cluster.left(2, "1 0/2000000 x"), Some(vec![segment(1).at(16 << 20)]));
    assert_eq!(cluster.left(2, "1 0/2000001 x"), Some(vec![segment(2).at(1)]));
    assert_eq!(lineage(cluster, 2, "1 0/2000000 x"), Some(vec![segment(1)]));
    assert_eq!(lineage(cluster, 2, "1 0/2000001 x"), Some(vec![segment(2)]));
    assert_eq!(lineage(cluster, 2, "1\tFFFFFFFF/FFFFFFFF\r\n"), Some(vec![segment((1 << 40) - 1)]));
    assert_eq!(lineage(cluster, 2, ""), Some(vec![]));
}

#[test]
fn what_is_no_history_tells_nothing() {
    let cluster = of_size(16 << 20);
    for history in [
        "1",
        "1\t0",
        "1\t0/0\tx",
        "x\t0/1",
        "1\t0/100000000\tx",
        "1\tG/1\tx",
        "2\t0/1\tx",
        "0\t0/1\tx",
        "3\t0/1\tx",
        "-1\t0/1\tx",
        "1\t+0/+5\tx",
        "1\t0/5\tx\n2 nonsense",
        "99999999999999999999\t0/1",
    ] {
        assert_eq!(lineage(cluster, 2, history), None, "{history}");
    }
}

#[test]
fn history_files_are_named_after_their_timeline() {
    assert_eq!(history_name(1), None);
    assert_eq!(history_name(0x1f).as_deref(), Some("0000001F.history"));
    assert_eq!(history_of("0000001F.history"), Some(0x1f));
    for name in
        ["00000001.history", "00000000.history", "0000001f.history", "2.history", "0000001F.history.x", "history"]
    {
        assert_eq!(history_of(name), None, "{name}");
    }
}

#[test]
fn only_histories_and_labels_are_taken_from_a_peer() {
    for name in ["00000002.history", "000000010000000000000002.00000028.backup"] {
        assert!(is_aux(name), "{name}");
    }
    for name in [
        "",
        ".",
        "..",
        "../00000002.history",
        "/00000002.history",
        "00000002.history/",
        "a/00000002.history",
        "00000002.history\0",
        " 00000002.history",
        "00000001.history",
        "000000010000000000000002.00000028.backup/..",
        "000000010000000000000002..backup",
        "000000010000000000000002.0000002.backup",
        "000000010000000000000002.00000028.00000028.backup",
        "000000000000000000000002.00000028.backup",
        "000000010000000000000002",
        "000000010000000000000002.partial",
        "archive_status",
        "postgresql.conf",
        ".repl",
    ] {
        assert!(!is_aux(name), "{name}");
    }
    for name in ["archive_status", "summaries", "xlogtemp.1234", "000000010000000000000002.partial", "00000002.history"]
    {
        assert!(is_side_file(name), "{name}");
    }
    for name in ["pg_control", "partial", ".partial", "x.partial", "000000010000000000000002", "xlogtemp"] {
        assert!(!is_side_file(name), "{name}");
    }
}
