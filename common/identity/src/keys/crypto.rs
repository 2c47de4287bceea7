//! The few primitives used besides TLS and X.509, all from aws-lc.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The system cannot provide random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct RandomError;

/// Returns the only provider for TLS configurations; none is installed process-wide.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(provider_for(has_aes()))
}

/// Whether this processor has instructions for AES in the mode of TLS. Without them, ChaCha20 is several times as fast: on a
/// Raspberry Pi 4, for example.
pub(crate) fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has = std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let has = std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let has = false;
    has
}

/// The ciphers in the order of their speed. A client asks for them in this order, and a server takes the client's, unless it has
/// no AES itself; see [`takes_own_order`]. So AES is used if both have it.
pub(crate) fn provider_for(has_aes: bool) -> CryptoProvider {
    use rustls::crypto::aws_lc_rs::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    let cipher_suites = match has_aes {
        true => vec![
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
        ],
        false => vec![
            TLS13_CHACHA20_POLY1305_SHA256,
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
        ],
    };
    CryptoProvider {
        cipher_suites,
        ..rustls::crypto::aws_lc_rs::default_provider()
    }
}

/// Whether a server chooses the cipher by its own order.
pub(crate) fn takes_own_order(has_aes: bool) -> bool {
    !has_aes
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| RandomError)?;
    Ok(bytes)
}

/// Compares in a time that does not depend on the position of differences.
pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// Defines a newtype over bytes, written in hexadecimal.
macro_rules! hex_bytes {
    ($(#[$doc:meta])* $vis:vis $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        $vis struct $name(pub(crate) [u8; $len]);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl From<$name> for String {
            fn from(bytes: $name) -> String {
                bytes.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok();
                bytes
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(Self)
                    .ok_or_else(|| format!("`{text}` is not {} bytes in hexadecimal", $len))
            }
        }
    };
}

pub(crate) use hex_bytes;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_is_sha256() {
        let empty = data_encoding::HEXLOWER.encode(&sha256(b""));
        assert_eq!(
            empty,
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn aes_is_used_if_both_sides_have_it() {
        use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
        use rustls::{CipherSuite, ClientConfig, RootCertStore, ServerConfig};
        let made = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let negotiate = |client_has: bool, server_has: bool| {
            let provider = |has| Arc::new(provider_for(has));
            let mut roots = RootCertStore::empty();
            roots.add(certificate.clone()).unwrap();
            let client = ClientConfig::builder_with_provider(provider(client_has))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
            let mut server = ServerConfig::builder_with_provider(provider(server_has))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate.clone()], key.into())
                .unwrap();
            server.ignore_client_order = takes_own_order(server_has);
            let name = ServerName::try_from("x").unwrap();
            let mut client = rustls::ClientConnection::new(Arc::new(client), name).unwrap();
            let mut server = rustls::ServerConnection::new(Arc::new(server)).unwrap();
            while client.is_handshaking() || server.is_handshaking() {
                let mut wire = Vec::new();
                client.write_tls(&mut wire).unwrap();
                server.read_tls(&mut wire.as_slice()).unwrap();
                server.process_new_packets().unwrap();
                let mut wire = Vec::new();
                server.write_tls(&mut wire).unwrap();
                client.read_tls(&mut wire.as_slice()).unwrap();
                client.process_new_packets().unwrap();
            }
            client.negotiated_cipher_suite().unwrap().suite()
        };
        let chacha = CipherSuite::TLS13_CHACHA20_POLY1305_SHA256;
        assert_eq!(negotiate(true, true), CipherSuite::TLS13_AES_128_GCM_SHA256);
        assert_eq!(negotiate(true, false), chacha);
        assert_eq!(negotiate(false, true), chacha);
        assert_eq!(negotiate(false, false), chacha);
    }

    #[test]
    fn random_bytes_differ() {
        assert_ne!(random::<16>().unwrap(), random::<16>().unwrap());
    }
}
