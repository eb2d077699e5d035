//! What a record is: an event of a service, news of a process, or nothing of interest.

use std::{net::SocketAddr, sync::Arc};

use tracer_common::{counters::Hook, limits::MAX_ID_LEN, settings::cookie_probe};

use super::{
    clock::Clock,
    decode::{Body, Head, Record},
    http::{Header, find_header, trace_id},
};
use crate::{
    config::Service,
    discover::{Processes, Verdict},
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
        /// It just replaced its program: its files may be new.
        new_program: bool,
    },
    /// Nothing, and why.
    Nothing(Reason),
}

/// Why a record became no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Not of a configured service.
    NotTraced,
    /// The service has no such probe.
    NotConfigured,
    /// A message without the header that carries the request id.
    NoRequestId,
    /// A connection to something that is no collector.
    NotACollector,
    /// The request id is longer than the limit: lost.
    IdTooLong,
    /// The header section goes on past what was captured, without the request id so far: lost.
    HeaderTooLong,
    /// An id is not UTF-8, so it cannot be written down exactly: lost.
    IdNotText,
    /// The bytes are no record: lost.
    Undecodable,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::NotTraced,
        Self::NotConfigured,
        Self::NoRequestId,
        Self::NotACollector,
        Self::IdTooLong,
        Self::HeaderTooLong,
        Self::IdNotText,
        Self::Undecodable,
    ];

    /// The reasons that lose something somebody may miss.
    pub const LOSSES: [Self; 4] = [Self::IdTooLong, Self::HeaderTooLong, Self::IdNotText, Self::Undecodable];

    /// The reason's name in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotTraced => "not_traced",
            Self::NotConfigured => "not_configured",
            Self::NoRequestId => "no_request_id",
            Self::NotACollector => "not_a_collector",
            Self::IdTooLong => "id_too_long",
            Self::HeaderTooLong => "header_too_long",
            Self::IdNotText => "id_not_text",
            Self::Undecodable => "undecodable",
        }
    }
}

/// Turns records into events.
pub struct Interpreter {
    services: Arc<[Service]>,
    source: Arc<str>,
    clock: Clock,
}

impl Interpreter {
    /// An interpreter for these services on this node.
    pub fn new(services: Arc<[Service]>, source: Arc<str>, clock: Clock) -> Self {
        Self { services, source, clock }
    }

    /// What `record` is. Follows the life of processes in `processes`.
    pub fn read(&self, record: &Record<'_>, processes: &mut Processes) -> Reading {
        let Head { pid, .. } = record.head;
        match record.body {
            Body::Exec { path } => {
                let verdict = Some(processes.on_exec(pid, &String::from_utf8_lossy(path)));
                Reading::Process { pid, verdict, new_program: true }
            }
            Body::Fork { child_pid } => {
                let verdict = Some(processes.on_fork(pid, child_pid));
                Reading::Process { pid: child_pid, verdict, new_program: false }
            }
            Body::Exit => Reading::Process { pid, verdict: processes.on_exit(pid), new_program: false },
            Body::Send { peer, payload, cut } => {
                self.event(record, processes, |service| request(service, payload, cut, peer))
            }
            Body::Sdk { request_id, item_id } => self.event(record, processes, |_| {
                let kind = if record.head.hook == Hook::Click { Kind::Click } else { Kind::Exposure };
                Ok(Content { kind, request_id: text(request_id)?, item_id: text(item_id)?, peer: None })
            }),
            Body::Connect { peer } => self.event(record, processes, |service| report(service, peer)),
        }
    }

    fn event(
        &self,
        record: &Record<'_>,
        processes: &mut Processes,
        content: impl FnOnce(&Service) -> Result<Content, Reason>,
    ) -> Reading {
        let head = &record.head;
        let timestamp_ns = self.clock.unix_ns(head.monotonic_ns);
        if processes.is_look_due(head.pid, timestamp_ns) {
            processes.follow(head.pid, self.clock.now_ns(), self.clock.step_ns());
        }
        let Some(process) = processes.get(head.pid) else { return Reading::Nothing(Reason::NotTraced) };
        // An SDK probe belongs to one service; a library that several share has a probe for each.
        if matches!(record.body, Body::Sdk { .. }) && cookie_probe(head.cookie) as usize != process.service {
            return Reading::Nothing(Reason::NotTraced);
        }
        let Content { kind, request_id, item_id, peer } = match content(&self.services[process.service]) {
            Ok(content) => content,
            Err(reason) => return Reading::Nothing(reason),
        };
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
}

/// What an event is about.
struct Content {
    kind: Kind,
    request_id: Box<str>,
    item_id: Box<str>,
    peer: Option<SocketAddr>,
}

fn request(
    service: &Service,
    payload: &[u8],
    cut: bool,
    peer: Option<SocketAddr>,
) -> Result<Content, Reason> {
    let probe = service.request.as_ref().ok_or(Reason::NotConfigured)?;
    let is_trace = probe.header.eq_ignore_ascii_case("traceparent");
    match find_header(payload, cut, &probe.header) {
        Header::Found(value) if is_trace => {
            Ok(Content { kind: Kind::Request, request_id: text(trace_id(value))?, item_id: "".into(), peer })
        }
        Header::Found(id) if id.len() > MAX_ID_LEN => Err(Reason::IdTooLong),
        Header::Found(id) => {
            Ok(Content { kind: Kind::Request, request_id: text(id)?, item_id: "".into(), peer })
        }
        Header::Absent => Err(Reason::NoRequestId),
        Header::Beyond => Err(Reason::HeaderTooLong),
    }
}

fn report(service: &Service, peer: Option<SocketAddr>) -> Result<Content, Reason> {
    let probe = service.report.as_ref().ok_or(Reason::NotConfigured)?;
    if peer.is_some_and(|peer| probe.to.contains(&peer)) {
        Ok(Content { kind: Kind::Report, request_id: "".into(), item_id: "".into(), peer })
    } else {
        Err(Reason::NotACollector)
    }
}

fn text(id: &[u8]) -> Result<Box<str>, Reason> {
    std::str::from_utf8(id).map(Into::into).map_err(|_| Reason::IdNotText)
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use tracer_common::{
        counters::Hook,
        settings::{IdArgument, IdForm, sdk_cookie},
    };

    use super::{Interpreter, Reading, Reason};
    use crate::{
        config::Config,
        discover::Processes,
        domain::Kind,
        ingest::{
            clock::Clock,
            decode::{Body, Head, Record},
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
        (Interpreter::new(Arc::clone(&services), "node-a".into(), clock), Processes::new(services))
    }

    fn record(hook: Hook, cookie: u64, body: Body<'_>) -> Record<'_> {
        let pid = std::process::id();
        Record { head: Head { hook, monotonic_ns: 1, cgroup_id: 0, pid, tid: pid, cookie }, body }
    }

    #[track_caller]
    fn check_nothing(hook: Hook, cookie: u64, body: Body<'_>, expected: Reason) {
        let (interpreter, mut processes) = interpreter();
        match interpreter.read(&record(hook, cookie, body), &mut processes) {
            Reading::Nothing(reason) => assert_eq!(reason, expected),
            other => panic!("{other:?}"),
        }
    }

    fn send(payload: &[u8], cut: bool) -> Body<'_> {
        Body::Send { peer: None, payload, cut }
    }

    #[test]
    fn a_message_with_the_header_is_a_request() {
        let (interpreter, mut processes) = interpreter();
        let body = send(b"HTTP/1.1 200 OK\r\nX-Request-Id: r-1\r\n\r\n", false);
        let Reading::Event(event) = interpreter.read(&record(Hook::Write, 0, body), &mut processes) else {
            panic!("no event")
        };
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
        let (interpreter, mut processes) = interpreter();
        let body = Body::Connect { peer: "127.0.0.1:9".parse().ok() };
        let reading = interpreter.read(&record(Hook::Connect, 0, body), &mut processes);
        assert!(matches!(reading, Reading::Event(event) if event.kind == Kind::Report));
        let body = Body::Connect { peer: "127.0.0.1:10".parse().ok() };
        check_nothing(Hook::Connect, 0, body, Reason::NotACollector);
    }

    #[test]
    fn a_call_seen_by_the_probe_of_another_service_is_not_counted() {
        let body = Body::Sdk { request_id: b"r", item_id: b"i" };
        let id = |slot| IdArgument { form: IdForm::CString, slot };
        check_nothing(Hook::Click, sdk_cookie(id(0), id(1), 7), body, Reason::NotTraced);
    }
}
