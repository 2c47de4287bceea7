//! `sendshotctl config show`.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use sendshot_config::ReceiverConfig;
use sendshot_proto::problem::with_causes;
use sendshot_proto::v1;
use tonic::Status;

use super::request::blocking;
use crate::shared::receiver::Receiver;

/// Shows the configuration in effect, and compares it with the file.
pub(super) async fn answer(receiver: &Arc<Receiver>) -> Result<v1::ShowConfigResponse, Status> {
    let file = receiver.config_file().to_owned();
    let reading = file.clone();
    let now = blocking(move || ReceiverConfig::load(&reading)).await;
    let now = now.map_err(|problem| Status::internal(problem.message))?;
    let config = receiver.config();
    Ok(v1::ShowConfigResponse {
        text: config.show(),
        file: file.as_os_str().as_bytes().to_vec(),
        differs: now.as_ref().is_ok_and(|now| *now != *config),
        file_problem: now.err().map_or_else(String::new, |e| with_causes(&e)),
    })
}
