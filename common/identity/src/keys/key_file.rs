//! Private keys on disk, which only their owner may read.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use sendshot_sys::durable;

/// Permissions of group and others.
const NOT_THE_OWNER: u32 = 0o077;

/// Maximum length of a key file in bytes; a longer file contains something else.
const MAX_LEN: u64 = 64 * 1024;

/// A private key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Other users may access the file.
    #[error(
        "private key {} is accessible to others (mode {mode:04o}); \
         run `chmod 600 {}`, and if another user may have read it, remove it and pair again",
        path.display(), path.display()
    )]
    Exposed {
        /// Path of the file.
        path: PathBuf,
        /// Permission bits of the file.
        mode: u32,
    },
    /// The file cannot be read or written.
    #[error("private key {}: {source}", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// Error from the kernel.
        source: io::Error,
    },
    /// The file contains no usable key.
    #[error("{} holds no usable private key ({source}); restore it from a backup", path.display())]
    Unusable {
        /// Path of the file.
        path: PathBuf,
        /// Error of the parser.
        source: rcgen::Error,
    },
    /// No key could be generated.
    #[error("cannot make a private key: {source}")]
    Generate {
        /// Error of the generator.
        source: rcgen::Error,
    },
}

/// Loads the key from a file; `None` if there is no such file.
pub(crate) fn load(path: &Path) -> Result<Option<KeyPair>, KeyFileError> {
    let failed = |source| KeyFileError::Io {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if mode & NOT_THE_OWNER != 0 {
        return Err(KeyFileError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let mut pem = String::new();
    file.take(MAX_LEN)
        .read_to_string(&mut pem)
        .map_err(failed)?;
    KeyPair::from_pem(&pem)
        .map(Some)
        .map_err(|source| KeyFileError::Unusable {
            path: path.to_owned(),
            source,
        })
}

/// Generates a key and writes it with mode 0600, durably.
pub(crate) fn create(path: &Path) -> Result<KeyPair, KeyFileError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|source| KeyFileError::Generate { source })?;
    durable::write(path, key.serialize_pem().as_bytes(), durable::PRIVATE).map_err(|source| {
        KeyFileError::Io {
            path: path.to_owned(),
            source,
        }
    })?;
    Ok(key)
}

/// Loads the key like [`load`]; makes it with [`create`] if there is no such file.
pub(crate) fn load_or_create(path: &Path) -> Result<KeyPair, KeyFileError> {
    match load(path)? {
        Some(key) => Ok(key),
        None => create(path),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};

    use rcgen::PublicKeyData;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.key");
        let key = load_or_create(&path).unwrap();
        assert_eq!(
            path.metadata().unwrap().permissions().mode() & 0o7777,
            0o600
        );
        let again = load_or_create(&path).unwrap();
        assert_eq!(
            key.subject_public_key_info(),
            again.subject_public_key_info()
        );
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.key");
        create(&path).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601] {
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = load(&path).unwrap_err();
            assert!(matches!(error, KeyFileError::Exposed { .. }), "{mode:o}");
            assert!(
                error
                    .to_string()
                    .contains(&format!("`chmod 600 {}`", path.display()))
            );
        }
    }

    #[test]
    fn a_damaged_key_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.key");
        durable::write(&path, b"no key", durable::PRIVATE).unwrap();
        assert!(matches!(
            load_or_create(&path).unwrap_err(),
            KeyFileError::Unusable { .. }
        ));
        assert_eq!(std::fs::read(&path).unwrap(), b"no key");
    }
}
