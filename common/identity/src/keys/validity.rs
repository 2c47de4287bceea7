//! The validity of a certificate, and the actions due before its end.

use jiff::{SignedDuration, Timestamp};

use crate::keys::certificate;
use crate::transport::peer::PeerIdentity;

/// Time before its end at which users are warned: it should have been renewed long before.
const WARNED: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The validity of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Beginning of the validity.
    pub not_before: Timestamp,
    /// End of the validity.
    pub not_after: Timestamp,
}

impl Validity {
    /// Returns the validity of a certificate in PEM; `None` if it was not made by Sendshot.
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

    /// Whether renewal is due: in the last third of its life.
    #[must_use]
    pub fn is_renewal_due(&self, now: Timestamp) -> bool {
        let (start, end) = (self.not_before.as_second(), self.not_after.as_second());
        now.as_second() >= end - (end - start) / 3
    }

    /// Whether users must be warned of its end.
    #[must_use]
    pub fn ends_soon(&self, now: Timestamp) -> bool {
        self.not_after.duration_since(now) < WARNED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_comes_long_before_the_warning() {
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
