//! Receiving directories, by what lies there and what `repl-apply` has heard.

use super::{Alarm, Judged, Limits, State, by_lag, distance, dropped, ended, is_quiet, waiting};
use crate::rule::status::receiver::{Receiver, Session};
use crate::value::escape::show;
use crate::value::exit::Code;
use crate::value::time::Time;
use crate::value::units::tell_seconds;

/// A receiving directory.
pub fn receiver(receiver: &Receiver, now: Time, limits: &Limits) -> Judged {
    if let Some(first) = receiver.dropped.first() {
        return dropped(first);
    }
    if let Some(astray) = receiver.astray {
        let why = format!("the database has log up to {astray} that the master has not: it needs a new base");
        return Judged::new(State::Refused, Alarm::Critical, Code::Diverged, why);
    }
    if let Some(fault) = &receiver.fault {
        let code = receiver.fault_code.and_then(Code::from_number).filter(|code| *code != Code::Done);
        return Judged::new(State::Unknown, Alarm::Unknown, code.unwrap_or(Code::Failed), show(fault));
    }
    let Some(session) = &receiver.session else {
        let why = "no repl-apply has said what it heard of the master";
        return Judged::new(State::Unknown, Alarm::Unknown, Code::Unconfirmed, why);
    };
    if session.connected { receiving(receiver, session, now, limits) } else { apart(session, now, limits) }
}

fn receiving(receiver: &Receiver, session: &Session, now: Time, limits: &Limits) -> Judged {
    let heard = session.heard.or(session.updated);
    let seconds = heard.map_or(f64::INFINITY, |heard| distance(heard, now));
    if receiver.running == Some(false) {
        let pid = session.pid.unwrap_or_default();
        let why = format!("repl-apply (process {pid}) is gone, and was heard {} ago", tell_seconds(seconds));
        return Judged::new(State::Stale, Alarm::Unknown, Code::Link, why);
    }
    if seconds > limits.stale {
        let why = format!("no news from the master for {}", tell_seconds(seconds));
        return Judged::new(State::Stale, Alarm::Unknown, Code::Link, why);
    }
    let lag = receiver.lag(now);
    let (alarm, behind) = by_lag(lag, limits);
    match alarm {
        Alarm::Warning | Alarm::Critical => Judged::new(State::Lagging, alarm, waiting(alarm), behind),
        _ if lag.bytes == Some(0) && is_quiet(session.grown, session.heard, limits.stale) => Judged::well(State::Idle),
        _ => Judged::well(State::Current),
    }
}

/// No stream is being received: it ended in order, or was lost, or was refused.
fn apart(session: &Session, now: Time, limits: &Limits) -> Judged {
    let code = session.code.and_then(Code::from_number).filter(|code| *code != Code::Done);
    let Some(code) = code else {
        return ended(session.updated, now, limits);
    };
    let why = show(session.error.as_deref().unwrap_or_default());
    match code {
        Code::Link => {
            let seconds = session.updated.map_or(f64::INFINITY, |updated| distance(updated, now));
            let why = format!("no news for {}: {why}", tell_seconds(seconds));
            if seconds > limits.stale {
                return Judged::new(State::Stale, Alarm::Unknown, Code::Link, why);
            }
            Judged::new(State::Retrying, Alarm::Warning, Code::Link, why)
        }
        Code::Gap | Code::Diverged | Code::Fenced | Code::Corrupt | Code::Usage | Code::Guarded => {
            Judged::new(State::Refused, Alarm::Critical, code, why)
        }
        _ => Judged::new(State::Failed, Alarm::Critical, code, why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// Noon, and the seconds before it.
    fn before(seconds: i64) -> String {
        Time::from_seconds(43_200 - seconds).to_string()
    }

    const NOON: Time = Time(43_200_000_000);

    #[test]
    fn each_state_of_a_receiver_has_its_alarm_and_its_code() {
        use Alarm::{Critical, Ok, Warning};
        use State::{Current, Ended, Failed, Idle, Lagging, Refused, Retrying, Stale};
        let session = |change: Value| {
            let mut session = json!({
                "v": 1, "pid": 7, "updated": before(5), "heard": before(5), "master_end": "1-2:40", "grown": before(900), "connected": true
            });
            session.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            json!({"running": true, "held": "1-2:40", "session": session})
        };
        let ended = |age: i64, code: Option<u8>| {
            session(json!({"connected": false, "updated": before(age), "code": code, "error": code.map(|_| "why")}))
        };
        let mut gone = session(json!({}));
        gone["running"] = false.into();
        let mut behind = session(json!({"behind": before(61)}));
        behind["held"] = "1-2:30".into();
        let rows = [
            (session(json!({})), (Idle, Ok, Code::Done)),
            (session(json!({"grown": before(6)})), (Current, Ok, Code::Done)),
            (behind, (Lagging, Warning, Code::Done)),
            (session(json!({"heard": before(31)})), (Stale, Alarm::Unknown, Code::Link)),
            (gone, (Stale, Alarm::Unknown, Code::Link)),
            (ended(5, None), (Ended, Ok, Code::Done)),
            (ended(601, None), (Ended, Critical, Code::Link)),
            (ended(5, Some(8)), (Retrying, Warning, Code::Link)),
            (ended(31, Some(8)), (Stale, Alarm::Unknown, Code::Link)),
            (ended(5, Some(4)), (Refused, Critical, Code::Diverged)),
            (ended(5, Some(12)), (Failed, Critical, Code::Full)),
            (json!({"held": "1-2:40"}), (State::Unknown, Alarm::Unknown, Code::Unconfirmed)),
            (json!({"astray": "1-2:40"}), (Refused, Critical, Code::Diverged)),
            (json!({"fault": "damaged", "fault_code": 6}), (State::Unknown, Alarm::Unknown, Code::Corrupt)),
        ];
        for (value, expected) in rows {
            let of: Receiver = serde_json::from_value(value.clone()).unwrap();
            let Judged { state, alarm, code, .. } = receiver(&of, NOON, &Limits::default());
            assert_eq!((state, alarm, code), expected, "{value}");
        }
    }
}
