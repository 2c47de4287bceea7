//! Blocking work on threads.

use sendshot_service::blocking::BlockingError;

/// A worker thread ended without a result.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Died(#[from] BlockingError);

/// Runs blocking work on its own thread.
///
/// # Errors
/// [`Died`].
pub(crate) async fn blocking<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Died> {
    Ok(sendshot_service::blocking::run(name, work).await?)
}
