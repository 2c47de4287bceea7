//! A daemon's record of what happened: lines of JSON in its state directory.
//!
//! There are at most four files, of which `history.jsonl` is the newest and `history.jsonl.3` the oldest. The daemon is
//! the only writer. A line that a crash cut off stays in the file, and no reader shows it.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::marker::PhantomData;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use sendshot_model::history::{Entry, Head, Selection};
use serde::Serialize;

/// Name of the newest file.
const FILE: &str = "history.jsonl";

/// Files that are kept besides the newest one.
const OLDER: usize = 3;

/// Size at which a new file begins, in bytes.
const MAX_LEN: u64 = 4 << 20;

/// Bytes of lines that a reader gets at a time, about.
const PART: usize = 256 << 10;

/// Only the daemon reads the files; others ask it.
const MODE: u32 = 0o600;

/// The history of a daemon, with its kind of events.
#[derive(Debug)]
pub struct History<E> {
    path: PathBuf,
    max_len: u64,
    writing: Mutex<()>,
    events: PhantomData<fn(E)>,
}

impl<E: Serialize> History<E> {
    /// The history of a state directory. Touches nothing: a program that only reads the state can have it, too.
    #[must_use]
    pub fn of(state_dir: &Path) -> Self {
        Self::with_limit(state_dir, MAX_LEN)
    }

    fn with_limit(state_dir: &Path, max_len: u64) -> Self {
        Self {
            path: state_dir.join(FILE),
            max_len,
            writing: Mutex::new(()),
            events: PhantomData,
        }
    }

    /// Adds an event that happened now. It is not forced to the disk: a power cut may take the last ones.
    ///
    /// An error is only logged, because nothing that happens depends on its record. Blocks.
    pub fn note(&self, event: E) {
        let entry = Entry {
            at: Timestamp::now(),
            event,
        };
        if let Err(e) = self.append(&entry) {
            tracing::warn!("cannot write the history to {}: {e}", self.path.display());
        }
    }

    fn append(&self, entry: &Entry<E>) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = self.open()?;
        let mut len = file.metadata()?.len();
        if len > 0 && len + line.len() as u64 > self.max_len {
            self.rotate()?;
            file = self.open()?;
            len = file.metadata()?.len();
        }
        if is_torn(&file, len)? {
            line.insert(0, b'\n');
        }
        file.write_all(&line)
    }

    fn open(&self) -> io::Result<File> {
        let mut options = File::options();
        options.read(true).append(true).create(true).mode(MODE);
        options.open(&self.path)
    }

    /// Renames each file to the next number, over the oldest one. A crash in between leaves out a number, which costs
    /// only an older file than necessary.
    fn rotate(&self) -> io::Result<()> {
        for number in (0..OLDER).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    fn numbered(&self, number: usize) -> PathBuf {
        match number {
            0 => self.path.clone(),
            number => self.path.with_file_name(format!("{FILE}.{number}")),
        }
    }

    /// Gives the selected lines, the oldest first, to `take` in parts, until it returns false. Blocks.
    ///
    /// # Errors
    /// I/O errors.
    pub fn read(
        &self,
        selection: &Selection,
        mut take: impl FnMut(Vec<String>) -> bool,
    ) -> io::Result<()> {
        let (mut part, mut bytes) = (Vec::new(), 0);
        for file in self.open_all()? {
            for line in BufReader::new(file).split(b'\n') {
                let Some(line) = selected(line?, selection) else {
                    continue;
                };
                bytes += line.len();
                part.push(line);
                if bytes < PART {
                    continue;
                }
                bytes = 0;
                if !take(std::mem::take(&mut part)) {
                    return Ok(());
                }
            }
        }
        if !part.is_empty() {
            take(part);
        }
        Ok(())
    }

    /// Opens all files, the oldest first. Later renames do not matter to the reader.
    fn open_all(&self) -> io::Result<Vec<File>> {
        let _still = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut files = Vec::new();
        for number in (0..=OLDER).rev() {
            match File::open(self.numbered(number)) {
                Ok(file) => files.push(file),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(files)
    }
}

/// Whether the last line has no end: a crash or a full disk cut it off.
fn is_torn(file: &File, len: u64) -> io::Result<bool> {
    let Some(last) = len.checked_sub(1) else {
        return Ok(false);
    };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte != *b"\n")
}

/// Returns a line if it is a whole entry and selected.
fn selected(line: Vec<u8>, selection: &Selection) -> Option<String> {
    let line = String::from_utf8(line).ok()?;
    let head: Head = serde_json::from_str(&line).ok()?;
    selection.has(&head).then_some(line)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[derive(Serialize)]
    #[serde(tag = "event", rename_all = "snake_case")]
    enum Event {
        Counted { sender: String, number: u32 },
    }

    fn counted(number: u32) -> Event {
        let sender = "nas1".to_owned();
        Event::Counted { sender, number }
    }

    fn read(history: &History<Event>, selection: &Selection) -> Vec<u64> {
        let mut numbers = Vec::new();
        let take = |lines: Vec<String>| {
            numbers.extend(lines.iter().map(|line| {
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                value["number"].as_u64().unwrap()
            }));
            true
        };
        history.read(selection, take).unwrap();
        numbers
    }

    fn all(history: &History<Event>) -> Vec<u64> {
        read(history, &Selection::default())
    }

    fn file(dir: &TempDir) -> PathBuf {
        dir.path().join(FILE)
    }

    fn cut_off(dir: &TempDir, bytes: u64) {
        let file = File::options().write(true).open(file(dir)).unwrap();
        let len = file.metadata().unwrap().len();
        file.set_len(len - bytes).unwrap();
    }

    #[test]
    fn it_outlives_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(all(&History::of(dir.path())), [0; 0]);
        for number in 0..3 {
            History::of(dir.path()).note(counted(number));
        }
        assert_eq!(all(&History::of(dir.path())), [0, 1, 2]);
        let text = fs::read_to_string(file(&dir)).unwrap();
        let first: Head = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(first.event, "counted");
        assert_eq!(first.at.subsec_nanosecond() % 1_000_000, 0);
    }

    #[test]
    fn four_files_are_kept_each_within_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::with_limit(dir.path(), 1000);
        for number in 0..200 {
            history.note(counted(number));
        }
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let expected: Vec<_> = ["", ".1", ".2", ".3"]
            .iter()
            .map(|number| format!("{FILE}{number}"))
            .collect();
        assert_eq!(names, expected);
        for name in names {
            let len = fs::metadata(dir.path().join(&name)).unwrap().len();
            assert!((1..=1000).contains(&len), "{name} has {len} bytes");
        }
        let numbers = all(&history);
        assert_eq!(numbers.last(), Some(&199));
        assert!(numbers.len() > 30, "{numbers:?}");
        assert!(
            numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
            "{numbers:?}"
        );
        // A missing number does no harm.
        fs::remove_file(dir.path().join(format!("{FILE}.2"))).unwrap();
        assert!(all(&history).len() < numbers.len());
        history.note(counted(200));
        assert_eq!(all(&history).last(), Some(&200));
    }

    #[test]
    fn a_torn_line_is_skipped_and_the_next_one_begins_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::of(dir.path());
        history.note(counted(0));
        history.note(counted(1));
        cut_off(&dir, 5);
        assert_eq!(all(&history), [0]);
        history.note(counted(2));
        assert_eq!(all(&history), [0, 2]);
        // Only the end of the line is missing.
        cut_off(&dir, 1);
        assert_eq!(all(&history), [0, 2]);
        history.note(counted(3));
        assert_eq!(all(&history), [0, 2, 3]);
        let text = fs::read_to_string(file(&dir)).unwrap();
        assert_eq!(text.lines().count(), 4, "{text}");
    }

    #[test]
    fn bytes_that_are_no_text_are_skipped() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(file(&dir), b"\xff\xfe\n{\"event\":\"x\"}\n\0\0\0").unwrap();
        let history = History::of(dir.path());
        history.note(counted(1));
        assert_eq!(all(&history), [1]);
    }

    #[test]
    fn entries_are_selected_by_their_time() {
        let dir = tempfile::tempdir().unwrap();
        let line = |day: u32| {
            format!(
                r#"{{"at":"2026-11-{day}T00:00:00Z","event":"counted","sender":"nas1","number":{day}}}"#
            )
        };
        let days: Vec<String> = (21..24).map(line).collect();
        fs::write(file(&dir), days.join("\n") + "\n").unwrap();
        let history = History::of(dir.path());
        let since = |time: &str| Selection {
            since: Some(time.parse().unwrap()),
            ..Selection::default()
        };
        assert_eq!(read(&history, &since("2026-11-22T00:00:00Z")), [22, 23]);
        assert_eq!(read(&history, &since("2026-11-23T00:00:01Z")), [0; 0]);
        let other = Selection {
            peer: Some("nas3".parse().unwrap()),
            ..Selection::default()
        };
        assert_eq!(read(&history, &other), [0; 0]);
    }

    #[test]
    fn a_reader_gets_parts_and_can_stop() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::of(dir.path());
        for number in 0..4 {
            let sender = "x".repeat(PART / 2);
            history.note(Event::Counted { sender, number });
        }
        let mut parts = Vec::new();
        let take = |lines: Vec<String>| {
            parts.push(lines.len());
            true
        };
        history.read(&Selection::default(), take).unwrap();
        assert_eq!(parts, [2, 2]);
        let mut taken = 0;
        let stop = |_| {
            taken += 1;
            false
        };
        history.read(&Selection::default(), stop).unwrap();
        assert_eq!(taken, 1);
    }
}
