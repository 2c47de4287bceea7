//! From when to when a certificate is valid, and what is to be done about its end.

use jiff::{SignedDuration, Timestamp};

use crate::keys::certificate;
use crate::transport::peer::PeerIdentity;

/// How long before its end people are told of it: it should have been renewed long before.
const WARNED: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A certificate's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Its beginning.
    pub not_before: Timestamp,
    /// Its end.
    pub not_after: Timestamp,
}

impl Validity {
    /// That of a certificate in PEM; `None` if it is none of ours.
    #[must_use]
    pub fn of_pem(pem: &str) -> Option<Self> {
        let certificate = certificate::from_pem(pem)?;
        let identity = PeerIdentity::from_certificates(&[certificate]).ok()?;
        Some(Self::of(&identity))
    }

    pub(crate) fn of(identity: &PeerIdentity) -> Self {
        Self {
            not_before: identity.not_before,
            not_after: identity.not_after,
        }
    }

    /// Whether it is to be renewed: in the last third of its life.
    #[must_use]
    pub fn is_renewal_due(&self, now: Timestamp) -> bool {
        let (start, end) = (self.not_before.as_second(), self.not_after.as_second());
        now.as_second() >= end - (end - start) / 3
    }

    /// Whether people are to be told that it ends.
    #[must_use]
    pub fn ends_soon(&self, now: Timestamp) -> bool {
        self.not_after.duration_since(now) < WARNED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_renewed_long_before_people_have_to_be_told() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let day = 24 * 60 * 60;
        let validity = Validity {
            not_before: at(0),
            not_after: at(900 * day),
        };
        assert!(!validity.is_renewal_due(at(600 * day - 1)));
        assert!(validity.is_renewal_due(at(600 * day)));
        assert!(!validity.ends_soon(at(870 * day)));
        assert!(validity.ends_soon(at(870 * day + 1)));
        assert!(validity.ends_soon(at(1000 * day)));
    }
}
