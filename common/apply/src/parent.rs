//! Finds the subvolume that a stream names as its parent or clones from.
//!
//! A copy carries the transaction number under which its state was sent. This identifies the state, but not
//! always: the kernel's send of a received snapshot announces the UUID of the origin's snapshot with a number
//! of the file system *from* which it is sent. After a round trip over a third host the parent has the right
//! UUID and a number that is meaningless here. So a parent with another number is doubtful, not wrong:
//! [`Trust`] decides.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use sendshot_sys::subvolume::{self, Info};
use sendshot_sys::{durable, filesystem, top_level};

use crate::commands::applier::Identity;
use crate::elsewhere::{self, Location, Scope, SearchError};

/// Whether a subvolume with the right UUID is used if it may be in another state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// It is not used.
    Strict,
    /// It is used: `btrfs receive` leaves all its subvolumes changed, and the kernel's send of a received
    /// snapshot announces another transaction number.
    Lenient,
}

/// A read-only subvolume in the wanted state.
#[derive(Debug)]
pub struct Parent {
    /// Its name, or its path if it is not directly in the directory.
    pub name: OsString,
    /// Its root directory.
    pub root: OwnedFd,
    /// Its metadata from the file system.
    pub info: Info,
    /// The doubts for warnings; it is used nevertheless.
    pub doubts: Vec<Unusable>,
}

/// Reason why a subvolume with the wanted UUID cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// It is writable.
    Writable,
    /// It has another transaction number than the wanted state, and may be in another state.
    OtherState {
        /// Its transaction number: that of the received state, or its own.
        found: u64,
        /// Transaction number in the stream.
        wanted: u64,
    },
    /// It was changed after it was made.
    Changed {
        /// Transaction of its last change.
        ctransid: u64,
        /// Transaction in which it was made.
        otransid: u64,
    },
    /// It was changed after it was made, and was made before it was received: `btrfs receive` writes into the
    /// subvolume that it made, and its last data can reach the disk after the end of the stream.
    ReceivedByOtherTool {
        /// Transaction of its last change.
        ctransid: u64,
        /// Transaction in which it was made.
        otransid: u64,
    },
    /// It was not changed after it was made, but is a snapshot of a subvolume that was changed after it was
    /// received.
    OfChanged {
        /// Transaction of the last change.
        ctransid: u64,
        /// Transaction in which it was received.
        rtransid: u64,
    },
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Writable => f.write_str("it is writable"),
            Self::OtherState { found, wanted } => write!(
                f,
                "its transaction number is {found} and the stream names {wanted}, so that it may be \
                 another state"
            ),
            Self::Changed { ctransid, otransid } => write!(
                f,
                "it was changed after it was made, perhaps by dedupe (transaction {ctransid} \
                 after {otransid})"
            ),
            Self::ReceivedByOtherTool { ctransid, otransid } => write!(
                f,
                "it was received by another tool, which writes into the subvolumes that it creates (transaction \
                 {ctransid} after {otransid})"
            ),
            Self::OfChanged { ctransid, rtransid } => write!(
                f,
                "it is a snapshot of a subvolume that was changed after it was received (transaction \
                 {ctransid} after {rtransid})"
            ),
        }
    }
}

/// Reason why there is no usable subvolume.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The directory could not be searched.
    #[error("cannot search the directory for subvolume {}", .wanted.uuid)]
    Search {
        /// Identity of the wanted subvolume.
        wanted: Identity,
        /// Error from the kernel.
        #[source]
        source: io::Error,
    },
    /// The whole file system could not be searched.
    #[error("cannot search the whole file system for subvolume {}", .wanted.uuid)]
    SearchElsewhere {
        /// Identity of the wanted subvolume.
        wanted: Identity,
        /// Error from the kernel.
        #[source]
        source: io::Error,
    },
    /// A subvolume exists on the file system, but cannot be opened because its top level cannot be reached.
    #[error("cannot open subvolume {} through the top level of the file system", .wanted.uuid)]
    TopLevel {
        /// Identity of the wanted subvolume.
        wanted: Identity,
        /// Reason why the top level cannot be reached.
        #[source]
        source: top_level::Error,
    },
    /// No subvolume directly in the directory has the UUID.
    #[error("subvolume {} is not here; receive it first, or send in full", .0.uuid)]
    Missing(Identity),
    /// A subvolume has the UUID, but its location on the file system is not permitted.
    #[error("subvolume {} lies at {location}, from where no parents are taken", .wanted.uuid)]
    Elsewhere {
        /// Identity of the wanted subvolume.
        wanted: Identity,
        /// Location of the subvolume.
        location: Location,
    },
    /// A subvolume has the UUID, but cannot be used.
    #[error("{} cannot be used as subvolume {}: {why}; send in full", .name.display(), .wanted.uuid)]
    Unusable {
        /// Identity of the wanted subvolume.
        wanted: Identity,
        /// Name of the subvolume.
        name: OsString,
        /// Reason why it cannot be used.
        why: Unusable,
    },
}

/// Finds the read-only subvolume directly in the directory `dir` that was received as `wanted`, or otherwise
/// is `wanted` itself. Of several, one without doubts is preferred.
///
/// # Errors
/// See [`FindError`].
pub fn find(dir: impl AsFd, wanted: Identity, trust: Trust) -> Result<Parent, FindError> {
    let mut choice = Choice::new(wanted, trust);
    choice.offer_directly_in(&dir)?;
    choice.made().unwrap_or(Err(FindError::Missing(wanted)))
}

/// Finds a parent like [`find`], also beyond the directory as far as `scope` permits. Of equally good ones,
/// the one directly in the directory is used.
///
/// Without CAP_SYS_ADMIN only the directory itself is searched; a wider scope is an error then.
///
/// # Errors
/// See [`FindError`].
pub fn find_within(
    dir: impl AsFd,
    scope: Scope<'_>,
    wanted: Identity,
    trust: Trust,
) -> Result<Parent, FindError> {
    let mut allowed = Choice::new(wanted, trust);
    allowed.offer_directly_in(&dir)?;
    let is_enough = match scope {
        Scope::Target => allowed.best.is_some(),
        Scope::Beneath(_) | Scope::Anywhere => allowed.is_beyond_doubt(),
    };
    let candidates = match (is_enough, scope) {
        (true, _) => Vec::new(),
        // Candidates elsewhere only make the refusal more precise.
        (false, Scope::Target) => elsewhere::candidates(&dir, wanted.uuid).unwrap_or_default(),
        (false, Scope::Beneath(_) | Scope::Anywhere) => {
            elsewhere::candidates(&dir, wanted.uuid).map_err(|e| not_searched(wanted, e))?
        }
    };
    let mut outside = Choice::new(wanted, trust);
    for candidate in candidates {
        let is_allowed = scope
            .allows(&candidate.path)
            .map_err(|source| FindError::SearchElsewhere { wanted, source })?;
        let choice = match is_allowed {
            true => &mut allowed,
            false => &mut outside,
        };
        let location = elsewhere::locate(&dir, candidate.info.id, candidate.path);
        choice.offer(location, candidate.root, candidate.info);
    }
    match (allowed.best.is_some(), outside.best.take()) {
        (false, Some((_, location, _))) => Err(FindError::Elsewhere { wanted, location }),
        _ => allowed
            .made()
            .or_else(|| outside.made())
            .unwrap_or(Err(FindError::Missing(wanted))),
    }
}

fn not_searched(wanted: Identity, error: SearchError) -> FindError {
    match error {
        SearchError::System(source) => FindError::SearchElsewhere { wanted, source },
        SearchError::TopLevel(source) => FindError::TopLevel { wanted, source },
    }
}

/// The best of the offered subvolumes.
struct Choice {
    wanted: Identity,
    trust: Trust,
    best: Option<(Rank, Location, Parent)>,
    refused: Option<(OsString, Unusable)>,
    /// The other transaction numbers found: of several other states none can be chosen.
    others: BTreeSet<u64>,
}

impl Choice {
    fn new(wanted: Identity, trust: Trust) -> Self {
        Self {
            wanted,
            trust,
            best: None,
            refused: None,
            others: BTreeSet::new(),
        }
    }

    fn offer_directly_in(&mut self, dir: impl AsFd) -> Result<(), FindError> {
        let wanted = self.wanted;
        let failed = |source| FindError::Search { wanted, source };
        for name in durable::names(&dir).map_err(failed)? {
            if let Some((root, info)) = subvolume_at(&dir, &name).map_err(failed)? {
                self.offer(Location::Visible(name.into()), root, info);
            }
        }
        Ok(())
    }

    fn offer(&mut self, location: Location, root: OwnedFd, info: Info) {
        let name = location.path().as_os_str().to_owned();
        let judged = judge(&info, self.wanted, self.trust);
        if matches!(&judged, Some(Ok((rank, _))) if rank.has_other_number) {
            self.others.insert(info.stransid);
        }
        match judged {
            None => {}
            Some(Err(why)) => {
                self.refused.get_or_insert((name, why));
            }
            Some(Ok((rank, doubts))) if self.best.as_ref().is_none_or(|best| rank < best.0) => {
                let parent = Parent {
                    name,
                    root,
                    info,
                    doubts,
                };
                self.best = Some((rank, location, parent));
            }
            Some(Ok(_)) => {}
        }
    }

    fn is_beyond_doubt(&self) -> bool {
        let best = self.best.as_ref();
        best.is_some_and(|(_, _, parent)| parent.doubts.is_empty())
    }

    /// Returns the choice, or the reason why all were refused; `None` if none has the UUID.
    fn made(self) -> Option<Result<Parent, FindError>> {
        let wanted = self.wanted;
        let refused = |(name, why)| Err(FindError::Unusable { wanted, name, why });
        match self.best {
            Some((rank, _, parent)) if rank.has_other_number && self.others.len() > 1 => {
                let why = Unusable::OtherState {
                    found: parent.info.stransid,
                    wanted: wanted.ctransid,
                };
                Some(refused((parent.name, why)))
            }
            Some((_, _, parent)) => Some(Ok(parent)),
            None => self.refused.map(refused),
        }
    }
}

/// Rank of a subvolume: the fewer doubts, the better. The first fields are the most important.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    has_other_number: bool,
    was_changed: bool,
    is_original: bool,
}

/// Decides whether a subvolume is the wanted one and can be used, and with which doubts.
///
/// A received subvolume carries the transaction number of the state that was sent. An original can be
/// requested under another number: that of the host which received it and now sends it back. Then it is the
/// same state if it was never changed.
fn judge(
    info: &Info,
    wanted: Identity,
    trust: Trust,
) -> Option<Result<(Rank, Vec<Unusable>), Unusable>> {
    let received = info.received_uuid == wanted.uuid;
    if !received && info.uuid != wanted.uuid {
        return None;
    }
    Some(usable(info, received, wanted, trust))
}

fn usable(
    info: &Info,
    received: bool,
    wanted: Identity,
    trust: Trust,
) -> Result<(Rank, Vec<Unusable>), Unusable> {
    if !info.read_only {
        return Err(Unusable::Writable);
    }
    let found = if received {
        info.stransid
    } else {
        info.ctransid
    };
    let changed = changed(info, received);
    let is_other = found != wanted.ctransid && (received || changed.is_some());
    let other = is_other.then_some(Unusable::OtherState {
        found,
        wanted: wanted.ctransid,
    });
    let rank = Rank {
        has_other_number: is_other,
        was_changed: changed.is_some(),
        is_original: !received,
    };
    let doubts: Vec<_> = other.into_iter().chain(changed).collect();
    match (trust, doubts.first()) {
        (Trust::Strict, Some(why)) => Err(*why),
        (Trust::Strict, None) | (Trust::Lenient, _) => Ok((rank, doubts)),
    }
}

fn changed(info: &Info, received: bool) -> Option<Unusable> {
    let &Info {
        ctransid,
        otransid,
        rtransid,
        ..
    } = info;
    if ctransid > otransid {
        return Some(match received && otransid <= rtransid {
            true => Unusable::ReceivedByOtherTool { ctransid, otransid },
            false => Unusable::Changed { ctransid, otransid },
        });
    }
    (received && ctransid > rtransid).then_some(Unusable::OfChanged { ctransid, rtransid })
}

/// Opens entry `name` if it is a subvolume of the same file system.
fn subvolume_at(dir: impl AsFd, name: &OsStr) -> io::Result<Option<(OwnedFd, Info)>> {
    let root = match durable::open_dir(&dir, name) {
        Ok(root) => root,
        Err(e) => {
            return match Errno::from_io_error(&e) {
                // Not a directory, deleted since the directory was read, or not accessible.
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
    use std::path::PathBuf;

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

    fn strict(info: &Info) -> Result<Rank, Unusable> {
        judge(info, WANTED, Trust::Strict)
            .unwrap()
            .map(|(rank, _)| rank)
    }

    fn lenient(info: &Info) -> Result<(Rank, Vec<Unusable>), Unusable> {
        judge(info, WANTED, Trust::Lenient).unwrap()
    }

    #[test]
    fn a_received_copy_of_the_state_is_best() {
        let (copied, made) = (strict(&copy()).unwrap(), strict(&original()).unwrap());
        assert!(copied < made);
        let changed = Info {
            ctransid: 42,
            ..copy()
        };
        let (changed, _) = lenient(&changed).unwrap();
        assert!(made < changed);
        let older = Info {
            stransid: 99,
            ..copy()
        };
        assert!(changed < lenient(&older).unwrap().0);
    }

    #[test]
    fn others_do_not_count() {
        let other = Info {
            received_uuid: Uuid::from_u128(8),
            ..copy()
        };
        assert!(judge(&other, WANTED, Trust::Lenient).is_none());
    }

    #[test]
    fn another_number_is_taken_only_if_asked_for() {
        let older = Info {
            stransid: 99,
            ..copy()
        };
        let why = Unusable::OtherState {
            found: 99,
            wanted: 100,
        };
        assert_eq!(strict(&older), Err(why));
        assert_eq!(lenient(&older).unwrap().1, [why]);
        let changed_original = Info {
            ctransid: 60,
            ..original()
        };
        let why = Unusable::OtherState {
            found: 60,
            wanted: 100,
        };
        assert_eq!(strict(&changed_original), Err(why));
        let doubts = lenient(&changed_original).unwrap().1;
        assert!(
            matches!(doubts[..], [other, Unusable::Changed { .. }] if other == why),
            "{doubts:?}"
        );
    }

    #[test]
    fn an_untouched_original_is_taken_under_any_number() {
        let original = Info {
            ctransid: 30,
            ..original()
        };
        assert!(strict(&original).is_ok());
        assert_eq!(lenient(&original).unwrap().1, []);
    }

    #[test]
    fn reasons_of_changed_copies_are_distinguished() {
        let by_other_tool = Info {
            ctransid: 40,
            otransid: 38,
            rtransid: 40,
            ..copy()
        };
        let why = Unusable::ReceivedByOtherTool {
            ctransid: 40,
            otransid: 38,
        };
        assert_eq!(strict(&by_other_tool), Err(why));
        let written_back_later = Info {
            ctransid: 42,
            ..by_other_tool
        };
        let refused = strict(&written_back_later);
        assert!(matches!(refused, Err(Unusable::ReceivedByOtherTool { .. })));
        let of_changed = Info {
            ctransid: 45,
            otransid: 46,
            ..copy()
        };
        let why = Unusable::OfChanged {
            ctransid: 45,
            rtransid: 40,
        };
        assert_eq!(strict(&of_changed), Err(why));
    }

    /// Offers copies with these transaction numbers; returns the number of the chosen one.
    fn chosen_of(numbers: &[u64]) -> Option<u64> {
        let mut choice = Choice::new(WANTED, Trust::Lenient);
        for number in numbers {
            let root = OwnedFd::from(std::fs::File::open("/").unwrap());
            let info = Info {
                stransid: *number,
                ..copy()
            };
            let location = Location::Visible(PathBuf::from(number.to_string()));
            choice.offer(location, root, info);
        }
        choice.made()?.ok().map(|parent| parent.info.stransid)
    }

    #[test]
    fn of_several_other_states_none_is_chosen() {
        assert_eq!(chosen_of(&[99]), Some(99));
        assert_eq!(chosen_of(&[99, 99]), Some(99));
        assert_eq!(chosen_of(&[98, 99]), None);
        assert_eq!(chosen_of(&[98, 99, WANTED.ctransid]), Some(WANTED.ctransid));
    }

    #[test]
    fn a_writable_one_is_never_taken() {
        let writable = Info {
            read_only: false,
            ..copy()
        };
        assert_eq!(lenient(&writable), Err(Unusable::Writable));
    }

    #[test]
    fn stock_received_parents_need_permission() {
        let doubtful = Info {
            ctransid: 42,
            ..copy()
        };
        let why = Unusable::Changed {
            ctransid: 42,
            otransid: 41,
        };
        assert_eq!(lenient(&doubtful).unwrap().1, [why]);
        assert_eq!(strict(&doubtful), Err(why));
    }
}
