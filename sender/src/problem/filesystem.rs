//! A file system that is not forgotten, or could not be looked at.

use sendshot_model::{Reason, ReasonCode};
use sendshot_proto::problem::{JOURNAL, Kind, Problem};

use crate::state::filesystems::{ForgetError, LookError, Missed};

impl From<ForgetError> for Problem {
    fn from(error: ForgetError) -> Self {
        let (kind, remedy) = match &error {
            ForgetError::Unknown { .. } => (
                Kind::Usage,
                "`sendshotctl list` names those that it could not look at",
            ),
            ForgetError::Several { .. } => (Kind::Usage, "give more of the id"),
            ForgetError::Mounted { .. } => (
                Kind::Refused,
                "if the disk is dead, unmount it everywhere first; if not, `sendshotctl list` shows what is kept on it, and `sendshotctl forget HOST:VOL` deletes that",
            ),
            ForgetError::Io(source) => {
                return Problem::state_io("forget a file system", source);
            }
        };
        Problem::from_error(kind, &error).remedy(remedy)
    }
}

impl From<LookError> for Problem {
    fn from(error: LookError) -> Self {
        match error {
            LookError::Io(error) => error.into(),
            LookError::Journal(error) => Problem::local_io(JOURNAL, &error),
            LookError::TopLevel(error) => error.into(),
            LookError::Store(error) => error.into(),
        }
    }
}

/// Why a file system was not looked at, and what can be done if looking failed; may be empty.
pub fn reason(why: Missed) -> (Reason, String) {
    match why {
        Missed::NotThere(reason) => (reason, String::new()),
        Missed::Failed(error) => {
            let problem = Problem::from(error);
            let reason = Reason::new(ReasonCode::LookFailed, problem.message);
            (reason, problem.remedy)
        }
    }
}
