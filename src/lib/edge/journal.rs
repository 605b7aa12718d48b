//! Files of lines that only grow: history, manifest. A line counts when its line end is there; a line that a crash cut
//! is taken away at the next open, before anything is added behind it.
//!
//! Lines may be taken out by [`retain`], which puts a new file in the place of the old one, so that a reader has one of
//! the two, whole. Who has the old one open would add to a file that has no name any more: [`Journal::renew`] looks.
//! The two exclude each other by a lock that is the caller's.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use anyhow::{Context as _, Result};

use super::dir::Dir;
use super::read::read_at;
use crate::value::exit::{Code, fail};

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    file: File,
    length: u64,
    shown: String,
}

impl Journal {
    /// Opens a journal, made if it is missing. `keep` is shown each whole line in order; from the first that it does not
    /// keep on, lines are cut away.
    pub fn open(dir: &Dir, name: &str, mut keep: impl FnMut(&str) -> bool) -> Result<Journal> {
        let shown = dir.shown(name);
        let file = match dir.open_write(name)? {
            Some(file) => file,
            None => {
                let file = dir.create_new(name)?;
                dir.give(&file).with_context(|| format!("cannot make {shown}"))?;
                dir.sync()?;
                file
            }
        };
        let mut length = 0;
        let mut lines = BufReader::new(&file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let count = lines.read_until(b'\n', &mut line).with_context(|| format!("cannot read {shown}"))?;
            let Some(text) = line.strip_suffix(b"\n").and_then(|text| std::str::from_utf8(text).ok()) else {
                break;
            };
            if !keep(text) {
                break;
            }
            length += count as u64;
        }
        drop(lines);
        if file.metadata()?.len() > length {
            file.set_len(length).with_context(|| format!("cannot cut {shown}"))?;
        }
        Ok(Journal { file, length, shown })
    }

    /// Adds whole lines in one write; durable after [`Journal::sync`].
    pub fn append(&mut self, lines: &str) -> Result<()> {
        let write = self.file.write_all_at(lines.as_bytes(), self.length);
        if write.is_err() {
            // A part of a line must not stay: the next append would go behind it only in this process.
            let _ = self.file.set_len(self.length);
        }
        write.with_context(|| format!("cannot append to {}", self.shown))?;
        self.length += lines.len() as u64;
        Ok(())
    }

    /// Goes on in the file that has the name now, and behind the lines that others have added: before an append, where
    /// others may write.
    pub fn renew(&mut self, dir: &Dir, name: &str) -> Result<()> {
        let own = self.file.metadata()?;
        if dir.identity(name)? != Some((own.dev(), own.ino())) || own.len() != self.length {
            *self = Journal::open(dir, name, |_| true)?;
        }
        Ok(())
    }

    /// Makes all lines durable.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().with_context(|| format!("cannot sync {}", self.shown))
    }
}

/// Shows each whole line of a journal in order; nothing when there is none. Needs no write access.
pub fn read(dir: &Dir, name: &str, mut line: impl FnMut(&str) -> Result<()>) -> Result<()> {
    let Some(file) = dir.open_read(name)? else {
        return Ok(());
    };
    let mut lines = BufReader::new(file);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        lines.read_until(b'\n', &mut bytes).with_context(|| format!("cannot read {}", dir.shown(name)))?;
        match bytes.strip_suffix(b"\n").map(std::str::from_utf8) {
            Some(Ok(text)) => line(text)?,
            Some(Err(_)) => return fail(Code::Corrupt, format!("{} is damaged: it is not UTF-8", dir.shown(name))),
            None => return Ok(()),
        }
    }
}

/// The last whole lines of a journal, at most so many bytes of them, in order; none when there is none. What is not text
/// is shown as such: this is for reports.
pub fn tail(dir: &Dir, name: &str, most: u64) -> Result<Vec<String>> {
    let Some(file) = dir.open_read(name)? else {
        return Ok(Vec::new());
    };
    let length = file.metadata()?.len();
    let mut bytes = vec![0; length.min(most) as usize];
    let from = length - bytes.len() as u64;
    let count = read_at(&file, &mut bytes, from).with_context(|| format!("cannot read {}", dir.shown(name)))?;
    let text = String::from_utf8_lossy(&bytes[..count]);
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    // The first may have lost its beginning.
    let cut = usize::from(from > 0);
    Ok(whole.lines().skip(cut).map(str::to_owned).collect())
}

/// Takes the lines out that are not kept: at every instant, and after a power cut, all of them are there or only those
/// that are kept. Nothing is written when all are.
pub fn retain(dir: &Dir, name: &str, mut keep: impl FnMut(&str) -> bool) -> Result<()> {
    let mut is_whole = true;
    read(dir, name, |line| {
        is_whole &= keep(line);
        Ok(())
    })?;
    if is_whole {
        return Ok(());
    }
    let temporary = format!("{name}.new");
    dir.remove_if_there(&temporary)?;
    let mut write = || -> Result<()> {
        let file = dir.create_new(&temporary)?;
        let mut kept = BufWriter::new(&file);
        read(dir, name, |line| {
            if keep(line) {
                writeln!(kept, "{line}")?;
            }
            Ok(())
        })?;
        kept.flush()?;
        drop(kept);
        dir.give(&file)?;
        file.sync_all()?;
        dir.rename_over(&temporary, name)
    };
    write().with_context(|| format!("cannot write {}", dir.shown(name)))
}

/// Reads a journal that grows, line by line. When lines were cut or taken out, reading starts over.
#[derive(Debug)]
pub struct Follow {
    dir: Dir,
    name: String,
    /// Kept open: the number of an inode that is open is nobody else's.
    file: Option<File>,
    read: u64,
}

impl Follow {
    /// From the first line of a journal that may not exist yet.
    pub fn new(dir: Dir, name: &str) -> Follow {
        Follow { dir, name: name.to_owned(), file: None, read: 0 }
    }

    /// The next whole line that is there.
    pub fn next_line(&mut self) -> Result<Option<String>> {
        self.look()?;
        let Some(file) = &self.file else {
            return Ok(None);
        };
        let mut lines = BufReader::new(file);
        lines.seek(SeekFrom::Start(self.read))?;
        let mut line = String::new();
        lines.read_line(&mut line).with_context(|| format!("cannot read {}", self.dir.shown(&self.name)))?;
        let Some(text) = line.strip_suffix('\n') else {
            return Ok(None);
        };
        self.read += line.len() as u64;
        Ok(Some(text.to_owned()))
    }

    /// Takes up the file that has the name now.
    fn look(&mut self) -> Result<()> {
        let own = self.file.as_ref().map(File::metadata).transpose()?;
        let is_cut = own.as_ref().is_some_and(|own| own.len() < self.read);
        let own = own.map(|own| (own.dev(), own.ino()));
        if is_cut || own.is_none() || self.dir.identity(&self.name)? != own {
            self.file = self.dir.open_read(&self.name)?;
            self.read = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_line_is_taken_away_before_the_next_is_added() {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::open(root.path()).unwrap();
        std::fs::write(root.path().join("j"), "one\ntwo\nthr").unwrap();
        let mut journal = Journal::open(&dir, "j", |_| true).unwrap();
        journal.append("three\n").unwrap();
        let mut lines = Vec::new();
        read(&dir, "j", |line| {
            lines.push(line.to_owned());
            Ok(())
        })
        .unwrap();
        assert_eq!(lines, ["one", "two", "three"]);
        drop(Journal::open(&dir, "j", |line| line != "two").unwrap());
        assert_eq!(std::fs::read_to_string(root.path().join("j")).unwrap(), "one\n");
    }

    #[test]
    fn a_tail_has_whole_lines_only() {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::open(root.path()).unwrap();
        assert_eq!(tail(&dir, "j", 9).unwrap(), [""; 0]);
        std::fs::write(root.path().join("j"), "one\ntwo\nthree\nfou").unwrap();
        assert_eq!(tail(&dir, "j", 100).unwrap(), ["one", "two", "three"]);
        assert_eq!(tail(&dir, "j", 12).unwrap(), ["three"]);
        assert_eq!(tail(&dir, "j", 3).unwrap(), [""; 0]);
    }

    fn lines(dir: &Dir) -> Vec<String> {
        let mut lines = Vec::new();
        read(dir, "j", |line| {
            lines.push(line.to_owned());
            Ok(())
        })
        .unwrap();
        lines
    }

    #[test]
    fn lines_are_taken_out_beside_a_writer_and_a_reader() {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::open(root.path()).unwrap();
        let mut writer = Journal::open(&dir, "j", |_| true).unwrap();
        let mut reader = Follow::new(dir.try_clone().unwrap(), "j");
        writer.append("one\ntwo\n").unwrap();
        assert_eq!(reader.next_line().unwrap().as_deref(), Some("one"));
        retain(&dir, "j", |line| line != "one").unwrap();
        writer.renew(&dir, "j").unwrap();
        writer.append("three\nfour\n").unwrap();
        assert_eq!(lines(&dir), ["two", "three", "four"]);
        // The new file is longer than what was read of the old one, and is read from its beginning all the same.
        let read: Vec<_> = std::iter::from_fn(|| reader.next_line().unwrap()).collect();
        assert_eq!(read, ["two", "three", "four"]);
        // Another writer's line is not written over.
        Journal::open(&dir, "j", |_| true).unwrap().append("five\n").unwrap();
        writer.renew(&dir, "j").unwrap();
        writer.append("six\n").unwrap();
        assert_eq!(lines(&dir)[2..], ["four", "five", "six"]);
        assert_eq!(dir.names().unwrap(), ["j"]);
    }
}
