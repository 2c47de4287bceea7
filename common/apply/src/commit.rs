//! From a finished staging subvolume to a copy.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;

use rustix::io::Errno;
use sendshot_sys::subvolume::{self, Access, Info};
use sendshot_sys::{crash, durable};

use crate::commands::applier::Identity;
use crate::staging::{Staged, StagingError};

/// How many names to try. More copies of one second would mean that something is wrong.
const MAX_NUMBER: u32 = 1000;

/// What to do when the name of a copy is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Fail.
    Refuse,
    /// Take the name with `-2`, else with `-3`, and so on.
    Number,
}

/// A copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its name.
    pub name: OsString,
    /// What the file system says of it.
    pub info: Info,
}

/// Why a commit failed. Nothing of it is left then but, after [`CommitError::Verify`] with a
/// failed deletion and after [`CommitError::Leftover`], what those say.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Something that was written did not reach the disk.
    #[error("write everything to disk")]
    Flush(#[source] io::Error),
    /// The identity could not be recorded.
    #[error("record the received UUID")]
    SetReceived(#[source] io::Error),
    /// The name, and with [`Taken::Number`] all numbered ones, are taken.
    #[error("{} exists already", .0.display())]
    Exists(OsString),
    /// The snapshot could not be made.
    #[error("make the read-only snapshot {}", .name.display())]
    Snapshot {
        /// Its name.
        name: OsString,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The copy could not be looked at.
    #[error("look at the new copy {}", .name.display())]
    Inspect {
        /// Its name.
        name: OsString,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The copy is not what it was made to be, which only a change from outside explains.
    #[error("{} was changed while it was made", .0.display())]
    Verify(OsString),
    /// The copy stands, but staging could not be deleted.
    #[error("the copy {} is complete, but its staging subvolume is left", .copy.name.display())]
    Leftover {
        /// The copy.
        copy: Box<Committed>,
        /// Why.
        #[source]
        source: StagingError,
    },
}

/// Makes the finished staging subvolume a read-only copy `name` in the directory `target`, on
/// the same file system. When this returns, the copy is durable.
///
/// The steps, and what a crash after each leaves:
///
/// 1. Write everything to disk, and learn whether anything failed to be written since the
///    staging subvolume was opened. Left: a staging subvolume, which the next start deletes.
/// 2. Record the received UUID on it. Left: the same. It is writable and in the staging
///    area, so nothing takes it for a parent.
/// 3. Make one read-only snapshot of it under the final name; that is atomic and inherits the
///    received UUID. Left: the copy, complete, and a staging subvolume.
/// 4. Check that the copy is what it should be: nobody else can reach staging, but if somebody
///    did, better no copy than a wrong one. Left: as after 3.
/// 5. Delete the staging subvolume. Left: the copy.
///
/// # Errors
/// See [`CommitError`].
pub fn commit(
    staged: Staged,
    target: impl AsFd,
    name: &OsStr,
    identity: Identity,
    taken: Taken,
) -> Result<Committed, CommitError> {
    flush(staged.root()).map_err(CommitError::Flush)?; // 1
    crash::point("commit-flushed");
    subvolume::set_received(staged.root(), identity.uuid, identity.ctransid)
        .map_err(CommitError::SetReceived)?; // 2
    crash::point("commit-received");
    let name = snapshot(&staged, &target, name, taken)?; // 3
    crash::point("commit-snapshot");
    let copy = verified(&target, name, identity)?; // 4
    match staged.destroy() {
        Ok(()) => {
            crash::point("commit-destroyed");
            Ok(copy)
        }
        Err(source) => Err(CommitError::Leftover {
            copy: Box::new(copy),
            source,
        }),
    }
}

/// Writes to disk all that was written to the file system of `root`.
///
/// Data is written back long after the calls that wrote it have succeeded. A failure then
/// shows only here, and only through a descriptor that was opened before; a snapshot would
/// silently lack the data.
///
/// # Errors
/// The kernel's, for failures of now or since `root` was opened, of any file on the same
/// file system.
pub fn flush(root: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::syncfs(root)?)
}

fn snapshot(
    staged: &Staged,
    target: impl AsFd,
    name: &OsStr,
    taken: Taken,
) -> Result<OsString, CommitError> {
    let last = match taken {
        Taken::Refuse => 1,
        Taken::Number => MAX_NUMBER,
    };
    for number in 1..=last {
        let name = numbered(name, number);
        match subvolume::snapshot(staged.root(), &target, &name, Access::ReadOnly) {
            Ok(()) => return Ok(name),
            Err(e) if Errno::from_io_error(&e) == Some(Errno::EXIST) => {}
            Err(source) => return Err(CommitError::Snapshot { name, source }),
        }
    }
    Err(CommitError::Exists(name.to_owned()))
}

fn numbered(name: &OsStr, number: u32) -> OsString {
    let mut numbered = name.to_owned();
    if number > 1 {
        numbered.push(format!("-{number}"));
    }
    numbered
}

/// Describes the copy, after a check that it is untouched; deletes it if it is not.
fn verified(
    target: impl AsFd,
    name: OsString,
    identity: Identity,
) -> Result<Committed, CommitError> {
    let info = durable::open_dir(&target, &name).and_then(subvolume::info);
    match info {
        Ok(info) if is_as_made(&info, identity) => Ok(Committed { name, info }),
        Ok(_) => {
            discard(target, &name);
            Err(CommitError::Verify(name))
        }
        Err(source) => {
            discard(target, &name);
            Err(CommitError::Inspect { name, source })
        }
    }
}

fn is_as_made(info: &Info, identity: Identity) -> bool {
    let received = (info.received_uuid, info.stransid) == (identity.uuid, identity.ctransid);
    received && info.is_pristine()
}

fn discard(target: impl AsFd, name: &OsStr) {
    if let Err(e) = subvolume::destroy(target, name) {
        tracing::error!(name = %name.display(), error = %e, "a copy that failed its check stays");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_further_names_are_numbered() {
        let name = OsStr::new("20261122T030000Z");
        assert_eq!(numbered(name, 1), "20261122T030000Z");
        assert_eq!(numbered(name, 2), "20261122T030000Z-2");
    }
}
