//! Limits how long interrupted pushes and restores in place keep their snapshots, which pin data, and lists the pushes.
//!
//! Age ends an interrupted push, and so does little free space on the volume's file system. Both are logged as
//! warnings. A push that the receiver may have committed keeps its sendshot, which pins nothing, until the receiver
//! has reported; one by the kernel engine has none, and is deleted: the next push then builds on an older state.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use sendshot_sys::durable;
use sendshot_sys::filesystem;

use crate::decide::expiry::{Limits, judge};
use crate::retained::list;
use crate::retained::selection::Selection;
use crate::shared::sender::Sender;
use crate::state::discard;
use crate::state::journal;
use crate::state::record::{Phase, Record};
use crate::state::restores;
use crate::state::segment_log::{RecentSegments, SegmentLog};
use crate::state::store::StateSubvolume;
use sendshot_model::Engine;

/// How often to check.
const INTERVAL: Duration = Duration::from_secs(60);

/// Checks periodically; ends only by being dropped.
pub async fn watch(sender: Arc<Sender>) -> std::convert::Infallible {
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        ticks.tick().await;
        // Without interrupted pushes no disk is woken up.
        if !sender.interrupted().take() {
            continue;
        }
        // While starts are held, a record without a push stays so until it is deleted.
        let held = sender.hold_starts().await;
        let sender = Arc::clone(&sender);
        let look = move || {
            let _held = held;
            if discard_expired(&sender) > 0 {
                sender.interrupted().note();
            }
        };
        if let Err(problem) = crate::shared::blocking::blocking("interrupted", look).await {
            tracing::warn!("cannot look for interrupted pushes: {problem}");
        }
    }
}

/// Discards expired pushes and restores on all file systems that are mounted; returns how many stay. Blocks.
fn discard_expired(sender: &Sender) -> usize {
    let config = sender.config();
    let limits = Limits {
        keep: config.resume_keep,
        min_free: config.resume_min_free,
    };
    let mut stay = 0;
    // A running restore holds its volume, and reads what an earlier one has left before it makes staging.
    let restores_run = sender.table().holds_any();
    let absent = sender.filesystems().each(|state| {
        stay += match restores_run {
            true => 1,
            false => restores::expire(state, limits.keep, SystemTime::now()).unwrap_or_else(|e| {
                tracing::warn!("cannot look for interrupted restores: {e}");
                1
            }),
        };
        stay += discard(sender, state, limits).unwrap_or_else(|e| {
            tracing::warn!("cannot look for interrupted pushes: {e}");
            1
        });
        Ok(())
    });
    stay + absent.len()
}

fn discard(sender: &Sender, state: &StateSubvolume, limits: Limits) -> io::Result<usize> {
    let mut stay = 0;
    for record in journal::records(state.pushes())? {
        if record.sender != sender.id() || !has_snapshot(state, &record) {
            continue;
        }
        let space = filesystem::space(state.top())?;
        let Some(over) = judge(&record, Timestamp::now(), space, limits) else {
            stay += 1;
            continue;
        };
        let table = sender.table();
        if table.contains(record.push) || table.of_volume(record.volume).is_some() {
            stay += 1;
            continue;
        }
        // The push may have been acknowledged since the journal was read: an unconfirmed state is the next push's
        // parent then.
        let Some(record) = journal::find(state.pushes(), record.push)? else {
            continue;
        };
        if !has_snapshot(state, &record) {
            continue;
        }
        tracing::warn!(push = %record.push, volume = %record.volume_name, receiver = %record.receiver_name,
            "the interrupted push of {} to {} is discarded: {}; the next push starts from the last \
             acknowledged state",
            record.volume_name, record.receiver_name, over.reason());
        sender.interrupted().take_recent(record.push);
        let gone = match (record.phase, record.engine) {
            (Phase::Sending, _) | (Phase::Unconfirmed, Engine::Kernel) => {
                discard::discard(state, &record)
            }
            // Its sendshot, which pins nothing, stays until the receiver has reported.
            (Phase::Unconfirmed, Engine::Sendshot) => discard::delete_snapshot(state, &record),
            (Phase::Acknowledged, _) => continue,
        };
        match gone {
            Ok(()) => sender.note(record.pruned(&over.reason())),
            Err(e) => {
                stay += 1;
                tracing::warn!(push = %record.push, "cannot discard an interrupted push: {e}");
            }
        }
        state.reclaim_space();
    }
    Ok(stay)
}

fn has_snapshot(state: &StateSubvolume, record: &Record) -> bool {
    (record.is_resumable() || record.phase == Phase::Unconfirmed)
        && durable::open_dir(state.snapshots(), &record.snapshot_name()).is_ok()
}

/// An interrupted push that can be resumed.
#[derive(Debug)]
pub struct Waiting {
    pub record: Record,
    /// Offset of its last mark, in bytes of its stream.
    pub offset: u64,
    /// When it expires, seconds since 1970 UTC.
    pub until: i64,
}

/// Lists the interrupted pushes on all file systems that are mounted. Blocks.
pub fn list(sender: &Sender, selection: &Selection) -> Vec<Waiting> {
    let keep = i64::try_from(sender.config().resume_keep.as_secs()).unwrap_or(i64::MAX);
    let mut found = Vec::new();
    list::each(sender, selection, |state, items| {
        let records = items.into_iter().map(|item| item.record);
        let ours = records
            .filter(|record| has_snapshot(state, record) && !sender.table().contains(record.push));
        found.extend(ours.map(|record| {
            Waiting {
                offset: SegmentLog::open(state.pushes(), record.push, RecentSegments::default())
                    .map_or(0, |segment_log| segment_log.last_mark()),
                until: record.taken_at.saturating_add(keep),
                record,
            }
        }));
    });
    found.sort_by(|a: &Waiting, b: &Waiting| {
        let name = |waiting: &Waiting| {
            let record = &waiting.record;
            (record.volume_name.clone(), record.receiver_name.clone())
        };
        name(a).cmp(&name(b))
    });
    found
}
