//! What a record is: an event of a service, news of a process, or nothing of interest.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use tracer_common::{counters::Hook, settings::cookie_probe};

use super::{
    clock::Clock,
    decode::{Body, Head, Record},
    http::{NoId, Send, Streams},
};
use crate::{
    config::Service,
    discover::{Answer, Collectors, Process, Processes, Verdict},
    domain::{Event, Kind},
};

/// What became of a record.
#[derive(Debug)]
pub enum Reading {
    /// An event.
    Event(Event),
    /// A process appeared, changed or ended; the kernel's table has to follow.
    Process {
        /// Which process.
        pid: u32,
        /// What to do with it; `None` when it stays as it is.
        verdict: Option<Verdict>,
        /// When it replaced its program, in nanoseconds since the Unix epoch, if it did: its files may be new.
        executed_ns: Option<u64>,
    },
    /// Nothing, and why.
    Nothing(Reason),
}

/// Why a record became no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Not of a configured service.
    NotTraced,
    /// Whether it is of a configured service only Kubernetes can say, which has not in time: lost.
    PodUnknown,
    /// The service has no such probe.
    NotConfigured,
    /// A message without the header or field that carries the request id.
    NoRequestId,
    /// A message of the direction that is not looked at.
    OtherDirection,
    /// A part of a message that goes on, of a body, or of something else.
    Part,
    /// It was seen before: the process sends it again.
    Repeated,
    /// A connection to something that is no collector.
    NotACollector,
    /// The request id is longer than the limit: lost.
    IdTooLong,
    /// The header section goes on past what was captured, without the request id so far: lost.
    HeaderTooLong,
    /// The body goes on past what was captured, without the request id so far: lost.
    BodyTooLong,
    /// The body that should have the request id is compressed: lost.
    BodyEncoded,
    /// The rest of a message was not seen, and the request id may have been in it: lost.
    Unfinished,
    /// An id is not UTF-8, so it cannot be written down exactly: lost.
    IdNotText,
    /// The bytes are no record: lost.
    Undecodable,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 15] = [
        Self::NotTraced,
        Self::PodUnknown,
        Self::NotConfigured,
        Self::NoRequestId,
        Self::OtherDirection,
        Self::Part,
        Self::Repeated,
        Self::NotACollector,
        Self::IdTooLong,
        Self::HeaderTooLong,
        Self::BodyTooLong,
        Self::BodyEncoded,
        Self::Unfinished,
        Self::IdNotText,
        Self::Undecodable,
    ];

    /// The reasons that lose something somebody may miss.
    pub const LOSSES: [Self; 8] = [
        Self::PodUnknown,
        Self::IdTooLong,
        Self::HeaderTooLong,
        Self::BodyTooLong,
        Self::BodyEncoded,
        Self::Unfinished,
        Self::IdNotText,
        Self::Undecodable,
    ];

    /// The reason's name in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotTraced => "not_traced",
            Self::PodUnknown => "pod_unknown",
            Self::NotConfigured => "not_configured",
            Self::NoRequestId => "no_request_id",
            Self::OtherDirection => "other_direction",
            Self::Part => "part",
            Self::Repeated => "repeated",
            Self::NotACollector => "not_a_collector",
            Self::IdTooLong => "id_too_long",
            Self::HeaderTooLong => "header_too_long",
            Self::BodyTooLong => "body_too_long",
            Self::BodyEncoded => "body_encoded",
            Self::Unfinished => "unfinished",
            Self::IdNotText => "id_not_text",
            Self::Undecodable => "undecodable",
        }
    }
}

impl From<NoId> for Reason {
    fn from(no_id: NoId) -> Self {
        match no_id {
            NoId::Absent => Self::NoRequestId,
            NoId::OtherDirection => Self::OtherDirection,
            NoId::IdTooLong => Self::IdTooLong,
            NoId::HeaderTooLong => Self::HeaderTooLong,
            NoId::BodyTooLong => Self::BodyTooLong,
            NoId::BodyEncoded => Self::BodyEncoded,
            NoId::Unfinished => Self::Unfinished,
        }
    }
}

/// Turns records into events.
pub struct Interpreter {
    services: Arc<[Service]>,
    source: Arc<str>,
    clock: Clock,
    collectors: Collectors,
}

impl Interpreter {
    /// An interpreter for these services on this node.
    pub fn new(services: Arc<[Service]>, source: Arc<str>, clock: Clock) -> Self {
        let collectors = Collectors::new(&services);
        Self { services, source, clock, collectors }
    }

    /// Where reports go.
    pub const fn collectors(&self) -> &Collectors {
        &self.collectors
    }

    /// Takes what a collector's name was answered with.
    pub fn learn(&mut self, answer: &Answer) {
        if let Ok(addresses) = &answer.addresses {
            self.collectors.learn(&answer.host, addresses, Instant::now());
        }
    }

    /// The wait that will tell of which service the record's process is, if that is not known and the record is to be
    /// held until then.
    pub fn wait_of(&self, record: &Record<'_>, processes: &mut Processes) -> Option<u64> {
        match record.body {
            Body::Send(_) | Body::Sdk { .. } | Body::Connect { .. } => {
                processes.wait_of(record.head.pid, probe_of(record))
            }
            Body::Exec { .. } | Body::Fork { .. } | Body::Exit => None,
        }
    }

    /// As [`Self::read`], for a record of which it is known that its process is this one.
    pub fn read_of(
        &self,
        record: &Record<'_>,
        process: &Process,
        streams: &mut Streams,
        tell: &mut dyn FnMut(Reading),
    ) {
        match &record.body {
            Body::Send(send) => self.messages(&record.head, send, (process, streams), tell),
            // An SDK probe belongs to one service; a library that several share has a probe for each.
            Body::Sdk { .. } if probe_of(record) != Some(process.service) => {
                tell(Reading::Nothing(Reason::NotTraced));
            }
            Body::Sdk { request_id, item_id } => {
                tell(self.reading(&record.head, process, sdk_call(record.head.hook, request_id, item_id)));
            }
            Body::Connect { peer } => {
                tell(self.reading(&record.head, process, self.report(process.service, *peer)));
            }
            // News of a process is never held.
            Body::Exec { .. } | Body::Fork { .. } | Body::Exit => {}
        }
    }

    /// Tells what `record` is, which is at least one thing, and several for a record of several messages. Follows
    /// the life of processes in `processes`, and their connections in `streams`.
    pub fn read(
        &self,
        record: &Record<'_>,
        processes: &mut Processes,
        streams: &mut Streams,
        tell: &mut dyn FnMut(Reading),
    ) {
        let Head { pid, .. } = record.head;
        let reading = match &record.body {
            Body::Send(_) | Body::Sdk { .. } | Body::Connect { .. } => {
                self.follow(&record.head, processes);
                if let Some(process) = processes.get(pid) {
                    return self.read_of(record, process, streams, tell);
                }
                if processes.is_unknown(pid, probe_of(record)) {
                    return lose(record, tell);
                }
                Reading::Nothing(Reason::NotTraced)
            }
            Body::Exec { path } => {
                let cgroup_id = record.head.cgroup_id;
                let verdict = Some(processes.on_exec(pid, &String::from_utf8_lossy(path), cgroup_id));
                let executed_ns = Some(self.clock.unix_ns(record.head.monotonic_ns));
                Reading::Process { pid, verdict, executed_ns }
            }
            Body::Fork { child_pid } => {
                let verdict = Some(processes.on_fork(pid, *child_pid));
                Reading::Process { pid: *child_pid, verdict, executed_ns: None }
            }
            Body::Exit => Reading::Process { pid, verdict: processes.on_exit(pid), executed_ns: None },
        };
        tell(reading);
    }

    /// Each message of which a piece of a stream is the end of what has to be known.
    fn messages(
        &self,
        head: &Head,
        send: &Send<'_>,
        (process, streams): (&Process, &mut Streams),
        tell: &mut dyn FnMut(Reading),
    ) {
        let Some(wanted) = &self.services[process.service].request else {
            return tell(Reading::Nothing(Reason::NotConfigured));
        };
        let mut told = Vec::new();
        let place = (head.pid, head.hook, head.monotonic_ns);
        let is_new = streams.take((process.service, wanted), place, send, &mut told);
        if told.is_empty() {
            return tell(Reading::Nothing(if is_new { Reason::Part } else { Reason::Repeated }));
        }
        for told in told {
            let request = told.map_err(Reason::from).and_then(|id| {
                let request_id = text(&id)?;
                Ok(Content { kind: Kind::Request, request_id, item_id: "".into(), peer: send.peer })
            });
            tell(self.reading(head, process, request));
        }
    }

    /// Looks again at what the process runs, when it is time to.
    fn follow(&self, head: &Head, processes: &mut Processes) {
        if processes.is_look_due(head.pid, self.clock.unix_ns(head.monotonic_ns)) {
            processes.follow(head.pid, self.clock.now_ns(), self.clock.step_ns());
        }
    }

    fn reading(&self, head: &Head, process: &Process, content: Result<Content, Reason>) -> Reading {
        let Content { kind, request_id, item_id, peer } = match content {
            Ok(content) => content,
            Err(reason) => return Reading::Nothing(reason),
        };
        let timestamp_ns = self.clock.unix_ns(head.monotonic_ns);
        Reading::Event(Event {
            kind,
            timestamp_ns,
            source: Arc::clone(&self.source),
            pid: head.pid,
            tid: head.tid,
            labels: Arc::clone(process.labels_at(timestamp_ns)),
            request_id,
            item_id,
            peer: peer.map(|peer| peer.to_string().into()),
        })
    }

    fn report(&self, service: usize, peer: Option<SocketAddr>) -> Result<Content, Reason> {
        if self.services[service].report.is_none() {
            return Err(Reason::NotConfigured);
        }
        if peer.is_some_and(|peer| self.collectors.contains(service, peer)) {
            Ok(Content { kind: Kind::Report, request_id: "".into(), item_id: "".into(), peer })
        } else {
            Err(Reason::NotACollector)
        }
    }
}

/// What an event is about.
struct Content {
    kind: Kind,
    request_id: Box<str>,
    item_id: Box<str>,
    peer: Option<SocketAddr>,
}

/// Tells that a record is lost because nobody knows what its process is: as often as there can be events in it.
pub fn lose(record: &Record<'_>, tell: &mut dyn FnMut(Reading)) {
    let count = match &record.body {
        // Each message has this once, in its first line.
        Body::Send(send) => memchr::memmem::find_iter(send.payload, "HTTP/1.").count(),
        _ => 1,
    };
    for _ in 0..count.max(1) {
        tell(Reading::Nothing(Reason::PodUnknown));
    }
}

fn sdk_call(hook: Hook, request_id: &[u8], item_id: &[u8]) -> Result<Content, Reason> {
    let kind = if hook == Hook::Click { Kind::Click } else { Kind::Exposure };
    Ok(Content { kind, request_id: text(request_id)?, item_id: text(item_id)?, peer: None })
}

/// The service whose probe an SDK function's call hit.
fn probe_of(record: &Record<'_>) -> Option<usize> {
    matches!(record.body, Body::Sdk { .. }).then(|| cookie_probe(record.head.cookie) as usize)
}

fn text(id: &[u8]) -> Result<Box<str>, Reason> {
    std::str::from_utf8(id).map(Into::into).map_err(|_| Reason::IdNotText)
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc, time::Duration};

    use tracer_common::{
        counters::Hook,
        settings::{IdArgument, IdForm, sdk_cookie},
    };

    use super::{Interpreter, Reading, Reason};
    use crate::{
        config::Config,
        discover::{Processes, pods::PodBook},
        domain::Kind,
        ingest::{
            clock::Clock,
            decode::{Body, Head, Record},
            http::{Send, Streams},
        },
    };

    fn interpreter() -> (Interpreter, Processes) {
        let exe = std::env::current_exe().expect("runs from a file");
        let text = format!(
            "services: [{{ name: a, match: {{ exe: \"{}\" }}, request: {{ id: {{ header: X-Request-Id }} }}, report: {{ to: [\"127.0.0.1:9\"] }} }}]",
            exe.display()
        );
        let services: Arc<[_]> = Config::parse(&text, Path::new("test.yaml")).expect("valid").services.into();
        let clock = Clock::start().expect("after 1970");
        let processes = Processes::new(Arc::clone(&services), PodBook::alone(), Duration::ZERO);
        (Interpreter::new(services, "node-a".into(), clock), processes)
    }

    fn record(hook: Hook, cookie: u64, body: Body<'_>) -> Record<'_> {
        let pid = std::process::id();
        Record { head: Head { hook, monotonic_ns: 1, cgroup_id: 0, pid, tid: pid, cookie }, body }
    }

    #[track_caller]
    fn check_nothing(hook: Hook, cookie: u64, body: Body<'_>, expected: Reason) {
        match read(&record(hook, cookie, body)).as_slice() {
            [Reading::Nothing(reason)] => assert_eq!(*reason, expected),
            other => panic!("{other:?}"),
        }
    }

    fn read(record: &Record<'_>) -> Vec<Reading> {
        let (interpreter, mut processes) = interpreter();
        let (mut streams, mut readings) = (Streams::default(), Vec::new());
        interpreter.read(record, &mut processes, &mut streams, &mut |reading| readings.push(reading));
        readings
    }

    /// All that goes out in one call, on a stream without positions.
    fn send(payload: &[u8], cut: bool) -> Body<'_> {
        Body::Send(Send {
            peer: None,
            stream: 1,
            local_port: 0,
            position: 0,
            positioned: false,
            new: true,
            more: false,
            received: 0,
            piece_len: u32::try_from(payload.len()).expect("is short") + u32::from(cut),
            payload,
        })
    }

    #[test]
    fn a_message_with_the_header_is_a_request() {
        let body = send(b"HTTP/1.1 200 OK\r\nX-Request-Id: r-1\r\n\r\n", false);
        let readings = read(&record(Hook::Write, 0, body));
        let [Reading::Event(event)] = readings.as_slice() else { panic!("{readings:?}") };
        assert_eq!((event.kind, &*event.request_id, &*event.labels.service), (Kind::Request, "r-1", "a"));
    }

    #[test]
    fn every_message_that_is_no_request_has_its_reason() {
        let long = format!("HTTP/1.1 200 OK\r\nX-Request-Id: {}\r\n\r\n", "x".repeat(129));
        check_nothing(Hook::Write, 0, send(b"HTTP/1.1 200 OK\r\n\r\n", false), Reason::NoRequestId);
        check_nothing(Hook::Write, 0, send(b"HTTP/1.1 200 OK\r\n", true), Reason::HeaderTooLong);
        check_nothing(Hook::Write, 0, send(long.as_bytes(), false), Reason::IdTooLong);
        let not_text = b"HTTP/1.1 200 OK\r\nX-Request-Id: \xff\r\n\r\n";
        check_nothing(Hook::Write, 0, send(not_text, false), Reason::IdNotText);
    }

    #[test]
    fn a_connection_counts_only_when_it_goes_to_a_collector() {
        let body = Body::Connect { peer: "127.0.0.1:9".parse().ok() };
        let readings = read(&record(Hook::Connect, 0, body));
        assert!(matches!(readings.as_slice(), [Reading::Event(event)] if event.kind == Kind::Report));
        let body = Body::Connect { peer: "127.0.0.1:10".parse().ok() };
        check_nothing(Hook::Connect, 0, body, Reason::NotACollector);
    }

    #[test]
    fn what_is_lost_is_counted_by_message() {
        let count = |body| {
            let mut told = 0;
            super::lose(&record(Hook::Write, 0, body), &mut |_| told += 1);
            told
        };
        let messages = b"HTTP/1.1 200 OK\r\nX-Request-Id: r-1\r\n\r\n".repeat(3);
        assert_eq!(count(send(&messages, false)), 3);
        assert_eq!(count(send(b"the rest of a body", false)), 1);
        assert_eq!(count(Body::Sdk { request_id: b"HTTP/1.HTTP/1.", item_id: b"" }), 1);
    }

    #[test]
    fn a_call_seen_by_the_probe_of_another_service_is_not_counted() {
        let body = Body::Sdk { request_id: b"r", item_id: b"i" };
        let id = |slot| IdArgument { form: IdForm::CString, slot };
        check_nothing(Hook::Click, sdk_cookie(id(0), id(1), 7), body, Reason::NotTraced);
    }
}
