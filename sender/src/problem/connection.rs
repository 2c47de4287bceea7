//! A receiver that was not reached, or a call to it that failed.

use sendshot_proto::problem::{Kind, Problem};

use crate::connection::error::{Error, is_unreachable};

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let (kind, remedy) = match &error {
            Error::Credentials { address, .. } => (
                Kind::Usage,
                format!(
                    "pair again: `sendshotctl peer invite NAME --replace` on the receiver, then `sendshotctl pair \
                     {address}` here"
                ),
            ),
            Error::Connect(connect) => {
                let kind = match is_unreachable(connect) {
                    true => Kind::Unreachable,
                    false => Kind::Refused,
                };
                (kind, connect.remedy().to_string())
            }
            Error::Broken { .. } => (
                Kind::Unreachable,
                "try again later; what the receiver has committed, the next push finds out"
                    .to_owned(),
            ),
            Error::NotReady { .. } => (
                Kind::Unreachable,
                "look into its journal and its kernel log, and try again later".to_owned(),
            ),
            Error::Refused { remedy, .. } => (Kind::Refused, remedy.clone()),
            Error::Failed { remedy, .. } => (Kind::Failed, remedy.clone()),
            Error::Failure(failure) => return Problem::from(failure.clone()),
            Error::Invalid(_) => (Kind::Failed, String::new()),
            Error::SetUpAnew => (
                Kind::Refused,
                "pair with it again: `sendshotctl peer invite` there, `sendshotctl pair` here"
                    .to_owned(),
            ),
        };
        Problem::new(kind, error.to_string()).remedy(remedy)
    }
}
