//! Attributes that are missing, duplicated, truncated or invalid.

use crate::hostile::frame::{self, attribute, command, frame, path, tlv};
use crate::hostile::trick::{Trick, World, encode, mkfile, write_head};

/// A file, then one command with these attributes.
fn file_and(w: &World, number: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    w.framed(&[encode(&mkfile(b"f")), frame(number, attributes)])
}

/// A stream whose subvolume command has these attributes.
fn subvol(attributes: &[Vec<u8>]) -> Vec<u8> {
    let commands = [frame(command::SUBVOL, attributes), frame(command::END, &[])];
    [frame::header(2), commands.concat()].concat()
}

pub(super) const TRICKS: &[Trick] = &[
    Trick::refused("a path twice, the second one hostile", |w| {
        let paths = [path(b"g"), path(&w.up("new"))];
        file_and(w, command::MKFILE, &paths)
    }),
    Trick::refused("a path twice, the first one hostile", |w| {
        let paths = [path(&w.up("new")), path(b"g")];
        file_and(w, command::MKFILE, &paths)
    }),
    Trick::refused("the same path twice", |w| {
        file_and(w, command::MKFILE, &[path(b"g"), path(b"g")])
    }),
    Trick::refused("a mode twice", |w| {
        let mode = |mode| frame::number(attribute::MODE, mode);
        file_and(w, command::CHMOD, &[path(b"f"), mode(0o644), mode(0o4777)])
    }),
    Trick::refused("data twice in version 1", |w| {
        let data = frame::bytes(attribute::DATA, b"data");
        w.framed_v1(&[
            encode(&mkfile(b"f")),
            frame(command::WRITE, &[write_head(b"f"), data.clone(), data]),
        ])
    }),
    Trick::refused("data that is not last in version 2", |w| {
        let attributes = [
            path(b"f"),
            frame::data(b"data"),
            frame::number(attribute::FILE_OFFSET, 0),
        ];
        file_and(w, command::WRITE, &attributes)
    }),
    Trick::refused("data first in version 2", |w| {
        let attributes = [frame::data(b"data"), write_head(b"f")];
        file_and(w, command::WRITE, &attributes)
    }),
    Trick::refused("no path", |w| file_and(w, command::MKFILE, &[])),
    Trick::refused("no target of a symlink", |w| {
        file_and(w, command::SYMLINK, &[path(b"l")])
    }),
    Trick::refused("no new name", |w| {
        file_and(w, command::RENAME, &[path(b"f")])
    }),
    Trick::refused("no offset", |w| {
        file_and(w, command::WRITE, &[path(b"f"), frame::data(b"data")])
    }),
    Trick::refused("no data", |w| {
        file_and(w, command::WRITE, &[write_head(b"f")])
    }),
    Trick::refused("no mode", |w| file_and(w, command::CHMOD, &[path(b"f")])),
    Trick::refused("an attribute cut off in its type", |w| {
        file_and(w, command::MKFILE, &[path(b"g"), vec![3]])
    }),
    Trick::refused("an attribute cut off in its length", |w| {
        file_and(w, command::MKFILE, &[path(b"g"), vec![3, 0, 8]])
    }),
    Trick::refused("an attribute that is longer than its command", |w| {
        file_and(w, command::MKFILE, &[tlv(attribute::PATH, 500, b"g")])
    }),
    Trick::refused("an attribute of 65535 bytes that are not there", |w| {
        let attributes = [
            path(b"f"),
            frame::bytes(attribute::XATTR_NAME, b"user.x"),
            tlv(attribute::XATTR_DATA, u16::MAX, b"x"),
        ];
        file_and(w, command::SET_XATTR, &attributes)
    }),
    Trick::refused("attribute 0", |w| {
        file_and(w, command::MKFILE, &[path(b"g"), frame::bytes(0, b"x")])
    }),
    Trick::refused("attribute 36, which does not exist", |w| {
        file_and(w, command::MKFILE, &[path(b"g"), frame::bytes(36, b"x")])
    }),
    Trick::refused("attribute 65535", |w| {
        let unknown = frame::bytes(u16::MAX, b"x");
        file_and(w, command::MKFILE, &[path(b"g"), unknown])
    }),
    Trick::refused("a number of 7 bytes", |w| {
        let mode = frame::bytes(attribute::MODE, &[0; 7]);
        file_and(w, command::CHMOD, &[path(b"f"), mode])
    }),
    Trick::refused("a number of 9 bytes", |w| {
        let mode = frame::bytes(attribute::MODE, &[0; 9]);
        file_and(w, command::CHMOD, &[path(b"f"), mode])
    }),
    Trick::refused("an offset of no bytes", |w| {
        let offset = frame::bytes(attribute::FILE_OFFSET, b"");
        let attributes = [path(b"f"), offset, frame::data(b"x")];
        file_and(w, command::WRITE, &attributes)
    }),
    Trick::refused("an inode number of 4 bytes", |w| {
        let ino = frame::bytes(attribute::INO, &[1; 4]);
        file_and(w, command::MKFILE, &[path(b"g"), ino])
    }),
    Trick::refused("a time of 11 bytes", |w| {
        let times = [
            path(b"f"),
            frame::bytes(attribute::ATIME, &[0; 11]),
            frame::time(attribute::MTIME, 1, 0),
            frame::time(attribute::CTIME, 1, 0),
        ];
        file_and(w, command::UTIMES, &times)
    }),
    Trick::refused("a time of four thousand million nanoseconds", |w| {
        let times = [
            path(b"f"),
            frame::time(attribute::ATIME, 1, u32::MAX),
            frame::time(attribute::MTIME, 1, 1_000_000_000),
            frame::time(attribute::CTIME, 1, 0),
        ];
        file_and(w, command::UTIMES, &times)
    }),
    Trick::refused("a time of UTIME_OMIT", |w| {
        let omit = (1 << 30) - 2;
        let times = [
            path(b"f"),
            frame::time(attribute::ATIME, 1, omit),
            frame::time(attribute::MTIME, 1, omit),
            frame::time(attribute::CTIME, 1, omit),
        ];
        file_and(w, command::UTIMES, &times)
    }),
    Trick::refused("a UUID of 15 bytes", |w| {
        subvol(&[
            path(b"hostile"),
            frame::bytes(attribute::UUID, &w.uuid.as_bytes()[..15]),
            frame::number(attribute::CTRANSID, w.ctransid),
        ])
    }),
    Trick::refused("two UUIDs", |w| {
        subvol(&[
            path(b"hostile"),
            frame::bytes(attribute::UUID, w.uuid.as_bytes()),
            frame::bytes(attribute::UUID, w.other_sender.uuid.as_bytes()),
            frame::number(attribute::CTRANSID, w.ctransid),
        ])
    }),
    Trick::refused("no UUID", |w| {
        subvol(&[
            path(b"hostile"),
            frame::number(attribute::CTRANSID, w.ctransid),
        ])
    }),
    Trick::refused("no ctransid", |w| {
        subvol(&[
            path(b"hostile"),
            frame::bytes(attribute::UUID, w.uuid.as_bytes()),
        ])
    }),
    Trick::refused("a path of 5000 bytes", |w| {
        file_and(w, command::MKFILE, &[path(&b"a/".repeat(2500))])
    }),
    Trick::refused("a path of 65000 bytes", |w| {
        file_and(w, command::MKDIR, &[path(&[b'x'; 65000])])
    }),
    Trick::refused("a name of 256 bytes", |w| {
        file_and(w, command::MKFILE, &[path(&[b'x'; 256])])
    }),
    Trick::refused("a target of a symlink with a NUL at its end", |w| {
        let target = frame::bytes(attribute::PATH_LINK, b"target\0");
        file_and(w, command::SYMLINK, &[path(b"l"), target])
    }),
];
