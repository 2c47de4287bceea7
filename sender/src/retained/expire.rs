//! Pushes that broke off: how long they keep their snapshots, which pin data, and looking at them.
//!
//! Two things end it: age, and the volume's file system running full. Both are told loudly. What the
//! receiver may have committed keeps its sendshot, which pins nothing, until the receiver has told; one
//! of the kernel's engine has none, and goes: the next push builds on an older state then.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sendshot_sys::durable;
use sendshot_sys::filesystem;

use crate::decide::expiry::{Limits, judge};
use crate::retained::list;
use crate::retained::selection::Selection;
use crate::shared::sender::Sender;
use crate::state::discard;
use crate::state::journal;
use crate::state::record::{Record, State};
use crate::state::segment_log::{Memory, Trail};
use crate::state::store::StateSubvolume;
use sendshot_model::Engine;

/// How often to look.
const INTERVAL: Duration = Duration::from_secs(60);

/// Looks again and again; ends only by being dropped.
pub async fn watch(sender: Arc<Sender>) -> std::convert::Infallible {
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        ticks.tick().await;
        // No disk is woken up for nothing.
        if !sender.interrupted().take() {
            continue;
        }
        // What is found to be used by no push stays so until it is gone.
        let held = sender.hold_starts().await;
        let sender = Arc::clone(&sender);
        let look = move || {
            let _held = held;
            if let_go_of_what_is_over(&sender) > 0 {
                sender.interrupted().note();
            }
        };
        if let Err(problem) = crate::shared::blocking::blocking("interrupted", look).await {
            tracing::warn!("look for interrupted pushes: {problem}");
        }
    }
}

/// Lets go of what is over on all file systems that are there; returns how many stay. Blocks.
fn let_go_of_what_is_over(sender: &Sender) -> usize {
    let config = sender.config();
    let limits = Limits {
        keep: config.resume_keep,
        min_free: config.resume_min_free,
    };
    let mut stay = 0;
    let absent = sender.filesystems().each(|state| {
        stay += let_go(sender, state, limits).unwrap_or_else(|e| {
            tracing::warn!("look for interrupted pushes: {e}");
            1
        });
        Ok(())
    });
    stay + absent.len()
}

fn let_go(sender: &Sender, state: &StateSubvolume, limits: Limits) -> io::Result<usize> {
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
        // It may have been acknowledged since the list was made: what was unconfirmed is the next push's
        // parent then.
        let Some(record) = journal::find(state.pushes(), record.push)? else {
            continue;
        };
        if !has_snapshot(state, &record) {
            continue;
        }
        tracing::warn!(push = %record.push, volume = %record.volume_name, receiver = %record.receiver_name,
            "the interrupted push of {} to {} is given up: {}; the next push starts from the last \
             acknowledged state",
            record.volume_name, record.receiver_name, over.reason());
        sender.interrupted().take_memory(record.push);
        let gone = match (record.state, record.engine) {
            (State::Sending, _) | (State::Unconfirmed, Engine::Kernel) => {
                discard::let_go(state, &record)
            }
            // Its sendshot, which pins nothing, stays until the receiver has told.
            (State::Unconfirmed, Engine::Sendshot) => discard::release(state, &record),
            (State::Acknowledged, _) => continue,
        };
        if let Err(e) = gone {
            stay += 1;
            tracing::warn!(push = %record.push, "let go of an interrupted push: {e}");
        }
        state.reclaim_space();
    }
    Ok(stay)
}

fn has_snapshot(state: &StateSubvolume, record: &Record) -> bool {
    (record.is_resumable() || record.state == State::Unconfirmed)
        && durable::open_dir(state.snapshots(), &record.snapshot_name()).is_ok()
}

/// A push that broke off and can be gone on with.
#[derive(Debug)]
pub struct Waiting {
    /// Its record.
    pub record: Record,
    /// How far it came for certain, in bytes of its stream.
    pub offset: u64,
    /// Until when it is kept, seconds since 1970 UTC.
    pub until: i64,
}

/// The pushes that broke off on all file systems that are there. Blocks.
pub fn list(sender: &Sender, selection: &Selection) -> Vec<Waiting> {
    let keep = i64::try_from(sender.config().resume_keep.as_secs()).unwrap_or(i64::MAX);
    let mut found = Vec::new();
    list::each(sender, selection, |state, items| {
        let records = items.into_iter().map(|item| item.record);
        let ours = records
            .filter(|record| has_snapshot(state, record) && !sender.table().contains(record.push));
        found.extend(ours.map(|record| {
            Waiting {
                offset: Trail::open(state.pushes(), record.push, Memory::default())
                    .map_or(0, |trail| trail.last_mark()),
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
