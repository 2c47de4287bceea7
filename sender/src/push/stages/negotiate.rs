//! Stage *negotiate*: versions and features, and what the receiver holds of the volume.

use std::time::Duration;

use sendshot_model::TransferId;
use sendshot_proto::inventory::{self, Inventory, Question};
use sendshot_proto::transfer::STREAM_WINDOW;
use sendshot_proto::v1;
use sendshot_proto::volume::VolumeKey;

use crate::connection::call::{MAX_ANSWER, failed, within};
use crate::connection::error::Error;
use crate::connection::link::Link;

/// Longest wait for an inventory: the receiver opens every copy, from a cold disk at worst.
const INVENTORY_DEADLINE: Duration = Duration::from_secs(120);

/// Asks what the receiver holds. `resuming` is the transfer that is to be taken up: a call that
/// still carries it is dead.
///
/// # Errors
/// See [`Error`].
pub async fn inventory(
    link: &mut Link,
    volume: &VolumeKey,
    resuming: Option<TransferId>,
) -> Result<Inventory, Error> {
    let question = Question {
        volume: volume.clone(),
        resuming,
    };
    let request = v1::InventoryRequest::from(question);
    let address = link.address().to_owned();
    within(&address, INVENTORY_DEADLINE, ask(link, request)).await
}

async fn ask(link: &mut Link, request: v1::InventoryRequest) -> Result<Inventory, Error> {
    let (address, wire) = (link.address().to_owned(), link.wire());
    let failed = |status| failed(&address, &status);
    let parts = link.client().inventory(request).await;
    let mut parts = parts.map_err(failed)?.into_inner();
    let mut whole = inventory::Parts::default();
    loop {
        // Parts that come without end must not keep from looking at the clock, or for a cancel.
        tokio::task::consume_budget().await;
        // The next ones may be under way already.
        wire.read_at_most(MAX_ANSWER + u64::from(STREAM_WINDOW));
        match parts.message().await.map_err(failed)? {
            Some(part) => whole.add(part).map_err(Error::invalid)??,
            None => return whole.finish().map_err(Error::invalid),
        }
    }
}
