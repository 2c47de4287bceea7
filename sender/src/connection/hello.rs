//! The first call on every connection: versions and features.

use std::time::Duration;

use sendshot_model::ReceiverId;
use sendshot_proto::hello::{Hello, VERSION, Welcome, software};
use sendshot_proto::v1;
use sendshot_proto::v1::replication_client::ReplicationClient;
use tonic::Request;
use tonic::transport::Channel;

use crate::connection::call::answer;
use crate::connection::error::Error;

/// Longest wait for the answer.
const HELLO_DEADLINE: Duration = Duration::from_secs(15);

/// Agrees with the receiver on version and features; the first call on every connection.
///
/// # Errors
/// See [`Error`].
pub async fn hello(
    client: &mut ReplicationClient<Channel>,
    address: &str,
    receiver: ReceiverId,
) -> Result<Welcome, Error> {
    let hello = Hello {
        version_min: VERSION,
        version_max: VERSION,
        software: software("sendshot-sender"),
        receiver: Some(receiver),
    };
    let mut request = Request::new(v1::HelloRequest::from(hello));
    request.set_timeout(HELLO_DEADLINE);
    let welcome = answer(address, HELLO_DEADLINE, client.hello(request)).await?;
    let welcome = Welcome::try_from(welcome).map_err(Error::invalid)?;
    if welcome.receiver != receiver {
        return Err(Error::SetUpAnew);
    }
    Ok(welcome)
}
