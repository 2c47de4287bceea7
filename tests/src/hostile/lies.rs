//! The lies of a hostile receiver, by what they are about, and what comes of each.

use std::iter::repeat_n;

use bytes::Bytes;
use sendshot_proto::v1::transfer_down::Message as Down;
use sendshot_proto::v1::{Accepted, Failure, HeldCopy, InventoryResponse, Partial};
use tonic::{Code, Status};
use uuid::Uuid;

use crate::hostile::answers::{
    accepted, accepts, any_points, applied, between_begin_and_end, checkpoint, committed,
    committed_as, copy, deaf, greets, holds, policy, says_only, takes_all, uuid,
};
use crate::hostile::receiver::{
    Call, Script, Step, Until, Wire, down, framed, framed_as, header, status,
};
use crate::hostile::victim::Expect::{Believed, Fails};
use crate::hostile::victim::Row;
use crate::subvolumes;

/// Exit codes: failed, unreachable, refused.
const FAILED: &[i32] = &[1];
const UNREACHABLE: &[i32] = &[3];
const REFUSED: &[i32] = &[4];

const NONSENSE: &str = "makes no sense";
const STALLED: &str = "came no further";

/// As many copies as fit into a message.
const MANY: usize = 100_000;

/// In what it holds.
pub const INVENTORY: &[Row] = &[
    Row {
        name: "it holds copies of random UUIDs",
        script: |_| {
            holds(|answer| {
                for _ in 0..100 {
                    answer.copies.push(copy(Uuid::new_v4().as_bytes()));
                }
            })
        },
        expect: Believed,
    },
    Row {
        name: "it holds what is about to be sent to it, with any ctransid",
        script: |victim| {
            let fs = victim.sender.fs().to_owned();
            holds(move |answer| {
                for hidden in subvolumes::list(&fs) {
                    let uuid: Uuid = hidden.uuid.parse().unwrap();
                    let ctransids = (0..100).chain([hidden.generation, u64::MAX]);
                    answer.copies.extend(ctransids.map(|ctransid| HeldCopy {
                        ctransid,
                        ..copy(uuid.as_bytes())
                    }));
                }
            })
        },
        // Only if the ctransid is guessed.
        expect: Fails(FAILED, "was not sent to it"),
    },
    Row {
        name: "it holds a state of another volume",
        script: |victim| {
            let uuid = uuid(&victim.music);
            holds(move |answer| {
                let all = (0..200).map(|ctransid| HeldCopy {
                    ctransid,
                    ..copy(&uuid)
                });
                answer.copies.splice(.., all);
            })
        },
        expect: Believed,
    },
    Row {
        name: "it holds a state that only another receiver has",
        script: |victim| {
            let uuid = uuid(&victim.elsewhere);
            holds(move |answer| {
                let all = (0..200).map(|ctransid| HeldCopy {
                    ctransid,
                    ..copy(&uuid)
                });
                answer.copies.splice(.., all);
            })
        },
        expect: Believed,
    },
    Row {
        name: "it holds the last state with another ctransid",
        script: |_| {
            holds(|answer| {
                for copy in &mut answer.copies {
                    copy.ctransid = copy.ctransid.wrapping_add(1);
                }
            })
        },
        expect: Believed,
    },
    Row {
        name: "it holds states of the ctransids 0 and 2^64-1",
        script: |victim| {
            let uuid = uuid(&victim.last);
            holds(move |answer| {
                for ctransid in [0, u64::MAX] {
                    answer.copies.push(HeldCopy {
                        ctransid,
                        ..copy(&uuid)
                    });
                }
                answer.copies.reverse();
            })
        },
        expect: Believed,
    },
    Row {
        name: "it holds each copy a thousand times",
        script: |_| {
            holds(|answer| {
                let all = answer.copies.clone();
                answer.copies = repeat_n(all, 1000).flatten().collect();
            })
        },
        expect: Believed,
    },
    Row {
        name: "it holds nothing",
        script: |_| holds(|answer| answer.copies.clear()),
        expect: Believed,
    },
    Row {
        name: "it can use nothing of what it holds",
        script: |_| {
            holds(|answer| {
                for copy in &mut answer.copies {
                    copy.unusable = "\u{1b}]0;mine\u{7}".repeat(1000);
                }
            })
        },
        expect: Believed,
    },
    Row {
        name: "100,000 copies, 3.9 MiB",
        script: |_| {
            holds(|answer| {
                let one = HeldCopy {
                    name: "twelve bytes".into(),
                    ..copy(&[3; 16])
                };
                let one = HeldCopy {
                    committed_at: 0,
                    ..one
                };
                let all = (0..MANY).map(|number| HeldCopy {
                    uuid: Uuid::from_u128(1 + number as u128).as_bytes().to_vec(),
                    ..one.clone()
                });
                answer.copies.extend(all);
            })
        },
        expect: Believed,
    },
    Row {
        name: "more copies than fit into a message",
        script: |_| {
            holds(|answer| {
                answer.copies.extend(repeat_n(copy(&[3; 16]), 200_000));
            })
        },
        expect: Fails(FAILED, "message length too large"),
    },
    Row {
        name: "a message that says to be of 4 GiB",
        script: |_| {
            let lie = framed_as(u32::MAX, b"x");
            says_only(Call::Inventory, vec![Step::Say(lie)])
        },
        expect: Fails(FAILED, "message length too large"),
    },
    Row {
        name: "one that is shorter than it says",
        script: |_| {
            let lie = framed_as(1000, b"x");
            says_only(Call::Inventory, vec![Step::Say(lie)])
        },
        expect: Fails(&[1, 3], ""),
    },
    Row {
        name: "one that is compressed, which nobody asked for",
        script: |_| {
            let lie = Bytes::from_static(&[1, 0, 0, 0, 1, 0]);
            says_only(Call::Inventory, vec![Step::Say(lie)])
        },
        expect: Fails(FAILED, ""),
    },
    Row {
        name: "bytes that are no message",
        script: |_| {
            let lie = framed_as(64, &[0xff; 64]);
            says_only(Call::Inventory, vec![Step::Say(lie)])
        },
        expect: Fails(FAILED, ""),
    },
    Row {
        name: "two answers",
        script: |_| {
            let one = framed(&InventoryResponse::default());
            let twice = vec![Step::Say(one.clone()), Step::Say(one)];
            says_only(Call::Inventory, twice).and(Call::Transfer, takes_all())
        },
        expect: Fails(&[0, 1], ""),
    },
    Row {
        name: "no answer, and all is well",
        script: |_| says_only(Call::Inventory, vec![Step::Say(Bytes::new())]),
        expect: Fails(FAILED, ""),
    },
    Row {
        name: "names that a terminal obeys, of 100 KiB",
        script: |_| {
            holds(|answer| {
                let text = "\u{1b}[31m\r\n\u{9b}2J../../x\u{202e}".repeat(5000);
                answer.directory.clone_from(&text);
                for copy in &mut answer.copies {
                    copy.name.clone_from(&text);
                }
            })
        },
        expect: Believed,
    },
    Row {
        name: "a nil UUID",
        script: |_| holds(|answer| answer.copies.push(copy(&[0; 16]))),
        expect: Fails(FAILED, NONSENSE),
    },
    Row {
        name: "a UUID of five bytes",
        script: |_| holds(|answer| answer.copies.push(copy(&[3; 5]))),
        expect: Fails(FAILED, NONSENSE),
    },
    Row {
        name: "an empty UUID",
        script: |_| holds(|answer| answer.copies.push(copy(&[]))),
        expect: Fails(FAILED, NONSENSE),
    },
    Row {
        name: "a push is always at work",
        script: |_| holds(|answer| answer.push_at_work = true),
        expect: Believed,
    },
    Row {
        name: "10,000 partials of 100 points",
        script: |_| {
            holds(|answer| {
                let partial = |number: usize| Partial {
                    transfer_id: Uuid::from_u128(number as u128).as_bytes().to_vec(),
                    points: any_points(1),
                };
                answer.partials = (0..10_000).map(partial).collect();
                answer.partials[0].points = any_points(10_000);
            })
        },
        expect: Believed,
    },
    Row {
        name: "a partial that is at its beginning",
        script: |_| {
            holds(|answer| {
                let mut points = any_points(1);
                points[0].offset = 0;
                answer.partials.push(Partial {
                    transfer_id: vec![3; 16],
                    points,
                });
            })
        },
        expect: Fails(FAILED, NONSENSE),
    },
    Row {
        name: "a partial with a chain value of five bytes",
        script: |_| {
            holds(|answer| {
                let mut points = any_points(1);
                points[0].chain.truncate(5);
                answer.partials.push(Partial {
                    transfer_id: vec![3; 16],
                    points,
                });
            })
        },
        expect: Fails(FAILED, NONSENSE),
    },
    Row {
        name: "it could not look, in 1 MiB of words",
        script: |_| {
            holds(|answer| {
                answer.failure = Some(Failure {
                    code: 4711,
                    message: "\u{1b}c".repeat(1 << 19),
                    remedy: "\u{1b}c".repeat(1 << 19),
                });
            })
        },
        expect: Fails(FAILED, "the receiver says"),
    },
    Row {
        name: "a status of 12 KiB that a terminal obeys",
        script: |_| {
            let words = Status::new(Code::Internal, "\u{1b}[2J".repeat(1000));
            let end = Step::End(status(&words));
            says_only(Call::Inventory, vec![end])
        },
        expect: Fails(FAILED, "failed"),
    },
    Row {
        name: "trailers of 1 MiB",
        script: |_| {
            let end = Step::End(header("x-lie", &[b'x'; 1 << 20]));
            says_only(Call::Inventory, vec![end])
        },
        expect: Fails(&[1, 3], ""),
    },
    Row {
        name: "headers of 1 MiB",
        script: |_| {
            let begin = Step::Headers(header("x-lie", &[b'x'; 1 << 20]));
            says_only(Call::Inventory, vec![begin])
        },
        expect: Fails(&[1, 3], ""),
    },
    Row {
        name: "parts of nothing without end",
        script: |_| {
            let one = framed(&InventoryResponse::default());
            says_only(Call::Inventory, vec![Step::Flood(one, u64::MAX)])
        },
        expect: Fails(FAILED, NONSENSE),
    },
    Row {
        name: "parts without end",
        script: |_| {
            let one = framed(&InventoryResponse {
                copies: vec![copy(&[3; 16]); 1000],
                ..InventoryResponse::default()
            });
            says_only(Call::Inventory, vec![Step::Flood(one, u64::MAX)])
        },
        expect: Fails(FAILED, NONSENSE),
    },
    Row {
        name: "a failure behind copies",
        script: |_| {
            let copies = framed(&InventoryResponse {
                copies: vec![copy(&[3; 16])],
                ..InventoryResponse::default()
            });
            let failure = framed(&InventoryResponse {
                failure: Some(Failure::default()),
                ..InventoryResponse::default()
            });
            says_only(Call::Inventory, vec![Step::Say(copies), Step::Say(failure)])
        },
        expect: Fails(FAILED, "the receiver says"),
    },
    Row {
        name: "a message without end",
        script: |_| {
            let bytes = Bytes::from(vec![0; 64 << 10]);
            let flood = vec![
                Step::Say(framed_as(3 << 20, &[])),
                Step::Flood(bytes, u64::MAX),
            ];
            says_only(Call::Inventory, flood)
        },
        expect: Fails(FAILED, ""),
    },
];

/// In how it greets.
pub const HELLO: &[Row] = &[
    Row {
        name: "version 0",
        script: |_| greets(|answer| answer.version = 0),
        expect: Fails(FAILED, NONSENSE),
    },
    Row {
        name: "version 2",
        script: |_| greets(|answer| answer.version = 2),
        expect: Fails(FAILED, NONSENSE),
    },
    Row {
        name: "the id of another receiver",
        script: |_| greets(|answer| answer.receiver_id = vec![7; 16]),
        expect: Fails(REFUSED, "set up anew"),
    },
    Row {
        name: "an id of five bytes",
        script: |_| greets(|answer| answer.receiver_id = vec![7; 5]),
        expect: Fails(FAILED, NONSENSE),
    },
    Row {
        name: "no features",
        script: |_| greets(|answer| answer.features.clear()),
        expect: Believed,
    },
    Row {
        name: "300,000 features",
        script: |_| greets(|answer| answer.features.extend(repeat_n("lie".to_owned(), 300_000))),
        expect: Believed,
    },
    Row {
        name: "software with a name of 3 MiB",
        script: |_| greets(|answer| answer.software = "\u{1b}[2J".repeat(3 << 18)),
        expect: Believed,
    },
    Row {
        name: "more than a message may hold",
        script: |_| greets(|answer| answer.software = "x".repeat(5 << 20)),
        expect: Fails(FAILED, "message length too large"),
    },
    Row {
        name: "it refuses, with a remedy that a terminal obeys",
        script: |_| {
            let refused = Status::new(Code::PermissionDenied, "\u{1b}[2Jno");
            let mut end = status(&refused);
            end.extend(header("sendshot-remedy-bin", b"G10wO2V2aWwHGw"));
            says_only(Call::Hello, vec![Step::End(end)])
        },
        expect: Fails(REFUSED, "no"),
    },
];

/// In what it says of a push.
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
        expect: Fails(FAILED, "wants to go on at"),
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
        expect: Fails(FAILED, "wants to go on at"),
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
        expect: Fails(FAILED, NONSENSE),
    },
    Row {
        name: "a message of an unknown kind",
        script: |_| accepts(vec![Step::Say(framed_as(2, &[15 << 3 | 2, 0]))]),
        expect: Fails(FAILED, NONSENSE),
    },
    Row {
        name: "a message of 4 MiB and more",
        script: |_| accepts(vec![Step::Say(committed_as(&"x".repeat(5 << 20), "x"))]),
        expect: Fails(FAILED, "message length too large"),
    },
    Row {
        name: "the call is over before it is accepted",
        script: |_| says_only(Call::Transfer, vec![Step::Say(Bytes::new())]),
        expect: Fails(FAILED, "without saying how"),
    },
    Row {
        name: "the call is over when it is accepted",
        script: |_| accepts(Vec::new()),
        expect: Fails(FAILED, "without saying how"),
    },
    Row {
        name: "the call is over when all is sent",
        script: |_| accepts(vec![Step::Hear(Until::End)]),
        expect: Fails(FAILED, "without saying how"),
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
