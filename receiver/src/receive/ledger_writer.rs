//! Enters a copy into the ledger of its volume, around its commit.

use std::sync::Arc;

use sendshot_apply::commit::Committed;
use sendshot_config::ClockRule;
use sendshot_model::RootId;
use sendshot_proto::failure::{Code, Failure};
use sendshot_proto::transfer::Begin;
use sendshot_sys::crash;
use sendshot_sys::durable::Filled;

use crate::receive::failures::io_failure;
use crate::store::clock::{Clock, Reading};
use crate::store::generations::Generations;
use crate::store::ledger::{self, Coming, CommitTime, Doubt, Entry, Ledger, State};
use crate::store::locks::{VolumeLock, VolumeLocks};
use crate::store::shrinking;
use crate::store::volumes::{self, VolumeDir};

/// Most copies of a volume: 27 months of hourly pushes. A ledger of more could not be read again.
const MAX_COPIES: usize = 20_000;

/// What it takes to enter copies.
#[derive(Debug, Clone)]
pub struct LedgerWriter {
    pub clock: Arc<Clock>,
    pub rule: ClockRule,
    pub generations: Arc<Generations>,
    pub locks: VolumeLocks,
}

/// A copy whose coming is noted, or will be with its commit.
#[derive(Debug)]
pub(crate) struct Expected {
    /// `None` if the volume has no good ledger: the copy is then never deleted.
    ledger: Option<Ledger>,
    /// Held until the copy is entered.
    _lock: VolumeLock,
}

impl LedgerWriter {
    /// Makes the note that a copy of this transfer is about to be committed, which takes its name in that commit.
    /// `shares_only_with_parent` says whether the copy's data is certainly in no other copy than its parent; `lock` is of
    /// the volume.
    ///
    /// # Errors
    /// The failure for the sender; nothing is committed then.
    pub(crate) fn expect(
        &self,
        root: RootId,
        dir: &VolumeDir,
        begin: &Begin,
        shares_only_with_parent: bool,
        lock: VolumeLock,
    ) -> Result<(Expected, Option<Filled>), Failure> {
        let failed = |e| io_failure("note the copy in the ledger of the volume", &e);
        let seen = self.generations.seen(root, &dir.name);
        let state = ledger::read(&dir.fd, seen).map_err(failed)?;
        let mut ledger = match state {
            State::Good(ledger) => ledger,
            other => {
                let why = other.trouble().unwrap_or_default();
                tracing::warn!(directory = %dir.name, "no copy of {} is deleted by its rule: {why}", dir.name);
                let expected = Expected {
                    ledger: None,
                    _lock: lock,
                };
                return Ok((expected, None));
            }
        };
        if ledger.entries.len() >= MAX_COPIES {
            return Err(Failure::new(
                Code::OverLimit,
                format!("{} has {MAX_COPIES} copies here already", dir.name),
                "have the receiver's administrator write a rule for them, or delete some",
            ));
        }
        if ledger.coming.is_some() {
            let found = volumes::with_info(&dir.fd).map_err(failed)?;
            if ledger::agree(&mut ledger, &found).entered_full {
                let held =
                    shrinking::hold_before(&mut ledger, &dir.fd, self.clock.read(self.rule).now);
                held.inspect(shrinking::Held::log);
            }
        }
        let parent = begin.parent.and_then(|parent| {
            let mut entries = ledger.entries.iter();
            let of_parent =
                |entry: &&Entry| (entry.uuid, entry.ctransid) == (parent.uuid, parent.ctransid);
            entries.find(of_parent).map(|entry| entry.local)
        });
        ledger.coming = Some(Coming {
            uuid: begin.uuid,
            ctransid: begin.ctransid,
            time: commit_time(&ledger, self.clock.read(self.rule), begin),
            parent,
            is_full: begin.parent.is_none(),
            shares_only_with_parent,
        });
        let note = ledger::fill(&dir.fd, &mut ledger).map_err(failed)?;
        crash::point("ledger-expects");
        let expected = Expected {
            ledger: Some(ledger),
            _lock: lock,
        };
        Ok((expected, Some(note)))
    }

    /// Enters the committed copy. After a failure, the copy is entered by what was noted before.
    pub(crate) fn enter(
        &self,
        root: RootId,
        dir: &VolumeDir,
        mut expected: Expected,
        copy: &Committed,
    ) {
        let Some(mut ledger) = expected.ledger.take() else {
            return;
        };
        let Some(coming) = ledger.coming.take() else {
            return;
        };
        let name = copy.name.to_string_lossy().into_owned();
        let now = coming.time.at;
        let is_full = coming.is_full;
        ledger.entries.push(coming.entry(name, &copy.info));
        if is_full {
            let held = shrinking::hold_before(&mut ledger, &dir.fd, now);
            held.inspect(shrinking::Held::log);
        }
        if let Err(e) = ledger::write(&dir.fd, &mut ledger) {
            tracing::warn!(directory = %dir.name, "cannot enter a copy into its ledger yet: {e}");
        }
        // If it could not be written, that of the note, which is on disk.
        self.generations.note(root, &dir.name, ledger.generation);
    }
}

/// The time of a commit that happens now.
fn commit_time(ledger: &Ledger, reading: Reading, begin: &Begin) -> CommitTime {
    let certain = ledger
        .entries
        .iter()
        .filter(|entry| entry.time.doubt.is_none());
    let last_certain = certain.map(|entry| entry.time.at).max();
    let now = reading.now;
    let doubt = match reading.trouble {
        Some(_) => Some(Doubt::Clock),
        None if last_certain.is_some_and(|last| now < last) => Some(Doubt::ClockWentBack),
        None => None,
    };
    let mut time = CommitTime {
        at: now,
        doubt,
        boot: reading.boot.filter(|_| doubt == Some(Doubt::Clock)),
        previous: last_certain,
        taken_at: begin.taken_at,
        of_snapshot: begin.of_snapshot,
    };
    time.doubt = time.doubt.or(time.of_old_snapshot(now));
    time
}
