//! The log of segment hashes: what the sender knows of a stream that it has sent, so that it can resume at an
//! offset reported by the receiver without reading again what lies before.
//!
//! Recent segments are known as long as this process lives. *Marks* are known after a crash, too: they lie in a
//! file beside the push's record, and a segment leaves with its mark only when that is durable. The receiver takes
//! checkpoints after marked segments only, so there is no checkpoint that the sender could not resume from.
//!
//! The file: eight bytes of magic, then 80 bytes a mark: offset (u64, little endian), chain value (32), skeleton
//! (32), and eight bytes of BLAKE3 over those. Reading stops at the first damaged or incomplete mark.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use sendshot_engine::{SkeletonHash, StreamPosition};
use sendshot_model::PushId;
use sendshot_proto::chain::Chain;
use sendshot_proto::resume::CheckpointPolicy;
use sendshot_proto::transfer::Mark;
use sendshot_sys::{crash, durable};

use crate::state::record::ResumePoint;

const MAGIC: &[u8; 8] = b"SSMARK1\n";
/// Length of a mark in the file.
const MARK_LEN: usize = 80;
/// Bytes of a mark that its check value covers.
const CHECKED_LEN: usize = 72;

/// Recent segments that are known without a mark: more than can be under way. (Windows and queues hold 20 MiB at
/// most; a segment is seldom below 256 KiB.)
const MAX_RECENT_SEGMENTS: usize = 1024;

/// Most marks that are kept: the receiver's last checkpoint lies at one of the newest few.
const MAX_MARKS: usize = 4096;

/// Marks per distance between the receiver's checkpoints: the receiver takes a checkpoint at the first mark
/// after that distance.
const MARKS_PER_CHECKPOINT: u64 = 4;

impl ResumePoint {
    fn to_bytes(self) -> [u8; MARK_LEN] {
        let mut bytes = [0; MARK_LEN];
        bytes[..8].copy_from_slice(&self.position.offset.to_le_bytes());
        bytes[8..40].copy_from_slice(&self.chain.0);
        bytes[40..CHECKED_LEN].copy_from_slice(&self.position.skeleton.0);
        let check = blake3::hash(&bytes[..CHECKED_LEN]);
        bytes[CHECKED_LEN..].copy_from_slice(&check.as_bytes()[..MARK_LEN - CHECKED_LEN]);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; MARK_LEN] = bytes.try_into().ok()?;
        let part = |from: usize| {
            let mut part = [0; 32];
            part.copy_from_slice(&bytes[from..from + 32]);
            part
        };
        let found = Self {
            position: StreamPosition {
                offset: u64::from_le_bytes(bytes[..8].try_into().ok()?),
                skeleton: SkeletonHash(part(40)),
            },
            chain: Chain(part(8)),
        };
        (found.to_bytes() == *bytes).then_some(found)
    }
}

/// The log of one transfer.
#[derive(Debug)]
pub struct SegmentLog {
    pushes: OwnedFd,
    name: OsString,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    recent: VecDeque<ResumePoint>,
    marks: Vec<ResumePoint>,
    file: Option<File>,
    /// Whether the file must be rewritten before anything is appended: its end may be torn, or it is too long.
    stale: bool,
    policy: CheckpointPolicy,
    last_mark: (u64, Instant),
    checkpoint: u64,
}

/// What is known of an interrupted stream beyond its marks, as long as this process lives. It holds no descriptor:
/// the disk can be unplugged meanwhile.
#[derive(Debug, Clone, Default)]
pub struct RecentSegments {
    recent: VecDeque<ResumePoint>,
    checkpoint: u64,
}

/// Name of a push's file of marks, beside its record.
pub fn file_name(push: PushId) -> OsString {
    format!("{push}.marks").into()
}

impl SegmentLog {
    /// Opens the log of a push in the journal's directory, with its marks and the segments in `memory`. Unreadable
    /// marks count as none.
    ///
    /// # Errors
    /// I/O errors.
    pub fn open(pushes: impl AsFd, push: PushId, memory: RecentSegments) -> io::Result<Self> {
        let name = file_name(push);
        let marks = match durable::read_at(&pushes, &name) {
            Ok(bytes) => bytes.map_or_else(Vec::new, |bytes| parse(&bytes)),
            Err(e) => {
                tracing::info!(%push, "its points to resume from cannot be read: {e}");
                Vec::new()
            }
        };
        Ok(Self {
            pushes: pushes.as_fd().try_clone_to_owned()?,
            name,
            state: Mutex::new(State {
                recent: memory.recent,
                marks,
                file: None,
                stale: true,
                policy: CheckpointPolicy::default(),
                last_mark: (0, Instant::now()),
                checkpoint: memory.checkpoint,
            }),
        })
    }

    /// All points at which the sender can resume, in no particular order.
    pub fn known(&self) -> Vec<ResumePoint> {
        let state = self.lock();
        state.recent.iter().chain(&state.marks).copied().collect()
    }

    /// The recent segments and the last checkpoint, which the file does not have.
    pub fn recent_segments(&self) -> RecentSegments {
        let state = self.lock();
        RecentSegments {
            recent: state.recent.clone(),
            checkpoint: state.checkpoint,
        }
    }

    /// Offset of the last mark; 0 if there is none.
    pub fn last_mark(&self) -> u64 {
        self.lock()
            .marks
            .last()
            .map_or(0, |mark| mark.position.offset)
    }

    /// Discards everything after `from`: it will be sent again, in other segments. From now on marks are made as
    /// `policy` needs them. Blocks.
    ///
    /// # Errors
    /// I/O errors.
    pub fn restart(&self, from: Option<ResumePoint>, policy: CheckpointPolicy) -> io::Result<()> {
        let offset = from.map_or(0, |from| from.position.offset);
        let mut state = self.lock();
        state.recent.clear();
        state.recent.extend(from);
        state.marks.retain(|mark| mark.position.offset <= offset);
        state.policy = policy;
        state.last_mark = (offset, Instant::now());
        state.checkpoint = state.checkpoint.min(offset);
        (state.file, state.stale) = (None, true);
        match state.marks.as_slice() {
            [] => durable::remove_at(&self.pushes, &self.name),
            marks => self.rewrite(marks),
        }
    }

    fn rewrite(&self, marks: &[ResumePoint]) -> io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(marks.iter().flat_map(|mark| mark.to_bytes()));
        durable::write_at(&self.pushes, &self.name, &bytes, durable::PRIVATE)
    }

    /// Records a segment by the point after it, before it leaves, and returns whether a mark was made. A mark that
    /// cannot be written counts as none: the push continues, and resumes further back after a crash. Blocks for as
    /// long as the disk takes to make it durable.
    pub fn passed(&self, waypoint: ResumePoint) -> Mark {
        let mut state = self.lock();
        state.recent.push_back(waypoint);
        if state.recent.len() > MAX_RECENT_SEGMENTS {
            state.recent.pop_front();
        }
        if !state.is_mark_due(waypoint.position.offset) {
            return Mark::None;
        }
        // A failed mark is not retried sooner than the next one is due.
        state.last_mark = (waypoint.position.offset, Instant::now());
        match self.write(&mut state, waypoint) {
            Ok(()) => {
                crash::point("mark-written");
                Mark::Durable
            }
            Err(e) => {
                tracing::info!(
                    offset = waypoint.position.offset,
                    "a point to resume from is not recorded: {e}"
                );
                // Marks after a torn end would not be found.
                (state.file, state.stale) = (None, true);
                Mark::None
            }
        }
    }

    fn write(&self, state: &mut State, waypoint: ResumePoint) -> io::Result<()> {
        if state.stale || state.marks.len() >= MAX_MARKS {
            let superseded = match state.marks.len() {
                few if few < MAX_MARKS => 0,
                many => many - MAX_MARKS / 2,
            };
            let kept = state.marks.get(superseded..).unwrap_or_default();
            let marks = [kept, &[waypoint]].concat();
            self.rewrite(&marks)?;
            (state.marks, state.file, state.stale) = (marks, None, false);
            return Ok(());
        }
        let file = match &mut state.file {
            Some(file) => file,
            none => none.insert(self.open_file()?),
        };
        file.write_all(&waypoint.to_bytes())?;
        file.sync_data()?;
        state.marks.push(waypoint);
        Ok(())
    }

    fn open_file(&self) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.pushes, &self.name, flags, Mode::empty())?;
        Ok(File::from(file))
    }

    /// Records the receiver's last checkpoint.
    pub fn checkpoint(&self, offset: u64) {
        self.lock().checkpoint = offset;
    }

    /// Offset of the last checkpoint that the receiver reported; 0 if none.
    pub fn last_checkpoint(&self) -> u64 {
        self.lock().checkpoint
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_mark_due(&self, offset: u64) -> bool {
        let CheckpointPolicy {
            bytes,
            milliseconds,
        } = self.policy;
        if (bytes, milliseconds) == (0, 0) {
            return false;
        }
        let (last, at) = self.last_mark;
        let wait = Duration::from_millis(milliseconds / MARKS_PER_CHECKPOINT);
        offset.saturating_sub(last) >= bytes / MARKS_PER_CHECKPOINT && at.elapsed() >= wait
    }
}

fn parse(bytes: &[u8]) -> Vec<ResumePoint> {
    let marks = bytes.strip_prefix(MAGIC).unwrap_or_default();
    marks
        .chunks_exact(MARK_LEN)
        .map_while(ResumePoint::from_bytes)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFTEN: CheckpointPolicy = CheckpointPolicy {
        bytes: 4,
        milliseconds: 0,
    };

    fn waypoint(offset: u64) -> ResumePoint {
        ResumePoint {
            position: StreamPosition {
                offset,
                skeleton: SkeletonHash([offset as u8; 32]),
            },
            chain: Chain([!offset as u8; 32]),
        }
    }

    fn trail(dir: &tempfile::TempDir, push: PushId) -> SegmentLog {
        SegmentLog::open(
            File::open(dir.path()).unwrap(),
            push,
            RecentSegments::default(),
        )
        .unwrap()
    }

    #[test]
    fn marks_are_known_after_a_crash_and_the_rest_is_not() {
        let (dir, push) = (tempfile::tempdir().unwrap(), PushId::generate());
        let before = trail(&dir, push);
        before.restart(None, OFTEN).unwrap();
        for offset in 1..=3 {
            assert_eq!(before.passed(waypoint(offset)), Mark::Durable);
        }
        before
            .restart(Some(waypoint(2)), CheckpointPolicy::default())
            .unwrap();
        assert_eq!(before.passed(waypoint(5)), Mark::None);
        assert!(before.known().contains(&waypoint(5)));
        let after = trail(&dir, push);
        assert_eq!(after.known(), [waypoint(1), waypoint(2)]);
        assert_eq!(after.last_mark(), 2);
        after.restart(None, OFTEN).unwrap();
        assert_eq!(trail(&dir, push).known(), []);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn torn_or_damaged_marks_are_ignored() {
        let (dir, push) = (tempfile::tempdir().unwrap(), PushId::generate());
        let before = trail(&dir, push);
        before.restart(None, OFTEN).unwrap();
        for offset in 1..=3 {
            before.passed(waypoint(offset));
        }
        let path = dir.path().join(file_name(push));
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let intact = at.saturating_sub(MAGIC.len()) / MARK_LEN;
            let expected: Vec<_> = (1..=intact as u64).map(waypoint).collect();
            std::fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(trail(&dir, push).known(), expected, "cut at {at}");
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, &flipped).unwrap();
            let found = trail(&dir, push).known();
            assert!(found.len() <= intact || at < MAGIC.len(), "flipped at {at}");
            assert!(found.iter().all(|mark| expected.contains(mark)) || at < MAGIC.len());
        }
    }

    #[test]
    fn a_receiver_that_takes_no_checkpoints_costs_nothing() {
        let (dir, push) = (tempfile::tempdir().unwrap(), PushId::generate());
        let trail = trail(&dir, push);
        trail.restart(None, CheckpointPolicy::default()).unwrap();
        assert_eq!(trail.passed(waypoint(1 << 40)), Mark::None);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn marks_are_bounded_and_the_newest_stay() {
        let (dir, push) = (tempfile::tempdir().unwrap(), PushId::generate());
        let before = trail(&dir, push);
        before.restart(None, OFTEN).unwrap();
        let last = 2 * MAX_MARKS as u64 + 7;
        for offset in 1..=last {
            assert_eq!(before.passed(waypoint(offset)), Mark::Durable);
        }
        let after = trail(&dir, push).known();
        assert!(after.len() <= MAX_MARKS, "{}", after.len());
        assert!((last - 100..=last).all(|offset| after.contains(&waypoint(offset))));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_as_good_as_none() {
        let (dir, push) = (tempfile::tempdir().unwrap(), PushId::generate());
        let file = File::create(dir.path().join(file_name(push))).unwrap();
        file.set_len(1 << 30).unwrap();
        let trail = trail(&dir, push);
        assert_eq!(trail.known(), []);
        trail.restart(None, OFTEN).unwrap();
        assert_eq!(trail.passed(waypoint(1)), Mark::Durable);
    }

    #[test]
    fn recent_segments_are_bounded() {
        let (dir, push) = (tempfile::tempdir().unwrap(), PushId::generate());
        let trail = trail(&dir, push);
        for offset in 1..=3 * MAX_RECENT_SEGMENTS as u64 {
            trail.passed(waypoint(offset));
        }
        assert_eq!(trail.known().len(), MAX_RECENT_SEGMENTS);
    }
}
