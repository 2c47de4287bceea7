//! Named fail points at which the daemons can be made to die.

/// Environment variable that arms them in a daemon.
pub const VARIABLE: &str = "FAILPOINTS";

/// Whether the daemons were built with fail points.
pub const BUILT: bool = cfg!(feature = "failpoints");

/// Fail points of the sender, in the order of a push.
pub const SENDER: [&str; 11] = [
    "snapshot-record",
    "snapshot-made",
    "snapshot-noted",
    "capture-saved",
    "begin-noted",
    "mark-written",
    "end-announced",
    "acknowledged-noted",
    "release-snapshot",
    "release-committed",
    "prune-record",
];

/// Fail points of the receiver, in the order of a push.
pub const RECEIVER: [&str; 11] = [
    "partial-noted",
    "staging-made",
    "checkpoint-flushed",
    "checkpoint-made",
    "checkpoint-old-dropped",
    "commit-flushed",
    "commit-noted",
    "commit-received",
    "commit-snapshot",
    "commit-destroyed",
    "partial-forgotten",
];

/// Fail points of the program that restores, in the order of a restore.
pub const RESTORE: [&str; 11] = [
    "restore-staged",
    "restore-flushed",
    "restore-kept",
    "restore-noted",
    "restore-frozen",
    "restore-finished",
    "restore-published",
    "restore-committed",
    "restore-swap-recorded",
    "restore-beside",
    "restore-exchanged",
];

/// Fail points of the sender while it records a volume that was restored in its place.
pub const RECORD: [&str; 3] = ["restore-intent", "restore-captured", "restore-recorded"];

/// Fail points of the receiver while it deletes copies by a rule.
pub const RETENTION: [&str; 5] = [
    "retention-marked",
    "retention-destroyed",
    "retention-committed",
    "retention-counted",
    "retention-done",
];

/// Fail points of the receiver while it commits a copy and enters it into the ledger.
pub const LEDGER: [&str; 7] = [
    "ledger-expects",
    "commit-flushed",
    "commit-noted",
    "commit-received",
    "commit-snapshot",
    "ledger-committed",
    "ledger-entered",
];

/// Value that arms a fail point: the daemon dies there after passing it `passed` times.
pub fn armed(name: &str, passed: u64) -> String {
    match passed {
        0 => format!("{name}=1*return"),
        n => format!("{name}={n}*off->1*return"),
    }
}
