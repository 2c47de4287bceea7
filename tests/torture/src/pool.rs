//! The remaining faults, dealt out as lives.

use std::collections::BTreeMap;

use crate::kind::Fault;
use crate::life::Life;
use crate::options::Options;
use sendshot_harness::trees::random::Random;

/// Iterations on the same hosts: enough for kept states to be pruned and reused many times, few
/// enough for the disks to have room.
const LENGTH: usize = 20;

/// The remaining faults.
#[derive(Debug)]
pub(super) struct Pool<F> {
    random: Random,
    /// Number of each kind; `None` for no limit.
    left: Option<BTreeMap<F, u64>>,
    /// Number of all; `None` for no limit.
    total: Option<u64>,
}

impl<F: Fault> Pool<F> {
    pub(super) fn new(options: &Options<F>) -> Self {
        let left = (!options.counts.is_empty()).then(|| options.counts.clone());
        Self {
            random: Random::new(options.seed),
            left,
            total: options.total,
        }
    }

    /// Deals out the next life; `None` if no fault is left.
    pub(super) fn take(&mut self) -> Option<Life<F>> {
        let kinds: Vec<_> = (0..LENGTH).map_while(|_| self.kind()).collect();
        let seed = self.random.below(1 << 40);
        (!kinds.is_empty()).then_some(Life { seed, kinds })
    }

    fn kind(&mut self) -> Option<F> {
        if self.total == Some(0) {
            return None;
        }
        let weights: Vec<(F, u64)> = match &self.left {
            Some(left) => left.iter().map(|(kind, n)| (*kind, *n)).collect(),
            None => F::ALL.iter().map(|kind| (*kind, kind.weight())).collect(),
        };
        let sum: u64 = weights.iter().map(|(_, weight)| weight).sum();
        if sum == 0 {
            return None;
        }
        let mut at = self.random.below(sum);
        let chosen = weights.into_iter().find(|(_, weight)| {
            let found = at < *weight;
            at = at.saturating_sub(*weight);
            found
        });
        let (kind, _) = chosen?;
        if let Some(left) = &mut self.left {
            *left.entry(kind).or_default() -= 1;
        }
        if let Some(total) = &mut self.total {
            *total -= 1;
        }
        Some(kind)
    }

    /// Takes back faults that did not happen.
    pub(super) fn give_back(&mut self, kinds: &[F]) {
        if let Some(total) = &mut self.total {
            *total += kinds.len() as u64;
        }
        if let Some(left) = &mut self.left {
            for kind in kinds {
                *left.entry(*kind).or_default() += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Kind;

    #[test]
    fn faults_given_back_are_dealt_out_again() {
        let counts = BTreeMap::from([(Kind::Cut, 30), (Kind::Lie, 7)]);
        let options = Options {
            counts,
            ..Options::lasting(std::time::Duration::ZERO, 1)
        };
        let mut pool = Pool::new(&options);
        let first = pool.take().unwrap();
        assert_eq!(first.kinds.len(), LENGTH);
        pool.give_back(&first.kinds[..3]);
        let rest: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        let all = rest.iter().flat_map(|life| &life.kinds);
        let all: Vec<_> = all.chain(&first.kinds[3..]).collect();
        assert_eq!(all.iter().filter(|k| ***k == Kind::Cut).count(), 30);
        assert_eq!(all.len(), 37);
    }

    #[test]
    fn a_total_counts_faults_of_any_kind() {
        let options = Options::<Kind> {
            total: Some(25),
            ..Options::lasting(std::time::Duration::ZERO, 1)
        };
        let mut pool = Pool::new(&options);
        pool.take().unwrap();
        pool.give_back(&[Kind::Cut; 3]);
        assert_eq!(pool.take().unwrap().kinds.len(), 5 + 3);
        assert!(pool.take().is_none());
    }
}
