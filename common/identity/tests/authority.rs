//! Tests a receiver's authority on disk, and the certificates that it signs.
#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sendshot_identity::{Authority, AuthorityError, PeerId, PeerIdentity, SenderKey, SignError};
use sendshot_model::{ReceiverId, SenderId};

const RECEIVER: ReceiverId = ReceiverId::from_bytes([1; 16]);

fn now() -> Timestamp {
    "2026-11-22T03:00:00Z".parse().unwrap()
}

fn years(n: i64) -> SignedDuration {
    SignedDuration::from_hours(n * 365 * 24)
}

fn load(dir: &Path, now: Timestamp) -> Result<Authority, AuthorityError> {
    Authority::load_or_create(dir, RECEIVER, now)
}

fn identity(pem: &str) -> PeerIdentity {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    PeerIdentity::from_certificates(&[certificate]).unwrap()
}

fn server_certificate(dir: &Path) -> String {
    fs::read_to_string(dir.join("server.pem")).unwrap()
}

#[test]
fn it_is_made_once_with_private_keys() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("identity");
    let first = load(&dir, now()).unwrap();
    for key in ["ca.key", "server.key"] {
        let mode = fs::metadata(dir.join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    assert_eq!(
        fs::metadata(&dir).unwrap().permissions().mode() & 0o777,
        0o700
    );
    let server = server_certificate(&dir);
    let second = load(&dir, now()).unwrap();
    assert_eq!(second.fingerprint(), first.fingerprint());
    assert_eq!(second.ca_pem(), first.ca_pem());
    assert_eq!(server_certificate(&dir), server);
    assert_eq!(identity(&server).id, PeerId::Receiver(RECEIVER));
}

#[test]
fn the_receivers_certificate_is_renewed_in_its_last_third() {
    let dir = tempfile::tempdir().unwrap();
    let authority = load(dir.path(), now()).unwrap();
    let first = server_certificate(dir.path());
    load(dir.path(), now() + years(6)).unwrap();
    assert_eq!(server_certificate(dir.path()), first);
    let later = load(dir.path(), now() + years(7)).unwrap();
    let second = server_certificate(dir.path());
    assert!(identity(&second).not_after > now() + years(16));
    assert_eq!(identity(&second).pin, identity(&first).pin);
    assert_eq!(later.fingerprint(), authority.fingerprint());
}

#[test]
fn a_damaged_or_foreign_receiver_certificate_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path(), now()).unwrap();
    for text in [
        "rubbish",
        &fs::read_to_string(dir.path().join("ca.pem")).unwrap(),
    ] {
        fs::write(dir.path().join("server.pem"), text).unwrap();
        load(dir.path(), now()).unwrap();
        assert_eq!(
            identity(&server_certificate(dir.path())).id,
            PeerId::Receiver(RECEIVER)
        );
    }
}

#[test]
fn it_goes_on_after_a_crash_at_any_step() {
    for missing in [&["server.pem"][..], &["server.pem", "server.key"]] {
        let dir = tempfile::tempdir().unwrap();
        let before = load(dir.path(), now()).unwrap();
        missing
            .iter()
            .for_each(|file| fs::remove_file(dir.path().join(file)).unwrap());
        assert_eq!(
            load(dir.path(), now()).unwrap().fingerprint(),
            before.fingerprint()
        );
    }
    let dir = tempfile::tempdir().unwrap();
    load(dir.path(), now()).unwrap();
    ["server.pem", "server.key", "ca.pem"]
        .iter()
        .for_each(|file| fs::remove_file(dir.path().join(file)).unwrap());
    load(dir.path(), now()).unwrap();
}

#[test]
fn a_lost_key_is_not_replaced_silently() {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path(), now()).unwrap();
    fs::remove_file(dir.path().join("ca.key")).unwrap();
    let error = load(dir.path(), now()).unwrap_err();
    assert!(matches!(error, AuthorityError::KeyLost { .. }), "{error}");
    assert!(!dir.path().join("ca.key").exists());
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    load(dir.path(), now()).unwrap();
    load(other.path(), now()).unwrap();
    fs::copy(other.path().join("ca.pem"), dir.path().join("ca.pem")).unwrap();
    let error = load(dir.path(), now()).unwrap_err();
    assert!(matches!(error, AuthorityError::Mismatch { .. }), "{error}");
}

#[test]
fn an_exposed_key_is_refused() {
    for key in ["ca.key", "server.key"] {
        let dir = tempfile::tempdir().unwrap();
        load(dir.path(), now()).unwrap();
        let path = dir.path().join(key);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = load(dir.path(), now()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("`chmod 600 {}`", path.display())),
            "{error}"
        );
    }
}

#[test]
fn a_clock_that_was_never_set_makes_no_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let error = load(dir.path(), Timestamp::UNIX_EPOCH).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the clock shows 1970-01-01T00:00:00Z: set it before certificates are made"
    );
}

#[test]
fn only_the_key_is_taken_from_a_request() {
    let dir = tempfile::tempdir().unwrap();
    let authority = load(dir.path(), now()).unwrap();
    let sender = SenderId::generate();
    let key = KeyPair::generate().unwrap();
    let mut wishes = CertificateParams::new(["receiver.sendshot".to_owned()]).unwrap();
    wishes.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let csr = wishes.serialize_request(&key).unwrap();
    let signed = authority.sign_sender(csr.der(), sender, now()).unwrap();
    let got = identity(&signed.pem);
    assert_eq!(got.id, PeerId::Sender(sender));
    assert_eq!((got.pin, got.not_after), (signed.pin, signed.not_after));
    assert!(got.not_before < now() && got.not_after > now() + years(4));
    let der = CertificateDer::from_pem_slice(signed.pem.as_bytes()).unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert!(!parsed.is_ca());
    let names = parsed.subject_alternative_name().unwrap().unwrap();
    assert!(!format!("{names:?}").contains("receiver"));
    let uses = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(uses.client_auth && uses.server_auth && !uses.any);
}

#[test]
fn a_request_without_its_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let authority = load(dir.path(), now()).unwrap();
    let sign = |csr: &[u8]| {
        authority
            .sign_sender(csr, SenderId::generate(), now())
            .unwrap_err()
    };
    let mut csr = SenderKey::load_or_create(dir.path())
        .unwrap()
        .csr()
        .unwrap();
    *csr.last_mut().unwrap() ^= 1;
    assert!(matches!(sign(&csr), SignError::Request(_)));
    assert!(matches!(sign(b""), SignError::Request(_)));
    assert!(matches!(sign(&csr[..40]), SignError::Request(_)));
    let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let csr = CertificateParams::default()
        .serialize_request(&other)
        .unwrap();
    assert!(matches!(sign(csr.der()), SignError::KeyKind));
}

#[test]
fn debug_shows_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let authority = load(dir.path(), now()).unwrap();
    let shown = format!(
        "{authority:?} {:?}",
        SenderKey::load_or_create(dir.path()).unwrap()
    );
    assert!(shown.len() < 400 && !shown.contains("PRIVATE"), "{shown}");
}
