//! Limits how many pushes are applied at the same time: each holds what its connection's window lets through, and more of
//! them than the processors can serve only slow each other down. The others wait, in the order in which they came; but one
//! sender's pushes have half of the turns at most, so that it cannot keep all others waiting.
//!
//! A push whose sender is slower than this host gives its turn up now and then if others wait, and waits again. It may hold
//! what has arrived meanwhile, so only as many do that as there are turns.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use sendshot_model::PeerName;
use sendshot_proto::transfer::Up;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::receive::input::Input;

/// Pushes that are applied at the same time.
const TURNS: usize = 16;

/// How long a push may have got nothing, and how long it may have had its turn, until it gives it up to one that waits.
const IDLE: Duration = Duration::from_secs(1);
const SLICE: Duration = Duration::from_secs(60);

/// How often a push without input looks whether others wait.
const LOOK: Duration = Duration::from_millis(250);

/// How often a sender gets a sign of life while its push waits.
const SIGN: Duration = Duration::from_secs(5);

/// The turns that can be had at the same time.
#[derive(Debug, Clone)]
pub struct Turns(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    all: Arc<Semaphore>,
    /// Those of each sender that has a place.
    of_senders: Mutex<HashMap<PeerName, Weak<Semaphore>>>,
    count: usize,
    /// Places that wait for a turn.
    waiting: AtomicUsize,
    /// Places that have given their turn up, and may hold data.
    given_up: AtomicUsize,
    idle: Duration,
    slice: Duration,
}

impl Default for Turns {
    fn default() -> Self {
        Self::new(TURNS, IDLE, SLICE)
    }
}

impl Turns {
    fn new(count: usize, idle: Duration, slice: Duration) -> Self {
        Self(Arc::new(Shared {
            all: Arc::new(Semaphore::new(count)),
            of_senders: Mutex::default(),
            count,
            waiting: AtomicUsize::new(0),
            given_up: AtomicUsize::new(0),
            idle,
            slice,
        }))
    }

    /// Makes the place of one push, which has no turn yet. Waiting uses the runtime of the caller, and ends with `gone`.
    pub fn place(
        &self,
        sender: &PeerName,
        input: mpsc::Receiver<Input>,
        gone: CancellationToken,
    ) -> Place {
        Place {
            of_sender: self.of_sender(sender),
            turns: self.clone(),
            runtime: Handle::current(),
            gone,
            turn: None,
            has_given_up: false,
            input,
            next: None,
        }
    }

    fn of_sender(&self, sender: &PeerName) -> Arc<Semaphore> {
        let of_senders = self.0.of_senders.lock();
        let mut of_senders = of_senders.unwrap_or_else(PoisonError::into_inner);
        of_senders.retain(|_, turns| turns.strong_count() > 0);
        let known = of_senders.get(sender).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let new = Arc::new(Semaphore::new((self.0.count / 2).max(1)));
            of_senders.insert(sender.clone(), Arc::downgrade(&new));
            new
        })
    }
}

/// A turn, and since when it is had.
#[derive(Debug)]
struct Turn {
    _permits: [OwnedSemaphorePermit; 2],
    since: Instant,
}

/// The place of one push, with its input. It is used by the thread of the push.
#[derive(Debug)]
pub struct Place {
    turns: Turns,
    of_sender: Arc<Semaphore>,
    runtime: Handle,
    gone: CancellationToken,
    turn: Option<Turn>,
    has_given_up: bool,
    input: mpsc::Receiver<Input>,
    /// Input that was put back.
    next: Option<Input>,
}

impl Place {
    /// Waits for the turn; `sign` is called now and then meanwhile. Returns false if the push is gone before.
    pub fn wait(&mut self, sign: &dyn Fn()) -> bool {
        if self.turn.is_some() {
            return true;
        }
        let (of_sender, of_all) = (Arc::clone(&self.of_sender), Arc::clone(&self.turns.0.all));
        // Neither is ever closed.
        let turn = async {
            let of_sender = of_sender.acquire_owned().await.ok()?;
            Some([of_sender, of_all.acquire_owned().await.ok()?])
        };
        self.turns.0.waiting.fetch_add(1, Ordering::Relaxed);
        let permits = self.runtime.block_on(async {
            let mut turn = std::pin::pin!(turn);
            let mut signs = tokio::time::interval(SIGN);
            loop {
                tokio::select! {
                    biased;
                    () = self.gone.cancelled() => return None,
                    turn = &mut turn => return turn,
                    _ = signs.tick() => sign(),
                }
            }
        });
        self.turns.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.take_back();
        self.turn = permits.map(|permits| Turn {
            _permits: permits,
            since: Instant::now(),
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

    /// Takes the next input; `None` at its end, or if the push is gone. While nothing comes, a push that waits may get the
    /// turn; `sign` is called now and then while this one waits for it again.
    pub fn next(&mut self, sign: &dyn Fn()) -> Option<Input> {
        if let Some(next) = self.arrived() {
            return Some(next);
        }
        let idle_since = Instant::now();
        self.may_give_up(idle_since);
        let next = loop {
            let input = &mut self.input;
            let soon = async { tokio::time::timeout(LOOK, input.recv()).await };
            match self.runtime.block_on(soon) {
                Ok(next) => break next,
                Err(_) => self.may_give_up(idle_since),
            }
        };
        let is_work = matches!(next, Some(Input::Up(Up::Segment(_) | Up::End { .. })));
        match is_work && !self.wait(sign) {
            // Nothing of it was verified or applied: it is as if it had not arrived.
            true => None,
            false => next,
        }
    }

    /// Gives the turn up if that is fair. Nothing is at hand to be applied.
    fn may_give_up(&mut self, idle_since: Instant) {
        let Some(turn) = &self.turn else { return };
        let shared = &self.turns.0;
        let is_long = idle_since.elapsed() >= shared.idle || turn.since.elapsed() >= shared.slice;
        if !is_long || shared.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        let more = |given_up| (given_up < shared.count).then_some(given_up + 1);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        if shared.given_up.fetch_update(set, fetch, more).is_ok() {
            self.has_given_up = true;
            self.turn = None;
        }
    }

    fn take_back(&mut self) {
        if std::mem::take(&mut self.has_given_up) {
            self.turns.0.given_up.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.take_back();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    const SOON: Duration = Duration::from_millis(300);
    const NEVER: Duration = Duration::from_secs(3600);

    type Sender = mpsc::Sender<Input>;

    fn place(turns: &Turns, sender: &str) -> (Place, Sender) {
        let (send, input) = mpsc::channel(4);
        let gone = CancellationToken::new();
        (turns.place(&sender.parse().unwrap(), input, gone), send)
    }

    /// Whether a place has a turn within a second.
    fn has(place: &mut Place) -> bool {
        let gone = place.gone.clone();
        let done = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&done);
        let limit = std::thread::spawn(move || {
            for _ in 0..100 {
                std::thread::sleep(Duration::from_millis(10));
                if seen.load(Ordering::Relaxed) {
                    return;
                }
            }
            gone.cancel();
        });
        let has = place.wait(&|| {});
        done.store(true, Ordering::Relaxed);
        limit.join().unwrap();
        has
    }

    fn segment() -> Input {
        let (length, chain) = (0, sendshot_proto::chain::Chain::default());
        Input::Up(Up::End { length, chain })
    }

    async fn within<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        sendshot_service::blocking::run("test", work).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_push_without_input_lets_another_one_have_its_turn() {
        let turns = Turns::new(1, SOON, NEVER);
        let (mut first, to_first) = place(&turns, "one");
        let (mut second, _to_second) = place(&turns, "another");
        let idle = within(move || {
            assert!(has(&mut first));
            std::thread::spawn(move || (first.next(&|| {}).is_some(), first.next(&|| {}).is_some()))
        });
        let idle = idle.await;
        let second = within(move || {
            assert!(has(&mut second));
            second
        });
        let second = second.await;
        // It waits with what has come, until the other one has ended.
        to_first.send(segment()).await.unwrap();
        tokio::time::sleep(SOON).await;
        assert!(!idle.is_finished());
        assert_eq!(turns.0.given_up.load(Ordering::Relaxed), 1);
        drop((second, to_first));
        let seen = within(move || idle.join().unwrap()).await;
        assert_eq!(seen, (true, false));
        assert_eq!(turns.0.given_up.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_push_that_trickles_gives_its_turn_up_after_a_while() {
        let turns = Turns::new(1, NEVER, SOON);
        let (mut slow, to_slow) = place(&turns, "slow");
        let (mut other, _to_other) = place(&turns, "other");
        let trickle = tokio::spawn(async move {
            while to_slow.send(segment()).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let slow = within(move || {
            assert!(has(&mut slow));
            std::thread::spawn(move || (0..200).filter(|_| slow.next(&|| {}).is_some()).count())
        });
        let slow = slow.await;
        let has_turn = within(move || has(&mut other));
        assert!(has_turn.await, "it waits for a push that trickles");
        assert_eq!(within(move || slow.join().unwrap()).await, 200);
        trickle.await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn only_so_many_pushes_hold_data_without_a_turn() {
        let turns = Turns::new(2, Duration::ZERO, NEVER);
        let places: Vec<_> = (0..6).map(|n| place(&turns, &format!("n{n}"))).collect();
        let (mut places, senders): (Vec<_>, Vec<_>) = places.into_iter().unzip();
        let given_up = within(move || {
            turns.0.waiting.fetch_add(1, Ordering::Relaxed);
            for place in &mut places[..4] {
                assert!(has(place));
                place.may_give_up(Instant::now());
            }
            let left = turns.0.all.available_permits();
            let given_up = turns.0.given_up.load(Ordering::Relaxed);
            drop(places);
            (left, given_up, turns.0.given_up.load(Ordering::Relaxed))
        });
        assert_eq!(given_up.await, (0, 2, 0));
        drop(senders);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_push_that_is_gone_waits_no_longer_nor_again() {
        let turns = Turns::new(1, Duration::ZERO, NEVER);
        let (mut first, to_first) = place(&turns, "one");
        let (mut second, _to_second) = place(&turns, "another");
        let (mut third, _to_third) = place(&turns, "third");
        let next = within(move || {
            assert!(has(&mut first) && !has(&mut second));
            turns.0.waiting.fetch_add(1, Ordering::Relaxed);
            first.may_give_up(Instant::now());
            assert!(has(&mut third));
            to_first.blocking_send(segment()).unwrap();
            let gone = first.gone.clone();
            let cut = std::thread::spawn(move || {
                std::thread::sleep(SOON);
                gone.cancel();
            });
            // It had a turn when it looked for input.
            first.turn = None;
            let taken = first.input.blocking_recv();
            assert!(taken.is_some());
            let next = first.wait(&|| {});
            cut.join().unwrap();
            next
        });
        assert!(!next.await);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_sender_has_half_of_the_turns() {
        let turns = Turns::new(4, NEVER, NEVER);
        let greedy: Vec<_> = (0..3).map(|_| place(&turns, "greedy")).collect();
        let others: Vec<_> = (0..2).map(|n| place(&turns, &format!("n{n}"))).collect();
        let (greedy, others, turns) = within(move || {
            let (mut greedy, mut others) = (greedy, others);
            let greedy: Vec<bool> = greedy.iter_mut().map(|(place, _)| has(place)).collect();
            let others: Vec<bool> = others.iter_mut().map(|(place, _)| has(place)).collect();
            (greedy, others, turns)
        })
        .await;
        assert_eq!(greedy, [true, true, false]);
        assert_eq!(others, [true, true]);
        drop(place(&turns, "next"));
        assert!(turns.0.of_senders.lock().unwrap().len() <= 1);
    }
}
