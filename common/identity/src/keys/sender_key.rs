//! The sender's private key, which never leaves its state directory.

use std::fmt;
use std::path::Path;

use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::keys::certificate::CertificateError;
use crate::keys::crypto::sha256;
use crate::keys::key_file::{self, KeyFileError};
use crate::transport::peer::SpkiPin;

const FILE: &str = "sender.key";

/// The key by which every receiver recognises this sender.
pub struct SenderKey(KeyPair);

impl SenderKey {
    /// Loads `sender.key` from the state directory, which must exist, or makes it (mode 0600).
    ///
    /// # Errors
    /// [`KeyFileError`] if the file cannot be read or written, contains no key, or is accessible to others.
    pub fn load_or_create(dir: &Path) -> Result<Self, KeyFileError> {
        key_file::load_or_create(&dir.join(FILE)).map(Self)
    }

    /// Whether the state directory has the key.
    #[must_use]
    pub fn exists(dir: &Path) -> bool {
        dir.join(FILE).exists()
    }

    /// Makes a request (PKCS #10, DER) that proves possession of the key; it contains no name, since the
    /// receiver takes only the key from it.
    ///
    /// # Errors
    /// [`CertificateError`] if the key cannot sign.
    pub fn csr(&self) -> Result<Vec<u8>, CertificateError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        Ok(params.serialize_request(&self.0)?.der().to_vec())
    }

    /// Returns the hash of the public key that receivers pin.
    #[must_use]
    pub fn pin(&self) -> SpkiPin {
        SpkiPin(sha256(&self.0.subject_public_key_info()))
    }

    pub(crate) fn to_der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der()).into()
    }
}

impl fmt::Debug for SenderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SenderKey").field(&self.pin()).finish()
    }
}
