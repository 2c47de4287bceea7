//! `/etc/sendshot/receivers.d/NAME.toml`: the result of pairing with receiver NAME.
//!
//! The files belong to the program: `sendshotctl pair` writes and replaces them whole, and never writes an
//! administrator's files. They contain no secret (the key is in the sender's state directory) but show which
//! host is backed up where, hence mode 0600.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sendshot_model::{PeerName, ReceiverId};
use sendshot_sys::durable;
use serde::Serialize;

use crate::address::Address;
use crate::document::{self, Entry, Section};
use crate::error::ConfigError;
use crate::error::Problem;

const HEADER: &str = "# Written by `sendshotctl pair`, which replaces the whole file.\n";
const EXTENSION: &str = "toml";

/// A receiver with which this host is paired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverEntry {
    /// Address to which the sender connects.
    pub address: Address,
    /// Instance of the receiver.
    pub receiver_id: ReceiverId,
    /// Certificate of the receiver's authority in PEM.
    pub ca_certificate: String,
    /// Certificate by which the receiver recognises this sender, in PEM.
    pub client_certificate: String,
}

/// The file as it is written.
#[derive(Serialize)]
struct File<'a> {
    address: String,
    receiver_id: ReceiverId,
    ca_certificate: &'a str,
    client_certificate: &'a str,
}

impl ReceiverEntry {
    /// Parses a file's text; `file` is only for messages.
    ///
    /// # Errors
    /// [`ConfigError`] if the content is not accepted.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        document::parse(file, text, read)
    }

    fn render(&self) -> Result<String, toml::ser::Error> {
        let file = File {
            address: self.address.to_string(),
            receiver_id: self.receiver_id,
            ca_certificate: &self.ca_certificate,
            client_certificate: &self.client_certificate,
        };
        Ok(format!("{HEADER}{}", toml::to_string_pretty(&file)?))
    }
}

fn read(root: &Section<'_>) -> Result<ReceiverEntry, Problem> {
    root.accept(&[
        "address",
        "receiver_id",
        "ca_certificate",
        "client_certificate",
    ])?;
    let require = |key| {
        root.require(key, "…")
            .map_err(|p| p.help("pair with the receiver again"))
    };
    Ok(ReceiverEntry {
        address: require("address")?.parse()?,
        receiver_id: require("receiver_id")?.parse()?,
        ca_certificate: certificate(&require("ca_certificate")?)?,
        client_certificate: certificate(&require("client_certificate")?)?,
    })
}

fn certificate(entry: &Entry<'_>) -> Result<String, Problem> {
    let text = entry.text()?;
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        return Err(entry.problem("expected a certificate in PEM form"));
    }
    Ok(text.to_owned())
}

/// Reads every `NAME.toml` of the directory; a missing directory contains none.
///
/// # Errors
/// [`ConfigError`] if the directory or a file cannot be read, or a file is not as pairing writes it.
pub fn load_dir(dir: &Path) -> Result<BTreeMap<PeerName, ReceiverEntry>, ConfigError> {
    files(dir)?.into_iter().map(|file| load(&file)).collect()
}

/// Reads the directory for one receiver; `None` if it has no file.
///
/// # Errors
/// See [`load_dir`]; also if another receiver has the same id and another authority.
pub fn load_one(dir: &Path, name: &PeerName) -> Result<Option<ReceiverEntry>, ConfigError> {
    let mut all = load_dir(dir)?;
    let Some(entry) = all.remove(name) else {
        return Ok(None);
    };
    check_id(dir, (name, &entry), &all)?;
    Ok(Some(entry))
}

/// Checks the id of a receiver. A receiver reports its id itself, and its states are recorded under it: with
/// another's id it could cause their deletion. All names of one receiver have the same authority.
fn check_id<'a>(
    dir: &Path,
    (name, entry): (&PeerName, &ReceiverEntry),
    all: impl IntoIterator<Item = (&'a PeerName, &'a ReceiverEntry)>,
) -> Result<(), ConfigError> {
    let says_the_same = |other: &ReceiverEntry| {
        other.receiver_id == entry.receiver_id
            && other.ca_certificate.trim() != entry.ca_certificate.trim()
    };
    let mut others = all.into_iter().filter(|(other, _)| *other != name);
    match others.find(|(_, other)| says_the_same(other)) {
        None => Ok(()),
        Some((other, _)) => Err(ConfigError::SameReceiver {
            file: file_of(dir, name),
            other: file_of(dir, other),
            id: entry.receiver_id,
        }),
    }
}

fn load(file: &Path) -> Result<(PeerName, ReceiverEntry), ConfigError> {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let name = PeerName::parse(&stem).map_err(|source| ConfigError::FileName {
        file: file.to_owned(),
        source,
    })?;
    let text = document::load(file, "pair with the receiver again")?;
    Ok((name, ReceiverEntry::parse(file, &text)?))
}

/// Lists the `.toml` files; hidden ones are left by interrupted writes.
fn files(dir: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let failed = |source| ConfigError::Read {
        file: dir.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let file = entry.map_err(failed)?.path();
        let hidden = file
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden
            && file
                .extension()
                .is_some_and(|extension| extension == EXTENSION)
        {
            files.push(file);
        }
    }
    Ok(files)
}

/// Writes `NAME.toml`, replacing an existing one; a crash leaves the old or the new.
///
/// # Errors
/// [`ConfigError`] if another receiver of the directory has the same id and another authority, the directory
/// cannot be made or the file cannot be written.
pub fn store(dir: &Path, name: &PeerName, entry: &ReceiverEntry) -> Result<(), ConfigError> {
    let file = file_of(dir, name);
    let failed = |source| ConfigError::Write {
        file: file.clone(),
        source,
    };
    // An invalid file is reported when it is needed, and may be the one that is replaced.
    let others = files(dir)?.into_iter().filter_map(|file| load(&file).ok());
    let others: BTreeMap<_, _> = others.collect();
    check_id(dir, (name, entry), &others)?;
    let text = entry
        .render()
        .map_err(|e| failed(std::io::Error::other(e)))?;
    DirBuilder::new()
        .recursive(true)
        .mode(durable::PRIVATE_DIR)
        .create(dir)
        .map_err(|source| ConfigError::Write {
            file: dir.to_owned(),
            source,
        })?;
    durable::write(&file, text.as_bytes(), durable::PRIVATE).map_err(failed)
}

/// Removes `NAME.toml`; a missing file is no error.
///
/// # Errors
/// [`ConfigError`] if the file exists and cannot be removed.
pub fn remove(dir: &Path, name: &PeerName) -> Result<(), ConfigError> {
    let file = file_of(dir, name);
    match durable::remove(&file) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(ConfigError::Write { file, source: e }),
        _ => Ok(()),
    }
}

fn file_of(dir: &Path, name: &PeerName) -> PathBuf {
    dir.join(format!("{name}.{EXTENSION}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nAAAA\nBBBB\n-----END CERTIFICATE-----\n";

    fn entry() -> ReceiverEntry {
        ReceiverEntry {
            address: "nas2.lan:99".parse().unwrap(),
            receiver_id: ReceiverId::from_bytes([7; 16]),
            ca_certificate: PEM.to_owned(),
            client_certificate: PEM.to_owned(),
        }
    }

    #[test]
    fn stored_values_are_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("receivers.d");
        let name: PeerName = "nas2.old".parse().unwrap();
        store(&dir, &name, &entry()).unwrap();
        store(&dir, &name, &entry()).unwrap();
        std::fs::write(dir.join(".nas3.toml.tmp"), "half").unwrap();
        std::fs::write(dir.join("README"), "x").unwrap();
        assert_eq!(
            load_dir(&dir).unwrap(),
            BTreeMap::from([(name.clone(), entry())])
        );
        let mode = std::fs::metadata(dir.join("nas2.old.toml"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        remove(&dir, &name).unwrap();
        remove(&dir, &name).unwrap();
        assert!(load_dir(&dir).unwrap().is_empty());
    }

    #[test]
    fn a_receiver_id_cannot_be_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let name = |name: &str| name.parse::<PeerName>().unwrap();
        let other = || ReceiverEntry {
            ca_certificate: PEM.replace("AAAA", "CCCC"),
            ..entry()
        };
        store(dir.path(), &name("nas2"), &entry()).unwrap();
        let error = store(dir.path(), &name("liar"), &other()).unwrap_err();
        assert!(matches!(error, ConfigError::SameReceiver { .. }), "{error}");
        assert!(!dir.path().join("liar.toml").exists());
        // These are allowed: the same receiver under another name, and one that was set up again.
        store(dir.path(), &name("lan"), &entry()).unwrap();
        remove(dir.path(), &name("lan")).unwrap();
        store(dir.path(), &name("nas2"), &other()).unwrap();
        // A file from another source is checked, too.
        std::fs::copy(dir.path().join("nas2.toml"), dir.path().join("copy.toml")).unwrap();
        assert!(load_one(dir.path(), &name("copy")).unwrap().is_some());
        assert!(load_one(dir.path(), &name("none")).unwrap().is_none());
        std::fs::write(dir.path().join("copy.toml"), entry().render().unwrap()).unwrap();
        let error = load_one(dir.path(), &name("copy")).unwrap_err().to_string();
        assert!(
            error.contains("copy.toml and ") && error.contains("nas2.toml"),
            "{error}"
        );
        // Pairing again repairs this.
        store(dir.path(), &name("copy"), &other()).unwrap();
        assert!(load_one(dir.path(), &name("nas2")).unwrap().is_some());
    }

    #[test]
    fn no_directory_holds_none() {
        assert!(
            load_dir(Path::new("/nonexistent/receivers.d"))
                .unwrap()
                .is_empty()
        );
        remove(
            Path::new("/nonexistent/receivers.d"),
            &"nas2".parse().unwrap(),
        )
        .unwrap();
    }

    #[test]
    fn the_file_is_readable() {
        assert_eq!(
            entry().render().unwrap(),
            "# Written by `sendshotctl pair`, which replaces the whole file.\n\
             address = \"nas2.lan:99\"\n\
             receiver_id = \"07070707-0707-0707-0707-070707070707\"\n\
             ca_certificate = \"\"\"\n-----BEGIN CERTIFICATE-----\nAAAA\nBBBB\n-----END CERTIFICATE-----\n\"\"\"\n\
             client_certificate = \"\"\"\n-----BEGIN CERTIFICATE-----\nAAAA\nBBBB\n-----END CERTIFICATE-----\n\"\"\"\n"
        );
    }

    #[test]
    fn a_damaged_file_says_to_pair_again() {
        let error = ReceiverEntry::parse(Path::new("nas2.toml"), "address = 'nas2'\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "nas2.toml: the key `receiver_id` is missing\n  = pair with the receiver again"
        );
    }

    #[test]
    fn a_file_called_wrongly_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("-.toml");
        std::fs::write(&file, "").unwrap();
        let error = load_dir(dir.path()).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{}: the file must be", file.display())),
            "{error}"
        );
    }
}
