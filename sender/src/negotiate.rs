//! Stage *negotiate*: versions and features, and what the receiver holds of the volume.

use std::time::Duration;

use sendshot_model::{ReceiverId, TransferId};
use sendshot_proto::hello::{Hello, VERSION, Welcome, software};
use sendshot_proto::inventory::{self, Inventory, Question, VolumeKey};
use sendshot_proto::v1;
use sendshot_proto::v1::replication_client::ReplicationClient;
use tonic::Request;
use tonic::transport::Channel;

use crate::problem::{Kind, Problem};
use crate::receiver_link::{Link, problem_of};

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
    let answer = client.hello(request).await;
    let answer = answer.map_err(|status| problem_of(address, &status))?;
    let welcome = Welcome::try_from(answer.into_inner()).map_err(nonsense)?;
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
    match tokio::time::timeout(INVENTORY_DEADLINE, ask(link, request)).await {
        Ok(answered) => answered,
        Err(_) => Err(Problem::new(
            Kind::Unreachable,
            format!(
                "the receiver at {} did not say within {} seconds what it holds",
                link.address(),
                INVENTORY_DEADLINE.as_secs()
            ),
        )
        .remedy("look whether its disks answer; try again later")),
    }
}

async fn ask(link: &mut Link, request: v1::InventoryRequest) -> Result<Inventory, Problem> {
    let answers = link.client().inventory(request).await;
    let problem = |link: &Link, status| problem_of(link.address(), &status);
    let mut answers = answers
        .map_err(|status| problem(link, status))?
        .into_inner();
    let mut parts = inventory::Parts::default();
    while let Some(part) = answers
        .message()
        .await
        .map_err(|status| problem(link, status))?
    {
        parts.add(part).map_err(nonsense)??;
    }
    parts.finish().map_err(nonsense)
}

fn nonsense(error: sendshot_proto::Malformed) -> Problem {
    Problem::new(
        Kind::Failed,
        format!("the receiver's answer makes no sense: {error}"),
    )
}
