//! Answers on the control sockets: each has a field for the problem that replaces it.

use tonic::{Response, Status};

use crate::problem::{Kind, Problem};
use crate::v1;

/// An answer with a field for a problem.
pub trait Answer: Default {
    /// Returns the field for the problem.
    fn problem(&mut self) -> &mut Option<v1::Problem>;
}

macro_rules! answers {
    ($($answer:ident),*) => {
        $(impl Answer for v1::$answer {
            fn problem(&mut self) -> &mut Option<v1::Problem> {
                &mut self.problem
            }
        })*
    };
}

answers!(
    AcceptClockResponse,
    ChangeCopyResponse,
    ContinueResponse,
    CopiesResponse,
    ForeignResponse,
    ForgetFilesystemResponse,
    ForgetResponse,
    GrantResponse,
    InviteResponse,
    ListResponse,
    PairResult,
    PartialsResponse,
    PauseResponse,
    PlanResponse,
    PruneCopiesResponse,
    PruneResponse,
    ReceiverStatusResponse,
    RecordRestoredResponse,
    RevokeResponse,
    RootsResponse
);

/// Converts the result of a call into its answer.
///
/// # Errors
/// Never: a problem is also an answer.
pub fn answered<A: Answer>(done: Result<A, Problem>) -> Result<Response<A>, Status> {
    Ok(Response::new(done.unwrap_or_else(|problem| {
        let mut answer = A::default();
        *answer.problem() = Some(problem.into());
        answer
    })))
}

/// Refuses a call that only root may make.
///
/// # Errors
/// The refusal, if the caller is not root.
pub fn only_root(is_root: bool, what: &str) -> Result<(), Problem> {
    match is_root {
        true => Ok(()),
        false => {
            Err(Problem::new(Kind::Refused, format!("{what} needs root"))
                .remedy("run it with sudo"))
        }
    }
}
