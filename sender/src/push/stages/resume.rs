//! Finding an interrupted push in the journal, and opening all that is needed to go on with it. Where it goes on is
//! decided by [`crate::decide::resume`].

use std::io;
use std::os::fd::OwnedFd;

use sendshot_engine::Sendshot;
use sendshot_model::{PushId, Reason, ReceiverId, SenderId, VolumeId};
use sendshot_sys::durable;
use sendshot_sys::subvolume::{self, Info};

use crate::decide::parent::{Local, Parent, Plan};
use crate::decide::retention;
use crate::state::journal::{self, Record, Transferring};
use crate::state::store::StateSubvolume;

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
