//! Addresses of receivers.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use sendshot_model::PeerName;

/// Port of a receiver if none is given.
pub const DEFAULT_PORT: u16 = 7117;

/// A host, by name or IP address, and a port.
///
/// ```
/// # use sendshot_config::Address;
/// let address: Address = "nas2.lan".parse().unwrap();
/// assert_eq!(address.to_string(), "nas2.lan:7117");
/// assert_eq!(address.default_name().unwrap().as_str(), "nas2");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    host: String,
    port: u16,
}

/// A text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}` is not an address: expected HOST or HOST:PORT, like `nas2.lan`, `192.0.2.7:7117` or `[2001:db8::7]:7117`",
    .text.escape_debug()
)]
pub struct AddressError {
    /// The invalid text.
    pub text: String,
}

impl Address {
    /// Returns the host: a name, or an IP address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the default name of a receiver at this address: the first label of the host's name. An IP
    /// address has none.
    #[must_use]
    pub fn default_name(&self) -> Option<PeerName> {
        if self.host.parse::<std::net::IpAddr>().is_ok() || self.host.contains(':') {
            return None;
        }
        let label = self.host.split('.').next()?;
        PeerName::parse(label).ok()
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        read(text).ok_or_else(|| AddressError {
            text: text.to_owned(),
        })
    }
}

fn read(text: &str) -> Option<Address> {
    let (host, port) = split(text)?;
    let port = match port {
        None => DEFAULT_PORT,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
        Some(_) => return None,
    };
    let valid = if host.contains(':') {
        is_ipv6(host)
    } else {
        is_name(host)
    };
    (valid && port != 0).then(|| Address {
        host: host.to_owned(),
        port,
    })
}

fn split(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        let port = if rest.is_empty() {
            None
        } else {
            Some(rest.strip_prefix(':')?)
        };
        return host.contains(':').then_some((host, port));
    }
    match text.split_once(':') {
        // Two colons without brackets are an IPv6 address without a port.
        Some((_, rest)) if rest.contains(':') => Some((text, None)),
        Some((host, port)) => Some((host, Some(port))),
        None => Some((text, None)),
    }
}

/// Whether this is an IPv6 address, optionally with the zone of a link-local one.
fn is_ipv6(host: &str) -> bool {
    let (address, zone) = host.split_once('%').unwrap_or((host, "x"));
    address.parse::<Ipv6Addr>().is_ok() && is_name(zone)
}

/// Whether this has only characters of host names and IPv4 addresses, so that the resolver accepts it.
fn is_name(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= 253
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && host.starts_with(|c: char| c.is_ascii_alphanumeric())
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_all_their_forms() {
        for (text, expected) in [
            ("nas2", "nas2:7117"),
            ("nas2.lan:99", "nas2.lan:99"),
            ("192.0.2.7", "192.0.2.7:7117"),
            ("2001:db8::7", "[2001:db8::7]:7117"),
            ("[2001:db8::7]", "[2001:db8::7]:7117"),
            ("[fe80::1%eth0]:99", "[fe80::1%eth0]:99"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), expected);
            assert_eq!(expected.parse::<Address>().unwrap(), address);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            ":7117",
            "nas2:",
            "nas2:0",
            "nas2:65536",
            "nas2:+1",
            "root@nas2",
            "nas 2",
            "[nas2]:1",
            "[::1",
            "[::1]7117",
            "[]:1",
            "a:b:c",
            "-nas2",
            "https://nas2",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_a_name_names_the_receiver() {
        let name = |text: &str| text.parse::<Address>().unwrap().default_name();
        assert_eq!(name("nas2.lan:99").unwrap().as_str(), "nas2");
        assert_eq!(name("192.0.2.7"), None);
        assert_eq!(name("::1"), None);
    }
}
