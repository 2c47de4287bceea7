//! Where an interrupted push is taken up: what the receiver has of it, compared with what we know
//! of the stream. Pure, but for finding the push in the journal.

use std::io;
use std::os::fd::OwnedFd;

use sendshot_engine::Sendshot;
use sendshot_model::{PushId, Reason, ReceiverId, SenderId, TransferId, VolumeId, human};
use sendshot_proto::resume::{Partial, Point};
use sendshot_sys::durable;
use sendshot_sys::subvolume::{self, Info};

use crate::decide::plan::{Local, Parent, Plan};
use crate::decide::retention;
use crate::state::journal::{self, Record, Transferring};
use crate::state::state_subvolume::StateSubvolume;
use crate::state::trail::Waypoint;

/// Where to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Behind what the receiver has.
    At(Waypoint),
    /// At the beginning.
    Beginning(Why),
}

/// Why at the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The receiver has nothing of it.
    NothingThere,
    /// What it has was sent, but we do not know any more what we sent up to there.
    Unknown,
    /// What it has is not what we sent.
    Differs {
        /// Where.
        offset: u64,
    },
}

impl Why {
    /// In words.
    pub fn reason(self) -> String {
        match self {
            Self::NothingThere => "the receiver has nothing of it any more".to_owned(),
            Self::Unknown => {
                "the receiver has more of it than this box knows to have sent, or less".to_owned()
            }
            Self::Differs { offset } => format!(
                "what the receiver has of it up to {} is not what was sent",
                human::bytes_human(offset)
            ),
        }
    }
}

/// Compares what the receiver offers with what we know. The furthest place at which both agree is
/// where to go on; one that differs voids all behind it.
pub fn choose(known: &[Waypoint], offered: &[Point]) -> Start {
    let at = |offset: u64| known.iter().find(|w| w.place.offset == offset);
    let differs = offered
        .iter()
        .filter(|point| at(point.offset).is_some_and(|w| w.chain != point.chain))
        .map(|point| point.offset)
        .min();
    let agreed = offered
        .iter()
        .filter(|point| differs.is_none_or(|differs| point.offset < differs))
        .filter_map(|point| at(point.offset))
        .max_by_key(|waypoint| waypoint.place.offset);
    match (agreed, differs) {
        (Some(waypoint), _) => Start::At(*waypoint),
        (None, Some(offset)) => Start::Beginning(Why::Differs { offset }),
        (None, None) if offered.is_empty() => Start::Beginning(Why::NothingThere),
        (None, None) => Start::Beginning(Why::Unknown),
    }
}

/// What the receiver offers of one transfer.
pub fn offered(partials: &[Partial], transfer: TransferId) -> Vec<Point> {
    let own = partials.iter().filter(|p| p.transfer == transfer);
    own.flat_map(|partial| partial.points.iter().copied())
        .collect()
}

/// A push that broke off, with all that is needed to go on.
#[derive(Debug)]
pub struct Interrupted {
    /// Its record.
    pub record: Record,
    /// How far its transfer came.
    pub transfer: Transferring,
    /// Its snapshot.
    pub fd: OwnedFd,
    /// What the kernel knows of that.
    pub info: Info,
    /// The sendshot of it.
    pub new: Sendshot,
    /// The sendshot of its parent, if it has one.
    pub parent: Option<Sendshot>,
}

impl Interrupted {
    /// The decision that was taken when it began.
    pub fn plan(&self) -> Plan {
        let parent = self.transfer.parent.map(|parent| Parent {
            uuid: parent.uuid,
            ctransid: parent.ctransid,
            local: Local::Sendshot(parent.push),
        });
        Plan {
            parent,
            reason: Reason::new(self.transfer.reason_code, self.transfer.reason.clone()),
            verdicts: Vec::new(),
        }
    }
}

/// The newest interrupted push of a volume to a receiver for which everything is still there.
/// `running` says whether somebody works on one: a receiver can have two names.
///
/// # Errors
/// The kernel's, for reading the journal.
pub fn find(
    state: &StateSubvolume,
    chain: (SenderId, VolumeId, ReceiverId),
    running: impl Fn(PushId) -> bool,
) -> io::Result<Option<Interrupted>> {
    let mut records = journal::records(state.pushes())?;
    records.retain(|record| retention::chain(record) == chain);
    records.retain(|record| record.is_resumable() && !running(record.push));
    records.sort_by_key(retention::age_order);
    while let Some(record) = records.pop() {
        match open(state, record) {
            Ok(found) => return Ok(Some(found)),
            Err(e) => tracing::info!("an interrupted push cannot be resumed: {e:#}"),
        }
    }
    Ok(None)
}

fn open(state: &StateSubvolume, record: Record) -> anyhow::Result<Interrupted> {
    let Some(transfer) = record.transfer.clone() else {
        anyhow::bail!("{} was not begun", record.push);
    };
    let fd = durable::open_dir(state.snapshots(), &record.snapshot_name())?;
    let info = subvolume::info(&fd)?;
    anyhow::ensure!(
        record
            .snapshot
            .is_some_and(|snapshot| snapshot.uuid == info.uuid)
            && info.read_only,
        "{} is not the snapshot that was taken for it",
        record.push
    );
    let new = sendshot_engine::open_at(state.sendshots(), &record.sendshot_name())?;
    let parent = match transfer.parent {
        None => None,
        Some(parent) => {
            let name = journal::sendshot_name(parent.push);
            let found = sendshot_engine::open_at(state.sendshots(), &name)?;
            let same = (found.head().wire_uuid, found.head().wire_ctransid)
                == (parent.uuid, parent.ctransid);
            anyhow::ensure!(
                same,
                "{} is another state than the one it builds on",
                parent.push
            );
            Some(found)
        }
    };
    Ok(Interrupted {
        record,
        transfer,
        fd,
        info,
        new,
        parent,
    })
}

#[cfg(test)]
mod tests {
    use sendshot_engine::{Place, SkeletonHash};
    use sendshot_proto::chain::Chain;

    use super::*;

    fn known(offset: u64, chain: u8) -> Waypoint {
        Waypoint {
            place: Place {
                offset,
                skeleton: SkeletonHash([0; 32]),
            },
            chain: Chain([chain; 32]),
        }
    }

    fn offer(offset: u64, chain: u8) -> Point {
        known(offset, chain).point()
    }

    #[test]
    fn the_furthest_place_on_which_both_agree_is_where_to_go_on() {
        let ours = [known(10, 1), known(20, 2), known(30, 3)];
        let theirs = [offer(20, 2), offer(10, 1), offer(25, 9)];
        assert_eq!(choose(&ours, &theirs), Start::At(known(20, 2)));
    }

    #[test]
    fn what_differs_voids_all_behind_it() {
        let ours = [known(10, 1), known(20, 2), known(30, 3)];
        let before = [offer(10, 1), offer(20, 7), offer(30, 3)];
        assert_eq!(choose(&ours, &before), Start::At(known(10, 1)));
        let none = Start::Beginning(Why::Differs { offset: 10 });
        assert_eq!(choose(&ours, &[offer(10, 7), offer(20, 2)]), none);
    }

    #[test]
    fn what_nobody_knows_is_not_gone_on_from() {
        let ours = [known(10, 1)];
        assert_eq!(choose(&ours, &[]), Start::Beginning(Why::NothingThere));
        assert_eq!(
            choose(&ours, &[offer(11, 1)]),
            Start::Beginning(Why::Unknown)
        );
        assert_eq!(choose(&[], &[offer(10, 1)]), Start::Beginning(Why::Unknown));
    }
}
