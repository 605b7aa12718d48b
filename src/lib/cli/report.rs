//! The end of every command: `name: what went wrong`, `hint: what to do`, and the exit code that says what is next.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::voice::{Level, Message, is_for_programs};
use crate::value::exit::{Code, code_of, hint_of};

/// Turns a command's result into words on standard error and its exit code.
pub fn exit(command: &str, result: Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::from(Code::Done as u8);
    };
    let status = code_of(&error) as u8;
    tell(command, &error, status);
    ExitCode::from(status)
}

/// Says what went wrong, and what to do where that is known; `status` is what the command exits with.
pub fn tell(command: &str, error: &anyhow::Error, status: u8) {
    let (text, code) = (format!("{error:#}"), Some((status, code_of(error))));
    Message { code, hint: hint_of(error), ..Message::new(Level::Error, &text) }.say(command);
}

/// Says what is wrong with a command line, or prints what it asks for: help goes to standard output, and is no failure
/// where it can be printed. `status` is what the command exits with when it is wrong.
pub fn usage(command: &str, error: &clap::Error, status: u8) -> Code {
    if !error.use_stderr() {
        return if error.print().is_ok() { Code::Done } else { Code::Failed };
    }
    if !is_for_programs() {
        // When nobody can be told, the exit code remains.
        let _ = error.print();
        return Code::Usage;
    }
    let text = error.render().to_string();
    // What is wrong comes first, then advice, and how the command is used.
    let first: Vec<_> = text.trim_start_matches("error: ").lines().take_while(|line| !line.is_empty()).collect();
    let text = first.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    let hint = format!("{command} --help");
    let code = Some((status, Code::Usage));
    Message { code, hint: Some(&hint), ..Message::new(Level::Error, &text) }.say(command);
    Code::Usage
}

/// Says what is done.
pub fn say(command: &str, text: &str) {
    Message::new(Level::Info, text).say(command);
}

/// Says what an operator should see though work goes on.
pub fn warn(command: &str, text: &str) {
    Message::new(Level::Warning, text).say(command);
}

/// Writes data to standard output, all of it.
pub fn print(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("cannot write to standard output")
}
