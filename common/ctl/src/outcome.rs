//! From problems to exit codes.

use std::process::ExitCode;

use sendshot_proto::problem::{Kind, Problem};

/// Exit code when several pushes were asked for and some failed.
pub const SOME_FAILED: u8 = 10;

/// What a command ends with.
pub type Outcome = Result<ExitCode, Problem>;

/// The exit code of a problem.
pub fn exit_code(problem: &Problem) -> ExitCode {
    ExitCode::from(match problem.kind {
        Kind::Failed | Kind::Cancelled => 1,
        Kind::Usage => 2,
        Kind::Unreachable => 3,
        Kind::Refused => 4,
    })
}

/// A problem that a daemon reports in a message.
///
/// # Errors
/// The problem, if there is one.
pub fn check(problem: Option<sendshot_proto::v1::Problem>) -> Result<(), Problem> {
    match problem {
        Some(problem) => Err(problem.into()),
        None => Ok(()),
    }
}
