//! Data and parents that belong to another sender or volume.

use sendshot_stream::Command;
use uuid::Uuid;

use crate::hostile::frame;
use crate::hostile::trick::{
    Held, SECRET, SECRET_LEN, Trick, World, clone, encode, mkdir, mkfile, truncate,
};

/// Clones a file of a copy.
fn steal(w: &World, held: Held, path: &[u8]) -> Vec<u8> {
    w.whole(&[mkfile(b"mine"), clone(held.uuid, held.ctransid, path)])
}

/// Clones a range of the sender's own copy.
fn range(w: &World, clone_offset: u64, len: u64, offset: u64) -> Vec<u8> {
    let hostile = Command::Clone {
        path: b"mine",
        offset,
        len,
        clone_uuid: w.own.uuid,
        clone_ctransid: w.own.ctransid,
        clone_path: SECRET,
        clone_offset,
    };
    w.whole(&[mkfile(b"mine"), hostile])
}

/// A stream that is incremental to a copy.
fn onto(w: &World, held: Held) -> Vec<u8> {
    let snapshot = Command::Snapshot {
        path: b"hostile",
        uuid: w.uuid,
        ctransid: w.ctransid,
        clone_uuid: held.uuid,
        clone_ctransid: held.ctransid,
    };
    let commands = [snapshot, mkfile(b"f"), Command::End];
    let commands: Vec<u8> = commands.iter().flat_map(encode).collect();
    [frame::header(2), commands].concat()
}

fn unknown(uuid: u128) -> Held {
    let uuid = Uuid::from_u128(uuid);
    Held { uuid, ctransid: 5 }
}

pub(super) const TRICKS: &[Trick] = &[
    Trick::refused("clone from another sender's copy", |w| {
        steal(w, w.other_sender, SECRET)
    }),
    Trick::refused("clone from another sender's copy, all of it", |w| {
        let mut hostile = clone(w.other_sender.uuid, w.other_sender.ctransid, SECRET);
        if let Command::Clone { len, .. } = &mut hostile {
            *len = SECRET_LEN;
        }
        w.whole(&[mkfile(b"mine"), hostile])
    }),
    Trick::refused("clone from another volume's copy", |w| {
        steal(w, w.other_volume, SECRET)
    }),
    Trick::refused(
        "clone from another sender's copy by a wrong ctransid",
        |w| {
            let ctransid = w.own.ctransid;
            let held = Held {
                ctransid,
                ..w.other_sender
            };
            steal(w, held, SECRET)
        },
    ),
    Trick::refused("clone from a copy that does not exist", |w| {
        steal(w, unknown(0xdead), SECRET)
    }),
    Trick::refused(
        "clone from the nil UUID, which what is not received has",
        |w| steal(w, unknown(0), SECRET),
    ),
    Trick::refused("clone from the own copy, climbing to a neighbour", |w| {
        steal(w, w.own, b"../../photos/secret")
    }),
    Trick::refused("clone from the own copy by an absolute path", |w| {
        steal(w, w.own, &w.inside("victim"))
    }),
    Trick::refused("clone from the own copy's root", |w| steal(w, w.own, b"")),
    Trick::refused("clone from the own copy's directory", |w| {
        steal(w, w.own, b"dir")
    }),
    Trick::refused("clone from the own copy's symlink", |w| {
        steal(w, w.own, b"link")
    }),
    Trick::refused("clone from behind the own copy's symlink", |w| {
        steal(w, w.own, b"way/victim")
    }),
    Trick::refused("clone from a file that is not there", |w| {
        steal(w, w.own, b"nothing")
    }),
    Trick::refused("clone from beyond the source's end", |w| {
        range(w, SECRET_LEN, 4096, 0)
    }),
    Trick::refused("clone that reaches beyond the source's end", |w| {
        range(w, 0, 1 << 40, 0)
    }),
    Trick::refused("clone whose source overflows", |w| {
        range(w, u64::MAX - 4095, 8192, 0)
    }),
    Trick::refused("clone whose target overflows", |w| {
        range(w, 0, 4096, u64::MAX - 4095)
    }),
    Trick::refused("clone whose target is beyond all file sizes", |w| {
        range(w, 0, 4096, (1 << 63) - 4096)
    }),
    Trick::refused("clone of 16 EiB", |w| range(w, 0, u64::MAX, 0)),
    Trick::refused("clone into a directory", |w| {
        w.whole(&[mkdir(b"mine"), clone(w.own.uuid, w.own.ctransid, SECRET)])
    }),
    Trick::refused("clone onto itself", |w| {
        w.whole(&[
            mkfile(b"mine"),
            truncate(b"mine", 4096),
            clone(w.uuid, w.ctransid, b"mine"),
        ])
    }),
    Trick::refused("SNAPSHOT of another sender's copy", |w| {
        onto(w, w.other_sender)
    }),
    Trick::refused("SNAPSHOT of another volume's copy", |w| {
        onto(w, w.other_volume)
    }),
    Trick::refused_by_daemon("SNAPSHOT of the own copy in a full send", |w| {
        onto(w, w.own)
    }),
    Trick::refused("SNAPSHOT of nothing", |w| onto(w, unknown(0xdead))),
    Trick::refused("SNAPSHOT of the nil UUID", |w| onto(w, unknown(0))),
    Trick::refused("SNAPSHOT of itself", |w| {
        let (uuid, ctransid) = (w.uuid, w.ctransid);
        onto(w, Held { uuid, ctransid })
    }),
];
