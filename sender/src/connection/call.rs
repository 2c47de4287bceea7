//! Calls to a receiver: how long they may take, and what their failures are to the user.

use std::time::Duration;

use sendshot_identity::ConnectError;
use sendshot_proto::transfer::MAX_MESSAGE;
use tonic::{Code, Response, Status};

use sendshot_proto::problem::{Kind, Problem};

/// Most bytes that a receiver may send while one message is awaited: the longest message, and what HTTP/2 adds.
pub const MAX_ANSWER: u64 = 2 * MAX_MESSAGE as u64;

/// Waits for the one message that answers a call to the receiver at `address`; see [`within`].
///
/// # Errors
/// A [`Problem`] for the user.
pub async fn answer<T>(
    address: &str,
    deadline: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Problem> {
    let answered = async {
        let answer = call.await.map_err(|status| problem_of(address, &status))?;
        Ok(answer.into_inner())
    };
    within(address, deadline, answered).await
}

/// Waits for the whole of an answer. The library's own limit ends when the answer begins: a receiver could
/// begin it, and say no more.
///
/// # Errors
/// A [`Problem`] for the user.
pub async fn within<T>(
    address: &str,
    deadline: Duration,
    answer: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    match tokio::time::timeout(deadline, answer).await {
        Ok(answered) => answered,
        Err(_) => {
            let why = format!("it gave no whole answer within {} s", deadline.as_secs());
            Err(broken(address, &why))
        }
    }
}

/// What a failed call to the receiver at `address` means to the user.
pub fn problem_of(address: &str, status: &Status) -> Problem {
    if let Some(error) = ConnectError::find_in(address, status) {
        return not_connected(&error);
    }
    // What the receiver says itself has no cause here; what has one happened on the way.
    if let Some(cause) = innermost_cause(status) {
        return broken(address, &cause);
    }
    let text = sendshot_model::printable(status.message());
    let remedy = sendshot_proto::refusal::remedy(status);
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated | Code::FailedPrecondition => {
            Problem::new(Kind::Refused, text).remedy(remedy)
        }
        Code::Unavailable | Code::DeadlineExceeded => broken(address, &text),
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
        | Code::DataLoss => Problem::new(
            Kind::Failed,
            format!("the call to the receiver at {address} failed: {text}"),
        )
        .remedy(remedy),
    }
}

/// What a connection that was not made means to the user.
pub(crate) fn not_connected(error: &ConnectError) -> Problem {
    let kind = match error {
        ConnectError::Unreachable { .. } | ConnectError::NotAReceiver { .. } => Kind::Unreachable,
        ConnectError::WrongReceiver { .. }
        | ConnectError::Refused { .. }
        | ConnectError::Clock { .. } => Kind::Refused,
    };
    Problem::from_error(kind, error).remedy(error.remedy())
}

pub(crate) fn broken(address: &str, why: &str) -> Problem {
    Problem::new(
        Kind::Unreachable,
        format!("the connection to the receiver at {address} broke: {why}"),
    )
    .remedy("try again later; what the receiver has committed, the next push finds out")
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

/// What the receiver said is none of what it may say.
pub(crate) fn nonsense(error: sendshot_proto::Malformed) -> Problem {
    Problem::new(
        Kind::Failed,
        format!("the receiver's answer makes no sense: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use sendshot_proto::refusal::refusal;

    use super::*;

    #[test]
    fn a_refusal_brings_its_remedy() {
        let status = refusal(Code::PermissionDenied, "revoked", "invite it again");
        let problem = problem_of("nas2:7117", &status);
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
        let problem = problem.unwrap_err();
        assert_eq!(problem.kind, Kind::Unreachable);
        assert!(problem.message.contains("no whole answer"), "{problem}");
    }

    #[test]
    fn who_is_not_there_is_to_be_tried_again() {
        let error = ConnectError::Unreachable {
            address: "nas2:7117".into(),
            reason: "refused".into(),
        };
        let problem = not_connected(&error);
        assert_eq!(problem.kind, Kind::Unreachable);
        assert!(problem.remedy.contains("try again"), "{}", problem.remedy);
        let gone = problem_of("nas2:7117", &Status::unavailable("going away"));
        assert_eq!(gone.kind, Kind::Unreachable);
        assert!(gone.remedy.contains("try again"), "{}", gone.remedy);
    }
}
