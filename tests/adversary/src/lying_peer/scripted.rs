//! A receiver that has a paired host's keys and responds arbitrarily: with messages that are out of order,
//! huge, slow or endless, and with invalid HTTP/2.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use jiff::Timestamp;
use prost::Message;
use sendshot_identity::Connections;
use sendshot_model::SenderId;
use sendshot_proto::transfer::Windows;
use sendshot_proto::v1::transfer_down::Message as Down;
use sendshot_proto::v1::transfer_up::Message as Up;
use sendshot_proto::v1::{self, TransferDown, TransferUp};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;
use tonic::Status;

use crate::lying_peer::dial::{self, Stolen};
use sendshot_harness::hosts::address;
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;

/// Bytes of a flood written at a time, and the pause in between: fast enough to fill unbounded memory, slow
/// enough for several floods at once.
const PIECE: usize = 64 * 1024;
const PAUSE: Duration = Duration::from_millis(5);

/// Receive window of a receiver that reads everything.
const WINDOW: u32 = 1 << 20;

/// Length of the gRPC prefix of a message: the compression flag and the message length.
const HEAD: usize = 5;

/// Makes a response from the honest one and from what was heard so far.
pub type Change = Arc<dyn Fn(Bytes, &Heard) -> Bytes + Send + Sync>;

/// One step of the response to a call.
#[derive(Clone)]
pub enum Step {
    /// Sends the honest receiver's response, changed. Not for transfers.
    Honest(Change),
    /// Reads messages until the sender has sent this one.
    Hear(Until),
    /// Reads this many bytes, and at most the window at a time.
    Nibble(usize),
    /// Sends bytes.
    Say(Bytes),
    /// Sends bytes one by one, with a pause after each.
    Drip(Bytes, Duration),
    /// Sends the same bytes this many times.
    Flood(Bytes, u64),
    /// Begins the response with these headers.
    Headers(HeaderMap),
    /// Does nothing for this time.
    Wait(Duration),
    /// Sends and reads nothing until the sender hangs up.
    Hold,
    /// Ends the call with these trailers.
    End(HeaderMap),
    /// Breaks the connection.
    Cut,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Honest(_) => "Honest",
            Self::Hear(_) => "Hear",
            Self::Nibble(_) => "Nibble",
            Self::Say(_) => "Say",
            Self::Drip(..) => "Drip",
            Self::Flood(..) => "Flood",
            Self::Headers(_) => "Headers",
            Self::Wait(_) => "Wait",
            Self::Hold => "Hold",
            Self::End(_) => "End",
            Self::Cut => "Cut",
        })
    }
}

/// The message to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// The sender's begin message.
    Begin,
    /// A segment of its stream.
    Segment,
    /// The end of its stream.
    End,
    /// None; reads until the sender hangs up.
    Never,
}

/// What is sent over a connection.
#[derive(Debug, Clone)]
pub enum Wire {
    /// HTTP/2, with a window of this many bytes for each call.
    Http2(u32),
    /// The first bytes once the sender has sent anything, then the second ones without end.
    Raw(Bytes, Bytes),
    /// These bytes one by one, with a pause after each.
    Drip(Bytes, Duration),
}

/// The calls of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// `Hello`.
    Hello,
    /// `Inventory`.
    Inventory,
    /// `Transfer`.
    Transfer,
    /// `Renew`.
    Renew,
    /// `Pair`.
    Pair,
}

impl Call {
    fn of(path: &str) -> Option<Self> {
        match path.rsplit('/').next()? {
            "Hello" => Some(Self::Hello),
            "Inventory" => Some(Self::Inventory),
            "Transfer" => Some(Self::Transfer),
            "Renew" => Some(Self::Renew),
            "Pair" => Some(Self::Pair),
            _ => None,
        }
    }
}

/// The responses to calls. Other calls are answered honestly, other transfers not at all.
#[derive(Debug, Clone)]
pub struct Script {
    wire: Wire,
    calls: HashMap<Call, Vec<Step>>,
}

impl Script {
    /// A script that answers one call with these steps.
    pub fn to(call: Call, steps: Vec<Step>) -> Self {
        Self::on(Wire::Http2(WINDOW)).and(call, steps)
    }

    /// Answers all calls honestly, over a connection that may be hostile itself.
    pub fn on(wire: Wire) -> Self {
        let calls = HashMap::new();
        Self { wire, calls }
    }

    /// Adds the response to another call.
    #[must_use]
    pub fn and(mut self, call: Call, steps: Vec<Step>) -> Self {
        self.calls.insert(call, steps);
        self
    }
}

/// What the sender has sent since the script began.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// The begin message of its last transfer.
    pub begin: Option<v1::Begin>,
    /// Bytes of its streams, in all transfers.
    pub bytes: u64,
    /// Resume point at the end of its last segment.
    pub point: Option<v1::ResumePoint>,
    /// Number of marked segments.
    pub marked: u64,
    /// Number of ended streams.
    pub ends: u64,
    /// Number of calls.
    pub calls: u64,
    /// Number of connections.
    pub connections: u64,
}

#[derive(Debug)]
struct Shared {
    stolen: Stolen,
    script: Mutex<(Script, Heard)>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, (Script, Heard)> {
        self.script.lock().unwrap()
    }
}

/// The hostile receiver. Open connections break on drop.
#[derive(Debug)]
pub struct ScriptedReceiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

impl ScriptedReceiver {
    /// Makes one with the keys of a receiver that a sender calls `name`, at an address of its own.
    ///
    /// # Panics
    /// If the hosts are not paired, or it cannot listen.
    #[track_caller]
    pub fn of(sender: &SenderHost, receiver: &ReceiverHost, name: &str) -> Self {
        let stolen = Stolen::from(sender, receiver, name);
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = address::listen();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let tls = sendshot_identity::server_config(&stolen.authority).unwrap();
        let script = Mutex::new((Script::on(Wire::Http2(WINDOW)), Heard::default()));
        let shared = Arc::new(Shared { stolen, script });
        let served = Arc::clone(&shared);
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            let mut accepted = sendshot_identity::accept(listener, tls, Connections::default());
            while let Some(Ok(stream)) = accepted.recv().await {
                tokio::spawn(serve(Arc::clone(&served), stream));
            }
        });
        Self {
            address,
            shared,
            runtime: Some(runtime),
        }
    }

    /// Address that it listens at.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Uses this script from the next call on, and clears what it has heard.
    ///
    /// # Panics
    /// If a thread panicked while it answered.
    pub fn says(&self, script: Script) {
        *self.shared.lock() = (script, Heard::default());
    }

    /// Makes a certificate from the receiver's authority for the key of a request, as of time `now`.
    ///
    /// # Panics
    /// If the request is invalid.
    pub fn certify(&self, request: &[u8], sender: SenderId, now: Timestamp) -> String {
        let authority = &self.shared.stolen.authority;
        authority.sign_sender(request, sender, now).unwrap().pem
    }

    /// What it has heard from the sender.
    ///
    /// # Panics
    /// If a thread panicked while it answered.
    pub fn heard(&self) -> Heard {
        self.shared.lock().1.clone()
    }
}

impl Drop for ScriptedReceiver {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

async fn serve<S>(shared: Arc<Shared>, stream: S)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let wire = {
        let (script, heard) = &mut *shared.lock();
        heard.connections += 1;
        script.wire.clone()
    };
    match wire {
        Wire::Http2(window) => serve_http2(shared, stream, window).await,
        Wire::Raw(first, again) => {
            let again: Bytes = again.repeat((PIECE / again.len().max(1)).max(1)).into();
            say_raw(stream, first, std::iter::repeat(again), PAUSE).await;
        }
        Wire::Drip(bytes, pause) => {
            let pieces = bytes.into_iter().map(|byte| Bytes::from(vec![byte]));
            say_raw(stream, Bytes::new(), pieces, pause).await;
        }
    }
}

/// Sends `first` and then `more`, with a pause after each piece, until the sender hangs up.
async fn say_raw<S>(
    stream: S,
    first: Bytes,
    more: impl Iterator<Item = Bytes> + Send,
    pause: Duration,
) where
    S: AsyncRead + AsyncWrite + Send,
{
    let (mut from, mut to) = tokio::io::split(stream);
    // After this read the first call is on its way.
    let mut heard = [0; 1024];
    let _ = from.read(&mut heard).await;
    sleep(PAUSE * 10).await;
    let say = async {
        to.write_all(&first).await?;
        for piece in more {
            to.write_all(&piece).await?;
            to.flush().await?;
            sleep(pause).await;
        }
        std::future::pending().await
    };
    let hear = async { while from.read(&mut heard).await.is_ok_and(|len| len > 0) {} };
    tokio::select! {
        said = say => drop::<std::io::Result<()>>(said),
        () = hear => {}
    }
}

async fn serve_http2<S>(shared: Arc<Shared>, stream: S, window: u32)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = h2::server::Builder::new()
        .initial_window_size(window)
        .initial_connection_window_size(Windows::NEAR.connection)
        .handshake(stream);
    let Ok(mut connection) = handshake.await else {
        return;
    };
    let cut = Arc::new(tokio::sync::Notify::new());
    loop {
        tokio::select! {
            () = cut.notified() => return,
            call = connection.accept() => match call {
                Some(Ok((request, respond))) => {
                    let answer = answer(Arc::clone(&shared), request, respond, Arc::clone(&cut));
                    tokio::spawn(answer);
                }
                Some(Err(_)) | None => return,
            }
        }
    }
}

/// A call being answered.
struct Talk {
    shared: Arc<Shared>,
    call: Call,
    up: RecvStream,
    unread: BytesMut,
    respond: SendResponse<Bytes>,
    down: Option<SendStream<Bytes>>,
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    cut: Arc<tokio::sync::Notify>,
) {
    let Some(call) = Call::of(request.uri().path()) else {
        respond.send_reset(Reason::REFUSED_STREAM);
        return;
    };
    let steps = {
        let (script, heard) = &mut *shared.lock();
        heard.calls += 1;
        let honest = || match call {
            Call::Transfer => vec![Step::Hear(Until::Never)],
            Call::Hello | Call::Inventory | Call::Renew | Call::Pair => vec![honest()],
        };
        script.calls.get(&call).cloned().unwrap_or_else(honest)
    };
    let mut talk = Talk {
        shared,
        call,
        up: request.into_body(),
        unread: BytesMut::new(),
        respond,
        down: None,
    };
    for step in steps {
        if matches!(step, Step::Cut) {
            cut.notify_one();
            return;
        }
        // An error means that the sender has hung up.
        if talk.take(step).await.is_err() {
            return;
        }
    }
    if talk.down.is_some() {
        let _ = talk.end(status(&Status::new(tonic::Code::Ok, ""))).await;
    }
}

impl Talk {
    async fn take(&mut self, step: Step) -> Result<(), h2::Error> {
        match step {
            Step::Honest(change) => match self.ask().await {
                Ok(honest) => {
                    let heard = self.shared.lock().1.clone();
                    self.say(change(honest, &heard)).await
                }
                Err(refused) => self.end(status(&refused)).await,
            },
            Step::Hear(until) => self.hear(until).await,
            Step::Nibble(bytes) => {
                let enough = self.unread.len() + bytes;
                while self.unread.len() < enough && self.more().await? {}
                Ok(())
            }
            Step::Say(bytes) => self.say(bytes).await,
            Step::Drip(bytes, pause) => {
                for byte in bytes {
                    self.say(vec![byte].into()).await?;
                    sleep(pause).await;
                }
                Ok(())
            }
            Step::Flood(bytes, times) => {
                let at_once = (PIECE / bytes.len().max(1)).max(1) as u64;
                let mut left = times;
                while left > 0 {
                    let now = left.min(at_once);
                    left -= now;
                    self.say(bytes.repeat(now as usize).into()).await?;
                }
                Ok(())
            }
            Step::Headers(headers) => self.begin(headers).map(drop),
            Step::Wait(time) => {
                sleep(time).await;
                Ok(())
            }
            Step::Hold => {
                self.begin(HeaderMap::new())?;
                let down = self.down.as_mut();
                let down = down.ok_or(Reason::INTERNAL_ERROR)?;
                std::future::poll_fn(|cx| down.poll_reset(cx)).await?;
                Err(Reason::CANCEL.into())
            }
            Step::End(trailers) => self.end(trailers).await,
            Step::Cut => Ok(()),
        }
    }

    fn begin(&mut self, extra: HeaderMap) -> Result<&mut SendStream<Bytes>, h2::Error> {
        if self.down.is_none() {
            let mut response = Response::new(());
            *response.headers_mut() = extra;
            let kind = HeaderValue::from_static("application/grpc");
            response
                .headers_mut()
                .insert(http::header::CONTENT_TYPE, kind);
            self.down = Some(self.respond.send_response(response, false)?);
        }
        self.down.as_mut().ok_or(Reason::INTERNAL_ERROR.into())
    }

    async fn say(&mut self, mut bytes: Bytes) -> Result<(), h2::Error> {
        let down = self.begin(HeaderMap::new())?;
        while !bytes.is_empty() {
            down.reserve_capacity(bytes.len().min(PIECE));
            let room = std::future::poll_fn(|cx| down.poll_capacity(cx)).await;
            let room = room.ok_or(Reason::CANCEL)??;
            down.send_data(bytes.split_to(room.min(bytes.len())), false)?;
        }
        Ok(())
    }

    async fn end(&mut self, trailers: HeaderMap) -> Result<(), h2::Error> {
        self.begin(HeaderMap::new())?.send_trailers(trailers)?;
        self.hear(Until::Never).await
    }

    /// Returns the next message of the sender; `None` at the end of its direction.
    async fn message(&mut self) -> Result<Option<Bytes>, h2::Error> {
        loop {
            let len = |unread: &BytesMut| {
                let head = unread.get(1..HEAD)?;
                Some(u32::from_be_bytes(head.try_into().ok()?) as usize)
            };
            if let Some(len) = len(&self.unread).filter(|len| self.unread.len() >= HEAD + len) {
                self.unread.advance(HEAD);
                return Ok(Some(self.unread.split_to(len).freeze()));
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    /// Reads the next data; false at the end of the sender's direction.
    async fn more(&mut self) -> Result<bool, h2::Error> {
        let Some(data) = self.up.data().await else {
            return Ok(false);
        };
        let data = data?;
        self.up.flow_control().release_capacity(data.len())?;
        self.unread.extend_from_slice(&data);
        Ok(true)
    }

    async fn hear(&mut self, until: Until) -> Result<(), h2::Error> {
        while let Some(message) = self.message().await? {
            if self.call != Call::Transfer {
                continue;
            }
            let message = TransferUp::decode(message).map_err(|_| Reason::INTERNAL_ERROR)?;
            let heard = &mut self.shared.lock().1;
            let now = match message.message {
                Some(Up::Begin(begin)) => {
                    heard.begin = Some(begin);
                    Until::Begin
                }
                Some(Up::Segment(segment)) => {
                    heard.bytes += segment.data.len() as u64;
                    heard.point = Some(v1::ResumePoint {
                        offset: segment.offset + segment.data.len() as u64,
                        chain: segment.chain,
                    });
                    heard.marked += u64::from(segment.marked);
                    Until::Segment
                }
                Some(Up::End(_)) => {
                    heard.ends += 1;
                    Until::End
                }
                None => Until::Never,
            };
            if now == until {
                return Ok(());
            }
        }
        match until {
            Until::Never => Ok(()),
            Until::Begin | Until::Segment | Until::End => Err(Reason::CANCEL.into()),
        }
    }

    /// Asks the honest receiver, and returns its response.
    async fn ask(&mut self) -> Result<Bytes, Status> {
        let broken = |e: h2::Error| Status::unavailable(e.to_string());
        let question = self.message().await.map_err(broken)?.unwrap_or_default();
        let malformed = |e: prost::DecodeError| Status::invalid_argument(e.to_string());
        let mut client = self.shared.stolen.dial().await?;
        Ok(match self.call {
            Call::Hello => {
                let question = v1::HelloRequest::decode(question).map_err(malformed)?;
                framed(client.hello(question).await?.get_ref())
            }
            Call::Inventory => {
                let question = v1::InventoryRequest::decode(question).map_err(malformed)?;
                framed(&dial::inventory(client, question).await?)
            }
            Call::Renew => {
                let question = v1::RenewRequest::decode(question).map_err(malformed)?;
                framed(client.renew(question).await?.get_ref())
            }
            Call::Transfer | Call::Pair => return Err(Status::unimplemented("not asked honestly")),
        })
    }
}

/// Encodes a message with its gRPC prefix.
pub fn framed(message: &impl Message) -> Bytes {
    let message = message.encode_to_vec();
    let len = u32::try_from(message.len()).unwrap();
    [&[0], &len.to_be_bytes()[..], &message].concat().into()
}

/// Prefixes bytes with a length that they do not have.
pub fn framed_as(len: u32, bytes: &[u8]) -> Bytes {
    [&[0], &len.to_be_bytes()[..], bytes].concat().into()
}

/// Encodes a message of a transfer.
pub fn down(message: Down) -> Bytes {
    let message = Some(message);
    framed(&TransferDown { message })
}

/// Sends the honest response unchanged.
pub fn honest() -> Step {
    Step::Honest(Arc::new(|answer, _| answer))
}

/// Sends the honest response, changed.
pub fn changed<M: Message + Default>(
    change: impl Fn(&mut M, &Heard) + Send + Sync + 'static,
) -> Step {
    Step::Honest(Arc::new(move |answer, heard| {
        let mut message = M::decode(answer.slice(HEAD..)).unwrap();
        change(&mut message, heard);
        framed(&message)
    }))
}

/// Headers or trailers with a single name.
pub fn header(name: &'static str, value: &[u8]) -> HeaderMap {
    let value = HeaderValue::from_bytes(value).unwrap();
    HeaderMap::from_iter([(HeaderName::from_static(name), value)])
}

/// The trailers of a status.
pub fn status(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers).unwrap();
    trailers
}
