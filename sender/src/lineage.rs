//! What the plan needs to know of this box's subvolumes.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use sendshot_proto::inventory::HeldCopy;
use sendshot_sys::subvolume::{self, Info};
use sendshot_sys::top_level::TopLevel;
use uuid::Uuid;

use crate::plan::{Ancestor, Candidate, LocalSnapshot};

/// How far a lineage is followed: each step is one rollback of the volume.
const MAX_DEPTH: usize = 64;

/// The subvolumes that `source` descends from, nearest first: itself, what it is a snapshot
/// of, and so on as long as they still exist. A live volume is in its own past up to now.
///
/// # Errors
/// The kernel's.
pub fn of(top: &TopLevel, source: &Info) -> io::Result<Vec<Ancestor>> {
    let mut lineage = vec![Ancestor {
        uuid: source.uuid,
        until: u64::MAX,
    }];
    let (mut parent, mut until) = (source.parent_uuid, source.otransid);
    while !parent.is_nil() && lineage.len() < MAX_DEPTH {
        lineage.push(Ancestor {
            uuid: parent,
            until,
        });
        let Some(info) = by_uuid(top, parent)? else {
            break;
        };
        (parent, until) = (info.parent_uuid, info.otransid.min(until));
    }
    lineage.retain(|ancestor| !ancestor.uuid.is_nil());
    Ok(lineage)
}

/// Each copy with the snapshot on this box it was made of, if that is still here.
///
/// # Errors
/// The kernel's.
pub fn candidates(top: &TopLevel, copies: Vec<HeldCopy>) -> io::Result<Vec<Candidate>> {
    copies
        .into_iter()
        .map(|copy| {
            let local = local_snapshot(top, &copy)?;
            Ok(Candidate {
                copy,
                local,
                sendshot: None,
            })
        })
        .collect()
}

/// Several subvolumes can go by one wire UUID (read-only snapshots of something received);
/// one that is unchanged is what we look for.
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
        read_only: info.read_only,
    }
}

fn by_uuid(top: &TopLevel, uuid: Uuid) -> io::Result<Option<Info>> {
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

/// Opens a subvolume by id, wherever it lies; `None` if it is gone.
///
/// # Errors
/// The kernel's.
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
