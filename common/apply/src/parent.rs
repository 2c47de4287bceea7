//! Finding the subvolume that a stream calls its parent, or clones from.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use sendshot_sys::subvolume::{self, Info};
use sendshot_sys::{durable, filesystem};

use crate::applier::Identity;

/// Whether a subvolume that may have changed since it was made is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// It is not.
    Strict,
    /// It is: `btrfs receive` leaves all its subvolumes so.
    Lenient,
}

/// A read-only subvolume in the wanted state.
#[derive(Debug)]
pub struct Parent {
    /// Its name.
    pub name: OsString,
    /// Its root directory.
    pub root: OwnedFd,
    /// What the file system says of it.
    pub info: Info,
}

impl Parent {
    /// What speaks against it, for a warning; it was taken nevertheless.
    pub fn doubt(&self) -> Option<Unusable> {
        changed(&self.info)
    }
}

/// Why a subvolume with the wanted UUID cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// It is writable.
    Writable,
    /// It holds another state than the wanted one.
    OtherState {
        /// The sender's transaction of the state it holds.
        found: u64,
        /// The sender's transaction of the wanted state.
        wanted: u64,
    },
    /// It was changed after it was made.
    Changed {
        /// Transaction of its last change.
        ctransid: u64,
        /// Transaction in which it was made.
        otransid: u64,
    },
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Writable => f.write_str("it is writable"),
            Self::OtherState { found, wanted } => write!(
                f,
                "it holds another state (transaction {found} instead of {wanted})"
            ),
            Self::Changed { ctransid, otransid } => write!(
                f,
                "it was changed after it was made, perhaps by dedupe (transaction {ctransid} \
                 after {otransid})"
            ),
        }
    }
}

/// Why there is no usable subvolume.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The directory could not be searched.
    #[error("search the directory for subvolume {}", .wanted.uuid)]
    Search {
        /// What was searched for.
        wanted: Identity,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No subvolume directly in the directory has the UUID.
    #[error("subvolume {} is not here; receive it first, or send in full", .0.uuid)]
    Missing(Identity),
    /// One has, but cannot be used.
    #[error("{} cannot be used as subvolume {}: {why}; send in full", .name.display(), .wanted.uuid)]
    Unusable {
        /// What was searched for.
        wanted: Identity,
        /// The subvolume's name.
        name: OsString,
        /// Why not.
        why: Unusable,
    },
}

/// Finds the read-only subvolume directly in the directory `dir` that was received as
/// `wanted`, or else is `wanted` itself. Of several, one that is beyond doubt is taken first.
///
/// # Errors
/// See [`FindError`].
pub fn find(dir: impl AsFd, wanted: Identity, trust: Trust) -> Result<Parent, FindError> {
    let failed = |source| FindError::Search { wanted, source };
    let mut best: Option<(Rank, Parent)> = None;
    let mut refused: Option<(OsString, Unusable)> = None;
    for name in durable::names(&dir).map_err(failed)? {
        let Some((root, info)) = subvolume_at(&dir, &name).map_err(failed)? else {
            continue;
        };
        match judge(&info, wanted, trust) {
            None => {}
            Some(Err(why)) => refused = refused.or(Some((name, why))),
            Some(Ok(rank)) if best.as_ref().is_none_or(|(other, _)| rank < *other) => {
                best = Some((rank, Parent { name, root, info }));
            }
            Some(Ok(_)) => {}
        }
    }
    match (best, refused) {
        (Some((_, parent)), _) => Ok(parent),
        (None, Some((name, why))) => Err(FindError::Unusable { wanted, name, why }),
        (None, None) => Err(FindError::Missing(wanted)),
    }
}

/// How well a subvolume fits, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Received,
    Original,
    ReceivedInDoubt,
    OriginalInDoubt,
}

/// Whether a subvolume is the wanted one, and can be used.
///
/// A received subvolume carries the transaction of the state that was sent. An original can
/// be asked for under another transaction number: that of the box which had received it and
/// now sends it back. Then only its never having changed says that it is the same state.
fn judge(info: &Info, wanted: Identity, trust: Trust) -> Option<Result<Rank, Unusable>> {
    let received = info.received_uuid == wanted.uuid;
    if !received && info.uuid != wanted.uuid {
        return None;
    }
    Some(usable(info, received, wanted, trust))
}

fn usable(info: &Info, received: bool, wanted: Identity, trust: Trust) -> Result<Rank, Unusable> {
    if !info.read_only {
        return Err(Unusable::Writable);
    }
    let found = if received {
        info.stransid
    } else {
        info.ctransid
    };
    let doubt = changed(info);
    if found != wanted.ctransid && (received || doubt.is_some()) {
        return Err(Unusable::OtherState {
            found,
            wanted: wanted.ctransid,
        });
    }
    match (doubt, trust, received) {
        (None, _, true) => Ok(Rank::Received),
        (None, _, false) => Ok(Rank::Original),
        (Some(_), Trust::Lenient, true) => Ok(Rank::ReceivedInDoubt),
        (Some(_), Trust::Lenient, false) => Ok(Rank::OriginalInDoubt),
        (Some(why), Trust::Strict, _) => Err(why),
    }
}

fn changed(info: &Info) -> Option<Unusable> {
    (info.ctransid > info.otransid).then_some(Unusable::Changed {
        ctransid: info.ctransid,
        otransid: info.otransid,
    })
}

/// Opens entry `name` if it is a subvolume of the same file system.
fn subvolume_at(dir: impl AsFd, name: &OsStr) -> io::Result<Option<(OwnedFd, Info)>> {
    let root = match durable::open_dir(&dir, name) {
        Ok(root) => root,
        Err(e) => {
            return match Errno::from_io_error(&e) {
                // No directory, gone since the directory was read, or not for us.
                Some(Errno::NOTDIR | Errno::LOOP | Errno::NOENT | Errno::ACCESS) => Ok(None),
                _ => Err(e),
            };
        }
    };
    if !subvolume::is_subvolume(&root)? || !filesystem::is_btrfs(&root)? {
        return Ok(None);
    }
    if filesystem::fsid(&root)? != filesystem::fsid(&dir)? {
        return Ok(None);
    }
    let info = subvolume::info(&root)?;
    Ok(Some((root, info)))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const WANTED: Identity = Identity {
        uuid: Uuid::from_u128(7),
        ctransid: 100,
    };

    fn copy() -> Info {
        Info {
            id: 300,
            parent_id: 5,
            generation: 50,
            read_only: true,
            uuid: Uuid::from_u128(1),
            parent_uuid: Uuid::nil(),
            received_uuid: WANTED.uuid,
            ctransid: 40,
            otransid: 41,
            stransid: 100,
            rtransid: 40,
            otime: 0,
            rtime: 0,
        }
    }

    fn original() -> Info {
        Info {
            uuid: WANTED.uuid,
            received_uuid: Uuid::nil(),
            stransid: 0,
            ..copy()
        }
    }

    fn strict(info: &Info) -> Option<Result<Rank, Unusable>> {
        judge(info, WANTED, Trust::Strict)
    }

    fn lenient(info: &Info) -> Option<Result<Rank, Unusable>> {
        judge(info, WANTED, Trust::Lenient)
    }

    #[test]
    fn a_received_copy_of_the_state_is_best() {
        assert_eq!(strict(&copy()), Some(Ok(Rank::Received)));
        assert_eq!(strict(&original()), Some(Ok(Rank::Original)));
        assert!(Rank::Received < Rank::Original);
        assert!(Rank::Original < Rank::ReceivedInDoubt);
    }

    #[test]
    fn others_do_not_count() {
        let other = Info {
            received_uuid: Uuid::from_u128(8),
            ..copy()
        };
        assert_eq!(lenient(&other), None);
    }

    #[test]
    fn another_state_is_never_taken() {
        let older = Info {
            stransid: 99,
            ..copy()
        };
        let why = Unusable::OtherState {
            found: 99,
            wanted: 100,
        };
        assert_eq!(lenient(&older), Some(Err(why)));
        let changed_original = Info {
            ctransid: 60,
            ..original()
        };
        assert!(matches!(
            lenient(&changed_original),
            Some(Err(Unusable::OtherState { .. }))
        ));
    }

    #[test]
    fn a_writable_one_is_never_taken() {
        let writable = Info {
            read_only: false,
            ..copy()
        };
        assert_eq!(lenient(&writable), Some(Err(Unusable::Writable)));
    }

    #[test]
    fn what_stock_receive_leaves_is_taken_only_if_asked_for() {
        let doubtful = Info {
            ctransid: 42,
            ..copy()
        };
        assert_eq!(lenient(&doubtful), Some(Ok(Rank::ReceivedInDoubt)));
        let why = Unusable::Changed {
            ctransid: 42,
            otransid: 41,
        };
        assert_eq!(strict(&doubtful), Some(Err(why)));
    }
}
