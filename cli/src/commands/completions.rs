//! `starling completions`.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::args::Cli;
use crate::failure::Failure;
use crate::output::Out;

const EXAMPLES: &str = "\
Examples:
  source <(starling completions bash)
  starling completions zsh > ~/.zfunc/_starling
  starling completions fish > ~/.config/fish/completions/starling.fish";

/// Print what a shell needs to complete commands and options
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CompletionsArgs {
    /// Which shell
    shell: Shell,
}

pub fn run(args: CompletionsArgs, out: &Out) -> Result<ExitCode, Failure> {
    // Into memory first: the generator panics if its reader goes away.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "starling", &mut script);
    out.raw(&script)?;
    Ok(ExitCode::SUCCESS)
}
