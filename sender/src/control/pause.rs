//! `sendshotctl pause` and `continue`.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use sendshot_model::{PeerName, Target, VolumeName, VolumeRef};
use sendshot_proto::problem::{Kind, Problem};
use sendshot_proto::v1;

use super::request::{needs_root, target};
use crate::shared::blocking::blocking;
use crate::shared::pauses::Pause;
use crate::shared::sender::Sender;

/// Longest pause that a member of the group may make.
const MAX_GROUP_PAUSE: u64 = 24 * 60 * 60;

/// Pauses schedules.
pub(super) async fn pause(
    sender: &Arc<Sender>,
    message: v1::PauseRequest,
    root: bool,
) -> Result<v1::PauseResponse, Problem> {
    if !root && (message.seconds == 0 || message.seconds > MAX_GROUP_PAUSE) {
        return Err(needs_root("pausing for more than 24 hours"));
    }
    let target = configured(sender, target(message.receiver, message.volume, root)?)?;
    let now = Timestamp::now();
    let until = match message.seconds {
        0 => None,
        seconds => {
            let span = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
            let until = now.checked_add(span);
            Some(until.map_err(|_| Problem::new(Kind::Usage, "the pause is too long"))?)
        }
    };
    let pause = Pause { target, until };
    let pausing = Arc::clone(sender);
    blocking("pause", move || pausing.pauses().add(pause, now))
        .await?
        .map_err(|e| Problem::new(Kind::Failed, format!("cannot record the pause: {e}")))?;
    sender.schedule_changed().notify_one();
    Ok(v1::PauseResponse {
        until: until.map_or(0, Timestamp::as_second),
        problem: None,
    })
}

/// Ends pauses.
pub(super) async fn unpause(
    sender: &Arc<Sender>,
    message: v1::ContinueRequest,
    root: bool,
) -> Result<v1::ContinueResponse, Problem> {
    let target = configured(sender, target(message.receiver, message.volume, root)?)?;
    let now = Timestamp::now();
    // What root has paused without an end, or for longer, only root continues.
    let is_long = |pause: &Pause| {
        let day = SignedDuration::from_secs(i64::try_from(MAX_GROUP_PAUSE).unwrap_or(0));
        pause
            .until
            .is_none_or(|until| until.duration_since(now) > day)
    };
    let is_meant = |pause: &&Pause| target.is_none() || pause.target == target;
    if !root
        && sender
            .pauses()
            .all(now)
            .iter()
            .filter(is_meant)
            .any(is_long)
    {
        return Err(needs_root("ending a pause of more than 24 hours"));
    }
    let ending = Arc::clone(sender);
    let ended = blocking("pause", move || ending.pauses().end(target.as_ref(), now));
    let ended = ended.await?.map_err(|e| {
        Problem::new(
            Kind::Failed,
            format!("cannot record the end of the pause: {e}"),
        )
    })?;
    sender.schedule_changed().notify_one();
    Ok(v1::ContinueResponse {
        ended: u32::try_from(ended).unwrap_or(u32::MAX),
        problem: None,
    })
}

/// The names of a configured volume and one of its receivers.
fn configured(
    sender: &Sender,
    target: Option<Target>,
) -> Result<Option<(PeerName, VolumeName)>, Problem> {
    let Some(Target { receiver, volume }) = target else {
        return Ok(None);
    };
    let config = sender.config();
    let found = config
        .volumes
        .iter()
        .find(|(name, configured)| match &volume {
            VolumeRef::Name(wanted) => *name == wanted,
            VolumeRef::Path(path) => configured.path == *path,
        });
    match found {
        Some((name, configured)) if configured.receivers.contains(&receiver) => {
            Ok(Some((receiver, name.clone())))
        }
        Some((name, _)) => Err(Problem::new(
            Kind::Usage,
            format!("volume `{name}` has no receiver `{receiver}` in sender.toml"),
        )),
        None => Err(Problem::new(
            Kind::Usage,
            "only a volume that sender.toml configures can be paused",
        )),
    }
}
