//! All receivers of one sender: each has a thread of its own and goes at its own pace, and what happens to one is nothing
//! to the others. This thread starts and ends them, counts what is confirmed, and keeps the status.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver as Inbox, Sender as Outbox, channel};
use std::sync::{Arc, OnceLock};
use std::thread::Scope;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::berth::Berth;
use super::board::{Board, Facts, Id, Link};
use super::ledger::Ledger;
use super::orders::Orders;
use super::release::Releasing;
use super::status::Status;
use super::tap::Tap;
use super::wait::Desk;
use super::{Calls, Options, Receiver};
use crate::edge::dir::Dir;
use crate::engine::note::{Monitor, Note, Trouble};
use crate::engine::role;
use crate::engine::role::pause::{Direction, Paused};
use crate::rule::quorum::{Level, Policy};
use crate::value::exit::{Code, Failure, code_of, hint_of};
use crate::value::position::Position;

/// Longest between two looks at what is to be done.
const TICK: Duration = Duration::from_secs(1);

/// Where all lanes end, with `-S`.
#[derive(Default)]
pub(super) struct Goal {
    /// Where the log ended when the first lane was there.
    pub(super) end: OnceLock<Position>,
    /// The last byte before that, which is what a receiver can acknowledge.
    pub(super) last: OnceLock<Position>,
}

/// What the fleet works with.
pub(super) struct Fleet<'a> {
    pub(super) dir: &'a Dir,
    pub(super) options: &'a Options,
    pub(super) ledger: &'a Ledger,
    pub(super) board: &'a Arc<Board>,
    pub(super) tap: &'a Tap,
    pub(super) goal: &'a Goal,
    pub(super) desk: &'a Desk<'a>,
    pub(super) releasing: Option<&'a Releasing>,
    /// Where it is written that shipping is paused.
    pub(super) state: Option<&'a Dir>,
    pub(super) calls: &'a Calls<'a>,
    pub(super) monitor: &'a Monitor,
}

/// The lanes that are at work, and how others have ended.
#[derive(Default)]
struct Crew {
    working: BTreeMap<Id, Working>,
    ended: Vec<(String, anyhow::Error)>,
    /// All receivers, to be started after a pause; `None` for one that cannot be.
    plan: Vec<Option<Receiver>>,
    /// Why nothing is shipped.
    paused: Option<Paused>,
    /// Why nothing can be shipped any more.
    verdict: Option<anyhow::Error>,
    /// How many there were in all: of one alone no name needs to be told.
    count: usize,
    /// Since when the policy is met, with `-S`.
    met: Option<Instant>,
    is_failing: bool,
    turns: u64,
    looked: Option<Instant>,
    asked: Option<Instant>,
}

struct Working {
    name: String,
    key: String,
    orders: Arc<Orders>,
}

impl<'a> Fleet<'a> {
    /// Ships to all until each has ended.
    pub(super) fn run(&self, receivers: Vec<Receiver>, status: &mut Option<Status>) -> Result<()> {
        let (told, ends) = channel();
        let plan: Vec<_> = receivers.iter().map(Receiver::again).collect();
        let mut crew = Crew { count: receivers.len(), plan, ..Crew::default() };
        std::thread::scope(|scope| {
            self.stand(scope, &mut crew, status, &told);
            if crew.paused.is_none() {
                self.launch_all(scope, &mut crew, receivers, status.as_ref(), &told);
            }
            loop {
                self.hear(&mut crew, &ends);
                self.stand(scope, &mut crew, status, &told);
                self.tend(&mut crew, status);
                if crew.working.is_empty() && (crew.paused.is_none() || !self.can_wait(&crew)) {
                    return;
                }
                if self.calls.reload.as_ref().is_some_and(|(wish, _)| wish.take()) {
                    self.reload(scope, &mut crew, status.as_ref(), &told);
                }
                self.calls.bell.wait_until(Instant::now() + TICK.min(self.options.heartbeat));
            }
        });
        self.judge(crew)
    }

    fn launch_all<'scope>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        crew: &mut Crew,
        receivers: Vec<Receiver>,
        status: Option<&Status>,
        told: &Outbox<(Id, Result<()>)>,
    ) where
        'a: 'scope,
    {
        for receiver in receivers {
            self.launch(scope, crew, receiver, status, told);
        }
    }

    /// Whether shipping is paused; what cannot be read is no word.
    fn paused(&self) -> Option<Paused> {
        let read = |state| role::paused(state, Direction::Ship);
        match self.state.map(read).transpose() {
            Ok(paused) => paused.flatten(),
            Err(error) => {
                (self.monitor)(Note::Warning(format!("{error:#}")));
                Some(Paused { since: "nobody knows when".into(), reason: String::new() })
            }
        }
    }

    /// Whether a pause can be waited out: nobody ends it, and all receivers can be started again.
    fn can_wait(&self, crew: &Crew) -> bool {
        !self.calls.stop.is_asked() && crew.verdict.is_none() && crew.plan.iter().all(Option::is_some)
    }

    /// Ends all lanes when shipping is paused, and starts them when it goes on.
    fn stand<'scope>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        crew: &mut Crew,
        status: &mut Option<Status>,
        told: &Outbox<(Id, Result<()>)>,
    ) where
        'a: 'scope,
    {
        let now = self.paused();
        if let Some(status) = status {
            status.pause(now.as_ref());
        }
        match (&now, crew.paused.is_some()) {
            (Some(paused), false) => {
                let text = paused.refusal(Code::Guarded, Direction::Ship, self.dir);
                (self.monitor)(Note::Warning(text.to_string()));
                crew.working.values().for_each(|working| working.orders.retire());
                crew.paused = now;
            }
            // Those that still take their leave come first.
            (None, true) if crew.working.is_empty() && !self.calls.stop.is_asked() => {
                crew.paused = None;
                crew.ended.clear();
                self.board.forget_ended();
                let receivers = crew.plan.iter().flatten().filter_map(Receiver::again).collect();
                self.launch_all(scope, crew, receivers, status.as_ref(), told);
            }
            _ => {}
        }
    }

    fn launch<'scope>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        crew: &mut Crew,
        receiver: Receiver,
        status: Option<&Status>,
        told: &Outbox<(Id, Result<()>)>,
    ) where
        'a: 'scope,
    {
        let id = self.board.add(&receiver, status.and_then(|status| status.proven(&receiver.shown)));
        let orders = Arc::new(Orders::new(&self.calls.bell, self.calls.stop));
        let (name, key) = (receiver.name.clone(), receiver.key());
        crew.working.insert(id, Working { name: name.clone(), key, orders: Arc::clone(&orders) });
        let monitor = if crew.count > 1 { of_site(self.monitor, name) } else { Arc::clone(self.monitor) };
        let Fleet { dir, options, ledger, board, tap, goal, releasing, .. } = *self;
        let (told, bell) = (told.clone(), self.calls.bell.clone());
        scope.spawn(move || {
            let (orders, monitor) = (&*orders, &monitor);
            let tap = (!options.once).then_some(tap);
            let berth = Berth { dir, options, ledger, board, id, tap, goal, releasing, orders, monitor };
            let shipped = berth.ship_to(receiver.to);
            // Whoever is to hear it outlives this thread.
            let _ = told.send((id, shipped));
            bell.ring();
        });
    }

    /// Takes up which lanes have ended, and how.
    fn hear(&self, crew: &mut Crew, ends: &Inbox<(Id, Result<()>)>) {
        while let Ok((id, shipped)) = ends.try_recv() {
            let Some(working) = crew.working.remove(&id) else {
                continue;
            };
            let Err(error) = shipped else {
                self.board.lost(id, Link::Done, None);
                continue;
            };
            let code = code_of(&error);
            let is_over = !self.options.once && code.is_transient();
            let link = if is_over { Link::Done } else { Link::Refused };
            self.board.lost(id, link, Some((code, format!("{error:#}"))));
            // While it follows, a link is given up only because the end was asked for.
            if is_over && crew.count > 1 {
                continue;
            }
            if crew.count > 1 {
                let next = "this site is given up, the others go on".to_owned();
                of_site(self.monitor, working.name.clone())(Note::trouble(&error, next));
            }
            crew.ended.push((working.name, error));
        }
    }

    /// What is to be done now and then.
    fn tend(&self, crew: &mut Crew, status: &mut Option<Status>) {
        (self.monitor)(Note::Alive);
        if self.calls.look.take() {
            crew.working.values().for_each(|working| working.orders.kick());
        }
        self.count(crew);
        self.let_go(crew);
        self.ask_role(crew);
        let is_heard = crew.looked.is_none_or(|looked| looked.elapsed() >= TICK.min(self.options.heartbeat));
        let turns = self.board.look(|facts| facts.turns);
        let is_turn = std::mem::replace(&mut crew.turns, turns) != turns;
        if let Some(status) = status.as_mut().filter(|_| is_turn || is_heard || crew.working.is_empty()) {
            if crew.looked.replace(Instant::now()).is_some() {
                self.find_end();
            }
            status.write(self.dir, self.board, is_turn || crew.working.is_empty());
        }
    }

    /// Ends all when this site is not any more what it was when it began to ship: of another epoch, another instance, or a
    /// receiver. What is said in the greeting of a stream holds for all of it.
    fn ask_role(&self, crew: &mut Crew) {
        let is_due = crew.asked.is_none_or(|asked| asked.elapsed() >= self.options.heartbeat);
        let Some(state) = self.state.filter(|_| is_due && crew.verdict.is_none()) else {
            return;
        };
        crew.asked = Some(Instant::now());
        let (epoch, instance) = (self.options.epoch, &self.options.instance);
        crew.verdict = match role::sender(self.dir, &self.options.scheme, Some(state)) {
            Ok(now) if now.epoch == epoch && now.instance == *instance => None,
            Ok(now) => {
                let text =
                    format!("this site was of epoch {epoch} and is of epoch {} now, or another instance", now.epoch);
                Some(Failure::new(Code::Failed, text).hint("start repl-ship again").into())
            }
            Err(error) if code_of(&error) == Code::Fenced => Some(error),
            // What cannot be read now was read when it began.
            Err(_) => None,
        };
        if crew.verdict.is_some() {
            crew.working.values().for_each(|working| working.orders.retire());
        }
    }

    /// While no receiver is connected no lane sees the log grow; how far they are behind, and that nothing is confirmed,
    /// must be known all the same.
    fn find_end(&self) {
        let is_seen = self.board.look(|facts| facts.sites.values().any(|site| site.link == Link::Connected));
        if is_seen || self.options.once {
            return;
        }
        // What cannot be read is the lanes' to report.
        if let Ok(Some((end, boundary))) = self.desk.look() {
            self.board.reached(Some(end));
            // It waits to be confirmed, though nobody is there.
            boundary.inspect(|boundary| self.board.mark(*boundary));
        }
    }

    /// Counts boundaries that were not confirmed in time, and says so when that begins and when it is over.
    fn count(&self, crew: &mut Crew) {
        let (policy, patience) = (self.options.ack, self.options.ack_timeout.as_secs_f64());
        if let Some(first) = self.board.expire() {
            if !std::mem::replace(&mut crew.is_failing, true) {
                let text = format!("{first} is not confirmed by {policy} within {patience} s");
                let error = Failure::new(Code::Unconfirmed, text).into();
                (self.monitor)(Note::trouble(&error, "shipping goes on".into()));
            }
        } else if crew.is_failing && self.board.look(Facts::is_confirmed) {
            crew.is_failing = false;
            (self.monitor)(Note::Warning(format!("all is confirmed by {policy} again")));
        }
    }

    /// With `-S` and several receivers: once the policy is met, nobody waits for one that cannot be reached, nor longer
    /// than an acknowledgement may take for one that is on its way.
    fn let_go(&self, crew: &mut Crew) {
        if !self.options.once || crew.count < 2 || !self.is_met() {
            return;
        }
        let since = *crew.met.get_or_insert_with(Instant::now);
        for (id, working) in &crew.working {
            let is_away = self.board.look(|facts| facts.sites.get(id).is_some_and(|site| site.link == Link::Retrying));
            if is_away || since.elapsed() >= self.options.ack_timeout {
                working.orders.abandon();
            }
        }
    }

    /// Whether what was to be shipped is acknowledged as the policy asks.
    fn is_met(&self) -> bool {
        let confirmed = self.board.look(|facts| facts.confirmed(self.options.ack, Level::Flushed));
        self.options.ack != Policy::None && self.goal.last.get().is_some_and(|last| confirmed.has(*last))
    }

    /// Takes up the sites as they are configured now.
    fn reload<'scope>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        crew: &mut Crew,
        status: Option<&Status>,
        told: &Outbox<(Id, Result<()>)>,
    ) where
        'a: 'scope,
    {
        let Some((_, read)) = &self.calls.reload else {
            return;
        };
        let receivers = match read() {
            Ok(receivers) => receivers,
            Err(error) => {
                return (self.monitor)(Note::Warning(format!("{error:#}; the sites stay as they are")));
            }
        };
        let is_wanted = |working: &Working| receivers.iter().any(|receiver| receiver.key() == working.key);
        for (id, working) in &mut crew.working {
            if !is_wanted(working) {
                working.orders.retire();
                // One of the same name may come back before it has ended.
                working.key.clear();
                self.board.remove(*id);
            }
        }
        crew.ended.clear();
        crew.plan = receivers.iter().map(Receiver::again).collect();
        if crew.paused.is_some() {
            return;
        }
        crew.count = crew.count.max(receivers.len());
        self.board.forget_ended();
        for receiver in receivers {
            if !crew.working.values().any(|working| working.key == receiver.key()) {
                self.launch(scope, crew, receiver, status, told);
            }
        }
        (self.monitor)(Note::Detail("the sites were read again".into()));
    }

    /// How all of it has ended.
    fn judge(&self, crew: Crew) -> Result<()> {
        let Crew { mut ended, count, paused, verdict, .. } = crew;
        if let Some(error) = verdict {
            return Err(error);
        }
        if let Some(paused) = paused.filter(|_| ended.is_empty() && !self.calls.stop.is_asked()) {
            return Err(paused.refusal(Code::Guarded, Direction::Ship, self.dir).into());
        }
        if ended.is_empty() || (self.options.once && count > 1 && self.is_met()) {
            return Ok(());
        }
        // What an operator has to look at comes before what may be better next time.
        ended.sort_by_key(|(_, error)| (code_of(error).is_transient(), code_of(error) == Code::Unconfirmed));
        let failed = ended.len();
        let (name, error) = ended.swap_remove(0);
        if count == 1 {
            return Err(error);
        }
        let text = format!("{name}: {error:#} ({failed} of {count} sites failed)");
        Err(Failure::told(code_of(&error), text, hint_of(&error).unwrap_or_default().to_owned()).into())
    }
}

/// Says of which site it is.
fn of_site(monitor: &Monitor, name: String) -> Monitor {
    let monitor = Arc::clone(monitor);
    Arc::new(move |note| match note {
        Note::Ready | Note::Alive => (monitor)(note),
        // One bar cannot show the way of many.
        Note::Progress { .. } => {}
        Note::Trouble(trouble) => (monitor)(Note::Trouble(Trouble { site: Some(name.clone()), ..trouble })),
        note => (monitor)(Note::Of(name.clone(), Box::new(note))),
    })
}
