//! A restore drill: restores a copy to a scratch subvolume, checks it, and deletes it.
//!
//! The scratch subvolume is a staging subvolume in `.sendshot` on the volume's file system. It is locked as long as this
//! process lives; after a crash, the next start of the daemon or the next drill deletes it, with the snapshot of it that
//! was checked. An interrupted drill begins again.

use std::path::Path;

use jiff::Timestamp;
use sendshot_apply::staging::Area;
use sendshot_model::restore::{RestoreEvent, RestoreReport};
use sendshot_proto::resume::CheckpointPolicy;
use tokio_util::sync::CancellationToken;

use crate::restore::access::Access;
use crate::restore::apply::{Applied, ApplyFailure};
use crate::restore::error::Error;
use crate::restore::events::Events;
use crate::restore::in_place::{self, Disk};
use crate::restore::target::Target;
use crate::restore::whole::{self, Brought, Volume, tidy_failed};
use crate::shared::blocking::blocking;
use crate::shared::drills::{self, Drill};
use crate::state::restores::Purpose;
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
    let place = in_place::place_of(volume, Disk::Known)?;
    let state = StateSubvolume::open_or_create(place.top()?).map_err(Error::State)?;
    let target = Target {
        path: place.path.clone(),
        dir: state
            .root()
            .try_clone_to_owned()
            .map_err(Error::io("open `.sendshot`"))?,
        name: format!("drill-{name}").into(),
        purpose: Purpose::Drill,
    };
    let area = Area::new(&target.dir).map_err(Error::io("open `.sendshot`"))?;
    let brought = whole::bring_to(volume, &target, events, cancel).await;
    let Brought { applied, account } = match brought {
        Ok(brought) => brought,
        Err(error) => {
            // The files of a drill that is running belong to it.
            tidy_failed(&area, &target)?;
            return Err(error);
        }
    };
    let destroyed = blocking("destroy", move || {
        let Applied { staged, .. } = applied;
        staged.destroy()
    });
    destroyed.await.map_err(|_| ApplyFailure::Died)??;
    clean_up(&area, &target)?;
    state.reclaim_space();
    let scratch = Path::new(crate::state::store::NAME);
    Ok(account.report(&volume.access.name, scratch))
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
    let noted = blocking("drills", move || drills::note(&state_dir, &drill)).await;
    let noted = noted.map_err(|_| ApplyFailure::Died)?;
    noted.map_err(Error::io("record the outcome of the drill"))
}
