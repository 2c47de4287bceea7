//! `sendshotctl summary`: what happened in a week and how it stands, as a page for mail.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sendshot_model::history::{Entry, Head, ReceiverEvent, Selection, SenderEvent};
use sendshot_model::{human, printable};
use sendshot_proto::problem::Problem;
use sendshot_proto::v1::{
    HistoryRequest, ReceiverStatusRequest, ReceiverStatusResponse, StatusRequest, StatusResponse,
};
use serde::Serialize;

use crate::arguments::SummaryArguments;
use crate::check::{self, Checked, Finding};
use crate::client;
use crate::daemons::{self, Daemon};
use crate::outcome::{self, Outcome};
use crate::output::{Output, age, table, time_json};

/// The time that is summed up by default.
const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What has happened to one volume of one peer.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
struct Tally {
    done: u64,
    failed: u64,
    stream_bytes: u64,
    deleted: u64,
}

/// A line of the summary.
#[derive(Debug, Serialize)]
struct Row {
    peer: String,
    volume: String,
    /// When the newest copy was made, or found to be still the present state.
    fresh_at: Option<String>,
    #[serde(skip)]
    fresh: i64,
    /// Copies, on the receiver.
    #[serde(skip_serializing_if = "Option::is_none")]
    copies: Option<u64>,
    #[serde(flatten)]
    tally: Tally,
}

/// What one daemon says.
#[derive(Debug, Default, Serialize)]
struct Part {
    daemon: &'static str,
    volumes: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    free_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_bytes: Option<u64>,
}

#[derive(Serialize)]
struct SummaryJson {
    host: String,
    since: String,
    state: check::Level,
    findings: Vec<Finding>,
    daemons: Vec<Part>,
}

/// Prints the summary; with `mail_to` as a mail with its head.
pub async fn run(arguments: SummaryArguments, socket: Option<PathBuf>, output: &Output) -> Outcome {
    let since = match arguments.since {
        Some(since) => since,
        None => Timestamp::now() - WEEK,
    };
    let mut checked = check::gather(arguments.daemon, socket.clone(), None).await;
    let mut parts = Vec::new();
    // What does not answer is a finding already: a page is made all the same.
    let daemons = daemons::connect(arguments.daemon, socket).await;
    for daemon in daemons.into_iter().flatten().flatten() {
        let label = daemon.label().to_lowercase();
        match part(daemon, since).await {
            Ok(part) => parts.push(part),
            Err(problem) => checked.add_unknown(&label, &problem),
        }
    }
    let host = host_name();
    let page = || page(&host, since, &checked, &parts);
    let text = || match &arguments.mail_to {
        None => page(),
        Some(to) => format!(
            "To: {}\nSubject: Sendshot on {host}: {}\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\nAuto-Submitted: auto-generated\n\n{}",
            printable(to),
            checked.state(),
            page()
        ),
    };
    let text = text();
    let json = SummaryJson {
        host: host.clone(),
        since: since.to_string(),
        state: checked.state(),
        findings: checked.findings.clone(),
        daemons: parts,
    };
    output.result(&json, || text);
    Ok(ExitCode::SUCCESS)
}

fn host_name() -> String {
    let uname = rustix::system::uname();
    uname.nodename().to_string_lossy().into_owned()
}

async fn part(mut daemon: Daemon, since: Timestamp) -> Result<Part, Problem> {
    let mut tallies = tallies(&mut daemon, since).await?;
    let mut part = match daemon {
        Daemon::Sender(mut client) => {
            let status = client.status(StatusRequest {}).await;
            of_sender(&status.map_err(client::failed)?.into_inner(), &mut tallies)
        }
        Daemon::Receiver(mut client) => {
            let status = client.status(ReceiverStatusRequest {}).await;
            let status = status.map_err(client::failed)?.into_inner();
            outcome::check(status.problem.clone())?;
            of_receiver(&status, &mut tallies)
        }
    };
    // Failures of volumes that have no copy, and of those that are not configured any more.
    let left = std::mem::take(&mut tallies).into_iter();
    let left = left.map(|(key, tally)| {
        let mut all = Tallies::from([(key.clone(), tally)]);
        row(key, 0, None, &mut all)
    });
    part.volumes.extend(left);
    Ok(part)
}

type Tallies = BTreeMap<(String, String), Tally>;

async fn tallies(daemon: &mut Daemon, since: Timestamp) -> Result<Tallies, Problem> {
    let request = HistoryRequest::from(&Selection {
        since: Some(since),
        peer: None,
        volume: None,
    });
    let parts = match daemon {
        Daemon::Sender(client) => client.history(request).await,
        Daemon::Receiver(client) => client.history(request).await,
    };
    let mut parts = parts.map_err(client::failed)?.into_inner();
    let mut tallies = Tallies::new();
    while let Some(part) = parts.message().await.map_err(client::failed)? {
        outcome::check(part.problem)?;
        part.lines.iter().for_each(|line| count(&mut tallies, line));
    }
    Ok(tallies)
}

fn count(tallies: &mut Tallies, line: &str) {
    let Ok(head) = serde_json::from_str::<Head>(line) else {
        return;
    };
    let (Some(peer), Some(volume)) = (head.peer, head.volume) else {
        return;
    };
    let tally = tallies.entry((peer, volume)).or_default();
    if let Ok(entry) = serde_json::from_str::<Entry<SenderEvent>>(line) {
        match entry.event {
            SenderEvent::Pushed {
                stream_bytes,
                copy,
                earlier,
                ..
            } => {
                // A series may have had nothing to send.
                tally.done += u64::from(!copy.is_empty()) + earlier.len() as u64;
                tally.stream_bytes += stream_bytes;
            }
            SenderEvent::Failed { .. } => tally.failed += 1,
            SenderEvent::Pruned { .. } | SenderEvent::Restored { .. } => {}
        }
    } else if let Ok(entry) = serde_json::from_str::<Entry<ReceiverEvent>>(line) {
        match entry.event {
            ReceiverEvent::Received { stream_bytes, .. } => {
                tally.done += 1;
                tally.stream_bytes += stream_bytes;
            }
            ReceiverEvent::Failed { .. } => tally.failed += 1,
            ReceiverEvent::Pruned { copies, .. } => tally.deleted += copies.len() as u64,
            _ => {}
        }
    }
}

fn of_sender(status: &StatusResponse, tallies: &mut Tallies) -> Part {
    let current = status.replications.iter().filter(|state| !state.other_disk);
    let row = |state: &sendshot_proto::v1::ReplicationState| {
        let key = (state.receiver.clone(), state.volume.clone());
        row(key, state.fresh_at, None, tallies)
    };
    Part {
        daemon: "sender",
        volumes: current.map(row).collect(),
        ..Part::default()
    }
}

fn of_receiver(status: &ReceiverStatusResponse, tallies: &mut Tallies) -> Part {
    let row = |volume: &sendshot_proto::v1::ReceivedVolume| {
        let key = (volume.sender.clone(), volume.volume.clone());
        let fresh = volume.newest_at.max(volume.confirmed_at);
        row(key, fresh, Some(volume.copies), tallies)
    };
    Part {
        daemon: "receiver",
        volumes: status.volumes.iter().map(row).collect(),
        free_bytes: status.is_read.then_some(status.free_bytes),
        total_bytes: status.is_read.then_some(status.total_bytes),
    }
}

fn row(key: (String, String), fresh: i64, copies: Option<u64>, tallies: &mut Tallies) -> Row {
    let tally = tallies.remove(&key).unwrap_or_default();
    Row {
        peer: key.0,
        volume: key.1,
        fresh_at: time_json(fresh),
        fresh,
        copies,
        tally,
    }
}

fn page(host: &str, since: Timestamp, checked: &Checked, parts: &[Part]) -> String {
    let mut page = format!(
        "Sendshot on {host}, since {}: {}\n",
        human::utc(since.as_second()),
        checked.state()
    );
    if !checked.findings.is_empty() {
        page += "\nTo be looked at:\n";
    }
    for finding in &checked.findings {
        let Finding { level, place, what } = finding;
        let _ = writeln!(page, "  {level} - {place}: {what}");
    }
    for part in parts {
        let _ = write!(page, "\n{}", section(part));
    }
    page
}

fn section(part: &Part) -> String {
    let age = |row: &Row| match row.fresh {
        0 => "never".to_owned(),
        at => human::duration(Duration::from_secs(age(at).as_secs())),
    };
    let name = |row: &Row| format!("{}:{}", row.peer, row.volume);
    let bytes = |row: &Row| human::bytes_human(row.tally.stream_bytes);
    if part.volumes.is_empty() {
        return match part.daemon {
            "sender" => "Pushes: no volume is configured\n".to_owned(),
            _ => "Copies here: none\n".to_owned(),
        };
    }
    let rows = part.volumes.iter();
    match part.daemon {
        "sender" => {
            let rows = rows.map(|row| {
                let Tally { done, failed, .. } = row.tally;
                vec![
                    name(row),
                    done.to_string(),
                    failed.to_string(),
                    bytes(row),
                    age(row),
                ]
            });
            let head = ["volume", "copies", "failed", "sent", "age of the newest"];
            format!("Pushes:\n{}", table(&head, rows.collect()))
        }
        _ => {
            let rows = rows.map(|row| {
                let Tally {
                    done,
                    failed,
                    deleted,
                    ..
                } = row.tally;
                vec![
                    name(row),
                    done.to_string(),
                    failed.to_string(),
                    bytes(row),
                    deleted.to_string(),
                    row.copies.unwrap_or(0).to_string(),
                    age(row),
                ]
            });
            let head = [
                "volume",
                "new copies",
                "failed",
                "received",
                "deleted",
                "copies now",
                "age of the newest",
            ];
            let mut text = format!("Copies here:\n{}", table(&head, rows.collect()));
            if let (Some(free), Some(total)) = (part.free_bytes, part.total_bytes) {
                let (free, total) = (human::bytes_human(free), human::bytes_human(total));
                let _ = writeln!(text, "Disk: {free} of {total} free");
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_by_peer_and_volume() {
        let at = r#""at":"2026-11-22T03:00:00.5Z""#;
        let uuid = r#""uuid":"7f3b3e3e-5d2c-4ec0-9d57-6c4c5f1f2a01","stream_bytes":10,"seconds":1"#;
        let mut tallies = Tallies::new();
        for event in [
            format!(
                r#""event":"pushed","receiver":"nas2","volume":"a","copy":"c","earlier":["b"],{uuid}"#
            ),
            r#""event":"failed","receiver":"nas2","volume":"a","error":"no""#.to_owned(),
            format!(r#""event":"received","sender":"nas1","volume":"a","copy":"c",{uuid}"#),
            r#""event":"pruned","sender":"nas1","volume":"a","copies":["x","y"],"reason":"rule""#
                .to_owned(),
            r#""event":"paired","sender":"nas1""#.to_owned(),
            r#""event":"painted","sender":"nas1","volume":"a""#.to_owned(),
        ] {
            count(&mut tallies, &format!("{{{at},{event}}}"));
        }
        let of = |peer: &str| tallies[&(peer.to_owned(), "a".to_owned())].clone();
        let tally = |done, failed, deleted| Tally {
            done,
            failed,
            stream_bytes: 10,
            deleted,
        };
        assert_eq!(of("nas2"), tally(2, 1, 0));
        assert_eq!(of("nas1"), tally(1, 0, 2));
    }
}
