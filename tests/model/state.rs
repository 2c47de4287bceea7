//! The state of both sides and of the messages between them, in small numbers. A push, its
//! snapshot and the snapshot's UUID have the same number; an offset is a number of segments.

use crate::bounds::{Bounds, SLOTS};

/// A push, its snapshot, and the state of the volume in it.
pub type Push = u8;
/// One installation of a receiver.
pub type Instance = u8;
/// Number of instances: each receiver can be replaced once.
pub const INSTANCES: usize = 2 * SLOTS;

/// The state of the whole model.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub sender: Sender,
    pub receivers: [Receiver; SLOTS],
    pub left: Bounds,
    pub ghost: Ghost,
}

/// Facts that neither side knows, for the properties to check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Ghost {
    /// Pushes that each instance has ever committed, one bit each.
    pub committed: [u8; INSTANCES],
    /// The newest push acknowledged for each instance.
    pub newest: [Option<Push>; INSTANCES],
    /// Pushes whose snapshot the sender deleted although they were not committed, one bit each.
    pub discarded: u8,
    /// Pushes whose copy a user deleted, one bit each.
    pub deleted: u8,
    /// The violation that has occurred, if any.
    pub violation: Option<Violation>,
}

/// An event that must not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Violation {
    ParentNotReported,
    ParentNotHeld,
    CommittedAfterLetGo,
    HonestReceiverAccused,
}

/// The sending side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Sender {
    pub daemon: Daemon,
    /// The journal, durable.
    pub records: Vec<Record>,
    /// Running pushes, lost in a crash.
    pub jobs: [Option<Job>; SLOTS],
    /// A record that a thread still writes although its push has failed meanwhile.
    pub stray: Option<Record>,
    pub next_push: Push,
}

/// Whether the sender is running.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Daemon {
    #[default]
    Up,
    /// Reconciling what it finds.
    Starting,
    Dead,
}

/// Progress of a push according to its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Came {
    Sending,
    Unconfirmed,
    Acknowledged,
}

/// A record of the journal with everything that it names on disk.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Record {
    pub push: Push,
    pub instance: Instance,
    pub came: Came,
    pub transfer: Option<Transfer>,
    /// Whether the record names the snapshot's UUID.
    pub is_named: bool,
    pub snapshot: bool,
    pub sendshot: bool,
    pub marks: Trail,
}

/// What is needed to make a stream again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Transfer {
    pub id: u8,
    pub parent: Option<Push>,
}

/// What determines the bytes of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stream {
    pub push: Push,
    pub parent: Option<Push>,
}

/// Positions of a stream, one bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Trail {
    pub stream: Option<Stream>,
    pub places: u8,
}

/// A position in a stream; stands for its chain value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Point {
    pub stream: Stream,
    pub at: u8,
}

/// A running push.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Job {
    /// None before it has a record.
    pub push: Option<Push>,
    pub wish: Wish,
    pub origin: Origin,
    pub begun: bool,
    /// The chosen parent, once the plan is made.
    pub prepared: Option<Option<Push>>,
    /// The part of the stream that this process remembers.
    pub recent: Trail,
    /// Copies that the receiver has reported in this push, one bit each.
    pub reported: u8,
    /// Where it resumed.
    pub resumed_at: u8,
    pub restarts: u8,
    pub connected: bool,
    /// The connected instance.
    pub link: Instance,
    pub phase: Phase,
}

/// The user's choice of a parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wish {
    Best,
    FullSend,
}

/// Origin of the state that is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    Fresh,
    Interrupted,
}

/// The next step of the push.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Phase {
    Leftovers,
    Find,
    LetGoInterrupted,
    WriteRecord,
    TakeSnapshot,
    NameSnapshot,
    Ask,
    Reconcile(Inventory),
    Start(Inventory),
    Capture(Inventory),
    NoteTransfer,
    Begin(Option<Point>),
    Opening(u8),
    Sending(u8),
    /// A segment was sent whose mark is not written: only with a fault.
    Mark(u8),
    Announce,
    End,
    Waiting,
    Acknowledge,
    Release(Vec<Push>),
    LetGo(Then),
    Failed(Next, Kind),
}

/// What follows after a push was discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Then {
    StartOver,
    Over,
}

/// The daemon's decision after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Next {
    Later,
    Again,
    Never,
}

/// How a failure is reported, as far as it decides what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Unreachable,
    Failed,
    Refused,
}

/// A receiver's report.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Inventory {
    pub copies: Vec<Push>,
    pub at_work: bool,
    pub points: Vec<(u8, Point)>,
}

/// A receiving side with the connection to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Receiver {
    pub instance: Instance,
    pub up: bool,
    /// Durable.
    pub copies: Vec<Copy>,
    /// Durable.
    pub partials: Vec<Partial>,
    /// The volume's slot in the table of transfers, lost in a crash.
    pub entry: Option<Entry>,
    /// Staging that a crash has left: only with a fault.
    pub relic: Option<Intake>,
    /// The call of the running push.
    pub call: Option<Call>,
    /// An announcement of a dead connection that still arrives.
    pub late: Option<Begin>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Copy {
    pub push: Push,
    /// Whether it equals the snapshot.
    pub is_right: bool,
}

/// A partial as on disk.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Partial {
    pub transfer: u8,
    pub stream: Stream,
    pub checkpoints: Vec<(u8, Tree)>,
}

/// Content of staging: the parent, and the segments applied over it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tree {
    pub base: Option<Push>,
    pub applied: Vec<Point>,
}

/// The applied part of a push.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Intake {
    pub transfer: u8,
    pub stream: Stream,
    pub offset: u8,
    pub tree: Tree,
    /// Offset of its last checkpoint.
    pub last: Option<u8>,
}

/// A slot in the table of transfers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Entry {
    Running(Thread),
    Waiting(Intake),
}

/// The thread that applies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Thread {
    pub intake: Intake,
    /// Messages that have arrived or are in flight.
    pub input: Vec<Up>,
    /// Whether its sender is still connected.
    pub live: bool,
    pub doing: Doing,
}

/// The next step of the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Doing {
    Take,
    NotePartial,
    Checkpoint,
    DropOlder,
    Commit,
    Forget,
}

/// The announcement of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Begin {
    pub transfer: u8,
    pub stream: Stream,
    pub resume_at: Option<Point>,
}

/// A message from sender to receiver, after the announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Up {
    Segment { ends: Point, marked: bool },
    End(Point),
}

/// A message from receiver to sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Down {
    Accepted(u8),
    Failure(Code),
    Committed,
}

/// Why a receiver refuses a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    Busy,
    ParentGone,
    AlreadyHeld,
    ResumeImpossible,
    HashMismatch,
    InvalidStream,
}

/// A current call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Call {
    pub begin: Option<Begin>,
    pub down: Vec<Down>,
}

impl World {
    /// Two hosts that have never connected.
    pub fn new(bounds: Bounds) -> Self {
        let receiver = |instance| Receiver {
            instance,
            up: true,
            copies: Vec::new(),
            partials: Vec::new(),
            entry: None,
            relic: None,
            call: None,
            late: None,
        };
        Self {
            sender: Sender::default(),
            receivers: [receiver(0), receiver(1)],
            left: bounds,
            ghost: Ghost::default(),
        }
    }
}

impl Sender {
    pub fn record(&self, push: Push) -> Option<&Record> {
        self.records.iter().find(|record| record.push == push)
    }

    pub fn record_mut(&mut self, push: Push) -> Option<&mut Record> {
        self.records.iter_mut().find(|record| record.push == push)
    }

    /// Whether a push is in the table of running ones.
    pub fn runs(&self, push: Push) -> bool {
        self.jobs.iter().flatten().any(|job| job.push == Some(push))
    }
}

impl Trail {
    pub fn at(stream: Stream, place: u8) -> Self {
        let places = if place == 0 { 0 } else { 1 << place };
        Self {
            stream: Some(stream),
            places,
        }
    }

    pub fn points(self) -> impl Iterator<Item = Point> {
        let places = (1..8).filter(move |at| self.places & (1 << at) != 0);
        places.filter_map(move |at| {
            let stream = self.stream?;
            Some(Point { stream, at })
        })
    }
}

impl Tree {
    /// Whether it is the result of a whole stream.
    pub fn is(&self, stream: Stream, segments: u8) -> bool {
        let right = (1..=segments).map(|at| Point { stream, at });
        self.base == stream.parent && self.applied.iter().copied().eq(right)
    }
}

pub fn bit(push: Push) -> u8 {
    1 << push
}
