//! Restores a volume in its place, and keeps its chain: the next push is incremental.
//!
//! The old volume is never under a name of Sendshot's: the restored one is first moved beside it, under the name that
//! the old one will have, and then the two names are exchanged.
//!
//! Steps, and what a crash after each leaves:
//!
//! 1. Have the daemon hold the volume's pushes. — Nothing; the hold ends with this process.
//! 2. Apply and check the copy in staging inside `.sendshot`. — What the same command continues from.
//! 3. Check again that the volume is the same, and not in use. — The same.
//! 4. Record the exchange with both UUIDs. — The same; that record is undone by the same command.
//! 5. Have the restored subvolume recorded as held by the receiver, if it is exactly what the receiver sent; see
//!    [`mod@crate::restore::record`]. — A sendshot more.
//! 6. Move the restored subvolume beside the volume. — Both, under each other's names.
//! 7. Exchange the names, which is atomic, and commit. — The result.
//! 8. Delete the rest. — Some of it, which the same command deletes.
//! 9. Report, and commit. — After a power cut some of the rest.
//!
//! After a crash, the UUIDs tell which of the steps 6 to 8 was the last, and the same command does the others.

mod in_use;
mod job;
mod place;
mod swap;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sendshot_apply::staging::Area;
use sendshot_model::restore::{NextPush, RestoreEvent, RestoreReport};
use sendshot_model::{AnyPath, CopyName};
use sendshot_sys::{crash, mounts, subvolume};
use tokio_util::sync::CancellationToken;

use crate::restore::apply::{Applied, ApplyFailure};
use crate::restore::error::Error;
use crate::restore::events::Events;
use crate::restore::in_place::in_use::Users;
pub(super) use crate::restore::in_place::job::Job;
use crate::restore::in_place::place::VolumePlace;
pub(super) use crate::restore::in_place::place::{Disk, find as place_of};
use crate::restore::in_place::swap::Progress;
use crate::restore::keeper::Keeper;
use crate::restore::record::Restored;
use crate::restore::target::Target;
use crate::restore::whole::{
    self, Account, Brought, clean_up, commit_clean_up, files, tidy_failed,
};
use crate::shared::blocking::blocking;
use crate::state::restores::{Purpose, RestoreFiles, Subject, Swap};
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
    let place = place::find(&job.volume, job.disk())?;
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
        purpose: Purpose::Restore,
    };
    let area = Area::new(&target.dir).map_err(Error::io("open `.sendshot`"))?;
    let earlier = finish_earlier(&job, &place, &state, (&area, &target))?;
    if let Some((subject, swap)) = earlier {
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
        let report = whole::report_of_earlier(subject, &job.volume.access.name, &place.path);
        events.tell(RestoreEvent::Restored {
            report: Box::new(exchanged(report, &place, &swap)),
        });
        commit_clean_up(target.dir.as_fd()).await;
        return Ok(());
    }
    if let Some(device) = &place.device {
        events.note(format!(
            "file system {} of `{}` is not mounted; the volume is restored on {}",
            place.fsid,
            place.volume,
            device.display()
        ));
    }
    check_exchangeable(&job, &place)?;
    let brought = whole::bring_to(&job.volume, &target, events, cancel).await; // 2
    let tidy = |_: &Error| {
        if let Err(e) = tidy_failed(&area, &target) {
            tracing::warn!("files of the failed restore are left: {e}");
        }
    };
    let Brought {
        mut applied,
        account,
    } = brought.inspect_err(tidy)?;
    // A long time has passed since.
    let users = check_exchangeable(&job, &place)?; // 3
    events.stage("record", "");
    let dir = place.dir(state.top())?;
    let unrecorded = differs(&account);
    let swap = Swap {
        new: subvolume::info(applied.staged.root())
            .map_err(Error::io("look at the restored subvolume"))?
            .uuid,
        old: place.old.as_ref().map(|old| old.uuid),
        dir: AnyPath::from(place.dir_from_top.as_path()),
        name: AnyPath::from(Path::new(&place.name)),
        kept: AnyPath::from(kept_name(&place, &dir).as_path()),
        unrecorded,
    };
    let begun = applied.files.begin_swap(swap.clone()); // 4
    begun.map_err(Error::io("record the exchange of names"))?;
    crash::point("restore-swap-recorded");
    if swap.unrecorded.is_none() {
        let restored = restored(&job, &place, &applied, &account);
        keeper.record(restored).await?; // 5
    }
    events.stage("commit", "");
    exchange(applied, &place, (dir, swap.clone()), &area).await?;
    let report = account.report(&job.volume.access.name, &place.path);
    let report = exchanged(report, &place, &swap);
    if !users.is_empty() {
        let kept = report.replaced.clone().map(PathBuf::from);
        events.note(users.advice(&place, kept.as_ref()));
    }
    events.tell(RestoreEvent::Restored {
        report: Box::new(report),
    });
    commit_clean_up(target.dir.as_fd()).await; // 9
    Ok(())
}

/// Checks that the volume can be exchanged; returns who uses it, if the user allows that.
fn check_exchangeable(job: &Job<'_>, place: &VolumePlace) -> Result<Users, Error> {
    place::check(place)?;
    let users = in_use::find(place)?;
    match users.is_empty() || job.while_in_use {
        true => Ok(users),
        false => Err(Error::InUse {
            path: place.path.clone(),
            users: users.describe(),
        }),
    }
}

/// Why a tree may differ from what the receiver holds under the UUID of the copy; `None` if it does not. A push that built
/// on it would then put wrong data into the copies.
fn differs(account: &Account) -> Option<String> {
    if let Some(doubt) = &account.started.doubt {
        return Some(format!("about the copy: {doubt}"));
    }
    if !account.checked.differences.is_empty() {
        return Some("it differs from this host's own sendshot of that state".to_owned());
    }
    let first = account.not_kept.first()?;
    Some(format!(
        "this file system could not keep all of it: {}",
        first.kind.description()
    ))
}

fn restored(job: &Job<'_>, place: &VolumePlace, applied: &Applied, account: &Account) -> Restored {
    let area = PathBuf::from(crate::state::store::NAME).join(sendshot_apply::staging::AREA);
    let chosen = &account.chosen;
    Restored {
        volume: place.volume.clone(),
        receiver: job.volume.access.name.clone(),
        receiver_id: job.volume.access.entry.receiver_id,
        root: chosen.request.root,
        uuid: chosen.copy.uuid,
        ctransid: chosen.copy.ctransid,
        copy: chosen.copy.name.clone(),
        fsid: place.fsid,
        device: place.device.clone(),
        staging: area.join(applied.staged.name()),
        snapshot: area.join(applied.files.frozen_name(applied.length)),
    }
}

/// Adds to a report what became of the old volume, and of the chain.
fn exchanged(report: RestoreReport, place: &VolumePlace, swap: &Swap) -> RestoreReport {
    RestoreReport {
        replaced: swap
            .old
            .map(|_| AnyPath::from(kept_path(place, swap).as_path())),
        next_push: Some(match &swap.unrecorded {
            None => NextPush::ThisCopy,
            Some(reason) => NextPush::NotThisCopy {
                reason: reason.clone(),
            },
        }),
        ..report
    }
}

/// The path of the old volume: where this process sees it, else from the top level of its file system.
fn kept_path(place: &VolumePlace, swap: &Swap) -> PathBuf {
    let from_top = PathBuf::from(swap.dir.clone()).join(PathBuf::from(swap.kept.clone()));
    let visible = || {
        let top = place.top().ok()?;
        let ids = subvolume::ids_by_uuid(&top, swap.old?).ok()?;
        let visible = |id| mounts::visible_path(place.fsid, id, &from_top).ok()?;
        ids.into_iter().find_map(visible)
    };
    visible().unwrap_or(from_top)
}

/// Completes the exchange of names that an earlier run has begun; returns it then, with the copy.
fn finish_earlier(
    job: &Job<'_>,
    place: &VolumePlace,
    state: &StateSubvolume,
    (area, target): (&Area, &Target),
) -> Result<Option<(Subject, Swap)>, Error> {
    if !area.exists() {
        return Ok(None);
    }
    let mut files = files(area, target)?;
    let (Some(swap), Some(subject)) = (files.swap().cloned(), files.subject().cloned()) else {
        return Ok(None);
    };
    let failed = Error::io("complete an exchange of names");
    let dir = place::open_beneath(state.top(), &PathBuf::from(swap.dir.clone()))?;
    match swap::progress(&dir, &swap).map_err(&failed)? {
        Progress::NotBegun => {
            // The subvolume was in staging, and is made once more.
            files.end_swap().map_err(&failed)?;
            return Ok(None);
        }
        Progress::Beside => {
            check_exchangeable(job, place)?;
            swap::complete(&dir, &swap).map_err(&failed)?;
        }
        Progress::Done => {}
    }
    place.commit()?;
    clean_up(&mut files, area)?;
    Ok(Some((subject, swap)))
}

/// Steps 6 to 8. The volume's directory `dir` is opened through the same mount as staging: the kernel renames nothing from
/// one mount to another.
async fn exchange(
    applied: Applied,
    place: &VolumePlace,
    (dir, swap): (OwnedFd, Swap),
    area: &Area,
) -> Result<(), Error> {
    let done = blocking("exchange", move || -> Result<RestoreFiles, Error> {
        let Applied { staged, files, .. } = applied;
        let failed = Error::io("exchange the names of the volumes");
        let first = match swap.old {
            Some(_) => swap.kept.clone(),
            None => swap.name.clone(),
        };
        let first = PathBuf::from(first).into_os_string();
        let root = staged.publish(&dir, &first, sendshot_apply::staging::Place::Free)?; // 6
        crash::point("restore-beside");
        drop(root);
        match swap::complete(&dir, &swap).map_err(&failed)? {
            true => Ok(files), // 7
            false => Err(failed(std::io::ErrorKind::NotFound.into())),
        }
    });
    let mut files = done.await.map_err(|_| ApplyFailure::Died)??;
    place.commit()?;
    crash::point("restore-exchanged");
    clean_up(&mut files, area) // 8
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
