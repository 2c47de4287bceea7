//! Gives up the privileges of a process that its work does not need.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

pub use rustix::thread::CapabilitySet as Capabilities;

/// Keeps only these capabilities, of those that the process has, and makes it impossible to gain any. Must be called
/// before another thread is started: it holds for this thread and those that it starts.
///
/// # Errors
/// The kernel's error.
pub fn keep_only(kept: Capabilities) -> io::Result<()> {
    set_no_new_privs(true)?;
    let now = capabilities(None)?;
    // Only a process with this capability has a bounding set to narrow.
    if now.effective.contains(CapabilitySet::SETPCAP) {
        for (_, capability) in CapabilitySet::all().iter_names() {
            // An older kernel does not know the newest ones.
            let is_in = capability_is_in_bounding_set(capability).unwrap_or(false);
            if is_in && !kept.contains(capability) {
                remove_capability_from_bounding_set(capability)?;
            }
        }
    }
    let narrowed = now.permitted & kept;
    set_capabilities(
        None,
        CapabilitySets {
            effective: narrowed,
            permitted: narrowed,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_kept_is_gone() {
        // On a thread of its own: the others of this process keep theirs.
        let thread = std::thread::spawn(|| {
            let before = capabilities(None).unwrap().permitted;
            let kept = CapabilitySet::CHOWN | CapabilitySet::SYS_ADMIN;
            keep_only(kept).unwrap();
            let after = capabilities(None).unwrap();
            assert_eq!(after.permitted, before & kept);
            assert_eq!(after.effective, before & kept);
            assert!(!after.permitted.contains(CapabilitySet::SYS_MODULE));
        });
        thread.join().unwrap();
    }
}
