//! For Prometheus, by way of its node exporter's textfile collector: each metric with HELP and TYPE, no times, base units. A
//! series that stood there twice would have the whole file refused, so the second one is left out.

use std::collections::BTreeSet;

use super::judge::{self, STATES, State};
use super::nagios;
use super::receiver::Receiver;
use super::sender::{Lag, Link, Sender, Site};
use super::{Part, Report, What};
use crate::value::time::Time;

/// The whole file.
pub fn render(report: &Report) -> String {
    let mut file = File::default();
    place(&mut file, report);
    senders(&mut file, report);
    sites(&mut file, report);
    site_states(&mut file, report);
    receivers(&mut file, report);
    file.0
}

#[derive(Clone, Copy)]
enum Kind {
    Gauge,
    Counter,
}

#[derive(Default)]
struct File(String);

/// A value with its labels, as they are printed.
type Series = (String, f64);

impl File {
    /// Adds a metric, unless nothing is known of it.
    fn add(&mut self, name: &str, kind: Kind, help: &str, series: impl IntoIterator<Item = Series>) {
        let mut seen = BTreeSet::new();
        let series = series.into_iter().filter(|(labels, _)| seen.insert(labels.clone()));
        let lines: String = series.map(|(labels, value)| format!("{name}{{{labels}}} {value}\n")).collect();
        if !lines.is_empty() {
            let kind = match kind {
                Kind::Gauge => "gauge",
                Kind::Counter => "counter",
            };
            self.0 += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}");
        }
    }

    fn gauge(&mut self, name: &str, help: &str, series: impl IntoIterator<Item = Series>) {
        self.add(name, Kind::Gauge, help, series);
    }

    fn counter(&mut self, name: &str, help: &str, series: impl IntoIterator<Item = Series>) {
        self.add(name, Kind::Counter, help, series);
    }
}

/// `a="1",b="2"`; a label without a value is one that is not there.
fn labels(pairs: &[(&str, &str)]) -> String {
    let pairs = pairs.iter().filter(|(_, value)| !value.is_empty());
    let pairs: Vec<_> = pairs.map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
    pairs.join(",")
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn seconds(time: Time) -> f64 {
    time.0 as f64 / 1e6
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

/// The labels of a part: what it is of, and where.
fn own(part: &Part) -> String {
    let asked = part.asked.as_deref().unwrap_or_default();
    match &part.what {
        What::Sender(from) => {
            labels(&[("asked", asked), ("set", &from.set), ("logdir", &from.logdir), ("role", "sender")])
        }
        What::Receiver(to) => labels(&[("asked", asked), ("set", &to.set), ("logdir", &to.dir), ("role", "receiver")]),
        What::Silent(silent) => labels(&[("asked", asked), ("logdir", &silent.name)]),
    }
}

fn of_site(part: &Part, sender: &Sender, site: &Site, state: Option<&str>) -> String {
    let asked = part.asked.as_deref().unwrap_or_default();
    let (set, logdir, state) = (&sender.set, &sender.logdir, state.unwrap_or_default());
    labels(&[("asked", asked), ("set", set), ("logdir", logdir), ("site", site.title()), ("state", state)])
}

/// A value of each part that has it.
fn each(report: &Report, value: impl Fn(&Part) -> Option<f64>) -> Vec<Series> {
    report.parts.iter().filter_map(|part| Some((own(part), value(part)?))).collect()
}

fn each_sender(report: &Report, value: impl Fn(&Sender) -> Option<f64>) -> Vec<Series> {
    each(report, |part| match &part.what {
        What::Sender(sender) => value(sender),
        _ => None,
    })
}

fn each_receiver(report: &Report, value: impl Fn(&Receiver, Time) -> Option<f64>) -> Vec<Series> {
    each(report, |part| match &part.what {
        What::Receiver(receiver) => value(receiver, part.time),
        _ => None,
    })
}

fn each_site(report: &Report, value: impl Fn(&Site, State, Lag) -> Option<f64>) -> Vec<Series> {
    let mut series = Vec::new();
    for part in &report.parts {
        let What::Sender(sender) = &part.what else { continue };
        for site in &sender.sites {
            let state = judge::site(sender, site, part.time, &report.limits).state;
            let lag = judge::lag(sender, site, part.time, &report.limits);
            series.extend(value(site, state, lag).map(|value| (of_site(part, sender, site, None), value)));
        }
    }
    series
}

fn place(file: &mut File, report: &Report) {
    let up = each(report, |part| {
        let state = part.judged(&report.limits).first().map(|judged| judged.state);
        Some(flag(!matches!(state, Some(State::Stale | State::Unknown) | None)))
    });
    file.gauge("repl_up", "Whether a sender or receiver gives news as often as it should (1) or not (0).", up);
    let updated = each(report, |part| match &part.what {
        What::Sender(sender) => sender.updated.map(seconds),
        What::Receiver(receiver) => receiver.session.as_ref()?.updated.map(seconds),
        What::Silent(_) => None,
    });
    file.gauge("repl_status_updated_timestamp_seconds", "When a sender or receiver wrote its status.", updated);
    let alarm = each(report, |part| {
        let loudest = part.judged(&report.limits).into_iter().map(|judged| judged.alarm).max();
        loudest.map(|alarm| f64::from(nagios::exit(alarm)))
    });
    file.gauge("repl_alarm", "The loudest alarm: 0 none, 1 warning, 2 critical, 3 unknown.", alarm);
    let gaps = each(report, |part| match &part.what {
        What::Sender(sender) => Some(sender.dropped.len() as f64),
        What::Receiver(receiver) => Some(receiver.dropped.len() as f64),
        What::Silent(_) => None,
    });
    file.gauge("repl_dropped_gaps", "Gaps of log that was given up and that no new base has covered.", gaps);
    let epoch = each(report, |part| match &part.what {
        What::Sender(sender) => sender.epoch.map(|epoch| epoch as f64),
        What::Receiver(receiver) => Some(receiver.epoch as f64),
        What::Silent(_) => None,
    });
    file.gauge("repl_epoch", "Which master of the set this is, or follows.", epoch);
}

fn senders(file: &mut File, report: &Report) {
    let paused = each_sender(report, |sender| Some(flag(sender.paused.is_some())));
    file.gauge("repl_sender_paused", "Whether shipping was stopped on purpose.", paused);
    let grown = each_sender(report, |sender| sender.grown.map(seconds));
    file.gauge("repl_log_grown_timestamp_seconds", "When the log was last seen to grow.", grown);
    let yes = each_sender(report, |sender| sender.confirmed.map(|count| count as f64));
    file.counter("repl_confirmed_boundaries_total", "Boundaries that met the acknowledgement policy in time.", yes);
    let no = each_sender(report, |sender| sender.unconfirmed.map(|count| count as f64));
    file.counter("repl_unconfirmed_boundaries_total", "Boundaries that did not meet the policy in time.", no);
}

fn sites(file: &mut File, report: &Report) {
    let is_up = |link: Link, state: State| link == Link::Connected && !matches!(state, State::Stale | State::Ended);
    let connected = each_site(report, |site, state, _| Some(flag(is_up(site.link(), state))));
    file.gauge("repl_site_connected", "Whether the link to a site is up.", connected);
    let lag = |pick: fn(&Lag) -> Option<f64>| each_site(report, move |_, _, lag| pick(&lag));
    let seconds_behind = "Age of the oldest byte that a site has not flushed; none while it is not known.";
    file.gauge("repl_site_lag_seconds", seconds_behind, lag(|lag| lag.seconds));
    let bytes = lag(|lag| lag.bytes.map(|bytes| bytes as f64));
    file.gauge("repl_site_lag_bytes", "Bytes of log that a site has not flushed; none while it is not known.", bytes);
    let segments = lag(|lag| lag.segments.map(|segments| segments as f64));
    file.gauge("repl_site_lag_segments", "Segments between a site and the end of the log.", segments);
    let ack = each_site(report, |site, _, _| site.last_ack.map(seconds));
    file.gauge("repl_site_last_ack_timestamp_seconds", "When a site last acknowledged.", ack);
    let reconnects = each_site(report, |site, _, _| Some(site.reconnects as f64));
    file.counter("repl_site_reconnects_total", "How often the link to a site was lost.", reconnects);
}

/// One series for each state, so that a rule can name the one that it waits for.
fn site_states(file: &mut File, report: &Report) {
    let mut series = Vec::new();
    for part in &report.parts {
        let What::Sender(sender) = &part.what else { continue };
        for site in &sender.sites {
            let now = judge::site(sender, site, part.time, &report.limits).state;
            let row = |(state, word): (State, &str)| (of_site(part, sender, site, Some(word)), flag(state == now));
            series.extend(STATES.map(row));
        }
    }
    file.gauge("repl_site_state", "1 for the state that a site is in, 0 for each other one.", series);
}

fn receivers(file: &mut File, report: &Report) {
    let connected = each_receiver(report, |to, now| {
        let is_stale = judge::receiver(to, now, &report.limits).state == State::Stale;
        to.session.as_ref().map(|session| flag(session.connected && !is_stale))
    });
    file.gauge("repl_receiver_connected", "Whether a stream is being received.", connected);
    let heard = each_receiver(report, |to, _| to.session.as_ref()?.heard.map(seconds));
    file.gauge("repl_receiver_heard_timestamp_seconds", "When a receiver last heard of its master.", heard);
    let lag = |to: &Receiver, now| match judge::receiver(to, now, &report.limits).state {
        State::Stale => Lag::default(),
        _ => to.lag(now),
    };
    let behind = each_receiver(report, |to, now| lag(to, now).seconds);
    file.gauge("repl_receiver_lag_seconds", "For how long a receiver has known of log that it does not hold.", behind);
    let bytes = each_receiver(report, |to, now| lag(to, now).bytes.map(|bytes| bytes as f64));
    file.gauge("repl_receiver_lag_bytes", "Bytes of log that a receiver knows of and does not hold.", bytes);
    let until = each_receiver(report, |to, _| to.boundary_time.map(seconds));
    file.gauge("repl_receiver_boundary_timestamp_seconds", "Time of the last transaction that is held.", until);
    let paused = each_receiver(report, |to, _| Some(flag(to.paused_apply.is_some() || to.paused_feed.is_some())));
    file.gauge("repl_receiver_paused", "Whether landing or feeding was stopped on purpose.", paused);
    let failing = each_receiver(report, |to, _| Some(flag(to.session.as_ref()?.feed_error.is_some())));
    file.gauge("repl_receiver_feed_failing", "Whether giving log to the database fails.", failing);
    let unfed = |pick: fn(&Lag) -> Option<u64>| {
        each_receiver(report, move |to, _| to.unfed().as_ref().and_then(pick).map(|count| count as f64))
    };
    file.gauge("repl_receiver_feed_lag_bytes", "Bytes that are held and not fed.", unfed(|lag| lag.bytes));
    let segments = unfed(|lag| lag.segments);
    file.gauge("repl_receiver_feed_lag_segments", "Segments between what is fed and what is held.", segments);
    let aside = each_receiver(report, |to, _| Some(to.aside.len() as f64));
    file.gauge("repl_receiver_set_aside_tails", "Tails of log that were set aside and are still there.", aside);
    let bases = each_receiver(report, |to, _| Some(to.bases.len() as f64));
    file.gauge("repl_bases", "Bases in an archive.", bases);
    let newest = each_receiver(report, |to, _| to.bases.iter().filter_map(|base| base.ended).max().map(seconds));
    file.gauge("repl_base_ended_timestamp_seconds", "When the newest base of an archive was complete.", newest);
}
