//! Stages *generate* and *transfer* together: sends the stream of a prepared state, until the receiver has
//! committed.

use std::sync::Arc;
use std::time::Duration;

use sendshot_sys::send_pipe;

use crate::decide::parent::Local;
use crate::push::context::{PushContext, another};
use crate::push::delivery::Delivery;
use crate::push::error::Error;
use crate::push::generate::{self, Generator};
use crate::push::stages::announce;
use crate::push::stages::prepare::BySendshots;
use crate::push::stages::transfer::{self, Committed, Transfer};
use crate::shared::blocking::blocking;
use crate::state::record::ResumePoint;

/// Stage of a push that waits for its turn at the receiver.
const WAIT: &str = "wait";

/// Longest wait for a cancelled send to end. It ends at once, unless the kernel compares trees without finding
/// anything to write; its snapshot is then left for reconciliation.
const SEND_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// Most directories of both sendshots of a stream that is measured while it is made. Making and measuring it both keep about
/// 400 bytes for each of them (docs/sendshot-file.md), then at the same time: 8 MiB more.
const MOST_DIRECTORIES_BESIDE: u64 = 20_000;

/// The same for extents, of which the shared ones need 50 bytes each: at most 10 MiB more.
const MOST_EXTENTS_BESIDE: u64 = 200_000;

/// Announces the stream, makes and sends it, and waits for the commit. It resumes at `from`, if given.
///
/// # Errors
/// See [`Error`].
pub(crate) async fn send(
    context: &mut PushContext,
    delivery: &mut Delivery,
    from: Option<ResumePoint>,
) -> Result<Committed, Error> {
    let begin = announce::begin(context, delivery, from).await?;
    let cancel = context.running.cancel.clone();
    let offset = from.map(|from| from.position.offset);
    let detail = offset.map_or_else(String::new, |offset| {
        format!("resumes at {}", sendshot_model::human::bytes_human(offset))
    });
    context.enter("transfer", detail);
    // The receiver may learn of the transfer even if its answer is lost.
    delivery.progress.begun = true;
    let table = context.sender.table();
    table.opens(context.key.id, context.link.receiver(), begin.transfer);
    let (running, listener) = (Arc::clone(&context.running), context.listener.clone());
    let waits = || {
        if running.stage() != WAIT {
            let detail = "the receiver is busy with the pushes of others";
            listener.stage(&running, WAIT, detail);
        }
    };
    let (accepted, policy) = tokio::select! {
        accepted = Transfer::open(&mut context.link, begin, waits) => accepted?,
        () = cancel.cancelled() => return Err(transfer::Error::Cancelled.into()),
    };
    if context.running.stage() == WAIT {
        context.enter("transfer", "");
    }
    delivery.progress.resumed_at = offset;
    context.running.resumes_at(offset.unwrap_or(0));
    let segment_log = delivery.progress.segment_log.clone();
    let is_resumable = announce::is_resumable(context, delivery);
    if let Some(segment_log) = segment_log.clone().filter(|_| is_resumable) {
        blocking("segment_log", move || {
            // Without marks a push resumes further back after a crash.
            if let Err(e) = segment_log.restart(from, policy) {
                tracing::info!("the points to resume from are not recorded: {e}");
            }
        })
        .await?;
    }
    let measured = measure(context, delivery);
    let measured = match is_measured_beside(delivery) {
        true => Some(measured),
        false => {
            measured.await;
            None
        }
    };
    let generator = generate(context, delivery, from)?;
    let record = delivery.source.record.clone();
    let still = match delivery.source.still {
        Some(still) => Some((still, another(&delivery.source.fd)?)),
        None => None,
    };
    let before_end = async || announce::end(context, record, still).await;
    let stall_after = context.sender.config().stall_after;
    let running = &context.running;
    let sent = async {
        tokio::select! {
            outcome = accepted.run(generator.outputs, running, segment_log.as_deref(), stall_after, before_end) => outcome,
            never = context.listener.tick(Arc::clone(running)) => match never {},
        }
    };
    let measured = async {
        if let Some(measured) = measured {
            measured.await;
        }
    };
    // Both have ended before the disk is released.
    let (outcome, ()) = tokio::join!(sent, measured);
    // A snapshot cannot be deleted while it is being sent.
    let _ = tokio::time::timeout(SEND_SHUTDOWN_TIMEOUT, generator.finished.wait()).await;
    Ok(outcome?)
}

/// Whether the stream is measured while it is made, instead of before.
fn is_measured_beside(delivery: &Delivery) -> bool {
    let Some(BySendshots { new, parent, .. }) = delivery.by_sendshots() else {
        return false;
    };
    let both = || [Some(new), parent.as_ref()].into_iter().flatten();
    let directories = both().map(|sendshot| sendshot.directories());
    let extents = both().map(|sendshot| sendshot.counts().extents);
    directories.fold(0, u64::saturating_add) <= MOST_DIRECTORIES_BESIDE
        && extents.fold(0, u64::saturating_add) <= MOST_EXTENTS_BESIDE
}

/// Measures the length of the stream, which only tells how far the push is.
async fn measure(context: &PushContext, delivery: &Delivery) {
    let Some(BySendshots { new, parent, .. }) = delivery.by_sendshots() else {
        return;
    };
    let (new, parent) = (Arc::clone(new), parent.clone());
    let stream_version = stream_version(context, delivery);
    let running = Arc::clone(&context.running);
    let work = move || generate::size(parent.as_deref(), &new, stream_version);
    match blocking("measure", work).await {
        Ok(Ok(size)) => running.expect(size.bytes),
        // The generator reads the same files, and its error fails the push.
        Ok(Err(e)) => tracing::info!("the length of the stream is not known: {e}"),
        Err(e) => tracing::warn!("the length of the stream is not known: {e}"),
    }
}

/// Version of the stream: that of the interrupted push, if it is resumed.
fn stream_version(context: &PushContext, delivery: &Delivery) -> u32 {
    let record = delivery.source.record.as_ref();
    let noted = record.and_then(|record| record.transfer.as_ref());
    let noted = noted.filter(|_| announce::is_resumable(context, delivery));
    noted.map_or_else(|| context.stream_version(), |noted| noted.stream_version)
}

fn generate(
    context: &PushContext,
    delivery: &Delivery,
    from: Option<ResumePoint>,
) -> Result<Generator, Error> {
    let snapshot = another(&delivery.source.fd)?;
    let record = delivery.source.record.as_ref();
    let (Some(BySendshots { new, parent, .. }), Some(record), Some(segment_log)) = (
        delivery.by_sendshots(),
        record,
        &delivery.progress.segment_log,
    ) else {
        let parent = match delivery.plan().parent.map(|parent| parent.local) {
            Some(Local::Snapshot(id)) => Some(id),
            Some(Local::Sendshot(_)) | None => None,
        };
        let source = send_pipe::Source {
            snapshot,
            parent,
            clone_sources: Vec::new(),
            stream_version: context.stream_version(),
        };
        return Ok(generate::kernel(source).map_err(transfer::Error::from)?);
    };
    let source = generate::Sendshots {
        snapshot,
        parent: parent.clone(),
        new: Arc::clone(new),
        place: (another(context.state.sendshots())?, record.sendshot_name()),
        stream_version: stream_version(context, delivery),
        from,
        segment_log: Arc::clone(segment_log),
    };
    Ok(generate::sendshot(source).map_err(transfer::Error::from)?)
}
