//! Responses of a hostile receiver: the building blocks of lies.

use bytes::Bytes;
use sendshot_proto::v1::transfer_down::Message as Down;
use sendshot_proto::v1::{
    Accepted, Applied, Checkpoint, Committed, Failure, HeldCopy, HelloResponse, InventoryResponse,
    Partial, ResumePoint, Waiting,
};
use serde_json::Value;
use std::time::Duration;
use uuid::Uuid;

use crate::lying_peer::scripted::{Call, Script, Step, Until, Wire, changed, down};

/// Accepts the transfer from the beginning.
pub fn accepted() -> Bytes {
    down(Down::Accepted(Accepted {
        resume_at: 0,
        checkpoint_bytes: 1 << 20,
        checkpoint_milliseconds: 1000,
    }))
}

/// Says that the push waits for its turn.
pub fn waiting() -> Bytes {
    down(Down::Waiting(Waiting {}))
}

/// Reports a commit, as an honest receiver does.
pub fn committed() -> Bytes {
    committed_as("20300101T000000Z", "nas1/photos")
}

/// Reports a commit under this name in this directory.
pub fn committed_as(name: &str, directory: &str) -> Bytes {
    down(Down::Committed(Committed {
        name: name.to_owned(),
        directory: directory.to_owned(),
        ..Default::default()
    }))
}

/// Reports the stream as applied up to `offset`.
pub fn applied(offset: u64) -> Bytes {
    down(Down::Applied(Applied { offset }))
}

/// Reports a checkpoint at `offset`.
pub fn checkpoint(offset: u64) -> Bytes {
    down(Down::Checkpoint(Checkpoint { offset }))
}

/// Reports a failure of about `len` bytes that contains control sequences of a terminal.
pub fn failure(code: i32, len: usize) -> Bytes {
    down(Down::Failure(Failure {
        code,
        message: "\u{1b}[2Jlie".repeat(len / 7 + 1),
        remedy: "\u{9b}31mbelieve\n".repeat(len / 12 + 1),
    }))
}

/// Receives a whole stream and reports it as committed.
pub fn takes_all() -> Vec<Step> {
    between_begin_and_end(Vec::new())
}

/// As [`takes_all`], with further steps after it has accepted.
pub fn between_begin_and_end(said: Vec<Step>) -> Vec<Step> {
    let first = [Step::Hear(Until::Begin), Step::Say(accepted())];
    let last = [Step::Hear(Until::End), Step::Say(committed())];
    [&first[..], &said, &last].concat()
}

/// Accepts, and then takes these steps.
pub fn accepts(then: Vec<Step>) -> Script {
    let first = vec![Step::Hear(Until::Begin), Step::Say(accepted())];
    Script::to(Call::Transfer, [first, then].concat())
}

/// Lies about its copies, and then receives everything.
pub fn holds(lie: impl Fn(&mut InventoryResponse) + Send + Sync + 'static) -> Script {
    let lie = changed(move |answer: &mut InventoryResponse, _| lie(answer));
    Script::to(Call::Inventory, vec![lie]).and(Call::Transfer, takes_all())
}

/// A copy with this UUID, which was never made.
pub fn copy(uuid: &[u8]) -> HeldCopy {
    HeldCopy {
        uuid: uuid.to_vec(),
        ctransid: 7,
        name: "20300101T000000Z".to_owned(),
        unusable: String::new(),
        unusable_code: String::new(),
        committed_at: i64::MAX,
    }
}

/// The UUID that a push reported, as bytes.
pub fn uuid(pushed: &Value) -> Vec<u8> {
    let uuid: Uuid = pushed["uuid"].as_str().unwrap().parse().unwrap();
    uuid.as_bytes().to_vec()
}

/// Lies in its greeting, and then receives everything.
pub fn greets(lie: impl Fn(&mut HelloResponse) + Send + Sync + 'static) -> Script {
    let lie = changed(move |answer: &mut HelloResponse, _| lie(answer));
    Script::to(Call::Hello, vec![lie]).and(Call::Transfer, takes_all())
}

/// Answers one call with these steps, and the others honestly.
pub fn says_only(call: Call, steps: Vec<Step>) -> Script {
    Script::to(call, steps)
}

/// Makes this many resume points of data that was never sent.
pub fn any_points(of: usize) -> Vec<ResumePoint> {
    let point = |offset: usize| ResumePoint {
        offset: 1 + offset as u64,
        chain: vec![offset as u8; 32],
    };
    (0..of).map(point).collect()
}

/// Receives everything, and asks for checkpoints at this rate.
pub fn policy(checkpoint_bytes: u64, checkpoint_milliseconds: u64) -> Script {
    let accepted = down(Down::Accepted(Accepted {
        resume_at: 0,
        checkpoint_bytes,
        checkpoint_milliseconds,
    }));
    let steps = vec![
        Step::Hear(Until::Begin),
        Step::Say(accepted),
        Step::Hear(Until::End),
        Step::Say(committed()),
    ];
    Script::to(Call::Transfer, steps)
}

/// Accepts, with a window that admits almost nothing of the stream.
pub fn deaf(then: Vec<Step>) -> Script {
    let steps = [vec![Step::Say(accepted())], then].concat();
    Script::on(Wire::Http2(1000)).and(Call::Transfer, steps)
}

/// Accepts, and receives this many bytes of the stream one by one, each with a frame header of nine bytes.
pub fn nibbles(bytes: usize, then: Vec<Step>) -> Script {
    let steps = [vec![Step::Say(accepted()), Step::Nibble(bytes)], then].concat();
    Script::on(Wire::Http2(1)).and(Call::Transfer, steps)
}

/// A partial of a transfer with these resume points.
pub fn partial<'a>(id: &[u8], points: impl IntoIterator<Item = (u64, &'a [u8])>) -> Vec<Partial> {
    let point = |(offset, chain): (u64, &[u8])| ResumePoint {
        offset,
        chain: chain.to_vec(),
    };
    vec![Partial {
        transfer_id: id.to_vec(),
        points: points.into_iter().map(point).collect(),
    }]
}

/// HTTP/2 frames that are sent without end.
pub fn frames() -> Vec<(&'static str, Wire)> {
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let len = (payload.len() as u32).to_be_bytes();
        [&len[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
    };
    let settings = frame(4, 0, 0, &[]);
    let accepted = frame(4, 1, 0, &[]);
    let first = |more: &[u8]| Bytes::from([&settings, &accepted, more].concat());
    // HPACK: `:status: 200`, and `:status: 100` as a literal.
    let headers = frame(1, 4, 1, &[0x88]);
    let raw = |more: &[u8], again: Vec<u8>| Wire::Raw(first(more), again.into());
    vec![
        ("pings", raw(&[], frame(6, 0, 0, &[7; 8]))),
        ("settings", raw(&[], frame(4, 0, 0, &[]))),
        (
            "frames of an unknown kind",
            raw(&[], frame(0x42, 0, 0, &[0; 16 << 10])),
        ),
        ("priorities", raw(&[], frame(2, 0, 1, &[0, 0, 0, 0, 1]))),
        ("data without data", raw(&headers, frame(0, 0, 1, &[]))),
        (
            "answers that are to be continued",
            raw(&[], frame(1, 4, 1, &[0x08, 3, b'1', b'0', b'0'])),
        ),
        (
            "headers without end",
            raw(&frame(1, 0, 1, &[0x88]), frame(9, 0, 1, &[0; 16])),
        ),
        ("pushes", raw(&[], frame(5, 4, 1, &[0, 0, 0, 2, 0x88]))),
        ("windows", raw(&[], frame(8, 0, 0, &[0, 0, 0, 1]))),
        (
            "bytes that are no frames",
            Wire::Raw(Bytes::new(), Bytes::from_static(b"HTTP/1.1 ok\r\n")),
        ),
        (
            "a byte a second",
            Wire::Drip(first(&headers), Duration::from_secs(1)),
        ),
    ]
}
