//! Small files: many in one question, each as a whole.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Result;

use super::{Line, Work};
use crate::rule::sync::merkle::{self, Cv, GROUP};
use crate::rule::sync::wire::ask::Ask;
use crate::rule::sync::wire::corrupt;
use crate::rule::sync::wire::tell::{Small, Tell};

/// Bytes of small files after which one worker has the file system written, while the others go on.
const FLUSH: u64 = 32 << 20;

impl Line<'_, '_> {
    pub(super) fn small(&self, works: &[Arc<Work>]) -> Result<()> {
        let mut asked = Vec::with_capacity(works.len());
        let mut buffer = vec![0; GROUP as usize];
        for work in works {
            let is_known = work.basis.size() <= GROUP && (work.old.is_some() || work.basis.size() > 0);
            let digest = if is_known {
                let count = match work.basis.size() {
                    0 => 0,
                    _ => self.target.basis(&work.new.name, work.old.as_ref())?.read(&self.target, 0, &mut buffer)?,
                };
                Some(merkle::whole(&buffer[..count]))
            } else {
                None
            };
            asked.push((work.new.name.clone(), digest));
        }
        self.ask(&Ask::Small(asked.clone()))?;
        let mut next = works.iter().zip(asked);
        let mut left = works.len();
        while left > 0 {
            let Tell::Smalls(answers) = self.hear()? else {
                return Err(corrupt("not an answer about small files"));
            };
            if answers.is_empty() {
                return Err(corrupt("an empty answer"));
            }
            for answer in answers {
                let Some((work, (_, digest))) = next.next() else {
                    return Err(corrupt("more answers than questions"));
                };
                left -= 1;
                self.ledger.advance(work.new.stamp.size);
                self.one_small(work, digest, answer)?;
            }
        }
        self.flush(works)
    }

    /// What was written goes to the disk by and by, so that the last sync has less to wait for.
    fn flush(&self, works: &[Arc<Work>]) -> Result<()> {
        let bytes: u64 = works.iter().map(|work| work.literal.load(Ordering::Relaxed)).sum();
        let before = self.written.fetch_add(bytes, Ordering::Relaxed);
        if self.is_dry || before / FLUSH == (before + bytes) / FLUSH { Ok(()) } else { self.target.tree().sync() }
    }

    fn one_small(&self, work: &Work, known: Option<Cv>, answer: Small) -> Result<()> {
        let digest = match (answer, known) {
            (Small::Same(seen), Some(digest)) => {
                // Of one that did not change since it was listed; else the next pass sees.
                if seen.stamp == work.new.stamp && seen.stamp.size != work.basis.size() {
                    return Err(corrupt("'the same' of another length"));
                }
                work.hold(seen);
                digest
            }
            (Small::Same(_), None) => return Err(corrupt("'the same' as nothing")),
            (Small::Whole(seen, digest, bytes), _) => {
                if merkle::whole(&bytes) != digest {
                    return Err(corrupt(format!(
                        "{}: the digest of its bytes is not the one that came with them",
                        work.new.name
                    )));
                }
                work.hold(seen);
                work.literal.store(bytes.len() as u64, Ordering::Relaxed);
                work.differs.store(true, Ordering::Relaxed);
                if !self.is_dry {
                    let sink = self.sink(work)?;
                    if !bytes.is_empty() {
                        self.target.write(&sink, &work.basis, 0, &bytes)?;
                    }
                }
                // Its length goes with its bytes: what was listed before may be older.
                if bytes.len() as u64 != work.new.stamp.size {
                    work.changed();
                    return self.settle(work, digest, Some(bytes.len() as u64));
                }
                digest
            }
            (Small::Gone(why), _) => {
                work.trouble(why);
                return self.settle(work, [0; 32], None);
            }
        };
        self.settle(work, digest, Some(work.new.stamp.size))
    }
}
