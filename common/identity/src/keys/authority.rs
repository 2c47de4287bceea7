//! The receiver's certificate authority, which signs the receiver's own certificate and those of its senders.

use std::fmt;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use jiff::Timestamp;
use rcgen::{
    CertificateSigningRequestParams, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData,
};
use rustls::pki_types::{
    CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer,
};
use sendshot_model::{ReceiverId, SenderId};
use sendshot_sys::durable;

use crate::keys::certificate::{self, CertificateError};
use crate::keys::crypto::sha256;
use crate::keys::key_file::{self, KeyFileError};
use crate::keys::validity::Validity;
use crate::transport::peer::{CaFingerprint, PeerId, PeerIdentity, PeerIdentityError, SpkiPin};

const CA_KEY: &str = "ca.key";
/// File of the authority's certificate in its directory.
pub const CA_CERTIFICATE: &str = "ca.pem";
const SERVER_KEY: &str = "server.key";
const SERVER_CERTIFICATE: &str = "server.pem";

/// Certificates are public, and `openssl x509` should not need root.
const PUBLIC: u32 = 0o644;

/// A receiver's authority with the receiver's own certificate.
pub struct Authority {
    receiver: ReceiverId,
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    ca: CertificateDer<'static>,
    server: RwLock<CertificateDer<'static>>,
    server_key: KeyPair,
    dir: PathBuf,
}

/// An authority cannot be loaded or made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A private key is missing, exposed or damaged.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// There is a certificate but not its key.
    #[error(
        "{} is missing beside {CA_CERTIFICATE}: restore it from a backup, or remove {CA_CERTIFICATE} \
         and pair every sender again",
        path.display()
    )]
    KeyLost {
        /// Path of the key's file.
        path: PathBuf,
    },
    /// The authority's certificate does not match its key.
    #[error(
        "{} is damaged or belongs to another key: restore it from a backup, or remove it and pair \
         every sender again",
        path.display()
    )]
    Mismatch {
        /// Path of the certificate's file.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Path of the file or directory.
        path: PathBuf,
        /// Error from the kernel.
        source: io::Error,
    },
    /// The clock is earlier than the release of this program.
    #[error("the clock shows {now}: set it before certificates are made")]
    ClockUnset {
        /// Time of the clock.
        now: Timestamp,
    },
    /// A certificate could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// A certificate signed for a sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SenderCertificate {
    /// The certificate in PEM.
    pub pem: String,
    /// Its public key's hash.
    pub pin: SpkiPin,
    /// End of its validity.
    pub not_after: Timestamp,
}

/// A request for a certificate is not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The request is damaged, or its sender does not have the key.
    #[error("the certificate request is not valid: {0}")]
    Request(rcgen::Error),
    /// The key is of a kind that no sender makes.
    #[error("the certificate request has another kind of key than ECDSA P-256")]
    KeyKind,
    /// The certificate could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The signed certificate cannot be read back.
    #[error(transparent)]
    Identity(#[from] PeerIdentityError),
}

impl Authority {
    /// Loads what `dir` contains and makes what is missing; the receiver's own certificate is renewed in the
    /// last third of its life.
    ///
    /// Steps for a new one: 1. the authority's key; 2. its certificate; 3. the receiver's key; 4. its
    /// certificate. A crash leaves a prefix of these, from which the next start continues: no sender can have
    /// been paired before all exist.
    ///
    /// # Errors
    /// [`AuthorityError`] if a file cannot be read or written, a key is exposed, or files do not belong
    /// together. No existing file is replaced, except the receiver's own certificate.
    pub fn load_or_create(
        dir: &Path,
        receiver: ReceiverId,
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        make_dir(dir)?;
        let ca_key = load_ca_key(dir)?;
        let ca_pem = load_or_make_ca(dir, receiver, &ca_key, now)?;
        let mismatch = || AuthorityError::Mismatch {
            path: dir.join(CA_CERTIFICATE),
        };
        let ca = certificate::from_pem(&ca_pem).ok_or_else(mismatch)?;
        if !belongs(&ca, &ca_key) {
            return Err(mismatch());
        }
        let issuer = Issuer::from_ca_cert_der(&ca, ca_key).map_err(CertificateError::from)?;
        let server_key = key_file::load_or_create(&dir.join(SERVER_KEY))?;
        let server = load_or_make_server(dir, receiver, &issuer, &server_key, now)?;
        Ok(Self {
            receiver,
            issuer,
            ca_pem,
            ca,
            server: RwLock::new(server),
            server_key,
            dir: dir.to_owned(),
        })
    }

    /// Renews the receiver's own certificate if it is in the last third of its life; returns whether it did.
    /// Existing connections stay open. Blocks.
    ///
    /// # Errors
    /// [`AuthorityError`] if the new one cannot be made or written; the former stays.
    pub fn renew_server(&self, now: Timestamp) -> Result<bool, AuthorityError> {
        let made = load_or_make_server(
            &self.dir,
            self.receiver,
            &self.issuer,
            &self.server_key,
            now,
        )?;
        let mut server = self.server.write().unwrap_or_else(PoisonError::into_inner);
        let renewed = *server != made;
        *server = made;
        Ok(renewed)
    }

    /// Returns the id of the authority's receiver.
    #[must_use]
    pub fn receiver_id(&self) -> ReceiverId {
        self.receiver
    }

    /// Returns the fingerprint of this authority for tokens.
    #[must_use]
    pub fn fingerprint(&self) -> CaFingerprint {
        CaFingerprint::of(&self.ca)
    }

    /// Returns the authority's certificate in PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Certifies that the key of a request (PKCS #10, DER) is this sender's.
    ///
    /// Only the public key is taken from the request, and only if the request proves that its author has the
    /// private one. Names and uses are set here.
    ///
    /// # Errors
    /// [`SignError`] if the request is damaged, not signed by its own key, or has another kind of key.
    pub fn sign_sender(
        &self,
        csr: &[u8],
        sender: SenderId,
        now: Timestamp,
    ) -> Result<SenderCertificate, SignError> {
        let request =
            CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr))
                .map_err(SignError::Request)?;
        if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(SignError::KeyKind);
        }
        let certificate = certificate::leaf(PeerId::Sender(sender), now, certificate::SENDER_LIFE)?
            .signed_by(&request.public_key, &self.issuer)
            .map_err(CertificateError::from)?;
        let identity = PeerIdentity::from_certificates(&[certificate.der().clone()])?;
        Ok(SenderCertificate {
            pem: certificate.pem(),
            pin: identity.pin,
            not_after: identity.not_after,
        })
    }

    pub(crate) fn ca(&self) -> &CertificateDer<'static> {
        &self.ca
    }

    /// Returns what the receiver presents: its certificate, and the authority's so that a pairing sender,
    /// which knows only the fingerprint, finds it.
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        let server = self.server.read().unwrap_or_else(PoisonError::into_inner);
        vec![server.clone(), self.ca.clone()]
    }

    pub(crate) fn server_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.server_key.serialize_der()).into()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("receiver", &self.receiver)
            .field("fingerprint", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

fn make_dir(dir: &Path) -> Result<(), AuthorityError> {
    DirBuilder::new()
        .recursive(true)
        .mode(durable::PRIVATE_DIR)
        .create(dir)
        .map_err(|source| AuthorityError::Io {
            path: dir.to_owned(),
            source,
        })
}

fn load_ca_key(dir: &Path) -> Result<KeyPair, AuthorityError> {
    let path = dir.join(CA_KEY);
    match key_file::load(&path)? {
        Some(key) => Ok(key),
        // With a new key every paired sender would refuse this receiver without an explanation.
        None if dir.join(CA_CERTIFICATE).exists() => Err(AuthorityError::KeyLost { path }),
        None => Ok(key_file::create(&path)?),
    }
}

fn load_or_make_ca(
    dir: &Path,
    receiver: ReceiverId,
    key: &KeyPair,
    now: Timestamp,
) -> Result<String, AuthorityError> {
    let path = dir.join(CA_CERTIFICATE);
    if let Some(pem) = read(&path)? {
        return Ok(pem);
    }
    check_clock(now)?;
    let params = certificate::ca(receiver, now)?;
    let pem = params
        .self_signed(key)
        .map_err(CertificateError::from)?
        .pem();
    write(&path, &pem)?;
    Ok(pem)
}

fn load_or_make_server(
    dir: &Path,
    receiver: ReceiverId,
    issuer: &Issuer<'_, KeyPair>,
    key: &KeyPair,
    now: Timestamp,
) -> Result<CertificateDer<'static>, AuthorityError> {
    let path = dir.join(SERVER_CERTIFICATE);
    let found = read(&path)?.as_deref().and_then(certificate::from_pem);
    if let Some(found) = found.filter(|found| serves(found, receiver, key, now)) {
        return Ok(found);
    }
    check_clock(now)?;
    let params = certificate::leaf(PeerId::Receiver(receiver), now, certificate::RECEIVER_LIFE)?;
    let made = params
        .signed_by(key, issuer)
        .map_err(CertificateError::from)?;
    write(&path, &made.pem())?;
    Ok(made.into())
}

/// Rejects an unset clock: a certificate of 1970 would be worthless as soon as the clock is set.
fn check_clock(now: Timestamp) -> Result<(), AuthorityError> {
    if now.as_second() < certificate::EARLIEST {
        return Err(AuthorityError::ClockUnset { now });
    }
    Ok(())
}

/// Whether the certificate is valid for this receiver and key and not yet due for renewal.
fn serves(found: &CertificateDer<'_>, receiver: ReceiverId, key: &KeyPair, now: Timestamp) -> bool {
    let Ok(identity) = PeerIdentity::from_certificates(std::slice::from_ref(found)) else {
        return false;
    };
    let validity = Validity::of(&identity);
    identity.id == PeerId::Receiver(receiver)
        && identity.pin == SpkiPin(sha256(&key.subject_public_key_info()))
        && now >= validity.not_before
        && !validity.is_renewal_due(now)
}

fn belongs(ca: &CertificateDer<'_>, key: &KeyPair) -> bool {
    use x509_parser::prelude::FromDer;
    x509_parser::certificate::X509Certificate::from_der(ca)
        .is_ok_and(|(_, ca)| ca.public_key().raw == key.subject_public_key_info())
}

fn read(path: &Path) -> Result<Option<String>, AuthorityError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(AuthorityError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

fn write(path: &Path, pem: &str) -> Result<(), AuthorityError> {
    durable::write(path, pem.as_bytes(), PUBLIC).map_err(|source| AuthorityError::Io {
        path: path.to_owned(),
        source,
    })
}
