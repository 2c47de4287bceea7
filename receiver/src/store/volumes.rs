//! The directories of copies: `<root>/<sender>/<volume>/`.
//!
//! Each volume's directory has a small file with the volume's id, so that it is found again after a rename on the
//! sender, and after the loss of the receiver's state directory.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use sendshot_apply::NoDirectory;
use sendshot_model::{PeerName, ReasonCode, SenderId, VolumeId, VolumeLabel, VolumeName};
use sendshot_proto::inventory::{HeldCopy, Unusable};
use sendshot_proto::volume::VolumeKey;
use sendshot_sys::subvolume::{self, Info};
use sendshot_sys::{durable, filesystem};

use crate::store::ledger::{self, Ledger};

/// How many names are tried if the wanted one is taken by another volume.
const MAX_SUFFIX: u32 = 999;

/// Held while a name is chosen: two volumes of one name, pushed for the first time at the same moment, must not
/// both find the same directory free.
static ASSIGNING: Mutex<()> = Mutex::new(());

/// A calling sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its name on this host, which is its directory.
    pub name: PeerName,
    /// Id of its instance.
    pub id: SenderId,
}

/// The open directory of a volume.
#[derive(Debug)]
pub struct VolumeDir {
    pub fd: OwnedFd,
    /// Its name relative to the root, `sender/volume`.
    pub name: String,
}

/// Finds the directory of a volume; `None` before its first push.
///
/// A directory of this name that another instance of the sender left (its host was replaced) is the volume's: ids
/// are handed over by name.
///
/// # Errors
/// I/O errors.
pub fn find(root: impl AsFd, caller: &Caller, volume: &VolumeKey) -> io::Result<Option<VolumeDir>> {
    let Some(sender_dir) = open_existing(&root, caller.name.as_str())? else {
        return Ok(None);
    };
    let mut heir = None;
    for name in directories(&sender_dir)? {
        let Some(fd) = open_existing(&sender_dir, &name)? else {
            continue;
        };
        let label = match read_label(&fd) {
            Ok(Some(label)) => label,
            Ok(None) => continue,
            // Damage to another volume's label must not fail this volume; if the label is this volume's, the
            // next push makes a new directory, and nothing is lost.
            Err(e) => {
                let sender = &caller.name;
                tracing::warn!(%sender, directory = %name, "label {} cannot be read: {e}", VolumeLabel::FILE);
                continue;
            }
        };
        let dir = VolumeDir {
            fd,
            name: format!("{}/{name}", caller.name),
        };
        if label.volume == volume.id {
            return Ok(Some(dir));
        }
        if name == volume.name.as_str() && label.sender != caller.id {
            heir = Some(dir);
        }
    }
    Ok(heir)
}

/// Finds the directory of a volume; makes it or takes it over if necessary.
///
/// # Errors
/// I/O errors; `AlreadyExists` if no name is left for it.
pub fn find_or_create(
    root: impl AsFd,
    caller: &Caller,
    volume: &VolumeKey,
) -> io::Result<VolumeDir> {
    let label = VolumeLabel {
        volume: volume.id,
        sender: caller.id,
    };
    let _alone = ASSIGNING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(dir) = find(&root, caller, volume)? {
        if read_label(&dir.fd)?.as_ref() != Some(&label) {
            durable::write_json_at(&dir.fd, OsStr::new(VolumeLabel::FILE), &label)?;
        }
        return Ok(dir);
    }
    let sender_dir = private_dir(&root, caller.name.as_str())?;
    for name in free_names(&volume.name) {
        let fd = private_dir(&sender_dir, &name)?;
        // A directory without a label is one whose creation was interrupted, or a user's own: only an empty one is
        // used.
        if durable::names(&fd)?.iter().any(|name| name != ledger::FILE) {
            continue;
        }
        ledger::write(&fd, &mut Ledger::default())?;
        durable::write_json_at(&fd, OsStr::new(VolumeLabel::FILE), &label)?;
        return Ok(VolumeDir {
            fd,
            name: format!("{}/{name}", caller.name),
        });
    }
    Err(io::Error::new(
        io::ErrorKind::AlreadyExists,
        format!("every directory name for volume `{}` is taken", volume.name),
    ))
}

/// Returns the id in the label of the caller's directory that has a volume's name: the volume's former id, if the
/// caller has lost it and asks by another.
///
/// # Errors
/// I/O errors.
pub fn label_of_name(
    root: impl AsFd,
    caller: &Caller,
    volume: &VolumeKey,
) -> io::Result<Option<VolumeId>> {
    let Some(sender_dir) = open_existing(&root, caller.name.as_str())? else {
        return Ok(None);
    };
    let Some(dir) = open_existing(&sender_dir, volume.name.as_str())? else {
        return Ok(None);
    };
    // A damaged label counts as none.
    let label = read_label(&dir).unwrap_or_default();
    let own = label.filter(|label| label.sender == caller.id);
    Ok(own.map(|label| label.volume))
}

fn free_names(wanted: &VolumeName) -> impl Iterator<Item = String> + '_ {
    (1..=MAX_SUFFIX).map(move |n| match n {
        1 => wanted.to_string(),
        n => format!("{wanted}-{n}"),
    })
}

/// Reads the copies in a volume's directory.
///
/// # Errors
/// I/O errors.
pub fn copies(dir: impl AsFd) -> io::Result<Vec<HeldCopy>> {
    let mut copies = Vec::new();
    for name in directories(&dir)? {
        // Copies can be deleted at any time, also during this loop.
        if let Some((_, info)) = open_copy(&dir, &name)? {
            copies.push(describe(name, &info));
        }
    }
    Ok(copies)
}

/// Reads the copies in a volume's directory, with what the file system knows of them.
///
/// # Errors
/// I/O errors.
pub fn with_info(dir: impl AsFd) -> io::Result<Vec<(String, Info)>> {
    let mut found = Vec::new();
    for name in directories(&dir)? {
        if let Some((_, info)) = open_copy(&dir, &name)? {
            found.push((name, info));
        }
    }
    Ok(found)
}

fn describe(name: String, info: &Info) -> HeldCopy {
    HeldCopy {
        uuid: info.received_uuid,
        ctransid: info.stransid,
        name: name.into(),
        unusable: unusable(info),
        committed_at: info.otime,
    }
}

/// Why a received subvolume cannot be a parent; `None` if it can.
///
/// A copy made by Sendshot is a snapshot of the received subvolume, and was created after the reception. `btrfs
/// receive` creates a subvolume, writes into it, and marks it received at the end; its last data can reach the disk
/// still later, which then counts as a change.
pub fn unusable(info: &Info) -> Option<Unusable> {
    let changed_since_creation = info.ctransid > info.otransid;
    let changed_since_reception = info.ctransid > info.rtransid;
    let is_by_other_tool = info.otransid <= info.rtransid;
    let (code, why) = match (
        changed_since_creation,
        changed_since_reception,
        is_by_other_tool,
    ) {
        _ if !info.read_only => (ReasonCode::CopyWritable, "it is writable"),
        (true, _, false) => (
            ReasonCode::CopyChanged,
            "it changed since commit, perhaps by dedupe",
        ),
        (true, false, true) => (
            ReasonCode::CopyReceivedByOtherTool,
            "it was received by another tool, which wrote into it after it was created",
        ),
        (true, true, true) => (
            ReasonCode::CopyWrittenAfterOtherTool,
            "it was received by another tool and written to after that, perhaps only by the last data of \
             that tool on its way to the disk",
        ),
        (false, true, _) => (
            ReasonCode::CopyOfChangedCopy,
            "it is a snapshot of a copy that was written to after it was received",
        ),
        (false, false, _) => return None,
    };
    Some(Unusable {
        code,
        why: why.into(),
    })
}

/// Opens the directory of the volume that is called `name` on this host; `None` if the sender has none.
///
/// # Errors
/// I/O errors.
pub fn open_named(
    root: impl AsFd,
    sender: &PeerName,
    name: &str,
) -> io::Result<Option<(OwnedFd, Option<VolumeId>)>> {
    let Some(sender_dir) = open_existing(&root, sender.as_str())? else {
        return Ok(None);
    };
    let Some(dir) = open_existing(&sender_dir, name)? else {
        return Ok(None);
    };
    // The path names the owner as well; a damaged label hides no copies.
    Ok(match read_label(&dir) {
        Ok(None) => None,
        Ok(Some(label)) => Some((dir, Some(label.volume))),
        Err(_) => Some((dir, None)),
    })
}

/// Lists the names of a sender's directories.
///
/// # Errors
/// I/O errors.
pub fn names_of(root: impl AsFd, sender: &PeerName) -> io::Result<Vec<String>> {
    match open_existing(&root, sender.as_str())? {
        Some(sender_dir) => directories(&sender_dir),
        None => Ok(Vec::new()),
    }
}

/// Lists every volume's directory of every sender, as `(sender, volume, directory)`.
///
/// # Errors
/// I/O errors.
pub fn all(root: impl AsFd) -> io::Result<Vec<(String, String, OwnedFd)>> {
    let mut found = Vec::new();
    for sender in directories(&root)? {
        let Some(sender_dir) = open_existing(&root, &sender)? else {
            continue;
        };
        for volume in directories(&sender_dir)? {
            let Some(fd) = open_existing(&sender_dir, &volume)? else {
                continue;
            };
            // The path names the owner as well; a damaged label hides no copies.
            if !matches!(read_label(&fd), Ok(None)) {
                found.push((sender.clone(), volume, fd));
            }
        }
    }
    Ok(found)
}

/// Names of visible directories; everything else is skipped.
fn directories(dir: impl AsFd) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for name in durable::names(&dir)? {
        let Some(text) = name.to_str().filter(|text| !text.starts_with('.')) else {
            continue;
        };
        let stat = rustix::fs::statat(&dir, &name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
        let is_dir = stat.is_ok_and(|stat| {
            rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory
        });
        if is_dir {
            found.push(text.to_owned());
        }
    }
    Ok(found)
}

/// Opens a copy by its name in a volume's directory, with what the file system knows of it; `None` if there is no
/// received subvolume of this name.
///
/// # Errors
/// I/O errors.
pub fn open_copy(dir: impl AsFd, name: &str) -> io::Result<Option<(OwnedFd, Info)>> {
    let Some(fd) = open_existing(&dir, name)? else {
        return Ok(None);
    };
    if !filesystem::is_btrfs(&fd)? || !subvolume::is_subvolume(&fd)? {
        return Ok(None);
    }
    let info = subvolume::info(&fd)?;
    Ok((!info.received_uuid.is_nil()).then_some((fd, info)))
}

fn open_existing(dir: impl AsFd, name: &str) -> io::Result<Option<OwnedFd>> {
    match durable::open_dir(&dir, OsStr::new(name)) {
        Ok(fd) => Ok(Some(fd)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(NoDirectory::explain(dir, OsStr::new(name), e)),
    }
}

fn private_dir(dir: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    let made = durable::private_dir(&dir, OsStr::new(name));
    made.map_err(|e| NoDirectory::explain(dir, OsStr::new(name), e))
}

/// The id of the volume of a directory; `None` if its label cannot be read.
pub fn id_of(dir: impl AsFd) -> Option<VolumeId> {
    let label = read_label(dir).unwrap_or_default();
    label.map(|label| label.volume)
}

fn read_label(dir: impl AsFd) -> io::Result<Option<VolumeLabel>> {
    durable::read_json_at(dir, OsStr::new(VolumeLabel::FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(id: SenderId) -> Caller {
        Caller {
            name: "nas1".parse().unwrap(),
            id,
        }
    }

    fn volume(name: &str) -> VolumeKey {
        VolumeKey {
            id: VolumeId::generate(),
            name: name.parse().unwrap(),
        }
    }

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap().into();
        (dir, fd)
    }

    #[test]
    fn a_renamed_volume_keeps_its_first_directory() {
        let (_guard, root) = root();
        let me = caller(SenderId::generate());
        let mut photos = volume("photos");
        let first = find_or_create(&root, &me, &photos).unwrap();
        photos.name = "pictures".parse().unwrap();
        let again = find_or_create(&root, &me, &photos).unwrap();
        assert_eq!(
            (first.name.as_str(), again.name),
            ("nas1/photos", "nas1/photos".into())
        );
    }

    #[test]
    fn two_volumes_of_one_name_do_not_mix() {
        let (_guard, root) = root();
        let me = caller(SenderId::generate());
        find_or_create(&root, &me, &volume("photos")).unwrap();
        let other = volume("photos");
        assert!(find(&root, &me, &other).unwrap().is_none());
        assert_eq!(
            find_or_create(&root, &me, &other).unwrap().name,
            "nas1/photos-2"
        );
    }

    #[test]
    fn two_volumes_of_one_name_that_come_at_once_do_not_mix() {
        let (_guard, root) = root();
        let me = caller(SenderId::generate());
        let (one, two) = (volume("photos"), volume("photos"));
        let mut names = std::thread::scope(|scope| {
            [one, two]
                .map(|volume| {
                    let (root, me) = (&root, &me);
                    scope.spawn(move || find_or_create(root, me, &volume).unwrap().name)
                })
                .map(|thread| thread.join().unwrap())
        });
        names.sort();
        assert_eq!(names, ["nas1/photos", "nas1/photos-2"]);
    }

    #[test]
    fn a_replaced_host_keeps_its_volumes_by_name() {
        let (_guard, root) = root();
        find_or_create(&root, &caller(SenderId::generate()), &volume("photos")).unwrap();
        let (heir, photos) = (caller(SenderId::generate()), volume("photos"));
        assert_eq!(
            find(&root, &heir, &photos).unwrap().unwrap().name,
            "nas1/photos"
        );
        assert_eq!(
            find_or_create(&root, &heir, &photos).unwrap().name,
            "nas1/photos"
        );
        let second = volume("photos");
        assert_eq!(
            find_or_create(&root, &heir, &second).unwrap().name,
            "nas1/photos-2"
        );
    }

    #[test]
    fn a_damaged_label_harms_no_other_volume() {
        let (guard, root) = root();
        let me = caller(SenderId::generate());
        let (music, photos) = (volume("music"), volume("photos"));
        find_or_create(&root, &me, &music).unwrap();
        find_or_create(&root, &me, &photos).unwrap();
        std::fs::write(guard.path().join("nas1/music").join(VolumeLabel::FILE), "{").unwrap();
        let found = find(&root, &me, &photos).unwrap().unwrap();
        assert_eq!(found.name, "nas1/photos");
        let again = find_or_create(&root, &me, &music).unwrap();
        assert_eq!(again.name, "nas1/music-2");
    }

    #[test]
    fn an_odd_senders_directory_is_named() {
        let (guard, root) = root();
        let (me, photos) = (caller(SenderId::generate()), volume("photos"));
        let path = guard.path().join("nas1");
        let told = || {
            let error = find_or_create(&root, &me, &photos).unwrap_err();
            let failure = crate::receive::failures::io_failure("prepare", &error);
            assert!(failure.message.contains(&*path.to_string_lossy()));
            assert!(failure.remedy.contains("move it away"), "{failure:?}");
            failure.message
        };
        std::os::unix::fs::symlink(guard.path(), &path).unwrap();
        assert!(told().contains("is a symbolic link, not a directory"));
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        assert!(told().contains("is a regular file, not a directory"));
    }

    #[test]
    fn a_users_own_directory_is_not_taken() {
        let (guard, root) = root();
        std::fs::create_dir_all(guard.path().join("nas1/photos/mine")).unwrap();
        let me = caller(SenderId::generate());
        let dir = find_or_create(&root, &me, &volume("photos")).unwrap();
        assert_eq!(dir.name, "nas1/photos-2");
    }
}
