//! `sendshotctl history`, of either daemon.

use std::path::PathBuf;
use std::time::Duration;

use sendshot_model::history::{Entry, Head, ReceiverEvent, Selection, SenderEvent};
use sendshot_model::{PeerName, VolumeName, human};
use sendshot_proto::problem::{Kind, Problem};
use sendshot_proto::v1::HistoryRequest;
use serde::Deserialize;

use crate::arguments::HistoryArguments;
use crate::client;
use crate::daemons::{self, Daemon};
use crate::outcome::{self, Outcome};
use crate::output::{Output, table};

/// An event of either side.
#[derive(Deserialize)]
#[serde(untagged)]
enum Event {
    Sender(SenderEvent),
    Receiver(ReceiverEvent),
}

/// Shows the selected events, the oldest first.
pub async fn run(arguments: HistoryArguments, socket: Option<PathBuf>, output: &Output) -> Outcome {
    let request = HistoryRequest::from(&selection(&arguments)?);
    let mut daemons = daemons::connect(arguments.daemon, socket).await?;
    let is_both = daemons.len() > 1;
    let show = async |daemon: &mut Daemon| show(daemon, request.clone(), is_both, output).await;
    daemons::each(&mut daemons, output, show).await
}

/// Shows the events of one daemon.
async fn show(
    daemon: &mut Daemon,
    request: HistoryRequest,
    is_both: bool,
    output: &Output,
) -> Result<(), Problem> {
    let label = is_both.then(|| daemon.label());
    let parts = match daemon {
        Daemon::Sender(client) => client.history(request).await,
        Daemon::Receiver(client) => client.history(request).await,
    };
    let mut parts = parts.map_err(client::failed)?.into_inner();
    let mut rows = Vec::new();
    let mut is_empty = true;
    while let Some(part) = parts.message().await.map_err(client::failed)? {
        outcome::check(part.problem)?;
        is_empty &= part.lines.is_empty();
        match output.is_json() {
            true => part.lines.iter().for_each(|line| output.stored(line)),
            false => rows.extend(part.lines.iter().filter_map(|line| row(line))),
        }
    }
    if let Some(label) = label.filter(|_| !output.is_json()) {
        output.result(&(), || format!("== {label} =="));
    }
    if is_empty {
        output.note("nothing is recorded that matches");
    } else if !output.is_json() {
        output.result(&(), || table(&["time", "what", "where", "detail"], rows));
    }
    Ok(())
}
fn selection(arguments: &HistoryArguments) -> Result<Selection, Problem> {
    let usage = |e: &dyn std::error::Error| Problem::from_error(Kind::Usage, e);
    let (peer, volume) = match arguments.target.as_deref() {
        None => (None, None),
        Some(target) => match target.split_once(':') {
            None => (Some(target), None),
            Some((peer, volume)) => (Some(peer), Some(volume)),
        },
    };
    Ok(Selection {
        since: arguments.since,
        peer: peer
            .map(PeerName::parse)
            .transpose()
            .map_err(|e| usage(&e))?,
        volume: volume
            .map(VolumeName::parse)
            .transpose()
            .map_err(|e| usage(&e))?,
    })
}

/// Makes the row of an event. Of one that this version does not know, it shows what all events have.
fn row(line: &str) -> Option<Vec<String>> {
    let head: Head = serde_json::from_str(line).ok()?;
    let entry: Option<Entry<Event>> = serde_json::from_str(line).ok();
    let peer = head.peer.unwrap_or_default();
    Some(vec![
        human::utc(head.at.as_second()),
        head.event.replace('_', " "),
        match head.volume {
            Some(volume) => format!("{peer}:{volume}"),
            None => peer,
        },
        match entry.map(|entry| entry.event) {
            Some(Event::Sender(event)) => of_sender(event),
            Some(Event::Receiver(event)) => of_receiver(event),
            None => String::new(),
        },
    ])
}

fn of_sender(event: SenderEvent) -> String {
    match event {
        SenderEvent::Pushed {
            copy,
            stream_bytes,
            seconds,
            parent,
            earlier,
            ..
        } => {
            let how = match parent {
                Some(_) => "",
                None if stream_bytes == 0 => ", which the receiver had already",
                None => ", full",
            };
            let earlier = match earlier.len() {
                0 => String::new(),
                n => format!(", after {n} earlier"),
            };
            format!("{copy}, {}{how}{earlier}", amount(stream_bytes, seconds))
        }
        SenderEvent::Failed { error, .. } => error,
        SenderEvent::Pruned { uuids, reason, .. } => {
            let states = match uuids.len() {
                1 => "1 retained state".to_owned(),
                n => format!("{n} retained states"),
            };
            format!("{states}: {reason}")
        }
        SenderEvent::Restored { copy, in_place, .. } => match in_place {
            true => format!("{copy}, in the place of the volume"),
            false => copy,
        },
    }
}

fn of_receiver(event: ReceiverEvent) -> String {
    match event {
        ReceiverEvent::Received {
            copy,
            stream_bytes,
            seconds,
            ..
        } => format!("{copy}, {}", amount(stream_bytes, seconds)),
        ReceiverEvent::Failed { error, .. } => error,
        ReceiverEvent::Fetched {
            copy, bytes, by, ..
        } => format!("{copy}, {} by its {by}", human::bytes_human(bytes)),
        ReceiverEvent::Granted { until, by, .. } => {
            let until = human::utc(until.as_second());
            format!("its {by} can read copies until {until}")
        }
        ReceiverEvent::GrantEnded { by, .. } => format!("its {by} could read copies"),
        ReceiverEvent::Pruned { copies, reason, .. } => {
            format!("{} {reason}", human::few(&copies))
        }
        ReceiverEvent::Held { copy, reason, .. } => format!("{copy}: {reason}"),
        ReceiverEvent::Released { copy, .. } => copy,
        ReceiverEvent::Withdrawn { .. }
        | ReceiverEvent::Paired { .. }
        | ReceiverEvent::Revoked { .. } => String::new(),
    }
}

fn amount(bytes: u64, seconds: f64) -> String {
    let time = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    format!("{} in {}", human::bytes_human(bytes), human::duration(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_has_a_row() {
        let at = r#""at":"2026-11-22T03:00:00.5Z""#;
        for (event, expected) in [
            (
                r#""event":"pushed","receiver":"nas2","volume":"photos","copy":"20261122T025950Z","uuid":"7f3b3e3e-5d2c-4ec0-9d57-6c4c5f1f2a01","stream_bytes":1048576,"seconds":9.5"#,
                "pushed|nas2:photos|20261122T025950Z, 1.0 MiB in 9.5 s, full",
            ),
            (
                r#""event":"failed","sender":"nas1","volume":"photos","error":"the disk is full""#,
                "failed|nas1:photos|the disk is full",
            ),
            (
                r#""event":"grant_ended","sender":"nas1","by":"own key""#,
                "grant ended|nas1|its own key could read copies",
            ),
            (
                r#""event":"painted","sender":"nas1","colour":"blue""#,
                "painted|nas1|",
            ),
        ] {
            let row = row(&format!("{{{at},{event}}}")).unwrap();
            assert_eq!(row[0], "2026-11-22 03:00:00Z");
            assert_eq!(row[1..].join("|"), expected);
        }
        assert_eq!(row("{}"), None);
    }
}
