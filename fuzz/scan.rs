//! What every scanner promises on any bytes, whatever the engine.

use repl::rule::scheme::Scanner;

/// Scans at once, in chunks, and in chunks with a way back after each: all must say the same, and the safe extent only
/// grows. Returns the scanner that took all at once.
pub fn in_pieces(fresh: &Scanner, bytes: &[u8], chunk: usize) -> Scanner {
    let (mut whole, mut pieces, mut rewound) = (fresh.clone(), fresh.clone(), fresh.clone());
    whole.take(bytes);
    for end in (chunk..bytes.len()).step_by(chunk).chain([bytes.len()]) {
        let before = pieces.safe();
        pieces.take(&bytes[pieces.at() as usize..end]);
        assert!(pieces.safe() >= before && pieces.safe() <= pieces.at() && pieces.at() == end as u64);
        assert!(pieces.boundary().is_none_or(|mark| mark.offset <= pieces.safe()));
        rewound.take(&bytes[rewound.at() as usize..end]);
        rewound.rewind();
        assert_eq!((rewound.at(), rewound.safe()), (pieces.safe(), pieces.safe()));
    }
    let said = |scanner: &Scanner| (scanner.safe(), scanner.boundary(), scanner.is_past_limit());
    assert_eq!(said(&pieces), said(&whole));
    assert_eq!(said(&rewound), said(&whole));
    assert_eq!((pieces.at(), pieces.trouble()), (whole.at(), whole.trouble()));
    whole
}
