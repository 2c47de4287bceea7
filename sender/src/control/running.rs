//! A running push as a message.

use std::sync::Arc;

use sendshot_proto::v1;

use crate::shared::running::Running;

pub(super) fn describe(running: &Arc<Running>) -> v1::RunningPush {
    v1::RunningPush {
        push_id: running.push.to_bytes().to_vec(),
        volume: running.volume.to_string(),
        receiver: running.receiver.to_string(),
        stage: running.stage().to_owned(),
        stream_bytes: running.progress().0,
        seconds: running.elapsed().as_secs_f64(),
        applied_bytes: running.progress().1,
        total_bytes: running.total(),
        rate: running.rate(),
    }
}
