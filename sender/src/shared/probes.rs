//! Reads the states of live volumes on threads of their own: a path of a disk that does not answer, or that is mounted on
//! access, must not hold up the schedules of all other volumes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::volume::live_state::{self, SeenState};

/// Longest wait for an answer. It comes from memory.
const PROBE_DEADLINE: Duration = Duration::from_secs(5);

/// The paths that are being read now: by how many threads, and since when the first of them.
#[derive(Debug, Clone, Default)]
pub struct Probes(Arc<Mutex<BTreeMap<PathBuf, (usize, Instant)>>>);

impl Probes {
    /// Reads the state of the subvolume at a path; see [`live_state::read`].
    ///
    /// # Errors
    /// I/O errors; `TimedOut` if it does not answer now, or has not since an earlier call.
    pub fn read(&self, path: &Path) -> io::Result<Option<SeenState>> {
        self.within(PROBE_DEADLINE, path, live_state::read)
    }

    fn within<T: Send + 'static>(
        &self,
        deadline: Duration,
        path: &Path,
        read: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let no_answer = || io::Error::from(io::ErrorKind::TimedOut);
        {
            let mut probes = self.lock();
            let (threads, since) = probes
                .entry(path.to_owned())
                .or_insert_with(|| (0, Instant::now()));
            if since.elapsed() > deadline {
                return Err(no_answer());
            }
            *threads += 1;
        }
        let (tell, told) = mpsc::channel();
        let (probes, of) = (self.clone(), path.to_owned());
        let thread = std::thread::Builder::new().name("probe".into());
        let spawned = thread.spawn(move || {
            let answer = read(&of);
            probes.ended(&of);
            // The caller may have given up.
            let _ = tell.send(answer);
        });
        if let Err(e) = spawned {
            self.ended(path);
            return Err(e);
        }
        told.recv_timeout(deadline)
            .unwrap_or_else(|_| Err(no_answer()))
    }

    fn ended(&self, path: &Path) {
        let mut probes = self.lock();
        if let Some((threads, _)) = probes.get_mut(path) {
            *threads -= 1;
            if *threads == 0 {
                probes.remove(path);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathBuf, (usize, Instant)>> {
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
