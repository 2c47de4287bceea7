//! The status of the sender.

use std::time::Duration;

use sendshot_model::human;
use sendshot_proto::problem::Problem;
use sendshot_proto::report::lossy;
use sendshot_proto::v1::last_push::Outcome as Ended;
use sendshot_proto::v1::{DiskSuccess, LastPush, RunningPush, StatusRequest, StatusResponse};
use serde::Serialize;

use crate::client::{self, Sender};
use crate::output::{self, Output, table};

#[derive(Serialize)]
struct StatusJson {
    daemon: &'static str,
    software: String,
    sender_id: String,
    running: Vec<RunningJson>,
    last: Vec<LastJson>,
    receivers: Vec<ReceiverJson>,
    volumes: Vec<VolumeJson>,
    drills: Vec<DrillJson>,
}

#[derive(Serialize)]
struct DrillJson {
    volume: String,
    receiver: String,
    ended_at: Option<String>,
    copy: Option<String>,
    error: Option<String>,
}

#[derive(Serialize)]
struct RunningJson {
    push: String,
    volume: String,
    receiver: String,
    stage: String,
    stream_bytes: u64,
    seconds: f64,
}

#[derive(Serialize)]
struct LastJson {
    volume: String,
    receiver: String,
    ended_at: Option<String>,
    last_success: Option<String>,
    /// The last success on each of the receiver's disks.
    disks: Vec<DiskJson>,
    copy: Option<String>,
    stream_bytes: Option<u64>,
    error: Option<String>,
}

#[derive(Serialize)]
struct ReceiverJson {
    name: String,
    address: String,
    receiver_id: String,
    certificate_ends: Option<String>,
    problem: Option<String>,
}

#[derive(Serialize)]
struct DiskJson {
    root: String,
    last_success: Option<String>,
}

#[derive(Serialize)]
struct VolumeJson {
    name: String,
    path: String,
    receivers: Vec<String>,
    skipped: Vec<String>,
    problem: Option<String>,
}

/// Shows the status.
pub async fn show(client: &mut Sender, output: &Output) -> Result<(), Problem> {
    let answer = client
        .status(StatusRequest {})
        .await
        .map_err(client::failed)?;
    let status = json(answer.into_inner());
    output.result(&status, || text(&status));
    Ok(())
}

fn json(answer: StatusResponse) -> StatusJson {
    StatusJson {
        daemon: "sender",
        software: answer.software,
        sender_id: output::uuid(&answer.sender_id),
        running: answer.running.into_iter().map(running).collect(),
        last: answer.last.into_iter().map(last).collect(),
        receivers: answer
            .receivers
            .into_iter()
            .map(|receiver| ReceiverJson {
                name: receiver.name,
                address: receiver.address,
                receiver_id: output::uuid(&receiver.receiver_id),
                certificate_ends: output::time_json(receiver.certificate_ends),
                problem: Some(receiver.problem).filter(|problem| !problem.is_empty()),
            })
            .collect(),
        volumes: answer
            .volumes
            .into_iter()
            .map(|volume| VolumeJson {
                name: volume.name,
                path: lossy(&volume.path),
                receivers: volume.receivers,
                skipped: volume.skipped.iter().map(|path| lossy(path)).collect(),
                problem: Some(volume.problem).filter(|problem| !problem.is_empty()),
            })
            .collect(),
        drills: answer
            .drills
            .into_iter()
            .map(|drill| DrillJson {
                volume: drill.volume,
                receiver: drill.receiver,
                ended_at: output::time_json(drill.ended_at),
                copy: Some(drill.copy).filter(|copy| !copy.is_empty()),
                error: Some(drill.error).filter(|error| !error.is_empty()),
            })
            .collect(),
    }
}

fn running(running: RunningPush) -> RunningJson {
    RunningJson {
        push: output::uuid(&running.push_id),
        volume: running.volume,
        receiver: running.receiver,
        stage: running.stage,
        stream_bytes: running.stream_bytes,
        seconds: running.seconds,
    }
}

fn last(last: LastPush) -> LastJson {
    let (copy, stream_bytes, error) = match last.outcome {
        Some(Ended::Done(report)) => (Some(report.copy), Some(report.stream_bytes), None),
        Some(Ended::Failed(problem)) => (None, None, Some(problem.message)),
        None => (None, None, None),
    };
    LastJson {
        volume: last.volume,
        receiver: last.receiver,
        ended_at: output::time_json(last.ended_at),
        last_success: output::time_json(last.last_success),
        disks: last.disks.iter().map(disk).collect(),
        copy,
        stream_bytes,
        error,
    }
}

fn text(status: &StatusJson) -> String {
    let mut text = format!("{}, id {}\n", status.software, status.sender_id);
    let mut section = |title: &str, head: &[&str], rows: Vec<Vec<String>>, none: &str| {
        text += &format!("\n{title}\n");
        text += &match rows.is_empty() {
            true => format!("  {none}\n"),
            false => table(head, rows),
        };
    };
    section(
        "Running",
        &["volume", "receiver", "stage", "sent", "for"],
        status.running.iter().map(running_row).collect(),
        "nothing",
    );
    section(
        "Last pushes",
        &["volume", "receiver", "ended", "outcome", "last success"],
        status.last.iter().map(last_row).collect(),
        "none yet",
    );
    if !status.drills.is_empty() {
        let rows = status.drills.iter().map(drill_row).collect();
        let head = ["volume", "receiver", "ended", "outcome"];
        section("Restore drills", &head, rows, "none");
    }
    section(
        "Volumes",
        &["name", "path", "receivers", "note"],
        status.volumes.iter().map(volume_row).collect(),
        "none is configured; paths can be pushed by root",
    );
    section(
        "Receivers",
        &["name", "address", "id", "note"],
        status
            .receivers
            .iter()
            .map(|r| {
                let note = r.problem.clone().unwrap_or_default();
                vec![
                    r.name.clone(),
                    r.address.clone(),
                    r.receiver_id.clone(),
                    note,
                ]
            })
            .collect(),
        "none is paired; begin with `sendshotctl pair HOST`",
    );
    text
}

fn running_row(running: &RunningJson) -> Vec<String> {
    let time = Duration::try_from_secs_f64(running.seconds).unwrap_or_default();
    vec![
        running.volume.clone(),
        running.receiver.clone(),
        running.stage.clone(),
        human::bytes_human(running.stream_bytes),
        human::duration(time),
    ]
}

fn last_row(last: &LastJson) -> Vec<String> {
    let outcome = match (&last.error, &last.copy) {
        (Some(error), _) => format!("failed: {error}"),
        (None, Some(copy)) => format!(
            "{copy}, {}",
            human::bytes_human(last.stream_bytes.unwrap_or(0))
        ),
        (None, None) => String::new(),
    };
    let never = || "never".to_owned();
    vec![
        last.volume.clone(),
        last.receiver.clone(),
        last.ended_at.clone().unwrap_or_else(never),
        outcome,
        match last.disks.as_slice() {
            [] | [_] => last.last_success.clone().unwrap_or_else(never),
            disks => human::few(&disks.iter().map(disk_text).collect::<Vec<_>>()),
        },
    ]
}

fn drill_row(drill: &DrillJson) -> Vec<String> {
    let outcome = match (&drill.error, &drill.copy) {
        (Some(error), _) => format!("failed: {error}"),
        (None, copy) => format!("{} can be restored", copy.as_deref().unwrap_or_default()),
    };
    vec![
        drill.volume.clone(),
        drill.receiver.clone(),
        drill.ended_at.clone().unwrap_or_default(),
        outcome,
    ]
}

fn disk_text(disk: &DiskJson) -> String {
    let id = output::short_id(&disk.root);
    let time = disk.last_success.as_deref().unwrap_or("never");
    format!("{time} on disk {id}")
}

fn disk(disk: &DiskSuccess) -> DiskJson {
    DiskJson {
        root: output::uuid(&disk.root_id),
        last_success: output::time_json(disk.last_success),
    }
}

fn volume_row(volume: &VolumeJson) -> Vec<String> {
    let note = match &volume.problem {
        Some(problem) => problem.clone(),
        None if volume.skipped.is_empty() => String::new(),
        None => format!("leaves out {}", human::few(&volume.skipped)),
    };
    vec![
        volume.name.clone(),
        volume.path.clone(),
        volume.receivers.join(", "),
        note,
    ]
}
