//! The argument `HOST:VOL`.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::peer_name::PeerName;
use crate::peer_name::PeerNameError;
use crate::volume_name::VolumeName;
use crate::volume_name::VolumeNameError;

/// The meaning of `HOST:VOL`: a volume, and the receiver to or from which it is sent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The receiver's name from pairing.
    pub receiver: PeerName,
    /// The volume on this host.
    pub volume: VolumeRef,
}

/// A user's reference to a volume.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VolumeRef {
    /// Its name in the configuration.
    Name(VolumeName),
    /// An absolute path of the subvolume.
    Path(PathBuf),
}

/// An argument is not `HOST:VOL`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// There is no colon.
    #[error(
        "`{text}` lacks a part: write HOST:VOL, the receiver's name and a volume, \
         like `nas2:photos` or `nas2:/srv/photos`"
    )]
    NoColon {
        /// The invalid argument.
        text: String,
    },
    /// The part before the colon is empty.
    #[error("`{text}` lacks the receiver: write HOST:VOL, like `nas2:photos`")]
    NoReceiver {
        /// The invalid argument.
        text: String,
    },
    /// The part after the colon is empty.
    #[error(
        "`{text}` lacks the volume: add a configured volume's name or the absolute path of a \
         subvolume, like `{text}photos` or `{text}/srv/photos`"
    )]
    NoVolume {
        /// The invalid argument.
        text: String,
    },
    /// The part before the colon is not a valid name of a receiver.
    #[error("in `{text}`, {source}")]
    Receiver {
        /// The invalid argument.
        text: String,
        /// The fault of the name.
        source: PeerNameError,
    },
    /// The volume is a path, but not an absolute one.
    #[error(
        "in `{text}`, `{path}` is a relative path, which the daemon cannot know the start of: \
         write it from `/`"
    )]
    RelativePath {
        /// The invalid argument.
        text: String,
        /// The part after the colon.
        path: String,
    },
    /// The part after the colon is not a valid name of a volume.
    #[error("in `{text}`, {source}")]
    Volume {
        /// The invalid argument.
        text: String,
        /// The fault of the name.
        source: VolumeNameError,
    },
}

impl Target {
    /// Parses an argument. A path may have any bytes, so the argument need not be UTF-8.
    ///
    /// # Errors
    /// The missing or invalid part, with an example.
    pub fn parse(argument: impl AsRef<OsStr>) -> Result<Self, TargetError> {
        let bytes = argument.as_ref().as_bytes();
        let text = String::from_utf8_lossy(bytes).into_owned();
        let Some(colon) = bytes.iter().position(|b| *b == b':') else {
            return Err(TargetError::NoColon { text });
        };
        let (host, volume) = (&bytes[..colon], &bytes[colon + 1..]);
        if host.is_empty() {
            return Err(TargetError::NoReceiver { text });
        }
        let receiver = match PeerName::parse(&String::from_utf8_lossy(host)) {
            Ok(receiver) => receiver,
            Err(source) => return Err(TargetError::Receiver { text, source }),
        };
        Ok(Self {
            receiver,
            volume: volume_ref(volume, text)?,
        })
    }
}

fn volume_ref(volume: &[u8], text: String) -> Result<VolumeRef, TargetError> {
    if volume.is_empty() {
        return Err(TargetError::NoVolume { text });
    }
    if volume.starts_with(b"/") {
        return Ok(VolumeRef::Path(OsStr::from_bytes(volume).into()));
    }
    let name = String::from_utf8_lossy(volume);
    if name.contains('/') || name.starts_with('.') {
        return Err(TargetError::RelativePath {
            text,
            path: name.into_owned(),
        });
    }
    VolumeName::parse(&name)
        .map(VolumeRef::Name)
        .map_err(|source| TargetError::Volume { text, source })
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        Self::parse(text)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.receiver, self.volume)
    }
}

impl fmt::Display for VolumeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Target::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn names_and_paths_are_distinguished() {
        let target = Target::parse("nas2:photos").unwrap();
        assert_eq!(target.volume, VolumeRef::Name("photos".parse().unwrap()));
        let target = Target::parse("nas2:/srv/a:b").unwrap();
        assert_eq!(target.volume, VolumeRef::Path("/srv/a:b".into()));
        assert_eq!(target.to_string(), "nas2:/srv/a:b");
    }

    #[test]
    fn a_path_may_have_any_bytes() {
        let target = Target::parse(OsStr::from_bytes(b"nas2:/srv/caf\xe9")).unwrap();
        let VolumeRef::Path(path) = target.volume else {
            panic!("not a path")
        };
        assert_eq!(path.as_os_str().as_bytes(), b"/srv/caf\xe9");
    }

    #[test]
    fn a_missing_part_is_named() {
        assert_eq!(
            error("photos"),
            "`photos` lacks a part: write HOST:VOL, the receiver's name and a volume, \
             like `nas2:photos` or `nas2:/srv/photos`"
        );
        assert_eq!(
            error(":photos"),
            "`:photos` lacks the receiver: write HOST:VOL, like `nas2:photos`"
        );
        assert_eq!(
            error("nas2:"),
            "`nas2:` lacks the volume: add a configured volume's name or the absolute path of \
             a subvolume, like `nas2:photos` or `nas2:/srv/photos`"
        );
    }

    #[test]
    fn each_fault_is_named() {
        assert!(error("root@nas2:photos").starts_with("in `root@nas2:photos`, `root@nas2` cannot"));
        assert_eq!(
            error("nas2:./photos"),
            "in `nas2:./photos`, `./photos` is a relative path, which the daemon cannot know \
             the start of: write it from `/`"
        );
        assert!(error("nas2:a\tb").contains("it has a control character"));
    }
}
