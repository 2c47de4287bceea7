//! The status of the sender.

use std::time::Duration;

use sendshot_model::human;
use sendshot_proto::problem::Problem;
use sendshot_proto::report::lossy;
use sendshot_proto::v1::last_push::Outcome as Ended;
use sendshot_proto::v1::{
    DiskSuccess, LastPush, ReplicationState, RunningPush, StatusRequest, StatusResponse,
};
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
    replications: Vec<ReplicationJson>,
}

/// A volume and a receiver.
#[derive(Serialize)]
struct ReplicationJson {
    volume: String,
    receiver: String,
    /// The receiver's disk to which it was pushed last.
    root: Option<String>,
    /// Name of the newest copy there that is known.
    newest: Option<String>,
    /// When the receiver last had the present state.
    fresh_at: Option<String>,
    age_seconds: Option<u64>,
    /// Age from which it is too old; `null` for never.
    max_age_seconds: Option<u64>,
    too_old: bool,
    /// Whether nothing has changed since.
    unchanged: bool,
    schedule: Option<String>,
    next_run: Option<String>,
    /// `null` if it is not paused; `never` for a pause without an end.
    paused_until: Option<String>,
    running: Option<RunningJson>,
    trouble: Option<String>,
    /// Whether this is about another disk of the receiver than the one that was pushed to last.
    other_disk: bool,
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
    applied_bytes: u64,
    /// `null` if it is not known.
    total_bytes: Option<u64>,
    /// Bytes a second.
    rate: u64,
    eta_seconds: Option<u64>,
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
    /// Where the stream was resumed, in bytes from its start, if it was.
    resumed_at: Option<u64>,
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
        replications: answer.replications.into_iter().map(replication).collect(),
    }
}

fn replication(state: ReplicationState) -> ReplicationJson {
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let age = (state.fresh_at != 0).then(|| output::age(state.fresh_at).as_secs());
    let max_age = (state.max_age != 0).then_some(state.max_age);
    ReplicationJson {
        volume: state.volume,
        receiver: state.receiver,
        root: (!state.root_id.is_empty()).then(|| output::uuid(&state.root_id)),
        newest: some(state.newest),
        fresh_at: output::time_json(state.fresh_at),
        age_seconds: age,
        max_age_seconds: max_age,
        too_old: max_age.is_some_and(|max| age.is_none_or(|age| age > max)),
        unchanged: state.unchanged,
        schedule: some(state.schedule),
        next_run: output::time_json(state.next_run),
        paused_until: match state.paused_until {
            0 => None,
            until if until < 0 => Some("never".to_owned()),
            until => output::time_json(until),
        },
        running: state.running.map(running),
        trouble: some(state.trouble),
        other_disk: state.other_disk,
    }
}

fn running(running: RunningPush) -> RunningJson {
    let total = Some(running.total_bytes).filter(|total| *total > 0);
    RunningJson {
        push: output::uuid(&running.push_id),
        volume: running.volume,
        receiver: running.receiver,
        stage: running.stage,
        stream_bytes: running.stream_bytes,
        seconds: running.seconds,
        applied_bytes: running.applied_bytes,
        total_bytes: total,
        rate: running.rate,
        eta_seconds: total.and_then(|total| {
            total
                .saturating_sub(running.applied_bytes)
                .checked_div(running.rate)
        }),
    }
}

fn last(last: LastPush) -> LastJson {
    let (done, error) = match last.outcome {
        Some(Ended::Done(report)) => (Some(report), None),
        Some(Ended::Failed(problem)) => (None, Some(problem.message)),
        None => (None, None),
    };
    LastJson {
        volume: last.volume,
        receiver: last.receiver,
        ended_at: output::time_json(last.ended_at),
        last_success: output::time_json(last.last_success),
        disks: last.disks.iter().map(disk).collect(),
        stream_bytes: done.as_ref().map(|report| report.stream_bytes),
        resumed_at: done.as_ref().and_then(|report| report.resumed_at),
        copy: done.map(|report| report.copy),
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
        "Volumes",
        &[
            "volume",
            "receiver",
            "newest copy",
            "age",
            "now",
            "next run",
        ],
        status.replications.iter().map(replication_row).collect(),
        "none is configured with a receiver, and none was pushed by its path",
    );
    let troubles: Vec<Vec<String>> = troubles(status);
    if !troubles.is_empty() {
        section("Trouble", &["where", "what"], troubles, "none");
    }
    let left_out = status
        .volumes
        .iter()
        .filter(|volume| !volume.skipped.is_empty());
    let left_out: Vec<_> = left_out
        .map(|volume| vec![volume.name.clone(), human::few(&volume.skipped)])
        .collect();
    if !left_out.is_empty() {
        section(
            "Nested subvolumes that are left out",
            &["volume", "paths"],
            left_out,
            "none",
        );
    }
    if !status.drills.is_empty() {
        let rows = status.drills.iter().map(drill_row).collect();
        let head = ["volume", "receiver", "ended", "outcome"];
        section("Restore drills", &head, rows, "none");
    }
    section(
        "Receivers",
        &["name", "address", "id"],
        status
            .receivers
            .iter()
            .map(|r| vec![r.name.clone(), r.address.clone(), r.receiver_id.clone()])
            .collect(),
        "none is paired; begin with `sendshotctl pair HOST`",
    );
    text
}

fn replication_row(state: &ReplicationJson) -> Vec<String> {
    let never = || "never".to_owned();
    let mut age = match state.age_seconds {
        None => never(),
        Some(age) => human::duration(Duration::from_secs(age)),
    };
    if state.too_old {
        let max = Duration::from_secs(state.max_age_seconds.unwrap_or(0));
        age += &format!(", over {}", human::duration(max));
    }
    let now = match (&state.running, &state.trouble, state.unchanged) {
        (Some(running), ..) => running_text(running),
        (None, Some(_), _) => "trouble, see below".to_owned(),
        (None, None, true) => "unchanged".to_owned(),
        (None, None, false) => String::new(),
    };
    let next = match (&state.paused_until, &state.next_run, &state.schedule) {
        (Some(until), ..) if until == "never" => "paused until `sendshotctl continue`".to_owned(),
        (Some(until), ..) => format!("paused until {until}"),
        (None, Some(next), Some(schedule)) => format!("{next} ({schedule})"),
        (None, None, Some(schedule)) => schedule.clone(),
        (None, _, None) if state.other_disk => "when it is there".to_owned(),
        (None, _, None) => "by command".to_owned(),
    };
    let disk = state.root.as_deref().map(output::short_id);
    vec![
        state.volume.clone(),
        match disk {
            Some(disk) => format!("{} ({disk})", state.receiver),
            None => state.receiver.clone(),
        },
        state.newest.clone().unwrap_or_else(never),
        age,
        now,
        next,
    ]
}

/// The stage of a push; during the transfer with percent, rate and the time that is left.
fn running_text(running: &RunningJson) -> String {
    if running.stage != "transfer" {
        return running.stage.clone();
    }
    let mut text = match running.total_bytes {
        Some(total) if total > 0 => {
            format!(
                "transfer {} %",
                running.applied_bytes.min(total) * 100 / total
            )
        }
        Some(_) | None => format!("transfer {}", human::bytes_human(running.applied_bytes)),
    };
    if running.rate > 0 {
        text += &format!(", {}/s", human::bytes_human(running.rate));
    }
    if let Some(eta) = running.eta_seconds {
        text += &format!(", {} left", human::duration(Duration::from_secs(eta)));
    }
    text
}

/// What is wrong, each with where.
fn troubles(status: &StatusJson) -> Vec<Vec<String>> {
    let of_push = |state: &ReplicationJson| {
        let trouble = state.trouble.clone()?;
        let place = format!("{}:{}", state.receiver, state.volume);
        Some(vec![place, format!("the last push failed: {trouble}")])
    };
    let of_volume = |volume: &VolumeJson| {
        let problem = volume.problem.clone()?;
        Some(vec![volume.name.clone(), problem])
    };
    let of_receiver = |receiver: &ReceiverJson| {
        let problem = receiver.problem.clone()?;
        Some(vec![receiver.name.clone(), problem])
    };
    let pushes = status.replications.iter().filter_map(of_push);
    let volumes = status.volumes.iter().filter_map(of_volume);
    let receivers = status.receivers.iter().filter_map(of_receiver);
    pushes.chain(volumes).chain(receivers).collect()
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

fn disk(disk: &DiskSuccess) -> DiskJson {
    DiskJson {
        root: output::uuid(&disk.root_id),
        last_success: output::time_json(disk.last_success),
    }
}
