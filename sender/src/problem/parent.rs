//! A parent that cannot be had.

use sendshot_proto::problem::{Kind, Problem};

use crate::decide::parent::Error;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Problem::from_error(Kind::Usage, &error)
            .remedy("`sendshotctl plan` shows which copies can be the parent")
    }
}
