//! Encodes streams that no honest sender makes, with correct checksums. Does not use the project's
//! encoder, which refuses much of this.

/// Numbers of commands.
pub mod command {
    pub const SUBVOL: u16 = 1;
    pub const MKFILE: u16 = 3;
    pub const MKDIR: u16 = 4;
    pub const SYMLINK: u16 = 8;
    pub const RENAME: u16 = 9;
    pub const SET_XATTR: u16 = 13;
    pub const WRITE: u16 = 15;
    pub const CHMOD: u16 = 18;
    pub const UTIMES: u16 = 20;
    pub const END: u16 = 21;
    pub const FALLOCATE: u16 = 23;
    pub const ENABLE_VERITY: u16 = 26;
}

/// Numbers of attributes.
pub mod attribute {
    pub const UUID: u16 = 1;
    pub const CTRANSID: u16 = 2;
    pub const INO: u16 = 3;
    pub const SIZE: u16 = 4;
    pub const MODE: u16 = 5;
    pub const CTIME: u16 = 9;
    pub const MTIME: u16 = 10;
    pub const ATIME: u16 = 11;
    pub const XATTR_NAME: u16 = 13;
    pub const XATTR_DATA: u16 = 14;
    pub const PATH: u16 = 15;
    pub const PATH_LINK: u16 = 17;
    pub const FILE_OFFSET: u16 = 18;
    pub const DATA: u16 = 19;
    pub const FALLOCATE_MODE: u16 = 25;
}

/// CRC-32C, reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// Continues a CRC-32C from a state, without any inversion.
pub fn crc32c(state: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(state, |state, byte| {
        let shifted = |state: u32, _| (state >> 1) ^ (POLYNOMIAL * (state & 1));
        (0..8).fold(state ^ u32::from(*byte), shifted)
    })
}

/// Returns the [`crc32c`] state that becomes `state` after four zero bytes.
pub fn before_four_zeros(state: u32) -> u32 {
    (0..32).fold(state, |state, _| {
        if state >> 31 == 1 {
            ((state ^ POLYNOMIAL) << 1) | 1
        } else {
            state << 1
        }
    })
}

/// A stream's header.
pub fn header(version: u32) -> Vec<u8> {
    let mut bytes = b"btrfs-stream\0".to_vec();
    bytes.extend(version.to_le_bytes());
    bytes
}

/// A command with these attributes.
pub fn frame(number: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    let payload = attributes.concat();
    claiming(number, u32::try_from(payload.len()).unwrap(), &payload)
}

/// A command that claims a payload length.
pub fn claiming(number: u16, len: u32, payload: &[u8]) -> Vec<u8> {
    let head = [&len.to_le_bytes()[..], &number.to_le_bytes()].concat();
    let crc = crc32c(crc32c(crc32c(0, &head), &[0; 4]), payload);
    [&head[..], &crc.to_le_bytes(), payload].concat()
}

/// An attribute.
pub fn bytes(number: u16, data: &[u8]) -> Vec<u8> {
    tlv(number, u16::try_from(data.len()).unwrap(), data)
}

/// An attribute that claims a length.
pub fn tlv(number: u16, len: u16, data: &[u8]) -> Vec<u8> {
    [&number.to_le_bytes()[..], &len.to_le_bytes(), data].concat()
}

/// A path.
pub fn path(path: &[u8]) -> Vec<u8> {
    bytes(attribute::PATH, path)
}

/// An attribute of 64 bits.
pub fn number(number: u16, value: u64) -> Vec<u8> {
    bytes(number, &value.to_le_bytes())
}

/// A point in time.
pub fn time(number: u16, seconds: u64, nanoseconds: u32) -> Vec<u8> {
    let data = [&seconds.to_le_bytes()[..], &nanoseconds.to_le_bytes()].concat();
    bytes(number, &data)
}

/// A data attribute of version 2, which has no length field.
pub fn data(bytes: &[u8]) -> Vec<u8> {
    [&attribute::DATA.to_le_bytes()[..], bytes].concat()
}
