//! Groups the commands of a part of a stream into runs that may be executed at the same time.
//!
//! A *run* is a sequence of commands on one path that follow each other directly. Two runs of a batch give the same
//! result in either order: no two have the same path; if one makes an entry in a directory, no other changes the
//! attributes of that directory, because making an entry sets the times of the directory; and none is about a path beneath
//! what another one makes, which fails for another reason once that is there.
//!
//! The kernel's stream makes each new inode under a temporary name in the root, and then renames it. Such a pair is
//! executed as one command, which makes the inode in its place.
//!
//! A new directory does not have to wait for the runs before it: it is made at once, unless one of them concerns it.

use std::collections::HashSet;

use sendshot_stream::Command;

use crate::commands::metadata;
use crate::commands::run::{NewDir, Renamed, Run, makes_entry};
use crate::paths;

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
    /// The directory that was made last, if only commands on it have followed.
    new_dir: Option<&'a [u8]>,
    /// A directory in the root that is still to be made: the next command may rename it.
    held: Option<NewDir<'a>>,
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
        self.new_dir = None;
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
        let makes = makes_entry(&command);
        if self.concerns(path, makes) {
            return Err(Conflict);
        }
        self.note(path, makes);
        self.commands += 1;
        self.runs.push(Run {
            commands: vec![(command, offset)],
            renamed: None,
        });
        Ok(())
    }

    /// Adds a rename if the entry was made by the command before it, in the root.
    ///
    /// # Errors
    /// [`Conflict`], or it is another rename; nothing was added.
    pub(crate) fn add_rename(
        &mut self,
        temporary: &'a [u8],
        to: &'a [u8],
        offset: u64,
    ) -> Result<(), Conflict> {
        let concerned = to.is_empty() || self.concerns(to, true);
        let Some(run) = self.runs.last_mut() else {
            return Err(Conflict);
        };
        let [(make, _)] = &mut run.commands[..] else {
            return Err(Conflict);
        };
        let is_new = make.path() == temporary && run.renamed.is_none() && makes_entry(make);
        if !is_new || concerned || paths::single(temporary).is_err() {
            return Err(Conflict);
        }
        self.new_dir = None;
        *make = make.with_path(to);
        run.renamed = Some(Renamed { temporary, offset });
        self.note(to, true);
        Ok(())
    }

    /// Whether a directory can be made before the runs are executed. A run that is about something deeper in it fails in
    /// both cases.
    pub(crate) fn admits(&self, dir: &NewDir<'a>) -> bool {
        let free = |path| !self.concerns(path, true);
        let temporary = dir.renamed.is_none_or(|renamed| free(renamed.temporary));
        temporary && free(dir.path)
    }

    /// Notes that a directory was made which it admits.
    pub(crate) fn made_dir(&mut self, path: &'a [u8]) {
        self.new_dir = Some(path);
    }

    /// Whether a command is about the directory that was made last, and can be executed as early.
    pub(crate) fn is_of_new_dir(&self, command: &Command<'_>) -> bool {
        self.new_dir == Some(command.path()) && may_be_batched(command) && !makes_entry(command)
    }

    /// Keeps a directory that is to be made until the next command.
    pub(crate) fn hold(&mut self, dir: NewDir<'a>) {
        self.held = Some(dir);
    }

    /// Takes the directory that is kept.
    pub(crate) fn release(&mut self) -> Option<NewDir<'a>> {
        self.held.take()
    }

    /// Whether a command on a path has to wait for the runs; `makes` means that it makes an entry there.
    fn concerns(&self, path: &[u8], makes: bool) -> bool {
        self.paths.contains(path)
            || self.filled.contains(path)
            || makes && self.paths.contains(directory(path))
            || ancestors(path).any(|above| self.made.contains(above))
    }

    fn note(&mut self, path: &'a [u8], makes: bool) {
        self.paths.insert(path);
        if makes {
            self.filled.insert(directory(path));
            self.made.insert(path);
        }
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
        self.new_dir = None;
        std::mem::take(&mut self.runs)
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
    fn an_entry_that_is_renamed_at_once_is_made_in_its_place() {
        let mut batch = Batch::default();
        batch.add(make("d/before"), 1).unwrap();
        assert_eq!(batch.add_rename(b"d/before", b"e", 2), Err(Conflict));
        batch.add(make("o1"), 3).unwrap();
        assert_eq!(batch.add_rename(b"o2", b"d/f", 4), Err(Conflict));
        assert_eq!(batch.add_rename(b"o1", b"d/before", 4), Err(Conflict));
        assert_eq!(batch.add_rename(b"o1", b"o1/x", 4), Err(Conflict));
        assert_eq!(batch.add_rename(b"o1", b"d", 4), Err(Conflict));
        assert_eq!(batch.add_rename(b"o1", b"", 4), Err(Conflict));
        batch.add_rename(b"o1", b"d/f", 4).unwrap();
        assert_eq!(batch.add_rename(b"o1", b"d/g", 5), Err(Conflict));
        assert_eq!(batch.add_rename(b"d/f", b"d/g", 5), Err(Conflict));
        batch.add(chmod("d/f"), 6).unwrap();
        assert_eq!(batch.add(chmod("o1"), 7), Err(Conflict));
        assert_eq!(batch.add(make("d/f/x"), 7), Err(Conflict));
        batch.add(make("o2"), 8).unwrap();
        batch.add(chmod("o2"), 9).unwrap();
        assert_eq!(batch.add_rename(b"o2", b"d/g", 10), Err(Conflict));
        let runs = batch.take();
        let paths: Vec<_> = runs[1].commands.iter().map(|(c, _)| c.path()).collect();
        assert_eq!(paths, [b"d/f", b"d/f"]);
        let temporary = b"o1" as &[u8];
        assert_eq!(
            runs[1].renamed,
            Some(Renamed {
                temporary,
                offset: 4
            })
        );
        assert!(runs[0].renamed.is_none() && runs[2].renamed.is_none());
    }

    #[test]
    fn only_what_concerns_no_run_is_made_before_them() {
        let admits = |path: &'static str| {
            let mut batch = Batch::default();
            batch.add(make("a/f"), 0).unwrap();
            batch.add(chmod("b"), 1).unwrap();
            batch.add(chmod("c/d/e"), 2).unwrap();
            let dir = NewDir::new(path.as_bytes(), 3);
            let rename = Command::Rename {
                path: path.as_bytes(),
                to: b"n",
            };
            let renamed = dir.renamed_by(&rename, 4).unwrap();
            assert_eq!(batch.admits(&dir), batch.admits(&renamed), "{path}");
            batch.admits(&dir)
        };
        for free in ["x", "a/x", "c", "c/d", "c/d/x", "ab"] {
            assert!(admits(free), "{free}");
        }
        for concerned in ["a", "a/f", "a/f/x", "b", "b/x", "c/d/e", "c/d/e/x"] {
            assert!(!admits(concerned), "{concerned}");
        }
    }

    #[test]
    fn attributes_of_a_new_directory_come_as_early_until_something_else_comes() {
        let mut batch = Batch::default();
        assert!(!batch.is_of_new_dir(&chmod("a")));
        batch.made_dir(b"a");
        assert!(batch.is_of_new_dir(&chmod("a")) && batch.is_of_new_dir(&chmod("a")));
        assert!(!batch.is_of_new_dir(&chmod("b")) && !batch.is_of_new_dir(&make("a")));
        batch.add(make("a/f"), 0).unwrap();
        assert!(!batch.is_of_new_dir(&chmod("a")));
        assert_eq!(batch.add(chmod("a"), 1), Err(Conflict));
        batch.add(make("o1"), 2).unwrap();
        batch.made_dir(b"c");
        batch.add_rename(b"o1", b"c/f", 3).unwrap();
        assert!(!batch.is_of_new_dir(&chmod("c")));
        batch.made_dir(b"b");
        batch.take();
        assert!(!batch.is_of_new_dir(&chmod("b")));
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
        assert!(batch.last_path().is_none() && batch.take().is_empty());
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
