//! One place with a service, a folder for state and a folder for pins, and the questions that every
//! test of restarts asks.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rustix::process::Signal;
use tests::{daemon::Daemon, linktracer, printed, wait_for};
use tracer_user::{
    attach::{
        Ring,
        pins::{PinFolder, PinSet},
    },
    demo::{
        fixture::{Collector, Fixture},
        measure::{Scrape, WAITING_TABLES},
    },
};

use crate::load::Made;

pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Numbers that are the same in each run.
pub(crate) fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    }
}

/// The place. What is pinned goes when it is dropped, and what is mounted.
pub(crate) struct Site {
    fixture: Fixture,
    collector: Arc<Collector>,
    state_dir: PathBuf,
    pin_dir: PathBuf,
    /// Lines of the configuration.
    pub(crate) settings: String,
    mounted: bool,
}

impl Site {
    pub(crate) fn new(settings: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let fixture = Fixture::unpack().expect("unpacks");
        let pin_dir = PathBuf::from(format!("/sys/fs/bpf/linktracer-test-{}-{number}", std::process::id()));
        Self {
            state_dir: fixture.root().join("state"),
            pin_dir,
            collector: Arc::new(Collector::start().expect("starts")),
            fixture,
            settings: settings.to_owned(),
            mounted: false,
        }
    }

    /// With a disk of this many bytes for its state.
    pub(crate) fn on_small_disk(settings: &str, bytes: u64) -> Self {
        let mut site = Self::new(settings);
        fs::create_dir(&site.state_dir).expect("is writable");
        let size = format!("size={bytes}");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&site.state_dir).output();
        let mount = mount.expect("mount starts");
        assert!(mount.status.success(), "{}", printed(&mount));
        site.mounted = true;
        site
    }

    pub(crate) fn fill_disk(&self) {
        let mut filler = Vec::new();
        // The last write comes to its end when the disk does.
        while fs::write(self.state_dir.join("filler"), &filler).is_ok() {
            filler.resize(filler.len() + 16 * 1024, 0);
        }
    }

    pub(crate) fn empty_disk(&self) {
        fs::remove_file(self.state_dir.join("filler")).expect("is there");
    }

    pub(crate) const fn fixture(&self) -> &Fixture {
        &self.fixture
    }

    pub(crate) const fn collector(&self) -> &Arc<Collector> {
        &self.collector
    }

    fn config(&self) -> String {
        let args = "\"(request_id cstr, item_id cstr)\"";
        let Self { fixture, collector, state_dir, pin_dir, settings, .. } = self;
        let (exe, library, collector) = (fixture.service(), fixture.library(), collector.address());
        format!(
            "state_dir: {state_dir}\npin_dir: {pin_dir}\n{settings}services:\n  - name: demo\n    match: {{ exe: {exe} }}\n    \
             release: [\"env:BUILD_COMMIT_TAG\"]\n    request: {{ id: {{ header: X-Request-Id }} }}\n    \
             exposure: {{ library: {library}, symbol: trackExposure, args: {args} }}\n    \
             click: {{ library: {library}, symbol: trackClick, args: {args} }}\n    report: {{ to: [\"{collector}\"] }}\n\
             join: {{ exposure_window: 5s, click_window: 10m, report_window: 3s, lateness: 500ms }}\n",
            state_dir = state_dir.display(),
            pin_dir = pin_dir.display(),
            exe = exe.display(),
            library = library.display(),
        )
    }

    pub(crate) fn start(&self) -> Daemon {
        Daemon::start(self.fixture.root(), &self.config())
    }

    pub(crate) fn start_without_waiting(&self) -> Daemon {
        Daemon::spawn(self.fixture.root(), &self.config())
    }

    /// Gives the daemon these settings, and waits until its log has this and it answers.
    pub(crate) fn reload(&mut self, daemon: &Daemon, settings: &str, said: &str) {
        settings.clone_into(&mut self.settings);
        self.reload_listening(daemon, daemon.address(), said);
    }

    /// The same with the settings that it has and another address.
    pub(crate) fn reload_listening(&self, daemon: &Daemon, address: SocketAddr, said: &str) {
        let file = self.fixture.root().join("linktracer.yaml");
        fs::write(&file, format!("listen: {address}\n{}", self.config())).expect("is writable");
        let known = daemon.log().len();
        daemon.signal(Signal::HUP);
        wait_for(said, LIMIT, || daemon.log()[known..].contains(said).then_some(()));
        wait_for("the daemon answers", LIMIT, || Scrape::fetch(daemon.address()).ok());
    }

    pub(crate) fn detach(&self) -> String {
        let config = self.fixture.root().join("linktracer.yaml");
        let output = linktracer(&["detach", "--config", config.to_str().expect("UTF-8")]);
        assert!(output.status.success(), "{}", printed(&output));
        printed(&output)
    }

    pub(crate) fn checkpoint(&self) -> PathBuf {
        self.state_dir.join("checkpoint")
    }

    /// Journals that have anything in them, in order.
    pub(crate) fn journals(&self) -> Vec<PathBuf> {
        let mut journals = self.journal_files();
        journals.retain(|path| fs::metadata(path).is_ok_and(|file| file.len() > 16));
        journals
    }

    /// Every journal, also those without anything in them, oldest first.
    pub(crate) fn journal_files(&self) -> Vec<PathBuf> {
        let number = |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix("journal-")?.parse().ok();
        let numbered = self.files().into_iter().filter_map(|path| Some((number(&path)?, path)));
        numbered.collect::<BTreeMap<u64, PathBuf>>().into_values().collect()
    }

    /// Every kernel side that was left.
    pub(crate) fn pinned(&self) -> Vec<PinSet> {
        PinFolder::open(&self.pin_dir).expect("nobody has it").sets().expect("can be read")
    }

    /// Takes away what is in the kernel, as the end of the machine does.
    pub(crate) fn lose_kernel_side(&self) {
        for set in self.pinned() {
            set.remove().expect("is ours");
        }
    }

    pub(crate) fn refused(&self) -> Vec<PathBuf> {
        self.files().into_iter().filter(|path| path.to_string_lossy().contains("refused")).collect()
    }

    /// The ring that a killed daemon left.
    pub(crate) fn ring(&self) -> Ring {
        self.pinned().iter().find_map(PinSet::ring).expect("there is a ring")
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.state_dir).expect("is there");
        entries.map(|entry| entry.expect("can be read").path()).collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Each fails only where there is nothing to take away.
        let _ = fs::remove_dir_all(&self.pin_dir);
        if self.mounted {
            let _ = Command::new("umount").arg("--lazy").arg(&self.state_dir).status();
        }
    }
}

/// Waits until a metric has come to this count, and that it does not go beyond it.
#[track_caller]
pub(crate) fn expect(daemon: &Daemon, name: &str, labels: &[(&str, &str)], count: f64) {
    let what = format!("{name} {labels:?} is {count}");
    let deadline = std::time::Instant::now() + LIMIT;
    loop {
        let value = daemon.metric(name, labels);
        if value == count {
            return;
        }
        if value > count || std::time::Instant::now() > deadline {
            let (_, metrics) = daemon.page("/metrics");
            panic!("{what}, and was {value}\n{}\n{metrics}", daemon.log());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Requests that a daemon has counted.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count is a whole number")]
pub(crate) fn requests_counted(scrape: &Scrape) -> u64 {
    tests::daemon::sum(scrape, "linktracer_events_total", &[("kind", "request")]) as u64
}

/// Waits until everything that was made was taken in.
#[track_caller]
pub(crate) fn wait_for_events(daemon: &Daemon, made: &Made) {
    // A report is a connection and a send.
    let counts = [
        ("request", made.requests),
        ("exposure", made.exposures),
        ("click", made.clicks),
        ("report", 2 * made.clicks),
    ];
    for (kind, count) in counts {
        expect(daemon, "linktracer_events_total", &[("kind", kind)], count as f64);
    }
}

/// Waits until nothing waits any more.
pub(crate) fn settle_tables(daemon: &Daemon) {
    wait_for("everything is judged", LIMIT, || {
        let waiting: f64 =
            WAITING_TABLES.iter().map(|table| daemon.metric("linktracer_pending", &[("table", table)])).sum();
        (waiting == 0.0).then_some(())
    });
}

/// Waits until everything that was made was taken in and judged.
#[track_caller]
pub(crate) fn settle(daemon: &Daemon, made: &Made) {
    wait_for_events(daemon, made);
    settle_tables(daemon);
}

/// What is broken of what was made.
pub(crate) fn broken_links(made: &Made) -> [(&'static str, &'static str, f64); 4] {
    [
        ("request_exposure", "orphan", made.orphans as f64),
        ("exposure_click", "mismatch", made.mismatches as f64),
        ("exposure_click", "orphan", made.orphan_clicks as f64),
        ("triple", "broken", (made.mismatches + made.orphan_clicks) as f64),
    ]
}

/// Every count is what was made.
#[track_caller]
pub(crate) fn assert_exact(daemon: &Daemon, made: &Made) {
    let linked_clicks = made.clicks - made.mismatches - made.orphan_clicks;
    let mut expected = vec![
        ("request_exposure", "linked", (made.exposures - made.orphans) as f64),
        ("request_exposure", "unseen", 0.0),
        ("exposure_click", "linked", linked_clicks as f64),
        ("exposure_click", "unseen", 0.0),
        ("click_report", "reported", made.clicks as f64),
        ("click_report", "unreported", 0.0),
        ("triple", "complete", linked_clicks as f64),
        ("triple", "unseen", 0.0),
    ];
    expected.extend(broken_links(made));
    for (edge, outcome, count) in expected {
        let labels = [("edge", edge), ("outcome", outcome), ("release", "demo")];
        assert_eq!(
            daemon.metric("linktracer_links_total", &labels),
            count,
            "{edge} {outcome}\n{}",
            daemon.log()
        );
    }
    for (outcome, count) in [("exposed", made.requests - made.unexposed), ("unexposed", made.unexposed)] {
        assert_eq!(
            daemon.metric("linktracer_requests_total", &[("outcome", outcome)]),
            count as f64,
            "{outcome}"
        );
    }
    assert_eq!(daemon.metric("linktracer_duplicates_total", &[]), 0.0);
    assert_eq!(daemon.metric("linktracer_late_events_total", &[]), 0.0);
    assert_eq!(
        daemon.metric("linktracer_exposure_to_click_seconds_count", &[]),
        linked_clicks as f64,
        "the histogram of delays"
    );
    assert_accounts_balance(daemon);
}

/// What the hooks of the traced service alone submitted was received.
#[track_caller]
pub(crate) fn assert_accounts_balance(daemon: &Daemon) {
    for probe in ["exposure", "click"] {
        let hits = |outcome: &str| {
            daemon.metric("linktracer_kernel_hits_total", &[("probe", probe), ("outcome", outcome)])
        };
        let outcomes = [
            "submitted",
            "ring_full",
            "read_fault",
            "id_too_long",
            "filtered",
            "out_of_bounds",
            "targets_full",
        ];
        assert_eq!(hits("hit"), outcomes.iter().map(|outcome| hits(outcome)).sum::<f64>(), "{probe}");
        let received = daemon.metric("linktracer_received_records_total", &[("probe", probe)]);
        assert_eq!(hits("submitted"), received, "{probe}\n{}", daemon.log());
    }
}

/// No counter of the traced service is lower than before: to Prometheus that would be a new beginning.
#[track_caller]
pub(crate) fn assert_no_counter_fell(before: &Scrape, after: &Scrape) {
    let counters = |scrape: &Scrape| -> BTreeMap<String, f64> {
        let samples = scrape.samples().iter().filter(|sample| {
            sample.name.ends_with("_total") || sample.name.starts_with("linktracer_exposure_to_click")
        });
        samples.map(|sample| (format!("{} {:?}", sample.name, sample.labels), sample.value)).collect()
    };
    let after = counters(after);
    for (series, value) in counters(before) {
        let now = after.get(&series).copied().unwrap_or(-1.0);
        assert!(now >= value, "{series} fell from {value} to {now}");
    }
}
