//! Kept states that are not found by what was named.

use sendshot_proto::problem::{Kind, Problem};

use crate::retained::selection::Error;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Path(error) => Problem::from(error)
                .remedy("name the volume as `sendshotctl list` shows it, without a path"),
            Error::NeverPushed(_) => Problem::new(Kind::Usage, message)
                .remedy("`sendshotctl list` shows what is kept, and of what"),
        }
    }
}
