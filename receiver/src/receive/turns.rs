//! Limits how many pushes are applied at the same time: each holds what its connection's window lets through, and more of
//! them than the processors can serve only slow each other down. The others wait, in the order in which they came; but one
//! sender's pushes have half of the turns at most, so that it cannot keep all others waiting.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use sendshot_model::PeerName;
use sendshot_proto::transfer::Up;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::receive::incoming::Input;

/// Pushes that are applied at the same time, for each processor; and their limits.
const A_PROCESSOR: usize = 2;
const LEAST: usize = 4;
const MOST: usize = 16;

/// A push that has got nothing for so long lets another one have its turn: its buffers are empty.
const IDLE: Duration = Duration::from_millis(250);

/// How often a sender gets a sign of life while its push waits.
const SIGN: Duration = Duration::from_secs(5);

/// The turns that can be had at the same time.
#[derive(Debug, Clone)]
pub struct Turns {
    all: Arc<Semaphore>,
    /// Those of each sender that has a place.
    of_senders: Arc<Mutex<HashMap<PeerName, Weak<Semaphore>>>>,
    a_sender: usize,
}

impl Turns {
    /// As many as suit this machine.
    pub fn for_this_machine() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::new((cores * A_PROCESSOR).clamp(LEAST, MOST))
    }

    fn new(count: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(count)),
            of_senders: Arc::default(),
            a_sender: (count / 2).max(1),
        }
    }

    /// Makes the place of one push, which has no turn yet. Waiting uses the runtime of the caller.
    pub fn place(&self, sender: &PeerName, input: mpsc::Receiver<Input>) -> Place {
        Place {
            all: Arc::clone(&self.all),
            of_sender: self.of_sender(sender),
            runtime: Handle::current(),
            turn: None,
            input,
            next: None,
        }
    }

    fn of_sender(&self, sender: &PeerName) -> Arc<Semaphore> {
        let of_senders = self.of_senders.lock();
        let mut of_senders = of_senders.unwrap_or_else(PoisonError::into_inner);
        of_senders.retain(|_, turns| turns.strong_count() > 0);
        let known = of_senders.get(sender).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let new = Arc::new(Semaphore::new(self.a_sender));
            of_senders.insert(sender.clone(), Arc::downgrade(&new));
            new
        })
    }
}

/// The place of one push, with its input. It is used by the thread of the push.
#[derive(Debug)]
pub struct Place {
    all: Arc<Semaphore>,
    of_sender: Arc<Semaphore>,
    runtime: Handle,
    /// The sender's, and that of all.
    turn: Option<[OwnedSemaphorePermit; 2]>,
    input: mpsc::Receiver<Input>,
    /// Input that was put back.
    next: Option<Input>,
}

impl Place {
    /// Waits for the turn; `sign` is called now and then meanwhile. Returns false if `gone` has ended before.
    pub fn wait(&mut self, sign: &dyn Fn(), gone: impl Future<Output = ()>) -> bool {
        if self.turn.is_some() {
            return true;
        }
        let (of_sender, of_all) = (Arc::clone(&self.of_sender), Arc::clone(&self.all));
        // Neither is ever closed.
        let turn = async {
            let of_sender = of_sender.acquire_owned().await.ok()?;
            Some([of_sender, of_all.acquire_owned().await.ok()?])
        };
        self.turn = self.runtime.block_on(async {
            let (mut turn, mut gone) = (std::pin::pin!(turn), std::pin::pin!(gone));
            let mut signs = tokio::time::interval(SIGN);
            loop {
                tokio::select! {
                    biased;
                    turn = &mut turn => return turn,
                    () = &mut gone => return None,
                    _ = signs.tick() => sign(),
                }
            }
        });
        self.turn.is_some()
    }

    /// Takes input that has already arrived.
    pub fn arrived(&mut self) -> Option<Input> {
        self.next.take().or_else(|| self.input.try_recv().ok())
    }

    /// Puts back what was just taken.
    pub fn put_back(&mut self, input: Input) {
        self.next = Some(input);
    }

    /// Takes the next input. While nothing comes, another push may have the turn; `sign` is called now and then while
    /// this one waits for it again.
    pub fn next(&mut self, sign: &dyn Fn()) -> Option<Input> {
        if let Some(next) = self.arrived() {
            return Some(next);
        }
        let input = &mut self.input;
        let soon = async { tokio::time::timeout(IDLE, input.recv()).await };
        if let Ok(next) = self.runtime.block_on(soon) {
            return next;
        }
        self.turn = None;
        let next = input.blocking_recv();
        if let Some(Input::Up(Up::Segment(_) | Up::End { .. })) = next {
            // A broken connection is noticed when its segments are applied.
            self.wait(sign, std::future::pending());
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn place(turns: &Turns, sender: &str) -> Place {
        turns.place(&sender.parse().unwrap(), mpsc::channel(1).1)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_push_without_input_lets_another_one_have_its_turn() {
        let turns = Turns::new(1);
        let (send, input) = mpsc::channel(1);
        let mut first = turns.place(&"one".parse().unwrap(), input);
        let mut second = place(&turns, "another");
        let signs = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&signs);
        let work = move || {
            assert!(first.wait(&|| {}, std::future::pending()));
            assert!(first.next(&|| {}).is_some());
            first.next(&|| {}) // idle, until the input ends
        };
        let idle = std::thread::spawn(work);
        let other = std::thread::spawn(move || {
            let count = || {
                seen.fetch_add(1, Ordering::Relaxed);
            };
            second.wait(&count, std::future::pending())
        });
        send.send(Input::Unwelcome).await.unwrap();
        let joined = sendshot_service::blocking::run("test", move || other.join().unwrap());
        assert!(joined.await.unwrap());
        drop(send);
        assert!(idle.join().unwrap().is_none());
        assert!(signs.load(Ordering::Relaxed) <= 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_push_that_is_gone_waits_no_longer() {
        let turns = Turns::new(1);
        let (mut first, mut second) = (place(&turns, "one"), place(&turns, "another"));
        let done = sendshot_service::blocking::run("test", move || {
            assert!(first.wait(&|| {}, std::future::pending()));
            assert!(!second.wait(&|| {}, std::future::ready(())));
            drop(first);
            second.wait(&|| {}, std::future::pending())
        });
        assert!(done.await.unwrap());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_sender_has_half_of_the_turns() {
        let turns = Turns::new(4);
        let mut greedy: Vec<Place> = (0..3).map(|_| place(&turns, "greedy")).collect();
        let mut others: Vec<Place> = (0..2).map(|n| place(&turns, &format!("n{n}"))).collect();
        let done = sendshot_service::blocking::run("test", move || {
            let has = |place: &mut Place| place.wait(&|| {}, std::future::ready(()));
            let greedy: Vec<bool> = greedy.iter_mut().map(has).collect();
            let others: Vec<bool> = others.iter_mut().map(has).collect();
            (greedy, others, turns)
        });
        let (greedy, others, turns) = done.await.unwrap();
        assert_eq!(greedy, [true, true, false]);
        assert_eq!(others, [true, true]);
        drop(turns.place(&"next".parse().unwrap(), mpsc::channel(1).1));
        assert!(turns.of_senders.lock().unwrap().len() <= 1);
    }
}
