//! The text of an invitation, which a user carries from the receiver to the sender.
//!
//! It consists of `sendshot-` and the base32 of a 16-byte secret, a 20-byte fingerprint of the receiver's
//! authority and a 4-byte checksum. With the fingerprint pairing needs no trust in the network: an
//! intermediary cannot have a certificate that matches it.

use std::fmt;

use data_encoding::BASE32_NOPAD;

use crate::keys::crypto::{RandomError, hex_bytes, random, sha256};
use crate::transport::peer::CaFingerprint;

const PREFIX: &str = "sendshot-";
const SECRET_LEN: usize = 16;
const FINGERPRINT_LEN: usize = 20;
const CHECKSUM_LEN: usize = 4;
const LEN: usize = SECRET_LEN + FINGERPRINT_LEN + CHECKSUM_LEN;

/// Characters after the prefix: five bits each, without a remainder.
const TEXT_LEN: usize = LEN * 8 / 5;

/// Length of the part of a secret by which the receiver finds an invitation; the rest is proof.
///
/// Without it a wrong secret would count against every open invitation, and any host that can reach the port
/// could invalidate them all.
const SELECTOR_LEN: usize = 4;

hex_bytes! {
    /// SHA-256 of a secret, which the receiver stores.
    pub(crate) SecretHash, 32
}
hex_bytes! {
    /// The first bytes of a secret.
    pub(crate) Selector, 4
}

/// The proof of the right to pair once.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; SECRET_LEN]);

impl Secret {
    /// Makes a secret from these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; SECRET_LEN]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes. They must be sent only to the receiver.
    #[must_use]
    pub const fn to_bytes(&self) -> [u8; SECRET_LEN] {
        self.0
    }

    pub(crate) fn hash(&self) -> SecretHash {
        SecretHash(sha256(&self.0))
    }

    pub(crate) fn selector(&self) -> Selector {
        let mut selector = [0; SELECTOR_LEN];
        selector.copy_from_slice(&self.0[..SELECTOR_LEN]);
        Selector(selector)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// An invitation to pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    secret: Secret,
    fingerprint: CaFingerprint,
}

/// A text is not a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not have the form of a token.
    #[error(
        "this is not a pairing token: one starts with `{PREFIX}` and is printed by \
         `sendshotctl peer invite NAME` on the receiver"
    )]
    NotAToken,
    /// Its end is missing.
    #[error(
        "the token is incomplete: {found} of {TEXT_LEN} characters after `{PREFIX}`; copy all of it"
    )]
    Truncated {
        /// Number of characters found.
        found: usize,
    },
    /// It has additional characters.
    #[error("the token is too long: {found} characters after `{PREFIX}` instead of {TEXT_LEN}")]
    TooLong {
        /// Number of characters found.
        found: usize,
    },
    /// A character is wrong.
    #[error("the token is mistyped: its check does not match; copy it again")]
    Mistyped,
}

impl Token {
    /// Generates a token for a receiver whose authority has this fingerprint.
    ///
    /// # Errors
    /// [`RandomError`] if the system cannot provide random bytes.
    pub fn generate(fingerprint: CaFingerprint) -> Result<Self, RandomError> {
        Ok(Self {
            secret: Secret(random()?),
            fingerprint,
        })
    }

    /// Returns the secret of the token.
    #[must_use]
    pub const fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Returns the fingerprint of the receiver's authority.
    #[must_use]
    pub const fn fingerprint(&self) -> CaFingerprint {
        self.fingerprint
    }

    /// Returns the text, including the secret. There is no `Display`, so that it is not logged by accident.
    #[must_use]
    pub fn reveal(&self) -> String {
        let mut bytes = [self.secret.0.as_slice(), &self.fingerprint.0].concat();
        bytes.extend_from_slice(&checksum(&bytes));
        format!("{PREFIX}{}", BASE32_NOPAD.encode(&bytes))
    }

    /// Parses a token; white space and case do not matter.
    ///
    /// # Errors
    /// [`TokenError`] with the fault. It does not repeat the text.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text: String = text
            .split_whitespace()
            .collect::<String>()
            .to_ascii_uppercase();
        let text = text
            .strip_prefix(&PREFIX.to_ascii_uppercase())
            .ok_or(TokenError::NotAToken)?;
        match text.chars().count() {
            TEXT_LEN => {}
            found if found < TEXT_LEN => return Err(TokenError::Truncated { found }),
            found => return Err(TokenError::TooLong { found }),
        }
        let bytes = BASE32_NOPAD
            .decode(text.as_bytes())
            .map_err(|_| TokenError::Mistyped)?;
        let (content, check) = bytes.split_at(LEN - CHECKSUM_LEN);
        if check != checksum(content) {
            return Err(TokenError::Mistyped);
        }
        let mut token = Self {
            secret: Secret([0; SECRET_LEN]),
            fingerprint: CaFingerprint([0; FINGERPRINT_LEN]),
        };
        token.secret.0.copy_from_slice(&content[..SECRET_LEN]);
        token.fingerprint.0.copy_from_slice(&content[SECRET_LEN..]);
        Ok(token)
    }
}

/// Computes a checksum that distinguishes a typing error from an unknown token; it protects against no attack.
fn checksum(content: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut check = [0; CHECKSUM_LEN];
    check.copy_from_slice(&sha256(content)[..CHECKSUM_LEN]);
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token::generate(CaFingerprint([7; 20])).unwrap()
    }

    #[test]
    fn a_token_leads_back() {
        let token = token();
        let text = token.reveal();
        assert_eq!(text.len(), PREFIX.len() + 64);
        assert_eq!(Token::parse(&text), Ok(token));
    }

    #[test]
    fn white_space_and_case_do_not_matter() {
        let token = token();
        let text = token.reveal().to_lowercase();
        let broken = format!("  {}\n\t {} \r\n", &text[..30], &text[30..]);
        assert_eq!(Token::parse(&broken), Ok(token));
    }

    #[test]
    fn every_single_wrong_character_is_found() {
        let text = token().reveal();
        for at in PREFIX.len()..text.len() {
            let other = if &text[at..=at] == "A" { "B" } else { "A" };
            let wrong = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            assert_eq!(Token::parse(&wrong), Err(TokenError::Mistyped), "at {at}");
        }
    }

    #[test]
    fn each_damage_is_typed() {
        let text = token().reveal();
        assert_eq!(Token::parse(""), Err(TokenError::NotAToken));
        assert_eq!(Token::parse("hunter2"), Err(TokenError::NotAToken));
        assert_eq!(
            Token::parse(&text[..40]),
            Err(TokenError::Truncated { found: 31 })
        );
        assert_eq!(
            Token::parse(&format!("{text}A")),
            Err(TokenError::TooLong { found: 65 })
        );
        assert_eq!(
            Token::parse(&text.replace(&text[20..21], "1")),
            Err(TokenError::Mistyped)
        );
        assert_eq!(
            Token::parse(&format!("{}é", &text[..72])),
            Err(TokenError::Mistyped)
        );
    }

    #[test]
    fn debug_keeps_the_secret() {
        let token = token();
        let secret = BASE32_NOPAD.encode(&token.secret.to_bytes());
        let shown = format!("{token:?}");
        assert!(
            !shown.contains(&secret) && shown.contains("Secret(…)"),
            "{shown}"
        );
    }
}
