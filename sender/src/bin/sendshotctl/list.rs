//! `sendshotctl list`.

use std::ffi::OsString;
use std::process::ExitCode;

use sendshot_model::human;
use sendshot_proto::v1::{KeptSnapshot, ListRequest};
use serde::Serialize;

use crate::client::{self, Sender};
use crate::outcome::{self, Outcome};
use crate::output::{self, Output, table};
use crate::plan;

#[derive(Serialize)]
struct KeptJson {
    volume: String,
    receiver: String,
    uuid: String,
    taken_at: Option<String>,
    state: String,
    reason: String,
    /// `null` for a snapshot, which is as large as what it pins.
    sendshot_bytes: Option<u64>,
}

/// Shows what is kept.
pub async fn run(mut client: Sender, target: Option<OsString>, output: &Output) -> Outcome {
    let request = match target {
        Some(target) => {
            let target = plan::parse(&target)?;
            ListRequest {
                receiver: target.receiver.to_string(),
                volume: plan::volume_bytes(&target.volume),
            }
        }
        None => ListRequest::default(),
    };
    let answer = client
        .list(request)
        .await
        .map_err(client::failed)?
        .into_inner();
    outcome::check(answer.problem)?;
    if output.is_json() {
        for kept in answer.snapshots {
            output.result(&json(kept), String::new);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if answer.snapshots.is_empty() {
        output.note("nothing is kept: no push has been acknowledged yet");
        return Ok(ExitCode::SUCCESS);
    }
    let rows = answer.snapshots.into_iter().map(row).collect();
    output.result(&(), || {
        table(
            &[
                "volume",
                "receiver",
                "taken",
                "uuid",
                "size",
                "state",
                "why it is kept",
            ],
            rows,
        )
    });
    Ok(ExitCode::SUCCESS)
}

fn json(kept: KeptSnapshot) -> KeptJson {
    KeptJson {
        volume: kept.volume,
        receiver: kept.receiver,
        uuid: output::uuid(&kept.uuid),
        taken_at: output::time_json(kept.taken_at),
        state: kept.state,
        reason: kept.reason,
        sendshot_bytes: Some(kept.sendshot_bytes).filter(|bytes| *bytes > 0),
    }
}

fn row(kept: KeptSnapshot) -> Vec<String> {
    let size = match kept.sendshot_bytes {
        0 => "snapshot".to_owned(),
        bytes => human::bytes_human(bytes),
    };
    vec![
        kept.volume,
        kept.receiver,
        output::time(kept.taken_at),
        output::uuid(&kept.uuid),
        size,
        kept.state,
        kept.reason,
    ]
}
