//! Restore: brings a copy back from a receiver. It runs in a process of its own, `sendshot-restore`, because it sets
//! owners and makes device nodes, which the daemon may not do.
//!
//! | stage | file |
//! |---|---|
//! | pair for restoring, on a host without anything | `temporary.rs` |
//! | read the credentials | `access.rs` |
//! | list the copies and choose one | `list.rs`, `decide/copy.rs` |
//! | check the target | `target.rs` |
//! | bring the copy into staging | `whole.rs` |
//! | fetch the stream, again after a broken connection | `fetch.rs` |
//! | apply it in staging, with snapshots of it to continue from | `apply.rs`, `state/restores.rs` |
//! | check the tree | `check.rs` |
//! | or bring single files | `paths.rs` |
//! | or only check that it can be done | `drill.rs` |
//! | give it its final name | `beside.rs`, or `in_place/` |
//!
//! [`run()`] is the door. Nothing of the user's is ever deleted or overwritten here.

mod access;
mod apply;
mod beside;
pub mod check;
mod drill;
pub mod error;
mod events;
mod fetch;
mod in_place;
mod keeper;
mod list;
mod own;
mod paths;
pub mod record;
mod target;
mod temporary;
mod whole;

use std::time::Duration;

use sendshot_model::restore::{RestoreEvent, RestoreRequest, RestoreTask};
use tokio_util::sync::CancellationToken;

pub use crate::restore::access::Settings;

use crate::restore::access::Access;
use crate::restore::error::Error;
pub use crate::restore::events::Events;
use crate::restore::whole::Volume;

/// How long a broken connection is made again since the last progress, if the user does not say.
const RETRY_FOR: Duration = Duration::from_secs(10 * 60);

/// Runs a request; `tell` gets its events.
///
/// # Errors
/// See [`Error`].
pub async fn run(
    settings: &Settings,
    request: RestoreRequest,
    tell: impl Fn(RestoreEvent) + Send + Sync + 'static,
    cancel: CancellationToken,
) -> Result<(), Error> {
    let events = Events::new(tell);
    let retry_for = request.retry_seconds.map_or(RETRY_FOR, Duration::from_secs);
    let receiver = match &request.pairing {
        Some(pairing) => {
            let (name, until) = temporary::make(&settings.runtime_dir, pairing).await?;
            events.note(format!(
                "paired with {name} for restoring, until {until}; the key lies in {}",
                settings.runtime_dir.display()
            ));
            name.to_string()
        }
        None => request.receiver,
    };
    let access = Access::open(settings, &receiver)?;
    match request.task {
        RestoreTask::List { volume } => list::run(&access, volume.as_deref(), &events).await,
        RestoreTask::Beside {
            copy,
            target,
            accept_differences,
        } => {
            let job = beside::Job {
                volume: Volume {
                    access: &access,
                    copy,
                    accept_differences,
                    retry_for,
                },
                target: target.into(),
            };
            beside::run(job, &events, cancel).await
        }
        RestoreTask::Paths {
            copy,
            paths,
            target,
            as_is,
        } => {
            let job = paths::Job {
                volume: Volume {
                    access: &access,
                    copy,
                    accept_differences: false,
                    retry_for,
                },
                paths,
                target: target.into(),
                as_is,
            };
            paths::run(job, &events, cancel).await
        }
        RestoreTask::Drill { copy } => {
            let access = Access {
                checkpoints: drill::NO_CHECKPOINTS,
                ..access
            };
            let volume = Volume {
                access: &access,
                copy,
                accept_differences: false,
                retry_for,
            };
            drill::run(volume, &events, cancel).await
        }
        RestoreTask::InPlace {
            copy,
            device,
            new_disk,
            while_in_use,
            accept_differences,
        } => {
            let job = in_place::Job {
                volume: Volume {
                    access: &access,
                    copy,
                    accept_differences,
                    retry_for,
                },
                device: device.map(Into::into),
                new_disk,
                while_in_use,
            };
            in_place::run(job, &events, cancel).await
        }
    }
}
