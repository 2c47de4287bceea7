//! `sendshotctl status` on the receiving host.

use std::collections::BTreeMap;
use std::sync::Arc;

use sendshot_proto::failure::Failure;
use sendshot_proto::hello::software;
use sendshot_proto::problem::Problem;
use sendshot_proto::v1;
use sendshot_sys::filesystem;

use super::partials;
use super::request::blocking;
use crate::receive::failures::io_failure;
use crate::retention::undeletable::Undeletable;
use crate::retention::view::{self, View};
use crate::shared::receiver::Receiver;
use crate::store::clock::ClockTrouble;
use crate::store::confirmed::PausedThen;
use crate::store::root::OpenRoot;

/// Reports the disk, the clock, what comes in, and the copies of each volume. A disk that is absent is no error.
pub(super) async fn answer(
    receiver: &Arc<Receiver>,
) -> Result<v1::ReceiverStatusResponse, Problem> {
    let receiver = Arc::clone(receiver);
    blocking(move || status(&receiver)).await
}

fn status(receiver: &Receiver) -> v1::ReceiverStatusResponse {
    let mut status = v1::ReceiverStatusResponse {
        software: software("sendshot-receiver"),
        receiver_id: receiver.id().to_bytes().to_vec(),
        root: receiver.config().root.to_string_lossy().into_owned(),
        clock_trouble: receiver
            .clock()
            .trouble
            .map_or_else(String::new, ClockTrouble::describe),
        metrics_trouble: receiver.metrics_trouble().get().unwrap_or_default(),
        ..v1::ReceiverStatusResponse::default()
    };
    let root = receiver.root().open_to_read().map_err(Failure::from);
    let all = v1::CopiesRequest::default();
    let incoming = partials::partial_states(receiver, root.as_ref().ok(), &all);
    let looked = root.and_then(|root| look(receiver, &root, &mut status));
    status.is_read = looked.is_ok();
    let incoming = incoming.map(|incoming| status.incoming = incoming);
    if let Err(failure) = looked.and(incoming) {
        status.disk_problem = match failure.remedy.as_str() {
            "" => failure.to_string(),
            remedy => format!("{failure} ({remedy})"),
        };
    }
    status
}

fn look(
    receiver: &Receiver,
    root: &OpenRoot,
    status: &mut v1::ReceiverStatusResponse,
) -> Result<(), Failure> {
    status.root_id = root.id().to_bytes().to_vec();
    let space = filesystem::space(root).map_err(|e| io_failure("read the free space", &e))?;
    (status.free_bytes, status.total_bytes) = (space.free, space.total);
    status.min_free_bytes = receiver.config().min_free.of(space.total);
    let mut unreadable = Vec::new();
    let views = view::all_but(receiver, root, |_, _| true, |path| unreadable.push(path));
    let views = views.map_err(|e| io_failure("read the copies", &e))?;
    status.unreadable = unreadable;
    status.volumes = views.iter().map(|view| volume(receiver, view)).collect();
    Ok(())
}

fn volume(receiver: &Receiver, view: &View) -> v1::ReceivedVolume {
    let confirmed = receiver.confirmations().of(&view.path());
    let max_age = receiver.config().max_age(&view.sender, &view.volume);
    let newest = view.newest();
    let mut undeletable: BTreeMap<Undeletable, u64> = BTreeMap::new();
    for why in view.copies.iter().filter_map(Undeletable::of) {
        *undeletable.entry(why).or_default() += 1;
    }
    v1::ReceivedVolume {
        sender: view.sender.clone(),
        volume: view.volume.clone(),
        copies: u64::try_from(view.copies.len()).unwrap_or(u64::MAX),
        newest: newest.map_or_else(String::new, |copy| copy.name.clone()),
        newest_at: newest.map_or(0, view::Viewed::committed_at),
        confirmed_at: confirmed.as_ref().map_or(0, |confirmed| confirmed.at),
        paused_until: match confirmed.and_then(|confirmed| confirmed.paused) {
            None => 0,
            Some(PausedThen::WithoutEnd) => -1,
            Some(PausedThen::Until(until)) => until,
        },
        max_age: max_age.map_or(0, |age| age.as_secs()),
        rule: view.policy_text(),
        trouble: view.trouble.clone().unwrap_or_default(),
        asks: view
            .brake
            .map_or_else(String::new, |brake| brake.describe()),
        undeletable: undeletable
            .into_iter()
            .map(|(why, count)| v1::UndeletableCopies {
                count,
                reason: why.describe().to_owned(),
            })
            .collect(),
    }
}
