//! The limits of a sender, as configured by the administrator and counted here: a compromised sender reaches its
//! own limits, and does not fill other senders' space.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::time::Duration;

use sendshot_apply::staging::{Area, StagingError};
use sendshot_config::{MinFree, SenderPolicy};
use sendshot_model::{TransferId, VolumeId, human};
use sendshot_proto::failure::{Code, Failure};
use sendshot_proto::volume::VolumeKey;
use sendshot_sys::filesystem;

use crate::receive::failures::{io_failure, staging_failure};
use crate::store::partials;
use crate::store::root::OpenRoot;
use crate::store::usage;
use crate::store::volumes::{self, Caller};

/// How long the cleaner gets to free the space of what was deleted, before a push is refused.
const CLEANER_TIME: Duration = Duration::from_secs(1);

/// Refuses a volume beyond the limit.
///
/// # Errors
/// The failure for the sender.
pub(crate) fn check_volumes(
    root: impl AsFd,
    caller: &Caller,
    volume: &VolumeKey,
    policy: &SenderPolicy,
) -> Result<(), Failure> {
    let failed = |e| io_failure("count the volumes of the sender", &e);
    if volumes::find(&root, caller, volume)
        .map_err(failed)?
        .is_some()
    {
        return Ok(());
    }
    let all = volumes::all(&root).map_err(failed)?;
    let there = all
        .iter()
        .filter(|(sender, ..)| *sender == caller.name.as_str());
    if there.count() < policy.max_volumes.get() as usize {
        return Ok(());
    }
    Err(over(
        format!("it has {} volumes here", policy.max_volumes),
        "max_volumes",
        "have the directories of unneeded volumes deleted",
    ))
}

/// Refuses a push if less than `min_free` is left on the disk.
///
/// # Errors
/// The failure for the sender.
pub(crate) fn check_free(root: &OpenRoot, min_free: MinFree) -> Result<(), Failure> {
    let failed = |e| io_failure("read the free space", &e);
    let look = || -> Result<Option<(u64, u64)>, Failure> {
        let space = filesystem::space(root).map_err(failed)?;
        let least = min_free.of(space.total);
        Ok((space.free < least).then_some((space.free, least)))
    };
    if look()?.is_none() {
        return Ok(());
    }
    // The space of what was deleted just now is really back after a commit, and some work of the cleaner.
    filesystem::sync(root).map_err(failed)?;
    std::thread::sleep(CLEANER_TIME);
    match look()? {
        None => Ok(()),
        Some((free, least)) => Err(Failure::new(
            Code::NoSpace,
            format!(
                "the receiver's disk has {} free, and `min_free` keeps {}",
                human::bytes_human(free),
                human::bytes_human(least)
            ),
            "delete copies on the receiver (`sendshotctl copy prune`, `copy delete`), grow its file system, or lower \
             `min_free` in its receiver.toml",
        )),
    }
}

/// Refuses a push beyond the limit of partials.
///
/// # Errors
/// The failure for the sender.
pub(crate) fn check_partials(
    area: impl AsFd,
    caller: &Caller,
    policy: &SenderPolicy,
) -> Result<(), Failure> {
    let all =
        partials::all(area).map_err(|e| io_failure("count the partials of the sender", &e))?;
    let there = all
        .iter()
        .filter(|partial| partial.record.sender_name == caller.name);
    if there.count() < policy.max_partials.get() as usize {
        return Ok(());
    }
    Err(over(
        format!("{} pushes of it are interrupted here", policy.max_partials),
        "max_partials",
        "push one of those volumes again, so that it is completed",
    ))
}

/// Bytes that a sender may still use for a push of `volume`, besides its copies and interrupted pushes; `None` if
/// there is no limit. Running and waiting transfers are counted elsewhere: `at_work` returns them, and is called
/// after the interrupted ones are known. An interrupted push of this volume does not count, as this push takes its place.
///
/// # Errors
/// The failure for the sender.
pub(crate) fn bytes_left(
    root: &OpenRoot,
    (caller, volume): (&Caller, VolumeId),
    policy: &SenderPolicy,
    at_work: impl FnOnce() -> Vec<TransferId>,
) -> Result<Option<u64>, Failure> {
    let Some(most) = policy.max_bytes else {
        return Ok(None);
    };
    let failed = |e| io_failure("count the copies and partials of the sender", &e);
    let waiting = interrupted(root, (caller, volume), at_work)?;
    let mut used: u64 = 0;
    for (sender, _, dir) in volumes::all(root).map_err(failed)? {
        if sender == caller.name.as_str() {
            let bytes = usage::of(&dir, |state| waiting.contains(&state)).map_err(failed)?;
            used = used.saturating_add(bytes);
        }
    }
    Ok(Some(most.saturating_sub(used)))
}

/// The states of a sender's interrupted pushes, without those of `volume` and those at work.
fn interrupted(
    root: &OpenRoot,
    (caller, volume): (&Caller, VolumeId),
    at_work: impl FnOnce() -> Vec<TransferId>,
) -> Result<BTreeSet<usage::State>, Failure> {
    let failed = |e: StagingError| staging_failure(&e);
    let area = Area::new(root).map_err(|e| io_failure("look for partials", &e))?;
    if !area.exists() {
        return Ok(BTreeSet::new());
    }
    let all = partials::all(area.dir().map_err(failed)?)
        .map_err(|e| io_failure("count the partials of the sender", &e))?;
    let at_work = at_work();
    let own = all.into_iter().map(|partial| partial.record);
    let own = own.filter(|r| r.sender_name == caller.name && !r.concerns(caller, volume));
    let own = own.filter(|r| !at_work.contains(&r.transfer));
    Ok(own.map(|record| (record.uuid, record.ctransid)).collect())
}

/// Makes the failure for a push beyond the sender's limit of bytes.
pub(crate) fn too_many_bytes(policy: &SenderPolicy) -> Failure {
    let most = human::bytes_human(policy.max_bytes.unwrap_or(0));
    over(
        format!("it has {most} here, with this push"),
        "max_bytes",
        "delete unneeded copies",
    )
}

/// Makes the failure for a sender with too many concurrent pushes.
pub(crate) fn too_many_pushes(policy: &SenderPolicy) -> Failure {
    over(
        format!(
            "{} pushes of it are running or waiting here",
            policy.max_partials
        ),
        "max_partials",
        "push again when one of them has ended",
    )
}

/// Makes the failure for a limit. `own` is a remedy without a higher limit.
fn over(what: String, key: &str, own: &str) -> Failure {
    Failure::new(
        Code::OverLimit,
        format!("the sender has reached a limit: {what}"),
        format!(
            "{own}; or ask the receiver's administrator to raise `{key}` of this sender in receiver.toml"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_pushes_are_not_to_be_helped_by_deleting_copies() {
        let failure = too_many_pushes(&SenderPolicy::default());
        assert!(failure.remedy.contains("max_partials"), "{failure:?}");
        assert!(!failure.remedy.contains("copies"), "{failure:?}");
    }
}
