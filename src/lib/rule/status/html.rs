//! For a browser: one page that needs nothing else, no script, no other file, no network. Its policy forbids it those, so
//! that no name, however it is written, can bring any in; and every text that is not ours is escaped.

mod chart;
mod history;
mod tables;

use std::time::Duration;

use super::judge::{Alarm, Judged, State, age};
use super::receiver::Receiver;
use super::sender::{Lag, Sender};
use super::table::{applied, behind};
use super::{Part, Report, What};
use crate::value::escape::show;
use crate::value::position::Position;
use crate::value::time::Time;
use crate::value::units::tell_seconds;

/// How it looks.
const STYLE: &str = include_str!("html/style.css");
/// The page may use the style that is in it, and nothing else.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/// The whole page, with so much of the past.
pub fn render(report: &Report, past: Duration) -> String {
    let sections: String = report.parts.iter().map(|part| section(part, report, past)).collect();
    let (title, style) = (escape(&title(report)), STYLE);
    let (banner, history) = (banner(report), history::render(report));
    let time = moment(report.time);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n<link rel=\"icon\" href=\"data:,\"/>\n\
         <title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n\
         <header>\n<h1>Replication</h1>\n<p class=\"meta\">As of {time} UTC. All times are UTC.</p>\n{banner}</header>\n\
         {sections}{history}</main>\n</body>\n</html>\n"
    )
}

/// Text of others, safe between tags and in quotes.
fn escape(text: &str) -> String {
    let mut safe = String::new();
    for ch in show(text).chars() {
        match ch {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            ch => safe.push(ch),
        }
    }
    safe
}

/// The worst first: it is what a tab shows.
fn title(report: &Report) -> String {
    let names: Vec<_> = report.parts.iter().map(Part::title).collect();
    format!("{}: {}", report.alarm().word(), names.join(", "))
}

fn moment(time: Time) -> String {
    format!("<time datetime=\"{time}\">{}</time>", escape(&time.narrate()))
}

fn ago(time: Option<Time>, now: Time) -> Option<String> {
    time.map(|time| format!("{} ago", tell_seconds(age(time, now))))
}

fn place(at: Option<Position>) -> String {
    at.map_or_else(|| "&#8211;".to_owned(), |at| at.to_string())
}

/// A state as a mark with its word, so that it is never told by colour alone.
fn badge(judged: &Judged) -> String {
    format!("<span class=\"state {}\">{}</span>", judged.alarm.word(), judged.state.word())
}

/// What must be read before anything else: who has to do what.
fn banner(report: &Report) -> String {
    let mut told = Vec::new();
    for part in &report.parts {
        let loud: Vec<_> = part.judged(&report.limits).into_iter().zip(names(part)).collect();
        // What a whole sender lacks, each of its sites lacks.
        let whole = loud.first().map(|(judged, _)| judged.state);
        let whole = whole.filter(|state| matches!(state, State::Stale | State::Ended));
        let is_said = |at: usize, judged: &Judged| at > 0 && Some(judged.state) == whole;
        let loud = loud.into_iter().enumerate().filter(|(at, (judged, _))| !is_said(*at, judged));
        let loud = loud.map(|(_, told)| told).filter(|(judged, _)| judged.alarm != Alarm::Ok);
        told.extend(loud.map(|(judged, name)| (judged.alarm, line(&judged, &name))));
    }
    told.sort_by_key(|(alarm, _)| std::cmp::Reverse(*alarm));
    let lines: String = told.into_iter().map(|(_, line)| line).collect();
    match lines.as_str() {
        "" => "<p class=\"banner ok\">All is well.</p>\n".to_owned(),
        lines => format!("<ul class=\"banners\">\n{lines}</ul>\n"),
    }
}

fn line(judged: &Judged, name: &str) -> String {
    let why = if judged.why.is_empty() { String::new() } else { format!(": {}", escape(&judged.why)) };
    let (alarm, state) = (judged.alarm.word(), judged.state.word());
    format!("<li class=\"banner {alarm}\"><strong>{} {state}</strong>{why}</li>\n", escape(name))
}

/// What the verdicts of a part are of, in their order.
fn names(part: &Part) -> Vec<String> {
    let title = part.title();
    match &part.what {
        What::Sender(sender) => {
            let sites = sender.sites.iter().map(|site| format!("{title}, {}", site.title()));
            std::iter::once(title.clone()).chain(sites).collect()
        }
        What::Receiver(_) => vec![format!("{title}, receiver")],
        What::Silent(_) => vec![title],
    }
}

fn section(part: &Part, report: &Report, past: Duration) -> String {
    let judged = part.judged(&report.limits);
    let badge = judged.first().map(badge).unwrap_or_default();
    let (kind, body) = match &part.what {
        What::Sender(sender) => ("sender", about_sender(sender, part, report, past)),
        What::Receiver(receiver) => ("receiver", about_receiver(receiver, part.time)),
        What::Silent(silent) => ("", format!("<p>{}</p>\n", escape(&silent.error))),
    };
    let title = escape(&part.title());
    format!("<section>\n<h2>{title} <span class=\"kind\">{kind}</span> {badge}</h2>\n{body}</section>\n")
}

/// Names with what is known of them; what is not known is left out. Values are safe already.
fn facts(pairs: Vec<(&str, Option<String>)>) -> String {
    let pairs = pairs.into_iter().filter_map(|(name, value)| value.map(|value| (name, value)));
    let rows: String = pairs.map(|(name, value)| format!("<div><dt>{name}</dt><dd>{value}</dd></div>\n")).collect();
    format!("<dl>\n{rows}</dl>\n")
}

fn text(value: &str) -> Option<String> {
    if value.is_empty() { None } else { Some(escape(value)) }
}

fn about_sender(sender: &Sender, part: &Part, report: &Report, past: Duration) -> String {
    let now = part.time;
    let counts = sender.confirmed.map(|yes| format!("{yes} confirmed, {} not", sender.unconfirmed.unwrap_or_default()));
    let facts = facts(vec![
        ("Log", text(&sender.logdir)),
        ("Engine", text(&sender.engine)),
        ("This site", text(&sender.site)),
        ("Log ends at", Some(place(sender.end))),
        ("Last grew", ago(sender.grown, now)),
        ("Epoch", sender.epoch.map(|epoch| epoch.to_string())),
        ("Policy", sender.policy.as_deref().map(escape)),
        ("Boundaries", counts),
        ("Status written", ago(sender.updated, now)),
        ("Started", sender.started.map(moment)),
    ]);
    let charts: String =
        sender.sites.iter().map(|site| chart::render(part, site.title(), &report.limits, past)).collect();
    facts + &tables::sites(sender, now, &report.limits) + &charts
}

fn about_receiver(receiver: &Receiver, now: Time) -> String {
    let session = receiver.session.as_ref();
    let lag = receiver.lag(now);
    let behind = (lag != Lag::default()).then(|| match lag.bytes {
        Some(0) => "nothing".to_owned(),
        _ => escape(&behind(lag)),
    });
    let facts = facts(vec![
        ("Directory", text(&receiver.dir).or_else(|| text(&receiver.state_dir))),
        ("Engine", text(&receiver.engine)),
        ("Holds", Some(place(receiver.held))),
        ("Begins at", receiver.begins.map(|at| at.to_string())),
        ("Applied", applied(receiver)),
        ("Up to date until", receiver.boundary_time.map(moment)),
        ("Master's end", session.and_then(|session| session.master_end).map(|at| at.to_string())),
        ("Master heard", session.and_then(|session| ago(session.heard, now))),
        ("Behind", behind),
        ("Epoch", Some(receiver.epoch.to_string())),
        ("Set aside", text(&receiver.aside.join(", "))),
    ]);
    facts + &tables::bases(receiver, now)
}
