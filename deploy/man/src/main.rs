//! Writes the manual pages into a directory: those of the commands from the definitions of their command lines, those of the
//! configuration files from the commented examples, each with the prose beside this program.

mod commands;
mod files;

use std::path::PathBuf;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use sendshot_ctl::arguments::Arguments as Ctl;
use sendshot_receiver::arguments::ReceiverArguments;
use sendshot_sender::arguments::{RestoreArguments, SenderArguments};

/// Writes the manual pages.
#[derive(Debug, Parser)]
struct Arguments {
    /// Directory with the commented examples and the prose: `deploy` of the source tree
    #[arg(long, value_name = "DIR", default_value = "deploy")]
    source: PathBuf,
    /// Directory for the pages, with a folder for each section
    to: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let prose = arguments.source.join("man/prose");
    let mut pages = Vec::new();
    for command in [
        Ctl::command(),
        SenderArguments::command(),
        ReceiverArguments::command(),
        RestoreArguments::command(),
    ] {
        commands::pages(command, &prose, &mut pages)?;
    }
    for (page, example, what) in files::EXAMPLES {
        let path = arguments.source.join(example);
        let text = std::fs::read_to_string(&path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        pages.push(files::page(page, what, &text, &prose)?);
    }
    for page in &pages {
        let dir = arguments.to.join(format!("man{}", page.section));
        std::fs::create_dir_all(&dir)?;
        let path = dir.join(format!("{}.{}", page.name, page.section));
        std::fs::write(&path, &page.text)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// A manual page.
struct Page {
    name: String,
    section: u8,
    text: Vec<u8>,
}
