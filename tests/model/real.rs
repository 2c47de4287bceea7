//! Calls the daemons' own decisions, with their own types made from the model's numbers.

use std::num::NonZeroU32;
use std::sync::LazyLock;

use sendshot_engine::{Head, SkeletonHash, StreamPosition};
use sendshot_model::Engine;
use sendshot_model::{PeerName, PushId, ReceiverId, SenderId, TransferId, VolumeId, VolumeName};
use sendshot_proto::chain::Chain;
use sendshot_proto::failure::{self, Failure};
use sendshot_proto::inventory::{self, HeldCopy};
use sendshot_proto::problem::{self, Problem};
use sendshot_proto::resume as places;
use sendshot_sender::connection;
use sendshot_sender::decide::parent::{Local, ParentChoice};
use sendshot_sender::decide::parent_sendshot::{self, Candidate, OwnSendshot};
use sendshot_sender::decide::reconcile::{self, Verdict};
use sendshot_sender::decide::resume;
use sendshot_sender::decide::retention;
use sendshot_sender::push::retry;
use sendshot_sender::push::stages::transfer;
use sendshot_sender::state::record::{
    self, Intent, Item, ParentState, Phase, Presence, ResumePoint, SnapshotId, Standing,
    Transferring,
};
use uuid::Uuid;

use crate::state::{self, Came, Code, Inventory, Kind, Next, Point, Push, Record, Stream};

/// Id of the sender.
const SENDER: SenderId = SenderId::from_bytes([1; 16]);
/// Id of the volume.
const VOLUME: VolumeId = VolumeId::from_bytes([2; 16]);
/// UUID of the subvolume that is snapshotted.
const SUBVOLUME: Uuid = Uuid::from_u128(3);
/// UUID of its file system.
const FILESYSTEM: Uuid = Uuid::from_u128(4);

static NAMES: LazyLock<(VolumeName, PeerName)> =
    LazyLock::new(|| ("photos".parse().unwrap(), "nas2".parse().unwrap()));

fn push_id(push: Push) -> PushId {
    PushId::from_bytes([push; 16])
}

fn number(push: PushId) -> Push {
    push.to_bytes()[0]
}

fn transfer_id(transfer: u8) -> TransferId {
    TransferId::from_bytes([transfer; 16])
}

fn uuid(push: Push) -> Uuid {
    Uuid::from_u128(100 + u128::from(push))
}

/// Transaction id of a snapshot, growing with each push; an unchanged snapshot has an equal ctransid.
fn transid(push: Push) -> u64 {
    100 + u64::from(push)
}

fn record(record: &Record) -> record::Record {
    let fresh = record::Record::new(Intent {
        sender: SENDER,
        volume: VOLUME,
        volume_name: NAMES.0.clone(),
        receiver: ReceiverId::from_bytes([record.instance; 16]),
        receiver_name: NAMES.1.clone(),
        push: push_id(record.push),
        taken_at: i64::from(record.push),
        engine: Engine::Sendshot,
    });
    record::Record {
        phase: match record.came {
            Came::Sending => Phase::Sending,
            Came::Unconfirmed => Phase::Unconfirmed,
            Came::Acknowledged => Phase::Acknowledged,
        },
        snapshot: record.is_named.then(|| SnapshotId {
            uuid: uuid(record.push),
            otransid: transid(record.push),
        }),
        transfer: record.transfer.map(|transfer| Transferring {
            id: transfer_id(transfer.id),
            stream_version: 2,
            parent: transfer.parent.map(|parent| ParentState {
                push: push_id(parent),
                uuid: uuid(parent),
                ctransid: transid(parent),
            }),
            reason: String::new(),
            reason_code: Default::default(),
        }),
        ..fresh
    }
}

fn held(push: Push) -> HeldCopy {
    HeldCopy {
        uuid: uuid(push),
        ctransid: transid(push),
        name: "".into(),
        unusable: None,
        committed_at: 0,
    }
}

fn chain(stream: Stream, at: u8) -> Chain {
    let mut chain = [0; 32];
    chain[..3].copy_from_slice(&[stream.push, stream.parent.map_or(0, |p| p + 1), at]);
    Chain(chain)
}

fn waypoint(point: Point) -> ResumePoint {
    ResumePoint {
        position: StreamPosition {
            offset: u64::from(point.at),
            skeleton: SkeletonHash::default(),
        },
        chain: chain(point.stream, point.at),
    }
}

fn reported(inventory: &Inventory) -> inventory::Inventory {
    let partial = |&(transfer, point): &(u8, Point)| places::Partial {
        transfer: transfer_id(transfer),
        points: vec![waypoint(point).point()],
    };
    inventory::Inventory {
        directory: String::new(),
        copies: inventory.copies.iter().copied().map(held).collect(),
        commit_pending: inventory.at_work,
        partials: inventory.points.iter().map(partial).collect(),
        label: None,
        root: None,
        free_bytes: None,
    }
}

fn head(push: Push) -> Head {
    Head {
        wire_uuid: uuid(push),
        wire_ctransid: transid(push),
        ctransid: transid(push),
        fsid: FILESYSTEM,
        uuid: uuid(push),
        parent_uuid: SUBVOLUME,
        otransid: transid(push),
        generation: transid(push),
        taken_at: i64::from(push),
    }
}

/// Decides on a record when the sender starts: [`reconcile::at_start`].
pub fn at_start(of: &Record) -> Verdict {
    reconcile::at_start(&record(of), SENDER)
}

/// Decides on a record after the receiver's report: [`reconcile::after_inventory`].
pub fn after_inventory(of: &Record, inventory: &Inventory) -> Verdict {
    reconcile::after_inventory(&record(of), &reported(inventory))
}

/// [`Record::is_resumable`].
pub fn is_resumable(of: &Record) -> bool {
    record(of).is_resumable()
}

/// Decides where to resume, by [`resume::offered`] and [`resume::choose`]; `None` for the beginning.
pub fn resumes_at(
    known: impl Iterator<Item = Point> + Clone,
    inventory: &Inventory,
    transfer: u8,
) -> Option<Point> {
    let waypoints: Vec<ResumePoint> = known.clone().map(waypoint).collect();
    let offered = resume::offered(&reported(inventory).partials, transfer_id(transfer));
    match resume::choose(&waypoints, &offered) {
        resume::Start::At(chosen) => known.into_iter().find(|point| waypoint(*point) == chosen),
        resume::Start::Beginning(_) => None,
    }
}

/// Decides the parent, by [`parent_sendshot::decide`], from the copies and the local sendshots.
pub fn parent(of: Push, wish: state::Wish, copies: &[Push], sendshots: &[Push]) -> Option<Push> {
    let candidate = |&push: &Push| Candidate {
        copy: held(push),
        sendshot: match sendshots.contains(&push) {
            true => OwnSendshot::Usable {
                push: push_id(push),
                head: head(push),
                standing: Standing::Good,
            },
            false => OwnSendshot::None,
        },
        stream_bytes: None,
    };
    let candidates: Vec<Candidate> = copies.iter().map(candidate).collect();
    let wish = match wish {
        state::Wish::Best => ParentChoice::Auto,
        state::Wish::FullSend => ParentChoice::None,
    };
    let tried = parent_sendshot::to_try(wish, &head(of), &candidates);
    assert!(tried.is_empty(), "all snapshots are of one lineage");
    let plan = parent_sendshot::decide(wish, &head(of), candidates).unwrap();
    plan.parent.map(|parent| match parent.local {
        Local::Sendshot(push) => number(push),
        Local::Snapshot(_) => unreachable!("there are only sendshots"),
    })
}

/// Decides what `newest` supersedes, by [`retention::decide`].
pub fn superseded(newest: Push, records: &[Record], keep: NonZeroU32) -> Vec<Push> {
    let items: Vec<Item> = records
        .iter()
        .map(|of| Item {
            record: record(of),
            presence: if of.sendshot {
                Presence::Here
            } else {
                Presence::Gone
            },
        })
        .collect();
    let verdicts = retention::decide(&items, |_| keep, |r| r.push == push_id(newest));
    let superseded = items.iter().zip(verdicts);
    superseded
        .filter(|(_, verdict)| verdict.deletes())
        .map(|(item, _)| number(item.record.push))
        .collect()
}

/// Decides on a push after a receiver's refusal, by [`retry::after`].
pub fn after_refusal(code: Code) -> (Next, Kind) {
    let code = match code {
        Code::Busy => failure::Code::Busy,
        Code::ParentGone => failure::Code::ParentGone,
        Code::AlreadyHeld => failure::Code::AlreadyHeld,
        Code::ResumeImpossible => failure::Code::ResumeImpossible,
        Code::HashMismatch => failure::Code::HashMismatch,
        Code::InvalidStream => failure::Code::InvalidStream,
    };
    after(transfer::Error::Refused(Failure::new(code, "", "")))
}

/// Decides on a push after its connection has broken, by [`retry::after`].
pub fn after_break() -> (Next, Kind) {
    let broken = connection::error::Error::Broken {
        address: String::new(),
        why: String::new(),
    };
    after(broken.into())
}

fn after(error: transfer::Error) -> (Next, Kind) {
    let next = match retry::after_transfer(&error) {
        retry::RetryDecision::Later => Next::Later,
        retry::RetryDecision::Negotiate
        | retry::RetryDecision::Restart
        | retry::RetryDecision::Otherwise => Next::Again,
        // No report of a receiver and no state of a connection is hopeless.
        retry::RetryDecision::Never | retry::RetryDecision::Hopeless => Next::Never,
    };
    let kind = match Problem::from(error).kind {
        problem::Kind::Unreachable | problem::Kind::Cancelled => Kind::Unreachable,
        problem::Kind::Failed => Kind::Failed,
        problem::Kind::Usage | problem::Kind::Refused => Kind::Refused,
    };
    (next, kind)
}
