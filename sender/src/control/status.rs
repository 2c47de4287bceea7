//! `sendshotctl status`.

use std::io;
use std::sync::Arc;

use jiff::Timestamp;
use sendshot_config::{ReceiverEntry, VolumeConfig};
use sendshot_identity::{CaFingerprint, Validity};
use sendshot_model::{PeerName, VolumeName};
use sendshot_proto::hello::software;
use sendshot_proto::problem::{Kind, Problem};
use sendshot_proto::report::path_bytes;
use sendshot_proto::{malformed, v1};
use tonic::Status;

use super::{replications, running};
use crate::push::error::Error as NotPushed;
use crate::shared::blocking::blocking;
use crate::shared::drills::{self, Drill};
use crate::shared::last_pushes::{Last, Outcome};
use crate::shared::probes::Patience;
use crate::shared::sender::Sender;
use crate::volume::resolve;

/// Reports the running pushes, how the last pushes ended, and what is configured and paired.
///
/// # Errors
/// If the files of the paired receivers cannot be read.
pub(super) async fn answer(sender: &Arc<Sender>) -> Result<v1::StatusResponse, Status> {
    let receivers = match sender.receivers().await {
        Ok(receivers) => receivers,
        Err(error) => {
            let problem = Problem::from(error);
            return Err(Status::failed_precondition(problem.message));
        }
    };
    let looking = Arc::clone(sender);
    let volumes = blocking("status", move || volume_states(&looking)).await;
    let volumes = volumes.map_err(|e| Status::internal(e.to_string()))?;
    Ok(v1::StatusResponse {
        software: software("sendshot-sender"),
        sender_id: sender.id().to_bytes().to_vec(),
        running: sender.table().all().iter().map(running::describe).collect(),
        last: sender.last_pushes().all().into_iter().map(last).collect(),
        receivers: receivers
            .into_iter()
            .map(|(name, entry)| receiver_state(&name, &entry))
            .collect(),
        volumes,
        drills: drills(sender).await,
        replications: replications::all(sender).await?,
        metrics_trouble: sender.metrics_trouble().get().unwrap_or_default(),
    })
}

async fn drills(sender: &Arc<Sender>) -> Vec<v1::DrillState> {
    let state_dir = sender.paths().state_dir.clone();
    let read = blocking("status", move || drills::all(&state_dir)).await;
    let all = read.ok().and_then(Result::ok).unwrap_or_default();
    let state = |drill: Drill| v1::DrillState {
        volume: drill.volume,
        receiver: drill.receiver.to_string(),
        ended_at: drill.ended_at,
        copy: drill.copy.unwrap_or_default(),
        error: drill.error.unwrap_or_default(),
    };
    all.into_iter().map(state).collect()
}

fn receiver_state(name: &PeerName, entry: &ReceiverEntry) -> v1::ReceiverState {
    let validity = Validity::of_pem(&entry.client_certificate);
    let ends_soon = validity.is_some_and(|validity| validity.ends_soon(Timestamp::now()));
    v1::ReceiverState {
        name: name.to_string(),
        address: entry.address.to_string(),
        receiver_id: entry.receiver_id.to_bytes().to_vec(),
        fingerprint: CaFingerprint::of_pem(&entry.ca_certificate)
            .map(|fingerprint| fingerprint.to_string())
            .unwrap_or_default(),
        certificate_ends: validity.map_or(0, |validity| validity.not_after.as_second()),
        problem: if ends_soon {
            format!(
                "the certificate for {name} expires soon: renew it with a push to {name}, or pair again"
            )
        } else {
            String::new()
        },
    }
}

fn last(last: Last) -> v1::LastPush {
    use v1::last_push::Outcome as Wire;
    v1::LastPush {
        volume: last.volume.to_string(),
        receiver: last.receiver.to_string(),
        ended_at: last.ended_at,
        last_success: last.last_success.unwrap_or(0),
        disks: last
            .disks
            .into_iter()
            .map(|(root, last_success)| v1::DiskSuccess {
                root_id: malformed::root_bytes(Some(root)),
                last_success,
            })
            .collect(),
        outcome: Some(match last.outcome {
            Outcome::Done(report) => Wire::Done((*report).into()),
            Outcome::Failed(message) => Wire::Failed(Problem::new(Kind::Failed, message).into()),
        }),
    }
}

fn volume_states(sender: &Sender) -> Vec<v1::VolumeState> {
    let config = sender.config();
    let state = |(name, configured): (&VolumeName, &VolumeConfig)| {
        let found = match sender.probes().read(&configured.path, Patience::Short) {
            Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                Err(Problem::from(NotPushed::NoAnswer(configured.path.clone())))
            }
            Ok(_) | Err(_) => resolve::look(name, configured).map_err(Problem::from),
        };
        let (skipped, problem) = match found {
            Ok(skipped) => (skipped, String::new()),
            Err(error) => (Vec::new(), in_a_line(error)),
        };
        v1::VolumeState {
            name: name.to_string(),
            path: path_bytes(&configured.path),
            receivers: configured
                .receivers
                .iter()
                .map(PeerName::to_string)
                .collect(),
            skipped: skipped.iter().map(|path| path_bytes(path)).collect(),
            problem,
        }
    };
    config.volumes.iter().map(state).collect()
}

fn in_a_line(problem: Problem) -> String {
    match problem.remedy.as_str() {
        "" => problem.message,
        remedy => format!("{} ({remedy})", problem.message),
    }
}
