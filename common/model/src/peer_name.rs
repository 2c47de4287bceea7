//! Names of senders and receivers.

use serde::{Deserialize, Serialize};

use crate::text::checked_text;

/// Maximum length of a name, so that it fits into a file name with any suffix and into a table line.
const MAX_LEN: usize = 64;

/// The name of a sender or receiver at its peer.
///
/// It is a directory on the receiver and a file name on both hosts, so it allows only characters that every
/// file system and shell accepts unquoted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerName(String);

/// A text cannot be the name of a sender or receiver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}` cannot be a name: {reason}; a name has 1 to 64 of A-Z a-z 0-9 . _ -, \
     starts with a letter or digit and has no `..`",
    .text.escape_debug()
)]
pub struct PeerNameError {
    /// The invalid text.
    pub text: String,
    /// The fault of the text.
    pub reason: &'static str,
}

impl PeerName {
    /// Parses a name.
    ///
    /// # Errors
    /// The fault of the text, and what is allowed.
    pub fn parse(text: &str) -> Result<Self, PeerNameError> {
        match fault(text) {
            None => Ok(Self(text.to_owned())),
            Some(reason) => Err(PeerNameError {
                text: text.to_owned(),
                reason,
            }),
        }
    }
}

fn fault(text: &str) -> Option<&'static str> {
    let first = match text.bytes().next() {
        None => return Some("it is empty"),
        Some(first) => first,
    };
    if text.len() > MAX_LEN {
        Some("it is too long")
    } else if !text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    {
        Some("it has another character")
    } else if !first.is_ascii_alphanumeric() {
        Some("it starts with a sign")
    } else if text.contains("..") {
        Some("it has `..`")
    } else {
        None
    }
}

checked_text!(PeerName, PeerNameError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_pass() {
        for text in [
            "nas2",
            "a",
            "0",
            "nas.lan",
            "my_old-nas.example.org",
            &"x".repeat(64),
        ] {
            assert_eq!(PeerName::parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn each_fault_has_its_reason() {
        for (text, reason) in [
            ("", "it is empty"),
            (&"x".repeat(65), "it is too long"),
            ("a/b", "it has another character"),
            ("münchen", "it has another character"),
            ("nas 2", "it has another character"),
            ("-nas", "it starts with a sign"),
            (".", "it starts with a sign"),
            ("a..b", "it has `..`"),
        ] {
            assert_eq!(PeerName::parse(text).unwrap_err().reason, reason, "{text}");
        }
    }

    #[test]
    fn the_error_lists_the_allowed_values() {
        assert_eq!(
            PeerName::parse("a\n/b").unwrap_err().to_string(),
            "`a\\n/b` cannot be a name: it has another character; a name has 1 to 64 of \
             A-Z a-z 0-9 . _ -, starts with a letter or digit and has no `..`"
        );
    }
}
