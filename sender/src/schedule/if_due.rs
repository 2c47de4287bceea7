//! `push --if-due`: a push that is asked for by a timer of another program, with the rules of a scheduled one.

use std::sync::Arc;

use jiff::Timestamp;
use sendshot_model::human;

use crate::schedule::outlook::{self, Outlook, Pair};
use crate::schedule::unchanged;
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
pub async fn check(sender: &Arc<Sender>, pair: &Pair) -> Option<NotDue> {
    let slot = match outlook::of(sender, &sender.config(), pair) {
        Outlook::NotScheduled => match paused(sender, pair) {
            Some(pause) => return Some(by_pause(&pause)),
            None => None,
        },
        Outlook::Paused(pause) => return Some(by_pause(&pause)),
        Outlook::Running => {
            return Some(NotDue {
                code: "running",
                reason: "a push of it is running".to_owned(),
            });
        }
        Outlook::Waits { at } => {
            return Some(NotDue {
                code: "not-due",
                reason: format!("its next run is at {}", human::utc(at.as_second())),
            });
        }
        Outlook::Due { slot } => Some(slot),
    };
    let pushed = unchanged::check(sender, pair).await?;
    if let Some(slot) = slot {
        unchanged::served(sender, pair, slot);
    }
    Some(NotDue {
        code: "unchanged",
        reason: format!(
            "unchanged since the last push; the receiver reported its copy at {}",
            human::utc(pushed.reported_at)
        ),
    })
}

fn paused(sender: &Sender, pair: &Pair) -> Option<Pause> {
    sender
        .pauses()
        .of(&pair.receiver, &pair.volume, Timestamp::now())
}

fn by_pause(pause: &Pause) -> NotDue {
    NotDue {
        code: "paused",
        reason: match pause.until {
            Some(until) => format!("paused until {}", human::utc(until.as_second())),
            None => "paused without an end".to_owned(),
        },
    }
}
