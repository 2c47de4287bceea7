//! Measures the size of a stream without generating it, and which paths it consists of.

use std::collections::HashMap;

use sendshot_stream::{Command, Encoder};

use crate::diff::{Sink, Step, Version, diff};
use crate::format::file::Sendshot;
use crate::stream::{Error, chunk, encoded_head, version};

/// Minimum number of paths that a tally distinguishes: the cost of one path is spread over several places of
/// a stream, so a path that seems small at first can still turn out large.
const KEPT_APART: usize = 4096;

/// Size of a stream that is not generated yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Length in bytes: exact, unless an extent that is stored compressed must be sent decoded.
    pub bytes: u64,
    /// Number of commands.
    pub commands: u64,
    /// Number of the bytes that are file data, in the form in which they are sent.
    pub data: u64,
}

/// Size of the commands about one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathCost {
    /// The path; empty for the root directory and for the stream as a whole.
    pub path: Vec<u8>,
    /// Length of the commands in bytes.
    pub bytes: u64,
}

/// Returns the size of the stream that [`stream()`](crate::stream()) would write.
///
/// # Errors
/// [`Error::Diff`] or [`Error::Encode`].
pub fn measure(
    parent: Option<&Sendshot>,
    target: &Sendshot,
    name: &[u8],
    version: Version,
) -> Result<Size, Error> {
    let mut counter = Counter::new(version, Tally::default());
    diff(parent, target, name, version, &mut counter)?;
    Ok(counter.size)
}

/// Returns the size like [`measure`], and the `top` most expensive paths, the most expensive first.
///
/// # Errors
/// [`Error::Diff`] or [`Error::Encode`].
pub fn measure_paths(
    parent: Option<&Sendshot>,
    target: &Sendshot,
    name: &[u8],
    version: Version,
    top: usize,
) -> Result<(Size, Vec<PathCost>), Error> {
    let mut counter = Counter::new(version, Tally::of(top));
    diff(parent, target, name, version, &mut counter)?;
    Ok((counter.size, counter.tally.dearest()))
}

/// Counts steps instead of executing them.
struct Counter {
    encoder: Encoder,
    chunk: usize,
    size: Size,
    tally: Tally,
    scratch: Vec<u8>,
}

impl Counter {
    fn new(stream: Version, tally: Tally) -> Self {
        Self {
            encoder: Encoder::new(version(stream)),
            chunk: chunk(stream),
            size: Size {
                bytes: sendshot_stream::HEADER_LEN as u64,
                ..Size::default()
            },
            tally,
            scratch: Vec::new(),
        }
    }

    fn count(&mut self, command: &Command<'_>, data: u64) -> Result<(), Error> {
        self.scratch.clear();
        self.encoder.command(command, &mut self.scratch)?;
        let bytes = self.scratch.len() as u64 + data;
        self.size.bytes += bytes;
        self.size.data += data;
        self.size.commands += 1;
        self.tally.add(command, bytes);
        Ok(())
    }
}

impl Sink for Counter {
    type Error = Error;

    fn step(&mut self, step: Step<'_>) -> Result<(), Error> {
        match step {
            Step::Command(command) => self.count(&command, 0),
            Step::Data {
                path, offset, len, ..
            } => {
                let (mut at, end) = (offset, offset + len);
                while at < end {
                    let len = (end - at).min(self.chunk as u64);
                    let data = b"";
                    let offset = at;
                    self.count(&Command::Write { path, offset, data }, len)?;
                    at += len;
                }
                Ok(())
            }
            Step::Encoded { path, extent, len } => {
                self.count(&encoded_head(path, &extent, len), extent.disk_len)
            }
            Step::Check { .. } | Step::Hash { .. } => Ok(()),
        }
    }
}

/// Bytes by path. The number of paths is bounded: when there are too many, the cheapest are dropped. So a
/// path's sum is never too large, and too small only if its parts were each among the cheapest.
#[derive(Debug, Default)]
struct Tally {
    top: usize,
    paths: HashMap<Vec<u8>, u64>,
}

impl Tally {
    fn of(top: usize) -> Self {
        Self {
            top,
            paths: HashMap::new(),
        }
    }

    /// Adds a command. A rename counts for the name that remains.
    fn add(&mut self, command: &Command<'_>, bytes: u64) {
        if self.top == 0 {
            return;
        }
        let path = match *command {
            Command::Rename { to, .. } => to,
            Command::Subvol { .. } | Command::Snapshot { .. } => &[],
            other => other.path(),
        };
        match self.paths.get_mut(path) {
            Some(sum) => *sum += bytes,
            None => {
                self.paths.insert(path.to_vec(), bytes);
                self.forget_the_cheapest();
            }
        }
    }

    fn forget_the_cheapest(&mut self) {
        let kept = self.top.max(KEPT_APART);
        if self.paths.len() <= 2 * kept {
            return;
        }
        let mut all: Vec<_> = self.paths.drain().collect();
        all.select_nth_unstable_by(kept, |a, b| b.1.cmp(&a.1));
        all.truncate(kept);
        self.paths.extend(all);
    }

    fn dearest(self) -> Vec<PathCost> {
        let mut all: Vec<PathCost> = self
            .paths
            .into_iter()
            .map(|(path, bytes)| PathCost { path, bytes })
            .collect();
        all.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
        all.truncate(self.top);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &[u8]) -> Command<'_> {
        Command::Write {
            path,
            offset: 0,
            data: b"",
        }
    }

    #[test]
    fn the_dearest_paths_come_first() {
        let mut tally = Tally::of(2);
        for (path, bytes) in [(b"a", 5), (b"b", 7), (b"c", 1), (b"a", 5)] {
            tally.add(&write(path), bytes);
        }
        let rename = Command::Rename {
            path: b"c",
            to: b"b",
        };
        tally.add(&rename, 1);
        let dearest: Vec<_> = tally
            .dearest()
            .into_iter()
            .map(|cost| (cost.path, cost.bytes))
            .collect();
        assert_eq!(dearest, [(b"a".to_vec(), 10), (b"b".to_vec(), 8)]);
    }

    #[test]
    fn a_dear_path_is_found_among_more_than_can_be_held() {
        let mut tally = Tally::of(1);
        for i in 0..100_000_u32 {
            tally.add(&write(&i.to_le_bytes()), 1 + u64::from(i == 70_000));
            assert!(tally.paths.len() <= 2 * KEPT_APART + 1);
        }
        let dearest = tally.dearest();
        assert_eq!(dearest[0].path, 70_000_u32.to_le_bytes());
    }
}
