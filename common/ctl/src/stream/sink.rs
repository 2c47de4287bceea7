//! The output of streams.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use sendshot_proto::problem::Problem;
use sendshot_sys::pipe;

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

/// Parts of a stream that wait to be written.
const QUEUE: usize = 4;

/// Writes a stream on a thread of its own, so that the next part is made meanwhile.
pub struct Writing {
    parts: Option<mpsc::SyncSender<Vec<u8>>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Writing {
    /// Starts to write to a file or pipe.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(mut file: File) -> io::Result<Self> {
        pipe::enlarge(&file);
        let (parts, waiting) = mpsc::sync_channel::<Vec<u8>>(QUEUE);
        let thread = thread::Builder::new().name("write".into());
        let write = move || waiting.iter().try_for_each(|part| file.write_all(&part));
        Ok(Self {
            parts: Some(parts),
            thread: Some(thread.spawn(write)?),
        })
    }

    /// Passes a part on.
    ///
    /// # Errors
    /// Those of writing this part or an earlier one.
    pub fn part(&mut self, part: Vec<u8>) -> io::Result<()> {
        match self.parts.as_ref().map(|parts| parts.send(part)) {
            Some(Ok(())) => Ok(()),
            // The thread has ended, and says why.
            Some(Err(_)) | None => self.finish().and(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Waits until everything is written.
    ///
    /// # Errors
    /// Those of writing.
    pub fn finish(&mut self) -> io::Result<()> {
        self.parts = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(written)) => written,
            Some(Err(_)) => Err(io::Error::other(
                "the thread that writes the stream has died",
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn all_parts_are_written_in_order_and_a_reader_that_leaves_is_an_error() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut writing = Writing::start(File::from(std::os::fd::OwnedFd::from(writer))).unwrap();
        let reading = thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            all
        });
        for n in 0..100_u8 {
            writing.part(vec![n; 100_000]).unwrap();
        }
        writing.finish().unwrap();
        let expected: Vec<u8> = (0..100_u8).flat_map(|n| vec![n; 100_000]).collect();
        drop(writing);
        assert!(reading.join().unwrap() == expected);

        let (reader, writer) = io::pipe().unwrap();
        let mut writing = Writing::start(File::from(std::os::fd::OwnedFd::from(writer))).unwrap();
        drop(reader);
        let mut parts = (0..100).map(|_| writing.part(vec![0; 100_000]));
        let failed = parts.find_map(Result::err).unwrap();
        assert_eq!(failed.kind(), io::ErrorKind::BrokenPipe);
    }
}
