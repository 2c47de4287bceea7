//! Location of a file's data on disk, as reported by `filefrag`.

use std::path::Path;

use crate::hosts::command::tool;

/// Bytes of a block in `filefrag`'s output.
const UNIT: u64 = 4096;

/// A range of a file that is not a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// Address on the file system, in bytes.
    pub physical: u64,
    /// Whether the range is reserved but not written.
    pub is_reserved: bool,
    /// Whether other files share the extent.
    pub is_shared: bool,
}

/// Lists the extents of a file after flushing it to disk.
///
/// # Panics
/// If `filefrag` fails or its output has another format.
#[track_caller]
pub fn of(file: &Path) -> Vec<Extent> {
    let sync = [
        "-s".as_ref(),
        "-v".as_ref(),
        "-b4096".as_ref(),
        file.as_os_str(),
    ];
    let printed = tool("filefrag", &sync);
    let lines = printed.lines().filter(|line| {
        let first = line.trim_start().split(':').next().unwrap_or_default();
        !first.is_empty() && first.bytes().all(|b| b.is_ascii_digit())
    });
    lines.map(parse).collect()
}

/// Parses `0:  0..  3:  3328..  3331:  4:  3456: last,unwritten,shared`.
fn parse(line: &str) -> Extent {
    let fields: Vec<&str> = line.split(':').map(str::trim).collect();
    let number = |text: &str| text.trim().parse::<u64>().unwrap();
    let flags = fields[fields.len() - 1];
    Extent {
        offset: number(fields[1].split("..").next().unwrap()) * UNIT,
        physical: number(fields[2].split("..").next().unwrap()) * UNIT,
        len: number(fields[3]) * UNIT,
        is_reserved: flags.contains("unwritten"),
        is_shared: flags.contains("shared"),
    }
}

/// Lists the ranges of a file that are reserved but not written, as offset and length.
///
/// # Panics
/// As [`of`].
#[track_caller]
pub fn reserved(file: &Path) -> Vec<(u64, u64)> {
    let extents = of(file).into_iter().filter(|extent| extent.is_reserved);
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for extent in extents {
        match ranges.last_mut() {
            Some((offset, len)) if *offset + *len == extent.offset => *len += extent.len,
            _ => ranges.push((extent.offset, extent.len)),
        }
    }
    ranges
}

/// Whether two files share the data on disk at the given offset.
///
/// # Panics
/// As [`of`].
#[track_caller]
pub fn share(a: &Path, b: &Path, offset: u64) -> bool {
    let at = |file: &Path| {
        let extents = of(file).into_iter();
        let mut found = extents.filter(|e| e.offset <= offset && offset < e.offset + e.len);
        found.next().map(|e| e.physical + (offset - e.offset))
    };
    at(a).is_some() && at(a) == at(b)
}
