//! What the schedule of a volume to a receiver waits for.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use sendshot_config::{Schedule, SenderConfig, When};
use sendshot_model::{PeerName, VolumeName};

use crate::decide::schedule::{self as decide, Due};
use crate::shared::pauses::Pause;
use crate::shared::runs::{Run, RunKey};
use crate::shared::sender::Sender;

/// A volume and a receiver.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    pub receiver: PeerName,
    pub volume: VolumeName,
}

impl Pair {
    /// The key of its runs.
    pub fn key(&self) -> RunKey {
        (self.receiver.clone(), self.volume.clone())
    }
}

/// What a schedule waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outlook {
    /// The volume has none.
    NotScheduled,
    /// A push of it is running.
    Running,
    Paused(Pause),
    /// The next run begins at this time.
    Waits {
        at: Timestamp,
    },
    /// A run can begin; it serves this slot.
    Due {
        slot: Timestamp,
    },
}

/// The outlook for all configured volumes and receivers. Forgets the runs of those that are not configured any more.
pub fn all(sender: &Sender) -> Vec<(Pair, Outlook)> {
    let config = sender.config();
    let mut outlooks = Vec::new();
    for (volume, configured) in &config.volumes {
        for receiver in &configured.receivers {
            let pair = Pair {
                receiver: receiver.clone(),
                volume: volume.clone(),
            };
            let outlook = of(sender, &config, &pair);
            outlooks.push((pair, outlook));
        }
    }
    sender.runs().retain(|(receiver, volume)| {
        let configured = config.volumes.get(volume);
        configured
            .is_some_and(|volume| volume.schedule.is_some() && volume.receivers.contains(receiver))
    });
    outlooks
}

/// The outlook for one volume and receiver.
pub fn of(sender: &Sender, config: &SenderConfig, pair: &Pair) -> Outlook {
    let now = Timestamp::now();
    let configured = config.volumes.get(&pair.volume);
    let Some(schedule) = configured.and_then(|volume| volume.schedule.as_ref()) else {
        return Outlook::NotScheduled;
    };
    let zone = TimeZone::system();
    let mut run = run(sender, pair, schedule, now);
    if let Some(served) = decide::after_a_clock_that_was_ahead(schedule, run.served, (now, &zone)) {
        run.served = served;
        sender.runs().change(&pair.key(), |run| run.served = served);
    }
    let is_of_pair = |running: &std::sync::Arc<crate::shared::running::Running>| {
        running.receiver == pair.receiver && running.volume == pair.volume
    };
    if sender.table().all().iter().any(is_of_pair) {
        return Outlook::Running;
    }
    if let Some(pause) = sender.pauses().of(&pair.receiver, &pair.volume, now) {
        return Outlook::Paused(pause);
    }
    let due = decide::due(schedule, run.served, (now, &zone), spread(pair, run.served));
    // One that was noted while the clock was ahead does not count.
    let longest = now.saturating_add(decide::MAX_BACKOFF).unwrap_or(now);
    let not_before = run.not_before.filter(|not_before| *not_before <= longest);
    let at = not_before.map_or(due.at, |not_before| not_before.max(due.at));
    match due {
        Due {
            slot: Some(slot), ..
        } if at <= now => Outlook::Due { slot },
        Due { .. } => Outlook::Waits { at },
    }
}

/// The runs of a pair. A schedule that is seen for the first time is due at once if it is an interval, and at its next moment
/// if it goes by the calendar.
fn run(sender: &Sender, pair: &Pair, schedule: &Schedule, now: Timestamp) -> Run {
    sender.runs().get_or(&pair.key(), || {
        let before = match &schedule.when {
            When::Every(interval) => SignedDuration::try_from(*interval).unwrap_or_default(),
            When::Calendar(_) => SignedDuration::ZERO,
        };
        Run {
            served: now.saturating_sub(before).unwrap_or(now),
            failed: 0,
            not_before: None,
            unchanged_at: None,
        }
    })
}

/// A number that is the same until the slot is served, and different for each volume, receiver and slot.
fn spread(pair: &Pair, served: Timestamp) -> u64 {
    let text = format!("{}:{}:{}", pair.receiver, pair.volume, served.as_second());
    let hash = blake3::hash(text.as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(bytes)
}
