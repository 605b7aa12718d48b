//! For programs, and for `repl-status` at another machine: one object, version 1, with all that is known and each verdict.

use serde_json::{Value, json};

use super::judge::{self, Alarm, Judged, Limits};
use super::receiver::Receiver;
use super::sender::Sender;
use super::{Part, Report, Silent, What};
use crate::value::exit::Code;
use crate::value::time::Time;

/// One line.
pub fn render(report: &Report) -> String {
    let of = |pick: fn(&Part, &Limits) -> Option<Value>| -> Vec<Value> {
        report.parts.iter().filter_map(|part| pick(part, &report.limits)).collect()
    };
    let worst = report.worst();
    let object = json!({
        "v": 1,
        "time": report.time.to_string(),
        "alarm": report.alarm().word(),
        "code": worst.map_or(Code::Done, |(judged, _)| judged.code) as u8,
        "senders": of(sender),
        "receivers": of(receiver),
        "silent": of(silent),
    });
    format!("{object}\n")
}

/// Where a part was found, and the verdict on it.
fn add(value: &mut Value, part: &Part, judged: &Judged) {
    value["asked"] = part.asked.clone().into();
    value["time"] = part.time.to_string().into();
    give(value, judged);
}

fn give(value: &mut Value, judged: &Judged) {
    value["state"] = judged.state.word().into();
    value["alarm"] = judged.alarm.word().into();
    value["exit"] = (judged.code as u8).into();
    value["why"] = judged.why.clone().into();
}

fn sender(part: &Part, limits: &Limits) -> Option<Value> {
    let What::Sender(sender) = &part.what else { return None };
    let mut value = serde_json::to_value(sender).ok()?;
    add(&mut value, part, &judge::sender(sender, part.time, limits));
    for (told, site) in value["sites"].as_array_mut()?.iter_mut().zip(&sender.sites) {
        // What the link does is one thing, what that means is another.
        told["link"] = told["state"].take();
        give(told, &judge::site(sender, site, part.time, limits));
    }
    Some(value)
}

fn receiver(part: &Part, limits: &Limits) -> Option<Value> {
    let What::Receiver(receiver) = &part.what else { return None };
    let mut value = serde_json::to_value(receiver).ok()?;
    add(&mut value, part, &judge::receiver(receiver, part.time, limits));
    value["lag"] = serde_json::to_value(receiver.lag(part.time)).ok()?;
    value["feed_lag"] = serde_json::to_value(receiver.unfed()).ok()?;
    Some(value)
}

fn silent(part: &Part, _: &Limits) -> Option<Value> {
    let What::Silent(silent) = &part.what else { return None };
    let mut value = json!({"name": silent.name, "error": silent.error, "code": silent.code as u8});
    add(&mut value, part, &judge::silent(silent));
    Some(value)
}

/// What another machine's `repl-status --json` has found there itself. What it was told by others is passed over: who
/// wants to know asks them.
pub fn parse(text: &[u8], asked: &str) -> Result<Vec<Part>, String> {
    let mut object: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if object["v"].as_u64() != Some(1) {
        return Err("it is not of version 1".to_owned());
    }
    let mut parts = Vec::new();
    for key in ["senders", "receivers", "silent"] {
        let Value::Array(found) = object[key].take() else { continue };
        for value in found.into_iter().filter(|value| value["asked"].is_null()) {
            let time = value["time"].as_str().and_then(Time::parse).ok_or("a part has no time")?;
            let mut part = Part::new(time, what(key, value)?);
            part.asked = Some(asked.to_owned());
            parts.push(part);
        }
    }
    Ok(parts)
}

fn what(key: &str, mut value: Value) -> Result<What, String> {
    match key {
        "senders" => {
            for site in value["sites"].as_array_mut().into_iter().flatten() {
                if site.is_object() {
                    site["state"] = site["link"].take();
                }
            }
            Sender::from_value(value).map(|sender| What::Sender(Box::new(sender)))
        }
        "receivers" => {
            let receiver: Result<Receiver, _> = serde_json::from_value(value);
            receiver.map(|receiver| What::Receiver(Box::new(receiver))).map_err(|error| error.to_string())
        }
        _ => {
            let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
            let code = value["code"].as_u64().and_then(|code| Code::from_number(u8::try_from(code).ok()?));
            let alarm = if text("alarm") == Alarm::Critical.word() { Alarm::Critical } else { Alarm::Unknown };
            let code = code.filter(|code| *code != Code::Done).unwrap_or(Code::Failed);
            Ok(What::Silent(Silent { name: text("name"), error: text("error"), code, alarm }))
        }
    }
}
