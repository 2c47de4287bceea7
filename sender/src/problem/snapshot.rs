//! A push snapshot that could not be taken.

use sendshot_proto::problem::{self, Kind, Problem};

use crate::push::stages::snapshot::Error;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let remedy = match &error {
            Error::SwapFile { .. } => {
                "the kernel cannot snapshot it: `swapoff` the file, or move it into a subvolume of its own"
            }
            Error::Journal(source) | Error::Io(source) => problem::io_remedy(source),
        };
        let kind = match &error {
            Error::SwapFile { .. } => Kind::Usage,
            Error::Journal(_) | Error::Io(_) => Kind::Failed,
        };
        Problem::from_error(kind, &error).remedy(remedy)
    }
}
