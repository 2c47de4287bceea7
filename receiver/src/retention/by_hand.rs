//! What the administrator does with single copies: delete, hold, release, and correct times.

use std::io;

use sendshot_model::history::ReceiverEvent;
use sendshot_model::{PeerName, human};

use crate::retention::barred::Barred;
use crate::retention::delete::{self, Deleted};
use crate::retention::view::View;
use crate::shared::receiver::Receiver;
use crate::store::ledger::{self, Hold, Ledger, Placed};
use crate::store::root::OpenRoot;
use crate::store::volumes;

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{volume} has no copy {copy}")]
    NoCopy { volume: String, copy: String },
    #[error("{volume}: {why}")]
    Ledger { volume: String, why: String },
    #[error("{volume}/{copy} is not deleted: {why}")]
    Barred {
        volume: String,
        copy: String,
        why: String,
    },
    #[error("{volume}/{copy} is held: {reason}")]
    Held {
        volume: String,
        copy: String,
        reason: String,
    },
    #[error("{volume}/{copy} is the newest copy: without it, the next push sends everything again")]
    Newest { volume: String, copy: String },
    /// The end of a hold, or a time that is stated, has the wrong side of now.
    #[error("{until} is over: the hold would end at once")]
    Past { until: String },
    #[error("{time} has not come yet")]
    Future { time: String },
    #[error("{volume}/{copy} has no hold")]
    NotHeld { volume: String, copy: String },
    #[error("{volume}/{copy}: {at} is not between the copies before and after it, {bounds}")]
    OutOfOrder {
        volume: String,
        copy: String,
        at: String,
        bounds: String,
    },
    #[error("cannot change the ledger of {volume}")]
    Io {
        volume: String,
        #[source]
        source: io::Error,
    },
}

fn io_error(view: &View) -> impl Fn(io::Error) -> Error {
    let volume = view.path();
    move |source| Error::Io {
        volume: volume.clone(),
        source,
    }
}

fn ledger_of(view: &View) -> Result<Ledger, Error> {
    match (&view.ledger, &view.trouble) {
        (Some(ledger), None) => Ok(ledger.clone()),
        (_, trouble) => Err(Error::Ledger {
            volume: view.path(),
            why: trouble
                .clone()
                .unwrap_or_else(|| "it has no ledger".to_owned()),
        }),
    }
}

fn change(
    receiver: &Receiver,
    root: &OpenRoot,
    view: &View,
    copy: &str,
    change: impl FnOnce(&mut Ledger, usize) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut ledger = ledger_of(view)?;
    let at = ledger.entries.iter().position(|entry| entry.name == copy);
    let at = at.ok_or_else(|| Error::NoCopy {
        volume: view.path(),
        copy: copy.to_owned(),
    })?;
    change(&mut ledger, at)?;
    delete::write(receiver, root, view, &mut ledger).map_err(io_error(view))
}

/// Deletes a copy. The newest one only if `break_chain` is given.
///
/// # Errors
/// See [`Error`].
pub fn delete(
    receiver: &Receiver,
    root: &OpenRoot,
    view: &View,
    (copy, break_chain): (&str, bool),
) -> Result<Deleted, Error> {
    let ledger = ledger_of(view)?;
    let (volume, name) = (view.path(), copy.to_owned());
    let found = view.copies.iter().find(|found| found.name == copy);
    let found = found.ok_or_else(|| Error::NoCopy {
        volume: volume.clone(),
        copy: name.clone(),
    })?;
    let barred = found.barred.map(Barred::describe).or(found.in_use);
    if let Some(why) = barred {
        return Err(Error::Barred {
            volume,
            copy: name,
            why: why.to_owned(),
        });
    }
    let clock = receiver.clock();
    let entry = ledger.by_name(copy);
    // By a clock that is not good, no hold has ended.
    let in_force =
        |hold: &&Hold| clock.trouble.is_some() || hold.until.is_none_or(|until| clock.now < until);
    if let Some(hold) = entry.and_then(|entry| entry.holds.iter().find(in_force)) {
        let reason = hold.reason.clone();
        return Err(Error::Held {
            volume,
            copy: name,
            reason,
        });
    }
    let is_newest = ledger.entries.last().is_some_and(|last| last.name == copy);
    if is_newest && !break_chain {
        return Err(Error::Newest { volume, copy: name });
    }
    delete::copies(receiver, root, view, (&[name], "by the administrator")).map_err(io_error(view))
}

/// Places a hold on a copy.
///
/// # Errors
/// See [`Error`].
pub fn hold(
    receiver: &Receiver,
    root: &OpenRoot,
    view: &View,
    (copy, reason, until): (&str, String, Option<i64>),
) -> Result<(), Error> {
    let placed_at = receiver.clock().now;
    if let Some(until) = until.filter(|until| *until <= placed_at) {
        let until = human::utc(until);
        return Err(Error::Past { until });
    }
    let held = |sender| ReceiverEvent::Held {
        sender,
        volume: view.volume.clone(),
        copy: copy.to_owned(),
        reason: reason.clone(),
    };
    change(receiver, root, view, copy, |ledger, at| {
        ledger.entries[at].holds.push(Hold {
            reason: reason.clone(),
            until,
            placed_at,
            placed: Placed::ByAdministrator,
        });
        Ok(())
    })?;
    note(receiver, view, held);
    Ok(())
}

/// Notes an event of the volume's sender in the history.
fn note(receiver: &Receiver, view: &View, event: impl FnOnce(PeerName) -> ReceiverEvent) {
    if let Ok(sender) = view.sender.parse() {
        receiver.note(event(sender));
    }
}

/// Removes all holds of a copy; returns their reasons.
///
/// # Errors
/// See [`Error`].
pub fn release(
    receiver: &Receiver,
    root: &OpenRoot,
    view: &View,
    copy: &str,
) -> Result<Vec<String>, Error> {
    let mut reasons = Vec::new();
    change(receiver, root, view, copy, |ledger, at| {
        let holds = std::mem::take(&mut ledger.entries[at].holds);
        reasons.extend(holds.into_iter().map(|hold| hold.reason));
        match reasons.is_empty() {
            true => Err(Error::NotHeld {
                volume: view.path(),
                copy: copy.to_owned(),
            }),
            false => Ok(()),
        }
    })?;
    note(receiver, view, |sender| ReceiverEvent::Released {
        sender,
        volume: view.volume.clone(),
        copy: copy.to_owned(),
    });
    Ok(reasons)
}

/// States the time of a copy, which is certain then. It must lie between those of its neighbours.
///
/// # Errors
/// See [`Error`].
pub fn retime(
    receiver: &Receiver,
    root: &OpenRoot,
    view: &View,
    (copy, time): (&str, i64),
) -> Result<(), Error> {
    if time > receiver.clock().now {
        let time = human::utc(time);
        return Err(Error::Future { time });
    }
    change(receiver, root, view, copy, |ledger, at| {
        let certain = |entry: &&ledger::Entry| entry.time.doubt.is_none();
        let before = ledger.entries[..at].iter().rev().find(certain);
        let after = ledger.entries[at + 1..].iter().find(certain);
        let (before, after) = (before.map(|e| e.time.at), after.map(|e| e.time.at));
        let fits =
            before.is_none_or(|before| before <= time) && after.is_none_or(|after| time <= after);
        if !fits {
            let named = |bound: Option<i64>| bound.map_or_else(|| "none".to_owned(), human::utc);
            return Err(Error::OutOfOrder {
                volume: view.path(),
                copy: copy.to_owned(),
                at: human::utc(time),
                bounds: format!("{} and {}", named(before), named(after)),
            });
        }
        let entry = &mut ledger.entries[at].time;
        (entry.at, entry.doubt, entry.boot, entry.previous) = (time, None, None, before);
        Ok(())
    })
}

/// Makes a new ledger of the copies that are there, with the times of their names. Returns their number.
///
/// # Errors
/// See [`Error`].
pub fn rebuild(receiver: &Receiver, root: &OpenRoot, view: &View) -> Result<usize, Error> {
    let failed = io_error(view);
    let found = volumes::with_info(&view.dir).map_err(&failed)?;
    let seen = receiver.generations().seen(root.id(), &view.path());
    let ledger =
        ledger::rebuild(&view.dir, found, (seen, receiver.clock().now)).map_err(&failed)?;
    let generations = receiver.generations();
    generations.note(root.id(), &view.path(), ledger.generation);
    Ok(ledger.entries.len())
}
