//! Encodes commands to the bytes of a stream.

use uuid::Uuid;

use crate::command::{Command, Timespec};
use crate::crc;
use crate::format::{COMMAND_HEADER_LEN, MAGIC, Version, attribute};

/// A command cannot be expressed in the format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The version does not have the command.
    #[error("{command} does not exist in version {version} of the stream format")]
    NotInVersion {
        /// Name of the command.
        command: &'static str,
        /// Number of the version.
        version: u32,
    },
    /// An operand exceeds the range of its length field.
    #[error("attribute {attribute} of {len} bytes is too long for {command}")]
    AttributeTooLong {
        /// Name of the command.
        command: &'static str,
        /// Name of the attribute.
        attribute: &'static str,
        /// Length of the attribute in bytes.
        len: usize,
    },
    /// The whole command exceeds the limit of the version.
    #[error("{command} of {len} bytes is longer than the limit of {limit} bytes")]
    TooLong {
        /// Name of the command.
        command: &'static str,
        /// Length of its payload in bytes.
        len: usize,
        /// Maximum length of a payload in bytes.
        limit: usize,
    },
}

/// Encodes a stream of one version.
#[derive(Debug, Clone, Copy)]
pub struct Encoder {
    version: Version,
}

impl Encoder {
    /// Makes an encoder for this version.
    pub const fn new(version: Version) -> Self {
        Self { version }
    }

    /// Returns the version of the encoded stream.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Appends the stream header.
    pub fn header(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.version.number().to_le_bytes());
    }

    /// Appends a command. Its data, if any, comes last.
    ///
    /// # Errors
    /// See [`EncodeError`]; `out` is unchanged then.
    pub fn command(&self, command: &Command<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let start = out.len();
        let result = self
            .begin(command, out)
            .and_then(|()| Payload::new(self.version, command, out).operands(command))
            .and_then(|()| self.seal(command, out, start));
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    /// Appends a command with `len` bytes of data that `fill` writes in place, so that data read from a file
    /// is not copied again. `command` must be a [`Command::Write`] or [`Command::EncodedWrite`] with empty
    /// data.
    ///
    /// # Errors
    /// Errors of `fill`, or [`EncodeError`]; `out` is unchanged then.
    pub fn command_with_data<E: From<EncodeError>>(
        &self,
        command: &Command<'_>,
        len: usize,
        out: &mut Vec<u8>,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = out.len();
        let result = self.filled(command, len, out, start, fill);
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    fn filled<E: From<EncodeError>>(
        &self,
        command: &Command<'_>,
        len: usize,
        out: &mut Vec<u8>,
        start: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        debug_assert!(matches!(
            command,
            &Command::Write { data: &[], .. } | &Command::EncodedWrite { data: &[], .. }
        ));
        self.begin(command, out)?;
        Payload::new(self.version, command, out).operands(command)?;
        if self.version == Version::V1 {
            let field = out.len() - 2;
            let len = length_field(command, attribute::DATA, len)?;
            out[field..].copy_from_slice(&len);
        }
        self.check_len(command, out.len() - start - COMMAND_HEADER_LEN + len)?;
        let data = out.len();
        out.resize(data + len, 0);
        fill(&mut out[data..])?;
        Ok(self.seal(command, out, start)?)
    }

    fn begin(&self, command: &Command<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if command.kind().since() > self.version {
            return Err(EncodeError::NotInVersion {
                command: command.name(),
                version: self.version.number(),
            });
        }
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(command.kind() as u16).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        Ok(())
    }

    /// Fills in length and checksum of the command that begins at `start`.
    fn seal(&self, command: &Command<'_>, out: &mut [u8], start: usize) -> Result<(), EncodeError> {
        let frame = &mut out[start..];
        let len = frame.len() - COMMAND_HEADER_LEN;
        let len = self.check_len(command, len)?;
        frame[..4].copy_from_slice(&len.to_le_bytes());
        let crc = crc::of_command(frame);
        frame[crc::CRC_AT].copy_from_slice(&crc.to_le_bytes());
        Ok(())
    }

    fn check_len(&self, command: &Command<'_>, len: usize) -> Result<u32, EncodeError> {
        let limit = self.version.max_payload();
        match u32::try_from(len) {
            Ok(short) if len <= limit => Ok(short),
            _ => Err(EncodeError::TooLong {
                command: command.name(),
                len,
                limit,
            }),
        }
    }
}

fn length_field(command: &Command<'_>, number: u16, len: usize) -> Result<[u8; 2], EncodeError> {
    match u16::try_from(len) {
        Ok(len) => Ok(len.to_le_bytes()),
        Err(_) => Err(EncodeError::AttributeTooLong {
            command: command.name(),
            attribute: attribute::name(number),
            len,
        }),
    }
}

/// Inode number reported for new inodes at the sender. `btrfs receive` requires it, but does not use it.
const INO: u64 = 0;

/// The attributes of one command, appended one by one.
struct Payload<'o, 'c> {
    version: Version,
    command: &'c Command<'c>,
    out: &'o mut Vec<u8>,
}

impl<'o, 'c> Payload<'o, 'c> {
    fn new(version: Version, command: &'c Command<'c>, out: &'o mut Vec<u8>) -> Self {
        Self {
            version,
            command,
            out,
        }
    }

    /// Appends the operands in the kernel's order.
    fn operands(&mut self, command: &Command<'_>) -> Result<(), EncodeError> {
        match *command {
            // This is the only command in which the path is not the first attribute.
            Command::Clone { offset, len, .. } => {
                self.u64(attribute::FILE_OFFSET, offset)?;
                self.u64(attribute::CLONE_LEN, len)?;
                self.bytes(attribute::PATH, command.path())?;
            }
            Command::End => {}
            _ => self.bytes(attribute::PATH, command.path())?,
        }
        if command.kind().creates_inode() {
            self.u64(attribute::INO, INO)?;
        }
        match *command {
            Command::Subvol { uuid, ctransid, .. } => {
                self.uuid(attribute::UUID, uuid)?;
                self.u64(attribute::CTRANSID, ctransid)
            }
            Command::Snapshot {
                uuid,
                ctransid,
                clone_uuid,
                clone_ctransid,
                ..
            } => {
                self.uuid(attribute::UUID, uuid)?;
                self.u64(attribute::CTRANSID, ctransid)?;
                self.uuid(attribute::CLONE_UUID, clone_uuid)?;
                self.u64(attribute::CLONE_CTRANSID, clone_ctransid)
            }
            Command::Mknod { mode, rdev, .. } => {
                self.u64(attribute::RDEV, rdev)?;
                self.u64(attribute::MODE, mode)
            }
            Command::Symlink { target, .. } => self.bytes(attribute::PATH_LINK, target),
            Command::Rename { to, .. } => self.bytes(attribute::PATH_TO, to),
            Command::Link { existing, .. } => self.bytes(attribute::PATH_LINK, existing),
            Command::SetXattr { name, data, .. } => {
                self.bytes(attribute::XATTR_NAME, name)?;
                self.bytes(attribute::XATTR_DATA, data)
            }
            Command::RemoveXattr { name, .. } => self.bytes(attribute::XATTR_NAME, name),
            Command::Write { offset, data, .. } => {
                self.u64(attribute::FILE_OFFSET, offset)?;
                self.data(data)
            }
            Command::Clone {
                clone_uuid,
                clone_ctransid,
                clone_path,
                clone_offset,
                ..
            } => {
                self.uuid(attribute::CLONE_UUID, clone_uuid)?;
                self.u64(attribute::CLONE_CTRANSID, clone_ctransid)?;
                self.bytes(attribute::CLONE_PATH, clone_path)?;
                self.u64(attribute::CLONE_OFFSET, clone_offset)
            }
            Command::Truncate { size, .. } => self.u64(attribute::SIZE, size),
            Command::Chmod { mode, .. } => self.u64(attribute::MODE, mode),
            Command::Chown { uid, gid, .. } => {
                self.u64(attribute::UID, uid)?;
                self.u64(attribute::GID, gid)
            }
            Command::Utimes {
                atime,
                mtime,
                ctime,
                otime,
                ..
            } => {
                self.time(attribute::ATIME, atime)?;
                self.time(attribute::MTIME, mtime)?;
                self.time(attribute::CTIME, ctime)?;
                otime.map_or(Ok(()), |otime| self.time(attribute::OTIME, otime))
            }
            Command::UpdateExtent { offset, len, .. } => {
                self.u64(attribute::FILE_OFFSET, offset)?;
                self.u64(attribute::SIZE, len)
            }
            Command::Fallocate {
                mode, offset, len, ..
            } => {
                self.u32(attribute::FALLOCATE_MODE, mode)?;
                self.u64(attribute::FILE_OFFSET, offset)?;
                self.u64(attribute::SIZE, len)
            }
            Command::Fileattr { flags, .. } => self.u64(attribute::FILEATTR, flags),
            Command::EncodedWrite {
                offset,
                unencoded_file_len,
                unencoded_len,
                unencoded_offset,
                compression,
                encryption,
                data,
                ..
            } => {
                self.u64(attribute::FILE_OFFSET, offset)?;
                self.u64(attribute::UNENCODED_FILE_LEN, unencoded_file_len)?;
                self.u64(attribute::UNENCODED_LEN, unencoded_len)?;
                self.u64(attribute::UNENCODED_OFFSET, unencoded_offset)?;
                self.u32(attribute::COMPRESSION, compression)?;
                self.u32(attribute::ENCRYPTION, encryption)?;
                self.data(data)
            }
            Command::Mkfile { .. }
            | Command::Mkdir { .. }
            | Command::Mkfifo { .. }
            | Command::Mksock { .. }
            | Command::Unlink { .. }
            | Command::Rmdir { .. }
            | Command::End => Ok(()),
        }
    }

    fn bytes(&mut self, number: u16, value: &[u8]) -> Result<(), EncodeError> {
        let len = length_field(self.command, number, value.len())?;
        self.out.extend_from_slice(&number.to_le_bytes());
        self.out.extend_from_slice(&len);
        self.out.extend_from_slice(value);
        Ok(())
    }

    /// Appends data, which has no length field in version 2 and so must come last.
    fn data(&mut self, value: &[u8]) -> Result<(), EncodeError> {
        match self.version {
            Version::V1 => self.bytes(attribute::DATA, value),
            Version::V2 => {
                self.out.extend_from_slice(&attribute::DATA.to_le_bytes());
                self.out.extend_from_slice(value);
                Ok(())
            }
        }
    }

    fn u64(&mut self, number: u16, value: u64) -> Result<(), EncodeError> {
        self.bytes(number, &value.to_le_bytes())
    }

    fn u32(&mut self, number: u16, value: u32) -> Result<(), EncodeError> {
        self.bytes(number, &value.to_le_bytes())
    }

    fn uuid(&mut self, number: u16, value: Uuid) -> Result<(), EncodeError> {
        self.bytes(number, value.as_bytes())
    }

    fn time(&mut self, number: u16, value: Timespec) -> Result<(), EncodeError> {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&value.sec.to_le_bytes());
        bytes[8..].copy_from_slice(&value.nsec.to_le_bytes());
        self.bytes(number, &bytes)
    }
}
