//! How far a site was behind, as a drawing in the page. The drawing is stretched to the width of the screen; its words
//! stand around it as text, so that they stay as large as all other text.

use std::time::Duration;

use super::escape;
use crate::rule::status::Part;
use crate::rule::status::judge::Limits;
use crate::rule::status::past::{Level, course};
use crate::value::time::Time;
use crate::value::units::tell_seconds;

/// Most stretches of time that are drawn.
const STRETCHES: u64 = 288;
/// A sender leaves a word each minute: so many seconds have one, if it ran.
const STRETCH: u64 = 120;
/// Height in units of the drawing.
const HEIGHT: f64 = 100.0;
/// What the top of the scale may be, in seconds; above it days.
const TOPS: [f64; 18] = [
    1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 10_800.0, 21_600.0,
    43_200.0, 86_400.0,
];

/// The figure of one site.
pub(super) fn render(part: &Part, site: &str, limits: &Limits, past: Duration) -> String {
    let from = Time(part.time.0.saturating_sub(i64::try_from(past.as_micros()).unwrap_or(i64::MAX)));
    let stretches = (past.as_secs() / STRETCH).clamp(1, STRETCHES) as usize;
    let levels = course(&part.samples, site, from, part.time, stretches);
    let past = tell_seconds(past.as_secs_f64());
    let most = levels.iter().filter_map(seconds).reduce(f64::max);
    let name = escape(site);
    let Some(most) = most else {
        return format!("<p class=\"meta none\">No lag of {name} is recorded for the last {past}.</p>\n");
    };
    let top = top(most);
    let (drawing, words) = (drawing(&levels, top, limits), words(&levels));
    let caption = format!("Lag of <strong>{name}</strong>, last {past}: {} at most", tell_seconds(most));
    let scale = format!("<span>{}</span><span>{}</span><span>0</span>", tell_seconds(top), tell_seconds(top / 2.0));
    let label = format!("lag of {name} in seconds, {} at most", tell_seconds(most));
    format!(
        "<figure>\n<figcaption>{caption}{words}</figcaption>\n<div class=\"plot\">\n<div class=\"y\">{scale}</div>\n\
         <svg viewBox=\"0 0 {stretches} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{label}\">\n{drawing}</svg>\n\
         <div class=\"x\"><span>{}</span><span>{}</span></div>\n</div>\n</figure>\n",
        minute(from),
        minute(part.time)
    )
}

/// A time without its seconds: two of them stand side by side on a phone.
fn minute(time: Time) -> String {
    let text = time.narrate();
    format!("<time datetime=\"{time}\">{}</time>", escape(text.get(..16).unwrap_or(&text)))
}

fn seconds(level: &Level) -> Option<f64> {
    match level {
        Level::Seconds(seconds) => Some(*seconds),
        Level::Silent | Level::Unknown => None,
    }
}

/// The end of the scale: a round number that is not below the highest.
fn top(most: f64) -> f64 {
    TOPS.into_iter().find(|top| *top >= most).unwrap_or_else(|| (most / 86_400.0).ceil() * 86_400.0)
}

/// What the empty and shaded places mean, where there are any.
fn words(levels: &[Level]) -> String {
    let mut words = String::new();
    if levels.contains(&Level::Unknown) {
        words += "; shaded: not known";
    }
    if levels.contains(&Level::Silent) {
        words += "; empty: nothing recorded";
    }
    words
}

fn drawing(levels: &[Level], top: f64, limits: &Limits) -> String {
    let width = levels.len();
    let height = |seconds: f64| HEIGHT - seconds / top * HEIGHT;
    let mut drawing = String::new();
    for share in [0.5, 1.0] {
        let at = HEIGHT * share;
        drawing += &format!("<path class=\"grid\" d=\"M0 {at}H{width}\"/>\n");
    }
    for (class, limit) in [("warn", limits.warn_age), ("crit", limits.crit_age)] {
        if limit > 0.0 && limit <= top {
            drawing += &format!("<path class=\"limit {class}\" d=\"M0 {:.2}H{width}\"/>\n", height(limit));
        }
    }
    for (at, _) in levels.iter().enumerate().filter(|(_, level)| **level == Level::Unknown) {
        drawing += &format!("<rect class=\"hidden\" x=\"{at}\" y=\"0\" width=\"1\" height=\"{HEIGHT}\"/>\n");
    }
    for (start, run) in runs(levels) {
        let steps: String = run.iter().map(|seconds| format!("V{:.2}h1", height(*seconds))).collect();
        let begin = height(run[0]);
        drawing += &format!("<path class=\"area\" d=\"M{start} {HEIGHT}{steps}V{HEIGHT}z\"/>\n");
        drawing += &format!("<path class=\"line\" d=\"M{start} {begin:.2}{steps}\"/>\n");
    }
    drawing
}

/// The stretches in a row of which something is known, each with where it begins.
fn runs(levels: &[Level]) -> Vec<(usize, Vec<f64>)> {
    let mut runs: Vec<(usize, Vec<f64>)> = Vec::new();
    for (at, level) in levels.iter().enumerate() {
        let Some(level) = seconds(level) else { continue };
        match runs.last_mut() {
            Some((start, run)) if *start + run.len() == at => run.push(level),
            _ => runs.push((at, vec![level])),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_ends_at_a_round_number_that_is_not_below_the_highest() {
        for (most, end) in [(0.0, 1.0), (1.0, 1.0), (1.1, 2.0), (61.0, 120.0), (86_401.0, 172_800.0)] {
            assert!((top(most) - end).abs() < 1e-9, "{most}");
        }
        assert!(top(1e12) >= 1e12);
    }

    #[test]
    fn what_is_not_known_breaks_the_line() {
        let levels = [Level::Seconds(1.0), Level::Seconds(2.0), Level::Unknown, Level::Seconds(3.0), Level::Silent];
        assert_eq!(runs(&levels), [(0, vec![1.0, 2.0]), (3, vec![3.0])]);
        let drawn = drawing(&levels, 5.0, &Limits::default());
        assert_eq!(drawn.matches("class=\"line\"").count(), 2);
        assert_eq!(drawn.matches("class=\"hidden\"").count(), 1);
        assert_eq!(drawn.matches("class=\"limit").count(), 0, "limits far above the scale are not drawn");
    }
}
