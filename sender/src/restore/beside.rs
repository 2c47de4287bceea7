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

use std::path::PathBuf;
use std::time::{Duration, Instant};

use sendshot_apply::commit::flush;
use sendshot_apply::staging::{Area, Place};
use sendshot_engine::Sendshot;
use sendshot_model::restore::{Checked, RestoreEvent, RestoreReport, WantedCopy};
use sendshot_model::{AnyPath, human};
use sendshot_proto::restore::{FetchRequest, RestorableCopy, Started};
use sendshot_sys::{crash, filesystem, subvolume};
use sendshot_transfer::retry::RetryBudget;
use tokio_util::sync::CancellationToken;

use crate::connection::link::Link;
use crate::decide::copy;
use crate::restore::access::Access;
use crate::restore::apply::{Applied, Applier, ApplyFailure, RestoreHost};
use crate::restore::error::{Error, TargetError};
use crate::restore::events::Events;
use crate::restore::fetch::{self, Again, Begun, Ended, Fetch};
use crate::restore::own;
use crate::restore::target::{Found, Target};
use crate::restore::{check, list};
use crate::shared::blocking::blocking;
use crate::state::restores::{RestoreFiles, Resumable, Subject};

/// The newest stream version that the applier takes.
const STREAM_VERSION: u32 = 2;
/// The version in which all data is decoded.
const DECODED: u32 = 1;

/// A whole volume to be restored beside what exists.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) access: &'a Access,
    pub(super) copy: WantedCopy,
    pub(super) target: PathBuf,
    /// Whether a tree is accepted that differs from this host's own sendshot.
    pub(super) accept_differences: bool,
    pub(super) retry_for: Duration,
}

/// A copy, and the request for it.
#[derive(Debug, Clone)]
struct Chosen {
    copy: RestorableCopy,
    request: FetchRequest,
}

/// A stream that is on its way to staging.
struct Prepared {
    begun: Begun,
    applier: Applier,
    request: FetchRequest,
    started: Started,
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
    let restored = restore(job, target, &area, events, cancel).await;
    if restored.is_err() && area.exists() {
        // Nothing is in it if nothing can be continued.
        area.remove_if_empty()?;
    }
    restored
}

async fn restore(
    job: Job<'_>,
    target: Target,
    area: &Area,
    events: &Events,
    cancel: CancellationToken,
) -> Result<(), Error> {
    let began = Instant::now();
    let place = match earlier(&target, area)? {
        Earlier::Finished(subject) => {
            events.note("an earlier run had completed this restore");
            let report = report_of_earlier(&job, subject);
            events.tell(RestoreEvent::Restored {
                report: Box::new(report),
            });
            return Ok(());
        }
        Earlier::Unfinished(place) => place,
    };
    events.stage("connect", "");
    let mut link = list::connect(job.access).await?;
    let chosen = choose(&job, &mut link).await?;
    let prepared = prepare(&job, &target, link, chosen.clone(), events).await?;
    let (applied, wire_bytes, resumed_at, started) = bring(&job, prepared, events, cancel).await?;
    events.stage("check", "");
    let (applied, checked) = checked(&job, applied, &chosen.copy).await?;
    if !checked.differences.is_empty() && !job.accept_differences {
        let differences = checked.differences;
        discard(applied).await?;
        return Err(Error::Differs { differences });
    }
    events.stage("commit", "");
    let not_kept = applied.not_kept.entries();
    let path = target.path.clone();
    expose(applied, target, place).await?;
    let report = RestoreReport {
        receiver: job.access.name.to_string(),
        volume: chosen.request.volume,
        copy: chosen.request.name,
        uuid: chosen.copy.uuid.to_string(),
        target: AnyPath::from(path.as_path()),
        stream_bytes: started.length,
        wire_bytes,
        resumed_at,
        seconds: began.elapsed().as_secs_f64(),
        checked,
        doubt: started.doubt,
        not_kept,
    };
    events.tell(RestoreEvent::Restored {
        report: Box::new(report),
    });
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

fn files(area: &Area, target: &Target) -> Result<RestoreFiles, Error> {
    RestoreFiles::open(area.dir()?, target.name())
        .map_err(Error::io("read the record of an interrupted restore"))
}

fn clean_up(files: &mut RestoreFiles, area: &Area) -> Result<(), Error> {
    files
        .discard()
        .map_err(Error::io("delete the rest of a finished restore"))?;
    Ok(area.remove_if_empty()?)
}

async fn choose(job: &Job<'_>, link: &mut Link) -> Result<Chosen, Error> {
    let name = job.access.volume_name(&job.copy.volume)?;
    let (list, volume) = list::find(link, job.access, &name).await?;
    let copy = copy::choose(&volume.copies, job.copy.at.as_deref())?.clone();
    let request = FetchRequest {
        volume: volume.name,
        uuid: copy.uuid,
        ctransid: copy.ctransid,
        name: copy.name.clone(),
        root: list.root,
        stream_version: STREAM_VERSION,
        paths: Vec::new(),
        resume_at: None,
    };
    Ok(Chosen { copy, request })
}

/// Begins the stream, where an interrupted restore can continue or from its start, and makes its staging.
async fn prepare(
    job: &Job<'_>,
    target: &Target,
    link: Link,
    chosen: Chosen,
    events: &Events,
) -> Result<Prepared, Error> {
    let area = Area::new(&target.dir).map_err(Error::io("open the directory of the target"))?;
    let mut files = files(&area, target)?;
    area.sweep(&files.staging_name().to_string_lossy())?;
    let keep = Error::io("prepare the files of the restore");
    files.tidy().map_err(&keep)?;
    let mut request = chosen.request;
    let mut resumable = None;
    let earlier = files.subject().cloned();
    if let Some(subject) = earlier {
        match is_same(job, &subject, &request) {
            true => {
                request.stream_version = subject.stream_version;
                resumable = files
                    .resumable()
                    .map_err(&keep)?
                    .map(|found| (found, subject));
            }
            false => events.note(format!(
                "an interrupted restore of {}/{} to this target is discarded",
                subject.volume, subject.copy
            )),
        }
    }
    request.resume_at = resumable.as_ref().map(|(found, _)| found.point);
    events.stage("measure", format!("{}/{}", request.volume, request.name));
    let mut link = Some(link);
    let begun = loop {
        let open = match link.take() {
            Some(link) => link,
            None => list::connect(job.access).await?,
        };
        match fetch::begin(open, request.clone()).await {
            Ok(begun) => {
                let differs =
                    |(_, subject): &(Resumable, Subject)| subject.length != begun.started.length;
                if !resumable.as_ref().is_some_and(differs) {
                    break begun;
                }
            }
            Err(error) => match fetch::must_begin_again(&error) {
                Some(Again::FromTheBeginning) if resumable.is_some() => {}
                Some(Again::Decoded) if request.stream_version != DECODED => {
                    request.stream_version = DECODED;
                }
                Some(_) | None => return Err(error),
            },
        }
        events.note("the interrupted restore cannot be continued; it restarts from the beginning");
        (resumable, request.resume_at) = (None, None);
    };
    let started = begun.started.clone();
    let room = target.room()?;
    let needed = started.length - started.resume_at;
    if needed > room {
        return Err(Error::NoRoom {
            needed,
            free: room,
            at: target.path.clone(),
        });
    }
    events.tell(RestoreEvent::Begun {
        copy: format!("{}/{}", request.volume, request.name),
        length: started.length,
        resumed_at: started.resume_at,
        permitted_seconds: started.permitted_seconds,
    });
    let host = RestoreHost::new(area, files.staging_name(), request.uuid);
    let policy = job.access.checkpoints;
    let mut applier = match &resumable {
        Some((found, _)) => {
            let resumed = Applier::resume(host, files, found, request.stream_version, policy);
            resumed.map_err(|error| running(error, target))?
        }
        None => {
            files
                .begin(subject(job, &request, started.length))
                .map_err(&keep)?;
            Applier::fresh(host, files, request.stream_version, policy)
        }
    };
    // The stream itself is limited by its announced length.
    applier.limit_made(room - needed);
    Ok(Prepared {
        begun,
        applier,
        request,
        started,
    })
}

fn subject(job: &Job<'_>, request: &FetchRequest, length: u64) -> Subject {
    Subject {
        receiver: job.access.entry.receiver_id,
        volume: request.volume.clone(),
        copy: request.name.clone(),
        uuid: request.uuid,
        ctransid: request.ctransid,
        stream_version: request.stream_version,
        length,
    }
}

fn is_same(job: &Job<'_>, earlier: &Subject, request: &FetchRequest) -> bool {
    let same = Subject {
        stream_version: earlier.stream_version,
        ..subject(job, request, earlier.length)
    };
    *earlier == same
}

/// Replaces the kernel's error for an existing staging subvolume.
fn running(error: ApplyFailure, target: &Target) -> Error {
    let is_taken = match sendshot_sys::durable::errno(&error) {
        Some(errno) => errno == rustix::io::Errno::EXIST,
        None => false,
    };
    match is_taken {
        true => TargetError::Running(target.path.clone()).into(),
        false => error.into(),
    }
}

/// Fetches and applies the stream.
async fn bring(
    job: &Job<'_>,
    prepared: Prepared,
    events: &Events,
    cancel: CancellationToken,
) -> Result<(Applied, u64, Option<u64>, Started), Error> {
    let Prepared {
        begun,
        applier,
        request,
        started,
    } = prepared;
    let resumed_at = request.resume_at.map(|at| at.point.offset);
    let detail = resumed_at.map_or_else(String::new, |offset| {
        format!("continues at {}", human::bytes_human(offset))
    });
    events.stage("fetch", detail);
    let applying = applier.start(resumed_at.unwrap_or(0))?;
    let mut retry = RetryBudget::new(None, job.retry_for);
    retry.contact();
    let mut fetch = Fetch {
        access: job.access,
        request,
        length: started.length,
        segments: applying.segments.clone(),
        applied: &applying.applied,
        retry,
        events,
        cancel,
        wire_bytes: 0,
    };
    let ended = fetch.run(begun).await;
    let wire_bytes = fetch.wire_bytes;
    drop(fetch);
    match ended {
        Ok(Ended::Whole | Ended::NotApplied) => {
            let applied = applying.finish().await;
            let applied = applied.map_err(|error| match error {
                ApplyFailure::Session(_) => error,
                other => other,
            })?;
            Ok((applied, wire_bytes, resumed_at, started))
        }
        Err(error) => {
            // The thread stops between two segments; its last snapshot of staging stays.
            let _ = applying.finish().await;
            Err(error)
        }
    }
}

/// Checks a tree: against this host's own sendshot of the state, if it has one.
async fn checked(
    job: &Job<'_>,
    applied: Applied,
    copy: &RestorableCopy,
) -> Result<(Applied, Checked), Error> {
    let (state_dir, uuid, ctransid) = (job.access.state_dir.clone(), copy.uuid, copy.ctransid);
    let checked = blocking("check", move || {
        flush(applied.staged.root()).map_err(Error::io("write the restored tree to disk"))?; // 3
        let own: Option<Sendshot> = own::sendshot(&state_dir, uuid, ctransid);
        let freeze = Error::io("make a snapshot of the restored tree to check it");
        let length = applied.length;
        let tree = applied
            .files
            .freeze(applied.staged.root(), length)
            .map_err(freeze)?;
        let checked = match &own {
            Some(own) => check::compare(&tree, own),
            None => check::list(&tree),
        };
        Ok::<_, Error>((checked?, applied))
    });
    let (checked, applied) = checked.await.map_err(|_| ApplyFailure::Died)??;
    Ok((applied, checked))
}

async fn discard(applied: Applied) -> Result<(), Error> {
    let done = blocking("discard", move || {
        let Applied {
            staged, mut files, ..
        } = applied;
        staged.destroy()?;
        files.discard().map_err(Error::io("delete a refused tree"))
    });
    done.await.map_err(|_| ApplyFailure::Died)?
}

async fn expose(applied: Applied, target: Target, place: Place) -> Result<(), Error> {
    let done = blocking("expose", move || {
        let Applied {
            staged, mut files, ..
        } = applied;
        let keep = Error::io("record the finished restore");
        let info = subvolume::info(staged.root()).map_err(&keep)?;
        files.finish(info.uuid).map_err(&keep)?; // 4
        crash::point("restore-finished");
        let root = staged.publish(&target.dir, target.name(), place)?;
        crash::point("restore-published");
        filesystem::commit(&target.dir).map_err(Error::io("commit the restored subvolume"))?; // 5
        crash::point("restore-committed");
        drop(root);
        let area = Area::new(&target.dir).map_err(&keep)?;
        clean_up(&mut files, &area) // 6
    });
    done.await.map_err(|_| ApplyFailure::Died)?
}

fn report_of_earlier(job: &Job<'_>, subject: Subject) -> RestoreReport {
    RestoreReport {
        receiver: job.access.name.to_string(),
        volume: subject.volume,
        copy: subject.copy,
        uuid: subject.uuid.to_string(),
        target: AnyPath::from(job.target.as_path()),
        stream_bytes: subject.length,
        wire_bytes: 0,
        resumed_at: Some(subject.length),
        seconds: 0.0,
        checked: Checked::default(),
        doubt: None,
        not_kept: Vec::new(),
    }
}
