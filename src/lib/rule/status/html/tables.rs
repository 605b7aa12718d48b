//! Tables of sites and bases. On a narrow screen each row becomes a block, its cells with their headings beside them.

use super::{ago, badge, escape, place};
use crate::rule::status::judge::{self, Limits, State};
use crate::rule::status::receiver::{Base, Receiver};
use crate::rule::status::sender::{Lag, Sender, Site};
use crate::rule::status::table::behind;
use crate::value::time::Time;
use crate::value::units::tell_size;

/// The sites of a sender.
pub(super) fn sites(sender: &Sender, now: Time, limits: &Limits) -> String {
    let rows = sender.sites.iter().map(|site| row(sender, site, now, limits));
    table(&["Site", "State", "Flushed", "Behind", "Last ack", "Lost", "Why"], rows.collect())
}

fn row(sender: &Sender, site: &Site, now: Time, limits: &Limits) -> Vec<String> {
    let judged = judge::site(sender, site, now, limits);
    // What a dead sender has said of lag is no longer so.
    let lag = match judge::lag(sender, site, now, limits) {
        Lag { bytes: Some(0), .. } => "nothing".to_owned(),
        lag => behind(lag),
    };
    // It stands beside it already.
    let why = if judged.state == State::Lagging { "" } else { &judged.why };
    let ack = ago(site.last_ack, now).unwrap_or_else(|| place(None));
    let lost = site.reconnects.to_string();
    vec![escape(site.title()), badge(&judged), place(site.proven), escape(&lag), ack, lost, escape(why)]
}

/// The bases of an archive, newest first.
pub(super) fn bases(receiver: &Receiver, now: Time) -> String {
    let row = |base: &Base| {
        let ended = ago(base.ended, now).unwrap_or_else(|| place(None));
        vec![escape(&base.name), ended, tell_size(base.bytes), place(base.position)]
    };
    table(&["Base", "Complete", "Size", "Needs log from"], receiver.bases.iter().rev().map(row).collect())
}

/// Nothing for no rows. Cells are safe already; empty ones are left out where each has its own line.
fn table(heads: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let head: String = heads.iter().map(|head| format!("<th scope=\"col\">{head}</th>")).collect();
    let cell = |(head, cell): (&&str, &String)| {
        let empty = if cell.is_empty() { " class=\"empty\"" } else { "" };
        format!("<td data-label=\"{head}\"{empty}>{cell}</td>")
    };
    let line = |row: &Vec<String>| format!("<tr>{}</tr>\n", heads.iter().zip(row).map(cell).collect::<String>());
    let body: String = rows.iter().map(line).collect();
    format!("<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n")
}
