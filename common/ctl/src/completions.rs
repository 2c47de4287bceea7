//! `sendshotctl completions`.

use std::io;
use std::process::ExitCode;

use clap::CommandFactory;

use crate::arguments::Arguments;
use crate::outcome::Outcome;

pub fn run(shell: clap_complete::Shell) -> Outcome {
    let mut command = Arguments::command();
    clap_complete::generate(shell, &mut command, "sendshotctl", &mut io::stdout());
    Ok(ExitCode::SUCCESS)
}
