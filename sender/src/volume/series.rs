//! Finds the snapshots of a series, which is read-only snapshots that form one volume.

use std::io;
use std::path::PathBuf;

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags};
use sendshot_model::VolumeName;
use sendshot_sys::{filesystem, subvolume};
use uuid::Uuid;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub path: PathBuf,
    /// UUID in the stream.
    pub uuid: Uuid,
    /// Transaction of its last change.
    pub ctransid: u64,
    /// When the snapshot was made.
    pub made_at: Timestamp,
    fsid: Uuid,
    age: (u64, u64),
}

/// Why a pattern does not give a series.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pattern matches nothing.
    #[error("nothing is at `{pattern}`, so volume `{name}` has no read-only snapshots")]
    None { name: VolumeName, pattern: String },
    /// The pattern matches only things that are not read-only snapshots.
    #[error(
        "{} at `{pattern}` ({} is one), but no read-only snapshot, so volume `{name}` has none",
        match .others { 1 => "one other thing is".to_owned(), n => format!("{n} other things are") },
        one.display()
    )]
    Others {
        name: VolumeName,
        pattern: String,
        /// Their number.
        others: usize,
        one: PathBuf,
    },
    /// The pattern is invalid.
    #[error("the pattern `{pattern}` of volume `{name}`: {source}")]
    Pattern {
        name: VolumeName,
        pattern: String,
        source: glob::PatternError,
    },
    /// The snapshots are on several file systems, so they cannot be states of one volume.
    #[error("volume `{name}` has snapshots on several file systems: {} and {}", one.display(), other.display())]
    Several {
        name: VolumeName,
        /// A snapshot.
        one: PathBuf,
        /// A snapshot on another file system.
        other: PathBuf,
    },
    /// A snapshot cannot be read.
    #[error("cannot read {}", path.display())]
    Look {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// What the user can do; may be empty.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::None { .. } => "is the disk mounted, and the pattern in sender.toml right?",
            Self::Pattern { .. } => "correct `snapshots` in sender.toml",
            Self::Others { .. } => {
                "is the pattern in sender.toml right? a writable snapshot is made read-only by `btrfs property set SNAPSHOT ro true`"
            }
            Self::Several { .. } => "give the snapshots of each file system a volume of their own",
            Self::Look { .. } => "",
        }
    }
}

/// Finds the read-only snapshots that a pattern matches, oldest first; there is at least one.
///
/// # Errors
/// See [`Error`].
pub fn find(name: &VolumeName, pattern: &str) -> Result<Vec<Member>, Error> {
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: false,
    };
    let paths = glob::glob_with(pattern, options).map_err(|source| Error::Pattern {
        name: name.clone(),
        pattern: pattern.to_owned(),
        source,
    })?;
    let (mut found, mut others) = (Vec::new(), Vec::new());
    for path in paths {
        let path = match path {
            Ok(path) => path,
            Err(e) => {
                passed_over(e)?;
                continue;
            }
        };
        match member(&path) {
            Ok(Some(member)) => found.push(member),
            Ok(None) => others.push(path),
            Err(source) => return Err(Error::Look { path, source }),
        }
    }
    found.sort_by_key(|member: &Member| member.age);
    let Some(first) = found.first() else {
        let (name, pattern) = (name.clone(), pattern.to_owned());
        return Err(match others.first() {
            None => Error::None { name, pattern },
            Some(one) => Error::Others {
                name,
                pattern,
                others: others.len(),
                one: one.clone(),
            },
        });
    };
    match found.iter().find(|member| member.fsid != first.fsid) {
        None => Ok(found),
        Some(other) => Err(Error::Several {
            name: name.clone(),
            one: first.path.clone(),
            other: other.path.clone(),
        }),
    }
}

/// Ignores a directory of the pattern that cannot be read: it belongs to another user, was deleted just now, or
/// is a mount whose server is gone. An I/O error of the disk is returned.
fn passed_over(error: glob::GlobError) -> Result<(), Error> {
    let path = error.path().to_owned();
    let source: io::Error = error.into();
    if rustix::io::Errno::from_io_error(&source) == Some(rustix::io::Errno::IO) {
        return Err(Error::Look { path, source });
    }
    tracing::debug!(path = %path.display(), "cannot look for snapshots of a series: {source}");
    Ok(())
}

/// Opens a snapshot; `None` if it is something else, is still being made, or was deleted just now.
fn member(path: &std::path::Path) -> io::Result<Option<Member>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    if !filesystem::is_btrfs(&fd)? || !subvolume::is_subvolume(&fd)? {
        return Ok(None);
    }
    let info = subvolume::info(&fd)?;
    Ok(info.read_only.then_some(Member {
        path: path.to_owned(),
        uuid: info.wire_uuid(),
        ctransid: info.ctransid,
        made_at: Timestamp::from_second(info.otime).unwrap_or(Timestamp::UNIX_EPOCH),
        fsid: filesystem::fsid(&fd)?,
        age: (info.otransid, info.id),
    }))
}
