//! `push --if-due`: a push that is asked for by a timer of another program, with the rules of a scheduled one.

use std::sync::Arc;

use jiff::Timestamp;
use sendshot_model::human;

use crate::push::error::Error;
use crate::schedule::outlook::{self, Outlook, Pair};
use crate::schedule::unchanged::{self, Checked};
use crate::shared::pauses::Pause;
use crate::shared::sender::Sender;

/// Why no push is needed now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotDue {
    /// For programs: `paused`, `running`, `not-due` or `unchanged`.
    pub code: &'static str,
    /// In words.
    pub reason: String,
}

/// Decides whether a push is due; returns why not. A volume without a schedule is due whenever it has changed.
///
/// # Errors
/// The volume does not answer, or the receiver could not be asked whether it still holds the state of an unchanged volume.
pub async fn check(sender: &Arc<Sender>, pair: &Pair) -> Result<Option<NotDue>, Error> {
    let not_due = |code, reason| Ok(Some(NotDue { code, reason }));
    let slot = match outlook::of(sender, &sender.config(), pair) {
        Outlook::NotScheduled => match paused(sender, pair) {
            Some(pause) => return not_due("paused", by_pause(&pause)),
            None => None,
        },
        Outlook::Paused(pause) => return not_due("paused", by_pause(&pause)),
        Outlook::Running => return not_due("running", "a push of it is running".to_owned()),
        Outlook::Waits { at } => {
            let reason = format!("its next run is at {}", human::utc(at.as_second()));
            return not_due("not-due", reason);
        }
        Outlook::Due { slot } => Some(slot),
    };
    let pushed = match unchanged::check(sender, pair).await? {
        Checked::Unchanged { pushed, .. } => pushed,
        Checked::Changed => return Ok(None),
    };
    if let Some(slot) = slot {
        unchanged::served(sender, pair, slot);
    }
    let reported = human::utc(pushed.reported_at);
    let reason =
        format!("unchanged since the last push; the receiver reported its copy at {reported}");
    not_due("unchanged", reason)
}

fn paused(sender: &Sender, pair: &Pair) -> Option<Pause> {
    sender
        .pauses()
        .of(&pair.receiver, &pair.volume, Timestamp::now())
}

fn by_pause(pause: &Pause) -> String {
    match pause.until {
        Some(until) => format!("paused until {}", human::utc(until.as_second())),
        None => "paused without an end".to_owned(),
    }
}
