//! `sendshotctl forget`, for states and for file systems.

use std::sync::Arc;

use sendshot_model::Reason;
use sendshot_proto::answer::only_root;
use sendshot_proto::problem::{Kind, Problem};
use sendshot_proto::report::path_bytes;
use sendshot_proto::v1;

use super::list;
use super::request::{mode, paired, pushes, target};
use crate::decide::forget::Which;
use crate::retained::forget::{self, Chain};
use crate::shared::blocking::blocking;
use crate::shared::sender::Sender;

/// Deletes the states that the request names.
pub(super) async fn answer(
    sender: &Arc<Sender>,
    message: v1::ForgetRequest,
    root: bool,
) -> Result<v1::ForgetResponse, Problem> {
    only_root(root, "forgetting")?;
    let wish = forget_wish(message)?;
    let paired = paired(sender).await?;
    sender.wait_for_releases().await;
    let held = sender.hold_starts().await;
    let sender = Arc::clone(sender);
    blocking("forget", move || {
        let _held = held;
        let forgotten = forget::forget(&sender, &wish)?;
        let states = &forgotten.states;
        Ok(v1::ForgetResponse {
            snapshots: states
                .iter()
                .map(|kept| list::describe(kept, Reason::default(), states, &paired))
                .collect(),
            consequence: forgotten.consequence,
            not_looked_at: forgotten
                .not_looked_at
                .into_iter()
                .map(list::not_looked_at)
                .collect(),
            problem: None,
        })
    })
    .await?
}

/// Forgets a file system that will not come back.
pub(super) async fn filesystem(
    sender: &Arc<Sender>,
    message: v1::ForgetFilesystemRequest,
    root: bool,
) -> Result<v1::ForgetFilesystemResponse, Problem> {
    only_root(root, "forgetting a file system")?;
    let held = sender.hold_starts().await;
    let sender = Arc::clone(sender);
    blocking("forget", move || {
        let _held = held;
        let (fsid, path) = sender.filesystems().forget(&message.filesystem)?;
        Ok(v1::ForgetFilesystemResponse {
            filesystem: fsid.as_bytes().to_vec(),
            path: path_bytes(&path),
            problem: None,
        })
    })
    .await?
}

fn forget_wish(message: v1::ForgetRequest) -> Result<forget::ParentChoice, Problem> {
    let target = target(message.receiver, message.volume, true)?;
    let target = target.ok_or_else(|| {
        Problem::new(Kind::Usage, "no receiver and volume were named").remedy("name them: HOST:VOL")
    })?;
    let which = match (message.all, message.which.as_str(), message.root.as_str()) {
        (true, "", "") => Which::All,
        (false, "", root) if !root.is_empty() => Which::root(root)?,
        (false, which, "") => Which::parse(which)?,
        (..) => {
            let both = "more than one of WHICH, --all and --root were given";
            return Err(Problem::new(Kind::Usage, both).remedy("give one of them"));
        }
    };
    let agreed = pushes(&message.agreed)?;
    Ok(forget::ParentChoice {
        target,
        which,
        chain: match message.break_chain {
            true => Chain::Break,
            false => Chain::Keep,
        },
        mode: mode(message.dry_run),
        agreed,
    })
}
