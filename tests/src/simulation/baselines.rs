//! `slo::baseline`: how often is a usual hour called unusually low?

use rand::{RngExt as _, rngs::StdRng};
use tracer_user::{
    prometheus_api::whole,
    slo::baseline::{Baseline, Hour, Method},
};

use super::{Rate, beta, binomial, chance};

/// A service whose hours are usual.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    /// Exposures of the quietest hour of the day.
    pub least: u64,
    /// Exposures of the busiest.
    pub most: u64,
}

/// Mean CTR over the day.
const CTR: f64 = 0.05;

/// The evening's CTR is so much above the mean, the morning's so much below.
const DAILY: f64 = 0.15;

/// From day to day, relative to the mean of the hour.
const DEVIATION: f64 = 0.03;

/// How often the hour after a week is below the 5 % quantile: all hours, the quietest quarter, the busiest quarter.
pub fn false_alarms(service: Service, method: Method, weeks: u64, seed: u64) -> [Rate; 3] {
    let mut random = chance(seed);
    let mut rates = [Rate::default(); 3];
    for _ in 0..weeks {
        let week: Vec<Hour> = (0..168).map(|hour| usual_hour(&mut random, service, hour)).collect();
        let Ok(baseline) = Baseline::fit(&week, method) else { continue };
        let next = 168 + random.random_range(0..24);
        let hour = usual_hour(&mut random, service, next);
        let of_day = (next % 24) as usize;
        let Ok(threshold) = baseline.quantile(0.05, of_day, hour.exposures) else { continue };
        let low = (hour.clicks as f64 / hour.exposures as f64) < threshold;
        rates[0].count(low);
        let busy = busyness(next);
        if busy < 0.15 {
            rates[1].count(low);
        } else if busy > 0.85 {
            rates[2].count(low);
        }
    }
    rates
}

/// 0 at 3 o'clock, 1 at 15 o'clock.
fn busyness(hour: u64) -> f64 {
    let angle = (hour % 24) as f64 / 24.0 * std::f64::consts::TAU;
    0.5 - 0.5 * (angle - std::f64::consts::FRAC_PI_4).cos()
}

fn usual_hour(random: &mut StdRng, service: Service, hour: u64) -> Hour {
    let busy = busyness(hour);
    let exposures = (service.least as f64 * (service.most as f64 / service.least as f64).powf(busy)).round();
    let of_day = CTR * (1.0 + DAILY * ((hour % 24) as f64 / 24.0 * std::f64::consts::TAU).sin());
    let ctr = beta(random, of_day, DEVIATION);
    let exposures = whole(exposures);
    Hour { start_seconds: hour * 3_600, exposures, clicks: binomial(random, exposures, ctr) }
}
