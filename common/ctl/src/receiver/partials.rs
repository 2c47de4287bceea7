//! `sendshotctl list --partials` and `sendshotctl copy list --partials`: interrupted pushes, as each side
//! keeps them.

use sendshot_model::human;
use sendshot_proto::v1::{Interrupted, PartialState};
use serde::Serialize;

use crate::output::{self, Output, table};

/// An interrupted push, on the sender.
#[derive(Serialize)]
struct InterruptedJson {
    volume: String,
    receiver: String,
    push: String,
    transfer: String,
    uuid: String,
    taken_at: Option<String>,
    /// Offset at which it can resume even if both hosts lost power; 0 if nowhere.
    offset: u64,
    until: Option<String>,
    /// `interrupted`, or `unconfirmed`: everything was sent, so the receiver may have committed.
    state: &'static str,
}

/// An uncommitted transfer, on the receiver.
#[derive(Serialize)]
pub struct PartialJson {
    pub sender: String,
    pub volume: String,
    transfer: String,
    uuid: String,
    /// `running`, `waiting` for its sender, or `interrupted`.
    pub state: String,
    /// `null` if only checkpoints are left.
    offset: Option<u64>,
    checkpoints: Vec<u64>,
    since: Option<String>,
    until: Option<String>,
}

impl PartialJson {
    /// Bytes of its stream that are applied: those of its last checkpoint if only checkpoints are left.
    pub fn applied(&self) -> u64 {
        let last = self.checkpoints.iter().copied().max();
        self.offset.or(last).unwrap_or(0)
    }
}

/// Shows the interrupted pushes of the sender.
pub fn of_sender(interrupted: Vec<Interrupted>, output: &Output) {
    if output.is_json() {
        for push in interrupted {
            output.result(&interrupted_json(push), String::new);
        }
    } else if interrupted.is_empty() {
        output.note("no push was interrupted");
    } else {
        let rows = interrupted.into_iter().map(interrupted_row).collect();
        let titles = [
            "volume",
            "receiver",
            "taken",
            "uuid",
            "safe up to",
            "state",
            "kept until",
        ];
        output.result(&(), || table(&titles, rows));
    }
}

fn state(push: &Interrupted) -> &'static str {
    if push.unconfirmed {
        "unconfirmed"
    } else {
        "interrupted"
    }
}

fn interrupted_json(push: Interrupted) -> InterruptedJson {
    InterruptedJson {
        state: state(&push),
        volume: push.volume,
        receiver: push.receiver,
        push: output::uuid(&push.push_id),
        transfer: output::uuid(&push.transfer_id),
        uuid: output::uuid(&push.uuid),
        taken_at: output::time_json(push.taken_at),
        offset: push.offset,
        until: output::time_json(push.until),
    }
}

fn interrupted_row(push: Interrupted) -> Vec<String> {
    let state = state(&push).to_owned();
    vec![
        push.volume,
        push.receiver,
        output::time(push.taken_at),
        output::uuid(&push.uuid),
        human::bytes_human(push.offset),
        state,
        output::time(push.until),
    ]
}

/// Shows the uncommitted transfers of the receiver.
pub fn of_receiver(partials: Vec<PartialState>, output: &Output) {
    if output.is_json() {
        for partial in partials {
            output.result(&partial_json(partial), String::new);
        }
    } else if partials.is_empty() {
        output.note("no partials");
    } else {
        let rows = partials.into_iter().map(partial_row).collect();
        let titles = [
            "sender",
            "volume",
            "transfer",
            "state",
            "applied",
            "checkpoints",
            "kept until",
        ];
        output.result(&(), || table(&titles, rows));
    }
}

/// Makes the JSON object of an uncommitted transfer.
pub fn partial_json(partial: PartialState) -> PartialJson {
    PartialJson {
        sender: partial.sender,
        volume: partial.volume,
        transfer: output::uuid(&partial.transfer_id),
        uuid: output::uuid(&partial.uuid),
        state: partial.state,
        offset: Some(partial.offset).filter(|offset| *offset > 0),
        checkpoints: partial.checkpoints,
        since: output::time_json(partial.since),
        until: output::time_json(partial.until),
    }
}

fn partial_row(partial: PartialState) -> Vec<String> {
    let checkpoints: Vec<String> = partial
        .checkpoints
        .iter()
        .map(|offset| human::bytes_human(*offset))
        .collect();
    let applied = match partial.offset {
        0 => String::new(),
        offset => human::bytes_human(offset),
    };
    let until = match partial.until {
        0 => String::new(),
        until => output::time(until),
    };
    vec![
        partial.sender,
        partial.volume,
        output::uuid(&partial.transfer_id),
        partial.state,
        applied,
        checkpoints.join(", "),
        until,
    ]
}
