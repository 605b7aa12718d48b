//! File names in `pg_wal` and in archives, and the lines of a `.history` file.

use super::Cluster;
use super::header::Page;
use crate::value::position::{Position, Segment};

/// Behind the name of a segment that its timeline was left in.
pub(in crate::rule::scheme) const PARTIAL: &str = ".partial";
/// The directory in `pg_wal` that says what has been archived.
pub(in crate::rule::scheme) const STATUS: &str = "archive_status";
const HISTORY: &str = ".history";
const BACKUP: &str = ".backup";
/// What the first timeline's history would be called. A server asks its archive for it whenever it leaves that timeline.
pub(in crate::rule::scheme) const NO_HISTORY: &str = "00000001.history";

impl Cluster {
    /// Segments that share the middle eight digits of their names.
    fn per_log(self) -> u64 {
        (1 << 32) / self.size
    }

    /// See [`super::super::Scheme::name`].
    pub(in crate::rule::scheme) fn name(self, segment: Segment) -> String {
        let (log, low) = (segment.sequence / self.per_log(), segment.sequence % self.per_log());
        format!("{:08X}{log:08X}{low:08X}", segment.generation)
    }

    /// See [`super::super::Scheme::segment`].
    pub(in crate::rule::scheme) fn segment(self, name: &str) -> Option<Segment> {
        let [timeline, log, low] = fields(name)?;
        (timeline > 0 && low < self.per_log()).then(|| Segment::new(timeline, log * self.per_log() + low))
    }

    /// See [`super::super::Scheme::left`]. Lines are `timeline place reason`; the place is where its child begins.
    pub(in crate::rule::scheme) fn left(self, generation: u64, history: &str) -> Option<Vec<Position>> {
        let lines = history.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines
            .map(|line| {
                let mut words = line.split_whitespace();
                let timeline: u64 = words.next().filter(|digits| !digits.starts_with('+'))?.parse().ok()?;
                let (high, low) = words.next().filter(|place| !place.contains('+'))?.split_once('/')?;
                let (high, low) = (u32::from_str_radix(high, 16).ok()?, u32::from_str_radix(low, 16).ok()?);
                let fork = u64::from(high) << 32 | u64::from(low);
                let last = fork.checked_sub(1)? / self.size;
                let offset = fork - last * self.size;
                (0 < timeline && timeline < generation).then(|| Segment::new(timeline, last).at(offset))
            })
            .collect()
    }
}

/// Three numbers of eight hexadecimal digits each, in capitals.
fn fields(name: &str) -> Option<[u64; 3]> {
    if name.len() != 24 {
        return None;
    }
    let mut fields = [0; 3];
    for (field, at) in fields.iter_mut().zip([0, 8, 16]) {
        *field = hexadecimal(name.get(at..at + 8)?)?;
    }
    Some(fields)
}

fn hexadecimal(digits: &str) -> Option<u64> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte);
    if digits.len() != 8 || !digits.bytes().all(is_digit) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

/// Whether this can be the name of a segment, of whatever size.
pub(in crate::rule::scheme) fn is_name(name: &str) -> bool {
    fields(name).is_some_and(|[timeline, _, low]| timeline > 0 && low < 4096)
}

/// See [`super::super::Scheme::history_name`]. The first timeline has no past.
pub(in crate::rule::scheme) fn history_name(generation: u64) -> Option<String> {
    (generation > 1).then(|| format!("{generation:08X}{HISTORY}"))
}

/// See [`super::super::Scheme::history_of`].
pub(in crate::rule::scheme) fn history_of(name: &str) -> Option<u64> {
    hexadecimal(name.strip_suffix(HISTORY)?).filter(|timeline| *timeline > 1)
}

/// `.history`, and the `.backup` label that is archived with a base.
pub(in crate::rule::scheme) fn is_aux(name: &str) -> bool {
    if history_of(name).is_some() {
        return true;
    }
    let label = name.strip_suffix(BACKUP).and_then(|name| name.split_once('.'));
    label.is_some_and(|(segment, offset)| is_name(segment) && hexadecimal(offset).is_some())
}

/// What else a server keeps in `pg_wal`.
pub(in crate::rule::scheme) fn is_side_file(name: &str) -> bool {
    let is_partial = name.strip_suffix(PARTIAL).is_some_and(is_name);
    is_partial || is_aux(name) || name == STATUS || name == "summaries" || name.starts_with("xlogtemp.")
}

/// The release family, by its page magic.
pub(in crate::rule::scheme) fn fingerprint(head: &[u8]) -> String {
    Page::read(head).map(|page| format!("page-magic={:04x}", page.magic)).unwrap_or_default()
}
