//! `sendshotctl copy`: lists the copies with the reasons for which they stay, and deletes, holds and corrects them.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use sendshot_model::{NotKept, human};
use sendshot_proto::failure::Failure;
use sendshot_proto::problem::{Kind, Problem};
use sendshot_proto::{not_kept, v1};
use sendshot_sys::filesystem;

use super::request::{blocking, failed};
use crate::receive::failures::io_failure;
use crate::retention::by_hand;
use crate::retention::run::{self, Done};
use crate::retention::view::{self, LockedView, View, Viewed};
use crate::shared::receiver::Receiver;
use crate::store::clock::{ClockTrouble, NotAccepted};
use crate::store::ledger::Hold;
use crate::store::root::OpenRoot;
use crate::store::usage;
use crate::store::volumes;

/// Lists the copies.
pub(super) async fn answer(
    receiver: &Arc<Receiver>,
    wanted: v1::CopiesRequest,
) -> Result<v1::CopiesResponse, Problem> {
    let receiver = Arc::clone(receiver);
    blocking(move || list(&receiver, &wanted))
        .await?
        .map_err(failed)
}

fn list(receiver: &Receiver, wanted: &v1::CopiesRequest) -> Result<v1::CopiesResponse, Failure> {
    let root = receiver.root().open_to_read()?;
    let failed = |e| io_failure("read the copies", &e);
    let asked = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
    let views = view::all(receiver, &root, |sender, volume| {
        asked(&wanted.sender, sender) && asked(&wanted.volume, volume)
    });
    let trouble = receiver.clock().trouble;
    let mut answer = v1::CopiesResponse {
        clock_trouble: trouble.map_or_else(String::new, ClockTrouble::describe),
        ..v1::CopiesResponse::default()
    };
    for view in views.map_err(failed)? {
        let path = root.path().join(view.path());
        let not_kept = usage::not_kept(&view.dir).map_err(failed)?;
        answer.volumes.push(v1::VolumeRule {
            sender: view.sender.clone(),
            volume: view.volume.clone(),
            rule: view.policy_text(),
            trouble: view.trouble.clone().unwrap_or_default(),
            asks: view
                .brake
                .map_or_else(String::new, |brake| brake.describe()),
            going: u32::try_from(view.going().count()).unwrap_or(u32::MAX),
        });
        for copy in &view.copies {
            let lacks = not_kept.copy((copy.info.received_uuid, copy.info.stransid));
            let path = path.join(&copy.name);
            let path = path.as_os_str().as_bytes();
            answer.copies.push(describe(&view, copy, path, &lacks));
        }
    }
    Ok(answer)
}

fn describe(view: &View, copy: &Viewed, path: &[u8], lacks: &NotKept) -> v1::CopyState {
    let (unusable, unusable_code) = match volumes::unusable(&copy.info) {
        Some(unusable) => (unusable.why.to_string(), unusable.code.to_string()),
        None => Default::default(),
    };
    let time = copy.entry.as_ref().map(|entry| &entry.time);
    let holds = copy.entry.iter().flat_map(|entry| &entry.holds);
    let until = copy.verdict.as_ref().and_then(|verdict| verdict.until);
    v1::CopyState {
        sender: view.sender.clone(),
        volume: view.volume.clone(),
        name: copy.name.clone(),
        uuid: copy.info.received_uuid.as_bytes().to_vec(),
        committed_at: copy.committed_at(),
        unusable,
        unusable_code,
        path: path.to_vec(),
        not_kept: not_kept::message(lacks),
        kept: copy.reason(),
        goes: copy.goes(),
        kept_until: until.unwrap_or(0),
        time: time.map_or(0, |time| time.at),
        time_is_certain: time.is_some_and(|time| time.doubt.is_none()),
        holds: holds.map(hold_in_words).collect(),
    }
}

fn hold_in_words(hold: &Hold) -> String {
    match hold.until {
        Some(until) => format!("until {}: {}", human::utc(until), hold.reason),
        None => hold.reason.clone(),
    }
}

/// Deletes the copies that no rule keeps, or says which they are.
pub(super) async fn prune(
    receiver: &Arc<Receiver>,
    request: v1::PruneCopiesRequest,
) -> Result<v1::PruneCopiesResponse, Problem> {
    let receiver = Arc::clone(receiver);
    let volumes = blocking(move || pruned(&receiver, &request))
        .await?
        .map_err(failed)?;
    Ok(v1::PruneCopiesResponse {
        volumes,
        problem: None,
    })
}

fn pruned(
    receiver: &Receiver,
    request: &v1::PruneCopiesRequest,
) -> Result<Vec<v1::PrunedVolume>, Failure> {
    let root = receiver.root().open()?;
    let failed = |e| io_failure("delete copies", &e);
    let asked = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
    let wanted = |sender: &str, volume: &str| {
        asked(&request.sender, sender) && asked(&request.volume, volume)
    };
    let mut answer = Vec::new();
    let mut is_freed = false;
    let mut result = Ok(());
    let looked = view::each_locked(receiver, &root, wanted, |locked| {
        match prune_volume(receiver, &root, request, &locked) {
            Ok((pruned, freed)) => {
                is_freed |= freed;
                answer.extend(pruned);
            }
            Err(e) => result = Err(e),
        }
    });
    looked.and(result).map_err(failed)?;
    if is_freed {
        // The space is really back when the command ends.
        filesystem::sync(&root).map_err(failed)?;
    }
    Ok(answer)
}

/// Prunes one volume; returns what to say of it, and whether copies were deleted.
fn prune_volume(
    receiver: &Receiver,
    root: &OpenRoot,
    request: &v1::PruneCopiesRequest,
    locked: &LockedView,
) -> io::Result<(Option<v1::PrunedVolume>, bool)> {
    let view = &locked.view;
    let mut is_freed = false;
    let names: Vec<String> = view.going().map(|copy| copy.name.clone()).collect();
    let mut confirmed = request.confirmed.iter();
    let confirmed = confirmed.find(|of| of.sender == view.sender && of.volume == view.volume);
    let mut volume = v1::PrunedVolume {
        sender: view.sender.clone(),
        volume: view.volume.clone(),
        rule: view.policy_text(),
        copies: names,
        asks: view.brake.is_some(),
        ..v1::PrunedVolume::default()
    };
    if request.dry_run {
        let clock = view.reading.trouble.map(ClockTrouble::describe);
        volume.not_deleted = view.trouble.clone().or(clock).unwrap_or_default();
    } else if request.confirmed.is_empty() || confirmed.is_some() {
        let mut confirmed = confirmed.map(|of| of.copies.clone());
        if let Some(names) = &mut confirmed {
            names.sort();
        }
        match run::volume(receiver, root, locked, confirmed.as_deref())? {
            Done::Nothing => {}
            Done::Deleted(deleted) => {
                is_freed = true;
                let left = deleted.left.into_iter();
                volume.left = left.map(|(name, why)| format!("{name}: {why}")).collect();
                volume.copies = deleted.names;
                volume.asks = false;
            }
            Done::Asks(why) => (volume.not_deleted, volume.asks) = (why, true),
            Done::Forbidden(why) => volume.not_deleted = why,
        }
    } else {
        return Ok((None, false));
    }
    let is_said =
        !volume.copies.is_empty() || !volume.left.is_empty() || !volume.not_deleted.is_empty();
    Ok((is_said.then_some(volume), is_freed))
}

/// Changes a copy, or the ledger of a volume.
pub(super) async fn change(
    receiver: &Arc<Receiver>,
    request: v1::ChangeCopyRequest,
) -> Result<v1::ChangeCopyResponse, Problem> {
    let receiver = Arc::clone(receiver);
    let done = blocking(move || changed(&receiver, &request)).await??;
    Ok(v1::ChangeCopyResponse {
        done,
        problem: None,
    })
}

fn changed(receiver: &Receiver, request: &v1::ChangeCopyRequest) -> Result<String, Problem> {
    use v1::change_copy_request::Change;
    let root = receiver.root().open().map_err(|e| failed(e.into()))?;
    let (sender, volume) = (&request.sender, &request.volume);
    // Held until the change is written.
    let _lock = receiver.locks().lock(&format!("{sender}/{volume}"));
    let mut views = view::all(receiver, &root, |s, v| s == sender && v == volume)
        .map_err(|e| failed(io_failure("read the copies", &e)))?;
    let view = views.pop().ok_or_else(|| {
        Problem::new(
            Kind::Usage,
            format!("there is no volume {sender}/{volume} here"),
        )
        .remedy("`sendshotctl copy list` shows the copies")
    })?;
    let name = format!("{}/{}", view.path(), request.copy);
    let copy = request.copy.as_str();
    let change = request.change.as_ref();
    let change = change.ok_or_else(|| Problem::new(Kind::Usage, "the change is missing"))?;
    match change {
        Change::Delete(delete) => {
            let deleted = by_hand::delete(receiver, &root, &view, (copy, delete.break_chain))?;
            if let Some((_, why)) = deleted.left.first() {
                let message = format!("{name} is not deleted: {why}");
                return Err(Problem::new(Kind::Refused, message));
            }
            filesystem::sync(&root).map_err(|e| failed(io_failure("free the space", &e)))?;
            tracing::info!(copy = %name, "{name} was deleted by the administrator");
            Ok(format!("{name} is deleted"))
        }
        Change::Hold(hold) => {
            let until = Some(hold.until).filter(|until| *until != 0);
            let reason = hold.reason.clone();
            by_hand::hold(receiver, &root, &view, (copy, reason, until))?;
            tracing::info!(copy = %name, "{name} is held: {}", hold.reason);
            Ok(match until {
                Some(until) => format!("{name} is held until {}", human::utc(until)),
                None => format!("{name} is held"),
            })
        }
        Change::Release(_) => {
            let reasons = by_hand::release(receiver, &root, &view, copy)?;
            tracing::info!(copy = %name, "{name} is not held any more");
            Ok(format!(
                "{name} is not held any more: {}",
                human::few(&reasons)
            ))
        }
        Change::Retime(retime) => {
            by_hand::retime(receiver, &root, &view, (copy, retime.time))?;
            tracing::info!(copy = %name, "the time of {name} is stated: {}", human::utc(retime.time));
            Ok(format!("{name} is of {}", human::utc(retime.time)))
        }
        Change::Rebuild(_) => {
            let count = by_hand::rebuild(receiver, &root, &view)?;
            tracing::info!(volume = %view.path(), count, "the ledger of {} is a new one", view.path());
            Ok(format!(
                "{} has a ledger of {count} copies, with the times of their names",
                view.path()
            ))
        }
    }
}

impl From<by_hand::Error> for Problem {
    fn from(error: by_hand::Error) -> Self {
        use by_hand::Error;
        let kind = match &error {
            Error::NoCopy { .. }
            | Error::NotHeld { .. }
            | Error::OutOfOrder { .. }
            | Error::Past { .. }
            | Error::Future { .. } => Kind::Usage,
            Error::Ledger { .. }
            | Error::Barred { .. }
            | Error::Held { .. }
            | Error::Newest { .. } => Kind::Refused,
            Error::Io { .. } => Kind::Failed,
        };
        let remedy = match &error {
            Error::NoCopy { .. } => "`sendshotctl copy list` shows the copies",
            Error::NotHeld { .. } => "`sendshotctl copy list` shows the holds",
            Error::Past { .. } => "name a later time, or leave --until out for a hold without end",
            Error::Future { .. } => "name a time that is over",
            Error::OutOfOrder { .. } => "name a time between those of its neighbours",
            Error::Ledger { .. } => {
                "`sendshotctl copy retime --rebuild SENDER/VOLUME` makes a new ledger, with the times of the copies' names"
            }
            Error::Barred { .. } => {
                "no push has made it, or it was changed: if you want it deleted, use `btrfs subvolume delete`"
            }
            Error::Held { .. } => "`sendshotctl copy release` ends its holds",
            Error::Newest { .. } => "to delete it all the same: --break-chain",
            Error::Io { .. } => "",
        };
        Problem::from_error(kind, &error).remedy(remedy)
    }
}

/// Accepts the time of this host as right that the administrator has confirmed.
pub(super) async fn accept_clock(
    receiver: &Arc<Receiver>,
    request: v1::AcceptClockRequest,
) -> Result<v1::AcceptClockResponse, Problem> {
    let receiver = Arc::clone(receiver);
    let confirmed = request.now.saturating_sub(request.since_boot);
    blocking(move || {
        receiver.accept_clock(confirmed).map_err(|e| {
            let remedy = match e {
                NotAccepted::NotSynchronised => {
                    "run a time daemon, and wait until it has set the clock"
                }
                NotAccepted::Moved => "look at the time again, and repeat the command",
                NotAccepted::Trusted => "nothing is to be accepted: the rules go by this clock",
                NotAccepted::Io(_) => "",
            };
            Problem::from_error(Kind::Failed, &e).remedy(remedy)
        })?;
        let now = receiver.clock().now;
        tracing::info!(
            "the administrator accepts the time of this host: {}",
            human::utc(now)
        );
        Ok(v1::AcceptClockResponse { now, problem: None })
    })
    .await?
}
