//! The times of copies by which their ages are counted.

use sendshot_config::Times;

use crate::store::clock::Reading;
use crate::store::ledger::{Doubt, Entry, Ledger};

/// The time of a copy that counts, and whether it is certain. `before` is that of the copy before it.
pub(super) fn counted_time(entry: &Entry, times: Times, before: Option<i64>) -> (i64, bool) {
    let time = &entry.time;
    match (times, time.doubt) {
        (Times::Snapshot, None | Some(Doubt::OldSnapshot)) if time.of_snapshot == Some(true) => {
            let stated = time.taken_at.max(before.unwrap_or(i64::MIN));
            (stated.min(time.at), true)
        }
        (Times::Snapshot | Times::Commit, doubt) => (time.at, doubt.is_none()),
    }
}

/// Makes the times certain that were uncertain by the clock alone, if it is good now and the host has not been restarted:
/// the time since the boot tells the true moment. Returns whether one has become so.
pub(super) fn make_certain(ledger: &mut Ledger, reading: &Reading) -> bool {
    let (None, Some(boot)) = (reading.trouble, &reading.boot) else {
        return false;
    };
    let mut last_certain: Option<i64> = None;
    let mut is_settled = false;
    for entry in &mut ledger.entries {
        let time = &mut entry.time;
        let same_boot = time.boot.as_ref().filter(|at| at.boot == boot.boot);
        if time.doubt == Some(Doubt::Clock)
            && let Some(then) = same_boot
        {
            let at = reading.now - (boot.seconds - then.seconds);
            if last_certain.is_none_or(|last| at >= last) {
                (time.at, time.doubt, time.boot) = (at, time.of_old_snapshot(at), None);
                is_settled = true;
            }
        }
        if time.doubt.is_none() {
            last_certain = Some(last_certain.unwrap_or(i64::MIN).max(time.at));
        }
    }
    is_settled
}
