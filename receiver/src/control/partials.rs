//! `sendshotctl copy list --partials`: the uncommitted transfers.

use std::sync::Arc;

use sendshot_apply::staging::Area;
use sendshot_proto::failure::Failure;
use sendshot_proto::problem::Problem;
use sendshot_proto::v1;

use super::request::{blocking, failed};
use crate::receive::failures::{io_failure, staging_failure};
use crate::receive::table::TransferStatus;
use crate::shared::receiver::Receiver;
use crate::store::partials;
use crate::store::root::OpenRoot;

/// Lists the uncommitted transfers.
pub(super) async fn answer(
    receiver: &Arc<Receiver>,
    wanted: v1::CopiesRequest,
) -> Result<v1::PartialsResponse, Problem> {
    let receiver = Arc::clone(receiver);
    let listed = blocking(move || {
        let root = receiver.root().open()?;
        partial_states(&receiver, Some(&root), &wanted)
    });
    let listed = listed.await?;
    Ok(v1::PartialsResponse {
        partials: listed.map_err(failed)?,
        problem: None,
    })
}

/// Combines the partials on the disk, if it is present, with the transfers in the table.
pub(super) fn partial_states(
    receiver: &Receiver,
    root: Option<&OpenRoot>,
    wanted: &v1::CopiesRequest,
) -> Result<Vec<v1::PartialState>, Failure> {
    let failed = |e| io_failure("read the partials", &e);
    let area = root.map(Area::new).transpose().map_err(failed)?;
    let on_disk = match area.filter(Area::exists) {
        Some(area) => {
            let dir = area.dir().map_err(|e| staging_failure(&e))?;
            partials::all(dir).map_err(failed)?
        }
        None => Vec::new(),
    };
    let keep = i64::try_from(receiver.config().partial_keep.as_secs()).unwrap_or(i64::MAX);
    let mut states: Vec<v1::PartialState> = on_disk
        .iter()
        .map(|partial| v1::PartialState {
            sender: partial.record.sender_name.to_string(),
            volume: partial.record.volume_name.to_string(),
            transfer_id: partial.record.transfer.to_bytes().to_vec(),
            uuid: partial.record.uuid.as_bytes().to_vec(),
            state: "interrupted".to_owned(),
            offset: 0,
            checkpoints: partial
                .checkpoints
                .iter()
                .map(|(c, _)| c.point.offset)
                .collect(),
            since: partial.since(),
            until: partial.since().saturating_add(keep),
        })
        .collect();
    for status in receiver.transfers().statuses() {
        add_glance(&mut states, &status);
    }
    states.retain(|state| {
        let asked = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        asked(&wanted.sender, &state.sender) && asked(&wanted.volume, &state.volume)
    });
    states.sort_by(|a, b| (&a.sender, &a.volume).cmp(&(&b.sender, &b.volume)));
    Ok(states)
}

fn add_glance(states: &mut Vec<v1::PartialState>, status: &TransferStatus) {
    let transfer_id = status.transfer.to_bytes().to_vec();
    let at = match states.iter().position(|s| s.transfer_id == transfer_id) {
        Some(at) => at,
        None => {
            states.push(v1::PartialState {
                sender: status.sender.to_string(),
                volume: status.volume.to_string(),
                transfer_id,
                uuid: status.uuid.as_bytes().to_vec(),
                ..Default::default()
            });
            states.len() - 1
        }
    };
    let state = &mut states[at];
    state.offset = status.applied;
    state.state = match status.parked_at {
        Some(_) => "waiting",
        None => "running",
    }
    .to_owned();
    if status.parked_at.is_none() {
        state.until = 0;
    }
}
