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
    /// Why it stays or goes.
    kept: String,
    /// Whether the next run deletes it.
    goes: bool,
    /// When the last reason that depends on time ends.
    kept_until: Option<String>,
    /// Whether the time of its commit is certain.
    time_is_certain: bool,
    holds: Vec<String>,
}

/// What `copy list` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Copies,
    /// The uncommitted transfers.
    Partials,
}

impl From<bool> for What {
    fn from(partials: bool) -> Self {
        if partials {
            Self::Partials
        } else {
            Self::Copies
        }
    }
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
    let mut answer = client
        .copies(request)
        .await
        .map_err(client::failed)?
        .into_inner();
    outcome::check(answer.problem.take())?;
    notes(&answer, output);
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
                &[
                    "sender",
                    "volume",
                    "copy",
                    "committed",
                    "uuid",
                    "kept",
                    "note",
                ],
                rows,
            )
        });
    }
    Ok(ExitCode::SUCCESS)
}

/// Says why copies are not deleted that a rule would delete.
fn notes(answer: &v1::CopiesResponse, output: &Output) {
    let has_rule = |rule: &&v1::VolumeRule| !rule.rule.starts_with("all;");
    if !answer.clock_trouble.is_empty() && answer.volumes.iter().any(|rule| has_rule(&rule)) {
        output.note(&format!(
            "no copy is deleted by its rule: {}",
            answer.clock_trouble
        ));
    }
    for rule in &answer.volumes {
        let (name, going) = (format!("{}/{}", rule.sender, rule.volume), rule.going);
        if !rule.trouble.is_empty() {
            output.note(&format!(
                "{name}: no copy is deleted by its rule: {}",
                rule.trouble
            ));
        } else if !rule.asks.is_empty() {
            output.note(&format!(
                "{name}: {going} copies would go, and it must be confirmed: {}; `sendshotctl copy prune --confirm {name}`",
                rule.asks
            ));
        }
    }
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
        kept: copy.kept,
        goes: copy.goes,
        kept_until: output::time_json(copy.kept_until),
        time_is_certain: copy.time_is_certain,
        holds: copy.holds,
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
    let holds = copy.holds.iter().map(|hold| format!("held {hold}"));
    let note: Vec<String> = unusable.into_iter().chain(lacks).chain(holds).collect();
    let kept = match (copy.goes, copy.kept_until) {
        (true, _) => "goes with the next run".to_owned(),
        (false, 0) => copy.kept,
        (false, until) => format!("{} (until {})", copy.kept, output::time(until)),
    };
    vec![
        copy.sender,
        copy.volume,
        copy.name,
        output::time(copy.committed_at),
        output::uuid(&copy.uuid),
        kept,
        note.join("; "),
    ]
}

/// Parses what a copy lacks. The daemon of this host sends no list that is too long.
fn lacks(entries: Vec<v1::NotKept>) -> NotKept {
    not_kept::parse(entries).unwrap_or_default()
}
