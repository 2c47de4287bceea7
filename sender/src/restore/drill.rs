//! A restore drill: restores a copy to a scratch subvolume, checks it, and deletes it.
//!
//! The scratch subvolume is a staging subvolume in `.sendshot` on the volume's file system. It is locked as long as this
//! process lives; after a crash, the next start of the daemon or the next drill deletes it. No snapshots of it are kept:
//! an interrupted drill begins again.

use std::path::PathBuf;
use std::time::Instant;

use jiff::Timestamp;
use sendshot_apply::staging::Area;
use sendshot_model::AnyPath;
use sendshot_model::restore::{RestoreEvent, RestoreReport};
use sendshot_proto::resume::CheckpointPolicy;
use tokio_util::sync::CancellationToken;

use crate::restore::access::Access;
use crate::restore::apply::{Applied, ApplyFailure};
use crate::restore::error::Error;
use crate::restore::events::Events;
use crate::restore::in_place;
use crate::restore::target::Target;
use crate::restore::whole::{self, Brought, Volume};
use crate::shared::blocking::blocking;
use crate::shared::drills::{self, Drill};
use crate::state::store::StateSubvolume;

/// No snapshots of a scratch subvolume.
pub(super) const NO_CHECKPOINTS: CheckpointPolicy = CheckpointPolicy {
    bytes: u64::MAX,
    milliseconds: u64::MAX,
};

/// Runs a drill, and records its outcome.
///
/// # Errors
/// See [`Error`].
pub(super) async fn run(
    volume: Volume<'_>,
    events: &Events,
    cancel: CancellationToken,
) -> Result<(), Error> {
    let access = volume.access;
    let name = access.volume_name(&volume.copy.volume)?;
    let drilled = drill(&volume, &name, events, cancel).await;
    let copy = drilled.as_ref().ok().map(|report| report.copy.clone());
    let error = drilled.as_ref().err().map(Error::to_string);
    note(access, name, copy, error).await?;
    events.tell(RestoreEvent::Drilled {
        report: Box::new(drilled?),
    });
    Ok(())
}

async fn drill(
    volume: &Volume<'_>,
    name: &str,
    events: &Events,
    cancel: CancellationToken,
) -> Result<RestoreReport, Error> {
    let began = Instant::now();
    let place = in_place::place_of(volume, None)?;
    let state = StateSubvolume::open_or_create(place.top()?).map_err(Error::State)?;
    let target = Target {
        path: place.path.clone(),
        dir: state
            .root()
            .try_clone_to_owned()
            .map_err(Error::io("open `.sendshot`"))?,
        name: format!("drill-{name}").into(),
    };
    let area = Area::new(&target.dir).map_err(Error::io("open `.sendshot`"))?;
    let brought = whole::bring_to(volume, &target, events, cancel).await;
    let Brought {
        applied,
        checked,
        chosen,
        started,
        wire_bytes,
        resumed_at,
    } = match brought {
        Ok(brought) => brought,
        Err(error) => {
            clean_up(&area, &target)?;
            return Err(error);
        }
    };
    let not_kept = applied.not_kept.entries();
    let destroyed = blocking("destroy", move || {
        let Applied { staged, .. } = applied;
        staged.destroy()
    });
    destroyed.await.map_err(|_| ApplyFailure::Died)??;
    clean_up(&area, &target)?;
    state.reclaim_space();
    Ok(RestoreReport {
        receiver: volume.access.name.to_string(),
        volume: chosen.request.volume,
        copy: chosen.request.name,
        uuid: chosen.copy.uuid.to_string(),
        target: AnyPath::from(PathBuf::from(crate::state::store::NAME).as_path()),
        stream_bytes: started.length,
        wire_bytes,
        resumed_at,
        seconds: began.elapsed().as_secs_f64(),
        checked,
        replaced: None,
        doubt: started.doubt,
        not_kept,
        left_out: Vec::new(),
    })
}

/// Deletes the record and the snapshots of the drill, and the area if nothing else is in it.
fn clean_up(area: &Area, target: &Target) -> Result<(), Error> {
    let mut files = whole::files(area, target)?;
    whole::clean_up(&mut files, area)
}

async fn note(
    access: &Access,
    volume: String,
    copy: Option<String>,
    error: Option<String>,
) -> Result<(), Error> {
    let drill = Drill {
        volume,
        receiver: access.name.clone(),
        ended_at: Timestamp::now().as_second(),
        copy,
        error,
    };
    let state_dir = access.state_dir.clone();
    let noted = blocking("drills", move || drills::note(&state_dir, drill)).await;
    let noted = noted.map_err(|_| ApplyFailure::Died)?;
    noted.map_err(Error::io("record the outcome of the drill"))
}
