//! Deletes copies of a volume.
//!
//! Steps, and what a crash after each leaves:
//!
//! 1. Mark the entries in the ledger. — Marks, which the next run removes.
//! 2. Delete each subvolume by its id, after its UUID was compared and nothing uses it. — Copies that are gone, and their
//!    entries; the next run removes those.
//! 3. Commit. After a power cut before it, some copies are back; their marks are removed. — As after 2.
//! 4. Give the size of each to its younger neighbour, for `max_bytes`. — As after 2; the sizes count the states that are
//!    there.
//! 5. Remove the entries. — The result.

use std::io;

use sendshot_model::history::ReceiverEvent;
use sendshot_sys::{crash, filesystem, subvolume};
use uuid::Uuid;

use crate::retention::recount;
use crate::retention::view::View;
use crate::shared::receiver::Receiver;
use crate::store::ledger::{self, Ledger};
use crate::store::root::OpenRoot;
use crate::store::{usage, volumes};

/// The copies that were deleted, and those that were not, with the reason.
#[derive(Debug, Default)]
pub struct Deleted {
    pub names: Vec<String>,
    pub left: Vec<(String, String)>,
}

/// Deletes copies by their names, for a reason that the history notes. The volume must have a good ledger.
///
/// # Errors
/// I/O errors of the ledger; what was deleted then is completed by the next run.
pub(super) fn copies(
    receiver: &Receiver,
    root: &OpenRoot,
    view: &View,
    (names, reason): (&[String], &str),
) -> io::Result<Deleted> {
    let mut deleted = Deleted::default();
    let Some(mut ledger) = view.ledger.clone() else {
        return Ok(deleted);
    };
    let mut going: Vec<Uuid> = Vec::new();
    for entry in &mut ledger.entries {
        if names.contains(&entry.name) {
            entry.is_going = true;
            going.push(entry.local);
        }
    }
    if going.is_empty() {
        return Ok(deleted);
    }
    match write(receiver, root, view, &mut ledger) {
        // On a full disk, only deleting helps; the marks only say what a crash has interrupted.
        Err(e) if e.kind() == io::ErrorKind::StorageFull => {}
        written => written?, // 1
    }
    crash::point("retention-marked");
    let mut states = Vec::new();
    for copy in view
        .copies
        .iter()
        .filter(|copy| going.contains(&copy.info.uuid))
    {
        match one(receiver, root, view, &copy.name, copy.info.uuid) {
            Ok(()) => {
                deleted.names.push(copy.name.clone());
                let state = (copy.info.received_uuid, copy.info.stransid);
                states.push((copy.info.uuid, state));
            }
            Err(why) => deleted.left.push((copy.name.clone(), why)),
        }
    }
    if !deleted.names.is_empty() {
        filesystem::commit(root)?; // 3
    }
    crash::point("retention-committed");
    if let (Ok(sender), false) = (view.sender.parse(), deleted.names.is_empty()) {
        receiver.note(ReceiverEvent::Pruned {
            sender,
            volume: view.volume.clone(),
            copies: deleted.names.clone(),
            reason: reason.to_owned(),
        });
    }
    let order: Vec<usage::State> = ledger
        .entries
        .iter()
        .map(|entry| (entry.uuid, entry.ctransid))
        .collect();
    let goes = |local: Uuid| {
        let mut gone = ledger
            .entries
            .iter()
            .filter(|entry| deleted.names.contains(&entry.name));
        gone.any(|entry| entry.local == local)
    };
    let has_partial = view.has_partial;
    let states: Vec<usage::Deleted> = states
        .into_iter()
        .map(|(local, state)| usage::Deleted {
            state,
            // What a push has cloned that is not committed is not known.
            is_only_in_heir: !has_partial && recount::is_only_in_heir(&ledger.entries, local, goes),
        })
        .collect();
    usage::give_to_younger(&view.dir, &order, &states)?; // 4
    if !states.is_empty() {
        receiver.deleted().notify_one();
    }
    crash::point("retention-counted");
    ledger.remove(|entry| deleted.names.contains(&entry.name));
    for entry in &mut ledger.entries {
        entry.is_going = false;
    }
    write(receiver, root, view, &mut ledger)?; // 5
    crash::point("retention-done");
    Ok(deleted)
}

/// Deletes a copy, if it is still the one that was judged and nothing uses it.
fn one(
    receiver: &Receiver,
    root: &OpenRoot,
    view: &View,
    name: &str,
    local: Uuid,
) -> Result<(), String> {
    let failed = |e: io::Error| e.to_string();
    let opened = volumes::open_copy(&view.dir, name).map_err(failed)?;
    let (fd, info) = opened.ok_or("it is not there any more")?;
    if info.uuid != local || !info.is_pristine() {
        return Err("it was replaced or changed just now".to_owned());
    }
    if !subvolume::children(root, info.id)
        .map_err(failed)?
        .is_empty()
    {
        return Err("a subvolume lies in it".to_owned());
    }
    let id = volumes::id_of(&view.dir);
    let delete = || subvolume::destroy_by_id(&fd, info.id);
    // While the tables are locked, no push and no restore begins.
    let delete = || {
        receiver
            .fetches()
            .unless_fetched(&view.sender, &view.volume, name, delete)
    };
    match receiver
        .transfers()
        .unless_at_work(&view.sender, id, delete)
    {
        None | Some(None) => Err("it came into use just now".to_owned()),
        Some(Some(done)) => done.map_err(failed), // 2
    }
    .inspect(|()| crash::point("retention-destroyed"))
}

/// Writes a ledger, and notes its generation.
pub(super) fn write(
    receiver: &Receiver,
    root: &OpenRoot,
    view: &View,
    ledger: &mut Ledger,
) -> io::Result<()> {
    ledger::write(&view.dir, ledger)?;
    let generations = receiver.generations();
    generations.note(root.id(), &view.path(), ledger.generation);
    Ok(())
}
