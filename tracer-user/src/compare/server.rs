//! Counts of two releases, asked of a Prometheus server.
//!
//! Counts are increases of counters over the window, which Prometheus extrapolates to its edges: they are
//! estimates, and fractions are rounded.

use std::time::{Duration, SystemTime};

use anyhow::Result;

use super::{CompareArgs, Gathered};
use crate::{
    domain::Kind,
    prometheus_api::{Prometheus, Sample, quoted, whole},
    slo::{
        comparison::Arm,
        doubt::Conditions,
        repeats::{Repeats, Seen},
    },
};

/// A probe that could not be put in place is missing for as long as its process runs; as the recording rules have it.
const PROBE_MEMORY: Duration = Duration::from_secs(6 * 3_600);

pub(super) fn gather(args: &CompareArgs, server: &Prometheus, at: SystemTime) -> Result<Gathered> {
    let asked = Asked { args, server, at };
    let origin = format!(
        "{} up to {}",
        humantime::format_duration(args.window),
        humantime::format_rfc3339_seconds(at)
    );
    Ok(Gathered {
        stable: asked.arm(&args.stable)?,
        canary: asked.arm(&args.canary)?,
        conditions: asked.conditions()?,
        origin,
    })
}

struct Asked<'a> {
    args: &'a CompareArgs,
    server: &'a Prometheus,
    at: SystemTime,
}

impl Asked<'_> {
    /// Matchers of a release, and of the service where one is named.
    fn matchers(&self, release: &str) -> String {
        let service = self.args.service.as_ref().map(|name| format!(",service={}", quoted(name)));
        format!("release={}{}", quoted(release), service.unwrap_or_default())
    }

    fn arm(&self, release: &str) -> Result<Arm> {
        let query = format!(
            "sum by (edge, outcome) (increase(linktracer_links_total{{{}}}{}))",
            self.matchers(release),
            range(self.args.window)
        );
        let samples = self.server.instant(&query, self.at)?;
        let has = |sample: &Sample, name: &str, value: &str| {
            sample.labels.get(name).is_some_and(|found| found == value)
        };
        let count = |edge: &str, outcome: Option<&str>| {
            let wanted = samples.iter().filter(|sample| {
                has(sample, "edge", edge) && outcome.is_none_or(|outcome| has(sample, "outcome", outcome))
            });
            whole(wanted.map(|sample| sample.value).sum())
        };
        let requests = |outcome: &str| {
            let matchers = format!("outcome=~{},{}", quoted(outcome), self.matchers(release));
            let query =
                format!("increase(linktracer_requests_total{{{matchers}}}{})", range(self.args.window));
            Ok::<u64, anyhow::Error>(whole(self.server.sum(&query, self.at)?))
        };
        let exposed = requests("exposed")?;
        Ok(Arm {
            requests: exposed.saturating_add(requests("unexposed|missing_id")?),
            exposed,
            exposures: count("request_exposure", None),
            clicks: count("exposure_click", None),
            linked: count("triple", Some("complete")),
            broken: count("triple", Some("broken")),
            unseen_exposures: count("request_exposure", Some("unseen")),
            repeats: self.repeats(release)?,
        })
    }

    fn repeats(&self, release: &str) -> Result<Repeats> {
        let count = |metric: &str, kind: Kind| {
            let matchers = format!("kind={},{}", quoted(kind.name()), self.matchers(release));
            let query = format!("increase({metric}{{{matchers}}}{})", range(self.args.window));
            Ok::<u64, anyhow::Error>(whole(self.server.sum(&query, self.at)?))
        };
        let seen = |kind| {
            let events = count("linktracer_events_total", kind)?;
            let repeated = count("linktracer_duplicates_total", kind)?;
            // Prometheus extrapolates each by itself.
            Ok::<Seen, anyhow::Error>(Seen { events, repeated: repeated.min(events) })
        };
        Ok(Repeats { requests: seen(Kind::Request)?, exposures: seen(Kind::Exposure)? })
    }

    fn conditions(&self) -> Result<Conditions> {
        let window = range(self.args.window);
        let count = |query: &str| Ok::<u64, anyhow::Error>(whole(self.server.sum(query, self.at)?));
        Ok(Conditions {
            events: count(&format!("increase(linktracer_events_total{window})"))?,
            lost: count(&format!("increase(linktracer_lost_events_total{window})"))?,
            unjudged: count(&format!("increase(linktracer_late_without_outcome_total{window})"))?,
            late_coverage: count(&format!(
                "increase(linktracer_coverage_horizon_moves_total{{reason=~\"attached_late|start_missed\"}}{window})"
            ))?,
            missing_probes: count(&format!(
                "increase(linktracer_attach_errors_total{})",
                range(self.args.window.max(PROBE_MEMORY))
            ))?,
            silent_daemons: count(&format!(
                "count(group by (instance) (present_over_time(linktracer_build_info{window})) \
                 unless group by (instance) (linktracer_build_info))"
            ))?,
            settled: [self.settled(&self.args.stable)?, self.settled(&self.args.canary)?],
            halves: self.halves()?,
        })
    }

    /// Whether the release was being counted a click window before the window began.
    fn settled(&self, release: &str) -> Result<Option<bool>> {
        let click_window = Duration::from_nanos(self.args.join.click_window.0);
        let query = format!(
            "count(last_over_time(linktracer_events_total{{kind=\"exposure\",{}}}[5m] offset {}s))",
            self.matchers(release),
            (self.args.window + click_window).as_secs()
        );
        Ok(Some(self.server.sum(&query, self.at)? > 0.0))
    }

    /// The canary's share of exposures in each half of the window.
    fn halves(&self) -> Result<[Option<f64>; 2]> {
        let half = self.args.window / 2;
        let exposures = |release: &str, offset: &str| {
            let query = format!(
                "increase(linktracer_links_total{{edge=\"request_exposure\",{}}}{}{offset})",
                self.matchers(release),
                range(half),
            );
            self.server.sum(&query, self.at)
        };
        let share = |offset: &str| {
            let (stable, canary) =
                (exposures(&self.args.stable, offset)?, exposures(&self.args.canary, offset)?);
            let all = stable + canary;
            Ok::<Option<f64>, anyhow::Error>((all > 0.0).then(|| canary / all))
        };
        // Prometheus 2 refuses an offset of zero.
        Ok([share(&format!(" offset {}s", half.as_secs().max(1)))?, share("")?])
    }
}

/// A duration as the range of a selector; at least a second.
fn range(duration: Duration) -> String {
    format!("[{}s]", duration.as_secs().max(1))
}
