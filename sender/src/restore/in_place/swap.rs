//! Exchanges the names of the old and the restored volume. What it finds is identified by UUID, so that it can be done
//! again after a crash at any moment.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::RenameFlags;
use sendshot_sys::{durable, subvolume};
use uuid::Uuid;

use crate::state::restores::Swap;

/// How far an exchange has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// The restored subvolume is not beside the volume.
    NotBegun,
    /// It is beside the volume, under the name that the old one gets.
    Beside,
    /// It has the volume's name.
    Done,
}

/// Determines how far an exchange has come.
///
/// # Errors
/// I/O errors.
pub(super) fn progress(dir: impl AsFd, swap: &Swap) -> io::Result<Progress> {
    if uuid_of(&dir, &PathBuf::from(swap.name.clone()))? == Some(swap.new) {
        return Ok(Progress::Done);
    }
    match uuid_of(&dir, &PathBuf::from(swap.kept.clone()))? == Some(swap.new) {
        true => Ok(Progress::Beside),
        false => Ok(Progress::NotBegun),
    }
}

/// Brings the exchange to its end. Returns whether the restored subvolume has the volume's name now; `false` if it is
/// not there at all.
///
/// # Errors
/// I/O errors; `AlreadyExists` if the volume's name belongs to a third subvolume.
pub(super) fn complete(dir: impl AsFd, swap: &Swap) -> io::Result<bool> {
    let (name, kept) = (
        PathBuf::from(swap.name.clone()),
        PathBuf::from(swap.kept.clone()),
    );
    match progress(&dir, swap)? {
        Progress::Done => return Ok(true),
        Progress::NotBegun => return Ok(false),
        Progress::Beside => {}
    }
    let flags = match (uuid_of(&dir, &name)?, swap.old) {
        (Some(found), Some(old)) if found == old => RenameFlags::EXCHANGE,
        (None, _) => RenameFlags::NOREPLACE,
        // The user has put something else there.
        (Some(_), _) => return Err(io::ErrorKind::AlreadyExists.into()),
    };
    rustix::fs::renameat_with(&dir, &kept, &dir, &name, flags)?;
    Ok(true)
}

/// UUID of the subvolume of this name; `None` if there is no such entry.
fn uuid_of(dir: impl AsFd, name: &Path) -> io::Result<Option<Uuid>> {
    match durable::open_dir(&dir, name.as_os_str()) {
        Ok(found) if subvolume::is_subvolume(&found)? => {
            let info = subvolume::info(&found)?;
            Ok(Some(info.uuid))
        }
        Ok(_) => Ok(Some(Uuid::nil())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
