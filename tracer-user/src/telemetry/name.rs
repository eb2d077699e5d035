//! Names and help texts.

/// A metric that linktracer publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Events taken in.
    Events,
    /// Links judged.
    Links,
    /// Events that repeat an earlier one.
    Duplicates,
    /// Events older than the watermark on arrival.
    LateEvents,
    /// Late events for which nothing was decided.
    LateWithoutOutcome,
    /// New requests judged.
    Requests,
    /// Share of broken links.
    BrokenLinkRatio,
    /// Whether the ratios can be acted on.
    WindowTrustworthy,
    /// Time from exposure to click.
    ExposureToClick,
    /// Hits of the kernel side's hooks.
    KernelHits,
    /// Hooks that the kernel did not run.
    SkippedHits,
    /// Records received from the kernel side.
    ReceivedRecords,
    /// What records told beside the first thing.
    FurtherMessages,
    /// What was lost.
    LostEvents,
    /// What waits in the join.
    Pending,
    /// What the join's state takes.
    StateBytes,
    /// What it may take.
    StateLimitBytes,
    /// What the join gave up to keep within that.
    Evicted,
    /// Events of which nothing can be said for that reason.
    EvictedEvents,
    /// Since when the join knows everything.
    CoverageHorizon,
    /// Moves of the coverage horizon.
    CoverageHorizonMoves,
    /// Probes that are in place.
    AttachedProbes,
    /// Probes that are in place and not hit.
    SuspiciousProbes,
    /// Processes that are traced.
    TargetProcesses,
    /// Probes that could not be put in place.
    AttachErrors,
    /// From the start of a process to its probes.
    AttachGap,
    /// Look-ups of collectors' names.
    CollectorLookups,
    /// Programs that were held until they were probed.
    HeldExecs,
    /// File systems on which programs are held.
    HoldFileSystems,
    /// Whether pods are followed.
    PodWatchUp,
    /// For how long they are not.
    PodWatchAge,
    /// Why they are not.
    PodWatchErrors,
    /// Pods that are known.
    KnownPods,
    /// What became of processes that waited for what Kubernetes says.
    PodWaits,
    /// Processes of which Kubernetes has not said enough.
    UnsettledProcesses,
    /// What is held until it has.
    HeldBack,
    /// How far the watermark is behind the clock.
    WatermarkLag,
    /// How far the system clock was stepped.
    ClockStep,
    /// When the last checkpoint was written.
    Checkpoint,
    /// How long the join stood still for a checkpoint.
    CheckpointPause,
    /// What could not be kept.
    CheckpointFailures,
    /// Triples as traces.
    OtlpTriples,
    /// Whether the configuration's file was right when it was last read.
    ConfigReloadSuccessful,
    /// When it last was.
    ConfigReloadSuccessTime,
    /// What this is.
    BuildInfo,
    /// Usual CTR, of `linktracer baseline`.
    BaselineCtr,
    /// What it was learned from.
    BaselineHours,
}

impl Metric {
    /// Every metric.
    pub const ALL: &[Self] = &[
        Self::Events,
        Self::Links,
        Self::Duplicates,
        Self::LateEvents,
        Self::LateWithoutOutcome,
        Self::Requests,
        Self::BrokenLinkRatio,
        Self::WindowTrustworthy,
        Self::ExposureToClick,
        Self::KernelHits,
        Self::SkippedHits,
        Self::ReceivedRecords,
        Self::FurtherMessages,
        Self::LostEvents,
        Self::Pending,
        Self::StateBytes,
        Self::StateLimitBytes,
        Self::Evicted,
        Self::EvictedEvents,
        Self::CoverageHorizon,
        Self::CoverageHorizonMoves,
        Self::AttachedProbes,
        Self::SuspiciousProbes,
        Self::TargetProcesses,
        Self::AttachErrors,
        Self::AttachGap,
        Self::CollectorLookups,
        Self::HeldExecs,
        Self::HoldFileSystems,
        Self::PodWatchUp,
        Self::PodWatchAge,
        Self::PodWatchErrors,
        Self::KnownPods,
        Self::PodWaits,
        Self::UnsettledProcesses,
        Self::HeldBack,
        Self::WatermarkLag,
        Self::ClockStep,
        Self::Checkpoint,
        Self::CheckpointPause,
        Self::CheckpointFailures,
        Self::OtlpTriples,
        Self::ConfigReloadSuccessful,
        Self::ConfigReloadSuccessTime,
        Self::BuildInfo,
        Self::BaselineCtr,
        Self::BaselineHours,
    ];

    /// The name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Events => "linktracer_events_total",
            Self::Links => "linktracer_links_total",
            Self::Duplicates => "linktracer_duplicates_total",
            Self::LateEvents => "linktracer_late_events_total",
            Self::LateWithoutOutcome => "linktracer_late_without_outcome_total",
            Self::Requests => "linktracer_requests_total",
            Self::BrokenLinkRatio => "linktracer_broken_link_ratio",
            Self::WindowTrustworthy => "linktracer_window_trustworthy",
            Self::ExposureToClick => "linktracer_exposure_to_click_seconds",
            Self::KernelHits => "linktracer_kernel_hits_total",
            Self::SkippedHits => "linktracer_skipped_hits_total",
            Self::ReceivedRecords => "linktracer_received_records_total",
            Self::FurtherMessages => "linktracer_further_messages_total",
            Self::LostEvents => "linktracer_lost_events_total",
            Self::Pending => "linktracer_pending",
            Self::StateBytes => "linktracer_state_bytes",
            Self::StateLimitBytes => "linktracer_state_limit_bytes",
            Self::Evicted => "linktracer_evicted_total",
            Self::EvictedEvents => "linktracer_evicted_events_total",
            Self::CoverageHorizon => "linktracer_coverage_horizon_timestamp_seconds",
            Self::CoverageHorizonMoves => "linktracer_coverage_horizon_moves_total",
            Self::AttachedProbes => "linktracer_attached_probes",
            Self::SuspiciousProbes => "linktracer_suspicious_probes",
            Self::TargetProcesses => "linktracer_target_processes",
            Self::AttachErrors => "linktracer_attach_errors_total",
            Self::AttachGap => "linktracer_attach_gap_seconds",
            Self::CollectorLookups => "linktracer_collector_lookups_total",
            Self::HeldExecs => "linktracer_held_execs_total",
            Self::HoldFileSystems => "linktracer_hold_file_systems",
            Self::PodWatchUp => "linktracer_pod_watch_up",
            Self::PodWatchAge => "linktracer_pod_watch_age_seconds",
            Self::PodWatchErrors => "linktracer_pod_watch_errors_total",
            Self::KnownPods => "linktracer_known_pods",
            Self::PodWaits => "linktracer_pod_waits_total",
            Self::UnsettledProcesses => "linktracer_unsettled_processes",
            Self::HeldBack => "linktracer_held_back",
            Self::WatermarkLag => "linktracer_watermark_lag_seconds",
            Self::ClockStep => "linktracer_clock_step_seconds",
            Self::Checkpoint => "linktracer_checkpoint_timestamp_seconds",
            Self::CheckpointPause => "linktracer_checkpoint_pause_seconds",
            Self::CheckpointFailures => "linktracer_checkpoint_failures_total",
            Self::OtlpTriples => "linktracer_otlp_triples_total",
            Self::ConfigReloadSuccessful => "linktracer_config_last_reload_successful",
            Self::ConfigReloadSuccessTime => "linktracer_config_last_reload_success_timestamp_seconds",
            Self::BuildInfo => "linktracer_build_info",
            Self::BaselineCtr => "linktracer_baseline_ctr",
            Self::BaselineHours => "linktracer_baseline_hours",
        }
    }

    /// The help text.
    pub const fn help(self) -> &'static str {
        match self {
            Self::Events => "Events taken in by the join, by kind.",
            Self::Links => {
                "Links judged, by edge and outcome. The labels are those of the event that is judged."
            }
            Self::Duplicates => "Events that repeat an earlier one within its window.",
            Self::LateEvents => "Events older than the watermark when they arrived.",
            Self::LateWithoutOutcome => {
                "Late events for which nothing was decided: what would have been broken may only have come too late."
            }
            Self::Requests => "New requests judged: exposed, unexposed or without an id.",
            Self::BrokenLinkRatio => {
                "Broken links / (broken + linked) of an edge over the window (ratio.window), and what it can be at least and at most when events were lost."
            }
            Self::WindowTrustworthy => {
                "1 when every ratio of the service is known well enough (ratio.trusted_width), else 0."
            }
            Self::ExposureToClick => "Time from the exposure to the click that is linked to it.",
            Self::SkippedHits => {
                "Calls of a hook that the kernel did not make, for any process of the machine, by hook."
            }
            Self::KernelHits => {
                "Hits of the kernel side's hooks. For every probe, hit = the sum of the other outcomes."
            }
            Self::ReceivedRecords => "Records received from the kernel side, by hook and what they were.",
            Self::FurtherMessages => {
                "Messages told beside the first of a record (several in one send), or given up without one."
            }
            Self::LostEvents => "What the tracer saw but could not keep, by reason.",
            Self::Pending => "What waits in the join, by table.",
            Self::StateBytes => "Memory that the join's state takes, spare room included.",
            Self::StateLimitBytes => "Memory that the join's state may take: join.memory_limit.",
            Self::Evicted => "What the join gave up to keep join.memory_limit, by table.",
            Self::EvictedEvents => {
                "Events that waited when they were given up to keep join.memory_limit, so that nothing is said of them."
            }
            Self::CoverageHorizon => {
                "Since when everything of this kind was seen, as Unix time; 0 when nothing can have been missed."
            }
            Self::CoverageHorizonMoves => "Moves of the coverage horizon, by reason.",
            Self::AttachedProbes => "Probes in place, by service and hook.",
            Self::SuspiciousProbes => {
                "1 for a probe that is in place and not hit while its service sends requests, 0 once it is hit again."
            }
            Self::TargetProcesses => "Processes that are traced, by service.",
            Self::AttachErrors => "Probes that could not be put in place, by reason.",
            Self::HeldExecs => "Executed programs on watched file systems, by what became of them.",
            Self::HoldFileSystems => "File systems on which programs are held until they are probed.",
            Self::AttachGap => "How long a started process could call SDK functions before they were probed.",
            Self::CollectorLookups => "Look-ups of collectors' names, by name and outcome.",
            Self::PodWatchUp => "1 while the pods of this node are followed at the Kubernetes API, else 0.",
            Self::PodWatchAge => "How old what is known of pods may be: 0 while they are followed.",
            Self::PodWatchErrors => "Failures to follow the pods of this node, by reason.",
            Self::KnownPods => "Pods of this node that are known.",
            Self::PodWaits => {
                "Processes that waited for what Kubernetes says of them, by what became of them; one that was given up may be decided later."
            }
            Self::UnsettledProcesses => {
                "Running processes of which Kubernetes has not said enough: they wait, or their wait is over."
            }
            Self::HeldBack => {
                "Records that wait for what Kubernetes says of their process, and events behind them."
            }
            Self::WatermarkLag => "How far the join's watermark is behind the clock.",
            Self::ClockStep => {
                "How far the system clock was stepped since the start; events are not moved by it."
            }
            Self::Checkpoint => "When the last checkpoint was written, as Unix time; 0 without one.",
            Self::CheckpointPause => "How long the join stood still for a checkpoint.",
            Self::CheckpointFailures => "Checkpoints and journal entries that could not be written.",
            Self::OtlpTriples => {
                "Complete and broken triples that were judged since the start, by what became of them as traces."
            }
            Self::ConfigReloadSuccessful => {
                "1 when the configuration was valid when it was last read (at the start, at SIGHUP), else 0."
            }
            Self::ConfigReloadSuccessTime => "When it last was valid, as Unix time.",
            Self::BuildInfo => "What this is; always 1.",
            Self::BaselineCtr => {
                "Quantiles of the CTR that is usual at this hour for a sample of the current size; absent without a baseline."
            }
            Self::BaselineHours => "Hours that the baseline was fitted to; 0 without one.",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::Metric;

    #[test]
    fn no_name_stands_for_two_metrics() {
        let names: HashSet<_> = Metric::ALL.iter().map(|metric| metric.name()).collect();
        assert_eq!(names.len(), Metric::ALL.len());
    }
}
