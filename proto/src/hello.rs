//! Exchange of versions and features.

use sendshot_model::{ReceiverId, SenderId, printable};

use crate::malformed::{Malformed, id_bytes};
use crate::v1;

/// The protocol version that this code supports; see `replication.proto`.
pub const VERSION: u32 = 1;

/// Feature: the receiver applies send streams of version 2.
const STREAM_V2: &str = "stream-v2";

/// Feature: the receiver keeps partials of resumable transfers.
const RESUME: &str = "resume";

/// Feature: the receiver renews certificates.
const RENEW: &str = "renew";

/// Feature: the receiver serves `Volumes` and `Fetch`.
const RESTORE: &str = "restore";

/// Maximum number of a sender's former ids that are sent and accepted.
pub const MAX_FORMER: usize = 64;

/// Parses the ids of a sender's former instances; only the newest, if there are more than the maximum.
///
/// # Errors
/// See [`Malformed`].
pub fn former_ids(message: &[Vec<u8>]) -> Result<Vec<SenderId>, Malformed> {
    let newest = &message[message.len().saturating_sub(MAX_FORMER)..];
    let id = |bytes: &Vec<u8>| Ok(SenderId::from_bytes(id_bytes(bytes, "former_sender_ids")?));
    newest.iter().map(id).collect()
}

/// Converts former ids, oldest first, for a message.
pub fn former_ids_message(ids: &[SenderId]) -> Vec<Vec<u8>> {
    let newest = &ids[ids.len().saturating_sub(MAX_FORMER)..];
    newest.iter().map(|id| id.to_bytes().to_vec()).collect()
}

/// Whether a peer supports a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// The peer lists the feature.
    Has,
    /// The peer does not list it, or is older.
    Lacks,
}

impl Support {
    fn of(listed: bool) -> Self {
        if listed { Self::Has } else { Self::Lacks }
    }
}

/// The sender's greeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Lowest version that the sender supports.
    pub version_min: u32,
    /// Highest version that the sender supports.
    pub version_max: u32,
    /// Program and version, for logs.
    pub software: String,
    /// The receiver that the sender expects, if it knows one.
    pub receiver: Option<ReceiverId>,
}

/// The receiver's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The version that both sides will use.
    pub version: u32,
    /// Highest send stream version that the receiver applies.
    pub stream_version: u32,
    /// Whether it keeps partials of interrupted transfers.
    pub resume: Support,
    /// Whether it renews certificates.
    pub renew: Support,
    /// Whether it sends copies back.
    pub restore: Support,
    /// Program and version, for logs.
    pub software: String,
    /// Id of the receiver.
    pub receiver: ReceiverId,
    /// Former ids of the sender from before it was paired again, oldest first.
    pub former: Vec<SenderId>,
}

/// Returns program and version of this build, as sent to peers.
pub fn software(program: &str) -> String {
    format!("{program} {}", env!("CARGO_PKG_VERSION"))
}

impl TryFrom<v1::HelloRequest> for Hello {
    type Error = Malformed;

    fn try_from(message: v1::HelloRequest) -> Result<Self, Malformed> {
        if message.version_min > message.version_max {
            return Err(Malformed::Value("version_max"));
        }
        let receiver = match message.receiver_id.as_slice() {
            [] => None,
            bytes => Some(ReceiverId::from_bytes(id_bytes(bytes, "receiver_id")?)),
        };
        Ok(Self {
            version_min: message.version_min,
            version_max: message.version_max,
            software: printable(&message.software).chars().take(100).collect(),
            receiver,
        })
    }
}

impl From<Hello> for v1::HelloRequest {
    fn from(hello: Hello) -> Self {
        Self {
            version_min: hello.version_min,
            version_max: hello.version_max,
            features: vec![STREAM_V2.into(), RESUME.into()],
            software: hello.software,
            receiver_id: hello
                .receiver
                .map(|id| id.to_bytes().to_vec())
                .unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::HelloResponse> for Welcome {
    type Error = Malformed;

    fn try_from(message: v1::HelloResponse) -> Result<Self, Malformed> {
        if message.version != VERSION {
            return Err(Malformed::Value("version"));
        }
        let has = |feature| message.features.iter().any(|name| name == feature);
        Ok(Self {
            version: message.version,
            stream_version: if has(STREAM_V2) { 2 } else { 1 },
            resume: Support::of(has(RESUME)),
            renew: Support::of(has(RENEW)),
            restore: Support::of(has(RESTORE)),
            software: printable(&message.software).chars().take(100).collect(),
            receiver: ReceiverId::from_bytes(id_bytes(&message.receiver_id, "receiver_id")?),
            former: former_ids(&message.former_sender_ids)?,
        })
    }
}

impl From<Welcome> for v1::HelloResponse {
    fn from(welcome: Welcome) -> Self {
        let mut features = Vec::new();
        if welcome.stream_version >= 2 {
            features.push(STREAM_V2.into());
        }
        for (support, feature) in [
            (welcome.resume, RESUME),
            (welcome.renew, RENEW),
            (welcome.restore, RESTORE),
        ] {
            if support == Support::Has {
                features.push(feature.into());
            }
        }
        Self {
            version: welcome.version,
            features,
            software: welcome.software,
            receiver_id: welcome.receiver.to_bytes().to_vec(),
            former_sender_ids: former_ids_message(&welcome.former),
        }
    }
}
