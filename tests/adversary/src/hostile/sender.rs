//! A sender that has a paired host's key and sends arbitrary messages.

use std::time::Duration;

use sendshot_proto::chain::Chain;
use sendshot_proto::v1::replication_client::ReplicationClient;
use sendshot_proto::v1::transfer_down::Message as Down;
use sendshot_proto::v1::transfer_up::Message as Up;
use sendshot_proto::v1::{
    Begin, Committed, End, Failure, HelloRequest, InventoryRequest, InventoryResponse, Segment,
    TransferUp,
};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use crate::hostile::trick::World;
use crate::lying_peer::dial::{self, Stolen};
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;

/// Time limit for a receiver to report how a push ended.
const PATIENCE: Duration = Duration::from_secs(30);

/// Usual length of a segment.
const SEGMENT: usize = 256 * 1024;

/// The receiver's final answer.
#[derive(Debug)]
pub enum Answer {
    /// It has committed a copy.
    Committed(Committed),
    /// It reported a failure.
    Failure(Failure),
    /// It ended the call with a status.
    Status(Status),
    /// It ended the call without an answer.
    Nothing,
    /// It did not answer in time.
    Silence,
}

/// What the sender does after its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Waits for the answer.
    Wait,
    /// Closes its direction, and waits for the answer.
    Close,
    /// Sends nothing more for this time, then cuts the connection.
    HangUp(Duration),
}

/// The hostile sender, connected.
#[derive(Debug)]
pub struct HostileSender {
    runtime: Runtime,
    client: ReplicationClient<Channel>,
    stolen: Stolen,
}

impl HostileSender {
    /// Connects with the key of a sender that calls the receiver `name`.
    ///
    /// # Panics
    /// If the receiver refuses it.
    #[track_caller]
    pub fn connect(sender: &SenderHost, receiver: &ReceiverHost, name: &str) -> Self {
        let stolen = Stolen::from(sender, receiver, name);
        let runtime = runtime();
        let client = runtime.block_on(greeted(&stolen));
        Self {
            runtime,
            client,
            stolen,
        }
    }

    /// Makes any calls over a separate connection.
    ///
    /// # Panics
    /// If the receiver refuses it.
    pub fn call<F: Future>(&self, calls: impl FnOnce(Channel) -> F) -> F::Output {
        self.runtime
            .block_on(async { calls(self.stolen.channel().await.unwrap()).await })
    }

    /// Asks for the copies of a volume.
    ///
    /// # Errors
    /// The status of the receiver.
    pub fn inventory(&self, request: InventoryRequest) -> Result<InventoryResponse, Status> {
        let asked = dial::inventory(self.client.clone(), request);
        self.runtime.block_on(asked)
    }

    /// Sends these messages without waiting for answers in between, and then reads the answer.
    pub fn push(&self, messages: Vec<TransferUp>, then: Then) -> Answer {
        self.push_pausing(messages, then, Duration::ZERO)
    }

    /// As [`push`](Self::push), with a pause before the last message.
    pub fn push_pausing(&self, messages: Vec<TransferUp>, then: Then, pause: Duration) -> Answer {
        let Then::HangUp(moment) = then else {
            let heard = say(self.client.clone(), messages, then, pause);
            return self
                .runtime
                .block_on(async { timeout(PATIENCE, heard).await.unwrap_or(Answer::Silence) });
        };
        self.hang_up(vec![messages], moment, || {})
    }

    /// Sends messages, the last one after a pause, and cuts the connection after another pause.
    pub fn hang_up_pausing(&self, messages: Vec<TransferUp>, pause: Duration) -> Answer {
        let runtime = runtime();
        let answer = runtime.block_on(async {
            let client = greeted(&self.stolen).await;
            let heard = say(client, messages, Then::Wait, pause);
            let heard = timeout(pause * 2, heard).await;
            heard.unwrap_or(Answer::Silence)
        });
        runtime.shutdown_timeout(Duration::from_secs(5));
        answer
    }

    /// Sends messages of several pushes at once over a separate connection, runs `meanwhile` after
    /// `moment`, and cuts the connection. Returns the first push's answer.
    pub fn hang_up(
        &self,
        pushes: Vec<Vec<TransferUp>>,
        moment: Duration,
        meanwhile: impl FnOnce(),
    ) -> Answer {
        let runtime = runtime();
        let client = runtime.block_on(greeted(&self.stolen));
        let pushes: Vec<_> = pushes
            .into_iter()
            .map(|messages| {
                let heard = say(client.clone(), messages, Then::Wait, Duration::ZERO);
                runtime.spawn(heard)
            })
            .collect();
        let first = pushes.into_iter().next();
        let first = runtime.block_on(async {
            match first {
                Some(first) => timeout(moment, first).await.ok(),
                None => None,
            }
        });
        meanwhile();
        runtime.shutdown_timeout(Duration::from_secs(5));
        first.map_or(Answer::Silence, Result::unwrap)
    }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// Opens a connection and exchanges the greetings.
async fn greeted(stolen: &Stolen) -> ReplicationClient<Channel> {
    let mut client = stolen.dial().await.unwrap();
    let hello = HelloRequest {
        version_min: 1,
        version_max: 1,
        features: vec!["resume".into(), "stream-v2".into()],
        software: "hostile".into(),
        receiver_id: Vec::new(),
    };
    client.hello(hello).await.unwrap();
    // Allows messages beyond the size limit.
    client.max_encoding_message_size(64 << 20)
}

async fn say(
    mut client: ReplicationClient<Channel>,
    messages: Vec<TransferUp>,
    then: Then,
    pause: Duration,
) -> Answer {
    let (queue, queued) = mpsc::channel(4);
    tokio::spawn(async move {
        let last = messages.len().saturating_sub(1);
        for (number, message) in messages.into_iter().enumerate() {
            if number == last {
                sleep(pause).await;
            }
            if queue.send(message).await.is_err() {
                return;
            }
        }
        if then != Then::Close {
            queue.closed().await;
        }
    });
    let mut answers = match client.transfer(ReceiverStream::new(queued)).await {
        Err(status) => return Answer::Status(status),
        Ok(answers) => answers.into_inner(),
    };
    loop {
        let message = match answers.message().await {
            Err(status) => return Answer::Status(status),
            Ok(None) => return Answer::Nothing,
            Ok(Some(message)) => message,
        };
        match message.message {
            Some(Down::Committed(committed)) => return Answer::Committed(committed),
            Some(Down::Failure(failure)) => return Answer::Failure(failure),
            Some(Down::Accepted(_) | Down::Applied(_) | Down::Checkpoint(_) | Down::Waiting(_))
            | None => {}
        }
    }
}

/// The begin message for a world's stream.
pub fn begin(world: &World, volume_id: [u8; 16], volume_name: &str) -> Begin {
    Begin {
        transfer_id: world.uuid.as_bytes().to_vec(),
        volume_id: volume_id.to_vec(),
        volume_name: volume_name.to_owned(),
        uuid: world.uuid.as_bytes().to_vec(),
        ctransid: world.ctransid,
        parent: None,
        taken_at: 1_795_000_000,
        stream_version: 2,
        resumable: false,
        resume_at: None,
        root_id: Vec::new(),
        of_snapshot: Some(false),
        may_wait: true,
    }
}

/// A message.
pub fn up(message: Up) -> TransferUp {
    let message = Some(message);
    TransferUp { message }
}

/// Splits a stream into segments of a length, with correct hashes, and makes its end message.
pub fn segments(stream: &[u8], len: usize) -> (Vec<Segment>, End) {
    let pieces: Vec<_> = stream.chunks(len).map(<[u8]>::to_vec).collect();
    let (mut segments, end) = self::pieces(&pieces);
    for segment in &mut segments {
        segment.marked = false;
    }
    (segments, end)
}

/// Makes segments of pieces of a stream, all marked, with correct hashes, and the end message.
pub fn pieces(pieces: &[Vec<u8>]) -> (Vec<Segment>, End) {
    let (mut chain, mut offset) = (Chain::default(), 0);
    let mut segments = Vec::new();
    for data in pieces {
        chain = chain.extend(data);
        segments.push(Segment {
            offset,
            data: data.clone().into(),
            chain: chain.0.to_vec(),
            marked: true,
        });
        offset += data.len() as u64;
    }
    let end = End {
        length: offset,
        chain: chain.0.to_vec(),
    };
    (segments, end)
}

/// All messages of a push.
pub fn whole(begin: Begin, stream: &[u8]) -> Vec<TransferUp> {
    let (segments, end) = segments(stream, SEGMENT);
    said(begin, segments, [end])
}

/// Messages in the right order, as many as are given.
pub fn said(
    begin: Begin,
    segments: impl IntoIterator<Item = Segment>,
    ends: impl IntoIterator<Item = End>,
) -> Vec<TransferUp> {
    let segments = segments.into_iter().map(Up::Segment);
    let ends = ends.into_iter().map(Up::End);
    [Up::Begin(begin)]
        .into_iter()
        .chain(segments)
        .chain(ends)
        .map(up)
        .collect()
}
