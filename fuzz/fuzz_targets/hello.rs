//! The hello: one that is believed is read back from its own print, and names nothing that is no name.

#![no_main]

use libfuzzer_sys::fuzz_target;
use repl::rule::stream::hello::Hello;

fuzz_target!(|bytes: &[u8]| {
    let Ok(hello) = Hello::parse(bytes) else { return };
    for name in [&hello.set, &hello.scheme.identity(), &hello.fingerprint, &hello.site] {
        assert!(name.len() <= 255 && !name.contains(char::is_control));
    }
    assert_eq!(Hello::parse(hello.print().as_bytes()), Ok(hello));
});
