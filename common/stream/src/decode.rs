//! Decodes the payload of one command to a [`Command`].

use uuid::Uuid;

use crate::command::{Command, Timespec};
use crate::error::Fault;
use crate::format::{Kind, Version, attribute};

/// One more than the highest attribute number of any version.
const SLOTS: usize = 32;
/// Length of a time in bytes: 64-bit seconds, 32-bit nanoseconds.
const TIMESPEC_LEN: usize = 12;

/// Decodes the payload of a command of kind `kind`.
pub(crate) fn command(kind: Kind, payload: &[u8], version: Version) -> Result<Command<'_>, Fault> {
    let a = Attributes::parse(kind, payload, version)?;
    Ok(match kind {
        Kind::Subvol => Command::Subvol {
            path: a.path()?,
            uuid: a.uuid(attribute::UUID)?,
            ctransid: a.u64(attribute::CTRANSID)?,
        },
        Kind::Snapshot => Command::Snapshot {
            path: a.path()?,
            uuid: a.uuid(attribute::UUID)?,
            ctransid: a.u64(attribute::CTRANSID)?,
            clone_uuid: a.uuid(attribute::CLONE_UUID)?,
            clone_ctransid: a.u64(attribute::CLONE_CTRANSID)?,
        },
        Kind::Mkfile => Command::Mkfile { path: a.path()? },
        Kind::Mkdir => Command::Mkdir { path: a.path()? },
        Kind::Mknod => Command::Mknod {
            path: a.path()?,
            mode: a.u64(attribute::MODE)?,
            rdev: a.u64(attribute::RDEV)?,
        },
        Kind::Mkfifo => Command::Mkfifo { path: a.path()? },
        Kind::Mksock => Command::Mksock { path: a.path()? },
        Kind::Symlink => Command::Symlink {
            path: a.path()?,
            target: a.bytes(attribute::PATH_LINK)?,
        },
        Kind::Rename => Command::Rename {
            path: a.path()?,
            to: a.bytes(attribute::PATH_TO)?,
        },
        Kind::Link => Command::Link {
            path: a.path()?,
            existing: a.bytes(attribute::PATH_LINK)?,
        },
        Kind::Unlink => Command::Unlink { path: a.path()? },
        Kind::Rmdir => Command::Rmdir { path: a.path()? },
        Kind::SetXattr => Command::SetXattr {
            path: a.path()?,
            name: a.bytes(attribute::XATTR_NAME)?,
            data: a.bytes(attribute::XATTR_DATA)?,
        },
        Kind::RemoveXattr => Command::RemoveXattr {
            path: a.path()?,
            name: a.bytes(attribute::XATTR_NAME)?,
        },
        Kind::Write => Command::Write {
            path: a.path()?,
            offset: a.u64(attribute::FILE_OFFSET)?,
            data: a.bytes(attribute::DATA)?,
        },
        Kind::Clone => Command::Clone {
            path: a.path()?,
            offset: a.u64(attribute::FILE_OFFSET)?,
            len: a.u64(attribute::CLONE_LEN)?,
            clone_uuid: a.uuid(attribute::CLONE_UUID)?,
            clone_ctransid: a.u64(attribute::CLONE_CTRANSID)?,
            clone_path: a.bytes(attribute::CLONE_PATH)?,
            clone_offset: a.u64(attribute::CLONE_OFFSET)?,
        },
        Kind::Truncate => Command::Truncate {
            path: a.path()?,
            size: a.u64(attribute::SIZE)?,
        },
        Kind::Chmod => Command::Chmod {
            path: a.path()?,
            mode: a.u64(attribute::MODE)?,
        },
        Kind::Chown => Command::Chown {
            path: a.path()?,
            uid: a.u64(attribute::UID)?,
            gid: a.u64(attribute::GID)?,
        },
        Kind::Utimes => Command::Utimes {
            path: a.path()?,
            atime: a.time(attribute::ATIME)?,
            mtime: a.time(attribute::MTIME)?,
            ctime: a.time(attribute::CTIME)?,
            otime: a.optional_time(attribute::OTIME)?,
        },
        Kind::End => Command::End,
        Kind::UpdateExtent => Command::UpdateExtent {
            path: a.path()?,
            offset: a.u64(attribute::FILE_OFFSET)?,
            len: a.u64(attribute::SIZE)?,
        },
        Kind::Fallocate => Command::Fallocate {
            path: a.path()?,
            mode: a.u32(attribute::FALLOCATE_MODE)?,
            offset: a.u64(attribute::FILE_OFFSET)?,
            len: a.u64(attribute::SIZE)?,
        },
        Kind::Fileattr => Command::Fileattr {
            path: a.path()?,
            flags: a.u64(attribute::FILEATTR)?,
        },
        Kind::EncodedWrite => Command::EncodedWrite {
            path: a.path()?,
            offset: a.u64(attribute::FILE_OFFSET)?,
            unencoded_file_len: a.u64(attribute::UNENCODED_FILE_LEN)?,
            unencoded_len: a.u64(attribute::UNENCODED_LEN)?,
            unencoded_offset: a.u64(attribute::UNENCODED_OFFSET)?,
            // Either may be omitted, which means none.
            compression: a.u32_or_0(attribute::COMPRESSION)?,
            encryption: a.u32_or_0(attribute::ENCRYPTION)?,
            data: a.bytes(attribute::DATA)?,
        },
    })
}

/// The attributes of one command, by number. Attributes that a command does not use are allowed: the kernel
/// sends some, such as inode numbers.
struct Attributes<'a> {
    kind: Kind,
    values: [Option<&'a [u8]>; SLOTS],
}

impl<'a> Attributes<'a> {
    fn parse(kind: Kind, payload: &'a [u8], version: Version) -> Result<Self, Fault> {
        let mut this = Self {
            kind,
            values: [None; SLOTS],
        };
        let mut rest = payload;
        while !rest.is_empty() {
            let (number, after) = this.u16_of(rest)?;
            if number == 0 || number > version.last_attribute() {
                return Err(Fault::UnknownAttribute {
                    command: kind.name(),
                    attribute: number,
                });
            }
            let (value, after) = if number == attribute::DATA && version >= Version::V2 {
                // Data has no length: it extends to the end, so nothing can follow it.
                (after, &after[after.len()..])
            } else {
                this.value_of(after)?
            };
            this.store(number, value)?;
            rest = after;
        }
        // The inode number is not used, but must have the right size.
        if let Some(number) = this.get(attribute::INO) {
            this.sized::<8>(attribute::INO, number)?;
        }
        Ok(this)
    }

    fn store(&mut self, number: u16, value: &'a [u8]) -> Result<(), Fault> {
        let slot = &mut self.values[usize::from(number)];
        if slot.replace(value).is_some() {
            return Err(Fault::DuplicateAttribute {
                command: self.kind.name(),
                attribute: attribute::name(number),
            });
        }
        Ok(())
    }

    fn u16_of(&self, bytes: &'a [u8]) -> Result<(u16, &'a [u8]), Fault> {
        match bytes.split_first_chunk() {
            Some((head, rest)) => Ok((u16::from_le_bytes(*head), rest)),
            None => Err(self.truncated()),
        }
    }

    fn value_of(&self, bytes: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Fault> {
        let (len, rest) = self.u16_of(bytes)?;
        rest.split_at_checked(usize::from(len))
            .ok_or_else(|| self.truncated())
    }

    fn truncated(&self) -> Fault {
        Fault::TruncatedAttribute {
            command: self.kind.name(),
        }
    }

    fn get(&self, number: u16) -> Option<&'a [u8]> {
        self.values[usize::from(number)]
    }

    fn bytes(&self, number: u16) -> Result<&'a [u8], Fault> {
        self.get(number).ok_or_else(|| Fault::MissingAttribute {
            command: self.kind.name(),
            attribute: attribute::name(number),
        })
    }

    fn path(&self) -> Result<&'a [u8], Fault> {
        self.bytes(attribute::PATH)
    }

    fn sized<const N: usize>(&self, number: u16, value: &[u8]) -> Result<[u8; N], Fault> {
        value.try_into().map_err(|_| Fault::WrongSize {
            command: self.kind.name(),
            attribute: attribute::name(number),
            expected: N,
            found: value.len(),
        })
    }

    fn fixed<const N: usize>(&self, number: u16) -> Result<[u8; N], Fault> {
        self.sized(number, self.bytes(number)?)
    }

    fn u64(&self, number: u16) -> Result<u64, Fault> {
        self.fixed(number).map(u64::from_le_bytes)
    }

    fn u32(&self, number: u16) -> Result<u32, Fault> {
        self.fixed(number).map(u32::from_le_bytes)
    }

    fn u32_or_0(&self, number: u16) -> Result<u32, Fault> {
        match self.get(number) {
            Some(value) => self.sized(number, value).map(u32::from_le_bytes),
            None => Ok(0),
        }
    }

    fn uuid(&self, number: u16) -> Result<Uuid, Fault> {
        self.fixed(number).map(Uuid::from_bytes)
    }

    fn time(&self, number: u16) -> Result<Timespec, Fault> {
        self.fixed(number).map(timespec)
    }

    fn optional_time(&self, number: u16) -> Result<Option<Timespec>, Fault> {
        self.get(number)
            .map(|value| self.sized(number, value).map(timespec))
            .transpose()
    }
}

fn timespec(bytes: [u8; TIMESPEC_LEN]) -> Timespec {
    let [s0, s1, s2, s3, s4, s5, s6, s7, nsec @ ..] = bytes;
    Timespec {
        sec: i64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
        nsec: u32::from_le_bytes(nsec),
    }
}
