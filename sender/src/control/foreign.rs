//! `sendshotctl forget --foreign` and `take-over`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

use sendshot_proto::answer::only_root;
use sendshot_proto::problem::Problem;
use sendshot_proto::v1;

use super::list;
use super::request::{mode, paired, pushes};
use crate::retained::foreign::{self, Action};
use crate::shared::blocking::blocking;
use crate::shared::sender::Sender;

/// Deletes what other hosts left on a disk, or makes it this host's own.
pub(super) async fn answer(
    sender: &Arc<Sender>,
    message: v1::ForeignRequest,
    root: bool,
) -> Result<v1::ForeignResponse, Problem> {
    only_root(root, "access to the states of other hosts")?;
    let path = PathBuf::from(OsString::from_vec(message.path));
    let action = match message.take_over {
        true => Action::TakeOver,
        false => Action::Forget,
    };
    let agreed = pushes(&message.agreed)?;
    let paired = paired(sender).await?;
    let held = sender.hold_starts().await;
    let sender = Arc::clone(sender);
    blocking("foreign", move || {
        let _held = held;
        let mode = mode(message.dry_run);
        let found = foreign::act(&sender, &path, action, mode, &agreed)?;
        Ok(v1::ForeignResponse {
            snapshots: list::of_others(&found, &paired),
            problem: None,
        })
    })
    .await?
}
