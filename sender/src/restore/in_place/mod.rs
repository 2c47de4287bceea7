//! Restores a volume in its place, and keeps its chain: the next push is incremental.
//!
//! The old volume is never under a name of Sendshot's: the restored one is first moved beside it, under the name that
//! the old one will have, and then the two names are exchanged.
//!
//! Steps, and what a crash after each leaves:
//!
//! 1. Have the daemon hold the volume's pushes. — Nothing; the hold ends with this process.
//! 2. Apply and check the copy in staging inside `.sendshot`. — What the same command continues from.
//! 3. Have it recorded as held by the receiver; see [`mod@crate::restore::record`]. — A sendshot more.
//! 4. Record the exchange with both UUIDs. — Staging, which the same command makes again.
//! 5. Move the restored subvolume beside the volume. — Both, under each other's names.
//! 6. Exchange the names, which is atomic, and commit. — The result.
//! 7. Delete the rest. — Some of it, which the same command deletes.
//! 8. Report, and commit. — After a power cut some of the rest.
//!
//! After a crash, the UUIDs tell which of the steps 5 to 7 was the last, and the same command does the others.

mod in_use;
mod job;
mod place;
mod swap;

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Instant;

use jiff::Timestamp;
use sendshot_apply::staging::Area;
use sendshot_model::restore::{Checked, RestoreEvent, RestoreReport};
use sendshot_model::{AnyPath, CopyName};
use sendshot_sys::subvolume;
use tokio_util::sync::CancellationToken;

use crate::restore::apply::{Applied, ApplyFailure};
use crate::restore::error::Error;
use crate::restore::events::Events;
pub(super) use crate::restore::in_place::job::Job;
use crate::restore::in_place::place::VolumePlace;
pub(super) use crate::restore::in_place::place::find as place_of;
use crate::restore::keeper::Keeper;
use crate::restore::record::Restored;
use crate::restore::target::Target;
use crate::restore::whole::{self, Brought, clean_up, commit_clean_up, files, tidy_failed};
use crate::shared::blocking::blocking;
use crate::state::restores::{RestoreFiles, Subject, Swap};
use crate::state::store::StateSubvolume;
use crate::volume::resolve::PUT_ASIDE;

/// Most names that are tried for the old volume; they distinguish restores within a second.
const MAX_KEPT_A_SECOND: u32 = 100;

/// Runs a restore in place.
///
/// # Errors
/// See [`Error`].
pub(super) async fn run(
    job: Job<'_>,
    events: &Events,
    cancel: CancellationToken,
) -> Result<(), Error> {
    let began = Instant::now();
    let place = place::find(&job.volume, job.device.as_ref())?;
    let keeper = Keeper::open(job.volume.access).await?;
    let _hold = keeper.hold(&place.volume).await?; // 1
    let state = StateSubvolume::open_or_create(place.top()?).map_err(Error::State)?;
    let target = Target {
        path: place.path.clone(),
        dir: state
            .root()
            .try_clone_to_owned()
            .map_err(Error::io("open `.sendshot`"))?,
        name: format!("in-place-{}", place.volume).into(),
    };
    let area = Area::new(&target.dir).map_err(Error::io("open `.sendshot`"))?;
    let earlier = finish_earlier(&place, &area, &target)?;
    if let Some((subject, replaced)) = earlier {
        events.note(format!(
            "an earlier run had brought {}/{}; the exchange of names is complete now",
            subject.volume, subject.copy
        ));
        if !subject.is_wanted(job.volume.copy.at.as_deref()) {
            return Err(Error::OtherCopy {
                copy: subject.copy,
                volume: place.path.clone(),
            });
        }
        let report = report_of_earlier(&job, &place, replaced);
        events.tell(RestoreEvent::Restored { report });
        commit_clean_up(target.dir.as_fd()).await;
        return Ok(());
    }
    place::check(&place)?;
    let users = in_use::find(&place)?;
    if !users.is_empty() && !job.while_in_use {
        return Err(Error::InUse {
            path: place.path.clone(),
            users: users.describe(),
        });
    }
    let brought = whole::bring_to(&job.volume, &target, events, cancel).await; // 2
    let tidy = |_: &Error| {
        if let Err(e) = tidy_failed(&area, &target) {
            tracing::warn!("files of the failed restore are left: {e}");
        }
    };
    let brought = brought.inspect_err(tidy)?;
    let Brought {
        applied,
        checked,
        chosen,
        started,
        wire_bytes,
        resumed_at,
    } = brought;
    events.stage("record", "");
    let not_kept = applied.not_kept.entries();
    let staging = PathBuf::from(crate::state::store::NAME)
        .join(sendshot_apply::staging::AREA)
        .join(applied.staged.name());
    let restored = Restored {
        volume: place.volume.clone(),
        receiver: job.volume.access.name.clone(),
        receiver_id: job.volume.access.entry.receiver_id,
        root: chosen.request.root,
        uuid: chosen.copy.uuid,
        ctransid: chosen.copy.ctransid,
        copy: chosen.copy.name.clone(),
        fsid: place.fsid,
        device: place.device.clone(),
        staging,
    };
    keeper.record(restored).await?; // 3
    events.stage("commit", "");
    let dir = place.dir(state.top())?;
    let kept = exchange(applied, &place, dir, &area).await?;
    if !users.is_empty() {
        events.note(users.advice(&place, kept.as_ref()));
    }
    let report = RestoreReport {
        receiver: job.volume.access.name.to_string(),
        volume: chosen.request.volume,
        copy: chosen.request.name,
        uuid: chosen.copy.uuid.to_string(),
        target: AnyPath::from(place.path.as_path()),
        stream_bytes: started.length,
        wire_bytes,
        resumed_at,
        seconds: began.elapsed().as_secs_f64(),
        checked,
        replaced: kept.map(|kept| AnyPath::from(kept.as_path())),
        doubt: started.doubt,
        not_kept,
        left_out: Vec::new(),
    };
    events.tell(RestoreEvent::Restored {
        report: Box::new(report),
    });
    commit_clean_up(target.dir.as_fd()).await; // 8
    Ok(())
}

/// Completes the exchange of names that an earlier run has begun; returns the old volume's path then, if there is one.
fn finish_earlier(
    place: &VolumePlace,
    area: &Area,
    target: &Target,
) -> Result<Option<(Subject, Option<PathBuf>)>, Error> {
    if !area.exists() {
        return Ok(None);
    }
    let mut files = files(area, target)?;
    let (Some(swap), Some(subject)) = (files.swap().cloned(), files.subject().cloned()) else {
        return Ok(None);
    };
    let dir = place.dir(&place.top()?)?;
    let kept = swap
        .old
        .map(|_| beside(place, &PathBuf::from(swap.kept.clone())));
    match swap::complete(&dir, &swap).map_err(Error::io("complete an exchange of names"))? {
        true => {
            place.commit()?;
            clean_up(&mut files, area)?;
            Ok(Some((subject, kept)))
        }
        // It had not begun: the subvolume is staged once more.
        false => Ok(None),
    }
}

/// Steps 4 to 7; returns the old volume's path. The volume's directory `dir` is opened through the same mount as staging:
/// the kernel renames nothing from one mount to another.
async fn exchange(
    applied: Applied,
    place: &VolumePlace,
    dir: OwnedFd,
    area: &Area,
) -> Result<Option<PathBuf>, Error> {
    let name = place.name.clone();
    let kept_name = kept_name(place, &dir);
    let kept = place.old.as_ref().map(|_| beside(place, &kept_name));
    let swap = Swap {
        new: subvolume::info(applied.staged.root())
            .map_err(Error::io("look at the restored subvolume"))?
            .uuid,
        old: place.old.as_ref().map(|old| old.uuid),
        dir: AnyPath::from(place.dir_from_top.as_path()),
        name: AnyPath::from(std::path::Path::new(&name)),
        kept: AnyPath::from(kept_name.as_path()),
    };
    let done = blocking("exchange", move || -> Result<RestoreFiles, Error> {
        let Applied {
            staged, mut files, ..
        } = applied;
        let failed = Error::io("exchange the names of the volumes");
        files.begin_swap(swap.clone()).map_err(&failed)?; // 4
        sendshot_sys::crash::point("restore-swap-recorded");
        let first = match swap.old {
            Some(_) => kept_name.into_os_string(),
            None => name,
        };
        let root = staged.publish(&dir, &first, sendshot_apply::staging::Place::Free)?; // 5
        sendshot_sys::crash::point("restore-beside");
        drop(root);
        match swap::complete(&dir, &swap).map_err(&failed)? {
            true => Ok(files), // 6
            false => Err(failed(std::io::ErrorKind::NotFound.into())),
        }
    });
    let mut files = done.await.map_err(|_| ApplyFailure::Died)??;
    place.commit()?;
    sendshot_sys::crash::point("restore-exchanged");
    clean_up(&mut files, area)?; // 7
    Ok(kept)
}

/// A free name for the old volume. The move to it fails if another process takes it meanwhile.
fn kept_name(place: &VolumePlace, dir: &OwnedFd) -> PathBuf {
    let now = CopyName::from_time(Timestamp::now());
    let named = |number| {
        let mut name = place.name.clone();
        name.push(PUT_ASIDE);
        name.push(now.with_suffix(number).to_string());
        PathBuf::from(name)
    };
    let is_free = |name: &PathBuf| {
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        let found = rustix::fs::statat(dir, name, flags);
        matches!(found, Err(rustix::io::Errno::NOENT))
    };
    let free = (1..=MAX_KEPT_A_SECOND).map(named).find(is_free);
    free.unwrap_or_else(|| named(1))
}

/// The path for the user of a name beside the volume.
fn beside(place: &VolumePlace, name: &std::path::Path) -> PathBuf {
    match place.path.parent() {
        Some(dir) => dir.join(name),
        None => name.to_owned(),
    }
}

fn report_of_earlier(
    job: &Job<'_>,
    place: &VolumePlace,
    replaced: Option<PathBuf>,
) -> Box<RestoreReport> {
    Box::new(RestoreReport {
        receiver: job.volume.access.name.to_string(),
        volume: place.volume.to_string(),
        copy: String::new(),
        uuid: String::new(),
        target: AnyPath::from(place.path.as_path()),
        stream_bytes: 0,
        wire_bytes: 0,
        resumed_at: None,
        seconds: 0.0,
        checked: Checked::default(),
        replaced: replaced.map(|kept| AnyPath::from(kept.as_path())),
        doubt: None,
        not_kept: Vec::new(),
        left_out: Vec::new(),
    })
}
