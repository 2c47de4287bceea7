//! `sendshotctl config show`.

use std::sync::Arc;

use sendshot_config::SenderConfig;
use sendshot_proto::problem::with_causes;
use sendshot_proto::report::path_bytes;
use sendshot_proto::v1;
use tonic::Status;

use crate::shared::blocking::blocking;
use crate::shared::sender::Sender;

/// Shows the configuration in effect, and compares it with the file.
pub(super) async fn answer(sender: &Arc<Sender>) -> Result<v1::ShowConfigResponse, Status> {
    let file = sender.paths().config.clone();
    let reading = file.clone();
    let now = blocking("config", move || SenderConfig::load(&reading)).await;
    let now = now.map_err(|e| Status::internal(e.to_string()))?;
    let config = sender.config();
    Ok(v1::ShowConfigResponse {
        text: config.show(),
        file: path_bytes(&file),
        differs: now.as_ref().is_ok_and(|now| *now != *config),
        file_problem: now.err().map_or_else(String::new, |e| with_causes(&e)),
    })
}
