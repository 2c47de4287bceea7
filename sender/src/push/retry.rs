//! Which errors are retried, when, and for how long.
//!
//! Transient errors are: a connection that breaks or hangs, a receiver that restarts. Permanent errors end the
//! push at once: a full disk, a refusal, a stream that breaks a rule.

use sendshot_model::human;
use sendshot_proto::failure::Code;
use sendshot_sys::send_pipe;
use sendshot_transfer::retry::RetryBudget;
use tokio::time::Instant;

use crate::push::error::{Class, Error};
use crate::push::generate;
use crate::push::progress::Listener;
use crate::push::stages::transfer;
use crate::shared::running::Running;

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryDecision {
    /// Try again after a wait.
    Later,
    /// Negotiate again at once: what the plan assumed of either side does not hold.
    Negotiate,
    /// Send the same state again from the start: what was sent of it is void.
    Restart,
    /// Send the same state by a different stream: the receiver could not apply the one made from it.
    Otherwise,
    /// Report the error and keep nothing: this state can never be sent.
    Hopeless,
    /// Report the error.
    Never,
}

/// What to do after a transfer has failed.
pub fn after_transfer(error: &transfer::Error) -> RetryDecision {
    match error {
        transfer::Error::Refused(failure) => match failure.code {
            Code::Busy | Code::ShuttingDown => RetryDecision::Later,
            Code::ParentGone | Code::ParentUnusable | Code::AlreadyHeld | Code::RootChanged => {
                RetryDecision::Negotiate
            }
            Code::ResumeImpossible | Code::HashMismatch => RetryDecision::Restart,
            Code::InvalidStream => RetryDecision::Otherwise,
            Code::Internal
            | Code::NoSpace
            | Code::ReadOnly
            | Code::RootMissing
            | Code::OverLimit
            | Code::NotPermitted
            | Code::NotFound
            | Code::LengthChanged
            | Code::Io => RetryDecision::Never,
            // Another state may not contain what the receiver cannot hold.
            Code::Unsupported => RetryDecision::Hopeless,
        },
        transfer::Error::Connection(error) if error.is_transient() => RetryDecision::Later,
        transfer::Error::Connection(_) => RetryDecision::Never,
        transfer::Error::Stalled { .. } => RetryDecision::Later,
        transfer::Error::Generate(generate::Error::Engine(
            sendshot_engine::stream::Error::Diverged { .. },
        )) => RetryDecision::Restart,
        // A file of the snapshot cannot be read; another state may be without it.
        transfer::Error::Generate(
            generate::Error::Engine(_)
            | generate::Error::Kernel(send_pipe::Error::Send(_) | send_pipe::Error::Deleted)
            | generate::Error::Read(_)
            | generate::Error::CompareHashes(_),
        ) => RetryDecision::Hopeless,
        transfer::Error::Moved(_) => RetryDecision::Hopeless,
        transfer::Error::Generate(
            generate::Error::Kernel(send_pipe::Error::Start(_) | send_pipe::Error::Died)
            | generate::Error::Start(_)
            | generate::Error::Died
            | generate::Error::Cancelled(_),
        )
        | transfer::Error::ProtocolViolation(_)
        | transfer::Error::Record(_)
        | transfer::Error::Cancelled => RetryDecision::Never,
    }
}

/// What to do after a push has failed.
pub fn after(error: &Error) -> RetryDecision {
    match error {
        Error::Transfer(error) => after_transfer(error),
        error => match error.class() {
            Class::Transient => RetryDecision::Later,
            Class::Cancelled | Class::Failed | Class::Refused => RetryDecision::Never,
        },
    }
}

/// Waits before the next attempt after `error`, which is transient.
///
/// # Errors
/// `error` itself if no attempt may follow, or cancellation by the user.
pub async fn wait(
    retry_budget: &mut RetryBudget,
    error: Error,
    running: &Running,
    listener: &Listener,
) -> Result<(), Error> {
    let Some(wait) = retry_budget.next(Instant::now()) else {
        return Err(error);
    };
    let again = human::duration(wait);
    let detail = format!("{error}; trying again in {again}");
    listener.stage(running, "retry", detail);
    tracing::info!(push = %running.push, volume = %running.volume, receiver = %running.receiver,
        "{error}; trying again in {again}");
    tokio::select! {
        () = tokio::time::sleep(wait) => Ok(()),
        () = running.cancel.cancelled() => Err(Error::cancelled()),
    }
}

#[cfg(test)]
mod tests {
    use sendshot_proto::failure::Failure;

    use super::*;
    use crate::connection;

    #[test]
    fn permanent_errors_are_not_retried() {
        let refused = |code| after_transfer(&transfer::Error::Refused(Failure::new(code, "x", "")));
        assert_eq!(refused(Code::ShuttingDown), RetryDecision::Later);
        assert_eq!(refused(Code::ParentGone), RetryDecision::Negotiate);
        assert_eq!(refused(Code::HashMismatch), RetryDecision::Restart);
        assert_eq!(refused(Code::InvalidStream), RetryDecision::Otherwise);
        for code in [Code::NoSpace, Code::ReadOnly, Code::Io, Code::NotPermitted] {
            assert_eq!(refused(code), RetryDecision::Never);
        }
        assert_eq!(refused(Code::Unsupported), RetryDecision::Hopeless);
        let refusal = connection::error::Error::Refused {
            message: "revoked".to_owned(),
            remedy: String::new(),
        };
        assert_eq!(
            after_transfer(&transfer::Error::Connection(refusal)),
            RetryDecision::Never
        );
        let broken = connection::error::Error::broken("nas2:7117", "reset");
        assert_eq!(
            after_transfer(&transfer::Error::Connection(broken)),
            RetryDecision::Later
        );
    }
}
