//! The successful end of a push: records the acknowledgement and makes the report.

use sendshot_model::{NotKept, ReasonCode};
use sendshot_proto::inventory::{HeldCopy, Inventory};
use sendshot_proto::report::Report;
use uuid::Uuid;

use crate::push::context::PushContext;
use crate::push::delivery::Delivery;
use crate::push::error::Error;
use crate::push::stages::record::{self, Superseded};
use crate::push::stages::transfer::{self, Committed};
use crate::state::record::Phase;

/// Completes the push without a transfer, if the receiver already holds exactly this state.
///
/// # Errors
/// See [`Error`].
pub(crate) async fn already_held(
    context: &PushContext,
    delivery: &Delivery,
    inventory: &Inventory,
) -> Result<Option<(Report, Superseded)>, Error> {
    let (uuid, ctransid) = delivery.identity();
    let held = inventory
        .copies
        .iter()
        .find(|copy| copy.uuid == uuid && copy.ctransid == ctransid && copy.unusable.is_none());
    let Some(copy) = held else { return Ok(None) };
    // A volume that was read in place may have been pushed before, without anything being kept of it.
    let record = delivery.source.record.as_ref();
    let record = record.filter(|_| delivery.source.still.is_none());
    match record.map(|record| record.phase) {
        None => {
            let report = nothing_to_do(context, delivery, copy);
            Ok(Some((report, Superseded::default())))
        }
        Some(Phase::Unconfirmed) => {
            tracing::info!(push = %context.running.push, "a lost acknowledgement was detected");
            let committed = Committed {
                copy: format!("{}/{}", inventory.directory, copy.name),
                stream_bytes: context.running.total(),
                not_kept: NotKept::default(),
            };
            let (report, superseded) = finish(context, delivery, committed).await?;
            let reason = report.parent_reason;
            let parent_reason =
                format!("{reason}; it had been committed before, and the acknowledgement was lost");
            let report = Report {
                parent_reason,
                ..report
            };
            Ok(Some((report, superseded)))
        }
        // No receiver can hold a state that was never sent whole.
        Some(Phase::Sending | Phase::Acknowledged) => Err(transfer::Error::ProtocolViolation(
            "it claims to hold a state that was not sent to it".to_owned(),
        )
        .into()),
    }
}

/// Records the receiver's acknowledgement, and reports the push.
///
/// # Errors
/// See [`Error`].
pub(crate) async fn finish(
    context: &PushContext,
    delivery: &Delivery,
    committed: Committed,
) -> Result<(Report, Superseded), Error> {
    let plan = delivery.plan();
    let record = delivery.source.record.clone();
    let superseded = record::record(context, record, plan.parent).await?;
    let (uuid, _) = delivery.identity();
    let pruned = superseded.older.iter();
    let report = Report {
        uuid,
        parent: plan.parent.map(|parent| parent.uuid),
        parent_reason: plan.reason.text,
        parent_reason_code: plan.reason.code,
        stream_bytes: committed.stream_bytes,
        resumed_at: delivery.progress.resumed_at,
        pruned: pruned
            .filter_map(|record| Some(record.snapshot?.uuid))
            .collect(),
        copy: committed.copy,
        not_kept: committed.not_kept,
        ..report(context, delivery)
    };
    Ok((report, superseded))
}

fn nothing_to_do(context: &PushContext, delivery: &Delivery, copy: &HeldCopy) -> Report {
    Report {
        uuid: delivery.source.info.wire_uuid(),
        parent_reason: "nothing to send: the receiver holds this snapshot already".into(),
        parent_reason_code: ReasonCode::AlreadyHeld,
        copy: copy.name.to_string(),
        ..report(context, delivery)
    }
}

/// The fields that all reports share.
fn report(context: &PushContext, delivery: &Delivery) -> Report {
    Report {
        volume: context.key.name.clone(),
        receiver: context.running.receiver.clone(),
        uuid: Uuid::nil(),
        parent: None,
        parent_reason: String::new(),
        parent_reason_code: ReasonCode::NotRecorded,
        engine: context.engine.to_string(),
        stream_bytes: 0,
        not_recorded: context.state.is_temporary() && delivery.source.still.is_some(),
        wire_bytes: context.wire_bytes(),
        resumed_at: None,
        seconds: context.running.elapsed().as_secs_f64(),
        pruned: Vec::new(),
        skipped: Vec::new(),
        newly_skipped: Vec::new(),
        copy: String::new(),
        completed_first: None,
        earlier: Vec::new(),
        root: context.root,
        not_kept: NotKept::default(),
    }
}
