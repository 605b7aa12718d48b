//! What was done: stops, starts, promotions, pauses, with their reasons, newest first.

use super::{escape, moment};
use crate::rule::status::past::Event;
use crate::rule::status::{Part, Report};

/// So many of the newest are shown.
const MOST: usize = 200;

/// Of all parts together: one story.
pub(super) fn render(report: &Report) -> String {
    let of = |part: &Part| {
        let title = part.title();
        part.events.iter().map(move |event| (event.clone(), title.clone())).collect::<Vec<_>>()
    };
    let mut events: Vec<(Event, String)> = report.parts.iter().flat_map(of).collect();
    events.sort_by_key(|(event, _)| std::cmp::Reverse(event.time));
    // A directory may be looked at twice, as a master's and as a state's.
    events.dedup();
    let more = events.len().saturating_sub(MOST);
    let has_several = report.parts.len() > 1;
    let lines: String = events.iter().take(MOST).map(|(event, of)| line(event, has_several.then_some(of))).collect();
    if lines.is_empty() {
        return String::new();
    }
    let rest =
        if more > 0 { format!("<p class=\"meta\">{more} earlier ones are not shown.</p>\n") } else { String::new() };
    format!("<section>\n<h2>History</h2>\n<ol class=\"history\">\n{lines}</ol>\n{rest}</section>\n")
}

fn line(event: &Event, of: Option<&String>) -> String {
    let of = of.map(|of| format!(" <span class=\"kind\">{}</span>", escape(of))).unwrap_or_default();
    let reason = event.reason.as_ref().map(|reason| format!("<q>{}</q>", escape(reason))).unwrap_or_default();
    let (time, what, detail) = (moment(event.time), escape(&event.what), escape(&event.detail));
    format!("<li>{time}<div><strong>{what}</strong>{of}<p>{detail}</p>{reason}</div></li>\n")
}
