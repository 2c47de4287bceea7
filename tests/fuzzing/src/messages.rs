//! Fuzzes the messages of the contract and their conversion to domain types.
//!
//! An input: a byte for the kind of message, then its bytes as on the wire.

use std::fmt::Debug;

use prost::Message;
use sendshot_model::TransferId;
use sendshot_proto::failure::Failure;
use sendshot_proto::hello::{Hello, Welcome};
use sendshot_proto::inventory::{self, HeldCopy, Question};
use sendshot_proto::report::Report;
use sendshot_proto::resume::{Partial, Point};
use sendshot_proto::transfer::{Begin, Down, Segment, Up};
use sendshot_proto::v1;

/// Longest text of a peer that may get into a log or a terminal, in bytes.
const LONGEST: usize = 2100;

/// Converts an input. An accepted message must convert back to an equal one; its texts must be short and free
/// of control characters.
///
/// # Panics
/// If that does not hold.
pub fn run(input: &[u8]) {
    let Some((which, bytes)) = input.split_first() else {
        return;
    };
    match which % 12 {
        0 => check::<v1::HelloRequest, Hello>(bytes, |hello| vec![&hello.software]),
        1 => check::<v1::HelloResponse, Welcome>(bytes, |welcome| vec![&welcome.software]),
        2 => check::<v1::InventoryRequest, Question>(bytes, |_| Vec::new()),
        3 => inventory(bytes),
        4 => check::<v1::HeldCopy, HeldCopy>(bytes, |copy| {
            let why = copy.unusable.as_ref().map(|unusable| &*unusable.why);
            [copy.name.as_ref()].into_iter().chain(why).collect()
        }),
        5 => check::<v1::TransferUp, Up>(bytes, |_| Vec::new()),
        6 => check::<v1::TransferDown, Down>(bytes, |down| match down {
            Down::Committed {
                name, directory, ..
            } => vec![name, directory],
            Down::Failure(failure) => vec![&failure.message, &failure.remedy],
            _ => Vec::new(),
        }),
        7 => check::<v1::Begin, Begin>(bytes, |_| Vec::new()),
        8 => check::<v1::Segment, Segment>(bytes, |_| Vec::new()),
        9 => {
            check::<v1::ResumePoint, Point>(bytes, |_| Vec::new());
            check::<v1::Partial, Partial>(bytes, |_| Vec::new());
        }
        10 => {
            check::<v1::Failure, Failure>(bytes, |failure| vec![&failure.message, &failure.remedy])
        }
        _ => {
            if let Ok(message) = v1::PushReport::decode(bytes) {
                let _ = Report::try_from(message);
            }
        }
    }
}

/// One message of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let id = vec![7; 16];
    let chain = vec![9; 32];
    let point = v1::ResumePoint {
        offset: 70_000,
        chain: chain.clone(),
    };
    let partial = v1::Partial {
        transfer_id: TransferId::from_bytes([7; 16]).to_bytes().to_vec(),
        points: vec![point.clone()],
    };
    let copy = v1::HeldCopy {
        uuid: id.clone(),
        ctransid: 7,
        name: "20261122T030000Z".into(),
        unusable: "it was changed".into(),
        committed_at: 1,
        unusable_code: "copy-changed".into(),
    };
    let failure = v1::Failure {
        code: 3,
        message: "the parent is gone".into(),
        remedy: "push again".into(),
    };
    let begin = v1::Begin {
        transfer_id: id.clone(),
        volume_id: id.clone(),
        volume_name: "photos".into(),
        uuid: id.clone(),
        ctransid: 7,
        parent: Some(v1::Parent {
            uuid: id.clone(),
            ctransid: 5,
        }),
        taken_at: 1,
        stream_version: 2,
        resumable: true,
        resume_at: Some(point.clone()),
        root_id: id.clone(),
        of_snapshot: Some(true),
        may_wait: true,
    };
    let segment = v1::Segment {
        offset: 7,
        data: vec![1; 30].into(),
        chain: chain.clone(),
        marked: true,
    };
    let up = |message| {
        v1::TransferUp {
            message: Some(message),
        }
        .encode_to_vec()
    };
    let down = |message| {
        v1::TransferDown {
            message: Some(message),
        }
        .encode_to_vec()
    };
    use v1::transfer_down::Message as Down;
    use v1::transfer_up::Message as Up;
    let hello = v1::HelloRequest {
        version_min: 1,
        version_max: 1,
        features: vec!["resume".into()],
        software: "sendshot 1".into(),
        receiver_id: id.clone(),
    };
    let welcome = v1::HelloResponse {
        version: 1,
        features: vec!["stream-v2".into(), "renew".into()],
        software: "sendshot 1".into(),
        receiver_id: id.clone(),
        former_sender_ids: vec![vec![3; 16]],
    };
    let question = v1::InventoryRequest {
        volume_id: id.clone(),
        volume_name: "photos".into(),
        transfer_id: id.clone(),
    };
    let answer = v1::InventoryResponse {
        directory: "nas1/photos".into(),
        copies: vec![copy.clone()],
        partials: vec![partial.clone()],
        ..Default::default()
    };
    let refused = v1::InventoryResponse {
        failure: Some(failure.clone()),
        ..Default::default()
    };
    let messages = [
        (0, hello.encode_to_vec()),
        (1, welcome.encode_to_vec()),
        (2, question.encode_to_vec()),
        (3, answer.encode_to_vec()),
        (3, refused.encode_to_vec()),
        (4, copy.encode_to_vec()),
        (5, up(Up::Begin(begin.clone()))),
        (5, up(Up::Segment(segment.clone()))),
        (5, up(Up::End(v1::End { length: 7, chain }))),
        (6, down(Down::Accepted(v1::Accepted::default()))),
        (6, down(Down::Applied(v1::Applied { offset: 7 }))),
        (6, down(Down::Checkpoint(v1::Checkpoint { offset: 7 }))),
        (6, down(Down::Failure(failure.clone()))),
        (7, begin.encode_to_vec()),
        (8, segment.encode_to_vec()),
        (9, point.encode_to_vec()),
        (9, partial.encode_to_vec()),
        (10, failure.encode_to_vec()),
        (11, v1::PushReport::default().encode_to_vec()),
    ];
    let seeds = messages.into_iter();
    seeds
        .map(|(which, bytes)| [&[which][..], &bytes].concat())
        .collect()
}

fn check<W, D>(bytes: &[u8], texts: impl Fn(&D) -> Vec<&str>)
where
    W: Message + Default + From<D>,
    D: TryFrom<W> + Clone + PartialEq + Debug,
    D::Error: ToString,
{
    let Ok(message) = W::decode(bytes) else {
        return;
    };
    let taken = match D::try_from(message) {
        Ok(taken) => taken,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    for text in texts(&taken) {
        assert!(is_printable(text), "{text:?}");
    }
    let said = W::from(taken.clone()).encode_to_vec();
    let again = W::decode(said.as_slice()).map(D::try_from);
    assert!(
        matches!(again, Ok(Ok(again)) if again == taken),
        "{taken:?}"
    );
}

fn inventory(bytes: &[u8]) {
    let Ok(message) = v1::InventoryResponse::decode(bytes) else {
        return;
    };
    let Ok(taken) = inventory::whole([message.clone(), message.clone()])
        .or_else(|_| inventory::whole([message]))
    else {
        return;
    };
    let text = match &taken {
        Ok(inventory) => &inventory.directory,
        Err(failure) => &failure.message,
    };
    assert!(is_printable(text), "{text:?}");
    let again = inventory::whole(inventory::parts(taken.clone()));
    assert!(matches!(again, Ok(again) if again == taken));
}

fn is_printable(text: &str) -> bool {
    text.len() <= LONGEST && !text.contains(|c: char| c.is_control())
}
