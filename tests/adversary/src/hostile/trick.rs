//! A trick, and the world it is played in.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use sendshot_stream::{Command, Encoder, Timespec, Version};
use uuid::Uuid;

use crate::hostile::frame::{self, attribute};

/// The expected outcome of a trick. In each case nothing outside staging changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The stream is refused with a message, and nothing of it stays.
    Refused,
    /// A subvolume may legally hold this. It is accepted or refused.
    Harmless,
    /// Legal in a pipe, which accepts any subvolume; a daemon that agreed on one refuses it.
    RefusedByDaemon,
}

/// A hostile stream.
#[derive(Debug, Clone, Copy)]
pub struct Trick {
    /// What it tries.
    pub name: &'static str,
    /// The expected outcome.
    pub expect: Expect,
    /// Makes the stream.
    pub stream: fn(&World) -> Vec<u8>,
}

impl Trick {
    pub(super) const fn refused(name: &'static str, stream: fn(&World) -> Vec<u8>) -> Self {
        Self {
            name,
            expect: Expect::Refused,
            stream,
        }
    }

    pub(super) const fn harmless(name: &'static str, stream: fn(&World) -> Vec<u8>) -> Self {
        Self {
            name,
            expect: Expect::Harmless,
            stream,
        }
    }

    pub(super) const fn refused_by_daemon(
        name: &'static str,
        stream: fn(&World) -> Vec<u8>,
    ) -> Self {
        Self {
            name,
            expect: Expect::RefusedByDaemon,
            stream,
        }
    }
}

/// A copy that the receiver holds.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// UUID of the snapshot that it is a copy of.
    pub uuid: Uuid,
    /// Ctransid of that snapshot.
    pub ctransid: u64,
}

/// What a trick knows of its surroundings.
#[derive(Debug, Clone)]
pub struct World {
    /// UUID that the stream claims.
    pub uuid: Uuid,
    /// Ctransid that the stream claims.
    pub ctransid: u64,
    /// A directory with a file `victim` and a directory `dir`, on the receiver's file system.
    pub inside: PathBuf,
    /// A directory with the same content, on another file system.
    pub outside: PathBuf,
    /// A copy of the same volume, which may be used. It has a file [`SECRET`].
    pub own: Held,
    /// A copy of another volume of the same sender.
    pub other_volume: Held,
    /// A copy of another sender.
    pub other_sender: Held,
}

/// A file of 64 KiB that every copy has.
pub const SECRET: &[u8] = b"secret";

/// Length of [`SECRET`] in bytes.
pub const SECRET_LEN: u64 = 64 * 1024;

impl World {
    /// A world without copies and directories, for a stream that claims these.
    pub fn empty(uuid: Uuid, ctransid: u64) -> Self {
        let none = Held {
            uuid: Uuid::nil(),
            ctransid: 0,
        };
        Self {
            uuid,
            ctransid,
            inside: "/nowhere".into(),
            outside: "/nowhere".into(),
            own: none,
            other_volume: none,
            other_sender: none,
        }
    }

    /// Absolute path of `name` in the directory on the receiver's file system.
    pub fn inside(&self, name: &str) -> Vec<u8> {
        bytes(&self.inside.join(name))
    }

    /// Absolute path of `name` in the directory on another file system.
    pub fn outside(&self, name: &str) -> Vec<u8> {
        bytes(&self.outside.join(name))
    }

    /// As [`outside`](Self::outside), climbing to the root directory by `..` from any depth.
    pub fn up(&self, name: &str) -> Vec<u8> {
        climb(&self.outside(name))
    }

    /// As [`inside`](Self::inside), climbing to the root directory by `..` from any depth.
    pub fn up_inside(&self, name: &str) -> Vec<u8> {
        climb(&self.inside(name))
    }

    /// The command that begins the subvolume.
    pub fn subvol(&self) -> Command<'static> {
        Command::Subvol {
            path: b"hostile",
            uuid: self.uuid,
            ctransid: self.ctransid,
        }
    }

    /// A complete stream of version 2 with these commands.
    ///
    /// # Panics
    /// If the format cannot hold them.
    pub fn whole(&self, commands: &[Command<'_>]) -> Vec<u8> {
        let middle = commands.iter().flat_map(|command| encode(command));
        let stream: Vec<u8> = middle.collect();
        self.framed(&[stream])
    }

    /// As [`whole`](Self::whole), in pieces that end between commands.
    ///
    /// # Panics
    /// If the format cannot hold them.
    pub fn pieces(&self, commands: &[Command<'_>]) -> Vec<Vec<u8>> {
        let head = [frame::header(2), encode(&self.subvol())].concat();
        let commands = commands.iter().chain([&Command::End]);
        [head].into_iter().chain(commands.map(encode)).collect()
    }

    /// A stream with these bytes between the subvolume's beginning and its end.
    pub fn framed(&self, middle: &[Vec<u8>]) -> Vec<u8> {
        [
            frame::header(2),
            encode(&self.subvol()),
            middle.concat(),
            encode(&Command::End),
        ]
        .concat()
    }

    /// As [`framed`](Self::framed), in version 1.
    pub fn framed_v1(&self, middle: &[Vec<u8>]) -> Vec<u8> {
        let mut stream = self.framed(middle);
        stream[13] = 1;
        stream
    }
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

fn climb(absolute: &[u8]) -> Vec<u8> {
    [b"..", &b"/..".repeat(15)[..], absolute].concat()
}

/// Encodes one command of version 2.
pub(super) fn encode(command: &Command<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = Encoder::new(Version::V2);
    encoder.command(command, &mut bytes).unwrap();
    bytes
}

pub(super) fn mkfile(path: &[u8]) -> Command<'_> {
    Command::Mkfile { path }
}

pub(super) fn mkdir(path: &[u8]) -> Command<'_> {
    Command::Mkdir { path }
}

pub(super) fn symlink<'a>(path: &'a [u8], target: &'a [u8]) -> Command<'a> {
    Command::Symlink { path, target }
}

pub(super) fn rename<'a>(path: &'a [u8], to: &'a [u8]) -> Command<'a> {
    Command::Rename { path, to }
}

pub(super) fn link<'a>(path: &'a [u8], existing: &'a [u8]) -> Command<'a> {
    Command::Link { path, existing }
}

pub(super) fn write(path: &[u8]) -> Command<'_> {
    let (offset, data) = (0, b"overwritten" as &[u8]);
    Command::Write { path, offset, data }
}

pub(super) fn truncate(path: &[u8], size: u64) -> Command<'_> {
    Command::Truncate { path, size }
}

pub(super) fn fallocate(path: &[u8], mode: u32, offset: u64, len: u64) -> Command<'_> {
    Command::Fallocate {
        path,
        mode,
        offset,
        len,
    }
}

pub(super) fn chmod(path: &[u8], mode: u64) -> Command<'_> {
    Command::Chmod { path, mode }
}

pub(super) fn xattr<'a>(path: &'a [u8], name: &'a [u8], data: &'a [u8]) -> Command<'a> {
    Command::SetXattr { path, name, data }
}

pub(super) fn utimes(path: &[u8], sec: i64) -> Command<'_> {
    let time = Timespec { sec, nsec: 0 };
    Command::Utimes {
        path,
        atime: time,
        mtime: time,
        ctime: time,
        otime: None,
    }
}

/// Makes device 1:3 (`/dev/null`), which discards writes.
pub(super) fn device(path: &[u8]) -> Command<'_> {
    let (mode, rdev) = (0o20666, 0x103);
    Command::Mknod { path, mode, rdev }
}

/// Clones the first 4 KiB of a file to the beginning of `mine`.
pub(super) fn clone(clone_uuid: Uuid, clone_ctransid: u64, clone_path: &[u8]) -> Command<'_> {
    Command::Clone {
        path: b"mine",
        offset: 0,
        len: 4096,
        clone_uuid,
        clone_ctransid,
        clone_path,
        clone_offset: 0,
    }
}

/// Writes 4 KiB of a file in compressed form.
pub(super) fn encoded(path: &[u8]) -> Command<'_> {
    Command::EncodedWrite {
        path,
        offset: 0,
        unencoded_file_len: 4096,
        unencoded_len: 4096,
        unencoded_offset: 0,
        compression: 2,
        encryption: 0,
        data: &ZEROS_BY_ZSTD,
    }
}

/// 4096 zero bytes in zstd: a frame with one block that repeats one byte.
pub const ZEROS_BY_ZSTD: [u8; 11] = [
    0x28, 0xb5, 0x2f, 0xfd, 0x60, 0x00, 0x0f, 0x03, 0x80, 0x00, 0x00,
];

/// The first attributes of a write, encoded: path and offset.
pub(super) fn write_head(path: &[u8]) -> Vec<u8> {
    [frame::path(path), frame::number(attribute::FILE_OFFSET, 0)].concat()
}
