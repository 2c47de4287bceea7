//! Reads a daemon's configuration again while it runs.

use std::convert::Infallible;
use std::fmt::Display;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::{blocking, notify};

/// Calls `reload` on a thread at each notification, and logs what came of it: after an error the former
/// configuration stays in use. Ends only by being dropped.
pub async fn reload_when_told<E>(
    told: Arc<Notify>,
    reload: impl Fn() -> Result<(), E> + Clone + Send + 'static,
) -> Infallible
where
    E: Display + Send + 'static,
{
    loop {
        told.notified().await;
        notify::reloading();
        match blocking::run("reload", reload.clone()).await {
            Ok(Ok(())) => tracing::info!("configuration reloaded"),
            Ok(Err(e)) => tracing::error!("the former configuration stays in use: {e}"),
            Err(e) => tracing::error!("cannot reload the configuration: {e}"),
        }
        notify::ready();
    }
}
