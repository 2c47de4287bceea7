//! Finds the states that a user means to forget, and checks whether the last possible parent of a next push
//! is among them.

use std::collections::BTreeSet;

use sendshot_model::{CopyName, human};

use crate::decide::retention;
use crate::state::record::{Item, Phase, Presence, Record};

/// The choice among the states of a volume and receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    All,
    /// The one whose UUID begins with these hexadecimal digits.
    Uuid(String),
    /// The one taken at this time.
    Time(CopyName),
    /// Those in common with one of the receiver's disks, whose id begins so. The disk is gone for good.
    Root(String),
}

/// Why nothing is deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is neither a UUID nor a time.
    #[error("`{0}` names no sendshot")]
    Text(String),
    /// The name has a suffix: the receiver gives it to the second copy of a second, and only the receiver knows it.
    #[error("`{0}` is the receiver's name for a copy, which this host does not know")]
    Suffix(CopyName),
    /// No state of this volume and receiver is kept.
    #[error("nothing of `{target}` is retained on this host")]
    Nothing {
        /// The requested volume and receiver.
        target: String,
    },
    /// States are kept, but none matches.
    #[error("no sendshot of `{target}` matches `{which}`; there is {}", human::few(.there))]
    NotFound {
        /// The requested volume and receiver.
        target: String,
        /// The requested state.
        which: String,
        /// The states that are kept: times and UUIDs.
        there: Vec<String>,
    },
    /// Several states match.
    #[error("`{which}` matches more than one: {}", human::few(.found))]
    Ambiguous {
        /// The requested state.
        which: String,
        /// The matching states.
        found: Vec<String>,
    },
    /// Several volumes were pushed under the name.
    #[error("`{target}` stands for {volumes} different volumes that were pushed under this name")]
    SeveralVolumes {
        /// The requested volume and receiver.
        target: String,
        volumes: usize,
    },
    /// A running push may use the state.
    #[error("a push of `{volume}` to `{receiver}` is running, and may use it")]
    InUse { volume: String, receiver: String },
    /// Without the state the next push would be a full one.
    #[error(
        "{name} is the last state of `{volume}` that this host and {receiver} have in common: \
         without it the next push to {receiver} sends everything again"
    )]
    LastCommon {
        /// Time and UUID of the state.
        name: String,
        volume: String,
        receiver: String,
    },
    /// The choice matches other states now than when the user agreed.
    #[error("the states named by `{target}` and `{which}` have changed since you were asked")]
    Changed {
        /// The requested volume and receiver.
        target: String,
        /// The requested state.
        which: String,
    },
}

impl Which {
    /// Parses the user's choice of a state.
    ///
    /// # Errors
    /// If the text can be neither a UUID nor a time.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if let Ok(name) = CopyName::parse(text) {
            return match name.suffix() {
                1 => Ok(Self::Time(name)),
                _ => Err(Error::Suffix(name)),
            };
        }
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        let fits = (1..=32).contains(&digits.len());
        if fits && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(Self::Uuid(digits.to_ascii_lowercase()));
        }
        Err(Error::Text(text.to_owned()))
    }

    /// Parses the id of a receiver's disk, or the beginning of one.
    ///
    /// # Errors
    /// If the text can be no such id.
    pub fn root(text: &str) -> Result<Self, Error> {
        let fits = (1..=36).contains(&text.len());
        let is_id = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
        if fits && text.bytes().all(is_id) {
            return Ok(Self::Root(text.to_ascii_lowercase()));
        }
        Err(Error::Text(text.to_owned()))
    }

    fn is(&self, record: &Record) -> bool {
        match self {
            Self::All => true,
            Self::Uuid(digits) => record.snapshot.is_some_and(|snapshot| {
                snapshot
                    .uuid
                    .simple()
                    .to_string()
                    .starts_with(digits.as_str())
            }),
            Self::Time(name) => record.taken_at == name.time().as_second(),
            Self::Root(id) => record
                .root
                .is_some_and(|root| root.to_string().starts_with(id.as_str())),
        }
    }
}

impl std::fmt::Display for Which {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("--all"),
            Self::Uuid(digits) => f.write_str(digits),
            Self::Time(name) => name.fmt(f),
            Self::Root(id) => write!(f, "--root {id}"),
        }
    }
}

/// Names a state for the user: by when it was taken, and its UUID.
fn name(record: &Record) -> String {
    let time = jiff::Timestamp::from_second(record.taken_at).unwrap_or_default();
    let time = CopyName::from_time(time);
    match record.snapshot {
        Some(snapshot) => format!("{time} ({})", snapshot.uuid),
        None => time.to_string(),
    }
}

/// Finds the records that the choice matches.
///
/// # Errors
/// If it matches none, or is ambiguous.
pub fn find<'a>(items: &'a [Item], target: &str, which: &Which) -> Result<Vec<&'a Record>, Error> {
    if items.is_empty() {
        let target = target.to_owned();
        return Err(Error::Nothing { target });
    }
    let records = || items.iter().map(|item| &item.record);
    let found: Vec<&Record> = records().filter(|record| which.is(record)).collect();
    let volumes: BTreeSet<_> = found.iter().map(|record| record.volume).collect();
    let states: BTreeSet<_> = found
        .iter()
        .map(|record| record.snapshot.map(|s| s.uuid))
        .collect();
    match which {
        _ if found.is_empty() => Err(Error::NotFound {
            target: target.to_owned(),
            which: which.to_string(),
            there: records().map(name).collect(),
        }),
        Which::All | Which::Root(_) if volumes.len() > 1 => Err(Error::SeveralVolumes {
            target: target.to_owned(),
            volumes: volumes.len(),
        }),
        Which::Uuid(_) | Which::Time(_) if states.len() > 1 => Err(Error::Ambiguous {
            which: which.to_string(),
            found: found.into_iter().map(name).collect(),
        }),
        Which::Root(_) if roots(&found) > 1 => Err(Error::Ambiguous {
            which: which.to_string(),
            found: found.into_iter().map(name).collect(),
        }),
        Which::All | Which::Uuid(_) | Which::Time(_) | Which::Root(_) => Ok(found),
    }
}

fn roots(records: &[&Record]) -> usize {
    let roots: BTreeSet<_> = records.iter().map(|record| record.root).collect();
    roots.len()
}

/// Whether a state can be the parent of the next push. An unconfirmed one can turn out to be.
fn may_be_parent(item: &Item) -> bool {
    item.presence == Presence::Here && item.record.phase != Phase::Sending
}

/// Checks that every chain which has a possible parent keeps an acknowledged state. A state known only by the
/// receiver's report does not replace one that was sent to it.
///
/// # Errors
/// [`Error::LastCommon`] with the state whose loss would break a chain.
pub fn check_chains(items: &[Item], chosen: &[&Record]) -> Result<(), Error> {
    let goes = |record: &Record| chosen.iter().any(|c| c.push == record.push);
    let stays = |instead_of: &Record| {
        items.iter().any(|item| {
            retention::succeeds(&item.record, instead_of)
                && item.record.phase == Phase::Acknowledged
                && (item.record.origin.is_sent() || !instead_of.origin.is_sent())
                && item.presence == Presence::Here
                && !goes(&item.record)
        })
    };
    let mut losses: Vec<&Record> = items
        .iter()
        .filter(|item| may_be_parent(item) && goes(&item.record))
        .map(|item| &item.record)
        .filter(|record| !stays(record))
        .collect();
    losses.sort_by_key(|record| record.age_order());
    match losses.pop() {
        None => Ok(()),
        Some(last) => Err(Error::LastCommon {
            name: name(last),
            volume: last.volume_name.to_string(),
            receiver: last.receiver_name.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::record::Origin;
    use uuid::Uuid;

    use crate::decide::retention::tests::{at, here, record};

    fn uuid(text: &str) -> Which {
        Which::parse(text).unwrap()
    }

    #[test]
    fn a_state_is_named_by_uuid_prefix_or_time() {
        let chain = record();
        let mut old = at(&chain, 0x1f);
        old.snapshot = old.snapshot.map(|s| crate::state::record::SnapshotId {
            uuid: Uuid::from_u128(0xab12_0000 << 96),
            ..s
        });
        let new = Record {
            taken_at: 1_795_316_400,
            ..at(&chain, 0x2f)
        };
        let items = [here(&old), here(&new)];
        let found = |which: &str| {
            let found = find(&items, "nas2:photos", &Which::parse(which)?)?;
            Ok(found.iter().map(|r| r.push).collect::<Vec<_>>())
        };
        assert_eq!(found("AB12"), Ok(vec![old.push]));
        assert_eq!(found("ab120000-0"), Ok(vec![old.push]));
        assert_eq!(
            found("00000000-0000-0000-0000-00000000002f"),
            Ok(vec![new.push])
        );
        assert_eq!(found("20261122T030000Z"), Ok(vec![new.push]));
        assert!(matches!(found("ffff"), Err(Error::NotFound { .. })));
        assert!(matches!(
            found("20261122T030001Z"),
            Err(Error::NotFound { .. })
        ));
        for text in ["", "-", "yesterday", "20261122", "g"] {
            let found = found(text);
            assert!(
                matches!(found, Err(Error::Text(_) | Error::NotFound { .. })),
                "{text}: {found:?}"
            );
        }
    }

    #[test]
    fn ambiguous_requests_are_refused() {
        let chain = record();
        let items = [here(&at(&chain, 1)), here(&at(&chain, 2))];
        let ambiguous = find(&items, "nas2:photos", &uuid("000"));
        assert!(matches!(ambiguous, Err(Error::Ambiguous { .. })));
        let other = Record {
            volume: sendshot_model::VolumeId::generate(),
            ..at(&chain, 3)
        };
        let items = [here(&at(&chain, 1)), here(&other)];
        let several = find(&items, "nas2:photos", &Which::All);
        assert!(matches!(
            several,
            Err(Error::SeveralVolumes { volumes: 2, .. })
        ));
        let nothing = find(&[], "nas2:photos", &Which::All);
        assert!(matches!(nothing, Err(Error::Nothing { .. })));
    }

    fn breaks(items: &[Item], chosen: &[usize]) -> bool {
        let chosen: Vec<&Record> = chosen.iter().map(|n| &items[*n].record).collect();
        check_chains(items, &chosen).is_err()
    }

    #[test]
    fn losing_the_last_common_state_costs_a_full_push() {
        let chain = record();
        let items = [here(&at(&chain, 1)), here(&at(&chain, 2))];
        assert!(!breaks(&items, &[0]));
        assert!(!breaks(&items, &[1]), "the older one still serves");
        assert!(breaks(&items, &[0, 1]));
        assert!(breaks(&items[..1], &[0]));
        let gone = Item {
            presence: Presence::Gone,
            ..here(&at(&chain, 3))
        };
        let items = [here(&at(&chain, 1)), gone];
        assert!(breaks(&items, &[0]), "a deleted state is useless");
        assert!(!breaks(&items, &[1]));
    }

    #[test]
    fn each_receiver_instance_has_a_chain_of_its_own() {
        let chain = record();
        let reinstalled = Record {
            receiver: sendshot_model::ReceiverId::generate(),
            ..at(&chain, 1)
        };
        let items = [here(&at(&chain, 2)), here(&reinstalled)];
        assert!(breaks(&items, &[0]));
        assert!(breaks(&items, &[1]));
    }

    #[test]
    fn a_reported_state_supersedes_nothing_sent() {
        let chain = record();
        let told = |n| {
            here(&Record {
                origin: Origin::Reported,
                ..at(&chain, n)
            })
        };
        let items = [here(&at(&chain, 1)), told(2), told(3)];
        assert!(breaks(&items, &[0]));
        assert!(!breaks(&items, &[1, 2]));
        assert!(!breaks(&items[1..], &[0]), "one of two that are as good");
    }

    #[test]
    fn unconfirmed_states_save_no_other() {
        let chain = record();
        let in_state = |state, n| {
            here(&Record {
                phase: state,
                ..at(&chain, n)
            })
        };
        let items = [
            in_state(Phase::Acknowledged, 1),
            in_state(Phase::Unconfirmed, 2),
        ];
        assert!(!breaks(&items, &[1]));
        assert!(breaks(&items, &[0]));
        assert!(breaks(&items[1..], &[0]));
        assert!(!breaks(&[in_state(Phase::Sending, 1)], &[0]));
    }
}
