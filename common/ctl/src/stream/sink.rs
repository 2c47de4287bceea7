//! The output of streams.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sendshot_proto::problem::Problem;

use super::input::usage;

/// Standard output, or a file.
pub struct Sink {
    pub file: File,
    path: Option<PathBuf>,
}

impl Sink {
    /// Opens a file, or takes standard output.
    pub fn open(path: Option<&Path>) -> Result<Self, Problem> {
        let Some(path) = path else {
            let stdout = io::stdout();
            if stdout.is_terminal() {
                return Err(usage("a stream cannot be written to a terminal".into())
                    .remedy("pipe it somewhere, or name a file with -f"));
            }
            let file = File::from(rustix::io::dup(stdout).map_err(io::Error::from)?);
            return Ok(Self { file, path: None });
        };
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .map_err(|e| usage(format!("cannot open {}: {e}", path.display())))?;
        let is_file = file.metadata()?.is_file();
        let path = is_file.then(|| path.to_owned());
        Ok(Self { file, path })
    }

    /// Deletes the file: an incomplete stream is of no use.
    pub fn discard(self) {
        if let Some(path) = self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}
