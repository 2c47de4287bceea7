//! Decides who may read copies: closed unless receiver.toml or root of this host opens it.

use std::time::Duration;

use jiff::Timestamp;
use sendshot_config::RestoreRule;
use sendshot_identity::{Moment, PeerIdentity, Reader, ReaderKey, Remaining};
use sendshot_model::shell;
use sendshot_proto::failure::{Code, Failure};
use sendshot_proto::restore::Volumes;
use tonic::Status;

use crate::replication::authorize::refuse;
use crate::shared::receiver::Receiver;

/// A permission to read the copies of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit {
    /// How long it lasts; `None` if it has no end. A fetch must not read longer than this.
    pub left: Option<Duration>,
    /// Its end by this host's clock, for users; `None` if it has no end.
    pub ends_at: Option<Timestamp>,
}

/// Returns the caller, if it may ask to read copies: a sender, or the holder of a temporary key. Must be called for
/// every call, and again while a long one runs.
///
/// # Errors
/// The refusal, with its remedy.
pub fn reader(receiver: &Receiver, peer: Option<&PeerIdentity>) -> Result<Reader, Status> {
    let senders = receiver.senders();
    let reader = senders.authorize_reader(peer, &Moment::now());
    reader.map_err(|why| refuse(&why))
}

/// Decides whether a reader may read the copies in this directory of its sender.
///
/// # Errors
/// [`Code::NotPermitted`] with the command that permits it.
pub fn permit(receiver: &Receiver, reader: &Reader, volume_dir: &str) -> Result<Permit, Failure> {
    let rule = receiver.config().policy(&reader.name).restore;
    let senders = receiver.senders();
    let remaining = senders.remaining(reader, volume_dir, &Moment::now());
    decide(rule, reader, volume_dir, remaining)
}

/// Decides like [`permit`], from the certificate on: during a fetch the caller can be revoked, too.
///
/// # Errors
/// [`Code::NotPermitted`] with the command that permits it.
pub(super) fn still_permitted(
    receiver: &Receiver,
    peer: Option<&PeerIdentity>,
    volume_dir: &str,
) -> Result<Permit, Failure> {
    let reader = reader(receiver, peer).map_err(|status| {
        let remedy = sendshot_proto::refusal::remedy(&status);
        Failure::new(Code::NotPermitted, status.message(), remedy)
    })?;
    permit(receiver, &reader, volume_dir)
}

/// Removes the volumes that the holder of a temporary key may not read from a list. A sender knows its own volumes.
pub(super) fn hide(receiver: &Receiver, reader: &Reader, list: &mut Volumes) {
    match reader.key {
        ReaderKey::Own => {}
        ReaderKey::Temporary => list
            .volumes
            .retain(|volume| permit(receiver, reader, &volume.name).is_ok()),
    }
}

fn decide(
    rule: RestoreRule,
    reader: &Reader,
    volume_dir: &str,
    remaining: Option<Remaining>,
) -> Result<Permit, Failure> {
    match (rule, reader.key, remaining) {
        (RestoreRule::Never, _, _) => Err(forbidden(reader)),
        (RestoreRule::Always, ReaderKey::Own, _) => Ok(Permit {
            left: None,
            ends_at: None,
        }),
        (
            RestoreRule::Ask | RestoreRule::Always,
            ReaderKey::Own | ReaderKey::Temporary,
            Some(Remaining { left, ends_at }),
        ) => Ok(Permit {
            left: Some(left),
            ends_at: Some(ends_at),
        }),
        (RestoreRule::Ask, ReaderKey::Own, None) => Err(not_granted(reader, volume_dir)),
        (RestoreRule::Ask | RestoreRule::Always, ReaderKey::Temporary, None) => {
            Err(not_in_scope(reader, volume_dir))
        }
    }
}

fn forbidden(reader: &Reader) -> Failure {
    let name = &reader.name;
    Failure::new(
        Code::NotPermitted,
        format!("receiver.toml forbids restoring the copies of `{name}`"),
        format!(
            "on the receiver, change the line `restore = \"never\"` of [senders.{}] in receiver.toml and reload \
             sendshot-receiver",
            toml_key(name.as_str())
        ),
    )
}

fn not_granted(reader: &Reader, volume_dir: &str) -> Failure {
    let name = &reader.name;
    Failure::new(
        Code::NotPermitted,
        format!("the receiver has not permitted `{name}` to restore volume `{volume_dir}`"),
        format!(
            "as root on the receiver, run `sendshotctl peer grant {name} {} --for 24h`",
            shell::option("--volume", volume_dir)
        ),
    )
}

fn not_in_scope(reader: &Reader, volume_dir: &str) -> Failure {
    let name = &reader.name;
    Failure::new(
        Code::NotPermitted,
        format!(
            "the temporary key of this host does not permit it to restore volume `{volume_dir}`"
        ),
        format!(
            "as root on the receiver, run `sendshotctl peer invite {name} --restore {}`, then on this host \
             `sendshotctl restore --pair HOST`",
            shell::option("--volume", volume_dir)
        ),
    )
}

/// Writes a sender's name as a key of a table: bare keys have no points.
fn toml_key(name: &str) -> String {
    match name.contains('.') {
        true => format!("\"{name}\""),
        false => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use sendshot_model::SenderId;

    use super::*;

    const HOUR: Remaining = Remaining {
        left: Duration::from_secs(3600),
        ends_at: Timestamp::UNIX_EPOCH,
    };

    fn holder(key: ReaderKey) -> Reader {
        Reader {
            name: "nas1".parse().unwrap(),
            id: SenderId::generate(),
            key,
        }
    }

    /// The decision for `photos`: `Ok` with the seconds left.
    fn decided(
        rule: RestoreRule,
        key: ReaderKey,
        remaining: Option<Remaining>,
    ) -> Result<Option<u64>, Failure> {
        let permit = decide(rule, &holder(key), "photos", remaining)?;
        assert_eq!(permit.left.is_some(), permit.ends_at.is_some());
        Ok(permit.left.map(|left| left.as_secs()))
    }

    #[test]
    fn never_means_no_key() {
        for key in [ReaderKey::Own, ReaderKey::Temporary] {
            for remaining in [None, Some(HOUR)] {
                let failure = decided(RestoreRule::Never, key, remaining).unwrap_err();
                assert_eq!(failure.code, Code::NotPermitted);
                assert!(
                    failure
                        .remedy
                        .contains("`restore = \"never\"` of [senders.nas1]"),
                    "{failure:?}"
                );
            }
        }
    }

    #[test]
    fn always_is_for_the_senders_own_key() {
        let own = decided(RestoreRule::Always, ReaderKey::Own, None);
        assert_eq!(own, Ok(None));
        // A grant does not shorten it.
        let own = decided(RestoreRule::Always, ReaderKey::Own, Some(HOUR));
        assert_eq!(own, Ok(None));
        let temporary = decided(RestoreRule::Always, ReaderKey::Temporary, Some(HOUR));
        assert_eq!(temporary, Ok(Some(3600)));
        assert!(decided(RestoreRule::Always, ReaderKey::Temporary, None).is_err());
    }

    #[test]
    fn asking_needs_time_that_remains() {
        for key in [ReaderKey::Own, ReaderKey::Temporary] {
            assert_eq!(decided(RestoreRule::Ask, key, Some(HOUR)), Ok(Some(3600)));
            let failure = decided(RestoreRule::Ask, key, None).unwrap_err();
            assert_eq!(failure.code, Code::NotPermitted);
        }
    }

    #[test]
    fn the_remedy_is_the_command() {
        let remedy = |key, volume| {
            let failure = decide(RestoreRule::Ask, &holder(key), volume, None);
            failure.unwrap_err().remedy
        };
        assert_eq!(
            remedy(ReaderKey::Own, "photos"),
            "as root on the receiver, run `sendshotctl peer grant nas1 --volume photos --for 24h`"
        );
        assert!(
            remedy(ReaderKey::Own, "Ann's photos")
                .contains(r"grant nas1 --volume 'Ann'\''s photos' --for 24h`")
        );
        assert_eq!(
            remedy(ReaderKey::Temporary, "-x"),
            "as root on the receiver, run `sendshotctl peer invite nas1 --restore --volume=-x`, then on this host \
             `sendshotctl restore --pair HOST`"
        );
        assert_eq!(toml_key("nas.lan"), "\"nas.lan\"");
    }
}
