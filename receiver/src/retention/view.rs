//! A volume with its copies, what the ledger says of each, and the verdict.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use sendshot_config::Times;
use sendshot_model::human;
use sendshot_retention::{Brake, Hold, Policy, Verdict, brake, judge};
use sendshot_sys::subvolume::{self, Info};
use uuid::Uuid;

use crate::retention::barred::Barred;
use crate::retention::times;
use crate::retention::uses::Uses;
use crate::shared::receiver::Receiver;
use crate::store::clock::Reading;
use crate::store::ledger::{self, Entry, Ledger, State};
use crate::store::locks::VolumeLock;
use crate::store::root::OpenRoot;
use crate::store::shrinking::{self, Held};
use crate::store::volumes;

/// A copy on the disk.
#[derive(Debug)]
pub struct Viewed {
    pub name: String,
    pub info: Info,
    /// What the ledger says of it; `None` if it is not in the ledger.
    pub entry: Option<Entry>,
    /// Why it is never deleted by a rule, besides the verdict.
    pub barred: Option<Barred>,
    /// What uses it.
    pub in_use: Option<&'static str>,
    /// `None` for one that is not in the ledger.
    pub verdict: Option<Verdict>,
}

impl Viewed {
    /// Whether a run would delete it.
    pub fn goes(&self) -> bool {
        self.barred.is_none()
            && self.in_use.is_none()
            && self.verdict.as_ref().is_some_and(Verdict::goes)
    }

    /// The time of its commit, in seconds since 1970 UTC: the ledger's, or btrfs's if it is not in the ledger.
    pub fn committed_at(&self) -> i64 {
        self.entry
            .as_ref()
            .map_or(self.info.otime, |entry| entry.time.at)
    }

    /// Why it stays or goes, in words.
    pub fn reason(&self) -> String {
        let verdict = self.verdict.as_ref().map(Verdict::describe);
        let doubt = self.entry.as_ref().and_then(|entry| entry.time.doubt);
        let why = [
            self.barred.map(|barred| barred.describe().to_owned()),
            self.in_use.map(str::to_owned),
            verdict.filter(|_| self.barred.is_none()),
            doubt.map(|doubt| doubt.describe().to_owned()),
        ];
        let why: Vec<String> = why.into_iter().flatten().collect();
        why.join("; ")
    }
}

/// A volume.
#[derive(Debug)]
pub struct View {
    pub sender: String,
    pub volume: String,
    pub dir: OwnedFd,
    pub policy: Policy,
    /// The ledger as it agrees with the disk, if it is good.
    pub ledger: Option<Ledger>,
    /// Why nothing of the volume may be deleted.
    pub trouble: Option<String>,
    /// Whether the ledger differs from its file.
    pub is_changed: bool,
    /// The copy that is held since a crash interrupted the push after it.
    pub held: Option<Held>,
    /// Whether a push of it was interrupted, and can be resumed.
    pub has_partial: bool,
    /// The copies, by their names.
    pub copies: Vec<Viewed>,
    /// Why a run must ask first.
    pub brake: Option<Brake>,
    /// The clock by which the copies were judged.
    pub reading: Reading,
    /// The time that counts.
    times: Times,
}

impl View {
    /// Its directory, relative to the root.
    pub fn path(&self) -> String {
        format!("{}/{}", self.sender, self.volume)
    }

    /// The policy as text; another one is another rule for the brake.
    pub fn policy_text(&self) -> String {
        let zone = self.policy.timezone.iana_name().unwrap_or("local");
        let times = match self.times {
            Times::Commit => "",
            Times::Snapshot => "; times of snapshots",
        };
        format!(
            "{}; protect {}; {zone}{times}",
            self.policy.rule,
            human::duration(self.policy.protect)
        )
    }

    /// The copy that was committed last, as far as the ledger says; without a ledger, the one with the last name.
    pub fn newest(&self) -> Option<&Viewed> {
        let last = self.ledger.as_ref().and_then(|ledger| {
            let on_disk = |local| self.copies.iter().find(|copy| copy.info.uuid == local);
            ledger
                .entries
                .iter()
                .rev()
                .find_map(|entry| on_disk(entry.local))
        });
        last.or(self.copies.last())
    }

    /// The copies that a run would delete.
    pub fn going(&self) -> impl Iterator<Item = &Viewed> {
        self.copies.iter().filter(|copy| copy.goes())
    }
}

/// Reads the volumes of all senders, or of those that `wanted` selects by sender and volume.
///
/// # Errors
/// I/O errors of the root.
pub fn all(
    receiver: &Receiver,
    root: &OpenRoot,
    wanted: impl Fn(&str, &str) -> bool,
) -> io::Result<Vec<View>> {
    all_but(receiver, root, wanted, |_| {})
}

/// As [`all`]; `unreadable` gets the directories that cannot be read.
///
/// # Errors
/// I/O errors of the root.
pub fn all_but(
    receiver: &Receiver,
    root: &OpenRoot,
    wanted: impl Fn(&str, &str) -> bool,
    mut unreadable: impl FnMut(String),
) -> io::Result<Vec<View>> {
    let reading = receiver.clock();
    let mut views = Vec::new();
    for (sender, volume, dir) in volumes::all(root)? {
        if !wanted(&sender, &volume) {
            continue;
        }
        let path = format!("{sender}/{volume}");
        match look(receiver, root, (sender, volume, dir), &reading) {
            Ok(view) => views.push(view),
            // One that cannot be read must not hide the others.
            Err(e) => {
                tracing::warn!("cannot look at the copies of {path}: {e}");
                unreadable(path);
            }
        }
    }
    Ok(views)
}

/// A volume that no other can change meanwhile.
#[derive(Debug)]
pub struct LockedView {
    pub view: View,
    _lock: VolumeLock,
}

/// Locks the volumes of all senders, or of those that `wanted` selects, one after the other, and does something with each.
///
/// # Errors
/// I/O errors of the root.
pub fn each_locked(
    receiver: &Receiver,
    root: &OpenRoot,
    wanted: impl Fn(&str, &str) -> bool,
    mut work: impl FnMut(LockedView),
) -> io::Result<()> {
    for (sender, volume, dir) in volumes::all(root)? {
        if wanted(&sender, &volume) {
            let path = format!("{sender}/{volume}");
            let lock = receiver.locks().lock(&path);
            match look(receiver, root, (sender, volume, dir), &receiver.clock()) {
                Ok(view) => work(LockedView { view, _lock: lock }),
                Err(e) => tracing::warn!("cannot look for copies of {path} to delete: {e}"),
            }
        }
    }
    Ok(())
}

/// Reads a volume.
///
/// # Errors
/// I/O errors.
pub fn look(
    receiver: &Receiver,
    root: &OpenRoot,
    (sender, volume, dir): (String, String, OwnedFd),
    reading: &Reading,
) -> io::Result<View> {
    let config = receiver.config();
    let (policy, times) = config.retention(&sender, &volume);
    let path = format!("{sender}/{volume}");
    // Read before the disk: a copy that is committed in between is then not taken for one that is gone.
    let state = match root.has_ledgers() {
        true => ledger::read(&dir, receiver.generations().seen(root.id(), &path))?,
        false => State::Missing,
    };
    let trouble = state.trouble();
    let on_disk = volumes::with_info(&dir)?;
    let mut held = None;
    let (ledger, is_changed) = match state {
        State::Good(mut ledger) => {
            let agreement = ledger::agree(&mut ledger, &on_disk);
            if agreement.entered_full {
                held = shrinking::hold_before(&mut ledger, &dir, reading.now);
            }
            let is_certain_now = times::make_certain(&mut ledger, reading);
            (Some(ledger), agreement.changed || is_certain_now)
        }
        State::Missing | State::Damaged(_) | State::RolledBack { .. } => (None, false),
    };
    let uses = Uses::of(receiver, root, &sender, &volume, &dir)?;
    let mut copies: Vec<Viewed> = on_disk
        .into_iter()
        .map(|(name, info)| viewed(name, info, ledger.as_ref(), &uses))
        .collect();
    if let Some(ledger) = &ledger {
        give_verdicts(&mut copies, ledger, (&policy, times), reading.now);
    }
    for copy in copies.iter_mut().filter(|copy| copy.goes()) {
        if !subvolume::children(root, copy.info.id)?.is_empty() {
            copy.barred = Some(Barred::HasSubvolume);
        }
    }
    copies.sort_by(|a, b| a.name.cmp(&b.name));
    let mut view = View {
        sender,
        volume,
        dir,
        policy,
        ledger,
        trouble,
        is_changed,
        held,
        has_partial: uses.has_partial,
        copies,
        brake: None,
        reading: reading.clone(),
        times,
    };
    view.brake = brake_of(&view);
    Ok(view)
}

fn brake_of(view: &View) -> Option<Brake> {
    let run = view.ledger.as_ref()?.run.as_ref();
    let is_first = run.is_none_or(|run| run.policy != view.policy_text());
    // What is in use now goes later, perhaps in a run that does not ask any more.
    let goes =
        |copy: &&Viewed| copy.barred.is_none() && copy.verdict.as_ref().is_some_and(Verdict::goes);
    brake(
        view.copies.len(),
        view.copies.iter().filter(goes).count(),
        is_first,
    )
}

fn viewed(name: String, info: Info, ledger: Option<&Ledger>, uses: &Uses) -> Viewed {
    let entry = ledger.and_then(|ledger| {
        let mut entries = ledger.entries.iter();
        entries.find(|entry| entry.local == info.uuid).cloned()
    });
    let barred = match (&entry, ledger) {
        (_, None) => Some(Barred::NoLedger),
        (None, Some(_)) => Some(Barred::NotInLedger),
        (Some(_), Some(_)) if !info.read_only => Some(Barred::Writable),
        (Some(_), Some(_)) if !info.is_pristine() => Some(Barred::Changed),
        (Some(_), Some(_)) => None,
    };
    Viewed {
        in_use: uses.of_copy(&name, &info),
        name,
        info,
        entry,
        barred,
        verdict: None,
    }
}

/// Judges the copies that are in the ledger, in the order of their commits.
fn give_verdicts(
    copies: &mut [Viewed],
    ledger: &Ledger,
    (policy, times): (&Policy, Times),
    now: i64,
) {
    let by_local: BTreeMap<Uuid, usize> = copies
        .iter()
        .enumerate()
        .map(|(at, copy)| (copy.info.uuid, at))
        .collect();
    let mut judged = Vec::new();
    let mut at_of = Vec::new();
    let mut before = None;
    for entry in &ledger.entries {
        let Some(at) = by_local.get(&entry.local) else {
            continue;
        };
        let counted = times::counted_time(entry, times, before);
        let copy = &copies[*at];
        if counted.1 && copy.barred.is_none() {
            before = Some(before.unwrap_or(i64::MIN).max(counted.0));
        }
        judged.push(sendshot_retention::Copy {
            time: counted.0,
            // What a rule cannot delete has no place in a span either.
            is_certain: counted.1 && copy.barred.is_none(),
            // Times of snapshots and of commits have no gap between them.
            previous: entry.time.previous.filter(|_| counted.0 == entry.time.at),
            holds: entry
                .holds
                .iter()
                .map(|hold| Hold { until: hold.until })
                .collect(),
            // What is in use is looked at apart: it does not stay for good.
            is_leased: false,
        });
        at_of.push(*at);
    }
    let verdicts = judge(&judged, policy, now).verdicts;
    for (at, verdict) in at_of.into_iter().zip(verdicts) {
        copies[at].verdict = Some(verdict);
    }
}
