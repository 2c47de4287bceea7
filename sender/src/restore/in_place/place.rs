//! Finds the place of a volume: its file system, its directory and its name there, also while it is not mounted.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use sendshot_model::VolumeName;
use sendshot_sys::subvolume::{self, Info};
use sendshot_sys::top_level::TopLevel;
use sendshot_sys::{durable, filesystem};
use uuid::Uuid;

use crate::restore::error::{Error, PlaceError};
use crate::restore::record;
use crate::restore::whole::Volume;
use crate::state::store;
use crate::volume::ids::{Naming, VolumeIds};
use crate::volume::resolve;

/// Directory of the links to devices by the ids of their file systems.
const BY_UUID: &str = "/dev/disk/by-uuid";

/// Where a volume is, or was.
#[derive(Debug)]
pub(in crate::restore) struct VolumePlace {
    pub(super) volume: VolumeName,
    /// Its path on this host.
    pub(in crate::restore) path: PathBuf,
    pub(super) fsid: Uuid,
    /// The device, if its file system is not mounted.
    pub(super) device: Option<PathBuf>,
    /// The directory that contains it, from the top level.
    pub(super) dir_from_top: PathBuf,
    /// Its name there.
    pub(super) name: OsString,
    /// The volume that is there now.
    pub(super) old: Option<Info>,
}

impl VolumePlace {
    /// Opens the top level of its file system.
    pub(in crate::restore) fn top(&self) -> Result<TopLevel, Error> {
        record::top(self.fsid, self.device.as_ref()).map_err(Error::Record)
    }

    /// Opens the directory that contains it, through the top level.
    pub(super) fn dir(&self, top: &TopLevel) -> Result<OwnedFd, Error> {
        open_beneath(top, &self.dir_from_top)
    }

    /// Its path from the top level.
    pub(super) fn path_from_top(&self) -> PathBuf {
        self.dir_from_top.join(&self.name)
    }

    /// Makes what was renamed durable.
    pub(super) fn commit(&self) -> Result<(), Error> {
        filesystem::commit(self.top()?).map_err(Error::io("commit the restored volume"))
    }
}

pub(super) fn open_beneath(top: &TopLevel, path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let path = match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    };
    let opened = rustix::fs::openat2(top, path, flags, Mode::empty(), resolve);
    opened.map_err(|e| Error::io("open the directory of the volume")(e.into()))
}

/// What the user says about the file system of a volume.
#[derive(Debug, Clone, Copy)]
pub(in crate::restore) enum Disk<'a> {
    /// Nothing: it is the one that the volume was pushed from last.
    Known,
    /// It is on this device.
    Device(&'a Path),
    /// It is the one that is mounted at the volume's path, whatever the records say.
    New,
}

/// Finds the place of a volume.
///
/// # Errors
/// See [`Error`].
pub(in crate::restore) fn find(wanted: &Volume<'_>, disk: Disk<'_>) -> Result<VolumePlace, Error> {
    let access = wanted.access;
    let name = access.volume_name(&wanted.copy.volume)?;
    let volume = VolumeName::parse(&name).map_err(Error::Volume)?;
    let configured = access.config.iter().flat_map(|config| &config.volumes);
    let mut named = configured.filter(|(name, _)| **name == volume);
    let path = match named.next() {
        Some((_, volume)) => volume.path.clone(),
        None => return Err(PlaceError::NotConfigured(volume).into()),
    };
    let ids = VolumeIds::load(&access.state_dir).map_err(Error::io("read the list of volumes"))?;
    let known = ids.by_naming(&Naming::Configured(volume.clone()));
    let expected = known.as_ref().and_then(|binding| binding.fsid);
    match disk {
        Disk::Device(device) => {
            let top = TopLevel::of_device(device).map_err(|e| Error::Record(e.into()))?;
            let subvolume = known.as_ref().map(|binding| binding.subvolume);
            return by_records(volume, path, top, Some(device.to_owned()), subvolume);
        }
        Disk::New => {
            let found = by_path(&volume, &path, None)?;
            return found.ok_or_else(|| PlaceError::NoDisk { volume, path }.into());
        }
        Disk::Known => {}
    }
    if let Some(place) = by_path(&volume, &path, expected)? {
        return Ok(place);
    }
    // Its disk is not mounted there.
    let (Some(fsid), Some(binding)) = (expected, known) else {
        return Err(PlaceError::Unknown { volume, path }.into());
    };
    let device = Path::new(BY_UUID).join(fsid.to_string());
    let (top, device) = match record::top(fsid, None) {
        Ok(top) => (top, None),
        Err(_) if device.exists() => {
            let top = TopLevel::of_device(&device).map_err(|e| Error::Record(e.into()))?;
            (top, Some(device))
        }
        Err(_) => return Err(PlaceError::Absent { volume, path, fsid }.into()),
    };
    by_records(volume, path, top, device, Some(binding.subvolume))
}

/// The place by the path of the volume, if its file system is mounted there.
fn by_path(
    volume: &VolumeName,
    path: &Path,
    expected: Option<Uuid>,
) -> Result<Option<VolumePlace>, Error> {
    let look = Error::io("look at the volume's path");
    let open = |path: &Path| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).ok()
    };
    let is_expected = |fd: &OwnedFd| -> Result<bool, Error> {
        if !filesystem::is_btrfs(fd).map_err(&look)? {
            return Ok(false);
        }
        let fsid = filesystem::fsid(fd).map_err(&look)?;
        Ok(expected.is_none_or(|expected| expected == fsid))
    };
    if let Some(fd) = open(path) {
        if !is_expected(&fd)? {
            return Ok(None);
        }
        if !subvolume::is_subvolume(&fd).map_err(&look)? {
            return Err(PlaceError::NotSubvolume(path.to_owned()).into());
        }
        let info = subvolume::info(&fd).map_err(&look)?;
        let from_top = subvolume::path_from_top(&fd, info.id).map_err(&look)?;
        let from_top = from_top.unwrap_or_default();
        if resolve::is_put_aside(path, &from_top) {
            return Err(PlaceError::PutAside {
                path: path.to_owned(),
                now: from_top,
            }
            .into());
        }
        let fsid = filesystem::fsid(&fd).map_err(&look)?;
        return Ok(Some(VolumePlace {
            volume: volume.clone(),
            path: path.to_owned(),
            fsid,
            device: None,
            dir_from_top: from_top.parent().unwrap_or(Path::new("")).to_owned(),
            name: from_top.file_name().unwrap_or_default().to_owned(),
            old: Some(info),
        }));
    }
    // It was deleted, or the disk is new.
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(None);
    };
    let Some(fd) = open(dir) else {
        return Ok(None);
    };
    if !is_expected(&fd)? {
        return Ok(None);
    }
    let info = subvolume::info(&fd).map_err(&look)?;
    let of_subvolume = subvolume::path_from_top(&fd, info.id).map_err(&look)?;
    let inode = rustix::fs::fstat(&fd).map_err(|e| look(e.into()))?.st_ino;
    let within = match inode {
        subvolume::ROOT_INODE => None,
        inode => subvolume::path_of_inode(&fd, inode).map_err(&look)?,
    };
    let mut dir_from_top = of_subvolume.unwrap_or_default();
    dir_from_top.extend(within);
    Ok(Some(VolumePlace {
        volume: volume.clone(),
        path: path.to_owned(),
        fsid: filesystem::fsid(&fd).map_err(&look)?,
        device: None,
        dir_from_top,
        name: name.to_owned(),
        old: None,
    }))
}

/// The place by the UUID of the volume's last subvolume, on a file system that is not mounted at its path.
fn by_records(
    volume: VolumeName,
    path: PathBuf,
    top: TopLevel,
    device: Option<PathBuf>,
    subvolume: Option<Uuid>,
) -> Result<VolumePlace, Error> {
    let look = Error::io("look for the volume on its file system");
    let mut found = None;
    if let Some(uuid) = subvolume {
        for id in subvolume::ids_by_uuid(&top, uuid).map_err(&look)? {
            let at = subvolume::path_from_top(&top, id).map_err(&look)?;
            // What lies in the directory of this program is no one's volume.
            found = found.or(at.filter(|at| !at.starts_with(store::NAME)));
        }
    }
    let Some(from_top) = found else {
        return Err(PlaceError::Unknown { volume, path }.into());
    };
    let dir_from_top = from_top.parent().unwrap_or(Path::new("")).to_owned();
    // An earlier restore has put the volume aside, and the records know nothing newer.
    let name = match resolve::is_put_aside(&path, &from_top) {
        true => before_put_aside(from_top.file_name().unwrap_or_default()),
        false => from_top.file_name().unwrap_or_default().to_owned(),
    };
    let dir = open_beneath(&top, &dir_from_top)?;
    Ok(VolumePlace {
        volume,
        path,
        fsid: top.fsid(),
        device,
        old: subvolume_at(&dir, &name)?,
        dir_from_top,
        name,
    })
}

/// The name that a volume had before it was put aside.
fn before_put_aside(name: &OsStr) -> OsString {
    let (name, mark) = (name.as_bytes(), resolve::PUT_ASIDE.as_bytes());
    let at = name.windows(mark.len()).rposition(|part| part == mark);
    OsStr::from_bytes(&name[..at.unwrap_or(name.len())]).to_owned()
}

/// The subvolume of this name; `None` if there is nothing of the name.
fn subvolume_at(dir: &OwnedFd, name: &OsStr) -> Result<Option<Info>, Error> {
    let look = Error::io("look at the volume's place");
    let found = match durable::open_dir(dir, name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found.map_err(&look)?,
    };
    match subvolume::is_subvolume(&found).map_err(&look)? {
        true => Ok(Some(subvolume::info(&found).map_err(&look)?)),
        false => Err(PlaceError::NotSubvolume(name.into()).into()),
    }
}

/// Checks that what is at the volume's place is still what was found, and can be exchanged for another subvolume.
///
/// # Errors
/// [`PlaceError`].
pub(super) fn check(place: &VolumePlace) -> Result<(), Error> {
    let look = Error::io("look at the volume");
    let path = || place.path.clone();
    let uuid = |info: &Info| info.uuid;
    let dir = place.dir(&place.top()?)?;
    let now = match place.name.is_empty() {
        true => place.old.clone(), // the top level
        false => subvolume_at(&dir, &place.name)?,
    };
    if now.as_ref().map(uuid) != place.old.as_ref().map(uuid) {
        return Err(PlaceError::Changed(path()).into());
    }
    let Some(old) = &place.old else {
        return Ok(());
    };
    if old.id == subvolume::TOP_LEVEL || place.name.is_empty() {
        return Err(PlaceError::TopLevel(path()).into());
    }
    let top = place.top()?;
    if subvolume::default_id(&top).map_err(&look)? == old.id {
        return Err(PlaceError::Default(path()).into());
    }
    let nested = subvolume::children(&top, old.id).map_err(&look)?;
    if !nested.is_empty() {
        return Err(PlaceError::Nested {
            path: path(),
            nested: nested.into_iter().map(|(_, path)| path).collect(),
        }
        .into());
    }
    let volume = open_volume(place)?;
    if is_root(volume.as_fd()).map_err(&look)? {
        return Err(PlaceError::Root.into());
    }
    Ok(())
}

/// Whether the running system is in this subvolume.
fn is_root(volume: std::os::fd::BorrowedFd<'_>) -> std::io::Result<bool> {
    let root = std::fs::File::open("/")?;
    if !filesystem::is_btrfs(&root)? || filesystem::fsid(&root)? != filesystem::fsid(volume)? {
        return Ok(false);
    }
    Ok(subvolume::info(&root)?.id == subvolume::info(volume)?.id)
}

/// Opens the volume that is there now.
pub(super) fn open_volume(place: &VolumePlace) -> Result<OwnedFd, Error> {
    open_beneath(&place.top()?, &place.path_from_top())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_before_a_restore_is_found_in_that_of_the_old_volume() {
        let before = |name: &str| before_put_aside(name.as_ref());
        assert_eq!(
            before("photos.before-restore-2026-11-22T03:00:00Z"),
            "photos"
        );
        assert_eq!(
            before("a.before-restore-1.before-restore-2"),
            "a.before-restore-1"
        );
    }
}
