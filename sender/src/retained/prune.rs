//! `sendshotctl prune`: deletes what no later push needs, by [`crate::decide::retention`].

use std::io;

use sendshot_model::Reason;

use crate::decide::retention::{self, Verdict};
use crate::retained::list::{self, Kept};
use crate::retained::selection::Selection;
use crate::shared::sender::Sender;
use crate::state::discard::discard;
use crate::state::filesystems::NotLookedAt;
use crate::state::record::Record;

/// Whether states are really deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Delete,
    /// Only report.
    DryRun,
}

/// The result for one kept state.
#[derive(Debug)]
pub struct Pruned {
    /// The state as it was before.
    pub kept: Kept,
    pub verdict: Verdict,
    pub reason: Reason,
    /// Why it could not be deleted.
    pub failed: Option<io::Error>,
}

/// Applies `keep` now, on all file systems that are mounted. No push may start meanwhile, see
/// [`Sender::hold_starts`]; states of a volume with a running push stay. Returns the result for each state, and
/// the file systems that were not read. Blocks.
pub fn now(sender: &Sender, selection: &Selection, mode: Mode) -> (Vec<Pruned>, Vec<NotLookedAt>) {
    let keep = |volume: &_| sender.keep(volume);
    let in_use = |record: &Record| {
        let table = sender.table();
        table.contains(record.push) || table.of_volume(record.volume).is_some()
    };
    let mut pruned = Vec::new();
    let missed = list::each(sender, selection, |state, items| {
        let verdicts = retention::decide(&items, keep, in_use);
        let reasons = list::reasons(&items, &verdicts);
        for ((item, verdict), reason) in items.into_iter().zip(verdicts).zip(reasons) {
            let kept = Kept::of(state, item);
            let failed = match (verdict.deletes(), mode) {
                (true, Mode::Delete) => discard(state, &kept.record).err(),
                (true, Mode::DryRun) | (false, _) => None,
            };
            if verdict.deletes() && mode == Mode::Delete {
                record(sender, &kept.record, &reason, failed.as_ref());
            }
            pruned.push(Pruned {
                kept,
                verdict,
                reason,
                failed,
            });
        }
    });
    pruned.sort_by_key(|pruned| pruned.kept.order());
    (pruned, missed)
}

/// Logs a deletion, and adds it to the history.
fn record(sender: &Sender, record: &Record, reason: &Reason, failed: Option<&io::Error>) {
    let (push, volume, receiver) = (record.push, &record.volume_name, &record.receiver_name);
    match failed {
        None => {
            tracing::info!(%push, %volume, %receiver, %reason, "pruned by hand");
            sender.note(record.pruned(&reason.text));
        }
        Some(e) => tracing::warn!(%push, %volume, %receiver, "cannot prune by hand: {e}"),
    }
}
