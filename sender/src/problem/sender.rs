//! Errors of this sender itself.

use sendshot_proto::problem::{Kind, Problem};

use crate::shared::blocking::Died;
use crate::shared::sender::Error;

impl From<Died> for Problem {
    fn from(error: Died) -> Self {
        Problem::from_error(Kind::Failed, &error)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Config(error) => Problem::from_error(Kind::Usage, &error),
            Error::Thread(died) => died.into(),
            Error::NotPaired(ref name) => {
                let remedy = format!(
                    "run `sendshotctl peer invite NAME` on {name}, then `sendshotctl pair {name}` here"
                );
                Problem::from_error(Kind::Usage, &error).remedy(remedy)
            }
        }
    }
}
