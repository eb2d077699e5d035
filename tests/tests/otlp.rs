//! Triples as traces, sent to a receiver that is not ours: the spans, their times, parents and links are those of the
//! recorded events, all of them and no other. And a receiver that does not listen costs nothing but the traces.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tests::{
    binary,
    daemon::{free_address, sum},
    otlp::{Receiver, Span},
    wait_for, within_seccomp,
};
use tracer_user::{demo::measure::Scrape, prometheus_api::whole};

/// The demo's tolerance for clocks that disagree.
const SKEW_NS: u64 = 100_000_000;
/// Exposures of other items that come with a mismatch.
const MAX_OTHERS: usize = 8;

/// A demo whose daemon goes on after the comparison. Killed when it is dropped.
struct Demo {
    child: Child,
    stdout: BufReader<ChildStdout>,
    printed: String,
    address: SocketAddr,
}

impl Demo {
    fn start(endpoint: &str, options: &[&str]) -> Self {
        let mut child = Command::new(binary())
            .args(["demo", "--requests=200", "--seed=5", "--keep", "--otlp", endpoint])
            .args(options)
            .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20of-the-demo")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("is piped"));
        let (mut printed, mut line) = (String::new(), String::new());
        let address = loop {
            line.clear();
            assert!(stdout.read_line(&mut line).expect("is readable") > 0, "the demo ended early: {printed}");
            printed.push_str(&line);
            if let Some(url) = line.strip_prefix("metrics: http://") {
                break url.split('/').next().expect("an address").parse().expect("an address");
            }
        };
        assert!(printed.contains("counts equal"), "{printed}");
        Self { child, stdout, printed, address }
    }

    /// Complete and broken triples.
    fn triples(&self) -> [u64; 2] {
        ["complete", "broken"]
            .map(|outcome| self.metric("linktracer_links_total", &[("edge", "triple"), ("outcome", outcome)]))
    }

    /// Triples as traces, by what became of them.
    fn told(&self, outcome: &str) -> u64 {
        self.metric("linktracer_otlp_triples_total", &[("outcome", outcome)])
    }

    fn metric(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        whole(sum(&Scrape::fetch(self.address).expect("the daemon answers"), name, labels))
    }

    fn stop(mut self) -> String {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("is our child");
        self.stdout.read_to_string(&mut self.printed).expect("text");
        assert!(self.child.wait().expect("is our child").success(), "{}", self.printed);
        std::mem::take(&mut self.printed)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It takes its daemon with it only when it is asked to end. It may have ended by itself.
        let _ = kill_process(Pid::from_child(&self.child), Signal::INT);
        let _ = self.child.wait();
    }
}

/// A recorded event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    at_ns: u64,
    kind: String,
    request_id: String,
    item_id: String,
    pid: String,
}

fn recorded(path: &Path) -> Vec<Seen> {
    let text = fs::read_to_string(path).expect("is readable");
    let mut seen: Vec<Seen> = text
        .lines()
        .map(|line| {
            let event: Value = serde_json::from_str(line).expect("JSON");
            let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            Seen {
                at_ns: event["ts"].as_u64().expect("a time"),
                kind: text("kind"),
                request_id: text("request_id"),
                item_id: text("item_id"),
                pid: event["pid"].to_string(),
            }
        })
        .collect();
    seen.sort();
    seen
}

/// A span in short: its event, its status, its parent's event, the event that it is linked to.
type Short = (Seen, String, Option<Seen>, Option<Seen>);

/// What the rules of docs/semantics.md make of recorded events, in the plainest way.
struct Rules<'a> {
    /// By kind and request id, oldest first.
    events: HashMap<(&'a str, &'a str), Vec<&'a Seen>>,
}

impl<'a> Rules<'a> {
    fn new(seen: &'a [Seen]) -> Self {
        let mut events: HashMap<_, Vec<_>> = HashMap::new();
        for event in seen.iter().filter(|event| !event.request_id.is_empty()) {
            events.entry((event.kind.as_str(), event.request_id.as_str())).or_default().push(event);
        }
        Self { events }
    }

    fn of(
        &self,
        kind: &'a str,
        request_id: &'a str,
    ) -> impl DoubleEndedIterator<Item = &'a Seen> + Clone + use<'a, '_> {
        self.events.get(&(kind, request_id)).into_iter().flatten().copied()
    }

    /// The last of them before, else the first one within the tolerance after.
    fn other_end(mut of: impl DoubleEndedIterator<Item = &'a Seen> + Clone, at_ns: u64) -> Option<&'a Seen> {
        of.clone()
            .rfind(|event| event.at_ns <= at_ns)
            .or_else(|| of.find(|event| event.at_ns <= at_ns + SKEW_NS))
    }

    fn sightings(&self, of: &'a Seen) -> impl DoubleEndedIterator<Item = &'a Seen> + Clone + use<'a, '_> {
        self.of("exposure", &of.request_id).filter(|event| event.item_id == of.item_id)
    }

    /// The request of an exposure, or of the one that it repeats.
    fn request_of(&self, exposure: &'a Seen) -> Option<&'a Seen> {
        let first = self.sightings(exposure).next().expect("itself at least");
        Self::other_end(self.of("request", &exposure.request_id), first.at_ns)
    }

    /// The click's span and those that it takes along.
    fn spans(&self, click: &'a Seen) -> Vec<Short> {
        let last_request = self.of("request", &click.request_id).rfind(|event| event.at_ns <= click.at_ns);
        let is_missing = click.request_id.is_empty() || click.item_id.is_empty();
        let sighting = Self::other_end(self.sightings(click), click.at_ns).filter(|_| !is_missing);
        if let Some(sighting) = sighting {
            let request = self.request_of(sighting);
            let status = if request.is_some() { "" } else { "request_exposure: orphan" };
            let mut spans = vec![self.exposure(sighting), span(click, status, None, Some(sighting))];
            spans.extend(request.map(|request| span(request, "", None, None)));
            return spans;
        }
        let firsts = self.of("exposure", &click.request_id).filter(|event| !event.item_id.is_empty());
        let firsts = firsts.filter(|event| self.sightings(event).next() == Some(event));
        let shown: Vec<&Seen> = firsts.filter(|event| event.at_ns <= click.at_ns).collect();
        let status = match () {
            () if is_missing => "exposure_click: missing_id",
            () if shown.is_empty() => "exposure_click: orphan",
            () => "exposure_click: mismatch",
        };
        let others = if is_missing { &[] } else { &shown[shown.len().saturating_sub(MAX_OTHERS)..] };
        let mut spans = vec![span(click, status, None, last_request)];
        spans.extend(others.iter().map(|exposure| self.exposure(exposure)));
        spans.extend(last_request.map(|request| span(request, "", None, None)));
        spans
    }

    fn exposure(&self, exposure: &'a Seen) -> Short {
        let request = self.request_of(exposure);
        span(exposure, if request.is_some() { "" } else { "request_exposure: orphan" }, request, None)
    }
}

fn span(event: &Seen, status: &str, parent: Option<&Seen>, link: Option<&Seen>) -> Short {
    (event.clone(), status.to_owned(), parent.cloned(), link.cloned())
}

fn expected(seen: &[Seen]) -> BTreeSet<Short> {
    let rules = Rules::new(seen);
    let mut known = BTreeSet::new();
    let clicks = seen.iter().filter(|event| event.kind == "click").filter(|click| {
        let is_missing = click.request_id.is_empty() || click.item_id.is_empty();
        is_missing || known.insert((&click.request_id, &click.item_id))
    });
    clicks.flat_map(|click| rules.spans(click)).collect()
}

fn event(span: &Span) -> Seen {
    let text = |name: &str| span.attribute(name).to_owned();
    assert_eq!(span.times_ns[0], span.times_ns[1], "a moment: {span:?}");
    Seen {
        at_ns: span.times_ns[0],
        kind: span.name.clone(),
        request_id: text("linktracer.request_id"),
        item_id: text("linktracer.item_id"),
        pid: text("process.pid"),
    }
}

fn received(spans: &[Span]) -> BTreeSet<Short> {
    let by_id: HashMap<_, _> = spans.iter().map(|span| (span.id.clone(), span)).collect();
    assert_eq!(by_id.len(), spans.len(), "no span comes twice");
    let short = |one: &Span| {
        let parent = (!one.parent.is_empty()).then(|| event(by_id[&(one.id.0.clone(), one.parent.clone())]));
        assert!(one.links.len() <= 1, "{one:?}");
        let link = one.links.first().map(|id| event(by_id[id]));
        assert_eq!(one.attribute("linktracer.triple").is_empty(), one.name != "click", "{one:?}");
        span(&event(one), &one.status, parent.as_ref(), link.as_ref())
    };
    spans.iter().map(short).collect()
}

#[test]
fn a_receiver_gets_every_triple_with_its_times_parents_and_links() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let receiver = Receiver::start(scratch.path());
    let recording = scratch.path().join("events.jsonl");
    // As it is deployed, under the seccomp profile.
    let within = within_seccomp().join(" ");
    let demo = Demo::start(
        &receiver.endpoint(),
        &["--within", &within, "--record", recording.to_str().expect("UTF-8")],
    );
    let triples = demo.triples();
    assert!(triples.iter().all(|count| *count > 0), "the demo has faults: {triples:?}");
    wait_for("every triple is told", Duration::from_secs(60), || {
        (demo.told("exported") >= triples.iter().sum()).then_some(())
    });
    for outcome in ["not_sampled", "over_limit", "queue_full", "failed"] {
        assert_eq!(demo.told(outcome), 0, "{outcome}");
    }
    assert_eq!(demo.told("exported"), triples.iter().sum::<u64>());
    demo.stop();

    let seen = recorded(&recording);
    let expected = expected(&seen);
    let spans = wait_for("oteltap has printed them", Duration::from_secs(30), || {
        Some(receiver.spans()).filter(|spans| spans.len() >= expected.len())
    });
    let received = received(&spans);
    let differ: Vec<_> = expected.symmetric_difference(&received).take(5).collect();
    assert!(differ.is_empty(), "{} expected, {} received: {differ:#?}", expected.len(), received.len());
    assert_eq!(spans.len(), expected.len());

    // What the demo's truth says of clicks.
    let clicks = || spans.iter().filter(|span| span.name == "click");
    let broken = clicks().filter(|span| span.attribute("linktracer.triple") == "broken").count() as u64;
    assert_eq!([clicks().count() as u64 - broken, broken], triples);
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    clicks().for_each(|span| *reasons.entry(&span.status).or_default() += 1);
    let kinds = ["", "exposure_click: mismatch", "exposure_click: missing_id", "exposure_click: orphan"];
    assert!(kinds.iter().all(|kind| reasons.contains_key(kind)), "{reasons:?}");

    // One trace for each request id, one for each click.
    let mut traces: BTreeMap<&str, BTreeSet<(&str, &str)>> = BTreeMap::new();
    for span in &spans {
        let own = if span.name == "click" { span.id.1.as_str() } else { "" };
        traces.entry(&span.id.0).or_default().insert((span.attribute("linktracer.request_id"), own));
    }
    assert!(traces.values().all(|of| of.len() == 1), "{traces:?}");
}

#[test]
fn a_receiver_that_is_down_or_slow_costs_nothing_but_the_traces() {
    // Nobody listens; somebody does and never answers.
    let down = Demo::start(&format!("http://{}", free_address()), &[]);
    let triples = down.triples();
    wait_for("every triple was tried", Duration::from_secs(60), || {
        (down.told("failed") >= triples.iter().sum()).then_some(())
    });
    assert_eq!(down.told("failed"), triples.iter().sum::<u64>());
    assert_eq!(down.told("exported"), 0);
    down.stop();

    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let slow = Demo::start(&format!("http://{}", silent.local_addr().expect("is bound")), &[]);
    assert_eq!(slow.triples(), triples, "the seed is the same");
    let (stream, _) = silent.accept().expect("the daemon asks");
    let lines = BufReader::new(&stream).lines().map(|line| line.expect("text"));
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    assert_eq!(head[0], "POST /v1/traces HTTP/1.1");
    assert!(head.contains(&"authorization: Bearer of-the-demo".to_owned()), "{head:?}");
    assert_eq!(slow.told("exported"), 0);
    let started = Instant::now();
    slow.stop();
    assert!(started.elapsed() < Duration::from_secs(30), "it ends all the same: {:?}", started.elapsed());
}
