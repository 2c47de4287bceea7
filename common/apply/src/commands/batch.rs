//! Groups the commands of a part of a stream into runs that may be executed at the same time.
//!
//! A *run* is a sequence of commands on one path that follow each other directly. Two runs of a batch give the same
//! result in either order: no two have the same path; if one makes an entry in a directory, no other changes the
//! attributes of that directory, because making an entry sets the times of the directory; and none is about a path beneath
//! what another one makes, which fails for another reason once that is there.

use std::collections::HashSet;

use sendshot_stream::Command;

use crate::commands::metadata;

/// A command and the offset of its first byte in the stream.
pub(crate) type Placed<'a> = (Command<'a>, u64);

/// Commands on one path, in the order of the stream.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) commands: Vec<Placed<'a>>,
}

impl Run<'_> {
    /// Whether its first command makes the entry.
    pub(crate) fn is_fresh(&self) -> bool {
        self.commands.first().is_some_and(|(c, _)| makes_entry(c))
    }
}

/// Most commands of a batch: each takes some hundred bytes while it waits.
const MOST: usize = 4096;

/// Runs that may be executed in any order, in the order of the stream.
#[derive(Debug, Default)]
pub(crate) struct Batch<'a> {
    runs: Vec<Run<'a>>,
    commands: usize,
    paths: HashSet<&'a [u8]>,
    /// The directories in which the runs make entries.
    filled: HashSet<&'a [u8]>,
    /// The paths that the runs make. None is a directory, so that nothing beneath one can be reached.
    made: HashSet<&'a [u8]>,
}

/// A command that has to wait until the batch is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Conflict;

impl<'a> Batch<'a> {
    /// Adds a command for which [`may_be_batched`] holds.
    ///
    /// # Errors
    /// [`Conflict`], or there are enough commands; nothing was added.
    pub(crate) fn add(&mut self, command: Command<'a>, offset: u64) -> Result<(), Conflict> {
        if self.commands == MOST {
            return Err(Conflict);
        }
        let path = command.path();
        match self.runs.last_mut() {
            // An entry cannot be made under a path that was just used: the run fails there, in order.
            Some(run) if run.commands.last().is_some_and(|(c, _)| c.path() == path) => {
                run.commands.push((command, offset));
                self.commands += 1;
                return Ok(());
            }
            _ => {}
        }
        let dir = directory(path);
        let makes = makes_entry(&command);
        if self.paths.contains(path)
            || self.filled.contains(path)
            || makes && self.paths.contains(dir)
            || ancestors(path).any(|above| self.made.contains(above))
        {
            return Err(Conflict);
        }
        self.paths.insert(path);
        if makes {
            self.filled.insert(dir);
            self.made.insert(path);
        }
        self.commands += 1;
        self.runs.push(Run {
            commands: vec![(command, offset)],
        });
        Ok(())
    }

    /// Returns the path of the last run.
    pub(crate) fn last_path(&self) -> Option<&'a [u8]> {
        let (command, _) = self.runs.last()?.commands.first()?;
        Some(command.path())
    }

    /// Takes the runs, which leaves it empty.
    pub(crate) fn take(&mut self) -> Vec<Run<'a>> {
        self.commands = 0;
        self.paths.clear();
        self.filled.clear();
        self.made.clear();
        std::mem::take(&mut self.runs)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}

/// Whether a command changes nothing but its own path, and the directory in which it makes the entry.
pub(crate) fn may_be_batched(command: &Command<'_>) -> bool {
    match *command {
        Command::Mkfile { .. }
        | Command::Mknod { .. }
        | Command::Mkfifo { .. }
        | Command::Mksock { .. }
        | Command::Symlink { .. }
        | Command::Write { .. }
        | Command::EncodedWrite { .. }
        | Command::Truncate { .. }
        | Command::Fallocate { .. }
        | Command::Chmod { .. }
        | Command::Chown { .. }
        | Command::Utimes { .. } => true,
        // What entries inherit from a directory concerns other paths.
        Command::SetXattr { name, .. } | Command::RemoveXattr { name, .. } => {
            !metadata::is_inherited(name)
        }
        Command::Subvol { .. }
        | Command::Snapshot { .. }
        | Command::Mkdir { .. }
        | Command::Rename { .. }
        | Command::Link { .. }
        | Command::Unlink { .. }
        | Command::Rmdir { .. }
        | Command::Clone { .. }
        | Command::UpdateExtent { .. }
        | Command::Fileattr { .. }
        | Command::End => false,
    }
}

/// Whether a command makes an entry that is no directory.
pub(crate) fn makes_entry(command: &Command<'_>) -> bool {
    matches!(
        command,
        Command::Mkfile { .. }
            | Command::Mknod { .. }
            | Command::Mkfifo { .. }
            | Command::Mksock { .. }
            | Command::Symlink { .. }
    )
}

/// The directory of a path, as the stream writes it; empty for the root.
fn directory(path: &[u8]) -> &[u8] {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    &path[..slash.unwrap_or(0)]
}

/// The directories on the way to a path, without the root.
fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    slashes.map(|(at, _)| &path[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(path: &str) -> Command<'_> {
        let path = path.as_bytes();
        Command::Mkfile { path }
    }

    fn chmod(path: &str) -> Command<'_> {
        let path = path.as_bytes();
        Command::Chmod { path, mode: 0o644 }
    }

    /// How many runs there are after all of the commands, or the first that conflicts.
    fn runs(commands: &[Command<'static>]) -> Result<usize, usize> {
        let mut batch = Batch::default();
        for (at, command) in commands.iter().enumerate() {
            batch.add(*command, at as u64).map_err(|_| at)?;
        }
        Ok(batch.take().len())
    }

    #[test]
    fn commands_on_one_path_are_one_run() {
        let one = [make("a/f"), chmod("a/f"), make("a/g"), chmod("a/g")];
        assert_eq!(runs(&one), Ok(2));
        assert_eq!(runs(&[make("a/f"), make("a/g"), chmod("a/f")]), Err(2));
    }

    #[test]
    fn a_directory_s_attributes_and_its_new_entries_are_not_in_one_batch() {
        assert_eq!(runs(&[make("a/f"), chmod("a")]), Err(1));
        assert_eq!(runs(&[chmod("a"), make("a/f")]), Err(1));
        assert_eq!(runs(&[make("f"), chmod("")]), Err(1));
        assert_eq!(runs(&[chmod(""), make("f")]), Err(1));
        assert_eq!(runs(&[chmod("a"), chmod("a/b"), chmod("a/b/c")]), Ok(3));
        assert_eq!(runs(&[make("a/b/f"), chmod("a")]), Ok(2));
        assert_eq!(runs(&[make("ab/f"), chmod("a")]), Ok(2));
    }

    #[test]
    fn nothing_beneath_a_new_entry_is_in_its_batch() {
        assert_eq!(runs(&[make("a/l"), chmod("a/l/x")]), Err(1));
        assert_eq!(runs(&[make("a/l"), chmod("a/l/x/y/z")]), Err(1));
        assert_eq!(runs(&[make("a/l"), chmod("a/lx/y"), chmod("a/x")]), Ok(3));
    }

    #[test]
    fn it_is_empty_after_it_was_taken() {
        let mut batch = Batch::default();
        batch.add(make("a/f"), 0).unwrap();
        assert_eq!(batch.last_path(), Some(&b"a/f"[..]));
        assert_eq!(batch.take().len(), 1);
        assert!(batch.is_empty() && batch.last_path().is_none());
        batch.add(chmod("a"), 1).unwrap();
        batch.add(chmod("a/f"), 2).unwrap();
    }

    #[test]
    fn it_holds_only_so_many_commands() {
        let mut batch = Batch::default();
        for at in 0..MOST {
            batch.add(chmod("f"), at as u64).unwrap();
        }
        assert_eq!(batch.add(chmod("f"), 0), Err(Conflict));
        assert_eq!(batch.add(chmod("g"), 0), Err(Conflict));
        assert_eq!(batch.take().len(), 1);
        batch.add(chmod("f"), 0).unwrap();
    }

    #[test]
    fn what_is_inherited_is_not_batched() {
        let set = |name: &'static str| Command::SetXattr {
            path: b"a",
            name: name.as_bytes(),
            data: b"",
        };
        assert!(may_be_batched(&set("user.x")));
        assert!(may_be_batched(&set("security.capability")));
        assert!(!may_be_batched(&set("system.posix_acl_default")));
        assert!(!may_be_batched(&set("btrfs.compression")));
    }
}
