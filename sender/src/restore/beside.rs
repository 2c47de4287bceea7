//! Restores a whole volume into a new subvolume beside what exists.
//!
//! Steps, and what a crash after each leaves:
//!
//! 1. Record what is restored. — A record, from which the same command continues.
//! 2. Apply the stream in staging, with a snapshot of it now and then. — The last snapshot, from which the same command
//!    continues.
//! 3. Write everything to disk, and check a read-only snapshot of the tree. — The same.
//! 4. Record the finished subvolume by its UUID. — The same.
//! 5. Give it its final name, which is atomic, and commit. — Either staging or the target; the same command tells which
//!    by the UUID.
//! 6. Delete the snapshots and the record. — The target, and some of these, which the same command deletes.
//! 7. Report, and commit. — The target; after a power cut also some of the files.

use std::os::fd::AsFd;
use std::path::PathBuf;

use sendshot_apply::staging::{Area, Place};
use sendshot_model::restore::RestoreEvent;
use sendshot_sys::{crash, filesystem, subvolume};
use tokio_util::sync::CancellationToken;

use crate::restore::apply::{Applied, ApplyFailure};
use crate::restore::error::{Error, TargetError};
use crate::restore::events::Events;
use crate::restore::target::{Found, Target};
use crate::restore::whole::{self, Brought, Volume, clean_up, commit_clean_up, files, tidy_failed};
use crate::shared::blocking::blocking;
use crate::state::restores::Subject;

/// A whole volume to be restored beside what exists.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) volume: Volume<'a>,
    pub(super) target: PathBuf,
}

/// Runs a restore.
///
/// # Errors
/// See [`Error`].
pub(super) async fn run(
    job: Job<'_>,
    events: &Events,
    cancel: CancellationToken,
) -> Result<(), Error> {
    let target = Target::open(&job.target)?;
    let area = Area::new(&target.dir).map_err(Error::io("open the directory of the target"))?;
    let restored = restore(job, &target, &area, events, cancel).await;
    if restored.is_err()
        && let Err(e) = tidy_failed(&area, &target)
    {
        tracing::warn!("files of the failed restore are left: {e}");
    }
    restored
}

async fn restore(
    job: Job<'_>,
    target: &Target,
    area: &Area,
    events: &Events,
    cancel: CancellationToken,
) -> Result<(), Error> {
    let place = match earlier(target, area)? {
        Earlier::Finished(subject) if !subject.is_wanted(job.volume.copy.at.as_deref()) => {
            events.note(format!(
                "an earlier run had completed the restore of {}/{} to this target",
                subject.volume, subject.copy
            ));
            return Err(TargetError::Taken(job.target.clone()).into());
        }
        Earlier::Finished(subject) => {
            events.note("an earlier run had completed this restore");
            let report = whole::report_of_earlier(subject, &job.volume.access.name, &job.target);
            events.tell(RestoreEvent::Restored {
                report: Box::new(report),
            });
            commit_clean_up(target.dir.as_fd()).await;
            return Ok(());
        }
        Earlier::Unfinished(place) => place,
    };
    let Brought { applied, account } = whole::bring_to(&job.volume, target, events, cancel).await?;
    events.stage("commit", "");
    expose(applied, target, place).await?;
    let report = account.report(&job.volume.access.name, &target.path);
    events.tell(RestoreEvent::Restored {
        report: Box::new(report),
    });
    commit_clean_up(target.dir.as_fd()).await; // 7
    Ok(())
}

/// What an earlier run to the same target has left.
enum Earlier {
    /// It had finished, and only its files were left, which are deleted now.
    Finished(Subject),
    /// It had not finished, or there was none.
    Unfinished(Place),
}

fn earlier(target: &Target, area: &Area) -> Result<Earlier, Error> {
    let found = target.look()?;
    if area.exists() {
        let mut files = files(area, target)?;
        let finished = files.finished();
        if let (Found::Subvolume(uuid), Some(subject)) = (found, files.subject().cloned())
            && finished == Some(uuid)
        {
            clean_up(&mut files, area)?;
            return Ok(Earlier::Finished(subject));
        }
    }
    match found {
        Found::Free(place) => Ok(Earlier::Unfinished(place)),
        Found::Subvolume(_) | Found::Taken => Err(TargetError::Taken(target.path.clone()).into()),
    }
}

async fn expose(applied: Applied, target: &Target, place: Place) -> Result<(), Error> {
    let name = target.name().to_owned();
    let dir = target.dir.try_clone();
    let dir = dir.map_err(Error::io("open the directory of the target"))?;
    let done = blocking("expose", move || {
        let Applied {
            staged, mut files, ..
        } = applied;
        let keep = Error::io("record the finished restore");
        let info = subvolume::info(staged.root()).map_err(&keep)?;
        files.finish(info.uuid).map_err(&keep)?; // 4
        crash::point("restore-finished");
        let root = staged.publish(&dir, &name, place)?;
        crash::point("restore-published");
        filesystem::commit(&dir).map_err(Error::io("commit the restored subvolume"))?; // 5
        crash::point("restore-committed");
        drop(root);
        let area = Area::new(&dir).map_err(&keep)?;
        clean_up(&mut files, &area) // 6
    });
    done.await.map_err(|_| ApplyFailure::Died)?
}
