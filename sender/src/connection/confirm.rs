//! The call that asks a receiver whether it holds the state that a volume still has.

use std::time::Duration;

use sendshot_proto::confirm::Confirmation;
use sendshot_proto::failure::Failure;
use sendshot_proto::v1;
use tonic::{Code, Response};

use crate::connection::call::{MAX_ANSWER, answer};
use crate::connection::error::Error;
use crate::connection::link::Link;

/// Longest wait for the answer: the receiver opens one copy, possibly from a cold disk.
const CONFIRM_DEADLINE: Duration = Duration::from_secs(60);

/// Asks; `None` if the receiver is of an older version, which does not know the call.
///
/// # Errors
/// See [`Error`].
pub async fn ask(link: &mut Link, confirmation: Confirmation) -> Result<Option<bool>, Error> {
    let (address, wire) = (link.address().to_owned(), link.wire());
    wire.read_at_most(MAX_ANSWER);
    let request = v1::ConfirmRequest::from(confirmation);
    let call = async {
        match link.client().confirm(request).await {
            Err(status) if status.code() == Code::Unimplemented => Ok(Response::new(None)),
            answer => answer.map(|answer| Response::new(Some(answer.into_inner()))),
        }
    };
    let Some(answer) = answer(&address, CONFIRM_DEADLINE, call).await? else {
        return Ok(None);
    };
    match answer.failure {
        Some(failure) => Err(Failure::from(failure).into()),
        None => Ok(Some(answer.held)),
    }
}
