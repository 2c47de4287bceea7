//! Streams from `btrfs send`, and stock `btrfs receive` as reference.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use sendshot_stream::{Item, Parser};

use crate::disks::loopfs::{output, run};

/// Kind of stream that `btrfs send` makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Version 1.
    V1,
    /// Version 2, data decoded.
    V2,
    /// Version 2, compressed extents as stored.
    V2Compressed,
}

/// Creates the subvolume `path`.
///
/// # Errors
/// If `btrfs` fails.
pub fn create(path: &Path) -> Result<()> {
    run(btrfs(&["subvolume", "create"]).arg(path))
}

/// Takes a read-only snapshot.
///
/// # Errors
/// If `btrfs` fails.
pub fn snapshot(source: &Path, snapshot: &Path) -> Result<()> {
    run(btrfs(&["subvolume", "snapshot", "-r"])
        .arg(source)
        .arg(snapshot))
}

/// Deletes a subvolume; the cleaner frees its data later.
///
/// # Errors
/// If `btrfs` fails.
pub fn delete(subvolume: &Path) -> Result<()> {
    run(btrfs(&["subvolume", "delete", "--commit-after"]).arg(subvolume))
}

/// Returns the stream of a snapshot, incremental if there is a parent. Holds all of it in memory.
///
/// # Errors
/// If `btrfs` fails.
pub fn send(format: Format, parent: Option<&Path>, snapshot: &Path) -> Result<Vec<u8>> {
    let mut command = btrfs(&["send", "--quiet"]);
    command.args(match format {
        Format::V1 => &["--proto", "1"][..],
        Format::V2 => &["--proto", "2"],
        Format::V2Compressed => &["--proto", "2", "--compressed-data"],
    });
    if let Some(parent) = parent {
        command.arg("-p").arg(parent);
    }
    output(command.arg(snapshot))
}

/// Receives a stream into `dir` with stock `btrfs receive`.
///
/// # Errors
/// If `btrfs` fails.
pub fn stock_receive(stream: &[u8], dir: &Path) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), stream)?;
    run(btrfs(&["receive", "-f"]).arg(file.path()).arg(dir))
}

/// Counts the commands of a stream by kind.
///
/// # Errors
/// If the stream does not parse.
pub fn commands(stream: &[u8]) -> Result<BTreeMap<&'static str, u64>> {
    let mut counts = BTreeMap::new();
    let (mut parser, mut input) = (Parser::new(), stream);
    while let Some(located) = parser.next(&mut input)? {
        if let Item::Command(command) = located.item {
            *counts.entry(command.name()).or_default() += 1;
        }
    }
    parser.finish()?;
    Ok(counts)
}

fn btrfs(arguments: &[&str]) -> Command {
    let mut command = Command::new("btrfs");
    command.args(arguments);
    command
}
