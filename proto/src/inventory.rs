//! What a receiver holds of a volume.

use sendshot_model::{TransferId, VolumeId, VolumeName};
use uuid::Uuid;

use crate::failure::{Failure, printable};
use crate::malformed::{self, Malformed};
use crate::resume::{self, Partial};
use crate::v1;

/// A volume as both sides name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeKey {
    /// Its generated id.
    pub id: VolumeId,
    /// The sender's name for it.
    pub name: VolumeName,
}

/// A copy that a receiver reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldCopy {
    /// UUID under which it was received.
    pub uuid: Uuid,
    /// The sender's ctransid of it.
    pub ctransid: u64,
    /// Its directory name.
    pub name: String,
    /// Why it cannot be a parent; `None` if it can.
    pub unusable: Option<String>,
    /// When it was committed, seconds since 1970 UTC, receiver's clock.
    pub committed_at: i64,
}

/// Everything that a receiver holds of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Where, below the receiver's root; empty before the first push.
    pub directory: String,
    /// The copies, in no particular order.
    pub copies: Vec<HeldCopy>,
    /// Whether a push was at work, whose copy may be missing.
    pub push_at_work: bool,
    /// Transfers of the volume that broke off.
    pub partials: Vec<Partial>,
}

/// What a sender asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// About which volume.
    pub volume: VolumeKey,
    /// The transfer it is about to resume: a call that still carries it is dead.
    pub resuming: Option<TransferId>,
}

impl VolumeKey {
    /// Checks id and name of a message.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(id: &[u8], name: &str) -> Result<Self, Malformed> {
        Ok(Self {
            id: VolumeId::from_bytes(malformed::id_bytes(id, "volume_id")?),
            name: name.parse()?,
        })
    }
}

impl TryFrom<v1::InventoryRequest> for Question {
    type Error = Malformed;

    fn try_from(message: v1::InventoryRequest) -> Result<Self, Malformed> {
        let resuming = match message.transfer_id.as_slice() {
            [] => None,
            bytes => {
                let id = malformed::id_bytes(bytes, "transfer_id")?;
                Some(TransferId::from_bytes(id))
            }
        };
        Ok(Self {
            volume: VolumeKey::parse(&message.volume_id, &message.volume_name)?,
            resuming,
        })
    }
}

impl From<Question> for v1::InventoryRequest {
    fn from(question: Question) -> Self {
        let resuming = question.resuming.map(|id| id.to_bytes().to_vec());
        Self {
            volume_id: question.volume.id.to_bytes().to_vec(),
            volume_name: question.volume.name.to_string(),
            transfer_id: resuming.unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::HeldCopy> for HeldCopy {
    type Error = Malformed;

    fn try_from(message: v1::HeldCopy) -> Result<Self, Malformed> {
        Ok(Self {
            uuid: malformed::uuid(&message.uuid, "uuid")?,
            ctransid: message.ctransid,
            name: printable(&message.name),
            unusable: Some(printable(&message.unusable)).filter(|why| !why.is_empty()),
            committed_at: message.committed_at,
        })
    }
}

impl From<HeldCopy> for v1::HeldCopy {
    fn from(copy: HeldCopy) -> Self {
        Self {
            uuid: copy.uuid.as_bytes().to_vec(),
            ctransid: copy.ctransid,
            name: copy.name,
            unusable: copy.unusable.unwrap_or_default(),
            committed_at: copy.committed_at,
        }
    }
}

/// An answer is either an inventory or the receiver's failure to make one.
///
/// # Errors
/// [`Malformed`] if a copy is described impossibly.
pub fn parse_response(
    message: v1::InventoryResponse,
) -> Result<Result<Inventory, Failure>, Malformed> {
    if let Some(failure) = message.failure {
        return Ok(Err(failure.into()));
    }
    let copies = message
        .copies
        .into_iter()
        .map(HeldCopy::try_from)
        .collect::<Result<_, _>>()?;
    Ok(Ok(Inventory {
        directory: printable(&message.directory),
        copies,
        push_at_work: message.push_at_work,
        partials: resume::partials(message.partials)?,
    }))
}

/// The message for an inventory or a failure.
pub fn response(outcome: Result<Inventory, Failure>) -> v1::InventoryResponse {
    match outcome {
        Ok(inventory) => v1::InventoryResponse {
            directory: inventory.directory,
            copies: inventory.copies.into_iter().map(Into::into).collect(),
            failure: None,
            push_at_work: inventory.push_at_work,
            partials: inventory.partials.into_iter().map(Into::into).collect(),
        },
        Err(failure) => v1::InventoryResponse {
            failure: Some(failure.into()),
            ..Default::default()
        },
    }
}
