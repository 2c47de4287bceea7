//! Prune by hand: deleting what no later push needs, by [`crate::decide::retention`].

use std::io;

use sendshot_model::Reason;

use crate::decide::retention::{self, Verdict};
use crate::retained::list::{self, Kept};
use crate::retained::selection::Selection;
use crate::shared::sender::Sender;
use crate::state::discard::let_go;
use crate::state::filesystems::NotLookedAt;
use crate::state::record::Record;

/// Whether a prune by hand really deletes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It does.
    Delete,
    /// It only tells.
    DryRun,
}

/// What became of one kept state.
#[derive(Debug)]
pub struct Pruned {
    /// It, as it was before.
    pub kept: Kept,
    /// What was decided.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// Why it could not be let go though it was to be.
    pub failed: Option<io::Error>,
}

/// Applies `keep` now, on all file systems that are there. No push may start meanwhile, see
/// [`Sender::hold_starts`]; what is of a volume whose push is running stays. Returns what became of each, and
/// the file systems that were not looked at. Blocks.
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
            let failed = match (verdict.lets_go(), mode) {
                (true, Mode::Delete) => let_go(state, &kept.record).err(),
                (true, Mode::DryRun) | (false, _) => None,
            };
            if verdict.lets_go() && mode == Mode::Delete {
                log(&kept.record, &reason, failed.as_ref());
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

fn log(record: &Record, reason: &Reason, failed: Option<&io::Error>) {
    let (push, volume, receiver) = (record.push, &record.volume_name, &record.receiver_name);
    match failed {
        None => tracing::info!(%push, %volume, %receiver, %reason, "pruned by hand"),
        Some(e) => tracing::warn!(%push, %volume, %receiver, "prune by hand: {e}"),
    }
}
