//! Saves a sendshot so that a crash at any moment leaves it whole or absent.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use sendshot_sys::durable;

use crate::capture::frozen::Frozen;
use crate::capture::recapture::{self, Effort};
use crate::capture::{self, capture};
use crate::format::entry::WireNumber;
use crate::format::error;
use crate::format::file::Sendshot;
use crate::format::hashes;

/// Reason why a sendshot was not saved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The snapshot could not be captured, or the sendshot not written.
    #[error(transparent)]
    Capture(#[from] recapture::Error),
    /// The sendshot that was written cannot be read back.
    #[error("cannot read back the sendshot that was just saved")]
    Check(#[from] error::Error),
}

impl Error {
    /// What the user can do beyond what the kernel's error says; empty if nothing is known.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Capture(recapture::Error::Capture(capture::Error::Incomplete { .. })) => {
                "the file system is damaged: copy the file from a backup, or run `btrfs check`"
            }
            Self::Capture(_) | Self::Check(_) => "",
        }
    }
}

impl From<capture::Error> for Error {
    fn from(error: capture::Error) -> Self {
        Self::Capture(error.into())
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Capture(error.into())
    }
}

/// Captures a snapshot into the file `name` of `dir`, durably, and opens it. With `before`, a sendshot of the
/// same subvolume, reads only what changed since.
///
/// # Errors
/// See [`Error`]; a failed save leaves no file.
pub fn save(
    snapshot: Frozen<'_>,
    number: WireNumber,
    before: Option<&Sendshot>,
    dir: impl AsFd,
    name: &OsStr,
) -> Result<(Sendshot, Effort), Error> {
    match save_once(snapshot, number, before, &dir, name) {
        // What was copied from the previous sendshot does not fit the snapshot, or that one is damaged.
        Err(Error::Check(_) | Error::Capture(recapture::Error::Before(_))) if before.is_some() => {
            save_once(snapshot, number, None, &dir, name)
        }
        saved => saved,
    }
    .or_else(|error| {
        if matches!(error, Error::Check(_)) {
            durable::remove_at(&dir, name)?;
        }
        Err(error)
    })
}

fn save_once(
    snapshot: Frozen<'_>,
    number: WireNumber,
    before: Option<&Sendshot>,
    dir: impl AsFd,
    name: &OsStr,
) -> Result<(Sendshot, Effort), Error> {
    // Hashes of another state under this name must not outlive that state.
    durable::remove_at(&dir, &hashes::companion(name))?;
    let effort = durable::stream_at(&dir, name, durable::PRIVATE, |file| {
        if let Some(before) = before {
            return Ok::<_, Error>(recapture::recapture_into(before, snapshot, number, file)?);
        }
        let out = BufWriter::new(file);
        let (out, _, _) = capture(snapshot, number, out)?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok((file, Effort::Full))
    })?;
    let saved = match (effort, before) {
        (Effort::Changes(0), Some(before)) => {
            opened(&dir, name, |file, path| before.same_content(file, path))
        }
        _ => open_at(dir, name),
    };
    Ok((saved?, effort))
}

/// Saves like [`save`], to a path.
///
/// # Errors
/// See [`Error`].
pub fn save_to(
    snapshot: Frozen<'_>,
    number: WireNumber,
    before: Option<&Sendshot>,
    path: &Path,
) -> Result<(Sendshot, Effort), Error> {
    let (dir, name) = place(path)?;
    save(snapshot, number, before, dir, name)
}

/// Opens the directory of a file and returns it with the file's name.
///
/// # Errors
/// I/O errors, and `InvalidInput` for a path without a name.
pub fn place(path: &Path) -> io::Result<(File, &OsStr)> {
    let name = path
        .file_name()
        .ok_or(io::Error::from(io::ErrorKind::InvalidInput))?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    Ok((File::open(parent)?, name))
}

/// Opens a sendshot like [`open_at`], by its path.
///
/// # Errors
/// See [`error::Error`].
pub fn open(path: &Path) -> Result<Sendshot, error::Error> {
    let sendshot = Sendshot::open(path)?;
    let hashes = match place(path) {
        Ok((dir, name)) => hashes::open_at(dir, name, sendshot.head().uuid),
        Err(_) => None,
    };
    Ok(sendshot.with_hashes(hashes))
}

/// Opens and checks the sendshot `name` of `dir`, with its hashes if that file is valid.
///
/// # Errors
/// See [`error::Error`].
pub fn open_at(dir: impl AsFd, name: &OsStr) -> Result<Sendshot, error::Error> {
    opened(dir, name, Sendshot::from_file)
}

fn opened(
    dir: impl AsFd,
    name: &OsStr,
    check: impl FnOnce(File, &Path) -> Result<Sendshot, error::Error>,
) -> Result<Sendshot, error::Error> {
    let path = PathBuf::from(name);
    let opened = durable::open_file(&dir, name)
        .and_then(|file| file.ok_or_else(|| io::ErrorKind::NotFound.into()));
    match opened {
        Ok(file) => {
            let sendshot = check(file, &path)?;
            let hashes = hashes::open_at(dir, name, sendshot.head().uuid);
            Ok(sendshot.with_hashes(hashes))
        }
        // The name is not that of a regular file.
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(error::Error::Foreign { path }),
        Err(source) => Err(error::Error::Io { path, source }),
    }
}
