//! Blocking work beside the asynchronous.

use sendshot_proto::problem::{Kind, Problem};

/// Runs blocking work on a thread of its own, whose death becomes a [`Problem`].
pub(crate) async fn blocking<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    sendshot_service::blocking::run(name, work)
        .await
        .map_err(|e| Problem::from_error(Kind::Failed, &e))
}
