//! Before which segment nothing is kept any more: `pruned`, one line.
//!
//! `repl-prune` writes it before it removes anything. From then on what lies before it is not there, for every reader,
//! whether or not its files and lines are gone yet: a kill at any instant leaves nothing that looks like a gap, and the
//! next run finishes. Lines go before files, so `b3sum --check .repl/B3SUMS` never names a file that is gone.

use anyhow::Result;

use super::{PRUNED, damaged, lines};
use crate::edge::dir::Dir;
use crate::rule::scheme::Scheme;
use crate::value::pairs;
use crate::value::position::{Position, Segment};

/// Reads it; `None` when nothing was ever pruned. Needs no lock and no write access.
pub fn read(state: &Dir) -> Result<Option<Segment>> {
    let Some(bytes) = state.read_small(PRUNED, 256)? else {
        return Ok(None);
    };
    let parsed = std::str::from_utf8(&bytes).ok().and_then(parse);
    parsed.map(Some).ok_or_else(|| damaged(state, PRUNED))
}

fn parse(text: &str) -> Option<Segment> {
    let before = pairs::get(text, "before").filter(|_| pairs::get(text, "v").as_deref() == Some("1"))?;
    format!("{before}:0").parse::<Position>().ok().map(|at| at.segment)
}

/// Says durably that nothing before this segment is kept.
pub fn write(state: &Dir, before: Segment) -> Result<()> {
    state.replace(PRUNED, format!("v=1 before={before}\n").as_bytes())
}

/// Takes out the lines of what lies before it.
pub fn take_out_lines(state: &Dir, scheme: &Scheme, before: Segment) -> Result<()> {
    lines::take_out(state, scheme, before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::exit::{Code, code_of};

    #[test]
    fn it_is_read_back_and_a_damaged_one_is_not_taken_for_none() {
        let root = tempfile::tempdir().unwrap();
        let state = Dir::open(root.path()).unwrap();
        assert_eq!(read(&state).unwrap(), None);
        write(&state, Segment::new(2, 7)).unwrap();
        assert_eq!(read(&state).unwrap(), Some(Segment::new(2, 7)));
        assert_eq!(std::fs::read_to_string(root.path().join(PRUNED)).unwrap(), "v=1 before=2-7\n");
        for bad in ["", "v=1", "v=2 before=2-7", "v=1 before=7", "v=1 before=2-7:0"] {
            std::fs::write(root.path().join(PRUNED), bad).unwrap();
            assert_eq!(code_of(&read(&state).unwrap_err()), Code::Corrupt, "{bad}");
        }
    }
}
