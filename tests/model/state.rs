//! The state of both sides and of what is under way between them, in small numbers. A push, its
//! snapshot and the snapshot's UUID have the same number; an offset is a number of segments.

use crate::bounds::{Bounds, SLOTS};

/// A push, its snapshot, its state of the volume.
pub type Push = u8;
/// One installation of a receiver.
pub type Instance = u8;
/// Most instances: each receiver can be replaced once.
pub const INSTANCES: usize = 2 * SLOTS;

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub sender: Sender,
    pub receivers: [Receiver; SLOTS],
    pub left: Bounds,
    pub ghost: Ghost,
}

/// What nobody in the model knows, for properties to look at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Ghost {
    /// Pushes that each instance has ever committed, a bit each.
    pub committed: [u8; INSTANCES],
    /// The newest push acknowledged for each instance.
    pub newest: [Option<Push>; INSTANCES],
    /// Pushes whose snapshot the sender let go though they were not committed, a bit each.
    pub let_go: u8,
    /// Pushes whose copy a user deleted, a bit each.
    pub deleted: u8,
    /// What must not happen, and did.
    pub violation: Option<Violation>,
}

/// What must not happen.
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
    /// What runs, lost in a crash.
    pub jobs: [Option<Job>; SLOTS],
    /// A record that a thread still writes whose push has failed meanwhile.
    pub stray: Option<Record>,
    pub next_push: Push,
}

/// Whether the sender runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Daemon {
    #[default]
    Up,
    /// Settling what it finds.
    Starting,
    Dead,
}

/// How far a push came, as its record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Came {
    Sending,
    Unconfirmed,
    Acknowledged,
}

/// A record of the journal with all that it names on disk.
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

/// What it takes to make a stream again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Transfer {
    pub id: u8,
    pub parent: Option<Push>,
}

/// What a stream is made of: its bytes are a function of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stream {
    pub push: Push,
    pub parent: Option<Push>,
}

/// Places of a stream, a bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Trail {
    pub stream: Option<Stream>,
    pub places: u8,
}

/// A place in a stream; what its chain value stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Point {
    pub stream: Stream,
    pub at: u8,
}

/// A push that runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Job {
    /// None before it has a record.
    pub push: Option<Push>,
    pub wish: Wish,
    pub origin: Origin,
    pub begun: bool,
    /// The parent that was decided on, when something was.
    pub prepared: Option<Option<Push>>,
    /// What this process remembers of the stream.
    pub recent: Trail,
    /// What the receiver has reported in this push, a bit each.
    pub reported: u8,
    /// Where it went on.
    pub resumed_at: u8,
    pub restarts: u8,
    pub connected: bool,
    /// The instance at the other end.
    pub link: Instance,
    pub phase: Phase,
}

/// What the user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wish {
    Best,
    FullSend,
}

/// Where a state that is pushed comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    Fresh,
    Interrupted,
}

/// What the push does next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Phase {
    Leftovers,
    Find,
    LetGoInterrupted,
    WriteRecord,
    TakeSnapshot,
    NameSnapshot,
    Ask,
    Settle(Inventory),
    Start(Inventory),
    Capture(Inventory),
    NoteTransfer,
    Begin(Option<Point>),
    Opening(u8),
    Sending(u8),
    /// A segment is under way whose mark is not written: only with a fault.
    Mark(u8),
    Announce,
    End,
    Waiting,
    Acknowledge,
    Release(Vec<Push>),
    LetGo(Then),
    Failed(Next, Kind),
}

/// What comes after a push was let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Then {
    StartOver,
    Over,
}

/// What the daemon makes of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Next {
    Later,
    Again,
    Never,
}

/// How a failure is told, as far as it matters for what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Unreachable,
    Failed,
    Refused,
}

/// What a receiver reports.
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
    /// The volume's place in the table, lost in a crash.
    pub entry: Option<Entry>,
    /// Only with a fault: staging that a crash has left.
    pub relic: Option<Intake>,
    /// The call of the push that runs.
    pub call: Option<Call>,
    /// An announcement on a dead connection that still arrives.
    pub late: Option<Begin>,
}

/// A copy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Copy {
    pub push: Push,
    /// Whether it is what was snapshotted.
    pub is_right: bool,
}

/// A partial as it is on disk.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Partial {
    pub transfer: u8,
    pub stream: Stream,
    pub checkpoints: Vec<(u8, Tree)>,
}

/// What is in staging: the parent, and the segments applied over it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tree {
    pub base: Option<Push>,
    pub applied: Vec<Point>,
}

/// A push as far as it was applied.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Intake {
    pub transfer: u8,
    pub stream: Stream,
    pub offset: u8,
    pub tree: Tree,
    /// Its last checkpoint.
    pub last: Option<u8>,
}

/// A place in the table of pushes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Entry {
    Running(Thread),
    Waiting(Intake),
}

/// The thread that applies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Thread {
    pub intake: Intake,
    /// What has arrived or is under way.
    pub input: Vec<Up>,
    /// Whether its sender is still there.
    pub live: bool,
    pub doing: Doing,
}

/// What the thread does next.
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

/// From sender to receiver, behind the announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Up {
    Segment { ends: Point, marked: bool },
    End(Point),
}

/// From receiver to sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Down {
    Accepted(u8),
    Failure(Code),
    Committed,
}

/// Why a receiver refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    Busy,
    ParentGone,
    AlreadyHeld,
    ResumeImpossible,
    HashMismatch,
    InvalidStream,
}

/// A call under way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Call {
    pub begin: Option<Begin>,
    pub down: Vec<Down>,
}

impl World {
    /// Two hosts that have never met.
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
    /// Whether it is what a whole stream makes.
    pub fn is(&self, stream: Stream, segments: u8) -> bool {
        let right = (1..=segments).map(|at| Point { stream, at });
        self.base == stream.parent && self.applied.iter().copied().eq(right)
    }
}

/// A bit.
pub fn bit(push: Push) -> u8 {
    1 << push
}
