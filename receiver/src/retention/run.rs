//! Runs: deletes what goes, of every volume.

use std::io;

use sendshot_sys::filesystem;

use crate::retention::delete::{self, Deleted};
use crate::retention::view::{self, LockedView, View};
use crate::shared::receiver::Receiver;
use crate::store::ledger::Run;
use crate::store::root::OpenRoot;

/// What a run did with a volume.
#[derive(Debug)]
pub enum Done {
    /// Nothing was to be deleted.
    Nothing,
    Deleted(Deleted),
    /// Nothing was deleted: the administrator must confirm.
    Asks(String),
    /// Nothing was deleted: the ledger or the clock forbids it.
    Forbidden(String),
}

/// Runs over the volumes that `wanted` selects by sender and volume. Blocks.
pub fn over(receiver: &Receiver, wanted: impl Fn(&str, &str) -> bool) {
    let Ok(root) = receiver.root().open() else {
        return; // an absent root is reported by the pushes
    };
    let mut is_freed = false;
    let looked = view::each_locked(receiver, &root, wanted, |locked| {
        is_freed |= of_volume(receiver, &root, &locked);
    });
    if let Err(e) = looked {
        tracing::warn!("cannot look for copies to delete: {e}");
    }
    if is_freed && let Err(e) = filesystem::sync(&root) {
        tracing::debug!("cannot commit the file system after deleting copies: {e}");
    }
}

/// Runs over a volume; returns whether copies were deleted.
fn of_volume(receiver: &Receiver, root: &OpenRoot, locked: &LockedView) -> bool {
    let path = locked.view.path();
    match volume(receiver, root, locked, None) {
        Ok(Done::Nothing) => return false,
        Ok(Done::Deleted(deleted)) => {
            report(&path, &deleted);
            return !deleted.names.is_empty();
        }
        Ok(Done::Asks(why)) => {
            if receiver.logged_reasons().is_new(&path, &why) {
                tracing::warn!(
                    "no copy of {path} is deleted: {why}; look at `sendshotctl copy prune --dry-run`, and \
                                confirm by `sendshotctl copy prune --confirm`"
                );
            }
        }
        Ok(Done::Forbidden(why)) => {
            let would_go = locked.view.going().next().is_some();
            if would_go && receiver.logged_reasons().is_new(&path, &why) {
                tracing::warn!("no copy of {path} is deleted: {why}");
            }
        }
        Err(e) => tracing::warn!("cannot delete copies of {path}: {e}"),
    }
    false
}

fn report(path: &str, deleted: &Deleted) {
    if !deleted.names.is_empty() {
        let count = deleted.names.len();
        tracing::info!(
            volume = path,
            count,
            "deleted {count} copies of {path} by its rule: {}",
            sendshot_model::human::few(&deleted.names)
        );
    }
    for (name, why) in &deleted.left {
        tracing::info!(volume = path, copy = %name, "{path}/{name} is not deleted: {why}");
    }
}

/// Deletes what goes of a volume. `confirmed` are the copies that the administrator has confirmed; they must be exactly
/// those that go.
///
/// # Errors
/// I/O errors.
pub fn volume(
    receiver: &Receiver,
    root: &OpenRoot,
    locked: &LockedView,
    confirmed: Option<&[String]>,
) -> io::Result<Done> {
    let view = &locked.view;
    if let Some(why) = &view.trouble {
        return Ok(Done::Forbidden(why.clone()));
    }
    let Some(ledger) = &view.ledger else {
        return Ok(Done::Nothing);
    };
    let mut names: Vec<String> = view.going().map(|copy| copy.name.clone()).collect();
    names.sort();
    if let Some(confirmed) = confirmed
        && confirmed != names
    {
        return Ok(Done::Asks(
            "other copies go now than those that were confirmed".to_owned(),
        ));
    }
    // The clock by which the copies were judged, and the clock now.
    if let Some(trouble) = view.reading.trouble.or(receiver.clock().trouble) {
        return Ok(Done::Forbidden(trouble.describe()));
    }
    if confirmed.is_none()
        && let Some(brake) = view.brake
    {
        if view.is_changed {
            note(receiver, root, view, (None, &Deleted::default()))?;
        }
        return Ok(Done::Asks(brake.describe()));
    }
    let policy = view.policy_text();
    let is_other_rule = ledger.run.as_ref().is_none_or(|run| run.policy != policy);
    // A volume without a rule needs no note of a run, and a run that leaves copies because they are in use is not completed.
    let is_in_use = view.copies.iter().any(|copy| copy.in_use.is_some());
    let is_noted = is_other_rule && !is_in_use && view.policy.rule != sendshot_retention::Rule::All;
    let run = is_noted.then_some(Run {
        policy,
        at: view.reading.now,
    });
    if names.is_empty() && run.is_none() && !view.is_changed {
        return Ok(Done::Nothing);
    }
    let mut deleted = Deleted::default();
    if !names.is_empty() {
        deleted = delete::copies(receiver, root, view, (&names, "by its rule"))?;
    }
    let run = run.filter(|_| deleted.left.is_empty());
    if run.is_some() || (names.is_empty() && view.is_changed) {
        note(receiver, root, view, (run, &deleted))?;
    }
    Ok(match names.is_empty() {
        true => Done::Nothing,
        false => Done::Deleted(deleted),
    })
}

/// Notes the rule of a completed run, and what a crash or a user has changed.
fn note(
    receiver: &Receiver,
    root: &OpenRoot,
    view: &View,
    (run, deleted): (Option<Run>, &Deleted),
) -> io::Result<()> {
    let Some(mut ledger) = view.ledger.clone() else {
        return Ok(());
    };
    if let Some(seen) = receiver.generations().seen(root.id(), &view.path()) {
        ledger.generation = ledger.generation.max(seen);
    }
    ledger.remove(|entry| deleted.names.contains(&entry.name));
    if run.is_some() {
        ledger.run = run;
    }
    delete::write(receiver, root, view, &mut ledger)?;
    view.held.as_ref().inspect(|held| held.log());
    Ok(())
}
