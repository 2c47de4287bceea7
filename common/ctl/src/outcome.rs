//! Exit codes for problems.

use std::process::ExitCode;

use sendshot_proto::problem::{Kind, Problem};

/// Exit code when what is named could not be brought over.
pub const NOT_ALL: u8 = 5;
/// Exit code when some of several operations failed.
pub const SOME_FAILED: u8 = 10;

/// The result of a command.
pub type Outcome = Result<ExitCode, Problem>;

pub fn exit_code(problem: &Problem) -> ExitCode {
    ExitCode::from(match problem.kind {
        Kind::Failed | Kind::Cancelled => 1,
        Kind::Usage => 2,
        Kind::Unreachable => 3,
        Kind::Refused => 4,
    })
}

/// Returns the problem that a daemon reports in a message.
///
/// # Errors
/// That problem, if there is one.
pub fn check(problem: Option<sendshot_proto::v1::Problem>) -> Result<(), Problem> {
    match problem {
        Some(problem) => Err(problem.into()),
        None => Ok(()),
    }
}
