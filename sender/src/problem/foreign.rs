//! What other hosts left.

use sendshot_proto::problem::{Kind, Problem};

use crate::retained::foreign::Error;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let (kind, remedy) = match &error {
            Error::Open { .. } => return Problem::open(&error),
            Error::NotBtrfs { .. } => (
                Kind::Usage,
                "name a path on the disk that came from elsewhere",
            ),
            Error::Nothing { .. } => (Kind::Usage, "`sendshotctl list` shows what is kept"),
            Error::Changed { .. } => (Kind::Refused, "look again, and run it again"),
        };
        Problem::from_error(kind, &error).remedy(remedy)
    }
}
