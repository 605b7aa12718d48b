//! A set's configuration: what is understood is read back from its print, which a second one does not change, and no site
//! gets out of its quotes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use repl::cli::config::commands;
use repl::rule::config::parse;

fuzz_target!(|text: &str| {
    let commands = commands();
    let Ok(config) = parse(text, &commands) else { return };
    let printed = config.print("ship", &[]);
    let again = parse(&printed, &commands).expect("what is printed is understood");
    assert_eq!(again.print("ship", &[]), printed);
    for site in &config.sites {
        let (Some(rsh), Ok(via)) = (&site.rsh, site.via(&site.name)) else { continue };
        if site.via.is_none() {
            let word = via.strip_prefix(rsh.as_str()).and_then(|word| word.strip_prefix(' ')).expect("rsh is in front");
            assert_eq!(shell_words::split(word).map(|words| words.len()), Ok(1));
        }
    }
});
