//! Leaves out changes of attributes that would change nothing: most new files have the owner of their maker, and a
//! mode that they can be made with.

use rustix::fs::{FileType, Mode, Stat};
use sendshot_stream::Command;

use crate::commands::metadata::PERMISSIONS;
use crate::commands::run::Run;
use crate::error::Cause;

/// The owner's permissions to read and write.
const OWNER: u64 = 0o600;
/// Permissions without the set-id bits and the sticky bit.
const PLAIN: u64 = 0o777;
/// The set-user-id and set-group-id bits.
const SET_ID: u32 = 0o6000;

/// What is known of the entry that a run makes.
#[derive(Debug)]
pub(crate) struct Fold {
    /// Whether it was made by this run and has no attribute that a change of its owner or mode could remove.
    applies: bool,
    /// Its metadata, if nothing has changed since they were read.
    stat: Option<Stat>,
}

impl Fold {
    pub(crate) fn new(run: &Run<'_>) -> Self {
        Self {
            applies: run.is_fresh(),
            stat: None,
        }
    }

    /// Whether executing the next command of the run would change nothing. `stat` reads the metadata of the entry.
    ///
    /// A change of the owner also removes set-id bits and file capabilities: it is left out only where neither can
    /// be there.
    ///
    /// # Errors
    /// Those of `stat`.
    pub(crate) fn leaves_out(
        &mut self,
        command: &Command<'_>,
        stat: impl FnOnce() -> Result<Stat, Cause>,
    ) -> Result<bool, Cause> {
        if !self.applies {
            return Ok(false);
        }
        let leaves_out = match *command {
            Command::Chown { uid, gid, .. } => {
                let stat = self.stat(stat)?;
                let equal = (u64::from(stat.st_uid), u64::from(stat.st_gid)) == (uid, gid);
                equal && stat.st_mode & SET_ID == 0
            }
            Command::Chmod { mode, .. } => {
                let stat = self.stat(stat)?;
                let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
                !is_link && u64::from(stat.st_mode) & PERMISSIONS == mode
            }
            _ => false,
        };
        if !leaves_out {
            self.stat = None;
        }
        if let Command::SetXattr { .. } | Command::RemoveXattr { .. } = command {
            self.applies = false;
        }
        Ok(leaves_out)
    }

    fn stat(&mut self, stat: impl FnOnce() -> Result<Stat, Cause>) -> Result<Stat, Cause> {
        match self.stat {
            Some(stat) => Ok(stat),
            None => Ok(*self.stat.insert(stat()?)),
        }
    }
}

/// The mode with which a run's file can be made, if a later command of the run sets it and nothing comes in between
/// that depends on the mode. All data of the run is written through the descriptor of its making.
pub(crate) fn mode_of(run: &Run<'_>) -> Option<Mode> {
    let mut commands = run.commands.iter().map(|(command, _)| command);
    let Some(Command::Mkfile { .. }) = commands.next() else {
        return None;
    };
    for command in commands {
        match *command {
            Command::Chmod { mode, .. } => {
                let fits = mode & !PLAIN == 0 && mode & OWNER == OWNER;
                return fits.then(|| Mode::from_raw_mode((mode & PLAIN) as u32));
            }
            Command::Write { .. }
            | Command::EncodedWrite { .. }
            | Command::Truncate { .. }
            | Command::Fallocate { .. }
            | Command::Chown { .. }
            | Command::Utimes { .. } => {}
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    const PATH: &[u8] = b"f";

    fn run<'a>(commands: &[Command<'a>]) -> Run<'a> {
        Run {
            commands: commands.iter().map(|command| (*command, 0)).collect(),
            renamed: None,
        }
    }

    fn chmod(mode: u64) -> Command<'static> {
        Command::Chmod { path: PATH, mode }
    }

    const MAKE: Command<'static> = Command::Mkfile { path: PATH };
    const WRITE: Command<'static> = Command::Write {
        path: PATH,
        offset: 0,
        data: b"x",
    };
    const CAPABILITY: Command<'static> = Command::SetXattr {
        path: PATH,
        name: b"security.capability",
        data: b"",
    };

    #[test]
    fn a_file_is_made_with_a_plain_mode_only() {
        let of = |commands: &[Command<'static>]| mode_of(&run(commands)).map(|mode| mode.bits());
        assert_eq!(of(&[MAKE, WRITE, chmod(0o644)]), Some(0o644));
        assert_eq!(of(&[MAKE, chmod(0o640), chmod(0o600)]), Some(0o640));
        for special in [0o4755, 0o2755, 0o1755, 0o444, 0o000, 0o10_0644] {
            assert_eq!(of(&[MAKE, chmod(special)]), None, "{special:o}");
        }
        assert_eq!(of(&[MAKE, CAPABILITY, chmod(0o644)]), None);
        assert_eq!(of(&[WRITE, chmod(0o644)]), None);
        assert_eq!(of(&[MAKE, WRITE]), None);
    }

    /// Which of the commands are left out for a file with this mode, owned by this process.
    fn left_out(commands: &[Command<'static>], mode: u32) -> Vec<bool> {
        let file = tempfile::tempfile().unwrap();
        rustix::fs::fchmod(file.as_fd(), Mode::from_raw_mode(mode)).unwrap();
        let mut fold = Fold::new(&run(commands));
        let stat = || rustix::fs::fstat(&file).map_err(Cause::from);
        commands
            .iter()
            .map(|command| fold.leaves_out(command, stat).unwrap())
            .collect()
    }

    #[test]
    fn only_what_changes_nothing_is_left_out() {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let chown = |more: u64| Command::Chown {
            path: PATH,
            uid: u64::from(uid.as_raw()) + more,
            gid: gid.as_raw().into(),
        };
        let same = [MAKE, WRITE, chown(0), chmod(0o644)];
        assert_eq!(left_out(&same, 0o644), [false, false, true, true]);
        assert_eq!(left_out(&same, 0o600), [false, false, true, false]);
        // The owner's change would remove the bit.
        assert_eq!(left_out(&same, 0o4644), [false; 4]);
        assert_eq!(left_out(&[MAKE, chown(1)], 0o644), [false; 2]);
        // It would remove the capability, too.
        assert_eq!(left_out(&[MAKE, CAPABILITY, chown(0)], 0o644), [false; 3]);
        // What was there before may have any attribute.
        assert_eq!(
            left_out(&[WRITE, chown(0), chmod(0o644)], 0o644),
            [false; 3]
        );
    }
}
