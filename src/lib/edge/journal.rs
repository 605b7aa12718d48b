//! Files of lines that only grow: history, manifest. A line counts when its line end is there; a line that a crash cut
//! is taken away at the next open, before anything is added behind it.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result};

use super::dir::Dir;
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

/// Reads a journal that grows, line by line. When the journal was cut below what was read, reading starts over.
#[derive(Debug)]
pub struct Follow {
    dir: Dir,
    name: String,
    read: u64,
}

impl Follow {
    /// From the first line of a journal that may not exist yet.
    pub fn new(dir: Dir, name: &str) -> Follow {
        Follow { dir, name: name.to_owned(), read: 0 }
    }

    /// The next whole line that is there.
    pub fn next_line(&mut self) -> Result<Option<String>> {
        let Some(file) = self.dir.open_read(&self.name)? else {
            return Ok(None);
        };
        if file.metadata()?.len() < self.read {
            self.read = 0;
        }
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
}
