//! `sendshotctl list`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::process::ExitCode;

use sendshot_model::{CopyName, human};
use sendshot_proto::v1::{Holder, KeptSnapshot, ListRequest};
use serde::Serialize;

use crate::client::{self, Sender};
use crate::outcome::{self, Outcome};
use crate::output::{self, Output, table};
use crate::receiver::partials;
use crate::sender::plan;
use crate::sender::{held, not_looked_at};

/// A kept state.
#[derive(Serialize)]
pub struct KeptJson {
    volume: String,
    receiver: String,
    uuid: String,
    taken_at: Option<String>,
    /// Since the state was taken.
    age_seconds: u64,
    /// The name of its copies, apart from a suffix.
    time: String,
    /// `sendshot` or `snapshot`.
    kind: String,
    state: String,
    /// The host that left it; `null` for this host.
    foreign_host: Option<String>,
    /// The receiver's disk that it went to, if the receiver reports one.
    root: Option<String>,
    acknowledged_at: Option<String>,
    /// The receivers that hold a copy, as far as this host knows.
    holders: Vec<HolderJson>,
    reason: String,
    /// See docs/reasons.md; empty where there is no reason.
    reason_code: String,
    /// `null` for a snapshot, which is as large as what it pins.
    sendshot_bytes: Option<u64>,
    hashes_bytes: u64,
}

#[derive(Serialize)]
struct HolderJson {
    receiver: String,
    receiver_id: String,
    /// `acknowledged`, or `unconfirmed`.
    state: String,
    paired: bool,
}

/// What `list` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The states on which later pushes build.
    Kept,
    /// The interrupted pushes.
    Partials,
    /// The copies that the receivers reported.
    Copies,
}

/// Shows the kept states, or the interrupted pushes.
pub async fn run(
    mut client: Sender,
    target: Option<OsString>,
    what: What,
    output: &Output,
) -> Outcome {
    let request = match target {
        Some(target) => {
            let target = plan::parse(&target)?;
            ListRequest {
                receiver: target.receiver.to_string(),
                volume: plan::volume_bytes(&target.volume),
                copies: what == What::Copies,
            }
        }
        None => ListRequest {
            copies: what == What::Copies,
            ..ListRequest::default()
        },
    };
    let answer = client
        .list(request)
        .await
        .map_err(client::failed)?
        .into_inner();
    outcome::check(answer.problem)?;
    if what == What::Copies {
        held::copies(answer.held, output);
        return Ok(ExitCode::SUCCESS);
    }
    if what == What::Partials {
        match (answer.interrupted.is_empty(), answer.not_looked_at.len()) {
            (true, 1..) => output
                .note("no interrupted push was found on the file systems that could be checked"),
            _ => partials::of_sender(answer.interrupted, output),
        }
    } else if output.is_json() {
        for kept in answer.snapshots {
            output.result(&json(kept), String::new);
        }
    } else if answer.snapshots.is_empty() {
        output.note(match answer.not_looked_at.len() {
            0 => "no state is retained: no push was acknowledged, or its states were deleted",
            _ => "no state was found on the file systems that could be checked",
        });
    } else {
        show(answer.snapshots, output);
    }
    if what == What::Kept {
        held::summary(answer.held, output);
    }
    not_looked_at::show(answer.not_looked_at, output);
    Ok(ExitCode::SUCCESS)
}

fn show(snapshots: Vec<KeptSnapshot>, output: &Output) {
    let mut titles = vec![
        "volume",
        "receiver",
        "taken",
        "age",
        "uuid",
        "size",
        "state",
        "copy held by",
        "why it is kept",
    ];
    // The disk is of interest only where disks take turns.
    let disks: BTreeSet<_> = snapshots
        .iter()
        .map(|kept| (&kept.receiver, &kept.root_id))
        .collect();
    let receivers: BTreeSet<_> = disks.iter().map(|(receiver, _)| receiver).collect();
    let take_turns = disks.len() > receivers.len();
    let rows = snapshots.into_iter().map(|kept| {
        let disk = output::uuid(&kept.root_id);
        let mut row = row(kept);
        if take_turns {
            row.insert(2, output::short_id(&disk));
        }
        row
    });
    let rows = rows.collect();
    if take_turns {
        titles.insert(2, "disk");
    }
    output.result(&(), || table(&titles, rows));
}

/// Makes the JSON object of a state.
pub fn json(kept: KeptSnapshot) -> KeptJson {
    KeptJson {
        age_seconds: output::age(kept.taken_at).as_secs(),
        time: name(kept.taken_at),
        volume: kept.volume,
        receiver: kept.receiver,
        uuid: output::uuid(&kept.uuid),
        taken_at: output::time_json(kept.taken_at),
        kind: kept.kind,
        foreign_host: Some(kept.foreign_host).filter(|host| !host.is_empty()),
        state: kept.state,
        root: Some(output::uuid(&kept.root_id)).filter(|_| !kept.root_id.is_empty()),
        acknowledged_at: match kept.acknowledged_at {
            0 => None,
            at => output::time_json(at),
        },
        holders: kept.holders.into_iter().map(holder).collect(),
        reason: kept.reason,
        reason_code: kept.reason_code,
        sendshot_bytes: Some(kept.sendshot_bytes).filter(|bytes| *bytes > 0),
        hashes_bytes: kept.hashes_bytes,
    }
}

fn holder(holder: Holder) -> HolderJson {
    HolderJson {
        receiver: holder.receiver,
        receiver_id: output::uuid(&holder.receiver_id),
        state: holder.state,
        paired: holder.paired,
    }
}

/// The name of copies taken at that time.
fn name(taken_at: i64) -> String {
    let time = jiff::Timestamp::from_second(taken_at).unwrap_or_default();
    CopyName::from_time(time).to_string()
}

/// The size of a state on disk, for users.
pub fn size(kept: &KeptSnapshot) -> String {
    match (kept.sendshot_bytes, kept.hashes_bytes) {
        (0, _) => "snapshot".to_owned(),
        (bytes, 0) => human::bytes_human(bytes),
        (bytes, hashes) => format!(
            "{} + {} hashes",
            human::bytes_human(bytes),
            human::bytes_human(hashes)
        ),
    }
}

/// Receiver and volume, time and UUID: enough for `forget`.
pub fn one_line(kept: &KeptSnapshot) -> String {
    let uuid = output::uuid(&kept.uuid);
    let time = name(kept.taken_at);
    format!("{}:{} {time} {uuid}", kept.receiver, kept.volume)
}

fn held_by(holders: &[Holder]) -> String {
    let name = |holder: &Holder| {
        let mut name = holder.receiver.clone();
        if holder.state != "acknowledged" {
            name += " (unconfirmed)";
        }
        if !holder.paired {
            name += " (not paired)";
        }
        name
    };
    let names: Vec<String> = holders.iter().map(name).collect();
    names.join(", ")
}

fn row(kept: KeptSnapshot) -> Vec<String> {
    let (size, holders) = (size(&kept), held_by(&kept.holders));
    vec![
        kept.volume,
        kept.receiver,
        output::time(kept.taken_at),
        human::duration(output::age(kept.taken_at)),
        output::uuid(&kept.uuid),
        size,
        kept.state,
        holders,
        kept.reason,
    ]
}
