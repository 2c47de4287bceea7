//! Deadlines for calls to a receiver, and the errors for their failures.

use std::time::Duration;

use sendshot_identity::ConnectError;
use sendshot_proto::transfer::MAX_MESSAGE;
use tonic::{Code, Response, Status};

use crate::connection::error::Error;

/// Most bytes that a receiver may send while one message is awaited: the longest message, and HTTP/2's overhead.
pub const MAX_ANSWER: u64 = 2 * MAX_MESSAGE as u64;

/// Waits for the single message that answers a call to the receiver at `address`; see [`within`].
///
/// # Errors
/// See [`Error`].
pub async fn answer<T>(
    address: &str,
    deadline: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Error> {
    let answered = async {
        let answer = call.await.map_err(|status| failed(address, &status))?;
        Ok(answer.into_inner())
    };
    within(address, deadline, answered).await
}

/// Waits for a whole answer. The library's own limit ends when the answer begins: a receiver could begin it, and
/// send no more.
///
/// # Errors
/// See [`Error`].
pub async fn within<T>(
    address: &str,
    deadline: Duration,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(deadline, answer).await {
        Ok(answered) => answered,
        Err(_) => {
            let why = format!(
                "it sent no complete response within {} s",
                deadline.as_secs()
            );
            Err(Error::broken(address, &why))
        }
    }
}

/// Makes the error for a failed call to the receiver at `address`.
pub fn failed(address: &str, status: &Status) -> Error {
    if let Some(error) = ConnectError::find_in(address, status) {
        return Error::Connect(error);
    }
    // A status from the receiver itself has no cause; a status with a cause arose on the connection.
    if let Some(cause) = innermost_cause(status) {
        return Error::broken(address, &cause);
    }
    let message = sendshot_model::printable(status.message());
    let remedy = sendshot_proto::refusal::remedy(status);
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated | Code::FailedPrecondition => {
            Error::Refused { message, remedy }
        }
        Code::Unavailable | Code::DeadlineExceeded => Error::broken(address, &message),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss => Error::Failed {
            address: address.to_owned(),
            message,
            remedy,
        },
    }
}

fn innermost_cause(status: &Status) -> Option<String> {
    let mut innermost = None;
    let mut next = std::error::Error::source(status);
    while let Some(error) = next {
        innermost = Some(sendshot_model::printable(&error.to_string()));
        next = error.source();
    }
    innermost
}

#[cfg(test)]
mod tests {
    use sendshot_proto::problem::{Kind, Problem};
    use sendshot_proto::refusal::refusal;

    use super::*;

    #[test]
    fn a_refusal_brings_its_remedy() {
        let status = refusal(Code::PermissionDenied, "revoked", "invite it again");
        let problem = Problem::from(failed("nas2:7117", &status));
        assert_eq!(problem.kind, Kind::Refused);
        assert_eq!(
            (&*problem.message, &*problem.remedy),
            ("revoked", "invite it again")
        );
    }

    #[tokio::test]
    async fn an_answer_that_begins_and_does_not_end_is_not_waited_for() {
        let begun = std::future::pending::<Result<Response<()>, Status>>();
        let problem = answer("nas2:7117", Duration::from_millis(10), begun).await;
        let problem = Problem::from(problem.unwrap_err());
        assert_eq!(problem.kind, Kind::Unreachable);
        assert!(
            problem.message.contains("no complete response"),
            "{problem}"
        );
    }

    #[test]
    fn an_absent_host_is_retried() {
        let error = ConnectError::Unreachable {
            address: "nas2:7117".into(),
            reason: "refused".into(),
        };
        let problem = Problem::from(Error::Connect(error));
        assert_eq!(problem.kind, Kind::Unreachable);
        assert!(problem.remedy.contains("try again"), "{}", problem.remedy);
        let gone = Problem::from(failed("nas2:7117", &Status::unavailable("going away")));
        assert_eq!(gone.kind, Kind::Unreachable);
        assert!(gone.remedy.contains("try again"), "{}", gone.remedy);
    }
}
