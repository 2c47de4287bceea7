//! The first call on every connection: versions and features.

use std::time::Duration;

use sendshot_model::ReceiverId;
use sendshot_proto::hello::{Hello, VERSION, Welcome, software};
use sendshot_proto::v1;
use sendshot_proto::v1::replication_client::ReplicationClient;
use tonic::Request;
use tonic::transport::Channel;

use crate::connection::call::{answer, nonsense};
use sendshot_proto::problem::{Kind, Problem};

/// Longest wait for the receiver's greeting.
const HELLO_DEADLINE: Duration = Duration::from_secs(15);

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
