//! Lies in the greeting.

use std::iter::repeat_n;

use tonic::{Code, Status};

use crate::lying_peer::answers::{greets, says_only};
use crate::lying_peer::lies::outcomes::{FAILED, INVALID, REFUSED};
use crate::lying_peer::scripted::{Call, Step, header, status};
use crate::lying_peer::victim::Expect::{Believed, Fails};
use crate::lying_peer::victim::Row;

/// Lies in the response to `Hello`.
pub const HELLO: &[Row] = &[
    Row {
        name: "version 0",
        script: |_| greets(|answer| answer.version = 0),
        expect: Fails(FAILED, INVALID),
    },
    Row {
        name: "version 2",
        script: |_| greets(|answer| answer.version = 2),
        expect: Fails(FAILED, INVALID),
    },
    Row {
        name: "the id of another receiver",
        script: |_| greets(|answer| answer.receiver_id = vec![7; 16]),
        expect: Fails(REFUSED, "set up again"),
    },
    Row {
        name: "an id of five bytes",
        script: |_| greets(|answer| answer.receiver_id = vec![7; 5]),
        expect: Fails(FAILED, INVALID),
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
