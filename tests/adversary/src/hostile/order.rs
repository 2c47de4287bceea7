//! Commands in a place where they are not allowed or invalid.

use sendshot_stream::Command;
use uuid::Uuid;

use crate::hostile::frame::{self, command, frame};
use crate::hostile::trick::{Trick, World, encode, link, mkdir, mkfile, rename, write};

/// A stream of these commands alone after the header.
fn bare(commands: &[Command<'_>]) -> Vec<u8> {
    let commands: Vec<u8> = commands.iter().flat_map(encode).collect();
    [frame::header(2), commands].concat()
}

/// A complete stream, followed by further bytes.
fn behind(w: &World, more: &[u8]) -> Vec<u8> {
    [w.whole(&[mkfile(b"f")]), more.to_vec()].concat()
}

fn second(uuid: Uuid) -> Command<'static> {
    Command::Subvol {
        path: b"second",
        uuid,
        ctransid: 5,
    }
}

pub(super) const TRICKS: &[Trick] = &[
    Trick::refused("commands before the header", |w| {
        [encode(&mkfile(b"f")), w.whole(&[])].concat()
    }),
    Trick::refused("no header", |w| w.whole(&[mkfile(b"f")])[17..].to_vec()),
    Trick::refused("nothing but a header", |_| frame::header(2)),
    Trick::refused("a second header in the middle", |w| {
        w.framed(&[frame::header(2), encode(&mkfile(b"f"))])
    }),
    Trick::refused("the stream over again in its middle", |w| {
        let whole = w.whole(&[mkfile(b"f")]);
        let half = &whole[..whole.len() - 10];
        [half, &whole].concat()
    }),
    Trick::refused("a file before any subvolume", |w| {
        bare(&[mkfile(b"f"), w.subvol(), Command::End])
    }),
    Trick::refused("a write before any subvolume", |_| {
        bare(&[write(b"victim"), Command::End])
    }),
    Trick::refused("END first", |w| bare(&[Command::End, w.subvol()])),
    Trick::refused("no END", |w| bare(&[w.subvol(), mkfile(b"f")])),
    Trick::refused("a command after END", |w| {
        behind(w, &encode(&mkfile(b"late")))
    }),
    Trick::refused("END twice", |w| behind(w, &encode(&Command::End))),
    Trick::refused("END with a path", |w| {
        let mut stream = w.whole(&[]);
        stream.truncate(stream.len() - 10);
        [stream, frame(command::END, &[frame::path(b"x"), vec![1]])].concat()
    }),
    Trick::refused("noise after END", |w| behind(w, &[0x5a; 4096])),
    Trick::refused("zeros after END", |w| behind(w, &[0; 64])),
    Trick::refused("a header after END, and noise", |w| {
        behind(w, &[frame::header(2), vec![7; 100]].concat())
    }),
    Trick::refused("half a header after END", |w| {
        behind(w, &frame::header(2)[..9])
    }),
    Trick::refused("the same subvolume twice", |w| {
        w.whole(&[mkfile(b"f"), w.subvol(), mkfile(b"g")])
    }),
    Trick::refused_by_daemon("two subvolumes in one stream", |w| {
        let other = Uuid::from_u128(w.uuid.as_u128() ^ 1 << 100);
        w.whole(&[mkfile(b"f"), second(other), mkfile(b"g")])
    }),
    Trick::refused_by_daemon("a second stream after END", |w| {
        let other = Uuid::from_u128(w.uuid.as_u128() ^ 1 << 100);
        behind(w, &bare(&[second(other), mkfile(b"g"), Command::End]))
    }),
    Trick::refused("a stream made without data", |w| {
        let (path, offset, len) = (b"f", 0, 4096);
        w.whole(&[mkfile(b"f"), Command::UpdateExtent { path, offset, len }])
    }),
    Trick::refused("mkfile of what exists", |w| {
        w.whole(&[mkfile(b"f"), mkfile(b"f")])
    }),
    Trick::refused("mkdir of what exists", |w| {
        w.whole(&[mkfile(b"f"), mkdir(b"f")])
    }),
    Trick::refused("mkfile below a file", |w| {
        w.whole(&[mkfile(b"f"), mkfile(b"f/g")])
    }),
    Trick::refused("mkfile below nothing", |w| w.whole(&[mkfile(b"no/f")])),
    Trick::refused("write to nothing", |w| w.whole(&[write(b"no")])),
    Trick::refused("rename of nothing", |w| w.whole(&[rename(b"no", b"yes")])),
    Trick::refused("rename of a directory into itself", |w| {
        w.whole(&[mkdir(b"d"), mkdir(b"d/e"), rename(b"d", b"d/e/d")])
    }),
    Trick::refused("hard link to a directory", |w| {
        w.whole(&[mkdir(b"d"), link(b"e", b"d")])
    }),
    Trick::refused("hard link to the root", |w| w.whole(&[link(b"e", b"")])),
    Trick::refused("unlink of nothing", |w| {
        w.whole(&[Command::Unlink { path: b"no" }])
    }),
    Trick::refused("unlink of a directory", |w| {
        w.whole(&[mkdir(b"d"), Command::Unlink { path: b"d" }])
    }),
    Trick::refused("rmdir of a directory that is not empty", |w| {
        w.whole(&[mkdir(b"d"), mkfile(b"d/f"), Command::Rmdir { path: b"d" }])
    }),
];
