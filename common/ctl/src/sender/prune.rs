//! `sendshotctl prune`.

use std::ffi::OsString;
use std::process::ExitCode;

use sendshot_proto::v1::{KeptSnapshot, PruneRequest, PruneVerdict};
use serde::Serialize;

use crate::client::{self, Sender};
use crate::outcome::{self, Outcome, SOME_FAILED};
use crate::output::Output;
use crate::sender::list::{self, KeptJson};
use crate::sender::not_looked_at;
use crate::sender::plan;

/// A verdict: the fields of `list`, and these.
#[derive(Serialize)]
struct VerdictJson {
    #[serde(flatten)]
    kept: KeptJson,
    /// `kept`, `deleted`, or `failed`.
    verdict: String,
    dry_run: bool,
}

/// Applies `keep` now, and shows the verdicts.
pub async fn run(
    mut client: Sender,
    target: Option<OsString>,
    dry_run: bool,
    output: &Output,
) -> Outcome {
    let request = match target {
        Some(target) => {
            let target = plan::parse(&target)?;
            PruneRequest {
                receiver: target.receiver.to_string(),
                volume: plan::volume_bytes(&target.volume),
                dry_run,
            }
        }
        None => PruneRequest {
            dry_run,
            ..Default::default()
        },
    };
    let answer = client.prune(request).await.map_err(client::failed)?;
    let answer = answer.into_inner();
    outcome::check(answer.problem)?;
    if answer.verdicts.is_empty() {
        output.note(match answer.not_looked_at.len() {
            0 => "no state is retained, so there is nothing to delete",
            _ => "no state was found on the file systems that could be checked",
        });
    }
    let code = exit_code(&answer.verdicts);
    for verdict in answer.verdicts {
        show(verdict, dry_run, output);
    }
    not_looked_at::show(answer.not_looked_at, output);
    Ok(code)
}

fn exit_code(verdicts: &[PruneVerdict]) -> ExitCode {
    let count = |what: &str| verdicts.iter().filter(|v| v.verdict == what).count();
    match (count("failed"), count("deleted")) {
        (0, _) => ExitCode::SUCCESS,
        (_, 0) => ExitCode::FAILURE,
        (_, _) => ExitCode::from(SOME_FAILED),
    }
}

fn show(verdict: PruneVerdict, dry_run: bool, output: &Output) {
    let kept: KeptSnapshot = verdict.snapshot.unwrap_or_default();
    let what = match (verdict.verdict.as_str(), dry_run) {
        ("deleted", true) => "would delete",
        ("deleted", false) => "deleted",
        ("kept", true) => "would keep",
        (other, _) => other,
    };
    let line = format!("{what:<12}  {}: {}", list::one_line(&kept), verdict.reason);
    let json = VerdictJson {
        kept: list::json(kept),
        verdict: verdict.verdict,
        dry_run,
    };
    output.report(&json, || line);
}
