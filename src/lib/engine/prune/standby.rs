//! From where on the database that is fed here needs log, so that it can be recovered again.

use anyhow::{Context as _, Result};

use crate::edge::dir::Dir;
use crate::edge::read::prefix_with;
use crate::engine::log;
use crate::rule::retention::{Need, Who};
use crate::rule::scheme::bdb::{self, checkpoint::Search};
use crate::rule::scheme::{Engine, Scheme};
use crate::value::exit::{Code, fail};
use crate::value::position::Position;

/// What a standby needs, of which `applied` was fed and `held` is held.
pub(super) fn need(dir: &Dir, scheme: &Scheme, held: Position, applied: Option<Position>) -> Result<Need> {
    match scheme.engine() {
        Engine::Bdb => {
            // Its log may be given to it by other means than a feed of ours; then all that is here counts.
            let from = checkpoint(dir, scheme, applied.map_or(held, |applied| applied.min(held)))?;
            Ok(Need { who: Who::Checkpoint, from })
        }
        Engine::Postgres => fail(Code::Usage, "--standby is not for engine postgres: the server removes its own log"),
        _ if applied.is_none() => Ok(Need { who: Who::Nobody("nothing was fed yet"), from: None }),
        _ => Ok(Need { who: Who::Feed, from: applied }),
    }
}

/// The first position that recovery needs, by the checkpoints in the log before `limit`; `None` for all.
fn checkpoint(dir: &Dir, scheme: &Scheme, limit: Position) -> Result<Option<Position>> {
    let mut search = Search::default();
    let segments = log::segments(dir, scheme, |_| true)?;
    for (segment, name) in segments.into_iter().rev().filter(|(segment, _)| *segment <= limit.segment) {
        let Some(file) = dir.open_read(&name)? else {
            continue;
        };
        let length = if segment == limit.segment { limit.offset } else { u64::MAX };
        let mut scanner = bdb::Scanner::noting_checkpoints();
        prefix_with(&file, scheme.running(), length, |bytes| scanner.take(bytes))
            .with_context(|| format!("cannot read {}", dir.shown(&name)))?;
        if let Some(first) = search.look(segment, scanner.checkpoints()) {
            return Ok(Some(first.at(0)));
        }
    }
    Ok(None)
}
