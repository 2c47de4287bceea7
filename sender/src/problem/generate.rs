//! A stream that could not be made.

use sendshot_proto::problem::Problem;

use crate::push::generate::Error;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Problem::failed(&error)
    }
}
