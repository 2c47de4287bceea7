//! Lists of volumes and copies that can be fetched, and the messages of a fetch.

use sendshot_model::{RootId, VolumeId, printable_within};
use uuid::Uuid;

use crate::chain::Chain;
use crate::failure::Failure;
use crate::malformed::{self, Malformed};
use crate::resume::Point;
use crate::transfer::Segment;
use crate::v1;

/// Number of copies in one part of a list: well below the message limit even with long names.
pub const COPIES_A_PART: usize = 4096;

/// Maximum number of copies accepted in one list.
pub const MAX_COPIES: usize = 250_000;

/// Maximum number of volumes accepted in one list.
pub const MAX_VOLUMES: usize = 100_000;

/// Maximum number of paths in one request.
pub const MAX_PATHS: usize = 1_000;

/// Maximum length of one of these paths in bytes: that of a path in the kernel.
const MAX_PATH: usize = 4_096;

/// Maximum accepted length of a directory name in bytes.
const MAX_NAME: usize = 255;

/// Maximum length of what is known about a change of a copy, in bytes.
const MAX_DOUBT: usize = 200;

/// A copy that can be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorableCopy {
    /// UUID of the state that it holds.
    pub uuid: Uuid,
    /// ctransid of that state at the sender.
    pub ctransid: u64,
    /// Its directory name.
    pub name: String,
    /// Time of its commit, in seconds since 1970 UTC on the receiver's clock.
    pub committed_at: i64,
    /// Bytes of the stream that made it; `None` if not known.
    pub received_bytes: Option<u64>,
    /// What is known about a change since its commit.
    pub doubt: Option<String>,
    /// Whether it is writable, and cannot be fetched.
    pub is_writable: bool,
}

/// A volume of the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldVolume {
    /// Name of its directory.
    pub name: String,
    /// Its id, from the label of the directory; `None` if the label is damaged.
    pub id: Option<VolumeId>,
    /// Its copies, in no particular order.
    pub copies: Vec<RestorableCopy>,
}

/// The caller's volumes on one disk of the receiver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Volumes {
    /// The disk.
    pub root: Option<RootId>,
    /// The volumes, in no particular order.
    pub volumes: Vec<HeldVolume>,
}

/// Requests a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRequest {
    /// Name of the volume's directory.
    pub volume: String,
    /// UUID of the state.
    pub uuid: Uuid,
    /// ctransid of the state at its origin.
    pub ctransid: u64,
    /// Directory name of the copy.
    pub name: String,
    /// The disk that the copy was listed on.
    pub root: Option<RootId>,
    /// Version of the stream, 1 or 2.
    pub stream_version: u32,
    /// Paths to which the stream is restricted; empty for everything.
    pub paths: Vec<Vec<u8>>,
    /// Position from which to resume.
    pub resume_at: Option<FetchPoint>,
}

/// A position at which a fetch can be resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchPoint {
    /// Offset and chain value.
    pub point: Point,
    /// Hash of the commands before it, without their data.
    pub skeleton: [u8; 32],
}

/// The first message of a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// Exact length of the whole stream in bytes.
    pub length: u64,
    /// Bytes of file data in it.
    pub data: u64,
    /// Inodes in it.
    pub inodes: u64,
    /// Offset from which it is sent.
    pub resume_at: u64,
    /// Seconds until the permission ends; `None` if it does not end.
    pub permitted_seconds: Option<u64>,
    /// What is known about a change of the copy since its commit.
    pub doubt: Option<String>,
}

/// A segment of a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedSegment {
    /// The segment.
    pub segment: Segment,
    /// Skeleton at its end.
    pub skeleton: [u8; 32],
}

/// Message of a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// What follows.
    Started(Started),
    /// A piece of the stream.
    Segment(FetchedSegment),
    /// The stream is complete.
    End {
        /// Its length in bytes.
        length: u64,
        /// Chain value after its last segment.
        chain: Chain,
    },
    /// The fetch failed.
    Failure(Failure),
}

fn text(text: &str) -> Option<String> {
    Some(printable_within(text, MAX_DOUBT)).filter(|text| !text.is_empty())
}

/// Checks a name that is used as that of a directory entry.
fn entry_name(name: &str, field: &'static str) -> Result<String, Malformed> {
    let plain = !name.is_empty()
        && name.len() <= MAX_NAME
        && !name.starts_with('.')
        && !name.contains(['/', '\0']);
    match plain {
        true => Ok(name.to_owned()),
        false => Err(Malformed::Value(field)),
    }
}

impl TryFrom<v1::RestorableCopy> for RestorableCopy {
    type Error = Malformed;

    fn try_from(message: v1::RestorableCopy) -> Result<Self, Malformed> {
        Ok(Self {
            uuid: malformed::uuid(&message.uuid, "uuid")?,
            ctransid: message.ctransid,
            name: entry_name(&message.name, "name")?,
            committed_at: message.committed_at,
            received_bytes: Some(message.received_bytes).filter(|bytes| *bytes > 0),
            doubt: text(&message.doubt),
            is_writable: message.writable,
        })
    }
}

impl From<RestorableCopy> for v1::RestorableCopy {
    fn from(copy: RestorableCopy) -> Self {
        Self {
            uuid: copy.uuid.as_bytes().to_vec(),
            ctransid: copy.ctransid,
            name: copy.name,
            committed_at: copy.committed_at,
            received_bytes: copy.received_bytes.unwrap_or_default(),
            doubt: copy.doubt.unwrap_or_default(),
            writable: copy.is_writable,
        }
    }
}

impl TryFrom<v1::HeldVolume> for HeldVolume {
    type Error = Malformed;

    fn try_from(message: v1::HeldVolume) -> Result<Self, Malformed> {
        let id = match message.volume_id.as_slice() {
            [] => None,
            bytes => Some(VolumeId::from_bytes(malformed::id_bytes(
                bytes,
                "volume_id",
            )?)),
        };
        let copies = message.copies.into_iter().map(RestorableCopy::try_from);
        Ok(Self {
            name: entry_name(&message.name, "name")?,
            id,
            copies: copies.collect::<Result<_, _>>()?,
        })
    }
}

/// Parses the name in a request for volumes; `None` for all volumes.
///
/// # Errors
/// [`Malformed::Value`].
pub fn wanted(message: v1::VolumesRequest) -> Result<Option<String>, Malformed> {
    match message.name.as_str() {
        "" => Ok(None),
        name => entry_name(name, "name").map(Some),
    }
}

/// Splits a list into parts, or converts a failure.
pub fn parts(outcome: Result<Volumes, Failure>) -> Vec<v1::VolumesResponse> {
    let list = match outcome {
        Ok(list) => list,
        Err(failure) => {
            return vec![v1::VolumesResponse {
                failure: Some(failure.into()),
                ..Default::default()
            }];
        }
    };
    let root_id = malformed::root_bytes(list.root);
    let mut parts = vec![v1::VolumesResponse {
        root_id: root_id.clone(),
        ..Default::default()
    }];
    for volume in list.volumes {
        let mut copies = volume.copies.into_iter().map(v1::RestorableCopy::from);
        loop {
            let some: Vec<_> = copies.by_ref().take(COPIES_A_PART).collect();
            let is_last = some.len() < COPIES_A_PART;
            parts.push(v1::VolumesResponse {
                volumes: vec![v1::HeldVolume {
                    name: volume.name.clone(),
                    volume_id: volume
                        .id
                        .map(|id| id.to_bytes().to_vec())
                        .unwrap_or_default(),
                    copies: some,
                }],
                root_id: root_id.clone(),
                ..Default::default()
            });
            if is_last {
                break;
            }
        }
    }
    parts
}

/// A list that arrives in parts.
#[derive(Debug, Default)]
pub struct Parts {
    list: Volumes,
    copies: usize,
    begun: bool,
}

impl Parts {
    /// Adds the next part, or returns the receiver's failure to read its file system.
    ///
    /// # Errors
    /// [`Malformed`] if a part has an invalid field, or if there are too many.
    pub fn add(&mut self, part: v1::VolumesResponse) -> Result<Result<(), Failure>, Malformed> {
        if let Some(failure) = part.failure {
            return Ok(Err(failure.into()));
        }
        if self.begun && part.volumes.is_empty() {
            // A peer could send empty parts forever.
            return Err(Malformed::Missing("volumes"));
        }
        self.begun = true;
        self.list.root = malformed::root_id(&part.root_id)?;
        for volume in part.volumes {
            let volume = HeldVolume::try_from(volume)?;
            self.copies += volume.copies.len();
            if self.copies > MAX_COPIES {
                return Err(Malformed::TooMany {
                    field: "copies",
                    limit: MAX_COPIES,
                });
            }
            // The parts of one volume follow each other.
            match self.list.volumes.last_mut() {
                Some(last) if last.name == volume.name => {
                    if volume.copies.is_empty() {
                        return Err(Malformed::Missing("copies"));
                    }
                    last.copies.extend(volume.copies);
                }
                Some(_) | None => self.list.volumes.push(volume),
            }
        }
        match self.list.volumes.len() > MAX_VOLUMES {
            true => Err(Malformed::TooMany {
                field: "volumes",
                limit: MAX_VOLUMES,
            }),
            false => Ok(Ok(())),
        }
    }

    /// Returns the list after all parts were added.
    ///
    /// # Errors
    /// [`Malformed::Missing`] if there was no part.
    pub fn finish(self) -> Result<Volumes, Malformed> {
        match self.begun {
            true => Ok(self.list),
            false => Err(Malformed::Missing("volumes")),
        }
    }
}

fn skeleton(bytes: &[u8]) -> Result<[u8; 32], Malformed> {
    bytes.try_into().map_err(|_| Malformed::Length {
        field: "skeleton",
        len: bytes.len(),
        expected: 32,
    })
}

fn paths(paths: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, Malformed> {
    if paths.len() > MAX_PATHS {
        return Err(Malformed::TooMany {
            field: "paths",
            limit: MAX_PATHS,
        });
    }
    let is_plain = |path: &Vec<u8>| {
        let bad = |part: &[u8]| part.is_empty() || part == b"." || part == b"..";
        path.len() <= MAX_PATH && !path.contains(&0) && !path.split(|b| *b == b'/').any(bad)
    };
    match paths.iter().all(is_plain) {
        true => Ok(paths),
        false => Err(Malformed::Value("paths")),
    }
}

impl TryFrom<v1::FetchRequest> for FetchRequest {
    type Error = Malformed;

    fn try_from(message: v1::FetchRequest) -> Result<Self, Malformed> {
        if !(1..=2).contains(&message.stream_version) {
            return Err(Malformed::Value("stream_version"));
        }
        let resume_at = message
            .resume_at
            .map(|point| {
                Ok::<_, Malformed>(FetchPoint {
                    point: Point::try_from(point)?,
                    skeleton: skeleton(&message.skeleton)?,
                })
            })
            .transpose()?;
        Ok(Self {
            volume: entry_name(&message.volume, "volume")?,
            uuid: malformed::uuid(&message.uuid, "uuid")?,
            ctransid: message.ctransid,
            name: entry_name(&message.name, "name")?,
            root: malformed::root_id(&message.root_id)?,
            stream_version: message.stream_version,
            paths: paths(message.paths)?,
            resume_at,
        })
    }
}

impl From<FetchRequest> for v1::FetchRequest {
    fn from(request: FetchRequest) -> Self {
        let skeleton = request.resume_at.map(|at| at.skeleton.to_vec());
        Self {
            volume: request.volume,
            uuid: request.uuid.as_bytes().to_vec(),
            ctransid: request.ctransid,
            name: request.name,
            root_id: malformed::root_bytes(request.root),
            stream_version: request.stream_version,
            paths: request.paths,
            resume_at: request.resume_at.map(|at| at.point.into()),
            skeleton: skeleton.unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::FetchResponse> for Fetched {
    type Error = Malformed;

    fn try_from(message: v1::FetchResponse) -> Result<Self, Malformed> {
        use v1::fetch_response::Message;
        Ok(
            match message.message.ok_or(Malformed::Missing("message"))? {
                Message::Started(started) => Self::Started(Started {
                    length: started.length,
                    data: started.data,
                    inodes: started.inodes,
                    resume_at: started.resume_at,
                    permitted_seconds: Some(started.permitted_seconds).filter(|left| *left > 0),
                    doubt: text(&started.doubt),
                }),
                Message::Segment(fetched) => Self::Segment(FetchedSegment {
                    segment: fetched
                        .segment
                        .ok_or(Malformed::Missing("segment"))?
                        .try_into()?,
                    skeleton: skeleton(&fetched.skeleton)?,
                }),
                Message::End(end) => Self::End {
                    length: end.length,
                    chain: Chain::parse(&end.chain)?,
                },
                Message::Failure(failure) => Self::Failure(failure.into()),
            },
        )
    }
}

impl From<Fetched> for v1::FetchResponse {
    fn from(fetched: Fetched) -> Self {
        use v1::fetch_response::Message;
        let message = match fetched {
            Fetched::Started(started) => Message::Started(v1::Started {
                length: started.length,
                data: started.data,
                inodes: started.inodes,
                resume_at: started.resume_at,
                permitted_seconds: started.permitted_seconds.unwrap_or_default(),
                doubt: started.doubt.unwrap_or_default(),
            }),
            Fetched::Segment(fetched) => Message::Segment(v1::FetchedSegment {
                segment: Some(fetched.segment.into()),
                skeleton: fetched.skeleton.to_vec(),
            }),
            Fetched::End { length, chain } => Message::End(v1::End {
                length,
                chain: chain.0.to_vec(),
            }),
            Fetched::Failure(failure) => Message::Failure(failure.into()),
        };
        Self {
            message: Some(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(n: usize) -> RestorableCopy {
        RestorableCopy {
            uuid: Uuid::from_u128(n as u128 + 1),
            ctransid: 7,
            name: "n".repeat(MAX_NAME),
            committed_at: 1,
            received_bytes: Some(5),
            doubt: Some("d".repeat(MAX_DOUBT)),
            is_writable: false,
        }
    }

    fn whole(parts: Vec<v1::VolumesResponse>) -> Result<Volumes, Malformed> {
        let mut whole = Parts::default();
        for part in parts {
            whole.add(part)?.unwrap();
        }
        whole.finish()
    }

    #[test]
    fn a_long_list_goes_in_parts_that_fit_a_message() {
        use prost::Message;
        let volume = |name: &str, copies: usize| HeldVolume {
            name: name.into(),
            id: Some(VolumeId::from_bytes([7; 16])),
            copies: (0..copies).map(copy).collect(),
        };
        let list = Volumes {
            root: Some(RootId::from_bytes([8; 16])),
            volumes: vec![
                volume("a", 0),
                volume("b", COPIES_A_PART + 1),
                volume("c", 1),
            ],
        };
        let parts = parts(Ok(list.clone()));
        assert!(
            parts
                .iter()
                .all(|part| part.encoded_len() <= crate::transfer::MAX_MESSAGE)
        );
        assert_eq!(whole(parts).unwrap(), list);
    }

    #[test]
    fn endless_lists_are_refused() {
        let empty = std::iter::repeat_n(v1::VolumesResponse::default(), 3);
        assert!(whole(empty.collect()).is_err());
        assert!(whole(Vec::new()).is_err(), "nothing is no list");
        let part = v1::VolumesResponse {
            volumes: vec![v1::HeldVolume {
                name: "a".into(),
                copies: (0..COPIES_A_PART).map(|n| copy(n).into()).collect(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let endless = std::iter::repeat_n(part, MAX_COPIES / COPIES_A_PART + 1);
        assert!(whole(endless.collect()).is_err());
    }

    #[test]
    fn a_volume_is_requested_by_a_plain_name() {
        let wanted = |name: &str| wanted(v1::VolumesRequest { name: name.into() });
        assert_eq!(wanted("").unwrap(), None);
        assert_eq!(wanted("photos").unwrap(), Some("photos".into()));
        for bad in [".", "..", "../nas2/photos", ".sendshot-staging"] {
            assert!(wanted(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_and_paths_that_lead_elsewhere_are_malformed() {
        let good = FetchRequest {
            volume: "photos".into(),
            uuid: Uuid::from_u128(1),
            ctransid: 1,
            name: "20261122T030000Z".into(),
            root: None,
            stream_version: 2,
            paths: vec![b"2019/trip".to_vec()],
            resume_at: None,
        };
        let message = v1::FetchRequest::from(good.clone());
        assert_eq!(FetchRequest::try_from(message).unwrap(), good);
        for bad in ["", ".", "..", "a/b", ".sendshot-staging", "a\0"] {
            let volume = v1::FetchRequest {
                volume: bad.into(),
                ..good.clone().into()
            };
            assert!(FetchRequest::try_from(volume).is_err(), "{bad}");
            let name = v1::FetchRequest {
                name: bad.into(),
                ..good.clone().into()
            };
            assert!(FetchRequest::try_from(name).is_err(), "{bad}");
        }
        for bad in ["", "/", "/a", "a/", "a//b", "./a", "a/..", "a\0b"] {
            let paths = v1::FetchRequest {
                paths: vec![bad.into()],
                ..good.clone().into()
            };
            assert!(FetchRequest::try_from(paths).is_err(), "{bad}");
        }
    }
}
