//! What the service is made to do, and how often it did.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tracer_user::demo::{
    fixture::{Collector, ServiceProcess},
    http::Connection,
    plan::Target,
};

use crate::site::Site;

/// Requests that may be made beside those that were counted: what they make takes some 35 MB of a ring, at
/// most, so that a ring of 64 MiB does not overflow however long nobody empties it.
const MAX_AHEAD: u64 = 10_000;
/// Items shown for each request.
const ITEMS: u64 = 10;

/// What was made, by kind and by what has to become of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) requests: u64,
    pub(crate) exposures: u64,
    pub(crate) clicks: u64,
    /// Exposures under an id that was never requested.
    pub(crate) orphans: u64,
    /// Requests whose exposures went under another id.
    pub(crate) unexposed: u64,
    /// Clicks on an item that was not shown for their request.
    pub(crate) mismatches: u64,
    /// Clicks under an id that nothing was shown for.
    pub(crate) orphan_clicks: u64,
}

impl Made {
    /// What was made beside that.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            requests: self.requests - before.requests,
            exposures: self.exposures - before.exposures,
            clicks: self.clicks - before.clicks,
            orphans: self.orphans - before.orphans,
            unexposed: self.unexposed - before.unexposed,
            mismatches: self.mismatches - before.mismatches,
            orphan_clicks: self.orphan_clicks - before.orphan_clicks,
        }
    }
}

/// A service and whoever uses it.
pub(crate) struct Load {
    connection: Connection,
    _service: ServiceProcess,
    _collector: Arc<Collector>,
    next: u64,
    made: Made,
}

impl Load {
    pub(crate) fn new(site: &Site) -> Self {
        let collector = Arc::clone(site.collector());
        let service = ServiceProcess::start(site.fixture(), Target::Main, collector.address(), "write");
        let service = service.expect("starts");
        let connection = Connection::open(service.address()).expect("connects");
        Self { connection, _service: service, _collector: collector, next: 0, made: Made::default() }
    }

    /// Works as fast as the service does until it is told to finish, and never far ahead of what was counted.
    pub(crate) fn start(site: &Site) -> Running {
        let mut load = Self::new(site);
        let (stop, counted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = thread::spawn({
            let (stop, counted) = (Arc::clone(&stop), Arc::clone(&counted));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    if load.made.requests < counted.load(Ordering::Relaxed) + MAX_AHEAD {
                        load.work(1);
                    } else {
                        thread::sleep(Duration::from_millis(1));
                    }
                }
                load
            }
        });
        Running { stop, counted, thread }
    }

    pub(crate) const fn made(&self) -> &Made {
        &self.made
    }

    /// Serves this many requests, some with faults.
    pub(crate) fn work(&mut self, requests: u64) {
        for _ in 0..requests {
            self.step(true);
        }
    }

    /// Serves this many requests without any fault.
    pub(crate) fn work_intact(&mut self, requests: u64) {
        for _ in 0..requests {
            self.step(false);
        }
    }

    fn step(&mut self, faulty: bool) {
        let number = self.next;
        self.next += 1;
        let items: Vec<String> = (0..ITEMS).map(|item| format!("i{item}")).collect();
        let items = items.join(",");
        self.made.requests += 1;
        self.made.exposures += ITEMS;
        if faulty && number % 7 == 3 {
            self.get(&format!("/recommend?id=r{number}&items={items}&expose_id=x{number}"));
            self.made.orphans += ITEMS;
            self.made.unexposed += 1;
            return;
        }
        self.get(&format!("/recommend?id=r{number}&items={items}"));
        if number.is_multiple_of(5) {
            self.click(&format!("id=r{number}&item=i1"));
            if faulty {
                self.click(&format!("id=r{number}&item=other"));
                self.made.mismatches += 1;
                self.click(&format!("id=nothing{number}&item=i1"));
                self.made.orphan_clicks += 1;
            }
        }
    }

    /// Shows items whose ids are longer than can be captured, as the last thing, for longer than the daemon waits between two
    /// looks at the ring. Returns how often.
    pub(crate) fn show_what_cannot_be_captured(&mut self) -> u64 {
        const ITEMS: usize = 40;
        const TIMES: u64 = 1000;
        let number = self.next;
        self.next += 1;
        self.made.requests += 1;
        self.made.unexposed += 1;
        let items = vec!["i".repeat(200); ITEMS].join(",");
        self.get(&format!("/recommend?id=r{number}&items={items}&repeat={TIMES}"));
        ITEMS as u64 * TIMES
    }

    /// Clicks on what was shown for this request.
    pub(crate) fn click_on(&mut self, number: u64) {
        self.click(&format!("id=r{number}&item=i1"));
    }

    fn click(&mut self, query: &str) {
        self.get(&format!("/click?{query}"));
        self.made.clicks += 1;
    }

    fn get(&mut self, path: &str) {
        let response = self.connection.get(path).expect("the service answers");
        assert!(response.status < 300, "{path}: {}", response.status);
    }
}

/// A load that goes on by itself.
pub(crate) struct Running {
    stop: Arc<AtomicBool>,
    counted: Arc<AtomicU64>,
    thread: JoinHandle<Load>,
}

impl Running {
    /// A daemon has counted so many requests by now.
    pub(crate) fn note_counted(&self, requests: u64) {
        self.counted.store(requests, Ordering::Relaxed);
    }

    /// Ends it. What it made is settled by then.
    pub(crate) fn finish(self) -> Made {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the load had no failure").made
    }
}
