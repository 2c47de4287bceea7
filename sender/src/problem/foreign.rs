//! What other hosts left.

use sendshot_proto::problem::{JOURNAL, Kind, Problem, delete_remedy};

use crate::retained::foreign::Error;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let error = match error {
            Error::TopLevel(error) => return error.into(),
            Error::Store(error) => return error.into(),
            error => error,
        };
        let message = error.to_string();
        let (kind, remedy) = match &error {
            Error::Open { .. } => return Problem::open(&error),
            Error::NotBtrfs { .. } => (
                Kind::Usage,
                "name a path on the disk that came from elsewhere",
            ),
            Error::Nothing { .. } => (Kind::Usage, "`sendshotctl list` shows what is kept"),
            Error::Changed { .. } => (Kind::Refused, "look again, and run it again"),
            Error::TopLevel(_) | Error::Store(_) => (Kind::Failed, ""),
            Error::Journal(source) => return Problem::local_io(JOURNAL, source),
            Error::Register(source) => {
                return Problem::local_io("read and write .sendshot/register.json", source);
            }
            Error::StateDir(source) => {
                return Problem::state_io("write down which file systems are used", source);
            }
            Error::NotDeleted { source, .. } => {
                return Problem::new(Kind::Failed, message).remedy(delete_remedy(source));
            }
        };
        Problem::from_error(kind, &error).remedy(remedy)
    }
}
