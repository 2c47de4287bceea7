//! Values that the format can represent but no file can have, and values that contradict each other.

use sendshot_stream::Command;

use crate::hostile::trick::{
    Trick, World, ZEROS_BY_ZSTD, chmod, encoded, fallocate, mkfile, truncate, write, xattr,
};

/// A file and a command on it.
fn file_and(w: &World, command: Command<'_>) -> Vec<u8> {
    w.whole(&[mkfile(b"f"), command])
}

/// The fields of an encoded write that are checked against each other.
struct Fields {
    offset: u64,
    file_len: u64,
    len: u64,
    skip: u64,
    compression: u32,
    encryption: u32,
}

/// Correct fields for [`ZEROS_BY_ZSTD`].
const RIGHT: Fields = Fields {
    offset: 0,
    file_len: 4096,
    len: 4096,
    skip: 0,
    compression: 2,
    encryption: 0,
};

fn extent(w: &World, fields: &Fields, data: &[u8]) -> Vec<u8> {
    file_and(
        w,
        Command::EncodedWrite {
            path: b"f",
            offset: fields.offset,
            unencoded_file_len: fields.file_len,
            unencoded_len: fields.len,
            unencoded_offset: fields.skip,
            compression: fields.compression,
            encryption: fields.encryption,
            data,
        },
    )
}

fn write_at(w: &World, offset: u64) -> Vec<u8> {
    let mut hostile = write(b"f");
    if let Command::Write { offset: at, .. } = &mut hostile {
        *at = offset;
    }
    file_and(w, hostile)
}

fn mknod(w: &World, mode: u64, rdev: u64) -> Vec<u8> {
    let path = b"node";
    w.whole(&[Command::Mknod { path, mode, rdev }])
}

fn chown(w: &World, uid: u64, gid: u64) -> Vec<u8> {
    let path = b"f";
    file_and(w, Command::Chown { path, uid, gid })
}

pub(super) const TRICKS: &[Trick] = &[
    Trick::refused("write at the last offset of 64 bits", |w| {
        write_at(w, u64::MAX)
    }),
    Trick::refused("write at a negative offset", |w| write_at(w, 1 << 63)),
    Trick::refused("write that ends beyond the largest file", |w| {
        write_at(w, (1 << 63) - 5)
    }),
    Trick::refused("truncate to 16 EiB", |w| {
        file_and(w, truncate(b"f", u64::MAX))
    }),
    Trick::refused("truncate to a negative size", |w| {
        file_and(w, truncate(b"f", 1 << 63))
    }),
    Trick::refused("fallocate by an unknown mode", |w| {
        file_and(w, fallocate(b"f", 0x8000, 0, 4096))
    }),
    Trick::refused("fallocate of no bytes", |w| {
        file_and(w, fallocate(b"f", 3, 0, 0))
    }),
    Trick::refused("fallocate that overflows", |w| {
        file_and(w, fallocate(b"f", 3, u64::MAX - 4095, 8192))
    }),
    Trick::refused("a hole that changes the size", |w| {
        file_and(w, fallocate(b"f", 2, 0, 4096))
    }),
    Trick::refused("reservation of a pebibyte", |w| {
        file_and(w, fallocate(b"f", 0, 0, 1 << 50))
    }),
    Trick::refused("a mode of more than 12 bits", |w| {
        file_and(w, chmod(b"f", 1 << 40 | 0o777))
    }),
    Trick::refused("an owner of more than 32 bits", |w| chown(w, 1 << 32, 0)),
    Trick::refused("a group of more than 32 bits", |w| chown(w, 0, 1 << 33)),
    Trick::refused("an owner that means leave it as it is", |w| {
        chown(w, u64::from(u32::MAX), 0)
    }),
    Trick::refused("a device of more than 32 bits", |w| {
        mknod(w, 0o20600, 1 << 32 | 0x103)
    }),
    Trick::refused("mknod of a directory", |w| mknod(w, 0o40755, 0)),
    Trick::refused("mknod of a symlink", |w| mknod(w, 0o120777, 0)),
    Trick::refused("mknod of no type that exists", |w| mknod(w, 0o170777, 0)),
    Trick::refused("mknod of a mode of more than 32 bits", |w| {
        mknod(w, 1 << 40 | 0o20600, 0x103)
    }),
    Trick::refused("xattr without a name", |w| {
        file_and(w, xattr(b"f", b"", b"x"))
    }),
    Trick::refused("xattr with a NUL in its name", |w| {
        file_and(w, xattr(b"f", b"user.a\0b", b"x"))
    }),
    Trick::refused("xattr with a name of 256 bytes", |w| {
        let name = [b"user.", &[b'x'; 251][..]].concat();
        file_and(w, xattr(b"f", &name, b"x"))
    }),
    Trick::refused("xattr with a name of 60000 bytes", |w| {
        file_and(w, xattr(b"f", &[b'x'; 60000], b"x"))
    }),
    Trick::refused("xattr of no namespace", |w| {
        file_and(w, xattr(b"f", b"name", b"x"))
    }),
    Trick::refused("xattr of an unknown namespace", |w| {
        file_and(w, xattr(b"f", b"os2.name", b"x"))
    }),
    Trick::refused("xattr of 65000 bytes", |w| {
        file_and(w, xattr(b"f", b"user.x", &[7; 65000]))
    }),
    Trick::refused("an ACL that is none", |w| {
        file_and(w, xattr(b"f", b"system.posix_acl_access", &[7; 13]))
    }),
    Trick::refused("capabilities that are none", |w| {
        file_and(w, xattr(b"f", b"security.capability", &[0xff; 17]))
    }),
    Trick::refused("a compression that does not exist", |w| {
        file_and(w, xattr(b"f", b"btrfs.compression", b"rot13"))
    }),
    Trick::refused("encoded write of a compression that does not exist", |w| {
        let compression = 99;
        extent(
            w,
            &Fields {
                compression,
                ..RIGHT
            },
            &ZEROS_BY_ZSTD,
        )
    }),
    Trick::refused("encoded write of nothing compressed", |w| {
        let compression = 0;
        extent(
            w,
            &Fields {
                compression,
                ..RIGHT
            },
            &ZEROS_BY_ZSTD,
        )
    }),
    Trick::refused("encoded write that is encrypted", |w| {
        let encryption = 1;
        extent(
            w,
            &Fields {
                encryption,
                ..RIGHT
            },
            &ZEROS_BY_ZSTD,
        )
    }),
    Trick::refused("encoded write of no data", |w| extent(w, &RIGHT, b"")),
    Trick::refused("encoded write of more than an extent", |w| {
        let (len, file_len) = (1 << 20, 1 << 20);
        extent(
            w,
            &Fields {
                len,
                file_len,
                ..RIGHT
            },
            &ZEROS_BY_ZSTD,
        )
    }),
    Trick::refused("encoded write of 16 EiB", |w| {
        let (len, file_len) = (u64::MAX, u64::MAX);
        extent(
            w,
            &Fields {
                len,
                file_len,
                ..RIGHT
            },
            &ZEROS_BY_ZSTD,
        )
    }),
    Trick::refused("encoded write of more in the file than there is", |w| {
        let file_len = 8192;
        extent(w, &Fields { file_len, ..RIGHT }, &ZEROS_BY_ZSTD)
    }),
    Trick::refused("encoded write that begins behind its end", |w| {
        let skip = 8192;
        extent(w, &Fields { skip, ..RIGHT }, &ZEROS_BY_ZSTD)
    }),
    Trick::refused(
        "encoded write that begins so far in that it overflows",
        |w| {
            let skip = u64::MAX - 4095;
            extent(w, &Fields { skip, ..RIGHT }, &ZEROS_BY_ZSTD)
        },
    ),
    Trick::refused("encoded write of nothing in the file", |w| {
        let file_len = 0;
        extent(w, &Fields { file_len, ..RIGHT }, &ZEROS_BY_ZSTD)
    }),
    Trick::refused("encoded write of a length of nothing", |w| {
        let (len, file_len) = (0, 0);
        extent(
            w,
            &Fields {
                len,
                file_len,
                ..RIGHT
            },
            &ZEROS_BY_ZSTD,
        )
    }),
    Trick::refused("encoded write at the end of all offsets", |w| {
        let offset = u64::MAX - 4095;
        extent(w, &Fields { offset, ..RIGHT }, &ZEROS_BY_ZSTD)
    }),
    Trick::refused("encoded write at a negative offset", |w| {
        let offset = 1 << 63;
        extent(w, &Fields { offset, ..RIGHT }, &ZEROS_BY_ZSTD)
    }),
    Trick::refused("encoded write of more data than it decodes to", |w| {
        extent(w, &RIGHT, &[7; 8192])
    }),
    Trick::refused("encoded write to a file that is not there", |w| {
        w.whole(&[encoded(b"no")])
    }),
];
