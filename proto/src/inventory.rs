//! The inventory: what a receiver holds of a volume.

use std::sync::Arc;

use sendshot_model::{ReasonCode, RootId, TransferId, VolumeId, printable, printable_within};
use uuid::Uuid;

use crate::failure::Failure;
use crate::malformed::{self, Malformed};
use crate::resume::{self, Partial};
use crate::v1;
use crate::volume::VolumeKey;

/// Number of copies in one part of an inventory: well below the message limit even with long names.
pub const COPIES_A_PART: usize = 4096;

/// Maximum number of copies accepted for one volume: more than btrfs can handle well.
pub const MAX_COPIES: usize = 250_000;

/// Maximum accepted length of a copy's name in bytes: that of a directory name.
const MAX_NAME: usize = 255;

/// Maximum length of the reason why a copy cannot be a parent, in bytes.
const MAX_REASON: usize = 200;

/// Maximum bytes of such texts in one inventory: enough for names and reasons as this version writes them, of
/// the maximum number of copies.
pub const MAX_TEXT: usize = 32 * 1024 * 1024;

/// A copy that a receiver reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldCopy {
    /// UUID under which it was received.
    pub uuid: Uuid,
    /// ctransid of its state at the sender.
    pub ctransid: u64,
    /// Its directory name. It is shared, because inventories are long and are cloned while a push is planned.
    pub name: Arc<str>,
    /// Reason why it cannot be a parent; `None` if it can.
    pub unusable: Option<Unusable>,
    /// Time of its commit, in seconds since 1970 UTC on the receiver's clock.
    pub committed_at: i64,
}

/// Reason why a copy cannot be a parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// Reason for programs.
    pub code: ReasonCode,
    /// Reason for users, printable.
    pub why: Arc<str>,
}

impl Unusable {
    /// Parses the fields of a message; `None` if it has no reason. A code that is not about copies, or from a
    /// later version, is replaced by a general one; the words are shown anyway.
    fn parse(code: &str, why: &str) -> Option<Self> {
        let why = printable_within(why, MAX_REASON);
        let code = match ReasonCode::parse(code) {
            Some(
                code @ (ReasonCode::CopyWritable
                | ReasonCode::CopyChanged
                | ReasonCode::CopyOfChangedCopy
                | ReasonCode::CopyReceivedByOtherTool
                | ReasonCode::CopyWrittenAfterOtherTool),
            ) => code,
            Some(_) | None => ReasonCode::CopyUnusable,
        };
        (!why.is_empty()).then(|| Self {
            code,
            why: why.into(),
        })
    }
}

/// Everything that a receiver holds of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Its directory below the receiver's root; empty before the first push.
    pub directory: String,
    /// The copies, in no particular order.
    pub copies: Vec<HeldCopy>,
    /// Whether a push was running, whose copy may be missing.
    pub commit_pending: bool,
    /// Interrupted transfers of the volume.
    pub partials: Vec<Partial>,
    /// The receiver's disk that was read, if the receiver reported it.
    pub root: Option<RootId>,
    /// If there is no directory of this volume: the volume id in the label of the directory with its name.
    pub label: Option<VolumeId>,
    /// Bytes that a push may still write on the disk, if the receiver reported them.
    pub free_bytes: Option<u64>,
}

/// A sender's request for an inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The volume concerned.
    pub volume: VolumeKey,
    /// The transfer that it is about to resume: a call that still carries it is dead.
    pub resuming: Option<TransferId>,
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
            name: printable_within(&message.name, MAX_NAME).into(),
            unusable: Unusable::parse(&message.unusable_code, &message.unusable),
            committed_at: message.committed_at,
        })
    }
}

impl From<HeldCopy> for v1::HeldCopy {
    fn from(copy: HeldCopy) -> Self {
        let (unusable, unusable_code) = match &copy.unusable {
            Some(unusable) => (unusable.why.to_string(), unusable.code.to_string()),
            None => Default::default(),
        };
        Self {
            uuid: copy.uuid.as_bytes().to_vec(),
            ctransid: copy.ctransid,
            name: copy.name.as_ref().to_owned(),
            unusable,
            committed_at: copy.committed_at,
            unusable_code,
        }
    }
}

/// An inventory that arrives in parts.
#[derive(Debug, Default)]
pub struct Parts {
    inventory: Option<Inventory>,
    text: usize,
}

impl Parts {
    /// Adds the next part, or returns the receiver's failure to read its file system.
    ///
    /// # Errors
    /// [`Malformed`] if a copy has an invalid field, or if there are too many.
    pub fn add(&mut self, part: v1::InventoryResponse) -> Result<Result<(), Failure>, Malformed> {
        if let Some(failure) = part.failure {
            return Ok(Err(failure.into()));
        }
        let before = self.inventory.as_ref().map_or(0, |i| i.copies.len());
        if before + part.copies.len() > MAX_COPIES {
            return Err(Malformed::TooMany {
                field: "copies",
                limit: MAX_COPIES,
            });
        }
        if self.inventory.is_some() && part.copies.is_empty() {
            // A peer could send empty parts forever.
            return Err(Malformed::Missing("copies"));
        }
        let copies = part.copies.into_iter().map(HeldCopy::try_from);
        let inventory = match &mut self.inventory {
            Some(begun) => begun,
            first => first.insert(Inventory {
                directory: printable(&part.directory),
                copies: Vec::new(),
                commit_pending: part.commit_pending,
                partials: resume::partials(part.partials)?,
                root: malformed::root_id(&part.root_id)?,
                free_bytes: part.free_bytes,
                label: match part.label_volume_id.as_slice() {
                    [] => None,
                    bytes => Some(VolumeId::from_bytes(malformed::id_bytes(
                        bytes,
                        "label_volume_id",
                    )?)),
                },
            }),
        };
        for copy in copies {
            let copy = copy?;
            self.text += copy.name.len()
                + copy
                    .unusable
                    .as_ref()
                    .map_or(0, |unusable| unusable.why.len());
            if self.text > MAX_TEXT {
                return Err(Malformed::TooMany {
                    field: "bytes of text about copies",
                    limit: MAX_TEXT,
                });
            }
            inventory.copies.push(copy);
        }
        Ok(Ok(()))
    }

    /// Returns the inventory after all parts were added.
    ///
    /// # Errors
    /// [`Malformed::Missing`] if there was no part.
    pub fn finish(self) -> Result<Inventory, Malformed> {
        self.inventory.ok_or(Malformed::Missing("inventory"))
    }
}

/// Assembles an inventory from all its parts, or returns the receiver's failure.
///
/// # Errors
/// See [`Parts`].
pub fn whole(
    parts: impl IntoIterator<Item = v1::InventoryResponse>,
) -> Result<Result<Inventory, Failure>, Malformed> {
    let mut whole = Parts::default();
    for part in parts {
        if let Err(failure) = whole.add(part)? {
            return Ok(Err(failure));
        }
    }
    whole.finish().map(Ok)
}

/// Splits an inventory into parts, or converts a failure.
pub fn parts(outcome: Result<Inventory, Failure>) -> Vec<v1::InventoryResponse> {
    let inventory = match outcome {
        Ok(inventory) => inventory,
        Err(failure) => {
            return vec![v1::InventoryResponse {
                failure: Some(failure.into()),
                ..Default::default()
            }];
        }
    };
    let mut parts = vec![v1::InventoryResponse {
        directory: inventory.directory,
        commit_pending: inventory.commit_pending,
        partials: inventory.partials.into_iter().map(Into::into).collect(),
        root_id: malformed::root_bytes(inventory.root),
        free_bytes: inventory.free_bytes,
        label_volume_id: inventory
            .label
            .map(|id| id.to_bytes().to_vec())
            .unwrap_or_default(),
        ..Default::default()
    }];
    let mut copies = inventory.copies.into_iter().map(v1::HeldCopy::from);
    while let Some(copy) = copies.next() {
        let more = copies.by_ref().take(COPIES_A_PART - 1);
        let copies: Vec<_> = std::iter::once(copy).chain(more).collect();
        match parts.last_mut() {
            Some(part) if part.copies.is_empty() => part.copies = copies,
            _ => parts.push(v1::InventoryResponse {
                copies,
                ..Default::default()
            }),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(n: usize) -> HeldCopy {
        HeldCopy {
            uuid: Uuid::from_u128(n as u128 + 1),
            ctransid: 7,
            name: "n".repeat(MAX_NAME).into(),
            unusable: Some(Unusable {
                code: ReasonCode::CopyChanged,
                why: "u".repeat(MAX_REASON).into(),
            }),
            committed_at: 1,
        }
    }

    fn inventory(copies: usize) -> Inventory {
        Inventory {
            directory: "nas1/photos".into(),
            copies: (0..copies).map(copy).collect(),
            commit_pending: true,
            partials: Vec::new(),
            root: Some(RootId::from_bytes([8; 16])),
            free_bytes: Some(7),
            label: Some(VolumeId::from_bytes([7; 16])),
        }
    }

    #[test]
    fn a_long_inventory_goes_in_parts_that_fit_a_message() {
        use prost::Message;
        for copies in [0, 1, COPIES_A_PART, COPIES_A_PART + 1, 60_000] {
            let parts = parts(Ok(inventory(copies)));
            assert_eq!(parts.len(), copies.div_ceil(COPIES_A_PART).max(1));
            for part in &parts {
                assert!(part.encoded_len() <= crate::transfer::MAX_MESSAGE);
            }
            assert_eq!(whole(parts).unwrap().unwrap(), inventory(copies));
        }
    }

    #[test]
    fn a_failure_in_any_part_is_the_answer() {
        let mut parts = parts(Ok(inventory(2)));
        let failure = Failure::new(crate::failure::Code::Io, "the disk fails", "");
        parts.extend(super::parts(Err(failure.clone())));
        assert_eq!(whole(parts).unwrap(), Err(failure));
    }

    #[test]
    fn endless_copies_are_refused() {
        let part = parts(Ok(inventory(COPIES_A_PART))).remove(0);
        let endless = std::iter::repeat_n(part, MAX_COPIES / COPIES_A_PART + 1);
        let error = whole(endless).unwrap_err();
        assert!(matches!(error, Malformed::TooMany { .. }), "{error}");
        let nothing = std::iter::repeat(v1::InventoryResponse::default());
        assert!(whole(nothing).is_err());
        assert!(whole([]).is_err(), "nothing is no inventory");
    }
}
