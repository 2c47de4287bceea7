//! From what the user names to an opened subvolume with a volume id.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use sendshot_config::SenderConfig;
use sendshot_model::{VolumeId, VolumeName, VolumeRef};
use sendshot_proto::inventory::VolumeKey;
use sendshot_sys::filesystem;
use sendshot_sys::subvolume::{self, Info};
use uuid::Uuid;

use crate::problem::{Kind as ProblemKind, Problem};
use crate::state_subvolume;
use crate::volume_ids::{self, Naming, VolumeIds};

/// What kind of subvolume is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A writable one: a push snapshot is taken.
    Live,
    /// A read-only snapshot of the user's: it is read, and left alone.
    Snapshot,
}

/// A subvolume to push.
#[derive(Debug)]
pub struct Volume {
    /// Its root directory. Keeps the file system busy: hold it only while working.
    pub fd: OwnedFd,
    /// Where it was found.
    pub path: PathBuf,
    /// What the kernel knows of it.
    pub info: Info,
    /// Its id and name.
    pub key: VolumeKey,
    /// Live or not.
    pub kind: Kind,
    /// Nested subvolumes, which a push leaves out; paths relative to the volume.
    pub skipped: Vec<PathBuf>,
}

/// Why there is nothing to push.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such name in the configuration.
    #[error("there is no volume `{name}` in the configuration; {}", known(.configured))]
    Unknown {
        /// What was asked for.
        name: VolumeName,
        /// What there is.
        configured: Vec<VolumeName>,
    },
    /// It cannot be opened.
    #[error("open {}", path.display())]
    Open {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It lies on another kind of file system.
    #[error("{} is not on btrfs", path.display())]
    NotBtrfs {
        /// The path.
        path: PathBuf,
    },
    /// It is a directory within a subvolume.
    #[error("{} is a directory, not a subvolume", path.display())]
    NotSubvolume {
        /// The path.
        path: PathBuf,
    },
    /// It was received, and made writable since: under its received UUID it would pass for what it
    /// no longer is.
    #[error("{} was received from elsewhere and made writable since", path.display())]
    Received {
        /// The path.
        path: PathBuf,
    },
    /// It is our own.
    #[error("{} belongs to Sendshot itself", path.display())]
    Ours {
        /// The path.
        path: PathBuf,
    },
    /// Its id is in doubt.
    #[error(transparent)]
    Id(#[from] volume_ids::Error),
    /// The kernel would not tell about it.
    #[error("ask btrfs about {}", path.display())]
    Ask {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

fn known(configured: &[VolumeName]) -> String {
    if configured.is_empty() {
        return "it configures none".to_owned();
    }
    let names: Vec<String> = configured.iter().map(|name| format!("`{name}`")).collect();
    format!("it has {}", names.join(", "))
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let (kind, remedy) = match &error {
            Error::Unknown { .. } => (
                ProblemKind::Usage,
                "name one of these, add it to sender.toml, or give an absolute path",
            ),
            Error::Open { .. } => (ProblemKind::Usage, "is it mounted, and spelt right?"),
            Error::NotBtrfs { .. } => (
                ProblemKind::Usage,
                "only btrfs subvolumes can be replicated",
            ),
            Error::NotSubvolume { .. } => (
                ProblemKind::Usage,
                "push the subvolume that contains it, or make it one: `btrfs subvolume create`, then move its files in",
            ),
            Error::Received { .. } => (
                ProblemKind::Usage,
                "work in a snapshot of it instead, which has no received UUID: `btrfs subvolume snapshot`",
            ),
            Error::Ours { .. } => (ProblemKind::Usage, "push the volume it was made from"),
            Error::Id(volume_ids::Error::Conflict { .. }) => (
                ProblemKind::Usage,
                "give the volume back its former name, or choose a name that was never used",
            ),
            Error::Id(volume_ids::Error::Io(_)) | Error::Ask { .. } => (ProblemKind::Failed, ""),
        };
        Problem::from_error(kind, &error).remedy(remedy)
    }
}

/// Finds and opens what the user named.
///
/// # Errors
/// See [`Error`].
pub fn resolve(
    config: &SenderConfig,
    ids: &VolumeIds,
    wanted: &VolumeRef,
) -> Result<Volume, Error> {
    let (path, configured) = locate(config, wanted)?;
    let fd = open(&path)?;
    check(&fd, &path)?;
    let ask = |source| Error::Ask {
        path: path.clone(),
        source,
    };
    let info = subvolume::info(&fd).map_err(ask)?;
    let from_top = subvolume::path_from_top(&fd, info.id)
        .map_err(ask)?
        .unwrap_or_default();
    if from_top.starts_with(state_subvolume::NAME) {
        return Err(Error::Ours { path });
    }
    let kind = if info.read_only {
        Kind::Snapshot
    } else {
        Kind::Live
    };
    if kind == Kind::Live && !info.received_uuid.is_nil() {
        return Err(Error::Received { path });
    }
    let naming = match configured {
        Some(name) => Naming::Configured(name),
        None => Naming::by_path(filesystem::fsid(&fd).map_err(ask)?, &from_top),
    };
    let key = identify(
        config,
        ids,
        kind,
        naming,
        identity(&fd, &info).map_err(ask)?,
        &info,
    )?;
    let skipped = nested(&fd, &info).map_err(ask)?;
    Ok(Volume {
        fd,
        path,
        info,
        key,
        kind,
        skipped,
    })
}

/// The volume that was pushed from a path before; `None` if none was. Nothing is bound anew.
///
/// # Errors
/// See [`Error`].
pub fn known_at(ids: &VolumeIds, path: &Path) -> Result<Option<VolumeId>, Error> {
    let fd = open(path)?;
    check(&fd, path)?;
    let ask = |source| Error::Ask {
        path: path.to_owned(),
        source,
    };
    let info = subvolume::info(&fd).map_err(ask)?;
    let from_top = subvolume::path_from_top(&fd, info.id)
        .map_err(ask)?
        .unwrap_or_default();
    let naming = Naming::by_path(filesystem::fsid(&fd).map_err(ask)?, &from_top);
    let found = ids
        .by_subvolume(identity(&fd, &info).map_err(ask)?)
        .or_else(|| ids.by_naming(&naming));
    Ok(found.map(|binding| binding.id))
}

/// The path, and the configured name if it has one.
fn locate(
    config: &SenderConfig,
    wanted: &VolumeRef,
) -> Result<(PathBuf, Option<VolumeName>), Error> {
    match wanted {
        VolumeRef::Name(name) => match config.volumes.get(name) {
            Some(volume) => Ok((volume.path.clone(), Some(name.clone()))),
            None => Err(Error::Unknown {
                name: name.clone(),
                configured: config.volumes.keys().cloned().collect(),
            }),
        },
        VolumeRef::Path(path) => {
            let configured = config.volumes.iter().find(|(_, v)| v.path == *path);
            Ok((path.clone(), configured.map(|(name, _)| name.clone())))
        }
    }
}

fn open(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => Ok(fd),
        Err(rustix::io::Errno::NOTDIR) => Err(Error::NotSubvolume {
            path: path.to_owned(),
        }),
        Err(e) => Err(Error::Open {
            path: path.to_owned(),
            source: e.into(),
        }),
    }
}

fn check(fd: &OwnedFd, path: &Path) -> Result<(), Error> {
    let path = path.to_owned();
    match filesystem::is_btrfs(fd) {
        Ok(true) => {}
        Ok(false) => return Err(Error::NotBtrfs { path }),
        Err(source) => return Err(Error::Ask { path, source }),
    }
    match subvolume::is_subvolume(fd) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::NotSubvolume { path }),
        Err(source) => Err(Error::Ask { path, source }),
    }
}

/// UUID of the subvolume. The top level of file systems made before 2018 has none; there is
/// one top level a file system, so the file system's id serves.
fn identity(fd: &OwnedFd, info: &Info) -> io::Result<Uuid> {
    if info.uuid.is_nil() {
        filesystem::fsid(fd)
    } else {
        Ok(info.uuid)
    }
}

/// The volume that a subvolume is. A read-only snapshot is a state of the volume it was taken
/// of, if we know that one.
fn identify(
    config: &SenderConfig,
    ids: &VolumeIds,
    kind: Kind,
    naming: Naming,
    uuid: Uuid,
    info: &Info,
) -> Result<VolumeKey, Error> {
    let of_volume = match kind {
        Kind::Live => None,
        Kind::Snapshot => origin(config, ids, info.parent_uuid)?,
    };
    let binding = match of_volume {
        Some(binding) => binding,
        None => ids.bind(naming, uuid)?,
    };
    Ok(VolumeKey {
        id: binding.id,
        name: binding.naming.name().clone(),
    })
}

/// The volume whose subvolume has this UUID: one that was pushed before, or a configured one.
fn origin(
    config: &SenderConfig,
    ids: &VolumeIds,
    uuid: Uuid,
) -> Result<Option<volume_ids::Binding>, Error> {
    if uuid.is_nil() {
        return Ok(None);
    }
    if let Some(binding) = ids.by_subvolume(uuid) {
        return Ok(Some(binding));
    }
    for (name, volume) in &config.volumes {
        let found = open(&volume.path).and_then(|fd| {
            subvolume::info(fd).map_err(|source| Error::Ask {
                path: volume.path.clone(),
                source,
            })
        });
        // A configured volume that is not there now is not the origin of what is.
        if found.is_ok_and(|info| info.uuid == uuid) {
            return Ok(Some(ids.bind(Naming::Configured(name.clone()), uuid)?));
        }
    }
    Ok(None)
}

fn nested(fd: &OwnedFd, info: &Info) -> io::Result<Vec<PathBuf>> {
    let ours = Path::new(state_subvolume::NAME);
    let mut paths: Vec<PathBuf> = subvolume::children(fd, info.id)?
        .into_iter()
        .map(|(_, path)| path)
        .filter(|path| info.id != subvolume::TOP_LEVEL || path != ours)
        .collect();
    paths.sort();
    Ok(paths)
}

/// Whether a configured volume could be pushed, and what would be left out of it.
///
/// # Errors
/// See [`Error`].
pub fn look(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let fd = open(path)?;
    check(&fd, path)?;
    let ask = |source| Error::Ask {
        path: path.to_owned(),
        source,
    };
    let info = subvolume::info(&fd).map_err(ask)?;
    nested(&fd, &info).map_err(ask)
}
