//! Entries of a stream that the file system cannot hold under their names.
//!
//! A directory that cannot be made is left out with everything in it. But a regular file that cannot be made may
//! have another name, or be the source of a clone, further on in the stream. So anything but a directory gets a
//! substitute name in the root if only its own name is the obstacle; what still has no other name in the end is
//! deleted with its substitute.

use std::collections::HashMap;

use sendshot_model::LeftOutKind;
use sendshot_stream::Command;

use crate::error::Cause;

/// Prefix of substitute names in the root.
const SUBSTITUTE: &str = ".sendshot-substitute-";

/// Maximum bytes of paths that are kept: some million entries. A target on which more entries are left out is
/// the wrong target.
const MAX_BYTES: usize = 256 << 20;

/// What a path of the stream stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// The entry has this path instead.
    Instead(Vec<u8>),
    /// The entry was not made, for a reason of this kind.
    Nowhere(LeftOutKind),
}

/// The paths of the stream that are not where the stream put them.
#[derive(Debug, Default)]
pub(crate) struct Absent {
    places: HashMap<Vec<u8>, Place>,
    bytes: usize,
    /// Names that were made in the root.
    substitutes: Vec<Vec<u8>>,
    numbered: u64,
}

impl Absent {
    /// Returns where the entry with this path is; `None` for its own path.
    pub(crate) fn place(&self, path: &[u8]) -> Option<Place> {
        if self.places.is_empty() {
            return None;
        }
        match self.places.get(path) {
            Some(place) => Some(place.clone()),
            None if self.is_beneath(path) => Some(Place::Nowhere(LeftOutKind::InLeftOutDirectory)),
            None => None,
        }
    }

    /// Whether a path is in a directory that was left out.
    pub(crate) fn is_beneath(&self, path: &[u8]) -> bool {
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        !self.places.is_empty()
            && slashes
                .map(|(at, _)| &path[..at])
                .any(|dir| self.places.contains_key(dir))
    }

    /// Notes where the entry with this path is.
    pub(crate) fn insert(&mut self, path: &[u8], place: Place) -> Result<(), Cause> {
        self.bytes += path.len();
        if self.bytes > MAX_BYTES {
            return Err(Cause::TooMuchLeftOut);
        }
        self.places.insert(path.to_vec(), place);
        Ok(())
    }

    /// Returns a name for the root that was not used before.
    pub(crate) fn substitute(&mut self) -> Vec<u8> {
        self.numbered += 1;
        format!("{SUBSTITUTE}{}", self.numbered).into_bytes()
    }

    /// Notes that a substitute was made.
    pub(crate) fn made(&mut self, substitute: &[u8]) {
        self.substitutes.push(substitute.to_vec());
    }

    /// Returns the substitutes that were made, to be deleted.
    pub(crate) fn take_substitutes(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.substitutes)
    }
}

/// Returns a command with another path.
pub(crate) fn at<'a>(command: &Command<'a>, instead: &'a [u8]) -> Command<'a> {
    let mut command = *command;
    match &mut command {
        Command::Subvol { path, .. }
        | Command::Snapshot { path, .. }
        | Command::Mkfile { path }
        | Command::Mkdir { path }
        | Command::Mknod { path, .. }
        | Command::Mkfifo { path }
        | Command::Mksock { path }
        | Command::Symlink { path, .. }
        | Command::Rename { path, .. }
        | Command::Link { path, .. }
        | Command::Unlink { path }
        | Command::Rmdir { path }
        | Command::SetXattr { path, .. }
        | Command::RemoveXattr { path, .. }
        | Command::Write { path, .. }
        | Command::Clone { path, .. }
        | Command::Truncate { path, .. }
        | Command::Chmod { path, .. }
        | Command::Chown { path, .. }
        | Command::Utimes { path, .. }
        | Command::UpdateExtent { path, .. }
        | Command::Fallocate { path, .. }
        | Command::Fileattr { path, .. }
        | Command::EncodedWrite { path, .. } => *path = instead,
        Command::End => {}
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_in_a_directory_that_was_left_out_is_nowhere() {
        let mut absent = Absent::default();
        assert_eq!(absent.place(b"a/b"), None);
        let kind = LeftOutKind::Name;
        absent.insert(b"a", Place::Nowhere(kind)).unwrap();
        assert_eq!(absent.place(b"a"), Some(Place::Nowhere(kind)));
        assert!(!absent.is_beneath(b"a"));
        let inside = Some(Place::Nowhere(LeftOutKind::InLeftOutDirectory));
        assert_eq!(absent.place(b"a/b"), inside);
        assert_eq!(absent.place(b"a/b/c"), inside);
        assert_eq!(absent.place(b"ab"), None);
        assert_eq!(absent.place(b"b/a"), None);
        let instead = Place::Instead(b"x".to_vec());
        absent.insert(b"a/f", instead.clone()).unwrap();
        assert_eq!(absent.place(b"a/f"), Some(instead));
    }

    #[test]
    fn memory_for_paths_is_bounded() {
        let mut absent = Absent::default();
        let mut path = vec![b'x'; 1 << 20];
        for n in 0..255_u8 {
            path[0] = n;
            let place = Place::Nowhere(LeftOutKind::Name);
            absent.insert(&path, place).unwrap();
        }
        let rest = vec![b'y'; (1 << 20) + 1];
        let refused = absent.insert(&rest, Place::Nowhere(LeftOutKind::Name));
        assert!(matches!(refused, Err(Cause::TooMuchLeftOut)));
    }
}
