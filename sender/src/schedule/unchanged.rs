//! Serves due runs of volumes that have not changed: no snapshot, no sync, and nothing read from the volume's disk.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sendshot_config::SenderConfig;

use crate::push::confirm;
use crate::push::error::Error;
use crate::schedule::outlook::Pair;
use crate::shared::blocking::blocking;
use crate::shared::probes::Patience;
use crate::shared::pushed_states::{PushedState, Seen};
use crate::shared::sender::Sender;

/// How old the receiver's report of a copy may be.
const MAX_REPORT_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// What was found of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It may have changed, or it is not known what the receiver holds.
    Changed,
    /// It is in the state that the receiver reported to hold, recently.
    Unchanged(PushedState),
    /// It is in that state, but the receiver's report is old.
    ToBeConfirmed(PushedState),
    /// Its path does not answer.
    NoAnswer(PathBuf),
}

/// Compares the volume with what the receiver holds. Blocks.
pub fn look(sender: &Sender, config: &SenderConfig, pair: &Pair, patience: Patience) -> Found {
    let Some(configured) = config.volumes.get(&pair.volume) else {
        return Found::Changed;
    };
    let now = match sender.probes().read(&configured.path, patience) {
        Err(e) if e.kind() == io::ErrorKind::TimedOut => {
            return Found::NoAnswer(configured.path.clone());
        }
        // Whatever else is wrong with it, the push says it.
        now => now.ok().flatten(),
    };
    let receiver = sender.receiver_id(&pair.receiver);
    let pushed = receiver.and_then(|id| Some((id, sender.pushed_states().get(id, &pair.volume)?)));
    let (Some(now), Some((receiver, pushed)), None) = (now, pushed, &configured.snapshots) else {
        return Found::Changed;
    };
    let seen = Seen::of(&now);
    let before = pushed.seen.as_ref();
    if now.live != pushed.live || !before.is_some_and(|before| before.excludes_replay(&seen)) {
        return Found::Changed;
    }
    let states = sender.pushed_states();
    states.see(receiver, &pair.volume, &pushed, seen);
    let quarter = configured.max_age.map_or(MAX_REPORT_AGE, |age| age / 4);
    let max_age = i64::try_from(quarter.min(MAX_REPORT_AGE).as_secs()).unwrap_or(i64::MAX);
    let age = Timestamp::now().as_second() - pushed.reported_at;
    match (0..max_age).contains(&age) {
        true => Found::Unchanged(pushed),
        false => Found::ToBeConfirmed(pushed),
    }
}

/// What is known of a volume after its receiver was asked, if that was necessary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// It has to be pushed.
    Changed,
    /// The receiver certainly holds its state.
    Unchanged {
        pushed: PushedState,
        /// Whether the receiver was asked for that.
        is_asked: bool,
    },
}

/// Looks at a volume, and has the receiver confirm an old report.
///
/// # Errors
/// See [`Error`]: the receiver could not be asked. A push would not succeed either.
pub async fn check(sender: &Arc<Sender>, pair: &Pair) -> Result<Checked, Error> {
    let (looking, of) = (Arc::clone(sender), pair.clone());
    let found = blocking("unchanged", move || {
        let config = looking.config();
        look(&looking, &config, &of, Patience::Long)
    });
    let pushed = match found.await? {
        Found::Changed => return Ok(Checked::Changed),
        Found::Unchanged(pushed) => {
            let is_asked = false;
            return Ok(Checked::Unchanged { pushed, is_asked });
        }
        Found::ToBeConfirmed(pushed) => pushed,
        Found::NoAnswer(path) => return Err(Error::NoAnswer(path)),
    };
    let confirmed = confirm::confirm(sender, (&pair.receiver, &pair.volume), pushed).await?;
    Ok(
        confirmed.map_or(Checked::Changed, |pushed| Checked::Unchanged {
            pushed,
            is_asked: true,
        }),
    )
}

/// Serves the due runs whose volumes are unchanged; returns the others. Those that the receiver has to confirm take their turn
/// like a push.
pub(super) async fn serve(
    sender: &Arc<Sender>,
    due: Vec<(Timestamp, Pair)>,
) -> Vec<(Timestamp, Pair)> {
    let looking = Arc::clone(sender);
    let looked = blocking("unchanged", move || {
        let config = looking.config();
        let look = |(slot, pair): (Timestamp, Pair)| {
            let found = look(&looking, &config, &pair, Patience::Short);
            (slot, pair, found)
        };
        due.into_iter().map(look).collect::<Vec<_>>()
    });
    let mut others = Vec::new();
    for (slot, pair, found) in looked.await.unwrap_or_default() {
        match found {
            Found::Unchanged(_) => served(sender, &pair, slot),
            Found::Changed | Found::ToBeConfirmed(_) | Found::NoAnswer(_) => {
                others.push((slot, pair));
            }
        }
    }
    others
}

/// The unchanged volumes that have to be confirmed although no run of theirs is due.
pub(super) async fn to_be_confirmed(sender: &Arc<Sender>, pairs: Vec<Pair>) -> Vec<Pair> {
    let looking = Arc::clone(sender);
    let looked = blocking("unchanged", move || {
        let config = looking.config();
        let is_old = |pair: &Pair| {
            matches!(
                look(&looking, &config, pair, Patience::Short),
                Found::ToBeConfirmed(_)
            )
        };
        pairs.into_iter().filter(is_old).collect()
    });
    looked.await.unwrap_or_default()
}

/// Notes that a slot was served without a push.
pub(super) fn served(sender: &Sender, pair: &Pair, slot: Timestamp) {
    let now = Timestamp::now().as_second();
    sender.runs().change(&pair.key(), |run| {
        (run.served, run.failed, run.not_before) = (slot, 0, None);
        run.unchanged_at = Some(now);
    });
}
