//! Reads the states of live volumes on threads of their own: a path of a disk that does not answer, or that is mounted on
//! access, must not hold up the schedules of all other volumes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::volume::live_state::{self, SeenState};

/// How long an answer is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// What usually comes from memory; others wait meanwhile.
    Short,
    /// A disk that has to spin up, or to be mounted on access; nothing else waits.
    Long,
}

impl Patience {
    fn deadline(self) -> Duration {
        match self {
            Self::Short => Duration::from_secs(5),
            Self::Long => Duration::from_secs(120),
        }
    }
}

/// The threads that read a path now, the oldest first: their numbers, and since when.
type Threads = Vec<(u64, Instant)>;

/// The paths that are being read now.
#[derive(Debug, Clone, Default)]
pub struct Probes(Arc<Mutex<BTreeMap<PathBuf, Threads>>>);

impl Probes {
    /// Reads the state of the subvolume at a path; see [`live_state::read`].
    ///
    /// # Errors
    /// I/O errors; `TimedOut` if it does not answer now, or has not since an earlier call.
    pub fn read(&self, path: &Path, patience: Patience) -> io::Result<Option<SeenState>> {
        self.ask(path, patience, live_state::read)
    }

    /// Asks something that touches a path.
    ///
    /// # Errors
    /// Those of `read`; `TimedOut` as for [`Probes::read`].
    pub fn ask<T: Send + 'static>(
        &self,
        path: &Path,
        patience: Patience,
        read: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.within(patience.deadline(), path, read)
    }

    fn within<T: Send + 'static>(
        &self,
        deadline: Duration,
        path: &Path,
        read: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let no_answer = || io::Error::from(io::ErrorKind::TimedOut);
        let number = {
            let mut probes = self.lock();
            let threads = probes.entry(path.to_owned()).or_default();
            // The first is the oldest.
            if threads
                .first()
                .is_some_and(|(_, since)| since.elapsed() > deadline)
            {
                return Err(no_answer());
            }
            let number = threads.last().map_or(0, |(number, _)| number + 1);
            threads.push((number, Instant::now()));
            number
        };
        let (tell, told) = mpsc::channel();
        let (probes, of) = (self.clone(), path.to_owned());
        let thread = std::thread::Builder::new().name("probe".into());
        let spawned = thread.spawn(move || {
            let answer = read(&of);
            probes.ended(&of, number);
            // The caller may have given up.
            let _ = tell.send(answer);
        });
        if let Err(e) = spawned {
            self.ended(path, number);
            return Err(e);
        }
        told.recv_timeout(deadline)
            .unwrap_or_else(|_| Err(no_answer()))
    }

    fn ended(&self, path: &Path, ended: u64) {
        let mut probes = self.lock();
        if let Some(threads) = probes.get_mut(path) {
            threads.retain(|(number, _)| *number != ended);
            if threads.is_empty() {
                probes.remove(path);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Threads>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_does_not_answer_holds_up_no_other() {
        let probes = Probes::default();
        let (answer, asked) = mpsc::channel::<()>();
        let short = Duration::from_millis(50);
        let (slow, other) = (Path::new("/slow"), Path::new("/other"));
        let hangs = probes.within(short, slow, move |_| {
            let _ = asked.recv();
            Ok(1)
        });
        assert_eq!(hangs.unwrap_err().kind(), io::ErrorKind::TimedOut);
        std::thread::sleep(short);
        // No second thread waits for it.
        let again = probes.within(short, slow, |_| Ok(2));
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(probes.within(short, other, |_| Ok(3)).unwrap(), 3);
        answer.send(()).unwrap();
        while probes.lock().contains_key(slow) {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(probes.within(short, slow, |_| Ok(4)).unwrap(), 4);
    }

    #[test]
    fn reads_that_overlap_and_answer_in_time_are_answers() {
        let probes = Probes::default();
        let deadline = Duration::from_millis(200);
        let slow = |_: &Path| {
            std::thread::sleep(Duration::from_millis(100));
            Ok(())
        };
        // There is always one under way, for longer than the deadline.
        std::thread::scope(|scope| {
            for n in 0..10 {
                let probes = &probes;
                scope.spawn(move || {
                    std::thread::sleep(Duration::from_millis(50 * n));
                    probes.within(deadline, Path::new("/same"), slow).unwrap();
                });
            }
        });
    }

    #[test]
    fn one_path_can_be_read_by_several_at_once() {
        let probes = Probes::default();
        let second = Duration::from_secs(1);
        let read = |_: &Path| {
            std::thread::sleep(Duration::from_millis(100));
            Ok(())
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| probes.within(second, Path::new("/same"), read).unwrap());
            }
        });
        assert!(probes.lock().is_empty());
    }
}
