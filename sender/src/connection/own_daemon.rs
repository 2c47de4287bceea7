//! Calls of the program that restores to the sending daemon of this host.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use hyper_util::rt::TokioIo;
use sendshot_model::VolumeName;
use sendshot_proto::problem::{Kind, Problem};
use sendshot_proto::v1;
use sendshot_proto::v1::sender_control_client::SenderControlClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

/// A connection to the daemon.
#[derive(Debug, Clone)]
pub struct OwnDaemon(SenderControlClient<Channel>);

/// A hold on a volume's pushes, which ends when this is dropped.
#[derive(Debug)]
pub struct Hold(
    #[allow(dead_code, reason = "the open call is the hold")] Streaming<v1::HoldVolumeEvent>,
);

impl OwnDaemon {
    /// Connects to the daemon's socket; `None` if no daemon runs.
    ///
    /// # Errors
    /// I/O errors.
    pub async fn connect(socket: &Path) -> io::Result<Option<Self>> {
        let stream = match UnixStream::connect(socket).await {
            Ok(stream) => stream,
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                return Ok(None);
            }
            Err(e) => return Err(e),
        };
        let mut stream = Some(TokioIo::new(stream));
        let connector = tower::service_fn(move |_: http::Uri| {
            let stream = stream.take();
            async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
        });
        let channel = Endpoint::from_static("http://localhost")
            .connect_with_connector(connector)
            .await;
        let channel = channel.map_err(io::Error::other)?;
        Ok(Some(Self(SenderControlClient::new(channel))))
    }

    /// Holds back the pushes of a volume.
    ///
    /// # Errors
    /// The problem that the daemon reports.
    pub async fn hold(&self, volume: &VolumeName) -> Result<Hold, Problem> {
        let request = v1::HoldVolumeRequest {
            volume: volume.to_string(),
        };
        let mut events = self
            .0
            .clone()
            .hold_volume(request)
            .await
            .map_err(lost)?
            .into_inner();
        let first = events.message().await.map_err(lost)?;
        match first {
            Some(v1::HoldVolumeEvent { problem: None }) => Ok(Hold(events)),
            Some(v1::HoldVolumeEvent {
                problem: Some(problem),
            }) => Err(problem.into()),
            None => Err(Problem::new(Kind::Failed, "the daemon ended the hold")),
        }
    }

    /// Has a restored subvolume recorded.
    ///
    /// # Errors
    /// The problem that the daemon reports.
    pub async fn record(&self, restored: RestoredMessage<'_>) -> Result<(), Problem> {
        let request = v1::RecordRestoredRequest {
            volume: restored.volume.to_string(),
            receiver: restored.receiver.to_owned(),
            uuid: restored.uuid.as_bytes().to_vec(),
            ctransid: restored.ctransid,
            copy: restored.copy.to_owned(),
            root_id: restored.root_id,
            fsid: restored.fsid.as_bytes().to_vec(),
            device: restored
                .device
                .map(|device| device.as_os_str().as_bytes().to_vec())
                .unwrap_or_default(),
            staging: restored.staging.as_os_str().as_bytes().to_vec(),
            snapshot: restored.snapshot.as_os_str().as_bytes().to_vec(),
        };
        let answer = self
            .0
            .clone()
            .record_restored(request)
            .await
            .map_err(lost)?;
        match answer.into_inner().problem {
            None => Ok(()),
            Some(problem) => Err(problem.into()),
        }
    }
}

/// The fields of a restored subvolume.
#[derive(Debug)]
pub struct RestoredMessage<'a> {
    pub volume: &'a VolumeName,
    pub receiver: &'a str,
    pub uuid: uuid::Uuid,
    pub ctransid: u64,
    pub copy: &'a str,
    pub root_id: Vec<u8>,
    pub fsid: uuid::Uuid,
    pub device: Option<&'a Path>,
    pub staging: &'a Path,
    pub snapshot: &'a Path,
}

fn lost(status: Status) -> Problem {
    Problem::new(
        Kind::Failed,
        format!(
            "the connection to sendshot-sender was lost: {}",
            status.message()
        ),
    )
}
