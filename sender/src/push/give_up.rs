//! Decides what becomes of a state whose push has failed: it is kept if the next push can resume it, and deleted
//! otherwise.

use sendshot_sys::filesystem;

use crate::push::context::PushContext;
use crate::push::delivery::{Delivery, Origin};
use crate::push::error::{Class, Error};
use crate::push::retry::RetryDecision;
use crate::push::stages::announce;
use crate::state::record::Record;

/// Keeps what the next push can resume, and marks the error as such; discards the rest.
pub(crate) async fn give_up(
    context: &PushContext,
    delivery: &Delivery,
    error: Error,
    next: RetryDecision,
) -> Error {
    // Has the periodic check look again at what is kept, also at what the receiver may have committed.
    let interrupted = context.sender.interrupted();
    interrupted.note();
    if is_worth_keeping(context, delivery, &error, next) {
        let progress = &delivery.progress;
        if let (Some(record), Some(segment_log)) = (&delivery.source.record, &progress.segment_log)
        {
            interrupted.keep_recent(record.push, segment_log.recent_segments());
        }
        let filesystem = filesystem::fsid(&delivery.source.fd).ok();
        let mount = filesystem.and_then(filesystem::mount_number);
        if let (Some(record), Some(mount)) = (&delivery.source.record, mount) {
            interrupted.keep_mount(record.push, mount);
        }
        return Error::Kept(Box::new(error));
    }
    discard(context, delivery).await;
    error
}

/// Whether the receiver has, or will have once it is back, a part to resume from.
fn is_worth_keeping(
    context: &PushContext,
    delivery: &Delivery,
    error: &Error,
    next: RetryDecision,
) -> bool {
    let progress = &delivery.progress;
    let is_resumable = progress.begun && announce::is_resumable(context, delivery);
    if !is_resumable || context.state.is_temporary() {
        return false;
    }
    let Some(segment_log) = &progress.segment_log else {
        return false;
    };
    match (next, error.class()) {
        // The receiver keeps its part until the sender is back.
        (RetryDecision::Later, _) | (_, Class::Transient | Class::Cancelled) => {
            !segment_log.known().is_empty()
        }
        // What the receiver had applied is void, but its checkpoint may be valid. Where there is a mark there
        // may be a checkpoint, reported or not.
        (_, Class::Failed) => {
            let checkpoint = segment_log.last_checkpoint() > 0 || segment_log.last_mark() > 0;
            let was_resumed = progress.resumed_at.is_some();
            checkpoint || was_resumed || delivery.origin == Origin::Interrupted
        }
        (_, Class::Refused) => false,
    }
}

/// Discards the delivery's snapshot, sendshot and record.
pub(crate) async fn discard(context: &PushContext, delivery: &Delivery) {
    if let Some(record) = &delivery.source.record {
        context.discard(Record::clone(record)).await;
    }
}
