//! An engine that cannot be had.

use sendshot_proto::problem::{Kind as ProblemKind, Problem};

use crate::volume::engine::Error;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let remedy = match &error {
            Error::ReadOnlySnapshot { .. } => {
                "leave out --engine, or push the volume that the snapshot is of"
            }
            Error::NoSnapshot { .. } => "leave out --engine, or mount the file system read-write",
        };
        Problem::from_error(ProblemKind::Usage, &error).remedy(remedy)
    }
}
