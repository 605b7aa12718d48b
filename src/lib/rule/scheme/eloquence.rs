//! Eloquence forward logs: `FwLog=/fwlog/fw-%N` in the server's configuration, where `%N` is `generation-sequence`
//! (`1-1`, later `12-1`). Files are taken as append-only and their content as opaque (vendor pages; not measured), so
//! bytes are handled as by `plain`. Generations rise by the vendor's own rule: a new one is reported, not refused.

use crate::rule::pattern::Pattern;

/// `fw-%N`, the name in the vendor's manual.
pub(super) fn default_pattern() -> Pattern {
    // A constant text: that it parses is held by the test below.
    Pattern::parse("fw-%N").unwrap_or_else(|_| unreachable!("fw-%N is a pattern"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_default_pattern_parses() {
        assert_eq!(super::default_pattern().to_string(), "fw-%N");
    }
}
