//! `sendshotctl prune`.

use std::sync::Arc;

use sendshot_model::Reason;
use sendshot_proto::problem::{Kind, Problem, delete_remedy};
use sendshot_proto::v1;

use super::list;
use super::request::{mode, paired, target};
use crate::retained::list::{Kept, Paired};
use crate::retained::prune;
use crate::retained::selection::Selection;
use crate::shared::blocking::blocking;
use crate::shared::sender::Sender;

/// Deletes what no later push needs.
pub(super) async fn answer(
    sender: &Arc<Sender>,
    message: v1::PruneRequest,
    root: bool,
) -> Result<v1::PruneResponse, Problem> {
    let mode = mode(message.dry_run);
    if mode == prune::Mode::Delete && !root {
        return Err(Problem::new(Kind::Refused, "pruning needs root")
            .remedy("run it with sudo, or use --dry-run"));
    }
    let target = target(message.receiver, message.volume, root)?;
    let paired = paired(sender).await?;
    sender.wait_for_releases().await;
    let held = sender.hold_starts().await;
    let sender = Arc::clone(sender);
    // If the client disconnects meanwhile, the thread still holds back pushes until it is done.
    blocking("prune", move || {
        let _held = held;
        let selection = Selection::resolve(&sender, target)?;
        let (pruned, missed) = prune::now(&sender, &selection, mode);
        let all: Vec<_> = pruned.iter().map(|pruned| pruned.kept.clone()).collect();
        Ok(v1::PruneResponse {
            verdicts: pruned
                .into_iter()
                .map(|pruned| verdict(pruned, &all, &paired))
                .collect(),
            not_looked_at: missed.into_iter().map(list::not_looked_at).collect(),
            problem: None,
        })
    })
    .await?
}

fn verdict(pruned: prune::Pruned, all: &[Kept], paired: &Paired) -> v1::PruneVerdict {
    let reason = pruned.reason.clone();
    let (verdict, reason) = match (&pruned.failed, pruned.verdict.deletes()) {
        (Some(e), _) => {
            let text = format!("{reason}, but: {e}");
            let text = match delete_remedy(e) {
                "" => text,
                remedy => format!("{text} ({remedy})"),
            };
            ("failed", Reason::new(reason.code, text))
        }
        (None, true) => ("deleted", reason),
        (None, false) => ("kept", reason),
    };
    v1::PruneVerdict {
        snapshot: Some(list::describe(&pruned.kept, reason.clone(), all, paired)),
        verdict: verdict.to_owned(),
        reason_code: reason.code.to_string(),
        reason: reason.text,
    }
}
