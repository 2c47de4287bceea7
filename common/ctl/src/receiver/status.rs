//! The status of the receiver.

use std::time::Duration;

use sendshot_model::human;
use sendshot_proto::problem::Problem;
use sendshot_proto::v1::{
    ReceivedVolume, ReceiverStatusRequest, ReceiverStatusResponse, UndeletableCopies,
};
use serde::Serialize;

use crate::client::{self, Receiver};
use crate::outcome;
use crate::output::{self, Output, table};
use crate::receiver::partials::{self, PartialJson};

#[derive(Serialize)]
struct StatusJson {
    daemon: &'static str,
    software: String,
    receiver_id: String,
    root: String,
    /// Why the disk cannot be read.
    disk_problem: Option<String>,
    disk: Option<DiskJson>,
    /// Why no copy is deleted by a rule now.
    clock_trouble: Option<String>,
    incoming: Vec<PartialJson>,
    /// `null` if the disk cannot be read.
    volumes: Option<Vec<VolumeJson>>,
}

#[derive(Serialize)]
struct DiskJson {
    id: String,
    free_bytes: u64,
    total_bytes: u64,
    min_free_bytes: u64,
}

#[derive(Serialize)]
struct VolumeJson {
    sender: String,
    volume: String,
    copies: u64,
    newest: Option<String>,
    newest_at: Option<String>,
    age_seconds: Option<u64>,
    /// When the sender last reported that it was unchanged.
    confirmed_at: Option<String>,
    /// The pause of the sender's schedule at that time: `never` without an end.
    paused_until: Option<String>,
    max_age_seconds: Option<u64>,
    /// Whether neither a copy nor a report came for longer than that.
    silent: bool,
    rule: String,
    /// Why none of its copies may be deleted.
    trouble: Option<String>,
    /// Why the next run must be confirmed.
    asks: Option<String>,
    undeletable: Vec<UndeletableJson>,
}

/// Copies that no rule may delete until an administrator decides.
#[derive(Serialize)]
struct UndeletableJson {
    count: u64,
    reason: String,
}

/// Shows the status.
pub async fn show(client: &mut Receiver, output: &Output) -> Result<(), Problem> {
    let answer = client
        .status(ReceiverStatusRequest {})
        .await
        .map_err(client::failed)?;
    let mut answer = answer.into_inner();
    outcome::check(answer.problem.take())?;
    let status = json(answer);
    output.result(&status, || text(&status));
    Ok(())
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn json(answer: ReceiverStatusResponse) -> StatusJson {
    StatusJson {
        daemon: "receiver",
        software: answer.software,
        receiver_id: output::uuid(&answer.receiver_id),
        root: answer.root,
        disk_problem: some(answer.disk_problem),
        disk: (!answer.root_id.is_empty()).then(|| DiskJson {
            id: output::uuid(&answer.root_id),
            free_bytes: answer.free_bytes,
            total_bytes: answer.total_bytes,
            min_free_bytes: answer.min_free_bytes,
        }),
        clock_trouble: some(answer.clock_trouble),
        incoming: answer
            .incoming
            .into_iter()
            .map(partials::partial_json)
            .collect(),
        volumes: answer
            .is_read
            .then(|| answer.volumes.into_iter().map(volume).collect()),
    }
}

fn volume(volume: ReceivedVolume) -> VolumeJson {
    let is_there = volume.newest_at != 0;
    let max_age = (volume.max_age != 0).then_some(volume.max_age);
    let heard = output::age(volume.newest_at.max(volume.confirmed_at)).as_secs();
    VolumeJson {
        sender: volume.sender,
        volume: volume.volume,
        copies: volume.copies,
        newest: some(volume.newest),
        newest_at: is_there.then(|| output::time(volume.newest_at)),
        age_seconds: is_there.then(|| output::age(volume.newest_at).as_secs()),
        confirmed_at: output::time_json(volume.confirmed_at),
        paused_until: match volume.paused_until {
            0 => None,
            until if until < 0 => Some("never".to_owned()),
            until => output::time_json(until),
        },
        max_age_seconds: max_age,
        silent: max_age.is_some_and(|max| heard > max),
        rule: volume.rule,
        trouble: some(volume.trouble),
        asks: some(volume.asks),
        undeletable: volume.undeletable.into_iter().map(undeletable).collect(),
    }
}

fn undeletable(copies: UndeletableCopies) -> UndeletableJson {
    UndeletableJson {
        count: copies.count,
        reason: copies.reason,
    }
}

fn text(status: &StatusJson) -> String {
    let mut text = format!("{}, id {}\n", status.software, status.receiver_id);
    if let Some(disk) = &status.disk {
        text += &format!(
            "{} on disk {}: {} of {} free; no push begins below {}\n",
            status.root,
            output::short_id(&disk.id),
            human::bytes_human(disk.free_bytes),
            human::bytes_human(disk.total_bytes),
            human::bytes_human(disk.min_free_bytes)
        );
    }
    if let Some(problem) = &status.disk_problem {
        text += &format!("trouble: {problem}\n");
    }
    let has_rule = |volume: &VolumeJson| !volume.rule.starts_with("all;");
    if let Some(trouble) = &status.clock_trouble
        && status.volumes.iter().flatten().any(has_rule)
    {
        text += &format!("trouble: no copy is deleted by its rule: {trouble}\n");
    }
    text += "\nIncoming\n";
    text += &match status.incoming.is_empty() {
        true => "  nothing\n".to_owned(),
        false => table(
            &["sender", "volume", "state", "applied"],
            status.incoming.iter().map(incoming_row).collect(),
        ),
    };
    text += "\nCopies\n";
    text += &match status.volumes.as_deref() {
        None => "  unknown: the disk cannot be read\n".to_owned(),
        Some([]) => "  none yet; begin with `sendshotctl peer invite NAME`\n".to_owned(),
        Some(volumes) => table(
            &["sender", "volume", "copies", "newest", "age", "note"],
            volumes.iter().map(volume_row).collect(),
        ),
    };
    text
}

fn incoming_row(partial: &PartialJson) -> Vec<String> {
    vec![
        partial.sender.clone(),
        partial.volume.clone(),
        partial.state.clone(),
        human::bytes_human(partial.applied()),
    ]
}

fn volume_row(volume: &VolumeJson) -> Vec<String> {
    let age = volume.age_seconds.map(Duration::from_secs);
    let asks = volume
        .asks
        .as_ref()
        .map(|why| format!("asks before it deletes: {why} (`sendshotctl copy prune --dry-run`)"));
    let trouble = volume.trouble.as_ref();
    let trouble = trouble.map(|why| format!("deletes nothing: {why}"));
    let counts = volume.undeletable.iter();
    let counts: Vec<String> = counts
        .map(|of| format!("{} {}", of.count, of.reason))
        .collect();
    let confirmed = volume.confirmed_at.as_ref();
    let confirmed = confirmed.map(|at| format!("unchanged, confirmed {at}"));
    let silent = volume.silent.then(|| {
        let max = Duration::from_secs(volume.max_age_seconds.unwrap_or(0));
        format!(
            "SILENT: neither a copy nor a report for over {}",
            human::duration(max)
        )
    });
    let paused = volume.paused_until.as_ref();
    let paused = paused.map(|until| match until.as_str() {
        "never" => "its sender has paused it".to_owned(),
        until => format!("its sender has paused it until {until}"),
    });
    let counts = (!counts.is_empty()).then(|| format!("no rule deletes {}", counts.join(", ")));
    let notes: Vec<String> = [silent, trouble, asks, paused, confirmed, counts]
        .into_iter()
        .flatten()
        .collect();
    vec![
        volume.sender.clone(),
        volume.volume.clone(),
        volume.copies.to_string(),
        volume.newest.clone().unwrap_or_else(|| "none".to_owned()),
        age.map_or_else(String::new, human::duration),
        notes.join("; "),
    ]
}
