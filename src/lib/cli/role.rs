//! The arguments of `repl-role`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use super::voice::Words;

/// Say what a database's directory may be used for
#[derive(Parser, Debug)]
#[command(
    name = "repl-role",
    version,
    help_expected = true,
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
pub struct Args {
    /// What is asked.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// What messages look like.
    #[command(flatten)]
    pub words: Words,

    /// Print completions for a shell and exit
    #[arg(long, value_name = "SHELL", exclusive = true)]
    pub completions: Option<Shell>,
}

/// What is asked.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Fail while a server must not be started on a directory, because a sync is being written into it
    Guard {
        /// The database's directory; only read
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}
