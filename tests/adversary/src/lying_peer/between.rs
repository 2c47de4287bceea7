//! A lying peer: it acts as the receiver towards the sender and as the sender towards the receiver,
//! with their own keys, and changes their messages.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sendshot_proto::transfer::MAX_MESSAGE;
use sendshot_proto::v1;
use sendshot_proto::v1::replication_server::{Replication, ReplicationServer};
use tokio::net::TcpListener;
use tokio::runtime::{self, Runtime};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use crate::lying_peer::dial::{self, Stolen};
use crate::lying_peer::lie::Lie;
use crate::lying_peer::rewriter::{MessageRewriter, Said};
use sendshot_harness::hosts::address;
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;

/// Queued messages in each direction.
const QUEUE: usize = 4;

/// A man in the middle. Open connections break on drop.
#[derive(Debug)]
pub struct LyingPeer {
    address: SocketAddr,
    rewriter: Arc<Mutex<MessageRewriter>>,
    runtime: Option<Runtime>,
}

impl LyingPeer {
    /// Makes a peer that tells a lie of one kind, at a place chosen by `seed`, and is honest otherwise.
    /// `name` is the sender's name for the receiver. The peer listens at an address of its own.
    ///
    /// # Panics
    /// If the hosts are not paired, or it cannot listen.
    #[track_caller]
    pub fn between(
        sender: &SenderHost,
        receiver: &ReceiverHost,
        name: &str,
        lie: Lie,
        seed: u64,
    ) -> Self {
        Self::new(
            sender,
            receiver,
            name,
            MessageRewriter::new(lie, seed),
            (Box::new(|| {}), Box::new(|message| vec![message])),
        )
    }

    /// Makes a peer that replaces each message of a fetch by those that `twist` returns, and is honest otherwise.
    ///
    /// # Panics
    /// As [`between`](Self::between).
    #[track_caller]
    pub fn twisting(
        sender: &SenderHost,
        receiver: &ReceiverHost,
        name: &str,
        twist: impl FnMut(v1::FetchResponse) -> Vec<v1::FetchResponse> + Send + 'static,
    ) -> Self {
        let rewriter = MessageRewriter::new(Lie::Nothing, 0);
        let honest: Meddle = Box::new(|| {});
        Self::new(sender, receiver, name, rewriter, (honest, Box::new(twist)))
    }

    /// Makes an honest peer that runs `meddle` each time the sender has asked for the inventory, before it
    /// passes on the response: by then the sender has taken its snapshot but not read it yet.
    ///
    /// # Panics
    /// As [`between`](Self::between).
    #[track_caller]
    pub fn meddling(
        sender: &SenderHost,
        receiver: &ReceiverHost,
        name: &str,
        meddle: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let rewriter = MessageRewriter::new(Lie::Nothing, 0);
        let honest: Twist = Box::new(|message| vec![message]);
        Self::new(sender, receiver, name, rewriter, (Box::new(meddle), honest))
    }

    #[track_caller]
    fn new(
        sender: &SenderHost,
        receiver: &ReceiverHost,
        name: &str,
        rewriter: MessageRewriter,
        (meddle, twist): (Meddle, Twist),
    ) -> Self {
        let stolen = Arc::new(Stolen::from(sender, receiver, name));
        let rewriter = Arc::new(Mutex::new(rewriter));
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        // Kept open from here on: processes that this one starts meanwhile hold its descriptors for a
        // moment, so a closed address would not be free at once.
        let listener = address::listen();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let tls = sendshot_identity::server_config(&stolen.authority).unwrap();
        let service = Between {
            stolen,
            rewriter: Arc::clone(&rewriter),
            meddle,
            twist: Arc::new(Mutex::new(twist)),
        };
        let service = ReplicationServer::new(service).max_decoding_message_size(MAX_MESSAGE);
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            let connections =
                sendshot_identity::accept(listener, tls, sendshot_identity::Connections::default());
            let server = Server::builder().add_service(service);
            server
                .serve_with_incoming(ReceiverStream::new(connections))
                .await
        });
        Self {
            address,
            rewriter,
            runtime: Some(runtime),
        }
    }

    /// Address that it listens at.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Number of lies told so far.
    ///
    /// # Panics
    /// If a thread panicked while it told one.
    pub fn told(&self) -> u64 {
        self.rewriter.lock().unwrap().told()
    }
}

impl Drop for LyingPeer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

/// Runs before the sender gets the inventory.
type Meddle = Box<dyn Fn() + Send + Sync>;

/// Replaces a message of a fetch.
type Twist = Box<dyn FnMut(v1::FetchResponse) -> Vec<v1::FetchResponse> + Send>;

struct Between {
    stolen: Arc<Stolen>,
    rewriter: Arc<Mutex<MessageRewriter>>,
    meddle: Meddle,
    twist: Arc<Mutex<Twist>>,
}

#[tonic::async_trait]
impl Replication for Between {
    type InventoryStream =
        tokio_stream::Iter<std::vec::IntoIter<Result<v1::InventoryResponse, Status>>>;
    type TransferStream = ReceiverStream<Result<v1::TransferDown, Status>>;
    type VolumesStream = Streaming<v1::VolumesResponse>;
    type FetchStream = ReceiverStream<Result<v1::FetchResponse, Status>>;

    async fn volumes(
        &self,
        request: Request<v1::VolumesRequest>,
    ) -> Result<Response<Self::VolumesStream>, Status> {
        let answer = self
            .stolen
            .dial()
            .await?
            .volumes(request.into_inner())
            .await;
        Ok(Response::new(answer?.into_inner()))
    }

    async fn fetch(
        &self,
        request: Request<v1::FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let answer = self.stolen.dial().await?.fetch(request.into_inner()).await;
        let mut messages = answer?.into_inner();
        let (to_sender, answers) = mpsc::channel(QUEUE);
        let twist = Arc::clone(&self.twist);
        tokio::spawn(async move {
            loop {
                let said = match messages.message().await {
                    Ok(Some(message)) => {
                        twist.lock().unwrap()(message).into_iter().map(Ok).collect()
                    }
                    Ok(None) => return,
                    Err(status) => vec![Err(status)],
                };
                for message in said {
                    if to_sender.send(message).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn hello(
        &self,
        request: Request<v1::HelloRequest>,
    ) -> Result<Response<v1::HelloResponse>, Status> {
        let answer = self.stolen.dial().await?.hello(request.into_inner()).await;
        Ok(Response::new(answer?.into_inner()))
    }

    async fn confirm(
        &self,
        request: Request<v1::ConfirmRequest>,
    ) -> Result<Response<v1::ConfirmResponse>, Status> {
        let answer = self
            .stolen
            .dial()
            .await?
            .confirm(request.into_inner())
            .await;
        Ok(Response::new(answer?.into_inner()))
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewResponse>, Status> {
        let answer = self.stolen.dial().await?.renew(request.into_inner()).await;
        Ok(Response::new(answer?.into_inner()))
    }

    async fn inventory(
        &self,
        request: Request<v1::InventoryRequest>,
    ) -> Result<Response<Self::InventoryStream>, Status> {
        let client = self.stolen.dial().await?;
        let mut answer = dial::inventory(client, request.into_inner()).await?;
        self.rewriter.lock().unwrap().inventory(&mut answer);
        (self.meddle)();
        Ok(Response::new(tokio_stream::iter(vec![Ok(answer)])))
    }

    async fn transfer(
        &self,
        request: Request<Streaming<v1::TransferUp>>,
    ) -> Result<Response<Self::TransferStream>, Status> {
        let mut client = self.stolen.dial().await?;
        self.rewriter.lock().unwrap().begins();
        let (to_receiver, messages) = mpsc::channel(QUEUE);
        let (to_sender, answers) = mpsc::channel(QUEUE);
        let rewriter = Arc::clone(&self.rewriter);
        let to_sender_too = to_sender.clone();
        tokio::spawn(async move {
            forward_up(&rewriter, request.into_inner(), to_receiver, to_sender_too).await;
        });
        let rewriter = Arc::clone(&self.rewriter);
        tokio::spawn(async move {
            let sender_hung_up = to_sender.clone();
            let down = async {
                match client.transfer(ReceiverStream::new(messages)).await {
                    Ok(answers) => forward_down(&rewriter, answers.into_inner(), &to_sender).await,
                    Err(status) => drop(to_sender.send(Err(status)).await),
                }
            };
            tokio::select! {
                () = down => {}
                () = sender_hung_up.closed() => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

type ToSender = mpsc::Sender<Result<v1::TransferDown, Status>>;

/// Forwards the sender's messages until either side hangs up.
async fn forward_up(
    rewriter: &Mutex<MessageRewriter>,
    mut messages: Streaming<v1::TransferUp>,
    to_receiver: mpsc::Sender<v1::TransferUp>,
    to_sender: ToSender,
) {
    while let Ok(Some(message)) = messages.message().await {
        let Said { up, down } = rewriter.lock().unwrap().up(message);
        for message in up {
            if to_receiver.send(message).await.is_err() {
                return;
            }
        }
        for message in down {
            let _ = to_sender.send(Ok(message)).await;
        }
    }
}

/// Forwards the receiver's messages until it ends the call, or must be silenced.
async fn forward_down(
    rewriter: &Mutex<MessageRewriter>,
    mut answers: Streaming<v1::TransferDown>,
    to_sender: &ToSender,
) {
    loop {
        let said = match answers.message().await {
            Ok(Some(message)) => rewriter.lock().unwrap().down(message),
            Ok(None) => break,
            Err(status) => {
                let _ = to_sender.send(Err(status)).await;
                return;
            }
        };
        for message in said {
            if to_sender.send(Ok(message)).await.is_err() {
                return;
            }
        }
    }
    if rewriter.lock().unwrap().is_silent() {
        to_sender.closed().await;
    }
}
