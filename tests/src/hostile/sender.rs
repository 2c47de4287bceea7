//! A sender that has a paired box's key and says what it likes.

use std::time::Duration;

use sendshot_proto::transfer::Chain;
use sendshot_proto::v1::replication_client::ReplicationClient;
use sendshot_proto::v1::transfer_down::Message as Down;
use sendshot_proto::v1::transfer_up::Message as Up;
use sendshot_proto::v1::{
    Accepted, Begin, Committed, End, Failure, HelloRequest, InventoryRequest, InventoryResponse,
    Segment, TransferUp,
};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use crate::hostile::World;
use crate::liar::dial::Stolen;
use crate::receiver_box::ReceiverBox;
use crate::sender_box::SenderBox;

/// How long a receiver may take to say how a push ended.
const PATIENCE: Duration = Duration::from_secs(30);

/// Usual length of a segment.
const SEGMENT: usize = 256 * 1024;

/// What a receiver answered at last.
#[derive(Debug)]
pub enum Answer {
    /// It has a copy.
    Committed(Committed),
    /// It told what is wrong.
    Failure(Failure),
    /// It ended the call with a status.
    Status(Status),
    /// It ended the call and said nothing.
    Nothing,
    /// It did not answer.
    Silence,
}

/// What is done when the messages are said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Wait for the answer.
    Wait,
    /// Close this direction, and wait for the answer.
    Close,
    /// Say nothing more for a moment, and hang up.
    HangUp(Duration),
}

/// The hostile sender, connected.
#[derive(Debug)]
pub struct HostileSender {
    runtime: Runtime,
    client: ReplicationClient<Channel>,
}

impl HostileSender {
    /// Connects with the key of a sender that calls the receiver `name`.
    ///
    /// # Panics
    /// If it is not let in.
    #[track_caller]
    pub fn connect(sender: &SenderBox, receiver: &ReceiverBox, name: &str) -> Self {
        let stolen = Stolen::from(sender, receiver, name);
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let client = runtime.block_on(async {
            let mut client = stolen.dial().await.unwrap();
            let hello = HelloRequest {
                version_min: 1,
                version_max: 1,
                features: vec!["resume".into(), "stream-v2".into()],
                software: "hostile".into(),
                receiver_id: Vec::new(),
            };
            client.hello(hello).await.unwrap();
            // Bigger messages than are allowed are to be sent.
            client.max_encoding_message_size(64 << 20)
        });
        Self { runtime, client }
    }

    /// Asks what is held of a volume.
    ///
    /// # Errors
    /// The receiver's.
    pub fn inventory(&self, request: InventoryRequest) -> Result<InventoryResponse, Status> {
        let mut client = self.client.clone();
        let answer = self.runtime.block_on(client.inventory(request))?;
        Ok(answer.into_inner())
    }

    /// Says these messages without waiting for an answer in between, and then hears the answer.
    pub fn push(&self, messages: Vec<Up>, then: Then) -> Answer {
        self.push_accepted(messages, then).0
    }

    /// The same, and what the receiver said when it accepted.
    pub fn push_accepted(&self, messages: Vec<Up>, then: Then) -> (Answer, Option<Accepted>) {
        let mut accepted = None;
        let answer = self.runtime.block_on(async {
            let said = self.say(messages, then, &mut accepted);
            timeout(PATIENCE, said).await.unwrap_or(Answer::Silence)
        });
        (answer, accepted)
    }

    async fn say(&self, messages: Vec<Up>, then: Then, accepted: &mut Option<Accepted>) -> Answer {
        let (queue, queued) = mpsc::channel(4);
        tokio::spawn(async move {
            for message in messages {
                let message = Some(message);
                if queue.send(TransferUp { message }).await.is_err() {
                    return;
                }
            }
            if then != Then::Close {
                queue.closed().await;
            }
        });
        let mut client = self.client.clone();
        let heard = async {
            match client.transfer(ReceiverStream::new(queued)).await {
                Err(status) => Answer::Status(status),
                Ok(answers) => {
                    let mut answers = answers.into_inner();
                    loop {
                        match answers.message().await {
                            Err(status) => return Answer::Status(status),
                            Ok(None) => return Answer::Nothing,
                            Ok(Some(message)) => match message.message {
                                Some(Down::Committed(committed)) => {
                                    return Answer::Committed(committed);
                                }
                                Some(Down::Failure(failure)) => return Answer::Failure(failure),
                                Some(Down::Accepted(said)) => *accepted = Some(said),
                                Some(Down::Applied(_) | Down::Checkpoint(_)) | None => {}
                            },
                        }
                    }
                }
            }
        };
        match then {
            Then::Wait | Then::Close => heard.await,
            Then::HangUp(moment) => timeout(moment, heard).await.unwrap_or(Answer::Silence),
        }
    }
}

/// The beginning of a push of what a world's stream says it is.
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
    }
}

/// A stream as segments and an end, with all hashes right.
pub fn segments(stream: &[u8]) -> Vec<Up> {
    let (mut chain, mut offset) = (Chain::default(), 0);
    let mut messages = Vec::new();
    for data in stream.chunks(SEGMENT) {
        chain = chain.extend(data);
        messages.push(Up::Segment(Segment {
            offset,
            data: data.to_vec().into(),
            chain: chain.0.to_vec(),
            marked: false,
        }));
        offset += data.len() as u64;
    }
    messages.push(Up::End(End {
        length: offset,
        chain: chain.0.to_vec(),
    }));
    messages
}

/// All messages of a push.
pub fn whole(begin: Begin, stream: &[u8]) -> Vec<Up> {
    let mut messages = vec![Up::Begin(begin)];
    messages.extend(segments(stream));
    messages
}
