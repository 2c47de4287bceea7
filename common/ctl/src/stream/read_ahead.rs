//! Reads a stream while the part before it is applied: a pipe holds little, and the applier can do more at the same time
//! the more it has.

use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Most bytes that wait for the applier.
const AHEAD: usize = 4 * 1024 * 1024;
/// Most bytes of one read.
const PIECE: usize = 256 * 1024;

/// Reads its input in a thread, from the first read on. If it is dropped before the end of the input, the thread ends
/// after its next read.
pub struct ReadAhead {
    /// Until it is read.
    input: Option<Box<dyn Read + Send>>,
    shared: Arc<Shared>,
    /// What was taken, and how much of it was read.
    taken: (Vec<u8>, usize),
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    /// How the input ended.
    end: Option<io::Result<()>>,
    is_dropped: bool,
}

impl ReadAhead {
    pub fn new(input: Box<dyn Read + Send>) -> Self {
        Self {
            input: Some(input),
            shared: Arc::default(),
            taken: (Vec::new(), 0),
        }
    }

    fn start(&self, mut input: Box<dyn Read + Send>) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let read = move || {
            let end = shared.fill(&mut input);
            shared.lock().end = Some(end);
            shared.changed.notify_all();
        };
        let thread = std::thread::Builder::new().name("read-ahead".to_owned());
        thread.spawn(read).map(drop)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        until: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        self.changed
            .wait_while(state, |state| !until(state))
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self, input: &mut impl Read) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        loop {
            let len = match input.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(len) => len,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            let has_room = |state: &State| state.bytes.len() < AHEAD || state.is_dropped;
            let mut state = self.wait(self.lock(), has_room);
            if state.is_dropped {
                return Ok(());
            }
            state.bytes.extend_from_slice(&piece[..len]);
            drop(state);
            self.changed.notify_all();
        }
    }
}

impl Read for ReadAhead {
    /// Returns what there is, at least one byte; an error of the input after all bytes before it.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(input) = self.input.take() {
            self.start(input)?;
        }
        let (bytes, at) = &mut self.taken;
        if *at == bytes.len() {
            bytes.clear();
            *at = 0;
            let has_news = |state: &State| !state.bytes.is_empty() || state.end.is_some();
            let mut state = self.shared.wait(self.shared.lock(), has_news);
            match state.bytes.is_empty() {
                false => std::mem::swap(bytes, &mut state.bytes),
                true => {
                    let end = state.end.replace(Ok(()));
                    return end.unwrap_or(Ok(())).map(|()| 0);
                }
            }
            drop(state);
            self.shared.changed.notify_all();
        }
        let len = buffer.len().min(bytes.len() - *at);
        buffer[..len].copy_from_slice(&bytes[*at..][..len]);
        *at += len;
        Ok(len)
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.shared.lock().is_dropped = true;
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// Gives what is sent, and tells when it was asked for more.
    struct Fed {
        pieces: mpsc::Receiver<io::Result<Vec<u8>>>,
        asked: mpsc::Sender<()>,
    }

    impl Read for Fed {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let _ = self.asked.send(());
            let Ok(piece) = self.pieces.recv() else {
                return Ok(0);
            };
            let piece = piece?;
            buffer[..piece.len()].copy_from_slice(&piece);
            Ok(piece.len())
        }
    }

    fn fed() -> (
        ReadAhead,
        mpsc::Sender<io::Result<Vec<u8>>>,
        mpsc::Receiver<()>,
    ) {
        let ((sender, pieces), (asked, is_asked)) = (mpsc::channel(), mpsc::channel());
        let ahead = ReadAhead::new(Box::new(Fed { pieces, asked }));
        (ahead, sender, is_asked)
    }

    #[test]
    fn everything_comes_in_order_and_then_the_error() {
        let (mut ahead, sender, _asked) = fed();
        let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        for piece in sent.chunks(100_001) {
            sender.send(Ok(piece.to_vec())).unwrap();
        }
        sender.send(Err(io::ErrorKind::Interrupted.into())).unwrap();
        sender.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
        let mut read = vec![0; sent.len()];
        ahead.read_exact(&mut read).unwrap();
        assert!(read == sent);
        let error = ahead.read(&mut [0; 10]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(ahead.read(&mut [0; 10]).unwrap(), 0);
    }

    #[test]
    fn what_has_come_is_not_held_back() {
        let (mut ahead, sender, _asked) = fed();
        sender.send(Ok(b"ab".to_vec())).unwrap();
        assert_eq!(ahead.read(&mut [0; 10]).unwrap(), 2);
        drop(sender);
        assert_eq!(ahead.read(&mut [0; 10]).unwrap(), 0);
    }

    #[test]
    fn only_so_much_is_read_ahead_and_nothing_after_a_drop() {
        let (mut ahead, sender, asked) = fed();
        for _ in 0..100 {
            sender.send(Ok(vec![1; PIECE])).unwrap();
        }
        assert!(asked.recv_timeout(Duration::from_millis(100)).is_err());
        assert_eq!(ahead.read(&mut [0]).unwrap(), 1);
        // Something was taken, and the last one read waits for room.
        let least = AHEAD / PIECE + 2;
        for _ in 0..least {
            asked.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        let after = || asked.recv_timeout(Duration::from_millis(100));
        let more = std::iter::from_fn(|| after().ok()).count();
        assert!(more <= AHEAD / PIECE, "{more}");
        drop(ahead);
        let gone = asked.recv_timeout(Duration::from_secs(10));
        assert_eq!(gone, Err(mpsc::RecvTimeoutError::Disconnected));
    }
}
