//! The confirmation that a volume is unchanged since a copy.

use uuid::Uuid;

use crate::malformed::{self, Malformed};
use crate::v1;
use crate::volume::VolumeKey;

/// A pause of the sender's schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paused {
    /// Until this time, in seconds since 1970 UTC.
    Until(i64),
    /// Without an end.
    WithoutEnd,
}

/// Difference of two clocks in seconds by which a time may be ahead of another clock.
const MAX_AHEAD: i64 = 300;

/// Whether a time is in the future: it was noted while a clock was wrong.
#[must_use]
pub fn is_ahead(at: i64, now: i64) -> bool {
    at > now + MAX_AHEAD
}

/// When the receiver last heard of a volume: by a copy, or a report that it is unchanged. A time in the future is no sign of life.
/// Returns 0 if there was none.
#[must_use]
pub fn heard_at(volume: &v1::ReceivedVolume, now: i64) -> i64 {
    let times = [volume.newest_at, volume.confirmed_at].into_iter();
    times.filter(|at| !is_ahead(*at, now)).max().unwrap_or(0)
}

/// A volume whose present state is that of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmation {
    /// The volume.
    pub volume: VolumeKey,
    /// UUID of the copy.
    pub uuid: Uuid,
    /// The sender's ctransid of its state.
    pub ctransid: u64,
    /// Whether scheduled pushes of the volume are paused.
    pub paused: Option<Paused>,
}

impl TryFrom<v1::ConfirmRequest> for Confirmation {
    type Error = Malformed;

    fn try_from(message: v1::ConfirmRequest) -> Result<Self, Malformed> {
        Ok(Self {
            volume: VolumeKey::parse(&message.volume_id, &message.volume_name)?,
            uuid: malformed::uuid(&message.uuid, "uuid")?,
            ctransid: message.ctransid,
            paused: match message.paused_until {
                0 => None,
                until if until < 0 => Some(Paused::WithoutEnd),
                until => Some(Paused::Until(until)),
            },
        })
    }
}

impl From<Confirmation> for v1::ConfirmRequest {
    fn from(confirmation: Confirmation) -> Self {
        Self {
            volume_id: confirmation.volume.id.to_bytes().to_vec(),
            volume_name: confirmation.volume.name.to_string(),
            uuid: confirmation.uuid.as_bytes().to_vec(),
            ctransid: confirmation.ctransid,
            paused_until: match confirmation.paused {
                None => 0,
                Some(Paused::Until(until)) => until.max(1),
                Some(Paused::WithoutEnd) => -1,
            },
        }
    }
}
