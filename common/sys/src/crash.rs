//! Named places at which a test can have the process die, as a crash would have it.
//!
//! They exist only in builds with the feature `failpoints`; elsewhere [`point`] is nothing. Which of
//! them are armed stands in the environment variable `FAILPOINTS`, in the syntax of the crate
//! `fail`: `FAILPOINTS="commit-snapshot=2*off->1*return"` has the process killed when it comes to this
//! place for the third time.

/// A place. If it is armed, the process is killed here, without any clean-up.
#[cfg(feature = "failpoints")]
pub fn point(name: &str) {
    if fail::eval(name, |_| ()).is_some() {
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // The signal is delivered before anything else of this process runs on.
        loop {
            std::thread::park();
        }
    }
}

/// A place; nothing in this build.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn point(_: &str) {}

/// Reads which places are armed. To be called once, before any thread is started.
#[cfg(feature = "failpoints")]
pub fn arm() {
    // Dropping it would disarm them.
    std::mem::forget(fail::FailScenario::setup());
}

/// Nothing in this build.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn arm() {}
