//! `sendshotctl copy`.

use std::process::ExitCode;

use sendshot_model::NotKept;
use sendshot_proto::not_kept;
use sendshot_proto::report::lossy;
use sendshot_proto::v1::{self, CopiesRequest, CopyState};
use serde::Serialize;

use crate::client::{self, Receiver};
use crate::outcome::{self, Outcome};
use crate::output::{self, Output, table};
use crate::receiver::partials;
use crate::sender::list::What;

#[derive(Serialize)]
struct CopyJson {
    sender: String,
    volume: String,
    name: String,
    uuid: String,
    committed_at: Option<String>,
    unusable: Option<String>,
    /// See docs/reasons.md.
    unusable_code: Option<String>,
    path: String,
    not_kept: NotKept,
}

/// Shows the copies, or the partials.
pub async fn list(
    mut client: Receiver,
    which: Option<String>,
    what: What,
    output: &Output,
) -> Outcome {
    let which = which.unwrap_or_default();
    let (sender, volume) = which.split_once('/').unwrap_or((&which, ""));
    let request = CopiesRequest {
        sender: sender.to_owned(),
        volume: volume.to_owned(),
    };
    if what == What::Partials {
        let answer = client.partials(request).await.map_err(client::failed)?;
        let answer = answer.into_inner();
        outcome::check(answer.problem)?;
        partials::of_receiver(answer.partials, output);
        return Ok(ExitCode::SUCCESS);
    }
    let answer = client
        .copies(request)
        .await
        .map_err(client::failed)?
        .into_inner();
    outcome::check(answer.problem)?;
    if output.is_json() {
        for copy in answer.copies {
            output.result(&json(copy), String::new);
        }
    } else if answer.copies.is_empty() {
        output.note("no copies");
    } else {
        let rows = answer.copies.into_iter().map(row).collect();
        output.result(&(), || {
            table(
                &["sender", "volume", "copy", "committed", "uuid", "note"],
                rows,
            )
        });
    }
    Ok(ExitCode::SUCCESS)
}

fn json(copy: CopyState) -> CopyJson {
    CopyJson {
        sender: copy.sender,
        volume: copy.volume,
        name: copy.name,
        uuid: output::uuid(&copy.uuid),
        committed_at: output::time_json(copy.committed_at),
        unusable: Some(copy.unusable).filter(|why| !why.is_empty()),
        unusable_code: Some(copy.unusable_code).filter(|code| !code.is_empty()),
        path: lossy(&copy.path),
        not_kept: lacks(copy.not_kept),
    }
}

fn row(copy: CopyState) -> Vec<String> {
    let unusable = match copy.unusable.as_str() {
        "" => None,
        why => Some(format!("no parent any more: {why}")),
    };
    let lacks = lacks(copy.not_kept).entries().into_iter();
    let lacks = lacks.map(|entry| {
        let what = entry.kind.description();
        format!("lacks {} × {what}: {}", entry.count, entry.example)
    });
    let note: Vec<String> = unusable.into_iter().chain(lacks).collect();
    vec![
        copy.sender,
        copy.volume,
        copy.name,
        output::time(copy.committed_at),
        output::uuid(&copy.uuid),
        note.join("; "),
    ]
}

/// Parses what a copy lacks. The daemon of this host sends no list that is too long.
fn lacks(entries: Vec<v1::NotKept>) -> NotKept {
    not_kept::parse(entries).unwrap_or_default()
}
