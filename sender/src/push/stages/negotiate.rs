//! Stage *negotiate*: versions and features, and what the receiver holds of the volume.

use std::time::Duration;

use sendshot_model::{ReceiverId, TransferId};
use sendshot_proto::hello::{Hello, VERSION, Welcome, software};
use sendshot_proto::inventory::{self, Inventory, Question};
use sendshot_proto::transfer::STREAM_WINDOW;
use sendshot_proto::v1;
use sendshot_proto::v1::replication_client::ReplicationClient;
use sendshot_proto::volume::VolumeKey;
use tonic::Request;
use tonic::transport::Channel;

use crate::connection::receiver_link::{Link, MAX_ANSWER, answer, problem_of, within};
use crate::problem::{Kind, Problem};

/// Longest wait for the receiver's greeting.
const HELLO_DEADLINE: Duration = Duration::from_secs(15);

/// Longest wait for an inventory: the receiver opens every copy, from a cold disk at worst.
const INVENTORY_DEADLINE: Duration = Duration::from_secs(120);

/// Agrees on version and features; the first call on every connection.
///
/// # Errors
/// A [`Problem`] for the user.
pub async fn hello(
    client: &mut ReplicationClient<Channel>,
    address: &str,
    receiver: ReceiverId,
) -> Result<Welcome, Problem> {
    let hello = Hello {
        version_min: VERSION,
        version_max: VERSION,
        software: software("sendshot-sender"),
        receiver: Some(receiver),
    };
    let mut request = Request::new(v1::HelloRequest::from(hello));
    request.set_timeout(HELLO_DEADLINE);
    let welcome = answer(address, HELLO_DEADLINE, client.hello(request)).await?;
    let welcome = Welcome::try_from(welcome).map_err(nonsense)?;
    if welcome.receiver != receiver {
        return Err(Problem::new(
            Kind::Refused,
            "the receiver was set up anew since it was paired",
        )
        .remedy("pair with it again: `sendshotctl peer invite` there, `sendshotctl pair` here"));
    }
    Ok(welcome)
}

/// Asks what the receiver holds. `resuming` is the transfer that is to be taken up: a call that
/// still carries it is dead.
///
/// # Errors
/// A [`Problem`] for the user.
pub async fn inventory(
    link: &mut Link,
    volume: &VolumeKey,
    resuming: Option<TransferId>,
) -> Result<Inventory, Problem> {
    let question = Question {
        volume: volume.clone(),
        resuming,
    };
    let request = v1::InventoryRequest::from(question);
    let address = link.address().to_owned();
    within(&address, INVENTORY_DEADLINE, ask(link, request)).await
}

async fn ask(link: &mut Link, request: v1::InventoryRequest) -> Result<Inventory, Problem> {
    let (address, wire) = (link.address().to_owned(), link.wire());
    let problem = |status| problem_of(&address, &status);
    let parts = link.client().inventory(request).await;
    let mut parts = parts.map_err(problem)?.into_inner();
    let mut whole = inventory::Parts::default();
    loop {
        // Parts that come without end must not keep from looking at the clock, or for a cancel.
        tokio::task::consume_budget().await;
        // The next ones may be under way already.
        wire.read_at_most(MAX_ANSWER + u64::from(STREAM_WINDOW));
        match parts.message().await.map_err(problem)? {
            Some(part) => whole.add(part).map_err(nonsense)??,
            None => return whole.finish().map_err(nonsense),
        }
    }
}

fn nonsense(error: sendshot_proto::Malformed) -> Problem {
    Problem::new(
        Kind::Failed,
        format!("the receiver's answer makes no sense: {error}"),
    )
}
