//! What goes over the wire, and what happens when nobody takes it. A receiver that understands it is in
//! tests/tests/otlp.rs.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread::{self, JoinHandle},
};

use prometheus::{IntCounterVec, Opts};

use super::*;
use crate::{
    domain::{Edge, Kind},
    export::otlp::{QUEUE_LEN, queue, record::Part, sample::Told},
};

fn part(kind: Kind, service: &str) -> Part {
    let labels =
        Labels { service: service.into(), release: format!("{service}-v1").into(), group: "b".into() };
    Part {
        kind,
        timestamp_ns: 1_700_000_000_123_456_789,
        item_id: if kind == Kind::Request { "" } else { "item-1" }.into(),
        pid: 7,
        labels: Arc::new(labels),
    }
}

fn triple() -> Triple {
    let (request, click) = (part(Kind::Request, "recommend"), part(Kind::Click, "web"));
    Triple {
        request_id: "r-1".into(),
        click,
        broken: Some((Edge::ExposureClick, "orphan")),
        leads_to: Some(request.clone()),
        told: vec![Told { part: request, broken: None, request: None }],
    }
}

/// What the exporter made of `triples`, which waited for it, by fate.
fn export(endpoint: &str, show_ids: bool, triples: usize) -> [u64; 2] {
    let counts = IntCounterVec::new(Opts::new("triples", "-"), &["outcome"]).expect("a name");
    let (sender, receiver) = queue();
    (0..triples).for_each(|_| sender.try_send(triple()).expect("has room"));
    drop(sender);
    let settings =
        OtlpSettings { endpoint: endpoint.into(), show_ids, broken_per_second: 1, complete_per_second: 1 };
    Exporter::new(&settings, "node-a", receiver, counts.clone()).expect("is made").run();
    [Fate::Exported, Fate::Failed].map(|fate| counts.with_label_values(&[fate.name()]).get())
}

/// Head, in small letters, and body of a request.
type Taken = (String, Vec<u8>);

/// Takes so many requests, answers each with this status, and says what they were.
fn receiver(requests: usize, status: &'static str) -> (String, JoinHandle<Vec<Taken>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("is bound"));
    let taken = thread::spawn(move || {
        (0..requests).map(|_| answer(listener.accept().expect("somebody comes").0, status)).collect()
    });
    (endpoint, taken)
}

fn answer(mut stream: TcpStream, status: &str) -> Taken {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a whole head");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("text").to_lowercase();
    let length = head.split_once("content-length: ").expect("a length").1.split("\r\n").next();
    let mut body = vec![0; length.and_then(|length| length.parse().ok()).expect("a number")];
    stream.read_exact(&mut body).expect("a whole body");
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").expect("is taken");
    (head, body)
}

fn has(body: &[u8], text: &str) -> bool {
    body.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn each_service_speaks_for_itself_and_ids_are_sent_only_where_that_is_allowed() {
    for show_ids in [false, true] {
        let (endpoint, taken) = receiver(2, "200 OK");
        assert_eq!(export(&endpoint, show_ids, 1), [1, 0]);
        let taken = taken.join().expect("took both");
        for ((head, body), (service, span)) in taken.iter().zip([("recommend", "request"), ("web", "click")])
        {
            assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
            assert!(head.contains("content-type: application/x-protobuf\r\n"), "{head}");
            let version = format!("{service}-v1");
            let own = ["service.name", service, "service.version", &version, "host.name", "node-a", span];
            assert!(own.iter().all(|text| has(body, text)), "{}", String::from_utf8_lossy(body));
            assert!(has(body, "linktracer.group"));
            assert_eq!(has(body, "r-1"), show_ids);
            assert_eq!(has(body, "linktracer.request_id"), show_ids);
        }
        assert_eq!(has(&taken[1].1, "item-1"), show_ids);
        assert!(has(&taken[1].1, "exposure_click: orphan"));
    }
}

#[test]
fn what_a_receiver_does_not_take_is_counted_and_given_up() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("is bound");
    assert_eq!(export(&format!("http://{nobody}"), true, 3), [0, 3]);
    for status in ["400 Bad Request", "307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/"] {
        let (endpoint, taken) = receiver(1, status);
        assert_eq!(export(&endpoint, true, 2), [0, 2]);
        assert_eq!(taken.join().expect("took it").len(), 1, "is not tried again");
    }
}

#[test]
fn a_receiver_that_says_nothing_is_not_waited_for_beyond_the_deadline() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let started = Instant::now();
    assert_eq!(export(&format!("http://{}", silent.local_addr().expect("is bound")), true, 1), [0, 1]);
    assert!(started.elapsed() < DEADLINE + 2 * TIMEOUT, "{:?}", started.elapsed());
}

#[test]
fn a_full_queue_goes_out_in_a_few_batches() {
    // Two services in each.
    let batches = QUEUE_LEN / MAX_BATCH;
    let (endpoint, taken) = receiver(2 * batches, "200 OK");
    assert_eq!(export(&endpoint, false, QUEUE_LEN), [QUEUE_LEN as u64, 0]);
    assert_eq!(taken.join().expect("took all").len(), 2 * batches);
}
