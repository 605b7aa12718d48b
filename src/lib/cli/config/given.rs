//! What a command line gives, flag by flag, and the same as words again.

use std::ffi::{OsStr, OsString};

use anyhow::Result;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

/// A command line.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    /// Names of the subcommand, and of its own one.
    pub(super) chain: Vec<String>,
    /// What is told, in the order in which it is printed where places are the same.
    pub(super) words: Vec<Word>,
}

/// One flag or operand with its values.
#[derive(Clone, Debug)]
pub(super) struct Word {
    /// What clap calls it.
    pub(super) id: String,
    /// Its long name; `None` for an operand.
    pub(super) long: Option<String>,
    /// One without content where a flag takes none.
    pub(super) values: Vec<OsString>,
    takes: bool,
    /// Where on the line its values are: patterns are ranked by that. What comes from elsewhere is in front.
    places: Vec<usize>,
    /// Rank among operands.
    rank: usize,
    /// 0 for a command's own, 1 for its subcommand's.
    depth: usize,
    /// Whether it is one that is read here, and that no command knows.
    is_own: bool,
}

impl Word {
    /// A flag or operand of this depth, given somewhere else than on the line.
    pub(super) fn new(arg: &Arg, depth: usize, values: Vec<OsString>) -> Word {
        let id = arg.get_id().to_string();
        Word {
            long: arg.get_long().map(str::to_owned),
            values,
            takes: arg.get_action().takes_values(),
            places: Vec::new(),
            rank: arg.get_index().unwrap_or_default(),
            depth,
            is_own: ["config", "print-config"].contains(&id.as_str()) || (id == "set" && arg.is_global_set()),
            id,
        }
    }

    /// Whether all of it is in front of all of another one.
    pub(super) fn is_before(&self, other: &Word) -> bool {
        self.places.iter().max() <= other.places.iter().min()
    }

    fn flags(&self) -> Vec<(usize, OsString)> {
        let Some(long) = &self.long else {
            return Vec::new();
        };
        let word = |value: &OsString| {
            let mut word = OsString::from(format!("--{long}"));
            if self.takes {
                word.push("=");
                word.push(value);
            }
            word
        };
        let places = self.places.iter().copied().chain(std::iter::repeat(0));
        places.zip(self.values.iter().map(word)).collect()
    }
}

/// Reads a line. What is missing may come from elsewhere; everything else that is wrong is wrong.
pub(super) fn lenient(command: &Command, line: Vec<OsString>) -> Result<ArgMatches> {
    match command.clone().try_get_matches_from(line.clone()) {
        Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {
            Ok(command.clone().ignore_errors(true).try_get_matches_from(line)?)
        }
        read => Ok(read?),
    }
}

impl Given {
    /// All that a line gives. The command is built.
    pub(super) fn of(command: &Command, matches: &ArgMatches) -> Given {
        let mut given = Given::default();
        given.add(command, matches);
        given
    }

    fn add(&mut self, command: &Command, matches: &ArgMatches) {
        for arg in command.get_arguments() {
            let id = arg.get_id().as_str();
            let is_told = matches.try_contains_id(id).is_ok();
            // What holds for all of a command is told at each of its levels.
            let is_again = arg.is_global_set() && self.has(id);
            if is_again || !is_told || matches.value_source(id) != Some(ValueSource::CommandLine) {
                continue;
            }
            let mut word = Word::new(arg, self.chain.len(), vec![OsString::new()]);
            if word.takes {
                word.values = matches.get_raw(id).into_iter().flatten().map(OsStr::to_owned).collect();
            }
            word.places = matches.indices_of(id).into_iter().flatten().collect();
            self.words.push(word);
        }
        if let Some((name, matches)) = matches.subcommand()
            && let Some(command) = command.find_subcommand(name)
        {
            self.chain.push(name.to_owned());
            self.add(command, matches);
        }
    }

    /// What is told of a flag or an operand.
    pub(super) fn get(&self, id: &str) -> Option<&Word> {
        self.words.iter().find(|word| word.id == id)
    }

    /// Whether it is told.
    pub(super) fn has(&self, id: &str) -> bool {
        self.get(id).is_some()
    }

    /// These in front of the line.
    pub(super) fn with<'a>(&'a self, others: impl IntoIterator<Item = &'a Word>) -> Given {
        let words = others.into_iter().chain(&self.words).cloned().collect();
        Given { chain: self.chain.clone(), words }
    }

    /// The words of all but what is read here, without the program's name.
    pub(super) fn print(&self) -> Vec<OsString> {
        let mut words = Vec::new();
        for depth in 0..=self.chain.len() {
            let here = || self.words.iter().filter(move |word| word.depth == depth && !word.is_own);
            words.extend(depth.checked_sub(1).and_then(|above| self.chain.get(above)).map(OsString::from));
            let mut flags: Vec<_> = here().flat_map(Word::flags).collect();
            flags.sort_by_key(|(place, _)| *place);
            words.extend(flags.into_iter().map(|(_, word)| word));
            let mut operands: Vec<_> = here().filter(|word| word.long.is_none()).collect();
            operands.sort_by_key(|word| word.rank);
            let operands: Vec<_> = operands.into_iter().flat_map(|word| word.values.clone()).collect();
            // Behind it a subcommand's name would be an operand as well.
            if !operands.is_empty() && depth == self.chain.len() {
                words.push("--".into());
            }
            words.extend(operands);
        }
        words
    }
}

impl Given {
    /// Makes room for the first of some operands where the last of them is not given: what is given are the others.
    pub(super) fn shift(&mut self, operands: &[&str]) {
        let Some(last) = operands.last().filter(|last| !self.has(last)) else {
            return;
        };
        let next = |id: &str| operands.iter().position(|known| *known == id).and_then(|at| operands.get(at + 1));
        for word in &mut self.words {
            if let Some(next) = next(&word.id) {
                (word.id, word.rank) = ((*next).to_owned(), word.rank + 1);
            }
        }
        debug_assert!(!self.has(operands[0]) && !last.is_empty());
    }
}
