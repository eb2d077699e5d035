//! What the demo will do, in full, before it does anything: a plan is a list of cases for every connection,
//! drawn from a seed, and the truth that follows from them.
//!
//! Deliberately absent: sockets, time, and the tracer.

use super::{cases, script::Script, tally::Tally};

/// How many threads carry out a plan, each with its own connections.
pub const LANES: usize = 8;

/// The longest id that the demo service accepts, in bytes; cases with an over-long id go close to it.
pub const SERVICE_MAX_ID_LEN: usize = 1024;

/// A service process of the demo. All run the same program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// Does everything right.
    Main,
    /// Never reports a click.
    Silent,
    /// Is killed in the middle of the load.
    Victim,
}

impl Target {
    /// Every process, in the order in which they start.
    pub const ALL: [Self; 3] = [Self::Main, Self::Silent, Self::Victim];

    /// The process's name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Silent => "silent",
            Self::Victim => "victim",
        }
    }
}

/// One thing that a lane does. It begins when the one before it on the lane has been answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Asks for recommendations and waits for the answer; the exposures come after it.
    Recommend {
        /// Who is asked.
        target: Target,
        /// Path and query.
        path: String,
    },
    /// Clicks and waits for the answer, which comes after the report.
    Click {
        /// Who is told.
        target: Target,
        /// Path and query.
        path: String,
    },
    /// Waits until every exposure of the lane's earlier requests to this process has run.
    Settle(Target),
    /// Kills the victim.
    KillVictim,
}

/// One case: what to do, one step after another on one lane.
pub type Case = Vec<Step>;

/// A load with known truth.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The cases of each lane, in order.
    pub lanes: Vec<Vec<Case>>,
    /// What a tracer that sees everything must count.
    pub truth: Tally,
    /// Steps in all lanes.
    pub steps: u64,
}

impl Plan {
    /// Draws a plan with `requests` recommendation requests, of which faults make up a fixed share with at
    /// least a few of each kind. (So a plan for very few requests has some more than were asked for.)
    /// `max_id_len` is the capture limit of ids in bytes.
    pub fn new(seed: u64, requests: u64, max_id_len: usize) -> Self {
        let mut script = Script::new(seed, max_id_len);
        let mut faults: Vec<Case> = Vec::new();
        for fault in cases::FAULTS {
            let count = (requests * fault.per_mille / 1000).max(FEWEST_PER_FAULT);
            for index in 0..count {
                (fault.write)(&mut script, index);
                faults.push(script.take_case());
            }
        }
        cases::killed_between_exposure_and_click(&mut script, (requests / 50).max(FEWEST_PER_FAULT));
        let victim = script.take_case();

        let mut all = faults;
        while script.requests() < requests {
            cases::everything_right(&mut script);
            all.push(script.take_case());
        }
        script.random().shuffle(&mut all);

        let mut lanes: Vec<Vec<Case>> = vec![Vec::new(); LANES];
        for (index, case) in all.into_iter().enumerate() {
            lanes[index % LANES].push(case);
        }
        // In the middle, so that the other lanes are busy when the victim goes.
        let middle = lanes[0].len() / 2;
        lanes[0].insert(middle, victim);

        let steps = lanes.iter().flatten().map(|case| case.len() as u64).sum();
        Self { lanes, truth: script.truth, steps }
    }
}

/// Few enough for a short demo, enough to tell a count from chance.
const FEWEST_PER_FAULT: u64 = 4;

/// Pseudo-random numbers (SplitMix64): the same on every machine and with every version of every crate.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Numbers that follow from the seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is small: the modulo's bias does not matter here.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.bits() % bound.max(1) as u64).unwrap_or_default()
    }

    /// Puts a list into random order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            let chosen = self.below(last + 1);
            list.swap(last, chosen);
        }
    }
}
