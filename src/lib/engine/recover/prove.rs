//! Proves that a recovery is possible, before anything is touched: which base, that it is whole; that the log from there
//! to the end is whole, without a hole, and one with the base's; and where exactly the end is. The databases' own tools
//! end without an error where log is missing.

use anyhow::{Context as _, Result};

use super::plan::{Log, Plan};
use super::{Choice, Order};
use crate::edge::dir::Dir;
use crate::edge::read::read_at;
use crate::engine::archive::base::{self, Base, DATA};
use crate::engine::archive::own::{self, Own};
use crate::engine::archive::prove::{self, Which};
use crate::engine::archive::{Archive, BASES};
use crate::engine::sync::profile::Profile;
use crate::engine::verify::{self, Finding, Report, Scope};
use crate::engine::{log, site};
use crate::rule::scheme::{Engine, Scanner, Scheme};
use crate::value::digest::Running;
use crate::value::exit::{Code, Failure, fail};
use crate::value::position::{Position, Segment};
use crate::value::time::{Time, Until};

/// Findings that are named.
const NAMED: usize = 3;

/// See the module.
pub(super) fn run(order: &Order, archive: &Archive<'_>) -> Result<Plan> {
    let bases = base::list(archive.dir)?;
    let base = choose(order, &bases)?;
    let engine = engine_of(order, archive, base.as_ref());
    admit(order, archive, engine)?;
    if base.is_none() && matches!(engine, Profile::Postgres | Profile::Mariadb | Profile::Sqlite) {
        let text = format!("a {engine} database cannot be recovered without a base, and there is none that serves");
        return Err(Failure::new(Code::Gap, text).hint("repl-base takes one").into());
    }
    let own = match &base {
        Some(base) => prove_base(archive, base, &bases)?,
        None => None,
    };
    Proof { order, archive, base, engine, own }.plan()
}

/// The base that is asked for, or the newest that is not later than the end.
fn choose(order: &Order, bases: &[Base]) -> Result<Option<Base>> {
    match &order.base {
        Choice::None => Ok(None),
        Choice::Named(name) => match bases.iter().find(|base| base.name == *name) {
            Some(base) if is_before(base, order.until) => Ok(Some(base.clone())),
            Some(base) => {
                let text = format!("base {name} ends at {}, later than --until", place(base));
                Err(Failure::new(Code::Gap, text).hint("name an earlier base").into())
            }
            None => fail(Code::Usage, format!("there is no base '{name}'")),
        },
        Choice::Latest => Ok(bases.iter().rev().find(|base| is_before(base, order.until)).cloned()),
    }
}

fn place(base: &Base) -> String {
    base.record.position.map_or_else(|| base.record.ended.to_string(), |position| position.to_string())
}

/// Whether what a base has is all of before the end.
fn is_before(base: &Base, until: Option<Until>) -> bool {
    let record = &base.record;
    match until {
        None => true,
        Some(Until::Position(until)) => record.position.is_some_and(|position| position <= until),
        Some(Until::Time(until)) => record.time.unwrap_or(record.ended) <= until,
    }
}

fn engine_of(order: &Order, archive: &Archive<'_>, base: Option<&Base>) -> Profile {
    order.engine.or(base.map(|base| base.record.engine)).unwrap_or_else(|| of_log(archive))
}

/// The kind of database whose log the archive has.
fn of_log(archive: &Archive<'_>) -> Profile {
    match archive.origin.scheme.engine() {
        Engine::Plain => Profile::Plain,
        Engine::Eloquence => Profile::Eloquence,
        Engine::Bdb => Profile::Bdb,
        Engine::Postgres => Profile::Postgres,
        Engine::Mariadb => Profile::Mariadb,
    }
}

/// Refuses log that is not the engine's: its own recovery may read that for ever.
fn admit(order: &Order, archive: &Archive<'_>, engine: Profile) -> Result<()> {
    let recovers = matches!(engine, Profile::Bdb | Profile::Postgres | Profile::Mariadb);
    if !recovers || engine == of_log(archive) || order.recover.is_some() {
        return Ok(());
    }
    fail(Code::Fenced, format!("the archive's log is of engine {}, not {engine}", of_log(archive)))
}

/// Proves a base; returns its own log.
fn prove_base(archive: &Archive<'_>, base: &Base, all: &[Base]) -> Result<Option<Own>> {
    let Some(proven) = prove::one(archive.dir, &base.name)? else {
        return fail(Code::Failed, format!("base {} was removed meanwhile", base.name));
    };
    if let Some(fault) = proven.faults.first() {
        let count = proven.faults.len();
        let text = format!("base {} is damaged: {}: {} ({count} found)", base.name, fault.file, fault.text);
        let failure = Failure::new(Code::Corrupt, text);
        let other = all.iter().rev().find(|other| other.name != base.name);
        return Err(match other {
            Some(other) => failure.hint(format!("--base {} may be whole", other.name)).into(),
            None => failure.into(),
        });
    }
    let data = archive.dir.open_subdir(BASES)?.open_subdir(&base.name)?.open_subdir(DATA)?;
    own::find(base.record.engine, &data, Some(&archive.origin.scheme))
}

/// What is known so far.
struct Proof<'a> {
    order: &'a Order,
    archive: &'a Archive<'a>,
    base: Option<Base>,
    engine: Profile,
    own: Option<Own>,
}

impl Proof<'_> {
    fn plan(self) -> Result<Plan> {
        let from = self.begin();
        let (to, until) = match self.order.until {
            Some(Until::Position(until)) => (Some(until.segment), None),
            Some(Until::Time(until)) => (None, Some(until)),
            None => (None, None),
        };
        let held = self.archive.holding.map(|holding| holding.held.position);
        let is_behind = held.is_none_or(|held| from.is_some_and(|from| held <= from));
        let scope = Scope { from: from.map(|from| from.segment), to, until };
        let options = verify::Options { kind: None, state: self.order.state.clone(), bases: Which::None, scope };
        let report = verify::run(self.archive.dir, &options)?;
        // What the base has by itself can be reached without the segment that it ends in.
        let is_at_base = from.is_some_and(|from| self.order.until == Some(Until::Position(from)));
        let is_behind = is_behind || (is_at_base && report.first != from.map(|from| from.segment));
        self.refuse_foreign()?;
        self.archive.check_past(report.held.keys().map(|segment| segment.generation), from)?;
        if let (Some(own), Some(from)) = (&self.own, from)
            && let Some(why) = own.differs(from, self.archive)?
        {
            return fail(Code::Corrupt, format!("the log is not the base's: {why}"));
        }
        let end = self.end(&report, from, is_behind);
        // Where all that is held is asked for, an end that is missing is not the end.
        let limit = self.order.until.and(end.as_ref().ok().copied().flatten());
        refuse_findings(&report, held, from, limit)?;
        self.refuse_hole(&report, from, is_behind)?;
        let end = end?;
        let aim = end.map(|end| self.aim(&report, end)).transpose()?;
        let cut = aim.as_ref().map(|aim| aim.position);
        let logs = if is_behind { Vec::new() } else { self.logs(&report, cut)? };
        let behind = cut.or(from).map(|end| end.segment);
        let lost = report.gaps.iter().filter(|gap| Some(gap.segment) > behind).map(|gap| gap.text.clone()).collect();
        let last = aim.as_ref().and_then(|aim| aim.last);
        let time = aim.and_then(|aim| aim.time);
        let time = time.or(self.base.as_ref().and_then(|base| base.record.time));
        let scheme = self.archive.origin.scheme.clone();
        Ok(Plan { base: self.base, engine: self.engine, scheme, logs, end: cut, time, last, held, lost })
    }

    /// From where on log is needed.
    fn begin(&self) -> Option<Position> {
        self.base.as_ref().and_then(|base| base.record.position)
    }

    /// The log begins where it is needed.
    fn refuse_hole(&self, report: &Report, from: Option<Position>, is_behind: bool) -> Result<()> {
        match (&self.base, report.first) {
            (_, None) if is_behind && self.base.is_some() => Ok(()),
            (None, Some(_)) if is_behind => fail(Code::Gap, "nothing is held here, whatever files there are"),
            (None, Some(_)) if report.is_self_contained() => Ok(()),
            (None, Some(first)) => {
                let text = format!("the log begins with {first}, and no base serves that ends behind that");
                Err(Failure::new(Code::Gap, text).hint("nothing of this can be recovered by log alone").into())
            }
            (None, None) => fail(Code::Gap, "nothing is held here: neither log nor a base that serves"),
            (Some(base), first) => {
                let Some(from) = from.filter(|from| !is_behind && first != Some(from.segment)) else {
                    return Ok(());
                };
                let first = first.map_or_else(|| "there is none".to_owned(), |first| format!("it begins with {first}"));
                let text = format!("base {} needs log from {} on, and {first}: ", base.name, from.segment);
                fail(Code::Gap, format!("{text}{from} can be reached, by --until {from}"))
            }
        }
    }

    /// The base is of the database whose log this is.
    fn refuse_foreign(&self) -> Result<()> {
        let Some(own) = &self.own else {
            return Ok(());
        };
        let (ours, theirs) = (own.scheme.identity(), self.archive.origin.scheme.identity());
        if ours == theirs && own.scheme.engine() == self.archive.origin.scheme.engine() {
            return Ok(());
        }
        fail(Code::Corrupt, format!("the log is of database {theirs}, the base of {ours}"))
    }

    /// Where the log that counts ends.
    fn end(&self, report: &Report, from: Option<Position>, is_behind: bool) -> Result<Option<Position>> {
        let held = if is_behind { from } else { self.archive.holding.map(|holding| holding.held.position) };
        let short = |what: String| {
            let end = held.map_or_else(|| "nothing".to_owned(), |end| end.to_string());
            let time = report.boundary.and_then(|(_, mark)| mark.time).map(|time| format!(" ({time})"));
            let text = format!("{what} is not reached: the log that is held ends at {end}{}", time.unwrap_or_default());
            Err(Failure::new(Code::Gap, text).hint("without --until all that is held is recovered").into())
        };
        match self.order.until {
            None => Ok(held),
            Some(Until::Position(until)) => {
                if held.is_some_and(|held| until <= held) {
                    Ok(Some(until))
                } else {
                    short(until.to_string())
                }
            }
            Some(Until::Time(until)) => match report.held.iter().find(|(_, held)| held.is_past) {
                Some((segment, held)) => {
                    let earlier = || {
                        let mut before = report.held.range(..segment).rev();
                        before.find_map(|(segment, held)| Some(segment.at(held.boundary?.offset)))
                    };
                    Ok(held.boundary.map(|mark| segment.at(mark.offset)).or_else(earlier).or(from))
                }
                None => short(until.to_string()),
            },
        }
    }

    /// The end exactly: behind the last whole record, or transaction, that is not beyond it.
    fn aim(&self, report: &Report, end: Position) -> Result<Aim> {
        let mut end = end;
        if let (Some(Until::Time(_)), Some((past, _))) =
            (self.order.until, report.held.iter().find(|(_, held)| held.is_past))
        {
            // A transaction may end in a record that began in the segment before.
            let found = self.scan(report, past.at(u64::MAX))?.boundary;
            end = end.max(found.unwrap_or(end));
        }
        let scanned = self.scan(report, end)?;
        if let (Some(Until::Position(_)), Some(scanner)) = (self.order.until, &scanned.last) {
            // An end that lies within a record, or a transaction, is where that begins.
            let is_whole = self.engine == Profile::Mariadb;
            let offset = if is_whole { scanner.boundary().map_or(0, |mark| mark.offset) } else { scanner.safe() };
            end.offset = end.offset.min(offset);
        }
        let last = scanned.last.as_ref().and_then(Scanner::last);
        Ok(Aim { position: end, time: scanned.time, last })
    }

    /// Scans the log near a position, up to that.
    fn scan(&self, report: &Report, end: Position) -> Result<Scanned> {
        let scheme = &self.archive.origin.scheme;
        let (dir, mut segments): (&Dir, Vec<Segment>) = match &self.own {
            Some(own) if !report.held.contains_key(&end.segment) => {
                (&own.dir, log::segments(&own.dir, scheme, |_| false)?.into_keys().collect())
            }
            _ => (self.archive.dir, report.held.keys().copied().collect()),
        };
        segments.retain(|segment| *segment <= end.segment);
        let until = match self.order.until {
            Some(Until::Time(until)) => Some(until),
            _ => None,
        };
        let mut scanned = Scanned { last: None, boundary: None, time: None };
        for segment in &segments[segments.len().saturating_sub(2)..] {
            let limit = if *segment == end.segment { end.offset } else { u64::MAX };
            let scanner = scan(dir, scheme, *segment, limit, until, scanned.last.as_ref())?;
            if let Some(mark) = scanner.boundary() {
                (scanned.boundary, scanned.time) = (Some(segment.at(mark.offset)), mark.time);
            }
            scanned.last = Some(scanner);
        }
        Ok(scanned)
    }

    /// The archive's log up to the end.
    fn logs(&self, report: &Report, cut: Option<Position>) -> Result<Vec<Log>> {
        let scheme = &self.archive.origin.scheme;
        let mut recorded = std::collections::BTreeMap::new();
        site::manifest(&self.archive.state, |digest, name| {
            recorded.insert(name.to_owned(), digest);
            Ok(())
        })?;
        let held = self.archive.holding.map(|holding| holding.held).context("nothing is held")?;
        let mut logs = Vec::new();
        for (segment, extent) in report.held.range(..=cut.map_or(held.position.segment, |cut| cut.segment)) {
            let name = scheme.name(*segment);
            let is_open = *segment == held.position.segment && !held.closed;
            let (hashed, digest, running) = match recorded.get(&name) {
                _ if is_open => (held.position.offset, held.digest, scheme.running()),
                Some(digest) => (u64::MAX, *digest, Running::new()),
                None => return fail(Code::Corrupt, format!("{name} is closed and has no line in {}", site::MANIFEST)),
            };
            let all = if is_open { held.position.offset } else { u64::MAX };
            // At the very end of a segment there is nothing to be cut off.
            let laid =
                cut.filter(|cut| cut.segment == *segment && cut.offset < extent.length).map_or(all, |cut| cut.offset);
            let whole = extent.boundary.map_or(0, |mark| mark.offset).min(laid);
            let (segment, length) = (*segment, extent.length);
            logs.push(Log { segment, name, hashed, digest, running, laid, length, whole });
        }
        Ok(logs)
    }
}

/// What is wrong before the end makes it unreachable; what can be reached is said.
fn refuse_findings(
    report: &Report,
    held: Option<Position>,
    from: Option<Position>,
    end: Option<Position>,
) -> Result<()> {
    // What is wrong with a segment is wrong with all of it; at the end of what is held, only what came behind is not known.
    let place = |finding: &Finding| {
        let place = finding.offset.map(|offset| finding.segment.at(offset));
        place.filter(|place| held.is_some_and(|held| *place >= held)).unwrap_or_else(|| finding.segment.at(0))
    };
    let counts =
        |finding: &&Finding| end.is_none_or(|end| finding.segment <= end.segment && Some(place(finding)) < held);
    let findings: Vec<_> = report.findings.iter().filter(counts).collect();
    let Some(wrong) = findings.iter().map(|finding| place(finding)).min() else {
        return Ok(());
    };
    let named: Vec<_> = findings.iter().take(NAMED).map(|finding| finding.text.as_str()).collect();
    let more = findings.len().saturating_sub(NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let before = report.held.range(..=wrong.segment).rev();
    let reached = before.filter_map(|(segment, held)| Some((segment.at(held.boundary?.offset), held.boundary?.time)));
    let mut reached = reached.filter(|(position, _)| *position <= wrong && position.offset > 0);
    let reached = reached.next().or(from.map(|from| (from, None)));
    let code =
        if findings.iter().any(|finding| finding.kind == verify::Kind::Corrupt) { Code::Corrupt } else { Code::Gap };
    let failure = Failure::new(code, format!("{}{more}", named.join("; ")));
    Err(match reached {
        Some((position, time)) => {
            let time = time.map(|time| format!(", {time}")).unwrap_or_default();
            failure.hint(format!("--until {position} can be reached{time}"))
        }
        None => failure.hint("nothing can be reached: bring back what is missing"),
    }
    .into())
}

/// Where a recovery ends.
struct Aim {
    position: Position,
    time: Option<Time>,
    /// Where the last record before it begins in all of the log.
    last: Option<u64>,
}

/// What the log near a position is.
struct Scanned {
    last: Option<Scanner>,
    boundary: Option<Position>,
    time: Option<Time>,
}

/// Scans a segment up to a byte.
fn scan(
    dir: &Dir,
    scheme: &Scheme,
    segment: Segment,
    limit: u64,
    until: Option<Time>,
    before: Option<&Scanner>,
) -> Result<Scanner> {
    let name = scheme.name(segment);
    let file = dir.open_read(&name)?.with_context(|| format!("{} is gone", dir.shown(&name)))?;
    let mut scanner = scheme.scanner(segment, until);
    if let Some(before) = before {
        scanner.follow(before);
    }
    scanner.written(crate::edge::clock::written(&file.metadata()?));
    let mut buffer = vec![0; 1 << 18];
    while scanner.is_hungry() && scanner.at() < limit {
        let want = (limit - scanner.at()).min(buffer.len() as u64) as usize;
        match read_at(&file, &mut buffer[..want], scanner.at())
            .with_context(|| format!("cannot read {}", dir.shown(&name)))?
        {
            0 => break,
            count => scanner.take(&buffer[..count]),
        }
    }
    Ok(scanner)
}
