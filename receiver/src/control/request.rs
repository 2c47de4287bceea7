//! What the calls share: their thread, and the user's view of a failure.

use sendshot_proto::failure::Failure;
use sendshot_proto::problem::{Kind, Problem};

/// Makes the problem for a failure of the disk.
pub(super) fn failed(failure: Failure) -> Problem {
    Problem::new(Kind::Failed, failure.to_string()).remedy(failure.remedy)
}

/// Runs `work` on a named thread.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    sendshot_service::blocking::run("control", work)
        .await
        .map_err(|e| Problem::new(Kind::Failed, e.to_string()))
}
