//! Resolves what the user names to an open subvolume with a volume id.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use sendshot_config::SenderConfig;
use sendshot_model::{SenderId, VolumeId, VolumeName, VolumeRef, human};
use sendshot_proto::volume::VolumeKey;
use sendshot_sys::subvolume::{self, Info};
use sendshot_sys::top_level::TopLevel;
use sendshot_sys::{filesystem, mounts};
use uuid::Uuid;

use crate::decide::parent::Lineage;
use crate::state::store::{self, StateSubvolume};
use crate::volume::ids::{self, Binding, KnownBindings, Naming, VolumeIds, VolumeLocation};
use crate::volume::label::{label_of, of_label};
use crate::volume::lineage;
use crate::volume::register;
use crate::volume::series;
use crate::volume::series::Member;

/// The kind of a subvolume to push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A writable subvolume, of which a push snapshot is taken.
    Live,
    /// The user's own read-only snapshot, which is only read.
    Snapshot,
}

/// A subvolume to push.
#[derive(Debug)]
pub struct Volume {
    /// Root directory. It keeps the file system busy: hold it only while working.
    pub fd: OwnedFd,
    pub path: PathBuf,
    pub info: Info,
    pub key: VolumeKey,
    /// Name and location, for the disk's own register.
    pub binding: Binding,
    pub kind: Kind,
    /// Whether its file system is read-only everywhere.
    pub read_only: bool,
    /// Nested subvolumes, which a push leaves out; paths relative to the volume.
    pub skipped: Vec<PathBuf>,
    /// If the volume is a series of snapshots, its states, oldest first. The volume is then opened at the newest.
    pub series: Vec<Member>,
}

/// Why a volume cannot be pushed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration has no such name.
    #[error("there is no volume `{name}` in the configuration; {}", known(.configured))]
    Unknown {
        /// The requested name.
        name: VolumeName,
        /// The configured names.
        configured: Vec<VolumeName>,
    },
    #[error("cannot open {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The path is on another kind of file system.
    #[error("{} is not on btrfs", path.display())]
    NotBtrfs { path: PathBuf },
    /// Its file system, or this host, has sizes with which nothing is tested.
    #[error("{}: {sizes}", path.display())]
    Untested {
        path: PathBuf,
        sizes: filesystem::Untested,
    },
    /// The path is a directory within a subvolume.
    #[error("{} is a directory, not a subvolume", path.display())]
    NotSubvolume { path: PathBuf },
    /// The path is not a directory.
    #[error("{} is {what}, not a subvolume", path.display())]
    NotDirectory {
        path: PathBuf,
        /// Kind of file.
        what: &'static str,
    },
    /// The disk with the volume is not mounted.
    #[error(
        "{}: file system {fsid}, which `{name}` was pushed from last, is not mounted there",
        path.display()
    )]
    NotMounted {
        path: PathBuf,
        name: VolumeName,
        fsid: Uuid,
    },
    /// The subvolume was received and made writable since: its received UUID would identify it as the state that it
    /// no longer is.
    #[error("{} was received from elsewhere and made writable since", path.display())]
    Received { path: PathBuf },
    /// The path still opens the volume that a restore in place has put aside.
    #[error(
        "{} still opens the volume that was replaced by a restore and is now called {}",
        path.display(), now.display()
    )]
    Replaced {
        path: PathBuf,
        /// Its path from the top level.
        now: PathBuf,
    },
    /// The subvolume belongs to Sendshot.
    #[error("{} belongs to Sendshot itself", path.display())]
    Ours { path: PathBuf },
    /// The pattern of a series matches no snapshots, or not those of one series.
    #[error(transparent)]
    Series(#[from] series::Error),
    /// The volume's id is ambiguous.
    #[error(transparent)]
    Id(#[from] ids::Error),
    /// I/O error while reading the subvolume's properties.
    #[error("cannot query btrfs about {}", path.display())]
    Ask {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

fn known(configured: &[VolumeName]) -> String {
    if configured.is_empty() {
        return "it configures none".to_owned();
    }
    let names: Vec<String> = configured.iter().map(|name| format!("`{name}`")).collect();
    format!("it has {}", human::few(&names))
}

/// What it takes to look up a volume.
#[derive(Clone, Copy)]
pub struct Finder<'a> {
    pub config: &'a SenderConfig,
    /// The volumes that this host knows.
    pub ids: &'a VolumeIds,
    pub me: SenderId,
    /// Whether an id is this sender's, now or formerly.
    pub own: &'a dyn Fn(SenderId) -> bool,
}

impl std::fmt::Debug for Finder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Finder").finish_non_exhaustive()
    }
}

impl Finder<'_> {
    /// Reads the disk's own list of volumes. An error is only logged: whatever needs the disk for more reports it.
    fn told(&self, fd: &OwnedFd) -> Vec<Binding> {
        let open = || -> anyhow::Result<Vec<Binding>> {
            match StateSubvolume::open(TopLevel::of(fd)?)? {
                Some(state) => Ok(register::volumes(&state, self.me, self.own)?),
                None => Ok(Vec::new()),
            }
        };
        open().unwrap_or_else(|e| {
            tracing::debug!("cannot read the volumes of a disk: {e:#}");
            Vec::new()
        })
    }
}

/// Finds and opens the volume that the user named.
///
/// # Errors
/// See [`Error`].
pub fn resolve(finder: Finder<'_>, wanted: &VolumeRef) -> Result<Volume, Error> {
    if let VolumeRef::Name(name) = wanted
        && let Some(pattern) = finder
            .config
            .volumes
            .get(name)
            .and_then(|v| v.snapshots.as_ref())
    {
        let series = series::find(name, pattern)?;
        // There is at least one, else `find` would have failed.
        let newest = series
            .last()
            .map(|newest| newest.path.clone())
            .unwrap_or_default();
        let volume = resolve_at(finder, newest, Some(name.clone()))?;
        return Ok(Volume { series, ..volume });
    }
    let (path, configured) = locate(finder.config, wanted)?;
    resolve_at(finder, path, configured)
}

/// Opens a snapshot of a series.
///
/// # Errors
/// See [`Error`].
pub fn resolve_member(finder: Finder<'_>, name: &VolumeName, path: &Path) -> Result<Volume, Error> {
    resolve_at(finder, path.to_owned(), Some(name.clone()))
}

fn resolve_at(
    finder: Finder<'_>,
    path: PathBuf,
    configured: Option<VolumeName>,
) -> Result<Volume, Error> {
    let known = configured
        .clone()
        .and_then(|name| finder.ids.by_naming(&Naming::Configured(name)));
    let fd = open(&path).map_err(|e| not_mounted(e, known.as_ref()))?;
    check(&fd, &path).map_err(|e| not_mounted(e, known.as_ref()))?;
    let ask = |source| Error::Ask {
        path: path.clone(),
        source,
    };
    let info = subvolume::info(&fd).map_err(ask)?;
    let from_top = subvolume::path_from_top(&fd, info.id)
        .map_err(ask)?
        .unwrap_or_default();
    if from_top.starts_with(store::NAME) {
        return Err(Error::Ours { path });
    }
    if configured.is_some() && is_put_aside(&path, &from_top) {
        return Err(Error::Replaced {
            path,
            now: from_top,
        });
    }
    let kind = if info.read_only {
        Kind::Snapshot
    } else {
        Kind::Live
    };
    if kind == Kind::Live && !info.received_uuid.is_nil() {
        return Err(Error::Received { path });
    }
    let place = place(&fd, &info).map_err(ask)?;
    let naming = match configured {
        Some(name) => Naming::Configured(name),
        None => Naming::by_path(place.fsid, &from_top),
    };
    let told = finder.told(&fd);
    let binding = match kind {
        Kind::Live => finder.bind(naming, &place, &told)?,
        Kind::Snapshot => {
            let snapshot = Snapshot {
                fd: &fd,
                info: &info,
                from_top: &from_top,
                naming,
                place,
            };
            finder.volume_of(snapshot, &told)?
        }
    };
    let key = VolumeKey {
        id: binding.id,
        name: binding.naming.name().clone(),
    };
    let skipped = nested(&fd, &info).map_err(ask)?;
    let read_only = filesystem::is_read_only_everywhere(&fd).map_err(ask)?;
    Ok(Volume {
        read_only,
        fd,
        path,
        info,
        key,
        binding,
        kind,
        skipped,
        series: Vec::new(),
    })
}

/// Finds the volume that was pushed from a path before; `None` if none was. It is not bound again.
///
/// # Errors
/// See [`Error`].
pub fn known_at(finder: Finder<'_>, path: &Path) -> Result<Option<VolumeId>, Error> {
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
    let place = place(&fd, &info).map_err(ask)?;
    let naming = Naming::by_path(place.fsid, &from_top);
    let told = finder.told(&fd);
    let by_name = |binding: &&Binding| binding.naming == naming;
    let found = finder
        .ids
        .of_subvolume(&place, &told)
        .or_else(|| told.iter().find(by_name).cloned())
        .or_else(|| finder.ids.by_naming(&naming));
    Ok(found.map(|binding| binding.id))
}

/// Returns the path, and the configured name if it has one.
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
            let is_at =
                |v: &sendshot_config::VolumeConfig| v.path == *path && v.snapshots.is_none();
            let configured = config.volumes.iter().find(|(_, v)| is_at(v));
            Ok((path.clone(), configured.map(|(name, _)| name.clone())))
        }
    }
}

fn open(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => Ok(fd),
        Err(e) => Err(not_opened(path, e)),
    }
}

fn not_opened(path: &Path, errno: rustix::io::Errno) -> Error {
    use rustix::fs::FileType;
    let path = path.to_owned();
    // The error is about the path itself, or about a directory on the way to it.
    let there = match errno {
        rustix::io::Errno::NOTDIR => rustix::fs::stat(&path).ok(),
        _ => None,
    };
    let Some(there) = there else {
        let source = errno.into();
        return Error::Open { path, source };
    };
    let what = match FileType::from_raw_mode(there.st_mode) {
        FileType::RegularFile => "a regular file",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::BlockDevice | FileType::CharacterDevice => "a device",
        _ => "an object of another type",
    };
    Error::NotDirectory { path, what }
}

/// Improves the error for a volume that was pushed before and whose file system is not mounted: what is missing or
/// of another kind at its path is the mount point of its disk.
fn not_mounted(error: Error, known: Option<&Binding>) -> Error {
    let path = match &error {
        Error::NotBtrfs { path } | Error::NotSubvolume { path } => path,
        Error::Open { path, source } if source.kind() == io::ErrorKind::NotFound => path,
        _ => return error,
    };
    let Some((known, fsid)) = known.and_then(|known| Some((known, known.fsid?))) else {
        return error;
    };
    match mounts::any_of(fsid) {
        Ok(None) => Error::NotMounted {
            path: path.clone(),
            name: known.naming.name().clone(),
            fsid,
        },
        _ => error,
    }
}

fn check(fd: &OwnedFd, path: &Path) -> Result<(), Error> {
    let path = path.to_owned();
    match filesystem::is_btrfs(fd) {
        Ok(true) => {}
        Ok(false) => return Err(Error::NotBtrfs { path }),
        Err(source) => return Err(Error::Ask { path, source }),
    }
    match filesystem::untested(fd) {
        Ok(None) => {}
        Ok(Some(sizes)) => return Err(Error::Untested { path, sizes }),
        Err(source) => return Err(Error::Ask { path, source }),
    }
    match subvolume::is_subvolume(fd) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::NotSubvolume { path }),
        Err(source) => Err(Error::Ask { path, source }),
    }
}

/// Returns a subvolume's location. The top level of file systems made before 2018 has no UUID; a file system
/// has one top level, so the file system's id replaces it.
fn place(fd: &OwnedFd, info: &Info) -> io::Result<VolumeLocation> {
    let fsid = filesystem::fsid(fd)?;
    Ok(VolumeLocation {
        fsid,
        passing: filesystem::has_passing_id(fsid),
        subvolume: if info.uuid.is_nil() { fsid } else { info.uuid },
    })
}

/// Part of the name of a volume that a restore in place has put aside; the time of the restore follows.
pub const PUT_ASIDE: &str = ".before-restore-";

/// Whether a path opens a volume that a restore has put aside, through a mount that is older than that.
pub(crate) fn is_put_aside(path: &Path, from_top: &Path) -> bool {
    let name = |path: &Path| {
        path.file_name()
            .map(|name| name.to_string_lossy().into_owned())
    };
    let found = name(from_top).unwrap_or_default();
    found.contains(PUT_ASIDE) && name(path) != Some(found)
}

/// Finds the id of a volume by its naming, in the list of the disk of `fd` or in that of this host. It is not bound.
///
/// # Errors
/// I/O errors.
pub fn known_by_naming(
    finder: Finder<'_>,
    naming: &Naming,
    fd: &OwnedFd,
) -> io::Result<Option<VolumeId>> {
    let (told, fsid) = (finder.told(fd), filesystem::fsid(fd)?);
    let found = finder.ids.merged_by_naming(naming, &told, fsid);
    Ok(found.map(|binding| binding.id))
}

/// Binds the name of a configured volume to a subvolume that was restored for it.
///
/// # Errors
/// See [`Error`].
pub fn bind_restored(
    finder: Finder<'_>,
    name: &VolumeName,
    fd: &OwnedFd,
) -> Result<Binding, Error> {
    let ask = |source| Error::Ask {
        path: PathBuf::from(name.as_str()),
        source,
    };
    let info = subvolume::info(fd).map_err(ask)?;
    let place = place(fd, &info).map_err(ask)?;
    let told = finder.told(fd);
    finder.bind(Naming::Configured(name.clone()), &place, &told)
}

/// A read-only snapshot whose volume is looked up.
struct Snapshot<'a> {
    fd: &'a OwnedFd,
    info: &'a Info,
    from_top: &'a Path,
    /// The snapshot's own naming.
    naming: Naming,
    place: VolumeLocation,
}

impl Finder<'_> {
    fn bind(
        &self,
        naming: Naming,
        place: &VolumeLocation,
        told: &[Binding],
    ) -> Result<Binding, Error> {
        let configured: Vec<VolumeName> = self.config.volumes.keys().cloned().collect();
        let known = KnownBindings {
            disk: told,
            configured: &configured,
        };
        Ok(self.ids.bind(naming, place, known)?)
    }

    /// The location to which a series is bound. Only its name identifies a series: the origin of its snapshots
    /// changes with every rollback, and can be another volume.
    fn place_of_series(
        &self,
        naming: &Naming,
        place: VolumeLocation,
        told: &[Binding],
    ) -> VolumeLocation {
        let by_name = |binding: &&Binding| binding.naming == *naming;
        let known = told.iter().find(by_name).cloned();
        let known = known.or_else(|| self.ids.by_naming(naming));
        let subvolume = known.map_or_else(Uuid::new_v4, |binding| binding.subvolume);
        VolumeLocation { subvolume, ..place }
    }

    /// Finds the volume of which a read-only snapshot is a state:
    ///
    /// 1. With a configured name, the volume of that name, and no other.
    /// 2. For a copy that Sendshot received, the label of its directory. All copies in it are states of one volume.
    /// 3. For a snapshot, the volume of the subvolume of which it was taken; known, configured, or neither, and
    ///    also if that subvolume is gone. One subvolume is one volume.
    /// 4. Anything else is a volume of its own.
    fn volume_of(&self, snapshot: Snapshot<'_>, told: &[Binding]) -> Result<Binding, Error> {
        let Snapshot {
            fd,
            info,
            from_top,
            naming,
            place,
        } = snapshot;
        if let Naming::Configured(name) = &naming {
            let of = match self.config.volumes.get(name) {
                Some(volume) if volume.snapshots.is_some() => {
                    self.place_of_series(&naming, place, told)
                }
                Some(_) | None => place,
            };
            return self.bind(naming, &of, told);
        }
        if let Some(label) = label_of(fd, info) {
            let directory = from_top.parent().unwrap_or(Path::new(""));
            let of = VolumeLocation {
                subvolume: of_label(&label),
                ..place
            };
            return self.bind(Naming::by_path(place.fsid, directory), &of, told);
        }
        if info.parent_uuid.is_nil() {
            return self.bind(naming, &place, told);
        }
        let of = VolumeLocation {
            subvolume: info.parent_uuid,
            ..place
        };
        let mut known = vec![of];
        if !info.received_uuid.is_nil() {
            // Stock `btrfs receive` makes a subvolume as a snapshot of the copy before it, and so on.
            let before = made_after(fd, info).into_iter();
            known.extend(before.map(|subvolume| VolumeLocation { subvolume, ..place }));
        }
        let mut known = known.iter();
        if let Some(binding) = known.find_map(|place| self.ids.of_subvolume(place, told)) {
            return Ok(binding);
        }
        let live = |(_, volume): &(_, &sendshot_config::VolumeConfig)| volume.snapshots.is_none();
        for (name, volume) in self.config.volumes.iter().filter(live) {
            let found = open(&volume.path).and_then(|fd| {
                let failed = |source| Error::Ask {
                    path: volume.path.clone(),
                    source,
                };
                let info = subvolume::info(&fd).map_err(failed)?;
                self::place(&fd, &info).map_err(failed)
            });
            // A configured volume that is not mounted now is not the origin of this snapshot.
            if found.is_ok_and(|found| found == of) {
                return self.bind(Naming::Configured(name.clone()), &of, told);
            }
        }
        let naming = match live_path(fd, info.parent_uuid) {
            Some(path) => Naming::by_path(place.fsid, &path),
            None => naming,
        };
        self.bind(naming, &of, told)
    }
}

/// The ancestors of a snapshot, as far as they exist.
fn made_after(fd: &OwnedFd, info: &Info) -> Vec<Uuid> {
    let ancestors = TopLevel::of(fd).map(|top| lineage::of(&top, info));
    let ancestors = ancestors.unwrap_or_else(|_| Ok(Lineage::default()));
    let ancestors = ancestors.unwrap_or_default().ancestors.into_iter();
    ancestors.map(|ancestor| ancestor.uuid).collect()
}

/// The path of the subvolume of this UUID from the top level, if it exists.
fn live_path(fd: &OwnedFd, uuid: Uuid) -> Option<PathBuf> {
    let top = TopLevel::of(fd).ok()?;
    let info = lineage::by_uuid(&top, uuid).ok()??;
    subvolume::path_from_top(&top, info.id).ok()?
}

fn nested(fd: &OwnedFd, info: &Info) -> io::Result<Vec<PathBuf>> {
    let ours = Path::new(store::NAME);
    let mut paths: Vec<PathBuf> = subvolume::children(fd, info.id)?
        .into_iter()
        .map(|(_, path)| path)
        .filter(|path| info.id != subvolume::TOP_LEVEL || path != ours)
        .collect();
    paths.sort();
    Ok(paths)
}

/// Checks that a configured volume can be pushed; returns the nested subvolumes that would be left out.
///
/// # Errors
/// See [`Error`].
pub fn look(
    name: &VolumeName,
    volume: &sendshot_config::VolumeConfig,
) -> Result<Vec<PathBuf>, Error> {
    if let Some(pattern) = &volume.snapshots {
        series::find(name, pattern)?;
        return Ok(Vec::new());
    }
    let path = &volume.path;
    let fd = open(path)?;
    check(&fd, path)?;
    let ask = |source| Error::Ask {
        path: path.clone(),
        source,
    };
    let info = subvolume::info(&fd).map_err(ask)?;
    nested(&fd, &info).map_err(ask)
}
