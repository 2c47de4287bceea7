//! Prepares the first message of a transfer, and records the pending commit before the receiver gets the last one.

use std::os::fd::OwnedFd;

use sendshot_model::TransferId;
use sendshot_proto::hello::Support;
use sendshot_proto::problem::JOURNAL;
use sendshot_proto::transfer::{Begin, ParentRef, Resumable};
use sendshot_sys::crash;

use crate::decide::parent::{Local, Plan};
use crate::push::context::PushContext;
use crate::push::delivery::Delivery;
use crate::push::error::Error;
use crate::push::stages::still::Still;
use crate::shared::blocking::blocking;
use crate::state::record::{ParentState, Phase, Record, ResumePoint, Transferring};

/// Whether the same stream can be made again, and the receiver can resume it.
pub(crate) fn is_resumable(context: &PushContext, delivery: &Delivery) -> bool {
    let is_ours = delivery.by_sendshots().is_some() && delivery.source.record.is_some();
    is_ours && context.link.resume() == Support::Has
}

/// Makes the first message of a transfer. A new transfer is recorded before.
///
/// # Errors
/// See [`Error`].
pub(crate) async fn begin(
    context: &PushContext,
    delivery: &mut Delivery,
    from: Option<ResumePoint>,
) -> Result<Begin, Error> {
    let plan = delivery.plan();
    let resumable = is_resumable(context, delivery);
    if from.is_none() && resumable {
        note_transfer(context, delivery, &plan).await?;
    }
    let record = delivery.source.record.as_ref();
    let noted = record.and_then(|record| record.transfer.as_ref());
    let noted = noted.filter(|_| resumable);
    let (uuid, ctransid) = delivery.identity();
    Ok(Begin {
        transfer: noted.map_or_else(TransferId::generate, |noted| noted.id),
        volume: context.key_there.clone(),
        uuid,
        ctransid,
        parent: plan.parent.map(|parent| ParentRef {
            uuid: parent.uuid,
            ctransid: parent.ctransid,
        }),
        taken_at: delivery.source.taken_at,
        stream_version: noted.map_or_else(|| context.stream_version(), |n| n.stream_version),
        resumable: if resumable {
            Resumable::Yes
        } else {
            Resumable::No
        },
        resume_at: from.map(|from| from.point()),
        root: context.root,
        of_snapshot: Some(delivery.source.record.is_none()),
        may_wait: true,
    })
}

async fn note_transfer(
    context: &PushContext,
    delivery: &mut Delivery,
    plan: &Plan,
) -> Result<(), Error> {
    let Some(record) = &mut delivery.source.record else {
        return Ok(());
    };
    let parent = plan.parent.and_then(|parent| match parent.local {
        Local::Sendshot(push) => Some(ParentState {
            push,
            uuid: parent.uuid,
            ctransid: parent.ctransid,
        }),
        Local::Snapshot(_) => None,
    });
    record.transfer = Some(Transferring {
        id: TransferId::generate(),
        stream_version: context.stream_version(),
        parent,
        reason: plan.reason.text.clone(),
        reason_code: plan.reason.code,
    });
    let record = record.clone();
    let stored = context.on_store("journal", move |state| {
        record.store(state.pushes())?;
        crash::point("begin-noted");
        Ok::<_, std::io::Error>(())
    });
    stored.await?.map_err(Error::volume(JOURNAL))
}

/// Records that from here on the receiver may commit without this sender learning of it. `still` describes the
/// volume that must not have changed.
///
/// # Errors
/// I/O errors, or a volume that changed.
pub(crate) async fn end(
    context: &PushContext,
    record: Option<Record>,
    still: Option<(Still, OwnedFd)>,
) -> std::io::Result<()> {
    if let Some((still, fd)) = still {
        let checked = blocking("check", move || still.check(&fd)).await;
        checked.map_err(std::io::Error::other)??;
    }
    context.enter("commit", "");
    let Some(mut record) = record else {
        return Ok(());
    };
    let stored = context.on_store("record", move |state| {
        record.phase = Phase::Unconfirmed;
        record.store(state.pushes())?;
        crash::point("end-announced");
        Ok(())
    });
    stored.await.map_err(std::io::Error::other)?
}
