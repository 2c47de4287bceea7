//! Lies about the copies that the receiver holds.

use std::iter::repeat_n;

use bytes::Bytes;
use sendshot_proto::v1::{Failure, HeldCopy, InventoryResponse, Partial};
use tonic::{Code, Status};
use uuid::Uuid;

use crate::lying_peer::answers::{any_points, copy, holds, says_only, takes_all, uuid};
use crate::lying_peer::lies::outcomes::{FAILED, INVALID};
use crate::lying_peer::scripted::{Call, Script, Step, framed, framed_as, header, status};
use crate::lying_peer::victim::Expect::{Believed, Fails};
use crate::lying_peer::victim::Row;
use sendshot_harness::compare::subvolumes;

/// As many copies as fit into a message.
const MANY: usize = 100_000;

/// Lies in the response to `Inventory`.
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
        // The push builds on the lie only if the ctransid is guessed.
        expect: Fails(FAILED, "was not sent to it"),
    },
    Row {
        name: "it holds a state of another volume",
        script: |victim| holds_only(uuid(&victim.music)),
        expect: Believed,
    },
    Row {
        name: "it holds a state that only another receiver has",
        script: |victim| holds_only(uuid(&victim.elsewhere)),
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
        name: "one that is compressed without a request",
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
        expect: Fails(FAILED, INVALID),
    },
    Row {
        name: "a UUID of five bytes",
        script: |_| holds(|answer| answer.copies.push(copy(&[3; 5]))),
        expect: Fails(FAILED, INVALID),
    },
    Row {
        name: "an empty UUID",
        script: |_| holds(|answer| answer.copies.push(copy(&[]))),
        expect: Fails(FAILED, INVALID),
    },
    Row {
        name: "a push is always at work",
        script: |_| holds(|answer| answer.commit_pending = true),
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
        expect: Fails(FAILED, INVALID),
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
        expect: Fails(FAILED, INVALID),
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
        expect: Fails(FAILED, "the receiver reports"),
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
        expect: Fails(FAILED, INVALID),
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
        expect: Fails(FAILED, INVALID),
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
        expect: Fails(FAILED, "the receiver reports"),
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

/// Reports only this state, with 200 possible ctransids.
fn holds_only(uuid: Vec<u8>) -> Script {
    holds(move |answer| {
        let all = (0..200).map(|ctransid| HeldCopy {
            ctransid,
            ..copy(&uuid)
        });
        answer.copies.splice(.., all);
    })
}
