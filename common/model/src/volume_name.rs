//! Names of volumes, which are also their directories on the receiver.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::text::checked_text;

/// Maximum length of a name in bytes: a file name has 255, and names derived from a volume's name (temporary
/// files, staging) need some of them.
const MAX_LEN: usize = 200;

/// Length in bytes of the end that a shortened name keeps: the last directories distinguish volumes.
const TAIL_LEN: usize = 80;

/// Name of the top-level subvolume itself.
const TOP_LEVEL: &str = "toplevel";

/// The name of a volume, usable as one directory name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeName(String);

/// A text cannot be the name of a volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}` cannot be a volume's name: {reason}; a name has 1 to 200 bytes, no `/`, \
     no control characters and does not start with `.`",
    .text.escape_debug()
)]
pub struct VolumeNameError {
    /// The invalid text.
    pub text: String,
    /// The fault of the text.
    pub reason: &'static str,
}

impl VolumeName {
    /// Parses a name.
    ///
    /// # Errors
    /// The fault of the text, and what is allowed.
    pub fn parse(text: &str) -> Result<Self, VolumeNameError> {
        match fault(text) {
            None => Ok(Self(text.to_owned())),
            Some(reason) => Err(VolumeNameError {
                text: text.to_owned(),
                reason,
            }),
        }
    }

    /// Makes the name of a subvolume that is not configured: its path from the top level of the file system
    /// with `-` for `/`.
    ///
    /// Bytes that are invalid in a name become `%XX`. A path that is too long loses its middle, and the name
    /// contains the number of removed bytes. Different paths can get the same name (`a/b` and `a-b`): names
    /// are for users, [`crate::VolumeId`] distinguishes volumes.
    ///
    /// ```
    /// # use sendshot_model::VolumeName;
    /// # use std::path::Path;
    /// let name = VolumeName::from_top_path(Path::new("/home/ann/photos"));
    /// assert_eq!(name.as_str(), "home-ann-photos");
    /// assert_eq!(VolumeName::from_top_path(Path::new("/")).as_str(), "toplevel");
    /// ```
    #[must_use]
    pub fn from_top_path(path: &Path) -> Self {
        let parts = path.as_os_str().as_bytes().split(|b| *b == b'/');
        let parts: Vec<_> = parts.filter(|part| !matches!(*part, b"" | b".")).collect();
        if parts.is_empty() {
            return Self(TOP_LEVEL.to_owned());
        }
        let mut name = printable(&parts.join(&b'-'));
        if name.starts_with('.') {
            name.replace_range(..1, "%2E");
        }
        Self(shorten(name))
    }
}

fn fault(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        Some("it is empty")
    } else if text.len() > MAX_LEN {
        Some("it is too long")
    } else if text.contains('/') {
        Some("it has a `/`")
    } else if text.starts_with('.') {
        Some("it starts with `.`")
    } else if text.chars().any(char::is_control) {
        Some("it has a control character")
    } else {
        None
    }
}

/// Converts bytes to text, with `%XX` for control characters and bytes that are not UTF-8.
fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                escape(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                text.push(c);
            }
        }
        escape(&mut text, chunk.invalid());
    }
    text
}

fn escape(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        text.push_str(&format!("%{byte:02X}"));
    }
}

/// Replaces the middle of a name that is too long by `~BYTES~`.
fn shorten(name: String) -> String {
    if name.len() <= MAX_LEN {
        return name;
    }
    // The mark needs five digits: a path has at most 4096 bytes, three times that if all are escaped.
    let (mut head, mut tail) = (MAX_LEN - TAIL_LEN - "~12345~".len(), name.len() - TAIL_LEN);
    while !name.is_char_boundary(head) {
        head -= 1;
    }
    while !name.is_char_boundary(tail) {
        tail += 1;
    }
    format!("{}~{}~{}", &name[..head], tail - head, &name[tail..])
}

checked_text!(VolumeName, VolumeNameError);

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    fn named(path: impl AsRef<[u8]>) -> String {
        let name = VolumeName::from_top_path(Path::new(OsStr::from_bytes(path.as_ref())));
        assert_eq!(fault(name.as_str()), None, "{name}");
        name.into()
    }

    #[test]
    fn each_fault_has_its_reason() {
        for (text, reason) in [
            ("", "it is empty"),
            (&"x".repeat(201), "it is too long"),
            ("a/b", "it has a `/`"),
            (".sendshot", "it starts with `.`"),
            ("a\0b", "it has a control character"),
            ("a\u{85}b", "it has a control character"),
        ] {
            assert_eq!(
                VolumeName::parse(text).unwrap_err().reason,
                reason,
                "{text:?}"
            );
        }
    }

    #[test]
    fn spaces_and_other_scripts_are_fine() {
        assert_eq!(
            VolumeName::parse("Fotos für Ömer 写真").unwrap().as_str(),
            "Fotos für Ömer 写真"
        );
    }

    #[test]
    fn a_path_becomes_a_name() {
        assert_eq!(named("@home"), "@home");
        assert_eq!(named("srv//photos/./2026/"), "srv-photos-2026");
        assert_eq!(named(""), "toplevel");
        assert_eq!(named("."), "toplevel");
    }

    #[test]
    fn odd_characters_in_names_are_escaped() {
        assert_eq!(named(".snapshots/1/snapshot"), "%2Esnapshots-1-snapshot");
        assert_eq!(named(b"caf\xe9/a\nb"), "caf%E9-a%0Ab");
        assert_eq!(named(".."), "%2E.");
        assert_eq!(named("a/\u{85}"), "a-%C2%85");
    }

    #[test]
    fn a_long_path_loses_its_middle_and_says_how_much() {
        let name = named(format!("{}/{}", "a".repeat(250), "b".repeat(79)));
        assert_eq!(name, format!("{}~137~-{}", "a".repeat(113), "b".repeat(79)));
        assert!(named("é/".repeat(2000)).len() <= MAX_LEN);
        assert!(named(b"\xff".repeat(4096)).len() <= MAX_LEN);
    }
}
