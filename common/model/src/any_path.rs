//! Paths in JSON.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A path in JSON: text where it is text, and otherwise its bytes.
///
/// ```
/// use sendshot_model::AnyPath;
///
/// let path = AnyPath::from(std::path::Path::new("/srv/photos"));
/// assert_eq!(serde_json::to_string(&path).unwrap(), "\"/srv/photos\"");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AnyPath {
    /// A path in UTF-8.
    Text(String),
    /// Any other path.
    Bytes(Vec<u8>),
}

impl From<&Path> for AnyPath {
    fn from(path: &Path) -> Self {
        match path.to_str() {
            Some(text) => Self::Text(text.to_owned()),
            None => Self::Bytes(path.as_os_str().as_bytes().to_vec()),
        }
    }
}

impl From<AnyPath> for PathBuf {
    fn from(path: AnyPath) -> Self {
        match path {
            AnyPath::Text(text) => text.into(),
            AnyPath::Bytes(bytes) => OsString::from_vec(bytes).into(),
        }
    }
}
