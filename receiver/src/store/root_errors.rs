//! Why the root cannot be used, and what the administrator can do.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use sendshot_apply::WriteObstacle;
use sendshot_model::{ReceiverId, RootId};
use sendshot_proto::failure::{Code, Failure};
use sendshot_sys::filesystem;
use uuid::Uuid;

/// Name of the mark in the root.
pub(crate) const MARK: &str = ".sendshot-root";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path does not exist, and never was a root.
    #[error("root {}: there is no such directory", path.display())]
    Missing { path: PathBuf },
    /// The root was set up before, and its path is on none of its disks now.
    #[error("root {}: its disk is not mounted{}: {found}", path.display(), On(fsids))]
    Away {
        path: PathBuf,
        /// The file systems of the recorded disks, if known.
        fsids: Vec<Uuid>,
        /// What is at the path now.
        found: &'static str,
    },
    /// The root was set up before, its disk is mounted, and the directory no longer exists on it.
    #[error("root {}: there is no such directory, though its file system {fsid} is mounted: {} lies on it", path.display(), above.display())]
    Gone {
        path: PathBuf,
        /// The nearest existing directory above it.
        above: PathBuf,
        /// File system of that directory.
        fsid: Uuid,
    },
    /// A component of the path is not a directory.
    #[error("root {}: {} is not a directory", path.display(), what.display())]
    NoDirectory {
        path: PathBuf,
        /// The path up to that component.
        what: PathBuf,
    },
    /// A directory on the path denies a permission.
    #[error("root {}: this daemon may not {permission} {}", path.display(), what.display())]
    Denied {
        path: PathBuf,
        /// The directory.
        what: PathBuf,
        permission: Permission,
    },
    /// The root cannot be opened for another reason.
    #[error("root {}: cannot be opened: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    /// The root is on another kind of file system, and was never set up.
    #[error("root {}: is not on btrfs", path.display())]
    NotBtrfs { path: PathBuf },
    /// Its file system, or this host, has sizes with which nothing is tested.
    #[error("root {}: {sizes}", path.display())]
    Untested {
        path: PathBuf,
        sizes: filesystem::Untested,
    },
    /// The root is read-only.
    #[error("root {}: {obstacle}", path.display())]
    ReadOnly {
        path: PathBuf,
        /// Why writing is not possible.
        obstacle: WriteObstacle,
    },
    /// The root has no mark, although it was set up before.
    #[error("root {}: this is not the directory that was set up before; is its disk mounted?", path.display())]
    Unmarked { path: PathBuf },
    /// The mark is that of another receiver.
    #[error("root {}: it belongs to the receiver with id {owner}", path.display())]
    Foreign {
        path: PathBuf,
        /// Id of that receiver.
        owner: ReceiverId,
    },
    /// The root to take over is this receiver's already.
    #[error("root {}: the disk there is this receiver's already", path.display())]
    Own { path: PathBuf },
    /// The root to take over has no mark.
    #[error("root {}: the disk there belongs to no receiver: it has no mark {MARK}", path.display())]
    Nobodys { path: PathBuf },
    /// The administrator has removed the disk from this receiver's disks.
    #[error("root {}: the disk {root} was removed from this receiver's disks", path.display())]
    Removed { path: PathBuf, root: RootId },
    /// No recorded disk has this id.
    #[error("this receiver knows no disk whose id begins with `{id}`")]
    Unknown {
        /// The requested id.
        id: String,
    },
    /// Several recorded disks have an id that begins so.
    #[error(
        "this receiver knows several disks whose ids begin with `{id}`: {}",
        Several(found)
    )]
    Ambiguous {
        /// The requested id.
        id: String,
        /// The ids that match.
        found: Vec<RootId>,
    },
    /// The mark cannot be parsed.
    #[error("root {}: its mark {MARK} is damaged: {source}", path.display())]
    Damaged { path: PathBuf, source: io::Error },
    /// The root's file system is full.
    #[error("root {}: its file system is full, so that the mark {MARK} cannot be written", path.display())]
    Full { path: PathBuf },
    /// A quota of the root's file system is exhausted.
    #[error("root {}: a quota of its file system is exhausted, so that the mark {MARK} cannot be written", path.display())]
    OverQuota { path: PathBuf },
    /// A file in the receiver's own state directory cannot be read or written.
    #[error("this receiver's own state: {source}")]
    State {
        file: PathBuf,
        /// The error, with the path.
        source: io::Error,
    },
    /// I/O error on the root's file system.
    #[error("root {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// A permission that a directory can deny.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// To open what is in it.
    Enter,
    /// To list it.
    Read,
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enter => "enter (x)",
            Self::Read => "read (r)",
        })
    }
}

/// Names the file systems of the disks in a sentence.
struct On<'a>(&'a [Uuid]);

impl fmt::Display for On<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => Ok(()),
            [one] => write!(f, " (it was on file system {one})"),
            several => write!(f, " (its disks have the file systems {})", Several(several)),
        }
    }
}

struct Several<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Several<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, one) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{one}")?;
        }
        Ok(())
    }
}

const KERNEL_LOG: &str = "read the kernel log for errors of the disk";

impl Error {
    /// What the administrator can do.
    pub fn remedy(&self) -> String {
        match self {
            Self::State { file, source } => return state_remedy(file, source),
            Self::Open { source, .. } => return open_remedy(source).to_owned(),
            _ => {}
        }
        self.fixed_remedy().to_owned()
    }

    fn fixed_remedy(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "create the directory, or correct `root` in receiver.toml",
            Self::Away { .. } => "mount it",
            Self::Gone { .. } => {
                "put the directory back where it was, or correct `root` in receiver.toml; a new, empty one is added with `sendshotctl copy root add`"
            }
            Self::NoDirectory { .. } => "move it away, or correct `root` in receiver.toml",
            Self::Denied { .. } => "give the user that the receiver runs as this permission there",
            Self::Untested { .. } => {
                "put the root on a file system that was made with `mkfs.btrfs --sectorsize 4096`, on a host with pages of that size"
            }
            Self::NotBtrfs { .. } => "`root` in receiver.toml must be a directory on btrfs",
            Self::ReadOnly { obstacle, .. } => match obstacle {
                WriteObstacle::Mount => {
                    "remount it read-write; a service of systemd writes only below its ReadWritePaths"
                }
                WriteObstacle::FileSystem | WriteObstacle::Subvolume => obstacle.remedy(),
            },
            Self::Unmarked { .. } => {
                "mount the disk; if it is a new one on purpose, `sendshotctl copy root add`"
            }
            Self::Foreign { .. } => {
                "give this receiver a root of its own; if it takes over from the other one, `sendshotctl copy root take-over`"
            }
            Self::Own { .. } => {
                "there is nothing to take over; `sendshotctl copy root list` shows its disks"
            }
            Self::Nobodys { .. } => "`sendshotctl copy root add` makes it this receiver's",
            Self::Removed { .. } => "mount another one, or `sendshotctl copy root add`",
            Self::Unknown { .. } => "`sendshotctl copy root list` shows them",
            Self::Ambiguous { .. } => "give more of the id",
            Self::Damaged { .. } => {
                "read the kernel log for errors of the disk; if there are none, remove the mark, and `sendshotctl copy root add`"
            }
            Self::Full { .. } => "free space on it (delete copies, or grow the file system)",
            Self::OverQuota { .. } => {
                "raise or remove the quota (`btrfs qgroup show -r` lists the limits), or delete copies that count"
            }
            Self::Open { .. } | Self::State { .. } | Self::Io { .. } => KERNEL_LOG,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::ReadOnly { .. } => Code::ReadOnly,
            Self::Full { .. } | Self::OverQuota { .. } => Code::NoSpace,
            Self::Missing { .. }
            | Self::Away { .. }
            | Self::Gone { .. }
            | Self::NoDirectory { .. }
            | Self::Denied { .. }
            | Self::NotBtrfs { .. }
            | Self::Untested { .. }
            | Self::Unmarked { .. }
            | Self::Foreign { .. }
            | Self::Own { .. }
            | Self::Nobodys { .. }
            | Self::Removed { .. }
            | Self::Unknown { .. }
            | Self::Ambiguous { .. }
            | Self::Damaged { .. } => Code::RootMissing,
            Self::Open { source, .. } if Errno::from_io_error(source) != Some(Errno::IO) => {
                Code::RootMissing
            }
            Self::Open { .. } | Self::Io { .. } => Code::Io,
            // The only code that does not refer to the disk with the copies.
            Self::State { .. } => Code::Internal,
        }
    }
}

fn open_remedy(source: &io::Error) -> &'static str {
    match Errno::from_io_error(source) {
        Some(Errno::LOOP) => {
            "symbolic links on the path form a loop: correct them, or `root` in receiver.toml"
        }
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => {
            "the receiver is short of memory or descriptors: try again when it has less to do"
        }
        _ => KERNEL_LOG,
    }
}

fn state_remedy(file: &Path, source: &io::Error) -> String {
    let shown = file.display();
    match source.kind() {
        io::ErrorKind::StorageFull => format!("free space on the file system of {shown}"),
        io::ErrorKind::QuotaExceeded => {
            format!(
                "raise or remove the quota on the file system of {shown}, or free space within it"
            )
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            format!("mount the file system of {shown} read-write")
        }
        // Without the file, the next start accepts whatever is at the root's path as a new root.
        io::ErrorKind::InvalidData => format!(
            "the file is damaged: check that the root's disk is mounted, move {shown} away, and start again"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("let the user that the receiver runs as read and write {shown}")
        }
        _ => format!("read the kernel log for errors of the file system of {shown}"),
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::new(error.code(), error.to_string(), error.remedy())
    }
}

/// Makes the error for a `path` that could not be opened. `known` returns the file systems of the recorded disks;
/// `None` if the root was never set up.
pub(crate) fn not_opened(
    path: &Path,
    errno: Errno,
    known: impl FnOnce() -> Option<Vec<Uuid>>,
) -> Error {
    let root = path.to_owned();
    let found = match errno {
        Errno::NOENT => return not_there(path, known()),
        Errno::NOTDIR => no_directory(path).map(|what| Error::NoDirectory {
            path: root.clone(),
            what,
        }),
        Errno::ACCESS => Some(denied(path)),
        _ => None,
    };
    found.unwrap_or_else(|| Error::Open {
        path: root,
        source: errno.into(),
    })
}

/// Makes the error for a directory that is not on btrfs.
pub(crate) fn not_btrfs(path: &Path, known: Option<Vec<Uuid>>) -> Error {
    let path = path.to_owned();
    match known {
        None => Error::NotBtrfs { path },
        Some(fsids) => Error::Away {
            path,
            fsids,
            found: "its path is not on btrfs",
        },
    }
}

/// Makes the error for a mark that could not be written into the root.
pub(crate) fn not_marked(path: &Path, root: impl AsFd, source: io::Error) -> Error {
    let path = path.to_owned();
    match Errno::from_io_error(&source) {
        Some(Errno::NOSPC) => Error::Full { path },
        Some(Errno::DQUOT) => Error::OverQuota { path },
        Some(Errno::ROFS) => match WriteObstacle::of(root) {
            Ok(Some(obstacle)) => Error::ReadOnly { path, obstacle },
            Ok(None) | Err(_) => Error::Io { path, source },
        },
        _ => Error::Io { path, source },
    }
}

fn not_there(path: &Path, known: Option<Vec<Uuid>>) -> Error {
    let root = path.to_owned();
    let Some(fsids) = known else {
        return Error::Missing { path: root };
    };
    let above = path.ancestors().find(|above| above.is_dir());
    let above = above.unwrap_or(Path::new("/")).to_owned();
    match fsid(&above).filter(|fsid| fsids.contains(fsid)) {
        Some(fsid) => Error::Gone {
            path: root,
            above,
            fsid,
        },
        None => Error::Away {
            path: root,
            fsids,
            found: "there is no such directory",
        },
    }
}

fn fsid(dir: &Path) -> Option<Uuid> {
    let dir = std::fs::File::open(dir).ok()?;
    match filesystem::is_btrfs(&dir) {
        Ok(true) => filesystem::fsid(&dir).ok(),
        Ok(false) | Err(_) => None,
    }
}

/// The first component of the path that is not a directory.
fn no_directory(path: &Path) -> Option<PathBuf> {
    let is_other = |on_path: &&Path| on_path.metadata().is_ok_and(|found| !found.is_dir());
    path.ancestors().filter(is_other).last().map(Path::to_owned)
}

/// Finds the first directory on the path that denies access, or the root itself, which may not be read.
fn denied(path: &Path) -> Error {
    let is_hidden = |on_path: &&Path| {
        let denied = |e: io::Error| e.kind() == io::ErrorKind::PermissionDenied;
        on_path.metadata().err().is_some_and(denied)
    };
    let hidden = path.ancestors().filter(is_hidden).last();
    let (what, permission) = match hidden.and_then(Path::parent) {
        Some(parent) => (parent, Permission::Enter),
        None => (path, Permission::Read),
    };
    Error::Denied {
        path: path.to_owned(),
        what: what.to_owned(),
        permission,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_root_is_created_and_a_known_one_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("disk/copies");
        let new = not_opened(&root, Errno::NOENT, || None);
        assert!(matches!(new, Error::Missing { .. }), "{new:?}");
        assert!(new.remedy().contains("create the directory"));
        let fsid = Uuid::from_u128(7);
        let away = not_opened(&root, Errno::NOENT, || Some(vec![fsid]));
        let text = away.to_string();
        assert!(text.contains("its disk is not mounted"), "{text}");
        assert!(text.contains(&fsid.to_string()), "{text}");
        assert_eq!(away.remedy(), "mount it");
        let other = not_btrfs(&root, Some(Vec::new())).to_string();
        assert!(other.contains("not mounted") && other.contains("not on btrfs"));
        assert!(matches!(not_btrfs(&root, None), Error::NotBtrfs { .. }));
    }

    #[test]
    fn a_non_directory_on_the_path_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = not_opened(&file.join("copies"), Errno::NOTDIR, || None);
        let told = format!("{} is not a directory", file.display());
        assert!(error.to_string().ends_with(&told), "{error}");
        let failing = not_opened(&file, Errno::IO, || Some(Vec::new()));
        assert!(failing.remedy().contains("kernel log"));
        assert_eq!(failing.code(), Code::Io);
    }

    #[test]
    fn a_state_directory_that_is_full_is_not_the_roots_disk() {
        let file = PathBuf::from("/var/lib/receiver/roots.json");
        let remedy = |errno: Errno| {
            let source = io::Error::from(errno);
            let file = file.clone();
            Error::State { file, source }.remedy()
        };
        for (errno, text) in [
            (Errno::NOSPC, "free space on the file system of"),
            (Errno::DQUOT, "quota"),
            (Errno::ROFS, "read-write"),
        ] {
            let told = remedy(errno);
            assert!(told.contains(text) && told.contains("roots.json"), "{told}");
        }
    }

    #[test]
    fn a_damaged_list_of_disks_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("roots.json"), "{").unwrap();
        let root = crate::store::root::Root::new(
            "/root".into(),
            ReceiverId::generate(),
            dir.path(),
            |_| (),
        );
        let error = root.unwrap_err();
        assert!(error.to_string().contains("roots.json"), "{error}");
        assert!(error.remedy().contains("away, and start again"));
    }
}
