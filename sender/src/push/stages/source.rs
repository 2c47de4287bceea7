//! Stage *snapshot*: what a push reads. It is the push snapshot ([`crate::push::stages::snapshot`]), the user's own
//! snapshot, or the volume itself on a read-only file system.

use std::os::fd::OwnedFd;

use sendshot_model::{Reason, ReasonCode};
use sendshot_sys::subvolume::{self, Info};

use crate::decide::parent::ParentChoice;
use crate::push::context::{PushContext, another};
use crate::push::error::Error;
use crate::push::stages::prepare::candidates::Demand;
use crate::push::stages::snapshot;
use crate::push::stages::still::Still;
use crate::state::record::{Intent, Record, SnapshotId};
use crate::volume::resolve::{self, Volume};

/// What a push reads: a snapshot taken for it or for an interrupted push, the user's own, or the volume in place.
#[derive(Debug)]
pub(crate) struct SourceSnapshot {
    pub(crate) fd: OwnedFd,
    pub(crate) info: Info,
    pub(crate) taken_at: i64,
    /// `None` for the user's own snapshot, which the sender neither records nor deletes.
    pub(crate) record: Option<Record>,
    /// What must not have changed when the volume itself was read; `None` for a snapshot.
    pub(crate) still: Option<Still>,
}

impl SourceSnapshot {
    /// The parent that this source requires, given the user's `parent_choice`.
    pub(crate) fn demand(&self, parent_choice: ParentChoice) -> Demand {
        match (&self.still, parent_choice) {
            (Some(_), ParentChoice::Auto) => Demand::Full(Reason::new(
                ReasonCode::ReadAsItIs,
                "the file system is read-only, so the volume is read as it is: without a snapshot the changes since the last one are not known",
            )),
            (Some(_), ParentChoice::None | ParentChoice::Uuid(_)) | (None, _) => {
                Demand::ParentChoice(parent_choice)
            }
        }
    }
}

/// Takes the push snapshot. An existing read-only snapshot is read in place.
///
/// # Errors
/// See [`Error`].
pub(crate) async fn take(context: &PushContext, volume: Volume) -> Result<SourceSnapshot, Error> {
    if volume.kind == resolve::Kind::Snapshot {
        let detail = format!("{} is read-only already", volume.path.display());
        context.enter("snapshot", detail);
        return Ok(SourceSnapshot {
            taken_at: volume.info.otime,
            fd: volume.fd,
            info: volume.info,
            record: None,
            still: None,
        });
    }
    let intent = context.intent(context.running.push);
    if context.state.is_temporary() {
        let path = volume.path.display();
        let detail = format!("none: {path} is read as it is, on a file system that is read-only");
        context.enter("snapshot", detail);
        return as_it_is(context, volume, intent).await;
    }
    context.enter("snapshot", format!("of {}", volume.path.display()));
    let taken = context.on_store("snapshot", move |state| {
        snapshot::take(state, &volume.fd, &volume.path, intent)
    });
    let taken = taken.await??;
    Ok(SourceSnapshot {
        fd: taken.fd,
        info: taken.info,
        taken_at: taken.record.taken_at,
        record: Some(taken.record),
        still: None,
    })
}

/// Reads a live volume in place on a file system that is read-only everywhere. Nothing keeps it from changing, so
/// it is checked before the receiver gets the end of the stream: see [`Still`].
async fn as_it_is(
    context: &PushContext,
    volume: Volume,
    intent: Intent,
) -> Result<SourceSnapshot, Error> {
    let fd = another(&volume.fd)?;
    let looked = context.on_store(
        "look",
        move |state| -> Result<(Info, Still, Record), Error> {
            // Before anything of the volume is read.
            let look = Error::volume("check the volume");
            let still = Still::of(&fd).map_err(look)?;
            let info = subvolume::info(&fd).map_err(look)?;
            let mut record = Record::new(intent);
            record.snapshot = Some(SnapshotId {
                uuid: info.uuid,
                otransid: info.otransid,
            });
            // The disk itself is read-only, so the record goes into the state directory.
            let stored = record.store(state.pushes());
            stored.map_err(Error::state_dir("write the record of the push"))?;
            Ok((info, still, record))
        },
    );
    let (info, still, record) = looked.await??;
    Ok(SourceSnapshot {
        fd: volume.fd,
        info,
        taken_at: record.taken_at,
        record: Some(record),
        still: Some(still),
    })
}
