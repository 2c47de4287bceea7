//! Reads what the plan needs to know of this host's subvolumes.

use std::cmp::Reverse;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use sendshot_proto::inventory::HeldCopy;
use sendshot_sys::subvolume::{self, Info};
use sendshot_sys::top_level::TopLevel;
use uuid::Uuid;

use crate::decide::parent::{Ancestor, Candidate, Lineage, LocalSnapshot, Recorded};
use crate::decide::verdict::Relation;
use crate::volume::label::label_of;

/// How far a lineage is followed: each step is one rollback of the volume.
const MAX_DEPTH: usize = 64;

/// Finds the subvolumes that `source` descends from, nearest first: itself, the subvolume of which it is a
/// snapshot, and so on as long as they still exist. A live volume is in its own past up to now. The volume of a
/// read-only snapshot counts as the pushed volume, like the snapshot itself.
///
/// # Errors
/// I/O errors.
pub fn of(top: &TopLevel, source: &Info) -> io::Result<Lineage> {
    let mut ancestors = vec![Ancestor {
        uuid: source.uuid,
        until: u64::MAX,
        relation: Relation::Volume,
    }];
    let mut relation = match source.read_only {
        true => Relation::Volume,
        false => Relation::Past,
    };
    let mut cut_at = None;
    let (mut parent, mut until) = (source.parent_uuid, source.otransid);
    while !parent.is_nil() {
        ancestors.push(Ancestor {
            uuid: parent,
            until,
            relation,
        });
        relation = Relation::Past;
        let info = match ancestors.len() < MAX_DEPTH {
            true => by_uuid(top, parent)?,
            false => None,
        };
        let Some(info) = info else {
            cut_at = Some(parent);
            break;
        };
        (parent, until) = (info.parent_uuid, info.otransid.min(until));
    }
    ancestors.retain(|ancestor| !ancestor.uuid.is_nil());
    Ok(Lineage { ancestors, cut_at })
}

/// Finds further ancestors of a copy that Sendshot received: the other copies of its volume, which lie in the same
/// labelled directory, nearest first. Their own origin, a staging subvolume, no longer exists; the label shows that
/// they are states of one volume. No two of them were written in one transaction, as each is committed before the
/// next push of the volume begins, so an inode of one number and generation is the same in all.
///
/// # Errors
/// I/O errors.
pub fn siblings(
    top: &TopLevel,
    source: &Info,
    candidates: &[Candidate],
) -> io::Result<Vec<Ancestor>> {
    let Some(fd) = open(top, source.id)?.filter(|_| source.is_pristine()) else {
        return Ok(Vec::new());
    };
    if label_of(&fd, source).is_none() {
        return Ok(Vec::new());
    }
    let directory = |id| -> io::Result<Option<PathBuf>> {
        let path = subvolume::path_from_top(top, id)?;
        Ok(path.and_then(|path| path.parent().map(Path::to_owned)))
    };
    let own = directory(source.id)?;
    let mut found = Vec::new();
    for local in candidates.iter().filter_map(|candidate| candidate.local) {
        // An error means that it was deleted a moment ago.
        if directory(local.id).unwrap_or_default() == own {
            found.push(local);
        }
    }
    found.sort_by_key(|local| {
        let is_younger = local.otransid > source.otransid;
        (is_younger, Reverse(local.otransid))
    });
    let ancestor = |local: LocalSnapshot| Ancestor {
        uuid: local.uuid,
        until: 0,
        relation: Relation::Volume,
    };
    Ok(found.into_iter().map(ancestor).collect())
}

/// Finds for each copy its snapshot on this host, if that still exists.
///
/// # Errors
/// I/O errors.
pub fn candidates(top: &TopLevel, copies: Vec<HeldCopy>) -> io::Result<Vec<Candidate>> {
    copies
        .into_iter()
        .map(|copy| {
            let local = local_snapshot(top, &copy)?;
            Ok(Candidate {
                copy,
                local,
                recorded: Recorded::Nothing,
            })
        })
        .collect()
}

/// Finds the snapshot of a copy. Several subvolumes can have one wire UUID (read-only snapshots of something
/// received); an unchanged one is preferred.
fn local_snapshot(top: &TopLevel, copy: &HeldCopy) -> io::Result<Option<LocalSnapshot>> {
    let mut ids = subvolume::ids_by_uuid(top, copy.uuid)?;
    ids.extend(subvolume::ids_by_received_uuid(top, copy.uuid)?);
    let mut found: Option<LocalSnapshot> = None;
    for id in ids {
        let Some(info) = by_id(top, id)? else {
            continue;
        };
        if info.wire_uuid() != copy.uuid {
            continue;
        }
        let same = info.read_only && info.ctransid == copy.ctransid;
        if found.is_none() || same {
            found = Some(describe(&info));
        }
        if same {
            break;
        }
    }
    Ok(found)
}

fn describe(info: &Info) -> LocalSnapshot {
    LocalSnapshot {
        id: info.id,
        uuid: info.uuid,
        parent_uuid: info.parent_uuid,
        ctransid: info.ctransid,
        otransid: info.otransid,
        rtransid: (!info.received_uuid.is_nil()).then_some(info.rtransid),
        read_only: info.read_only,
    }
}

/// Finds the subvolume of a UUID, if there is one.
///
/// # Errors
/// I/O errors.
pub(crate) fn by_uuid(top: &TopLevel, uuid: Uuid) -> io::Result<Option<Info>> {
    for id in subvolume::ids_by_uuid(top, uuid)? {
        if let Some(info) = by_id(top, id)? {
            return Ok(Some(info));
        }
    }
    Ok(None)
}

fn by_id(top: &TopLevel, id: u64) -> io::Result<Option<Info>> {
    match open(top, id)? {
        Some(fd) => Ok(Some(subvolume::info(fd)?)),
        None => Ok(None),
    }
}

/// Opens a subvolume by id, wherever it lies; `None` if it does not exist.
///
/// # Errors
/// I/O errors.
pub(crate) fn open(top: &TopLevel, id: u64) -> io::Result<Option<OwnedFd>> {
    let path = match subvolume::path_from_top(top, id) {
        Ok(Some(path)) => path,
        Ok(None) => return Ok(None),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let path = if path.as_os_str().is_empty() {
        ".".into()
    } else {
        path
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(top.as_fd(), path, flags, Mode::empty()) {
        Ok(fd) if subvolume::info(&fd)?.id == id => Ok(Some(fd)),
        Ok(_) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
