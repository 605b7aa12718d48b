//! What a site is now, for people, for proxies, and for the other sites: nothing is changed, and no lock is taken.

use anyhow::Result;
use serde_json::{Value, json};

use super::Place;
use super::pause::{self, Direction, Paused};
use super::record::Role;
use crate::edge::lock::Lock;
use crate::engine::site;
use crate::rule::instance::Instance;
use crate::value::position::{Position, Start};

/// What is to be seen.
#[derive(Clone, Debug)]
pub struct Standing {
    /// What it was told to be, or what its log directory shows; `None` where neither says anything.
    pub role: Option<Role>,
    /// The newest epoch that it knows.
    pub epoch: u64,
    /// The name that it was given.
    pub site: Option<String>,
    /// Which instance it is, or speaks for.
    pub instance: Option<Instance>,
    /// What it holds, where it receives.
    pub held: Option<Start>,
    /// What has been fed.
    pub applied: Option<Position>,
    /// Whether a receiver is at work.
    pub is_fed: bool,
    /// What stands still.
    pub paused: Vec<(Direction, Paused)>,
}

/// Looks at a site.
pub fn run(place: &Place<'_>) -> Result<Standing> {
    let told = super::told(place)?;
    let replica = site::peek_receiver(place.dir)?;
    let promoted = super::is_promoted(place)?;
    let shown = replica.as_ref().map(|_| if promoted { Role::Master } else { Role::Receiver });
    let role = told.as_ref().map(|told| told.role).or(shown);
    let holding = replica.as_ref().map(site::holding).transpose()?;
    let held = holding.map(|held| held.map_or(Start::Oldest, |held| Start::At(held.bookmark())));
    let instance = match place.scheme {
        Some(scheme) if super::is_relay(place.dir, scheme)? => super::relayed(place.dir, scheme)?,
        _ => place.state.map(|state| super::instance::peek(place.dir, state)).transpose()?.flatten(),
    };
    Ok(Standing {
        role,
        epoch: super::known_epoch(place)?,
        site: told.map(|told| told.site),
        instance,
        held: held.filter(|_| role == Some(Role::Receiver)),
        applied: replica.as_ref().map(site::applied).transpose()?.flatten().filter(|_| role == Some(Role::Receiver)),
        is_fed: replica.as_ref().map_or(Ok(false), |replica| Lock::is_held(replica, "lock"))?,
        paused: paused(place)?,
    })
}

fn paused(place: &Place<'_>) -> Result<Vec<(Direction, Paused)>> {
    let replica = site::peek(place.dir, None)?;
    let mut found = Vec::new();
    for direction in Direction::ALL {
        let state = if direction == Direction::Ship { place.state } else { replica.as_ref() };
        if let Some(paused) = state.map(|state| pause::read(state, direction)).transpose()?.flatten() {
            found.push((direction, paused));
        }
    }
    Ok(found)
}

impl Standing {
    /// As an object; `more` is what only the command knows: names and paths.
    pub fn object(&self, more: &[(&str, Option<String>)]) -> Value {
        let text = |what: Option<String>| what.map_or(Value::Null, Value::from);
        let mut object = json!({
            "v": 1,
            "role": text(self.role.map(|role| role.to_string())),
            "epoch": self.epoch,
            "instance": text(self.instance.as_ref().map(Instance::to_string)),
            "receiving": self.is_fed,
            "held": text(self.held.map(|held| held.to_string())),
            "applied": text(self.applied.map(|at| at.to_string())),
        });
        for (key, value) in more {
            object[*key] = text(value.clone());
        }
        for direction in Direction::ALL {
            let paused = self.paused.iter().find(|(paused, _)| *paused == direction);
            object["paused"][direction.to_string()] =
                paused.map_or(Value::Null, |(_, why)| json!({"since": why.since, "reason": why.reason}));
        }
        object
    }

    /// A line for each fact that there is, key and value.
    pub fn lines(&self, more: &[(&str, Option<String>)]) -> String {
        let mut facts = vec![
            ("role", self.role.map_or_else(|| "not told".to_owned(), |role| role.to_string())),
            ("epoch", self.epoch.to_string()),
        ];
        facts.extend(more.iter().filter_map(|(key, value)| Some((*key, value.clone()?))));
        facts.extend(self.instance.as_ref().map(|instance| ("instance", instance.to_string())));
        facts.extend(self.held.map(|held| ("held", held.to_string())));
        facts.extend(self.applied.map(|at| ("applied", at.to_string())));
        let mut lines: String = facts.iter().map(|(key, value)| format!("{key:<10}{value}\n")).collect();
        for (direction, Paused { since, reason }) in &self.paused {
            lines += &format!("{:<10}{direction} since {since}: {reason}\n", "paused");
        }
        lines
    }
}
