//! Commits a finished staging subvolume as a copy.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;

use rustix::io::Errno;
use sendshot_sys::durable::Filled;
use sendshot_sys::subvolume::{self, Access, Info};
use sendshot_sys::{crash, durable, filesystem};

use crate::commands::applier::Identity;
use crate::staging::{Staged, StagingError};

/// Maximum number of names to try. More copies in one second would indicate a fault.
const MAX_NUMBER: u32 = 1000;

/// Handling of a copy's name that already exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The commit fails.
    Refuse,
    /// The commit uses the name with `-2`, otherwise with `-3`, and so on.
    Number,
}

/// A committed copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its name in the target directory.
    pub name: OsString,
    /// Its metadata from the file system.
    pub info: Info,
}

/// Reason why a commit failed. It leaves no copy, except after [`CommitError::Verify`] with a failed deletion
/// and after [`CommitError::Leftover`], as described there.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Written data did not reach the disk.
    #[error("cannot write everything to disk")]
    Flush(#[source] io::Error),
    /// A note could not take its name.
    #[error("cannot note the copy")]
    Note(#[source] io::Error),
    /// The received UUID and transaction number could not be recorded.
    #[error("cannot record the received UUID")]
    SetReceived(#[source] io::Error),
    /// The name, and with [`Taken::Number`] every numbered one, exists already.
    #[error("{} exists already", .0.display())]
    Exists(OsString),
    /// The snapshot could not be made.
    #[error("cannot make the read-only snapshot {}", .name.display())]
    Snapshot {
        /// Name of the copy.
        name: OsString,
        /// Error from the kernel.
        #[source]
        source: io::Error,
    },
    /// The copy could not be inspected.
    #[error("cannot check the new copy {}", .name.display())]
    Inspect {
        /// Name of the copy.
        name: OsString,
        /// Error from the kernel.
        #[source]
        source: io::Error,
    },
    /// The copy differs from what was committed, which only a change from outside explains.
    #[error("{} was changed while it was made", .0.display())]
    Verify(OsString),
    /// The copy is complete, but the staging subvolume could not be deleted.
    #[error("the copy {} is complete, but its staging subvolume is left", .copy.name.display())]
    Leftover {
        /// The complete copy.
        copy: Box<Committed>,
        /// Reason for the failed deletion.
        #[source]
        source: StagingError,
    },
}

/// Makes the finished staging subvolume a read-only copy `name` in the directory `target`, on the same file
/// system. When it returns, the copy is durable, and so are `notes`: files of this file system that must be there if
/// the copy is.
///
/// The steps, and what a crash after each leaves:
///
/// 1. Write everything to disk, and detect any write failure since the staging subvolume was opened. A crash
///    leaves a staging subvolume, which the next start deletes.
/// 2. Let the notes take their names. Their content is on disk since 1, and the names are with the next commit of the
///    file system, which 3 and 4 make: no copy can be there without them. A crash leaves the same as after 1, and perhaps
///    notes of a copy that does not exist.
/// 3. Record the received UUID on the staging subvolume. A crash leaves the same: it is writable and in the staging
///    area, so it is never used as a parent.
/// 4. Make one read-only snapshot of it under the final name; this is atomic and inherits the received UUID.
///    A crash leaves the complete copy and a staging subvolume.
/// 5. Check that the copy is as committed: other processes cannot reach staging, but if one did, a missing copy
///    is better than a wrong one. A crash leaves the same as after 4.
/// 6. Delete the staging subvolume. A crash leaves the copy.
///
/// # Errors
/// See [`CommitError`].
pub fn commit(
    staged: Staged,
    target: impl AsFd,
    name: &OsStr,
    identity: Identity,
    taken: Taken,
    notes: Vec<Filled>,
) -> Result<Committed, CommitError> {
    check_filesystem(&staged, &target, name)?;
    flush(staged.root()).map_err(CommitError::Flush)?; // 1
    crash::point("commit-flushed");
    let mut notes = notes.into_iter();
    notes
        .try_for_each(Filled::take_name)
        .map_err(CommitError::Note)?; // 2
    crash::point("commit-noted");
    subvolume::set_received(staged.root(), identity.uuid, identity.ctransid)
        .map_err(CommitError::SetReceived)?; // 3
    crash::point("commit-received");
    let name = snapshot(&staged, &target, name, taken)?; // 4
    crash::point("commit-snapshot");
    let copy = verified(&target, name, identity)?; // 5
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

/// Fails before the notes take their names if `target` is on another file system, where no snapshot of `staged` can be.
fn check_filesystem(staged: &Staged, target: impl AsFd, name: &OsStr) -> Result<(), CommitError> {
    let source = match (filesystem::fsid(staged.root()), filesystem::fsid(target)) {
        (Ok(one), Ok(other)) if one == other => return Ok(()),
        (Ok(_), Ok(_)) => Errno::XDEV.into(),
        (Err(e), _) | (_, Err(e)) => e,
    };
    let name = name.to_owned();
    Err(CommitError::Snapshot { name, source })
}

/// Writes all pending data of the file system of `root` to disk.
///
/// Data is written back long after the calls that wrote it have succeeded. A failure is then reported only
/// here, and only through a descriptor that was opened before; a snapshot would silently lack the data.
///
/// # Errors
/// I/O errors of any file on the same file system, from now or since `root` was opened.
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

/// Checks that the copy is untouched and describes it; deletes it if it is not.
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
