//! A file system that is not forgotten.

use sendshot_proto::problem::{Kind, Problem};

use crate::state::filesystems::ForgetError;

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
