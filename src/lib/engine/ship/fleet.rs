//! All receivers of one sender: each has a thread of its own and goes at its own pace, and what happens to one is nothing
//! to the others. This thread starts and ends them, counts what is confirmed, and keeps the status.

mod crew;

use std::sync::mpsc::{Receiver as Inbox, Sender as Outbox, channel};
use std::sync::{Arc, OnceLock};
use std::thread::Scope;
use std::time::{Duration, Instant};

use anyhow::Result;

use self::crew::{Crew, Post, Working};
use super::berth::Berth;
use super::board::{Board, Facts, Id, Link};
use super::ledger::Ledger;
use super::orders::Orders;
use super::release::Releasing;
use super::status::{Site, Status};
use super::tap::Tap;
use super::wait::Desk;
use super::{Calls, Options, Receiver};
use crate::edge::bell::Bell;
use crate::edge::dir::Dir;
use crate::engine::note::{Monitor, Note, Trouble};
use crate::engine::role;
use crate::engine::role::pause::{Direction, Paused};
use crate::rule::quorum::Policy;
use crate::value::exit::{Code, Failure, code_of, fail, hint_of};
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
    /// Rung by signals, too, and by changes in the log's directory.
    pub(super) news: &'a Bell,
    pub(super) monitor: &'a Monitor,
}

impl<'a> Fleet<'a> {
    /// All receivers, none of which has begun. Whoever is asked of them must know them first.
    pub(super) fn gather(&self, receivers: Vec<Receiver>, status: &mut Option<Status>) -> Crew {
        let mut crew = Crew::default();
        if let Some(status) = status {
            self.part(status, &receivers);
        }
        self.enlist(&mut crew, &[], receivers, status.as_ref());
        if let Some(status) = status {
            self.meet(status, &[]);
        }
        crew
    }

    /// Ships to all until each has ended.
    pub(super) fn run(&self, mut crew: Crew, status: &mut Option<Status>) -> Result<()> {
        let (told, ends) = channel();
        std::thread::scope(|scope| {
            loop {
                self.hear(&mut crew, &ends);
                self.stand(&mut crew, status.as_mut());
                self.muster(scope, &mut crew, &told);
                self.tend(&mut crew, status.as_mut());
                if crew.is_done() && (crew.paused.is_none() || !self.can_wait(&crew)) {
                    break;
                }
                if self.calls.reload.as_ref().is_some_and(|(wish, _)| wish.take()) {
                    self.reload(&mut crew, status.as_mut());
                }
                self.calls.bell.wait_until(Instant::now() + TICK.min(self.options.heartbeat));
            }
        });
        if let Some(status) = status {
            status.write(self.dir, self.board, true);
        }
        self.judge(crew)
    }

    /// What receivers of earlier runs have is kept in mind before the status tells of those of this one.
    fn part(&self, status: &Status, receivers: &[Receiver]) {
        let earlier = status.part(receivers).unwrap_or_else(|error| {
            (self.monitor)(Note::Warning(format!("{error:#}; log that earlier receivers need may be given up")));
            Vec::new()
        });
        for Site { receiver, proven, last_ack, .. } in earlier {
            let at = proven.map(|proven| proven.to_string()).unwrap_or_default();
            let when = last_ack.unwrap_or_else(|| "nobody knows when".to_owned());
            let text = format!(
                "'{receiver}' of an earlier run has log up to {at} (last heard of {when}), and the rest is kept for it; repl-prune --forget lets it go"
            );
            // Where nothing is given up here, whoever does so says for whom it stays.
            (self.monitor)(if self.releasing.is_some() { Note::Warning(text) } else { Note::Detail(text) });
        }
    }

    /// The status tells of those that are shipped to now, so they are none of earlier runs; `gone` were let go.
    fn meet(&self, status: &mut Status, gone: &[String]) {
        status.write(self.dir, self.board, true);
        let here = self.board.look(|facts| facts.sites.values().map(|site| site.receiver.clone()).collect::<Vec<_>>());
        if let Err(error) = status.forget(here.iter().chain(gone)) {
            (self.monitor)(Note::Warning(format!("{error:#}; log is kept for receivers that were let go")));
        }
    }

    /// Receivers leave and others join, at once.
    fn enlist(&self, crew: &mut Crew, gone: &[Id], come: Vec<Receiver>, status: Option<&Status>) {
        let known = |receiver: &Receiver| status.and_then(|status| status.proven(&receiver.shown));
        let joining: Vec<_> = come.iter().map(|receiver| (receiver, known(receiver))).collect();
        let ids = self.board.change(gone, &joining);
        crew.posts.extend(ids.into_iter().zip(come.into_iter().map(Post::new)));
        crew.count = crew.count.max(crew.posts.len());
    }

    /// Begins with those that are to begin and may.
    fn muster<'scope>(&self, scope: &'scope Scope<'scope, '_>, crew: &mut Crew, told: &Outbox<(Id, Result<()>)>)
    where
        'a: 'scope,
    {
        if crew.verdict.is_some() || (crew.paused.is_some() && !self.can_wait(crew)) {
            crew.posts.values_mut().for_each(|post| post.next = None);
        }
        while crew.paused.is_none()
            && let Some((id, receiver)) = crew.next()
        {
            self.launch(scope, crew, id, receiver, told);
        }
    }

    /// Whether shipping is paused; what cannot be read is no word to go on.
    fn paused(&self) -> Option<Paused> {
        let read = |state| role::paused(state, Direction::Ship);
        match self.state.map(read).transpose() {
            Ok(paused) => paused.flatten(),
            Err(error) => Some(Paused { since: "nobody knows when".into(), reason: format!("{error:#}") }),
        }
    }

    /// Whether a pause can be waited out.
    fn can_wait(&self, crew: &Crew) -> bool {
        !self.calls.stop.is_asked() && crew.verdict.is_none() && crew.can_begin_again()
    }

    /// Calls all lanes off when shipping is paused, and begins again when it goes on.
    fn stand(&self, crew: &mut Crew, status: Option<&mut Status>) {
        let now = self.paused();
        if let Some(status) = status {
            status.pause(now.as_ref());
        }
        match (&now, crew.paused.is_some()) {
            (Some(paused), false) => {
                let text = paused.refusal(Code::Guarded, Direction::Ship, self.dir);
                (self.monitor)(Note::Warning(text.to_string()));
                crew.retire();
                crew.paused = now;
            }
            (None, true) => {
                crew.paused = None;
                crew.ended.clear();
                crew.posts.values_mut().for_each(Post::renew);
            }
            _ => {}
        }
    }

    fn launch<'scope>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        crew: &mut Crew,
        id: Id,
        receiver: Receiver,
        told: &Outbox<(Id, Result<()>)>,
    ) where
        'a: 'scope,
    {
        let orders = Arc::new(Orders::new(self.news, self.calls.stop));
        let name = receiver.name.clone();
        crew.working.insert(id, Working { name: name.clone(), orders: Arc::clone(&orders), is_off: false });
        self.board.lost(id, Link::Connecting, None);
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
            let Some(lane) = crew.working.remove(&id) else {
                continue;
            };
            let Err(error) = shipped else {
                self.board.lost(id, Link::Done, None);
                continue;
            };
            let code = code_of(&error);
            // While it follows, a link is given up only because the lane was called off, or all are to end.
            let is_over = !self.options.once && code.is_transient();
            let link = if is_over { Link::Done } else { Link::Refused };
            self.board.lost(id, link, Some((code, format!("{error:#}"))));
            if lane.is_off || (is_over && crew.paused.is_some()) {
                (self.monitor)(Note::Detail(format!("{}: {error:#}", lane.name)));
                continue;
            }
            if crew.count > 1 {
                let next = "this site is given up, the others go on".to_owned();
                of_site(self.monitor, lane.name.clone())(Note::trouble(&error, next));
            }
            crew.ended.push((lane.name, error));
        }
    }

    /// What is to be done now and then.
    fn tend(&self, crew: &mut Crew, status: Option<&mut Status>) {
        (self.monitor)(Note::Alive);
        if self.calls.look.take() {
            crew.working.values().for_each(|lane| lane.orders.kick());
        }
        self.count(crew);
        self.let_go(crew);
        self.ask_role(crew);
        let is_due = crew.looked.is_none_or(|looked| looked.elapsed() >= TICK.min(self.options.heartbeat));
        let turns = self.board.look(|facts| facts.turns);
        let is_turn = std::mem::replace(&mut crew.turns, turns) != turns;
        if let Some(status) = status.filter(|_| is_turn || is_due) {
            if is_due && crew.looked.replace(Instant::now()).is_some() {
                self.find_end();
            }
            status.write(self.dir, self.board, is_turn);
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
            crew.retire();
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
        if let Ok(Some(gauge)) = self.desk.look() {
            self.board.reached(Some(gauge.end));
            // It waits to be confirmed, though nobody is there.
            gauge.boundary.inspect(|boundary| self.board.mark(*boundary));
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

    /// At the end, with several receivers: once the policy is met, nobody waits for one that cannot be reached, nor longer
    /// than an acknowledgement may take for one that is on its way.
    fn let_go(&self, crew: &mut Crew) {
        if !self.is_ending() || crew.count < 2 || !self.is_met() {
            return;
        }
        let since = *crew.met.get_or_insert_with(Instant::now);
        for (id, lane) in &crew.working {
            let is_away = self.board.look(|facts| facts.sites.get(id).is_some_and(|site| site.link == Link::Retrying));
            if is_away || since.elapsed() >= self.options.ack_timeout {
                lane.orders.abandon();
            }
        }
    }

    fn is_ending(&self) -> bool {
        self.options.once || self.calls.stop.is_asked()
    }

    /// Whether what was to be shipped is acknowledged as the policy asks.
    fn is_met(&self) -> bool {
        let (policy, last) = (self.options.ack, self.goal.last.get().copied());
        policy != Policy::None && self.board.look(|facts| facts.is_met(policy, last))
    }

    /// Takes up the sites as they are configured now: those that have not changed are left alone, and those that had
    /// ended begin again.
    fn reload(&self, crew: &mut Crew, status: Option<&mut Status>) {
        let Some((_, read)) = &self.calls.reload else {
            return;
        };
        let mut receivers = match read() {
            Ok(receivers) => receivers,
            Err(error) => {
                return (self.monitor)(Note::Warning(format!("{error:#}; the sites stay as they are")));
            }
        };
        let keys: Vec<_> = receivers.iter().map(Receiver::key).collect();
        let gone: Vec<Id> =
            crew.posts.iter().filter(|(_, post)| !keys.contains(&post.key)).map(|(id, _)| *id).collect();
        for id in &gone {
            crew.posts.remove(id);
            if let Some(lane) = crew.working.get_mut(id) {
                lane.is_off = true;
                lane.orders.retire();
            }
        }
        for (id, post) in &mut crew.posts {
            if !crew.working.contains_key(id) {
                post.renew();
            }
        }
        receivers.retain(|receiver| crew.posts.values().all(|post| post.key != receiver.key()));
        crew.ended.clear();
        let left = |facts: &Facts| gone.iter().filter_map(|id| Some(facts.sites.get(id)?.receiver.clone())).collect();
        let left: Vec<_> = self.board.look(left);
        self.enlist(crew, &gone, receivers, status.as_deref());
        if let Some(status) = status {
            self.meet(status, &left);
        }
        (self.monitor)(Note::Detail("the sites were read again".into()));
    }

    /// How all of it has ended.
    fn judge(&self, crew: Crew) -> Result<()> {
        // Of a pass to receivers that have a way back, 0 says that the policy is met.
        let is_bound = self.options.once && crew.can_begin_again();
        let Crew { mut ended, count, paused, verdict, .. } = crew;
        if let Some(error) = verdict {
            return Err(error);
        }
        if let Some(paused) = paused.filter(|_| ended.is_empty() && !self.calls.stop.is_asked()) {
            return Err(paused.refusal(Code::Guarded, Direction::Ship, self.dir).into());
        }
        let never = || self.board.look(|facts| facts.never(self.options.ack));
        if ended.is_empty()
            && is_bound
            && let Some(why) = never()
        {
            return fail(Code::Unconfirmed, why);
        }
        let needs_person =
            |error: &anyhow::Error| !code_of(error).is_transient() && code_of(error) != Code::Unconfirmed;
        let is_excused = self.options.once || !ended.iter().any(|(_, error)| needs_person(error));
        if ended.is_empty() || (self.is_ending() && count > 1 && is_excused && self.is_met()) {
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
