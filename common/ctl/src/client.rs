//! Connects to a daemon of this host.

use std::io;
use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use sendshot_proto::problem::{Kind, Problem};
use sendshot_proto::v1::receiver_control_client::ReceiverControlClient;
use sendshot_proto::v1::sender_control_client::SenderControlClient;
use tokio::net::UnixStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// Control socket of the sending daemon.
pub const SENDER: &str = "/run/sendshot-sender/control.sock";
/// Control socket of the receiving daemon.
pub const RECEIVER: &str = "/run/sendshot-receiver/control.sock";

/// Longest answer of the local daemon, in bytes: it may be a long list.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

pub type Sender = SenderControlClient<Channel>;
pub type Receiver = ReceiverControlClient<Channel>;

/// Whether this host has a sending daemon, by its usual socket.
pub fn has_sender() -> bool {
    Path::new(SENDER).exists()
}

/// Whether this host has a receiving daemon, by its usual socket.
pub fn has_receiver() -> bool {
    Path::new(RECEIVER).exists()
}

/// Whether a daemon is installed on this host: in the usual places, or beside this program.
pub fn is_installed(daemon: &str) -> bool {
    let own = std::env::current_exe().ok();
    let own = own.as_deref().and_then(Path::parent);
    let dirs = ["/usr/bin", "/usr/local/bin"].map(Path::new);
    dirs.into_iter()
        .chain(own)
        .any(|dir| dir.join(daemon).exists())
}

/// The installed daemons that have run on this host, by their usual state directories, and have no socket now.
pub fn stopped() -> impl Iterator<Item = &'static str> {
    let all = [
        ("sendshot-sender", "/var/lib/sendshot-sender", SENDER),
        ("sendshot-receiver", "/var/lib/sendshot-receiver", RECEIVER),
    ];
    let is_stopped = move |(daemon, state, socket): &(&str, &str, &str)| {
        is_installed(daemon) && Path::new(state).exists() && !Path::new(socket).exists()
    };
    all.into_iter()
        .filter(is_stopped)
        .map(|(daemon, ..)| daemon)
}

/// Connects to the sending daemon.
pub async fn sender(socket: Option<PathBuf>) -> Result<Sender, Problem> {
    let channel = channel(socket, SENDER, "sendshot-sender").await?;
    Ok(SenderControlClient::new(channel).max_decoding_message_size(MAX_ANSWER))
}

/// Connects to the receiving daemon.
pub async fn receiver(socket: Option<PathBuf>) -> Result<Receiver, Problem> {
    let channel = channel(socket, RECEIVER, "sendshot-receiver").await?;
    Ok(ReceiverControlClient::new(channel).max_decoding_message_size(MAX_ANSWER))
}

async fn channel(socket: Option<PathBuf>, usual: &str, daemon: &str) -> Result<Channel, Problem> {
    let path = socket.unwrap_or_else(|| PathBuf::from(usual));
    let stream = UnixStream::connect(&path)
        .await
        .map_err(|e| not_running(&path, daemon, &e))?;
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = stream.take();
        async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    Endpoint::from_static("http://localhost")
        .connect_with_connector(connector)
        .await
        .map_err(|e| Problem::from_error(Kind::Failed, &e))
}

fn not_running(path: &Path, daemon: &str, error: &io::Error) -> Problem {
    let (what, remedy) = match error.kind() {
        io::ErrorKind::PermissionDenied => (
            "is not accessible to you",
            "use sudo, or become a member of group `sendshot`".to_owned(),
        ),
        _ => (
            "does not answer",
            format!("is {daemon} running on this host? `systemctl start {daemon}`"),
        ),
    };
    Problem::new(
        Kind::Failed,
        format!(
            "{daemon}'s control socket {} {what}: {error}",
            path.display()
        ),
    )
    .remedy(remedy)
}

/// Makes the problem for a call that the local daemon could not serve.
pub fn failed(status: Status) -> Problem {
    let text = match status.code() {
        tonic::Code::Unavailable | tonic::Code::Unknown | tonic::Code::Cancelled => {
            format!(
                "the connection to the daemon was lost: {}",
                status.message()
            )
        }
        tonic::Code::Unimplemented => {
            "the daemon does not know this command: it is the other daemon, sender or receiver, or of an older version"
                .to_owned()
        }
        _ => status.message().to_owned(),
    };
    Problem::new(Kind::Failed, text)
}
