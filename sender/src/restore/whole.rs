//! What every restore of a whole volume does: choose the copy, fetch and apply it in staging, and check the tree.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use sendshot_apply::Policies;
use sendshot_apply::commit::flush;
use sendshot_apply::staging::Area;
use sendshot_engine::Sendshot;
use sendshot_model::restore::{Checked, RestoreEvent, RestoreReport, WantedCopy};
use sendshot_model::{AnyPath, NotKeptEntry, PeerName, human};
use sendshot_proto::restore::{FetchRequest, RestorableCopy, Started};
use sendshot_sys::{crash, filesystem};
use sendshot_transfer::retry::RetryBudget;
use tokio_util::sync::CancellationToken;

use crate::connection::link::Link;
use crate::decide::copy;
use crate::restore::access::Access;
use crate::restore::apply::{Applied, Applier, ApplyFailure, Filled, RestoreHost};
use crate::restore::error::{Error, TargetError};
use crate::restore::events::Events;
use crate::restore::fetch::{self, Again, Begun, Ended, Fetch};
use crate::restore::own;
use crate::restore::target::Target;
use crate::restore::{check, list};
use crate::shared::blocking::blocking;
use crate::state::restores::{RestoreFiles, Resumable, Subject};

/// The newest stream version that the applier takes.
const STREAM_VERSION: u32 = 2;
/// The version in which all data is decoded.
pub(super) const DECODED: u32 = 1;

/// The volume that is wanted, and how.
#[derive(Debug)]
pub(super) struct Volume<'a> {
    pub(super) access: &'a Access,
    pub(super) copy: WantedCopy,
    /// Whether a tree is accepted that differs from this host's own sendshot.
    pub(super) accept_differences: bool,
    pub(super) retry_for: Duration,
}

/// A tree that is complete and checked.
#[derive(Debug)]
pub(super) struct Brought {
    pub(super) applied: Applied,
    pub(super) account: Account,
}

/// What is known about a tree that was brought.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) checked: Checked,
    pub(super) chosen: Chosen,
    pub(super) started: Started,
    pub(super) wire_bytes: u64,
    pub(super) resumed_at: Option<u64>,
    pub(super) not_kept: Vec<NotKeptEntry>,
    began: Instant,
}

impl Account {
    /// Makes the report of a restore from this receiver to a target.
    pub(super) fn report(self, receiver: &PeerName, target: &Path) -> RestoreReport {
        let Chosen { copy, request } = self.chosen;
        RestoreReport {
            receiver: receiver.to_string(),
            volume: request.volume,
            copy: request.name,
            uuid: copy.uuid.to_string(),
            target: AnyPath::from(target),
            stream_bytes: self.started.length,
            wire_bytes: self.wire_bytes,
            resumed_at: self.resumed_at,
            seconds: self.began.elapsed().as_secs_f64(),
            checked: self.checked,
            replaced: None,
            next_push: None,
            doubt: self.started.doubt,
            not_kept: self.not_kept,
            left_out: Vec::new(),
        }
    }
}

/// Makes the report of a restore that an earlier run had completed but for the deletion of its files.
pub(super) fn report_of_earlier(
    subject: Subject,
    receiver: &PeerName,
    target: &Path,
) -> RestoreReport {
    RestoreReport {
        receiver: receiver.to_string(),
        volume: subject.volume,
        copy: subject.copy,
        uuid: subject.uuid.to_string(),
        target: AnyPath::from(target),
        stream_bytes: subject.length,
        wire_bytes: 0,
        resumed_at: Some(subject.length),
        seconds: 0.0,
        checked: Checked::default(),
        replaced: None,
        next_push: None,
        doubt: None,
        not_kept: Vec::new(),
        left_out: Vec::new(),
    }
}

/// Brings a copy into staging beside `target`, and checks it. The target's name only names the files of an
/// interrupted restore.
pub(super) async fn bring_to(
    job: &Volume<'_>,
    target: &Target,
    events: &Events,
    cancel: CancellationToken,
) -> Result<Brought, Error> {
    let began = Instant::now();
    events.stage("connect", "");
    let mut link = list::connect(job.access).await?;
    let chosen = choose(job, &mut link).await?;
    let prepared = prepare(job, target, link, chosen.clone(), events).await?;
    let (applied, wire_bytes, resumed_at, started) = bring(job, prepared, events, cancel).await?;
    events.stage("check", "");
    let (applied, checked) = checked(job, applied, &chosen.copy).await?;
    if !checked.differences.is_empty() && !job.accept_differences {
        let differences = checked.differences;
        discard(applied).await?;
        return Err(Error::Differs { differences });
    }
    let account = Account {
        checked,
        chosen,
        started,
        wire_bytes,
        resumed_at,
        not_kept: applied.not_kept.entries(),
        began,
    };
    Ok(Brought { applied, account })
}

/// A copy, and the request for it.
#[derive(Debug, Clone)]
pub(super) struct Chosen {
    pub(super) copy: RestorableCopy,
    pub(super) request: FetchRequest,
}

/// A stream that is on its way to staging.
struct Prepared {
    begun: Begun,
    applier: Applier<RestoreHost>,
    request: FetchRequest,
    started: Started,
}

pub(super) fn files(area: &Area, target: &Target) -> Result<RestoreFiles, Error> {
    RestoreFiles::open(area.dir()?, target.name(), target.purpose)
        .map_err(Error::io("read the record of an interrupted restore"))
}

/// Deletes the files of a finished restore. The caller reports it next, and then calls [`commit_clean_up`].
pub(super) fn clean_up(files: &mut RestoreFiles, area: &Area) -> Result<(), Error> {
    files
        .discard()
        .map_err(Error::io("delete the rest of a finished restore"))?;
    Ok(area.remove_if_empty()?)
}

/// Makes the deletion of the files durable once the success is reported: no later run would delete what a power cut
/// brings back. Before the report it would only prolong the time in which a crash loses the report.
pub(super) async fn commit_clean_up(dir: BorrowedFd<'_>) {
    let committed = match dir.try_clone_to_owned() {
        Ok(dir) => blocking("commit", move || filesystem::commit(dir)).await,
        Err(e) => Ok(Err(e)),
    };
    if let Ok(Err(e)) = committed {
        tracing::warn!("a power cut may bring back files of the finished restore: {e}");
    }
}

/// Deletes the files of a failed restore from which nothing can be continued: a refused stream leaves no trace.
pub(super) fn tidy_failed(area: &Area, target: &Target) -> Result<(), Error> {
    if !area.exists() {
        return Ok(());
    }
    let mut files = files(area, target)?;
    area.sweep(&files.staging_name().to_string_lossy())?;
    let failed = Error::io("delete the rest of a failed restore");
    if files.are_useless().map_err(&failed)? {
        files.discard().map_err(&failed)?;
    }
    Ok(area.remove_if_empty()?)
}

pub(super) async fn choose(job: &Volume<'_>, link: &mut Link) -> Result<Chosen, Error> {
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
    job: &Volume<'_>,
    target: &Target,
    link: Link,
    chosen: Chosen,
    events: &Events,
) -> Result<Prepared, Error> {
    let area = Area::new(&target.dir).map_err(Error::io("open the directory of the target"))?;
    let mut files = files(&area, target)?;
    area.sweep(&files.staging_name().to_string_lossy())?;
    // Staging of a dead process is gone now: what is left belongs to a running one, and so do the files.
    if files
        .is_staged()
        .map_err(Error::io("look for a running restore"))?
    {
        return Err(TargetError::Running(target.path.clone()).into());
    }
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
    // A copy that was changed since its commit has another number.
    let number = started.doubt.is_none().then_some(request.ctransid);
    let host = RestoreHost::new(area, files.staging_name(), (request.uuid, number));
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
            Applier::fresh(
                host,
                Some(files),
                request.stream_version,
                policy,
                Policies::default(),
            )
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

fn subject(job: &Volume<'_>, request: &FetchRequest, length: u64) -> Subject {
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

fn is_same(job: &Volume<'_>, earlier: &Subject, request: &FetchRequest) -> bool {
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
    job: &Volume<'_>,
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
            let applied = applying.finish().await.and_then(Filled::into_tree);
            Ok((applied?, wire_bytes, resumed_at, started))
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
    job: &Volume<'_>,
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
        crash::point("restore-frozen");
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
