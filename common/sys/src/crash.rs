//! Named points at which a test can kill the process, like a crash, and settings of tests.
//!
//! They exist only in builds with the feature `failpoints`; in others [`point`] does nothing. The environment
//! variable `FAILPOINTS` arms them, in the syntax of the crate `fail`:
//! `FAILPOINTS="commit-snapshot=2*off->1*return"` kills the process when it reaches this point for the third
//! time.

/// A crash point. If it is armed, the process is killed here, without any clean-up.
#[cfg(feature = "failpoints")]
pub fn point(name: &str) {
    if fail::eval(name, |_| ()).is_some() {
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // The signal is delivered before any other code of this process runs.
        loop {
            std::thread::park();
        }
    }
}

/// A crash point, which does nothing in this build.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn point(_: &str) {}

/// Arms the points named in the environment. It must be called once, before any thread is started.
#[cfg(feature = "failpoints")]
pub fn arm() {
    // Dropping the scenario would disarm them.
    std::mem::forget(fail::FailScenario::setup());
}

/// Does nothing in this build.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn arm() {}

/// A setting of tests: the value of an environment variable.
#[cfg(feature = "failpoints")]
pub fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// `None` in this build.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn setting(_: &str) -> Option<String> {
    None
}
