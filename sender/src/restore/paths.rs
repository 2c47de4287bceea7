//! Restores single files and directories of a copy into a directory on any file system.
//!
//! The stream is applied in a private directory in the target. When it is complete, each path is moved to its name: each is
//! absent, or complete. Nothing can be continued after this process has died, so that the next run begins again; a broken
//! connection is continued.

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use sendshot_apply::private_dir::{self, PrivateDir};
use sendshot_apply::staging::Staged;
use sendshot_apply::{Announced, CloneSources, Host, Policies, Privileges, Unsupported};
use sendshot_model::restore::{Checked, RestoreEvent, RestoreReport};
use sendshot_model::{AnyPath, LeftOut};
use sendshot_sys::filesystem;
use sendshot_transfer::retry::RetryBudget;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::restore::apply::{Applier, ApplyFailure, HostError, Place};
use crate::restore::drill::NO_CHECKPOINTS;
use crate::restore::error::{Error, TargetError};
use crate::restore::events::Events;
use crate::restore::fetch::{self, Again, Ended, Fetch};
use crate::restore::list;
use crate::restore::whole::{self, Volume};
use crate::shared::blocking::blocking;

/// Paths to be restored.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) volume: Volume<'a>,
    /// Relative to the volume.
    pub(super) paths: Vec<AnyPath>,
    pub(super) target: PathBuf,
    /// Whether set-id bits, capabilities and device nodes are made.
    pub(super) as_is: bool,
}

/// Applies to a private directory.
#[derive(Debug)]
struct PathsHost {
    dir: PrivateDir,
    left_out: LeftOut,
}

impl CloneSources for PathsHost {
    fn open(&mut self, uuid: Uuid, _: u64) -> Result<OwnedFd, Box<dyn StdError + Send + Sync>> {
        Err(format!("the stream clones from subvolume {uuid}, which is not part of it").into())
    }
}

impl Host for PathsHost {
    type Error = HostError;

    fn begin(&mut self, subvolume: &Announced) -> Result<OwnedFd, HostError> {
        match subvolume.parent {
            None => self.dir.tree_for_applier().map_err(HostError::Open),
            Some(_) => Err(HostError::OtherState),
        }
    }

    fn complete(&mut self, _: &Announced, _: Arc<OwnedFd>) -> Result<(), HostError> {
        Ok(()) // moved when the whole stream is known to be good
    }

    fn left_out(&mut self, left_out: &LeftOut) {
        self.left_out = left_out.clone();
    }
}

impl Place for PathsHost {
    fn to_keep(&self) -> Option<(&Staged, u64)> {
        None
    }
}

/// A path of the copy, and its name in the target.
#[derive(Debug, Clone)]
struct Wanted {
    path: Vec<u8>,
    name: OsString,
}

/// Runs a restore of single paths.
///
/// # Errors
/// See [`Error`].
pub(super) async fn run(
    job: Job<'_>,
    events: &Events,
    cancel: CancellationToken,
) -> Result<(), Error> {
    let began = Instant::now();
    let wanted = wanted(&job.paths)?;
    let target = open(&job.target)?;
    free(&job, &target, &wanted)?;
    private_dir::sweep(&target).map_err(Error::io("look at the target"))?;
    events.stage("connect", "");
    let mut link = list::connect(job.volume.access).await?;
    let chosen = whole::choose(&job.volume, &mut link).await?;
    let mut request = chosen.request;
    request.paths = wanted.iter().map(|wanted| wanted.path.clone()).collect();
    events.stage("measure", format!("{}/{}", request.volume, request.name));
    let begun = match fetch::begin(link, request.clone()).await {
        Err(error) if fetch::must_begin_again(&error) == Some(Again::Decoded) => {
            request.stream_version = whole::DECODED;
            let link = list::connect(job.volume.access).await?;
            fetch::begin(link, request.clone()).await?
        }
        begun => begun?,
    };
    let started = begun.started.clone();
    let free_bytes = filesystem::space(&target)
        .map_err(Error::io("read the free space"))?
        .free;
    if started.length > free_bytes {
        return Err(Error::NoRoom {
            needed: started.length,
            free: free_bytes,
            at: job.target.clone(),
        });
    }
    events.tell(RestoreEvent::Begun {
        copy: format!("{}/{}", request.volume, request.name),
        length: started.length,
        resumed_at: 0,
        permitted_seconds: started.permitted_seconds,
    });
    let host = PathsHost {
        dir: PrivateDir::new(&target).map_err(Error::io("make a directory in the target"))?,
        left_out: LeftOut::default(),
    };
    let policies = Policies {
        unsupported: Unsupported::List,
        privileges: match job.as_is {
            true => Privileges::Apply,
            false => Privileges::List,
        },
        ..Policies::default()
    };
    let version = request.stream_version;
    let mut applier = Applier::fresh(host, None, version, NO_CHECKPOINTS, policies);
    applier.limit_made(free_bytes - started.length);
    events.stage("fetch", "");
    let applying = applier.start(0)?;
    let mut retry = RetryBudget::new(None, job.volume.retry_for);
    retry.contact();
    let mut fetch = Fetch {
        access: job.volume.access,
        request: request.clone(),
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
    let filled = applying.finish().await;
    let (Ended::Whole | Ended::NotApplied) = ended?;
    let PathsHost { dir, left_out } = filled?.place;
    events.stage("commit", "");
    let published = blocking("publish", move || {
        for Wanted { path, name } in &wanted {
            dir.publish(path, name)?;
        }
        dir.delete()
            .map_err(Error::io("delete the directory of the restore"))
    });
    published.await.map_err(|_| ApplyFailure::Died)??;
    let report = RestoreReport {
        receiver: job.volume.access.name.to_string(),
        volume: request.volume,
        copy: request.name,
        uuid: chosen.copy.uuid.to_string(),
        target: AnyPath::from(job.target.as_path()),
        stream_bytes: started.length,
        wire_bytes,
        resumed_at: None,
        seconds: began.elapsed().as_secs_f64(),
        checked: Checked::default(),
        replaced: None,
        next_push: None,
        doubt: started.doubt,
        not_kept: Vec::new(),
        left_out: left_out.entries(),
    };
    events.tell(RestoreEvent::Restored {
        report: Box::new(report),
    });
    Ok(())
}

/// Makes a directory of the target if there is none, and opens it.
fn open(target: &std::path::Path) -> Result<OwnedFd, Error> {
    let failed = |source: Errno| TargetError::Open {
        dir: target.to_owned(),
        source: source.into(),
    };
    match rustix::fs::mkdir(target, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(failed(e).into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(target, flags, Mode::empty()).map_err(failed)?)
}

fn wanted(paths: &[AnyPath]) -> Result<Vec<Wanted>, Error> {
    let (mut all, mut names) = (Vec::new(), BTreeSet::new());
    for path in paths {
        let path = PathBuf::from(path.clone()).into_os_string().into_vec();
        let trimmed = path.strip_suffix(b"/").unwrap_or(&path).to_vec();
        let name = trimmed
            .rsplit(|byte| *byte == b'/')
            .next()
            .unwrap_or_default();
        let name = OsStr::from_bytes(name).to_owned();
        if !names.insert(name.clone()) {
            return Err(TargetError::SameName(name).into());
        }
        all.push(Wanted {
            path: trimmed,
            name,
        });
    }
    for inner in &all {
        let is_in = |outer: &&Wanted| {
            let rest = inner.path.strip_prefix(outer.path.as_slice());
            rest.is_some_and(|rest| rest.first() == Some(&b'/'))
        };
        if let Some(outer) = all.iter().find(is_in) {
            return Err(TargetError::Within {
                inner: PathBuf::from(OsString::from_vec(inner.path.clone())),
                outer: PathBuf::from(OsString::from_vec(outer.path.clone())),
            }
            .into());
        }
    }
    Ok(all)
}

/// Checks that nothing in the target has one of the names.
fn free(job: &Job<'_>, target: &OwnedFd, wanted: &[Wanted]) -> Result<(), Error> {
    for Wanted { name, .. } in wanted {
        match rustix::fs::statat(target, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            Ok(_) => return Err(TargetError::Exists(job.target.join(name)).into()),
            Err(e) => return Err(Error::io("look at the target")(e.into())),
        }
    }
    Ok(())
}
