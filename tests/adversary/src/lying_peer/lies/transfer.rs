//! Lies about a push.

use bytes::Bytes;
use sendshot_proto::v1::Accepted;
use sendshot_proto::v1::transfer_down::Message as Down;

use crate::lying_peer::answers::{
    accepted, accepts, applied, between_begin_and_end, checkpoint, committed, committed_as, deaf,
    policy, says_only, takes_all, waiting,
};
use crate::lying_peer::lies::outcomes::{FAILED, INVALID, STALLED, UNREACHABLE};
use crate::lying_peer::scripted::{Call, Script, Step, Until, Wire, down, framed_as};
use crate::lying_peer::victim::Expect::{Believed, Fails};
use crate::lying_peer::victim::Row;

/// Lies in the responses to `Transfer`.
pub const TRANSFER: &[Row] = &[
    Row {
        name: "accepted elsewhere than it was asked for",
        script: |_| {
            let lie = down(Down::Accepted(Accepted {
                resume_at: 1 << 20,
                ..Accepted::default()
            }));
            says_only(
                Call::Transfer,
                vec![Step::Hear(Until::Begin), Step::Say(lie)],
            )
        },
        expect: Fails(FAILED, "wants to resume at"),
    },
    Row {
        name: "accepted at 2^64-1",
        script: |_| {
            let lie = down(Down::Accepted(Accepted {
                resume_at: u64::MAX,
                ..Accepted::default()
            }));
            says_only(Call::Transfer, vec![Step::Say(lie)])
        },
        expect: Fails(FAILED, "wants to resume at"),
    },
    Row {
        name: "accepted twice",
        script: |_| accepts(vec![Step::Say(accepted())]),
        expect: Fails(FAILED, "accepted twice"),
    },
    Row {
        name: "committed, and never accepted",
        script: |_| says_only(Call::Transfer, vec![Step::Say(committed())]),
        expect: Fails(FAILED, "did not accept"),
    },
    Row {
        name: "committed at once",
        script: |_| accepts(vec![Step::Say(committed())]),
        expect: Fails(FAILED, "before the end"),
    },
    Row {
        name: "committed at the first segment",
        script: |_| {
            let steps = vec![
                Step::Hear(Until::Begin),
                Step::Say(accepted()),
                Step::Hear(Until::Segment),
                Step::Say(committed()),
            ];
            Script::on(Wire::Http2(64 << 10)).and(Call::Transfer, steps)
        },
        expect: Fails(FAILED, "before the end"),
    },
    Row {
        name: "committed twice",
        script: |_| {
            let twice = vec![Step::Say(committed())];
            says_only(Call::Transfer, [takes_all(), twice].concat())
        },
        expect: Believed,
    },
    Row {
        name: "committed as ../../x, of 1 MiB, in another directory",
        script: |_| {
            let name = format!("../../x\u{1b}[2J{}", "x".repeat(1 << 20));
            let last = committed_as(&name, "/etc/../..\n");
            let steps = [vec![Step::Hear(Until::End), Step::Say(last)]].concat();
            accepts(steps)
        },
        expect: Believed,
    },
    Row {
        name: "committed, without a name",
        script: |_| {
            accepts(vec![
                Step::Hear(Until::End),
                Step::Say(committed_as("", "")),
            ])
        },
        expect: Believed,
    },
    Row {
        name: "applied more than was sent, less than before, and 2^64-1",
        script: |_| {
            let offsets = [1 << 40, 1, u64::MAX, 0, 7];
            let said = offsets.map(|offset| Step::Say(applied(offset))).to_vec();
            says_only(Call::Transfer, between_begin_and_end(said))
        },
        expect: Believed,
    },
    Row {
        name: "checkpoints beyond what was sent, before the last, and at 2^64-1",
        script: |_| {
            let offsets = [1 << 40, 1, u64::MAX, 0, 7];
            let said = offsets.map(|offset| Step::Say(checkpoint(offset))).to_vec();
            says_only(Call::Transfer, between_begin_and_end(said))
        },
        expect: Believed,
    },
    Row {
        name: "a checkpoint after each byte",
        script: |_| policy(1, 0),
        expect: Believed,
    },
    Row {
        name: "a checkpoint after each millisecond",
        script: |_| policy(0, 1),
        expect: Believed,
    },
    Row {
        name: "a checkpoint after 2^64-1 bytes and milliseconds",
        script: |_| policy(u64::MAX, u64::MAX),
        expect: Believed,
    },
    Row {
        name: "no checkpoints",
        script: |_| policy(0, 0),
        expect: Believed,
    },
    Row {
        name: "applied, a million times",
        script: |_| {
            let said = vec![Step::Flood(applied(1), 1_000_000)];
            says_only(Call::Transfer, between_begin_and_end(said))
        },
        expect: Believed,
    },
    Row {
        name: "a checkpoint, a million times",
        script: |_| {
            let said = vec![Step::Flood(checkpoint(1), 1_000_000)];
            says_only(Call::Transfer, between_begin_and_end(said))
        },
        expect: Believed,
    },
    Row {
        name: "it waits for its turn, a million times",
        script: |_| {
            let said = vec![
                Step::Hear(Until::Begin),
                Step::Flood(waiting(), 1_000_000),
                Step::Say(accepted()),
                Step::Flood(waiting(), 1_000_000),
                Step::Hear(Until::End),
                Step::Say(committed()),
            ];
            says_only(Call::Transfer, said)
        },
        expect: Believed,
    },
    Row {
        name: "applied to and fro, for ever",
        script: |_| {
            let both = [applied(1), applied(2)].concat();
            accepts(vec![Step::Flood(both.into(), u64::MAX)])
        },
        expect: Fails(UNREACHABLE, STALLED),
    },
    Row {
        name: "the same, of a stream that it has taken",
        script: |_| {
            let both = [applied(1), applied(2)].concat();
            accepts(vec![
                Step::Hear(Until::End),
                Step::Flood(both.into(), u64::MAX),
            ])
        },
        expect: Fails(UNREACHABLE, STALLED),
    },
    Row {
        name: "a message without anything in it",
        script: |_| accepts(vec![Step::Say(framed_as(0, &[]))]),
        expect: Fails(FAILED, INVALID),
    },
    Row {
        name: "a message of an unknown kind",
        script: |_| accepts(vec![Step::Say(framed_as(2, &[15 << 3 | 2, 0]))]),
        expect: Fails(FAILED, INVALID),
    },
    Row {
        name: "a message of 4 MiB and more",
        script: |_| accepts(vec![Step::Say(committed_as(&"x".repeat(5 << 20), "x"))]),
        expect: Fails(FAILED, "message length too large"),
    },
    Row {
        name: "the call is over before it is accepted",
        script: |_| says_only(Call::Transfer, vec![Step::Say(Bytes::new())]),
        expect: Fails(FAILED, "without a result"),
    },
    Row {
        name: "the call is over when it is accepted",
        script: |_| accepts(Vec::new()),
        expect: Fails(FAILED, "without a result"),
    },
    Row {
        name: "the call is over when all is sent",
        script: |_| accepts(vec![Step::Hear(Until::End)]),
        expect: Fails(FAILED, "without a result"),
    },
    Row {
        name: "the connection breaks before it is accepted",
        script: |_| says_only(Call::Transfer, vec![Step::Hear(Until::Begin), Step::Cut]),
        expect: Fails(UNREACHABLE, ""),
    },
    Row {
        name: "the connection breaks in the middle",
        script: |_| accepts(vec![Step::Hear(Until::Segment), Step::Cut]),
        expect: Fails(UNREACHABLE, "broke"),
    },
    Row {
        name: "the connection breaks when all is sent",
        script: |_| accepts(vec![Step::Hear(Until::End), Step::Cut]),
        expect: Fails(UNREACHABLE, "broke"),
    },
    Row {
        name: "it takes all, and says nothing more",
        script: |_| accepts(vec![Step::Hear(Until::End), Step::Hold]),
        expect: Fails(UNREACHABLE, STALLED),
    },
    Row {
        name: "it takes 1000 bytes, and no more",
        script: |_| deaf(vec![Step::Hold]),
        expect: Fails(UNREACHABLE, STALLED),
    },
];
