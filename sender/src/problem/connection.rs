//! A receiver that was not reached, or a call to it that failed.

use sendshot_proto::problem::{Kind, Problem};

use crate::connection::error::{Error, is_unreachable};

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Credentials { .. } => Kind::Usage,
            Error::Connect(connect) if is_unreachable(connect) => Kind::Unreachable,
            Error::Connect(_) | Error::Refused { .. } | Error::SetUpAnew => Kind::Refused,
            Error::Broken { .. } | Error::NotReady { .. } => Kind::Unreachable,
            Error::Failed { .. } | Error::Invalid(_) => Kind::Failed,
            Error::Failure(failure) => return Problem::from(failure.clone()),
        };
        Problem::new(kind, error.to_string()).remedy(error.remedy())
    }
}
