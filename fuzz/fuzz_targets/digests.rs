//! What another site says that it holds: what is believed is printed back to the byte.

#![no_main]

use libfuzzer_sys::fuzz_target;
use repl::rule::digests::Digests;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(digests) = Digests::parse(bytes) {
        assert_eq!(digests.print().as_bytes(), bytes);
    }
});
