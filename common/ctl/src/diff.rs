//! `sendshotctl diff`: what changed between two sendshots, path by path, without the snapshots.

use std::collections::HashMap;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use sendshot_engine::diff::{self, Sink, Step, Version, diff};
use sendshot_model::human;
use sendshot_proto::problem::{Kind, Problem};
use sendshot_stream::{Command, dump};
use serde::Serialize;

use crate::outcome::Outcome;
use crate::output::Output;

/// Shows the changes from one sendshot to another.
pub fn run(old: &Path, new: &Path, output: &Output) -> Outcome {
    let open =
        |path: &Path| sendshot_engine::open(path).map_err(|e| Problem::from_error(Kind::Usage, &e));
    let (old, new) = (open(old)?, open(new)?);
    let mut changes = Changes {
        out: BufWriter::new(io::stdout().lock()),
        json: output.is_json(),
        waiting: HashMap::new(),
        current: None,
    };
    let result = diff(Some(&old), &new, b"", Version::V2, &mut changes);
    match result.and_then(|()| changes.flush()) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // The reader has closed the pipe.
        Err(Error::Write(e)) if e.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(Problem::from_error(Kind::Failed, &error)),
    }
}

/// Why the changes cannot be shown.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Diff(#[from] diff::Error),
    #[error("cannot write the list")]
    Write(#[from] io::Error),
}

/// The change of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum What {
    New,
    Gone,
    Moved,
    Linked,
    Changed,
    Attributes,
    Times,
}

#[derive(Debug, Serialize)]
struct Change {
    change: What,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// Bytes of data that a push would send for the path.
    bytes: u64,
}

/// Turns the steps of a stream back into changes.
struct Changes<W: Write> {
    out: W,
    json: bool,
    /// Paths that are temporarily moved away: temporary name to original path.
    waiting: HashMap<Vec<u8>, String>,
    /// The change of the current path, as the steps of one path follow each other.
    current: Option<Change>,
}

fn text(path: &[u8]) -> String {
    match path {
        [] => ".".to_owned(),
        path => dump::escaped(path).to_string(),
    }
}

impl<W: Write> Changes<W> {
    fn flush(&mut self) -> Result<(), Error> {
        if let Some(change) = self.current.take() {
            self.print(&change)?;
        }
        Ok(self.out.flush()?)
    }

    fn print(&mut self, change: &Change) -> io::Result<()> {
        if self.json {
            return writeln!(self.out, "{}", serde_json::to_string(change)?);
        }
        let what = match change.change {
            What::New => "new",
            What::Gone => "gone",
            What::Moved => "moved",
            What::Linked => "linked",
            What::Changed => "changed",
            What::Attributes => "attributes",
            What::Times => "times",
        };
        write!(self.out, "{what:<11}{}", change.path)?;
        if let Some(from) = &change.from {
            write!(self.out, "  (from {from})")?;
        }
        if change.bytes > 0 {
            write!(self.out, "  {}", human::bytes_human(change.bytes))?;
        }
        writeln!(self.out)
    }

    /// Adds a change to the current path; the more significant one wins.
    fn note(&mut self, change: What, path: &[u8], bytes: u64) -> io::Result<()> {
        let path = text(path);
        match &mut self.current {
            Some(current) if current.path == path && current.change != What::Linked => {
                current.bytes += bytes;
                let order = |kind| match kind {
                    What::New => 3,
                    What::Changed => 2,
                    What::Attributes => 1,
                    _ => 0,
                };
                if order(change) > order(current.change) {
                    current.change = change;
                }
                Ok(())
            }
            _ => self.replace(Change {
                change,
                path,
                from: None,
                bytes,
            }),
        }
    }

    fn replace(&mut self, change: Change) -> io::Result<()> {
        match self.current.replace(change) {
            Some(before) => self.print(&before),
            None => Ok(()),
        }
    }

    fn moved(&mut self, path: &[u8], to: &[u8]) -> io::Result<()> {
        let from = self.waiting.remove(path).unwrap_or_else(|| text(path));
        if diff::is_temporary(to) {
            self.waiting.insert(to.to_vec(), from);
            return Ok(());
        }
        self.replace(Change {
            change: What::Moved,
            path: text(to),
            from: Some(from),
            bytes: 0,
        })
    }

    fn command(&mut self, command: &Command<'_>) -> io::Result<()> {
        match *command {
            Command::Mkfile { path }
            | Command::Mkdir { path }
            | Command::Mknod { path, .. }
            | Command::Mkfifo { path }
            | Command::Mksock { path }
            | Command::Symlink { path, .. } => self.note(What::New, path, 0),
            Command::Rename { path, to } => self.moved(path, to),
            Command::Link { path, existing } => self.replace(Change {
                change: What::Linked,
                path: text(path),
                from: Some(text(existing)),
                bytes: 0,
            }),
            Command::Unlink { path } | Command::Rmdir { path } => self.note(What::Gone, path, 0),
            Command::Truncate { path, .. }
            | Command::Fallocate { path, .. }
            | Command::Clone { path, .. } => self.note(What::Changed, path, 0),
            Command::SetXattr { path, .. }
            | Command::RemoveXattr { path, .. }
            | Command::Chmod { path, .. }
            | Command::Chown { path, .. }
            | Command::Fileattr { path, .. } => self.note(What::Attributes, path, 0),
            Command::Utimes { path, .. } => self.note(What::Times, path, 0),
            Command::Subvol { .. }
            | Command::Snapshot { .. }
            | Command::Write { .. }
            | Command::EncodedWrite { .. }
            | Command::UpdateExtent { .. }
            | Command::End => Ok(()),
        }
    }
}

impl<W: Write> Sink for Changes<W> {
    type Error = Error;

    fn step(&mut self, step: Step<'_>) -> Result<(), Error> {
        match step {
            Step::Command(command) => self.command(&command)?,
            Step::Data { path, len, .. } => self.note(What::Changed, path, len)?,
            Step::Encoded { path, extent, .. } => {
                self.note(What::Changed, path, extent.disk_len)?;
            }
            Step::Check { .. } | Step::Hash { .. } => {}
        }
        Ok(())
    }
}
