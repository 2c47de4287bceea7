//! A restore that is to be disturbed.

use std::path::PathBuf;

use sendshot_harness::compare::exact::Reference;
use sendshot_harness::trees::random::Random;

/// Sizes between two points to continue from, in bytes: several in a stream of a few segments.
const CHECKPOINTS: &[u64] = &[1, 256 << 10, 1 << 20, 64 << 20];

/// Times for which a broken connection is made again.
const RETRIES: &[&str] = &["0s", "0s", "2s"];

/// A copy at the receiver.
#[derive(Debug, Clone)]
pub(super) struct Copy {
    pub(super) name: String,
    pub(super) path: PathBuf,
}

/// A restore.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) copy: Copy,
    /// Whether the command names no copy: it is the newest.
    pub(super) is_newest: bool,
    /// The subvolume that the command makes, or the volume.
    pub(super) target: PathBuf,
    pub(super) destination: Destination,
    checkpoint_bytes: u64,
    retry_for: &'static str,
}

/// Where a copy goes.
#[derive(Debug)]
pub(super) enum Destination {
    /// To a name that is free.
    Free,
    /// To an empty directory.
    EmptyDirectory,
    /// To the place of its volume.
    InPlace {
        /// UUID of the old volume.
        old: String,
        /// Its content.
        content: Reference,
    },
}

impl Task {
    pub(super) fn new(
        copy: Copy,
        is_newest: bool,
        target: PathBuf,
        destination: Destination,
        random: &mut Random,
    ) -> Self {
        Self {
            copy,
            is_newest,
            target,
            destination,
            checkpoint_bytes: random.pick(CHECKPOINTS),
            retry_for: random.pick(RETRIES),
        }
    }

    /// The arguments of the command.
    pub(super) fn arguments(&self) -> Vec<String> {
        let bytes = self.checkpoint_bytes.to_string();
        let mut all = ["--json", "--checkpoint-bytes", &bytes]
            .map(str::to_owned)
            .to_vec();
        all.extend(["--retry-for", self.retry_for].map(str::to_owned));
        all.push("nas2:photos".to_owned());
        if !self.is_newest {
            all.extend(["--at".to_owned(), self.copy.name.clone()]);
        }
        match self.destination {
            Destination::InPlace { .. } => all.push("--in-place".to_owned()),
            Destination::Free | Destination::EmptyDirectory => {
                all.push(self.target.display().to_string())
            }
        }
        all
    }
}
