//! Exchanges the names of the old and the restored volume. What it finds is identified by UUID, so that it can be done
//! again after a crash at any moment.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::RenameFlags;
use sendshot_sys::{durable, subvolume};
use uuid::Uuid;

use crate::state::restores::Swap;

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
    let (at_name, at_kept) = (uuid_of(&dir, &name)?, uuid_of(&dir, &kept)?);
    if at_name == Some(swap.new) {
        return Ok(true);
    }
    if at_kept != Some(swap.new) {
        return Ok(false);
    }
    let flags = match (at_name, swap.old) {
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
