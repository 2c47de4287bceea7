//! Authorises a call by the certificate of its connection and the live list of senders.

use sendshot_identity::{Moment, PeerId, PeerIdentity, PeerInfo, Refusal};
use sendshot_model::{PeerName, SenderId};
use sendshot_proto::refusal::refusal;
use tonic::{Code, Request, Status};

use crate::shared::receiver::Receiver;
use crate::store::volumes::Caller;

/// Returns the caller, if the live list of senders has it.
pub(super) fn authorize(
    receiver: &Receiver,
    peer: Option<&PeerIdentity>,
) -> Result<Caller, Status> {
    let senders = receiver.senders();
    let name = senders.authorize(peer).map_err(|why| refuse(&why))?;
    match peer.map(|peer| peer.id) {
        Some(PeerId::Sender(id)) => Ok(Caller { name, id }),
        Some(PeerId::Receiver(_)) | None => Err(refuse(&Refusal::NoCertificate)),
    }
}

/// A caller that is greeted.
pub(super) struct Greeted {
    pub(super) name: PeerName,
    /// Former ids of the sender; a temporary key has none.
    pub(super) former_ids: Vec<SenderId>,
}

/// Returns the caller of `Hello`, which the holder of a temporary key may make, too.
pub(super) fn greet(receiver: &Receiver, peer: Option<&PeerIdentity>) -> Result<Greeted, Status> {
    let senders = receiver.senders();
    match senders.authorize(peer) {
        Ok(name) => Ok(Greeted {
            former_ids: senders.former_ids(&name),
            name,
        }),
        Err(Refusal::ReadOnly { .. }) => {
            let reader = senders.authorize_reader(peer, &Moment::now());
            let reader = reader.map_err(|why| refuse(&why))?;
            Ok(Greeted {
                name: reader.name,
                former_ids: Vec::new(),
            })
        }
        Err(why) => Err(refuse(&why)),
    }
}

/// Makes the status of a refusal.
pub(super) fn refuse(why: &Refusal) -> Status {
    let code = match why {
        Refusal::NoCertificate => Code::Unauthenticated,
        Refusal::Unknown { .. }
        | Refusal::Revoked { .. }
        | Refusal::KeyChanged { .. }
        | Refusal::ReadOnly { .. }
        | Refusal::RestoreEnded { .. } => Code::PermissionDenied,
    };
    refusal(code, why.to_string(), &why.remedy())
}

/// Refuses a caller without a certificate before anything of its message is read: a call is authorised only
/// when its message is complete, and strangers could make the receiver hold many messages.
///
/// # Errors
/// The same status as that of an unauthorised call.
pub fn with_certificate(request: Request<()>) -> Result<Request<()>, Status> {
    match identity(&request) {
        Some(_) => Ok(request),
        None => Err(refuse(&Refusal::NoCertificate)),
    }
}

pub(super) fn identity<T>(request: &Request<T>) -> Option<PeerIdentity> {
    request
        .extensions()
        .get::<PeerInfo>()
        .and_then(|info| info.identity.clone())
}
