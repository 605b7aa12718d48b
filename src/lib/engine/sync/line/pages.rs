//! Groups that differ: the pages of them that are other ones at the source are fetched, and laid over what is here.

use std::sync::atomic::Ordering;

use anyhow::Result;

use super::{Lack, Line, Work};
use crate::rule::sync::merkle::{self, Cv, GROUP};
use crate::rule::sync::wire::ask::{Ask, Pages, Part};
use crate::rule::sync::wire::corrupt;
use crate::rule::sync::wire::tell::{Patch, Tell};

impl Line<'_, '_> {
    /// Fetches the pages that differ of some groups; `own` gets the cvs of the groups as they are now. False when some are
    /// not what the source has, `None` when the source could not say.
    pub(super) fn patch(&self, work: &Work, part: &Part, lacking: &[Lack], own: &mut [Cv]) -> Result<Option<bool>> {
        let mut buffer = vec![0; GROUP as usize];
        let (mut groups, mut known) = (Vec::with_capacity(lacking.len()), Vec::with_capacity(lacking.len()));
        for lack in lacking {
            let offset = part.offset + lack.number as u64 * GROUP;
            let length = GROUP.min(part.offset + part.length - offset) as usize;
            let count = work.basis.read(&self.target, lack.from, &mut buffer[..length])?;
            let pages = merkle::pages(offset, &buffer[..count], self.page);
            groups.push(Pages { offset, digests: pages.iter().map(merkle::short).collect() });
            known.push(pages);
        }
        self.ask(&Ask::Pages(part.clone(), self.page as u32, groups))?;
        let (mut expected, mut is_laid) = (lacking.iter().zip(known), true);
        loop {
            match self.hear()? {
                Tell::Patches(patches) => {
                    for patch in patches {
                        let offset_of = |lack: &Lack| part.offset + lack.number as u64 * GROUP;
                        let its = expected.next().filter(|(lack, _)| offset_of(lack) == patch.offset);
                        let Some((lack, pages)) = its else {
                            return Err(corrupt("a patch of another group"));
                        };
                        let is_in_place = lack.from == patch.offset && !patch.bytes.is_empty();
                        let laid = if is_in_place {
                            self.lay_pages(work, part, &patch, pages)?
                        } else {
                            self.lay(work, part, &patch, lack.from, &mut buffer)?
                        };
                        match laid {
                            Some(cv) => own[lack.number] = cv,
                            None => is_laid = false,
                        }
                    }
                }
                Tell::Done(seen, _) if expected.len() == 0 => {
                    work.hold(seen);
                    return Ok(Some(is_laid));
                }
                Tell::Gone(why) => {
                    work.give_up(why);
                    return Ok(None);
                }
                _ => return Err(corrupt("not the pages of a range")),
            }
        }
    }

    /// Lays a patch over the group that is here, proves the result, and writes what is new; `None` when the result is not
    /// what the source has.
    fn lay(&self, work: &Work, part: &Part, patch: &Patch, from: u64, buffer: &mut [u8]) -> Result<Option<Cv>> {
        let length = GROUP.min(part.offset + part.length - patch.offset) as usize;
        let count = work.basis.read(&self.target, from, &mut buffer[..length])?;
        buffer[count..length].fill(0);
        // No page differs where the content has changed back, or only its end is another one.
        let is_hole = patch.bytes.is_empty() && patch.pages != 0;
        let mut bytes = patch.bytes.as_slice();
        for page in 0..length.div_ceil(self.page).min(128) {
            if patch.pages & 1 << page != 0 {
                let place = page * self.page..((page + 1) * self.page).min(length);
                if is_hole {
                    buffer[place].fill(0);
                    continue;
                }
                let Some((taken, rest)) = bytes.split_at_checked(place.len()) else {
                    return Err(corrupt("a patch with too few bytes"));
                };
                buffer[place].copy_from_slice(taken);
                bytes = rest;
            }
        }
        let cv = merkle::group(patch.offset, &buffer[..length]);
        if cv != patch.cv || !bytes.is_empty() {
            return Ok(None);
        }
        if patch.pages == 0 && from == patch.offset && count == length {
            return Ok(Some(cv));
        }
        work.literal.fetch_add(patch.bytes.len() as u64, Ordering::Relaxed);
        work.differs.store(true, Ordering::Relaxed);
        if self.is_dry {
            return Ok(Some(cv));
        }
        if is_hole {
            self.target.hole(&*self.sink(work)?, &work.basis, patch.offset, length as u64)?;
        } else {
            self.write_moved(work, patch.offset, &buffer[..length])?;
        }
        Ok(Some(cv))
    }

    /// The same where only pages change: those that stay are known by their cvs, and need not be read again.
    fn lay_pages(&self, work: &Work, part: &Part, patch: &Patch, mut cvs: Vec<Cv>) -> Result<Option<Cv>> {
        let length = GROUP.min(part.offset + part.length - patch.offset) as usize;
        let count = length.div_ceil(self.page);
        cvs.resize(count, [0; 32]);
        let (mut bytes, mut runs, mut page) = (patch.bytes.as_slice(), Vec::new(), 0);
        while page < count {
            let run = (page..count).take_while(|page| patch.pages & 1 << page != 0).count();
            let place = page * self.page..((page + run) * self.page).min(length);
            let Some((taken, rest)) = bytes.split_at_checked(place.len()) else {
                return Err(corrupt("a patch with too few bytes"));
            };
            let offset = patch.offset + place.start as u64;
            cvs[page..page + run].copy_from_slice(&merkle::pages(offset, taken, self.page));
            runs.push((offset, taken));
            (bytes, page) = (rest, page + run + 1);
        }
        let cv = merkle::fold(&cvs, false);
        if cv != patch.cv || !bytes.is_empty() {
            return Ok(None);
        }
        work.literal.fetch_add(patch.bytes.len() as u64, Ordering::Relaxed);
        work.differs.store(true, Ordering::Relaxed);
        if !self.is_dry {
            let sink = self.sink(work)?;
            for (offset, bytes) in runs.into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
                self.target.write(&sink, &work.basis, offset, bytes)?;
            }
        }
        Ok(Some(cv))
    }
}
