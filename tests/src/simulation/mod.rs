//! Releases with a known truth, counted again and again with the scatter of chance: how often are comparisons, baselines
//! and canary gates right?
//!
//! `cargo xtask simulate` prints the tables of docs/decisions.md; tests/tests/simulations.rs holds what they claim, with
//! fewer repetitions. The same seed gives the same numbers.

pub mod baselines;
pub mod comparisons;
pub mod gates;

use std::fmt;

use rand::{SeedableRng as _, rngs::StdRng};
use rand_distr::{Beta, Binomial, Distribution as _};

/// How often something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rate {
    /// Times that it did.
    pub hits: u64,
    /// Times that it could have.
    pub of: u64,
}

impl Rate {
    /// Counts one more.
    pub fn count(&mut self, hit: bool) {
        self.hits += u64::from(hit);
        self.of += 1;
    }

    /// As a share; 0 of nothing.
    pub fn share(self) -> f64 {
        if self.of == 0 { 0.0 } else { self.hits as f64 / self.of as f64 }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.2} %", self.share() * 100.0))
    }
}

/// The chance of one simulation.
pub fn chance(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

/// How many of `trials` hit, each with this probability.
pub fn binomial(random: &mut StdRng, trials: u64, probability: f64) -> u64 {
    Binomial::new(trials, probability.clamp(0.0, 1.0)).map_or(0, |distribution| distribution.sample(random))
}

/// A share that varies around `mean` with this relative standard deviation.
pub fn beta(random: &mut StdRng, mean: f64, deviation: f64) -> f64 {
    let total = (1.0 - mean) / (mean * deviation * deviation) - 1.0;
    Beta::new(mean * total, (1.0 - mean) * total).map_or(mean, |distribution| distribution.sample(random))
}
