//! Tricks in the messages of a push whose stream is valid.

use std::time::Duration;

use sendshot_proto::v1::transfer_up::Message as Up;
use sendshot_proto::v1::{Begin, End, Parent, ResumePoint, Segment, TransferUp};
use sendshot_stream::Command;
use uuid::Uuid;

use crate::hostile::frame;
use crate::hostile::sender::{Then, begin, said, segments, up};
use crate::hostile::trick::{Expect, Held, World, encode, mkfile, write};

/// Name of the volume that the hostile sender pushes.
pub const VOLUME: &str = "hostile";
/// Id of [`VOLUME`].
pub const VOLUME_ID: [u8; 16] = [0x5e; 16];

/// Longest segment that the receiver accepts, in bytes.
const MAX_SEGMENT: usize = 1 << 20;

/// A hostile push.
#[derive(Debug, Clone, Copy)]
pub struct PushTrick {
    /// What it tries.
    pub name: &'static str,
    /// The expected outcome.
    pub expect: Expect,
    /// Makes its messages.
    pub messages: fn(&World) -> Vec<TransferUp>,
    /// What the sender does after the messages.
    pub then: Then,
}

const fn refused(name: &'static str, messages: fn(&World) -> Vec<TransferUp>) -> PushTrick {
    PushTrick {
        name,
        expect: Expect::Refused,
        messages,
        then: Then::Wait,
    }
}

const fn harmless(name: &'static str, messages: fn(&World) -> Vec<TransferUp>) -> PushTrick {
    PushTrick {
        expect: Expect::Harmless,
        ..refused(name, messages)
    }
}

const fn hung_up(name: &'static str, messages: fn(&World) -> Vec<TransferUp>) -> PushTrick {
    PushTrick {
        then: Then::HangUp(Duration::from_millis(200)),
        ..harmless(name, messages)
    }
}

const fn closed(name: &'static str, messages: fn(&World) -> Vec<TransferUp>) -> PushTrick {
    PushTrick {
        then: Then::Close,
        ..refused(name, messages)
    }
}

/// The begin message of a push that would be accepted.
fn fine(w: &World) -> Begin {
    begin(w, VOLUME_ID, VOLUME)
}

/// A stream that would be accepted.
fn stream(w: &World) -> Vec<u8> {
    w.whole(&[mkfile(b"f"), write(b"f")])
}

/// A push that would be accepted except for a changed begin message.
fn beginning(w: &World, change: impl FnOnce(&mut Begin)) -> Vec<TransferUp> {
    let mut begin = fine(w);
    change(&mut begin);
    let (segments, end) = segments(&stream(w), 64);
    said(begin, segments, [end])
}

fn named(w: &World, name: &str) -> Vec<TransferUp> {
    beginning(w, |begin| {
        begin.volume_id = w.uuid.as_bytes().to_vec();
        name.clone_into(&mut begin.volume_name);
    })
}

/// A push that would be accepted except for changed segments and end.
fn segmented(w: &World, change: impl FnOnce(&mut Vec<Segment>, &mut End)) -> Vec<TransferUp> {
    let (mut segments, mut end) = segments(&stream(w), 64);
    change(&mut segments, &mut end);
    said(fine(w), segments, [end])
}

/// A push that would be accepted except for the order of its messages.
fn ordered(w: &World, change: impl FnOnce(&mut Vec<TransferUp>)) -> Vec<TransferUp> {
    let mut messages = segmented(w, |_, _| {});
    change(&mut messages);
    messages
}

/// A push that names one copy as its parent, and a stream that is incremental to another or the same.
fn onto(w: &World, said_parent: Held, built_on: Held) -> Vec<TransferUp> {
    let snapshot = Command::Snapshot {
        path: b"hostile",
        uuid: w.uuid,
        ctransid: w.ctransid,
        clone_uuid: built_on.uuid,
        clone_ctransid: built_on.ctransid,
    };
    let commands = [snapshot, mkfile(b"f"), Command::End];
    let commands: Vec<u8> = commands.iter().flat_map(encode).collect();
    let mut begin = fine(w);
    begin.parent = parent(said_parent);
    let (segments, end) = segments(&[frame::header(2), commands].concat(), 64);
    said(begin, segments, [end])
}

fn parent(held: Held) -> Option<Parent> {
    Some(Parent {
        uuid: held.uuid.as_bytes().to_vec(),
        ctransid: held.ctransid,
    })
}

fn resumed(w: &World, offset: u64, chain: usize) -> Vec<TransferUp> {
    beginning(w, |begin| {
        let chain = vec![7; chain];
        begin.resumable = true;
        begin.resume_at = Some(ResumePoint { offset, chain });
    })
}

/// Data of which only the length matters.
fn lump(w: &World, len: usize) -> Vec<TransferUp> {
    let (segments, end) = segments(&[&stream(w)[..], &vec![7; len]].concat()[..len], len);
    said(fine(w), segments, [end])
}

/// All hostile pushes.
pub const PUSHES: &[PushTrick] = &[
    refused("a volume named ..", |w| named(w, "..")),
    refused("a volume named .", |w| named(w, ".")),
    refused("a volume without a name", |w| named(w, "")),
    refused("a volume with a slash", |w| named(w, "a/b")),
    refused("a volume named by an absolute path", |w| named(w, "/x")),
    refused("a volume that climbs to another sender", |w| {
        named(w, "../nas3/photos")
    }),
    refused("a volume named like staging", |w| {
        named(w, ".sendshot-staging")
    }),
    refused("a volume with a NUL", |w| named(w, "a\0b")),
    refused("a volume with a line's end", |w| named(w, "a\nb")),
    refused("a volume that a terminal obeys", |w| named(w, "\x1b[2J")),
    refused("a volume with a name of 201 bytes", |w| {
        named(w, &"x".repeat(201))
    }),
    refused("a volume with a name of 4 KiB", |w| {
        named(w, &"x".repeat(4096))
    }),
    harmless("a volume with another one's name", |w| named(w, "photos")),
    harmless("a volume named like another sender", |w| named(w, "nas3")),
    harmless("another volume's name and the own id", |w| {
        beginning(w, |b| "photos".clone_into(&mut b.volume_name))
    }),
    refused("a volume id of 15 bytes", |w| {
        beginning(w, |b| b.volume_id.truncate(15))
    }),
    refused("no volume id", |w| beginning(w, |b| b.volume_id.clear())),
    refused("a transfer id of 15 bytes", |w| {
        beginning(w, |b| b.transfer_id.truncate(15))
    }),
    refused("a transfer id of 17 bytes", |w| {
        beginning(w, |b| b.transfer_id.push(b'/'))
    }),
    refused("no transfer id", |w| {
        beginning(w, |b| b.transfer_id.clear())
    }),
    refused("a UUID of 15 bytes", |w| {
        beginning(w, |b| b.uuid.truncate(15))
    }),
    refused("a UUID of 4 MB", |w| {
        beginning(w, |b| b.uuid.resize(4_000_000, 7))
    }),
    refused("no UUID", |w| beginning(w, |b| b.uuid.clear())),
    refused("the nil UUID", |w| {
        let uuid = Uuid::nil();
        let nil = World { uuid, ..w.clone() };
        let (segments, end) = segments(&stream(&nil), 64);
        let mut begin = fine(w);
        begin.uuid = uuid.as_bytes().to_vec();
        said(begin, segments, [end])
    }),
    refused("another UUID than the stream's", |w| {
        beginning(w, |b| b.uuid[15] ^= 1)
    }),
    refused("another ctransid than the stream's", |w| {
        beginning(w, |b| b.ctransid += 1)
    }),
    refused("the UUID of a copy that is held", |w| {
        let Held { uuid, ctransid } = w.own;
        let world = World {
            uuid,
            ctransid,
            ..w.clone()
        };
        let (segments, end) = segments(&stream(&world), 64);
        let mut begin = fine(&world);
        begin.transfer_id = w.uuid.as_bytes().to_vec();
        said(begin, segments, [end])
    }),
    refused("stream version 0", |w| {
        beginning(w, |b| b.stream_version = 0)
    }),
    refused("stream version 1 for a stream of version 2", |w| {
        beginning(w, |b| b.stream_version = 1)
    }),
    refused("stream version 3", |w| {
        beginning(w, |b| b.stream_version = 3)
    }),
    refused("stream version 4294967295", |w| {
        beginning(w, |b| b.stream_version = u32::MAX)
    }),
    harmless("taken before time began", |w| {
        beginning(w, |b| b.taken_at = i64::MIN)
    }),
    harmless("taken when time ends", |w| {
        beginning(w, |b| b.taken_at = i64::MAX)
    }),
    refused("a parent of 15 bytes", |w| {
        beginning(w, |b| {
            b.parent = parent(w.own);
            b.parent.as_mut().unwrap().uuid.truncate(15);
        })
    }),
    refused("another sender's copy as the parent", |w| {
        onto(w, w.other_sender, w.other_sender)
    }),
    refused("another volume's copy as the parent", |w| {
        onto(w, w.other_volume, w.other_volume)
    }),
    refused("a parent that does not exist", |w| {
        let uuid = Uuid::from_u128(0xdead);
        let unknown = Held { uuid, ..w.own };
        onto(w, unknown, unknown)
    }),
    refused("the nil UUID as the parent", |w| {
        let uuid = Uuid::nil();
        let unknown = Held { uuid, ..w.own };
        onto(w, unknown, unknown)
    }),
    refused("the right parent in another state", |w| {
        let ctransid = w.own.ctransid + 1;
        let other = Held { ctransid, ..w.own };
        onto(w, other, other)
    }),
    refused("a parent, and a stream onto another sender's copy", |w| {
        onto(w, w.own, w.other_sender)
    }),
    refused("a parent, and a stream onto another volume's copy", |w| {
        onto(w, w.own, w.other_volume)
    }),
    refused("a parent, and a stream that is full", |w| {
        beginning(w, |b| b.parent = parent(w.own))
    }),
    harmless("an honest push onto the own copy", |w| {
        onto(w, w.own, w.own)
    }),
    refused("a resumption of what never was", |w| resumed(w, 4096, 32)),
    refused("a resumption at the end of all offsets", |w| {
        resumed(w, u64::MAX, 32)
    }),
    refused("a resumption at 0", |w| resumed(w, 0, 32)),
    refused("a resumption with a chain value of 31 bytes", |w| {
        resumed(w, 4096, 31)
    }),
    refused("a resumption without a chain value", |w| {
        resumed(w, 4096, 0)
    }),
    refused("a first segment elsewhere", |w| {
        segmented(w, |s, _| s[0].offset = 64)
    }),
    refused("a segment at the end of all offsets", |w| {
        segmented(w, |s, _| s[1].offset = u64::MAX - 5)
    }),
    refused("a segment over the one before", |w| {
        segmented(w, |s, _| s[1].offset = 0)
    }),
    refused("a segment left out", |w| {
        segmented(w, |s, _| drop(s.remove(1)))
    }),
    refused("a segment twice", |w| {
        segmented(w, |s, _| s.insert(1, s[0].clone()))
    }),
    refused("two segments in each other's place", |w| {
        segmented(w, |s, _| s.swap(0, 1))
    }),
    refused("a segment of no bytes", |w| {
        segmented(w, |s, _| {
            let empty = Segment {
                data: Vec::new().into(),
                ..s[1].clone()
            };
            s.insert(1, empty);
        })
    }),
    refused("a segment of another chain value", |w| {
        segmented(w, |s, _| s[1].chain[31] ^= 1)
    }),
    refused("a chain value of 31 bytes", |w| {
        segmented(w, |s, _| s[1].chain.truncate(31))
    }),
    refused("no chain value", |w| {
        segmented(w, |s, _| s[1].chain.clear())
    }),
    refused("data that is not what was hashed", |w| {
        segmented(w, |s, _| {
            let mut data = s[1].data.to_vec();
            data[9] ^= 1;
            s[1].data = data.into();
        })
    }),
    refused("a segment of a byte more than is taken", |w| {
        lump(w, MAX_SEGMENT + 1)
    }),
    refused("a message of 5 MiB", |w| lump(w, 5 << 20)),
    refused("a message of 40 MiB", |w| lump(w, 40 << 20)),
    refused("an end of another length", |w| {
        segmented(w, |_, end| end.length += 1)
    }),
    refused("an end of length 0", |w| {
        segmented(w, |_, end| end.length = 0)
    }),
    refused("an end of another chain value", |w| {
        segmented(w, |_, end| end.chain[0] ^= 1)
    }),
    refused("an end with a chain value of 3 bytes", |w| {
        segmented(w, |_, end| end.chain.truncate(3))
    }),
    refused("an end after half the segments", |w| {
        segmented(w, |s, _| s.truncate(1))
    }),
    refused("an honest end after half the stream", |w| {
        let stream = stream(w);
        let (segments, end) = segments(&stream[..stream.len() / 2], 16);
        said(fine(w), segments, [end])
    }),
    refused("an end of nothing", |w| {
        let (segments, end) = segments(&[], 16);
        said(fine(w), segments, [end])
    }),
    refused("segments before the beginning", |w| {
        ordered(w, |m| m.swap(0, 1))
    }),
    refused("no beginning", |w| ordered(w, |m| drop(m.remove(0)))),
    refused("an end first", |w| ordered(w, |m| m.rotate_right(1))),
    refused("two beginnings", |w| {
        ordered(w, |m| m.insert(1, m[0].clone()))
    }),
    refused("a beginning in the middle", |w| {
        ordered(w, |m| m.insert(2, m[0].clone()))
    }),
    harmless("the end twice", |w| {
        ordered(w, |m| m.push(m[m.len() - 1].clone()))
    }),
    harmless("a segment after the end", |w| {
        ordered(w, |m| {
            let end = m.len();
            m.insert(end, m[1].clone());
        })
    }),
    refused("a message of nothing", |w| {
        ordered(w, |m| m.insert(1, TransferUp { message: None }))
    }),
    refused("a flood of messages of nothing", |_| {
        vec![TransferUp { message: None }; 20_000]
    }),
    refused("a flood of beginnings", |w| {
        vec![up(Up::Begin(fine(w))); 5_000]
    }),
    harmless("segments of one byte", |w| {
        let modes = |n| Command::Chmod {
            path: b"f",
            mode: n,
        };
        let commands: Vec<_> = (0..200).map(modes).collect();
        let bytes = w.whole(&[&[mkfile(b"f")], &commands[..]].concat());
        let (segments, end) = segments(&bytes, 1);
        said(fine(w), segments, [end])
    }),
    refused("20000 segments of nothing after a stream", |w| {
        segmented(w, |s, end| {
            let nothing = Segment {
                offset: end.length,
                data: Vec::new().into(),
                chain: end.chain.clone(),
                marked: true,
            };
            s.extend(vec![nothing; 20_000]);
        })
    }),
    hung_up("no message at all", |_| Vec::new()),
    hung_up("a beginning and nothing else", |w| {
        ordered(w, |m| m.truncate(1))
    }),
    hung_up("half a push", |w| ordered(w, |m| m.truncate(2))),
    hung_up("a whole push without its end", |w| {
        ordered(w, |m| m.truncate(m.len() - 1))
    }),
    closed("no message, and the direction closed", |_| Vec::new()),
    closed("a beginning, and the direction closed", |w| {
        ordered(w, |m| m.truncate(1))
    }),
    closed("half a push, and the direction closed", |w| {
        ordered(w, |m| m.truncate(2))
    }),
    closed("all but the end, and the direction closed", |w| {
        ordered(w, |m| m.truncate(m.len() - 1))
    }),
];
