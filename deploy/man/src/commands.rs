//! The pages of commands, section 8.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::Command;
use clap_mangen::Man;

use crate::Page;

const SECTION: u8 = 8;

/// Adds the page of a command, and those of its subcommands.
///
/// # Errors
/// I/O errors of the prose.
pub fn pages(mut command: Command, prose: &Path, pages: &mut Vec<Page>) -> io::Result<()> {
    command.build();
    let version = command.get_version().unwrap_or_default().to_owned();
    of(command, &version, prose, pages)
}

fn of(command: Command, version: &str, prose: &Path, pages: &mut Vec<Page>) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let name = name.to_owned();
    let subcommands: Vec<Command> = command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
        .cloned()
        .collect();
    let names: Vec<String> = subcommands
        .iter()
        .map(|sub| sub.get_display_name().unwrap_or(sub.get_name()).to_owned())
        .collect();
    let page = command.disable_help_subcommand(true);
    let text = text(page, &name, version, prose, &names)?;
    pages.push(Page {
        name,
        section: SECTION,
        text,
    });
    for sub in subcommands {
        of(sub, version, prose, pages)?;
    }
    Ok(())
}

fn text(
    command: Command,
    name: &str,
    version: &str,
    prose: &Path,
    subcommands: &[String],
) -> io::Result<Vec<u8>> {
    let man = Man::new(command)
        .title(name.to_uppercase())
        .section(SECTION.to_string())
        .source(format!("Sendshot {version}"))
        .manual("Sendshot");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if !subcommands.is_empty() {
        man.render_subcommands_section(&mut text)?;
    }
    text.extend(of_page(prose, name)?);
    let is_ctl = name.starts_with("sendshotctl");
    if is_ctl {
        text.extend(of_page(prose, "exit-status")?);
    }
    writeln!(text, ".SH \"SEE ALSO\"")?;
    let mut others: Vec<&str> = subcommands.iter().map(String::as_str).collect();
    let above = name.rsplit_once('-').map(|(above, _)| above);
    others.extend(above.filter(|_| is_ctl));
    for daemon in ["sendshot-receiver", "sendshot-sender", "sendshotctl"] {
        if daemon != name && !others.contains(&daemon) {
            others.push(daemon);
        }
    }
    others.sort_unstable();
    for other in others {
        writeln!(text, ".BR {} ({SECTION}),", escaped(other))?;
    }
    writeln!(
        text,
        ".BR sendshot\\-sender.toml (5),\n.BR sendshot\\-receiver.toml (5)"
    )?;
    Ok(text)
}

/// The prose of a page: sections in roff; nothing if there is none.
pub fn of_page(prose: &Path, name: &str) -> io::Result<Vec<u8>> {
    match fs::read(prose.join(format!("{name}.roff"))) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}

/// A text with the characters escaped that roff would change.
pub fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}
