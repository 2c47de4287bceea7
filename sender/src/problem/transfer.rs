//! A transfer that did not come to its end.

use sendshot_proto::problem::{Kind, Problem};

use crate::push::stages::transfer::Error;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(failure) => failure.into(),
            Error::Cancelled => Problem::new(Kind::Cancelled, "the push was cancelled"),
            Error::Stalled { .. } => Problem::from_error(Kind::Unreachable, &error)
                .remedy("look into the receiver's kernel log, and try again later"),
            Error::Moved(_) => Problem::from_error(Kind::Failed, &error)
                .remedy("push again when the file system stays as it is"),
            Error::Connection(error) => error.into(),
            Error::Nonsense(_) => Problem::from_error(Kind::Failed, &error),
            Error::Generate(_) | Error::Record(_) => Problem::failed(&error),
        }
    }
}
