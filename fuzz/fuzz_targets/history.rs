//! PostgreSQL's history files, and its file names, from a peer: never a panic; a name that is taken is one path component and
//! prints as it was; a past lies before its timeline.

#![no_main]

use libfuzzer_sys::fuzz_target;
use repl::rule::scheme::Scheme;
use repl::rule::scheme::postgres::Cluster;

fuzz_target!(|bytes: &[u8]| {
    let Some((size, rest)) = bytes.split_first() else { return };
    let Ok(cluster) = Cluster::new("7310000000000000001", 1 << (20 + u64::from(size % 11))) else { return };
    let (scheme, text) = (Scheme::Postgres(cluster), String::from_utf8_lossy(rest));
    let generation = u64::from(*size);
    for last in scheme.lineage(generation, &text).into_iter().flatten() {
        assert!(0 < last.generation && last.generation < generation);
        assert!(last.sequence <= u64::MAX / scheme.segment_size());
    }
    if let Some(segment) = scheme.segment(&text) {
        assert_eq!(scheme.name(segment), text);
        assert!(scheme.is_nameable(segment));
    }
    if let Some(generation) = scheme.history_of(&text) {
        assert_eq!(scheme.history_name(generation).as_deref(), Some(text.as_ref()));
    }
    if scheme.is_aux(&text) {
        assert!(!text.contains('/') && !text.starts_with('.') && text.len() <= 64);
    }
    let _ = scheme.is_side_file(&text, rest);
});
