//! The ledger of a volume: what this receiver knows of each copy besides what the file system knows. It lies in the
//! volume's directory, so that it travels with the disk.
//!
//! btrfs's own time of a copy is that of its subvolume, which becomes "today" when a disk is copied or copies are imported.
//! So nothing is deleted by it: only a copy in the ledger can go, and without a ledger none can.
//!
//! A copy is entered in two steps: its entry is noted as coming before the copy is made, and becomes a real entry with the
//! UUID of the copy. After a crash in between, the copy is found by its identity and gets the noted time. A copy goes in
//! two steps, too: its entry is marked before it is deleted, and removed when the deletion is durable. After a crash, the
//! mark is removed if the copy is still there, and the entry if it is not.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;

use sendshot_sys::durable::{self, Filled};
use sendshot_sys::subvolume::Info;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Name of the file.
pub const FILE: &str = ".sendshot-copies";
/// Layout version.
const VERSION: u32 = 1;
/// Seconds of a day.
const DAY: i64 = 24 * 60 * 60;

/// Why the time of a copy is uncertain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doubt {
    /// The clock was not good when the copy was committed.
    Clock,
    /// The clock was earlier than at the commit before it.
    ClockWentBack,
    /// The copy was there before the ledger, and btrfs's times contradict the names.
    Adopted,
    /// The copy is of a read-only snapshot that was more than a day old when it was committed.
    OldSnapshot,
    /// The copy was more than a day old when it was committed, and its sender did not say whether it is of a read-only snapshot.
    MaybeOldSnapshot,
}

impl Doubt {
    /// Words for users.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Clock => "the clock was not synchronised at its commit",
            Self::ClockWentBack => "the clock was earlier than at the commit before it",
            Self::Adopted => "btrfs's times of the copies contradict their names",
            Self::OldSnapshot => {
                "it is of a read-only snapshot that was more than a day old: set `times` in receiver.toml, or `copy retime`"
            }
            Self::MaybeOldSnapshot => {
                "it was more than a day old at its commit, and its sender's version does not say whether it is of a read-only snapshot"
            }
        }
    }
}

/// How a copy came into the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// By a push.
    Pushed,
    /// It was there before the ledger.
    Adopted,
}

/// Who has placed a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Placed {
    /// The administrator.
    ByAdministrator,
    /// This receiver, as a full push with much less data followed.
    ByShrinking,
}

/// A hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    pub reason: String,
    /// When it ends, seconds since 1970 UTC; `None` for no end.
    pub until: Option<i64>,
    /// When it was placed, seconds since 1970 UTC.
    pub placed_at: i64,
    pub placed: Placed,
}

/// A moment since the boot, by which an uncertain time becomes certain when the clock becomes good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootMoment {
    pub boot: String,
    /// Seconds since the boot.
    pub seconds: i64,
}

/// When a copy was committed, and how sure that is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitTime {
    /// Seconds since 1970 UTC by this host's clock.
    pub at: i64,
    /// `None` if it is certain.
    pub doubt: Option<Doubt>,
    /// The same moment since the boot, if `doubt` is that of the clock.
    pub boot: Option<BootMoment>,
    /// The commit before it.
    pub previous: Option<i64>,
    /// Time of the snapshot as the sender stated it.
    pub taken_at: i64,
    /// Whether the sender's snapshot was its user's own read-only one; `None` if the sender did not say it.
    pub of_snapshot: Option<bool>,
}

impl CommitTime {
    /// The doubt about a copy that was committed at this time: whether it is, or may be, of a snapshot that was old then.
    pub fn of_old_snapshot(&self, at: i64) -> Option<Doubt> {
        let is_old = at.saturating_sub(self.taken_at) > DAY;
        match self.of_snapshot {
            Some(true) if is_old => Some(Doubt::OldSnapshot),
            None if is_old => Some(Doubt::MaybeOldSnapshot),
            _ => None,
        }
    }
}

/// A copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// UUID of its subvolume.
    pub local: Uuid,
    /// UUID under which it was received.
    pub uuid: Uuid,
    /// The sender's ctransid of that state.
    pub ctransid: u64,
    /// Its name when it was committed.
    pub name: String,
    pub time: CommitTime,
    /// UUID of the subvolume of its parent.
    pub parent: Option<Uuid>,
    pub origin: Origin,
    pub holds: Vec<Hold>,
    /// Whether it is being deleted.
    pub is_going: bool,
    /// When its content was last verified, seconds since 1970 UTC.
    pub verified_at: Option<i64>,
    /// Whether it certainly shares data with no other copy than its parent, as it was received. False if that is unknown.
    #[serde(default, skip_serializing_if = "is_false")]
    pub shares_only_with_parent: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(value: &bool) -> bool {
    !value
}

/// A copy that is about to be committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coming {
    pub uuid: Uuid,
    pub ctransid: u64,
    pub time: CommitTime,
    pub parent: Option<Uuid>,
    /// Whether it is a full push.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_full: bool,
    /// See [`Entry::shares_only_with_parent`].
    #[serde(default, skip_serializing_if = "is_false")]
    pub shares_only_with_parent: bool,
}

impl Coming {
    /// The entry of the committed copy.
    pub fn entry(self, name: String, info: &Info) -> Entry {
        Entry {
            shares_only_with_parent: self.shares_only_with_parent,
            ..entry(name, info, self.time, self.parent, Origin::Pushed)
        }
    }
}

/// The last run that was completed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The rule, the minimum age and the zone, as text.
    pub policy: String,
    /// Seconds since 1970 UTC.
    pub at: i64,
}

/// The ledger of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Grows with each change.
    pub generation: u64,
    pub run: Option<Run>,
    pub coming: Option<Coming>,
    /// In the order of their commits.
    pub entries: Vec<Entry>,
}

/// The state of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Good(Ledger),
    Missing,
    /// Its checksums are wrong, or it cannot be read.
    Damaged(String),
    /// It is older than this receiver has seen it.
    RolledBack {
        found: u64,
        seen: u64,
    },
}

impl State {
    /// Words for users, if nothing of the volume may be deleted.
    pub fn trouble(&self) -> Option<String> {
        match self {
            Self::Good(_) => None,
            Self::Missing => Some("its ledger is missing".to_owned()),
            Self::Damaged(why) => Some(format!("its ledger is damaged: {why}")),
            Self::RolledBack { found, seen } => Some(format!(
                "its ledger is older than it was: it has generation {found}, and {seen} was seen"
            )),
        }
    }
}

/// What is read from the file.
#[derive(Debug, Serialize, Deserialize)]
struct File {
    version: u32,
    generation: u64,
    run: Option<Run>,
    coming: Option<Coming>,
    entries: Vec<Sealed>,
    /// Over everything before it.
    check: String,
}

/// An entry with its checksum.
#[derive(Debug, Serialize, Deserialize)]
struct Sealed {
    entry: Entry,
    check: String,
}

fn check_of(value: &impl Serialize) -> io::Result<String> {
    let text = serde_json::to_vec(value)?;
    Ok(blake3::hash(&text).to_hex().as_str()[..32].to_owned())
}

fn sealed(ledger: &Ledger) -> io::Result<File> {
    let entries = ledger.entries.iter().map(|entry| {
        Ok(Sealed {
            check: check_of(entry)?,
            entry: entry.clone(),
        })
    });
    let entries: Vec<Sealed> = entries.collect::<io::Result<_>>()?;
    let checks: Vec<&str> = entries.iter().map(|sealed| sealed.check.as_str()).collect();
    let check = check_of(&(
        VERSION,
        ledger.generation,
        &ledger.run,
        &ledger.coming,
        checks,
    ))?;
    Ok(File {
        version: VERSION,
        generation: ledger.generation,
        run: ledger.run.clone(),
        coming: ledger.coming.clone(),
        entries,
        check,
    })
}

/// Reads the ledger of a volume's directory. `seen` is the generation that this receiver has seen last.
///
/// # Errors
/// I/O errors other than damage.
pub fn read(dir: impl AsFd, seen: Option<u64>) -> io::Result<State> {
    let file: File = match durable::read_json_at(dir, OsStr::new(FILE)) {
        Ok(Some(file)) => file,
        Ok(None) => return Ok(State::Missing),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => {
            return Ok(State::Damaged(e.to_string()));
        }
        Err(e) => return Err(e),
    };
    if file.version != VERSION {
        let version = file.version;
        return Ok(State::Damaged(format!(
            "it has version {version}, and {VERSION} is known"
        )));
    }
    let ledger = Ledger {
        generation: file.generation,
        run: file.run.clone(),
        coming: file.coming.clone(),
        entries: file
            .entries
            .iter()
            .map(|sealed| sealed.entry.clone())
            .collect(),
    };
    let expected = sealed(&ledger)?;
    let mut pairs = file.entries.iter().zip(&expected.entries);
    if let Some((wrong, _)) = pairs.find(|(found, expected)| found.check != expected.check) {
        let name = &wrong.entry.name;
        return Ok(State::Damaged(format!("the checksum of {name} is wrong")));
    }
    if file.check != expected.check {
        return Ok(State::Damaged("its checksum is wrong".to_owned()));
    }
    match seen {
        // The directory is a new one. What an empty ledger does not list is not deleted anyway.
        Some(seen) if file.generation < seen && ledger.entries.is_empty() => {
            Ok(State::Good(Ledger {
                generation: seen,
                ..ledger
            }))
        }
        Some(seen) if file.generation < seen => Ok(State::RolledBack {
            found: file.generation,
            seen,
        }),
        Some(_) | None => Ok(State::Good(ledger)),
    }
}

/// Writes the ledger with the next generation.
///
/// # Errors
/// I/O errors; the file stays as it was then.
pub fn write(dir: impl AsFd, ledger: &mut Ledger) -> io::Result<()> {
    let (next, text) = next(ledger)?;
    durable::write_at(dir, OsStr::new(FILE), &text, durable::PRIVATE)?;
    *ledger = next;
    Ok(())
}

/// Fills a file with the ledger of the next generation, which is not the ledger before it takes its name.
///
/// # Errors
/// I/O errors.
pub fn fill(dir: impl AsFd, ledger: &mut Ledger) -> io::Result<Filled> {
    let (next, text) = next(ledger)?;
    let filled = Filled::new(dir, OsStr::new(FILE), &text, durable::PRIVATE)?;
    *ledger = next;
    Ok(filled)
}

/// The ledger of the next generation, and its text.
fn next(ledger: &Ledger) -> io::Result<(Ledger, Vec<u8>)> {
    let mut next = ledger.clone();
    next.generation += 1;
    let text = serde_json::to_vec(&sealed(&next)?)?;
    Ok((next, text))
}

/// Makes the ledger of a directory from before there were ledgers, with btrfs's times. `found` are its copies.
///
/// # Errors
/// I/O errors.
pub fn adopt(dir: impl AsFd, mut found: Vec<(String, Info)>) -> io::Result<()> {
    let mut ledger = Ledger::default();
    found.sort_by(|a, b| a.1.otime.cmp(&b.1.otime).then_with(|| a.0.cmp(&b.0)));
    let doubt = contradiction(&found);
    for (name, info) in found {
        let previous = ledger.entries.last().map(|before: &Entry| before.time.at);
        let taken_at = named_time(&name).unwrap_or(info.otime);
        let is_apart = (info.otime - taken_at).abs() > DAY;
        let time = CommitTime {
            at: info.otime,
            doubt: doubt.or(is_apart.then_some(Doubt::Adopted)),
            boot: None,
            previous,
            taken_at,
            of_snapshot: Some(false),
        };
        ledger
            .entries
            .push(entry(name, &info, time, None, Origin::Adopted));
    }
    write(dir, &mut ledger)
}

/// Makes a new ledger of the copies that were found, with the times of their names.
///
/// # Errors
/// I/O errors.
pub fn rebuild(
    dir: impl AsFd,
    mut found: Vec<(String, Info)>,
    (seen, now): (Option<u64>, i64),
) -> io::Result<Ledger> {
    // Snapshots of copies, which the administrator has made, were received as well.
    let is_ours = |name: &str, info: &Info| {
        named_time(name).is_some() && info.is_pristine() && info.otransid > info.rtransid
    };
    found.retain(|(name, info)| is_ours(name, info));
    found.sort_by_key(|(name, info)| (named_time(name), info.otime));
    let mut ledger = Ledger {
        generation: seen.unwrap_or(0),
        ..Ledger::default()
    };
    for (name, info) in found {
        let at = named_time(&name).unwrap_or(info.otime);
        let time = CommitTime {
            at,
            // A time that has not come yet would make all later commits uncertain.
            doubt: (at > now).then_some(Doubt::Adopted),
            boot: None,
            previous: ledger.entries.last().map(|before| before.time.at),
            taken_at: at,
            of_snapshot: Some(false),
        };
        ledger
            .entries
            .push(entry(name, &info, time, None, Origin::Adopted));
    }
    write(dir, &mut ledger)?;
    Ok(ledger)
}

/// Makes the entry of a copy.
pub fn entry(
    name: String,
    info: &Info,
    time: CommitTime,
    parent: Option<Uuid>,
    origin: Origin,
) -> Entry {
    Entry {
        local: info.uuid,
        uuid: info.received_uuid,
        ctransid: info.stransid,
        name,
        time,
        parent,
        origin,
        holds: Vec::new(),
        is_going: false,
        verified_at: None,
        shares_only_with_parent: false,
    }
}

fn named_time(name: &str) -> Option<i64> {
    let name: sendshot_model::CopyName = name.parse().ok()?;
    Some(name.time().as_second())
}

/// Whether btrfs's times contradict the names: they do not follow the names' order, or all fall into a day that the
/// names do not. The copies are in the order of btrfs's times.
fn contradiction(found: &[(String, Info)]) -> Option<Doubt> {
    let times: Vec<(i64, i64)> = found
        .iter()
        .filter_map(|(name, info)| Some((info.otime, named_time(name)?)))
        .collect();
    let is_disordered = times.windows(2).any(|pair| pair[0].1 > pair[1].1);
    let span = |of: fn(&(i64, i64)) -> i64| {
        let least = times.iter().map(of).min()?;
        Some(times.iter().map(of).max()? - least)
    };
    let together = span(|time| time.0).is_some_and(|span| span < DAY);
    let apart = span(|time| time.1).is_some_and(|span| span >= DAY);
    (is_disordered || (together && apart)).then_some(Doubt::Adopted)
}

/// What became of a ledger when it was compared with the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Whether the ledger was changed, and has to be written.
    pub changed: bool,
    /// Whether the copy of a push that a crash interrupted was entered, as its last entry, and was a full push.
    pub entered_full: bool,
    /// Names of copies on the disk that are not in the ledger.
    pub unlisted: Vec<String>,
}

/// Makes a ledger agree with the copies on the disk: completes what a crash has left, and removes the entries of copies
/// that are gone.
pub fn agree(ledger: &mut Ledger, on_disk: &[(String, Info)]) -> Agreement {
    let by_local: BTreeMap<Uuid, &(String, Info)> =
        on_disk.iter().map(|copy| (copy.1.uuid, copy)).collect();
    let mut agreement = Agreement::default();
    let before = ledger.entries.len();
    ledger.remove(|entry| !by_local.contains_key(&entry.local));
    agreement.changed = ledger.entries.len() != before;
    for entry in &mut ledger.entries {
        if entry.is_going {
            entry.is_going = false;
            agreement.changed = true;
        }
        let (name, _) = by_local[&entry.local];
        if entry.name != *name {
            entry.name.clone_from(name);
            agreement.changed = true;
        }
    }
    if let Some(coming) = ledger.coming.take() {
        agreement.changed = true;
        let known = |local: Uuid| ledger.entries.iter().any(|entry| entry.local == local);
        let of_coming = |(_, info): &&(String, Info)| {
            (info.received_uuid, info.stransid) == (coming.uuid, coming.ctransid)
                && info.otransid > info.rtransid
                && info.is_pristine()
                && !known(info.uuid)
        };
        let mut candidates = on_disk.iter().filter(of_coming);
        if let (Some((name, info)), None) = (candidates.next(), candidates.next()) {
            agreement.entered_full = coming.is_full;
            ledger.entries.push(coming.entry(name.clone(), info));
        }
    }
    let listed = |local: &Uuid| ledger.entries.iter().any(|entry| entry.local == *local);
    agreement.unlisted = on_disk
        .iter()
        .filter(|(_, info)| !listed(&info.uuid))
        .map(|(name, _)| name.clone())
        .collect();
    agreement
}

impl Ledger {
    /// Removes entries. What was built on one builds on its parent from now on.
    pub fn remove(&mut self, goes: impl Fn(&Entry) -> bool) {
        let gone: BTreeMap<Uuid, Option<Uuid>> = self
            .entries
            .iter()
            .filter(|entry| goes(entry))
            .map(|entry| (entry.local, entry.parent))
            .collect();
        self.entries
            .retain(|entry| !gone.contains_key(&entry.local));
        for entry in &mut self.entries {
            // A chain of parents is not longer than the entries that go.
            for _ in 0..=gone.len() {
                match entry.parent.and_then(|parent| gone.get(&parent)) {
                    Some(before) => entry.parent = *before,
                    None => break,
                }
            }
        }
    }

    /// The entry of a copy by its name.
    pub fn by_name(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn dir() -> (tempfile::TempDir, std::fs::File) {
        let dir = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap();
        (dir, fd)
    }

    fn time(at: i64) -> CommitTime {
        CommitTime {
            at,
            doubt: None,
            boot: None,
            previous: None,
            taken_at: at,
            of_snapshot: Some(false),
        }
    }

    /// An entry with a number in its ids.
    pub(crate) fn of(number: u128) -> Entry {
        Entry {
            local: Uuid::from_u128(number),
            uuid: Uuid::from_u128(number + 100),
            ctransid: 7,
            name: format!("20261122T03000{number}Z"),
            time: time(number as i64),
            parent: None,
            origin: Origin::Pushed,
            holds: Vec::new(),
            is_going: false,
            verified_at: None,
            shares_only_with_parent: false,
        }
    }

    #[test]
    fn every_damage_is_noticed() {
        let (guard, fd) = dir();
        assert_eq!(read(&fd, None).unwrap(), State::Missing);
        let mut ledger = Ledger {
            entries: vec![of(1), of(2)],
            ..Ledger::default()
        };
        write(&fd, &mut ledger).unwrap();
        assert_eq!(read(&fd, Some(1)).unwrap(), State::Good(ledger.clone()));
        let path = guard.path().join(FILE);
        let text = std::fs::read(&path).unwrap();
        for at in 0..text.len() {
            for bit in [0, 4] {
                let mut changed = text.clone();
                changed[at] ^= 1 << bit;
                std::fs::write(&path, &changed).unwrap();
                let found = read(&fd, Some(1)).unwrap();
                // Only blanks can change without a change of meaning.
                let is_same = found == State::Good(ledger.clone());
                assert!(
                    !matches!(found, State::Good(_)) || is_same,
                    "byte {at}: {found:?}"
                );
            }
        }
        std::fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert!(matches!(read(&fd, None).unwrap(), State::Damaged(_)));
        std::fs::write(&path, &text).unwrap();
        let rolled_back = State::RolledBack { found: 1, seen: 2 };
        assert_eq!(read(&fd, Some(2)).unwrap(), rolled_back);
    }

    fn info(number: u128, received: u128) -> Info {
        Info {
            uuid: Uuid::from_u128(number),
            received_uuid: Uuid::from_u128(received),
            stransid: 7,
            read_only: true,
            otransid: 9,
            rtransid: 8,
            ctransid: 9,
            ..Info::default()
        }
    }

    #[test]
    fn what_a_crash_has_left_is_completed() {
        let going = Entry {
            is_going: true,
            ..of(1)
        };
        let gone = Entry {
            is_going: true,
            ..of(2)
        };
        let coming = Coming {
            uuid: Uuid::from_u128(103),
            ctransid: 7,
            time: time(33),
            parent: None,
            is_full: false,
            shares_only_with_parent: true,
        };
        let mut ledger = Ledger {
            entries: vec![going, gone],
            coming: Some(coming),
            ..Ledger::default()
        };
        let on_disk = [
            ("20261122T030001Z".to_owned(), info(1, 101)),
            ("20261122T030003Z".to_owned(), info(3, 103)),
            ("mine".to_owned(), info(9, 101)),
        ];
        let agreement = agree(&mut ledger, &on_disk);
        assert!(agreement.changed);
        assert_eq!(agreement.unlisted, ["mine"]);
        assert_eq!(ledger.entries[0], of(1));
        assert_eq!(
            (ledger.entries[1].local, ledger.entries[1].time.at),
            (Uuid::from_u128(3), 33)
        );
        assert_eq!(ledger.entries.len(), 2);
        assert!(!agree(&mut ledger, &on_disk).changed);
    }
}
