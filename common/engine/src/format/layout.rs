//! The layout of a sendshot file: `docs/sendshot-file.md`.

use uuid::Uuid;

use crate::format::entry::Head;

/// First bytes of every sendshot.
pub(crate) const MAGIC: &[u8; 8] = b"sendshot";
/// Newest layout version that this code reads. It is written only where needed: for a snapshot whose
/// transaction number on the wire is not its own. Version 2 has one number for both, so most files are
/// compatible with earlier programs, which read only version 2.
pub const VERSION: u32 = 3;
/// Oldest layout version that this code reads, and the one it usually writes.
pub const OLDEST_VERSION: u32 = 2;
/// Length of the head in version 2, in bytes: magic, version, 4 UUIDs, 4 numbers, checksum.
pub(crate) const HEAD_LEN: usize = 8 + 4 + 4 * 16 + 4 * 8 + CHECK_LEN;
/// Length of the longest head: version 3 has one more number.
pub(crate) const MAX_HEAD_LEN: usize = HEAD_LEN + 8;
/// Length of a checksum in bytes: truncated BLAKE3, against damage, not against forgery.
pub(crate) const CHECK_LEN: usize = 16;
/// Raw bytes after which a block ends. Larger blocks hardly compress better.
pub(crate) const BLOCK: usize = 256 * 1024;
/// Maximum raw length of a block that is read: an attribute's value can make a record exceed [`BLOCK`].
pub(crate) const MAX_BLOCK: usize = 1024 * 1024;
/// What stands before a block in the file: its raw and packed length, and the checksum of its packed bytes.
pub(crate) type BlockFrame = [u8; 8 + CHECK_LEN];
/// Mark of the tail, in place of a block's raw length.
pub(crate) const TAIL: u32 = u32::MAX;
/// Length of the tail in bytes.
pub(crate) const TAIL_LEN: usize = 4 + 8 + 8 + CHECK_LEN;

/// Number of entries in a sendshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Number of inodes.
    pub inodes: u64,
    /// Number of extents.
    pub extents: u64,
}

pub(crate) fn check(bytes: &[u8]) -> [u8; CHECK_LEN] {
    let mut out = [0; CHECK_LEN];
    out.copy_from_slice(&blake3::hash(bytes).as_bytes()[..CHECK_LEN]);
    out
}

pub(crate) fn encode_head(head: &Head) -> Vec<u8> {
    let has_two_numbers = head.wire_ctransid != head.ctransid;
    let version = match has_two_numbers {
        true => VERSION,
        false => OLDEST_VERSION,
    };
    let mut out = Vec::with_capacity(MAX_HEAD_LEN);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&version.to_le_bytes());
    for uuid in [head.wire_uuid, head.fsid, head.uuid, head.parent_uuid] {
        out.extend_from_slice(uuid.as_bytes());
    }
    let numbers = [
        head.wire_ctransid,
        head.otransid,
        head.generation,
        head.taken_at as u64,
    ];
    let local = has_two_numbers.then_some(head.ctransid);
    for number in numbers.into_iter().chain(local) {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&check(&out));
    out
}

/// Returns the length of a head in bytes; `None` for an unsupported version.
pub(crate) fn head_len(version: u32) -> Option<usize> {
    match version {
        OLDEST_VERSION => Some(HEAD_LEN),
        VERSION => Some(MAX_HEAD_LEN),
        _ => None,
    }
}

/// Decodes a head without its checksum, of the length that [`head_len`] returned.
pub(crate) fn decode_head(bytes: &[u8]) -> Head {
    let uuid = |at: usize| {
        let mut raw = [0; 16];
        raw.copy_from_slice(&bytes[12 + at * 16..28 + at * 16]);
        Uuid::from_bytes(raw)
    };
    let number = |at: usize| u64_at(bytes, 76 + at * 8);
    let has_two_numbers = bytes.len() > HEAD_LEN - CHECK_LEN;
    Head {
        wire_uuid: uuid(0),
        fsid: uuid(1),
        uuid: uuid(2),
        parent_uuid: uuid(3),
        wire_ctransid: number(0),
        ctransid: number(if has_two_numbers { 4 } else { 0 }),
        otransid: number(1),
        generation: number(2),
        taken_at: number(3) as i64,
    }
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(raw)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut raw = [0; 4];
    raw.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(raw)
}
