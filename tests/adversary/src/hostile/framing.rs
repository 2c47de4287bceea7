//! Wrong lengths, checksums and versions: bytes that are not a valid stream.

use crate::hostile::frame::{self, attribute, claiming, command, frame};
use crate::hostile::trick::{Trick, World, encode, mkfile, write_head};

/// A file, then these bytes, and the end.
fn file_then(w: &World, bytes: Vec<u8>) -> Vec<u8> {
    w.framed(&[encode(&mkfile(b"f")), bytes])
}

/// A complete stream that claims a version.
fn version(w: &World, number: u32) -> Vec<u8> {
    let stream = w.whole(&[mkfile(b"f")]);
    [frame::header(number), stream[17..].to_vec()].concat()
}

/// A command whose checksum is replaced.
fn sealed(w: &World, crc: impl Fn(u32) -> u32) -> Vec<u8> {
    let mut command = encode(&mkfile(b"f"));
    let right = u32::from_le_bytes(command[6..10].try_into().unwrap());
    command[6..10].copy_from_slice(&crc(right).to_le_bytes());
    w.framed(&[command])
}

pub(super) const TRICKS: &[Trick] = &[
    Trick::refused("an empty stream", |_| Vec::new()),
    Trick::refused("zeros", |_| vec![0; 64 * 1024]),
    Trick::refused("noise", |_| {
        let byte = |n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8;
        (0..64 * 1024).map(byte).collect()
    }),
    Trick::refused("another magic", |w| {
        let mut stream = w.whole(&[mkfile(b"f")]);
        stream[0] = b'B';
        stream
    }),
    Trick::refused("a magic without its NUL", |w| {
        let mut stream = w.whole(&[mkfile(b"f")]);
        stream[12] = b' ';
        stream
    }),
    Trick::refused("version 0", |w| version(w, 0)),
    Trick::refused("version 3", |w| version(w, 3)),
    Trick::refused("version 4294967295", |w| version(w, u32::MAX)),
    Trick::refused("version 2 in the other byte order", |w| {
        version(w, 2u32.swap_bytes())
    }),
    Trick::refused("a wrong checksum", |w| sealed(w, |crc| crc ^ 1)),
    Trick::refused("a checksum of zero", |w| sealed(w, |_| 0)),
    Trick::refused("the usual CRC-32C instead of the format's", |w| {
        let command = encode(&mkfile(b"f"));
        let zeroed = [&command[..6], &[0; 4], &command[10..]].concat();
        sealed(w, |_| !frame::crc32c(u32::MAX, &zeroed))
    }),
    Trick::refused("a flipped bit in data", |w| {
        let mut stream = w.framed(&[
            encode(&mkfile(b"f")),
            frame(
                command::WRITE,
                &[write_head(b"f"), frame::data(b"some data")],
            ),
        ]);
        let at = stream.len() - 10 - 4;
        stream[at] ^= 0x10;
        stream
    }),
    Trick::refused("a command of 4 GiB less one", |w| {
        let payload = [write_head(b"f"), frame::data(&[7; 1 << 16])].concat();
        file_then(w, claiming(command::WRITE, u32::MAX, &payload))
    }),
    Trick::refused("a command of 4 GiB of an unknown kind", |w| {
        file_then(w, claiming(999, u32::MAX, &[7; 1 << 16]))
    }),
    Trick::refused("a command of 2 GiB, all of it to come", |w| {
        let payload = [write_head(b"f"), frame::data(&vec![7; 4 << 20])].concat();
        file_then(w, claiming(command::WRITE, 1 << 31, &payload))
    }),
    Trick::refused("a command one byte beyond the limit of version 2", |w| {
        let head = write_head(b"f");
        let data = frame::data(&vec![7; (1 << 20) + 1 - head.len() - 2]);
        file_then(w, frame(command::WRITE, &[head, data]))
    }),
    Trick::refused("a command one byte beyond the limit of version 1", |w| {
        let head = write_head(b"f");
        let data = vec![7; (1 << 16) + 1 - head.len() - 4];
        let data = frame::bytes(attribute::DATA, &data);
        w.framed_v1(&[encode(&mkfile(b"f")), frame(command::WRITE, &[head, data])])
    }),
    Trick::refused("a subvolume of 4 GiB", |_| {
        [
            frame::header(2),
            claiming(command::SUBVOL, u32::MAX, &frame::path(b"hostile")),
        ]
        .concat()
    }),
    Trick::refused("END of 4 GiB", |w| {
        file_then(w, claiming(command::END, u32::MAX, &[]))
    }),
    Trick::refused("a command that is longer than it says", |w| {
        let payload = frame::path(b"longer");
        let short = u32::try_from(payload.len()).unwrap() - 3;
        w.framed(&[claiming(command::MKFILE, short, &payload)])
    }),
    Trick::refused("a command that is shorter than it says", |w| {
        let payload = frame::path(b"shorter");
        let long = u32::try_from(payload.len()).unwrap() + 5;
        w.framed(&[claiming(command::MKFILE, long, &payload)])
    }),
    Trick::refused("a stream that ends in a command's head", |w| {
        let stream = w.whole(&[mkfile(b"f")]);
        stream[..stream.len() - 4].to_vec()
    }),
    Trick::refused("a stream that ends in a command's attributes", |w| {
        let stream = w.whole(&[mkfile(b"file")]);
        stream[..stream.len() - 13].to_vec()
    }),
    Trick::refused("a stream that ends in its header", |_| {
        frame::header(2)[..15].to_vec()
    }),
    Trick::refused("command 0", |w| file_then(w, frame(0, &[]))),
    Trick::refused("command 26, of experimental kernels", |w| {
        file_then(w, frame(command::ENABLE_VERITY, &[frame::path(b"f")]))
    }),
    Trick::refused("command 27, which does not exist", |w| {
        file_then(w, frame(27, &[frame::path(b"f")]))
    }),
    Trick::refused("command 65535", |w| {
        file_then(w, frame(u16::MAX, &[frame::path(b"f")]))
    }),
    Trick::refused("a command of version 2 in version 1", |w| {
        w.framed_v1(&[
            encode(&mkfile(b"f")),
            frame(
                command::FALLOCATE,
                &[
                    frame::path(b"f"),
                    frame::bytes(attribute::FALLOCATE_MODE, &3u32.to_le_bytes()),
                    frame::number(attribute::FILE_OFFSET, 0),
                    frame::number(attribute::SIZE, 4096),
                ],
            ),
        ])
    }),
];
