//! Blocking work beside the asynchronous.

use sendshot_service::blocking::BlockingError;

/// A thread that gave no result.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Died(#[from] BlockingError);

/// Runs blocking work on a thread of its own.
///
/// # Errors
/// [`Died`].
pub(crate) async fn blocking<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Died> {
    Ok(sendshot_service::blocking::run(name, work).await?)
}
