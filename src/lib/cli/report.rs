//! The end of every command: `name: what went wrong`, `hint: what to do`, and the exit code that says what is next.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::value::escape::show;
use crate::value::exit::{Code, code_of, hint_of};

/// Turns a command's result into words on standard error and its exit code.
pub fn exit(command: &str, result: Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::from(Code::Done as u8);
    };
    tell(command, &error);
    ExitCode::from(code_of(&error) as u8)
}

/// Says what went wrong, and what to do where that is known.
pub fn tell(command: &str, error: &anyhow::Error) {
    say(command, &format!("{error:#}"));
    if let Some(hint) = hint_of(error) {
        say("hint", hint);
    }
}

/// Writes one line to standard error; text from a peer or a file name is made harmless.
pub fn say(who: &str, text: &str) {
    // When standard error is gone there is nobody to tell; the exit code remains.
    let _ = writeln!(io::stderr().lock(), "{who}: {}", show(text));
}

/// Writes data to standard output, all of it.
pub fn print(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("cannot write to standard output")
}
