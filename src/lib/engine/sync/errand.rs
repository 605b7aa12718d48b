//! What is done at the source when the other end asks for it: a look, and the procedure around the last pass.

use anyhow::Result;

use super::procedure::{Procedure, Settings};
use super::source::Laid;
use crate::edge::dir::Dir;
use crate::rule::sync::wire::ask::Errand;
use crate::value::name::Name;

/// The source's side of a sync, but for its bytes.
pub struct Errands {
    settings: Settings,
    dir: Dir,
    identity: String,
    procedure: Option<Procedure>,
}

impl Errands {
    /// For the tree in `dir`.
    pub fn new(settings: Settings, dir: Dir, identity: String) -> Errands {
        Errands { settings, dir, identity, procedure: None }
    }

    /// Does one; what it returns is for the other end.
    pub fn run(&mut self, errand: Errand) -> Result<Laid> {
        match errand {
            Errand::Look => self.look(),
            Errand::Begin => self.begin(),
            Errand::Stop => {
                let made = self.procedure.as_mut().map_or(Ok(Vec::new()), Procedure::stop)?;
                Ok([made, self.settings.profile.laid(&self.dir)?].concat())
            }
            Errand::Release => {
                self.procedure.take().map_or(Ok(()), |mut procedure| procedure.release()).map(|()| Vec::new())
            }
            Errand::Hook => Ok(Vec::new()),
        }
    }

    fn look(&self) -> Result<Laid> {
        let facts = self.settings.profile.facts(&self.dir)?.print();
        let told =
            [("identity", self.identity.clone()), ("profile", self.settings.profile.to_string()), ("facts", facts)];
        Ok(told.into_iter().map(|(key, text)| (Name::root().join(key.as_bytes()), text.into_bytes())).collect())
    }

    fn begin(&mut self) -> Result<Laid> {
        let procedure = self.procedure.insert(Procedure::new(self.settings.clone())?);
        procedure.begin()?;
        let holds = [
            ("is-held", procedure.holds()),
            ("may-change", procedure.makes_up()),
            ("needs-recovery", procedure.needs_recovery()),
        ];
        Ok(holds
            .into_iter()
            .filter(|(_, holds)| *holds)
            .map(|(key, _)| (Name::root().join(key.as_bytes()), Vec::new()))
            .collect())
    }
}
