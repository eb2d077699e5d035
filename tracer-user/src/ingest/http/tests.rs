//! Whatever way a stream is cut into calls, it has the same messages.

use proptest::prelude::*;
use tracer_common::{
    counters::Hook,
    limits::{BODY_WINDOW_LEN, HEADER_WINDOW_LEN},
};

use super::{NoId, Parser, Send, Streams, head};
use crate::config::{Direction, RequestProbe, Service};

type Told = Result<Vec<u8>, NoId>;

fn header_probe() -> RequestProbe {
    RequestProbe { header: Some("X-Request-Id".to_owned()), body: None, direction: Direction::Any, tls: true }
}

fn body_probe() -> RequestProbe {
    RequestProbe { body: Some(vec!["meta".to_owned(), "id".to_owned()]), ..header_probe() }
}

fn id(text: &str) -> Told {
    Ok(text.into())
}

/// Feeds the stream in pieces of this length, and lets it end.
fn tell(wanted: &RequestProbe, stream: &[u8], piece_len: usize) -> Vec<Told> {
    let mut parser = Parser::default();
    let mut out = Vec::new();
    for piece in stream.chunks(piece_len.max(1)) {
        parser.feed(wanted, piece, &mut out);
    }
    parser.end(wanted, false, &mut out);
    out
}

#[track_caller]
fn check(wanted: &RequestProbe, stream: &str, expected: &[Told]) {
    for piece_len in 1..=stream.len() {
        assert_eq!(tell(wanted, stream.as_bytes(), piece_len), expected, "pieces of {piece_len}: {stream:?}");
    }
}

#[test]
fn the_value_is_found_in_any_case_without_white_space() {
    check(&header_probe(), "HTTP/1.1 204 No\r\nx-request-ID: \t r-1 \r\n\r\n", &[id("r-1")]);
    check(&header_probe(), "GET / HTTP/1.1\nHost: a\nX-Request-Id:r-1\n\n", &[id("r-1")]);
    check(&header_probe(), "HTTP/1.1 204 No\r\nX-Request-Id:\r\n\r\n", &[id("")]);
    check(
        &header_probe(),
        "GET / HTTP/1.1\r\nNot-X-Request-Id: a\r\nX-Request-Id-2: b\r\n\r\n",
        &[Err(NoId::Absent)],
    );
}

#[test]
fn a_body_that_looks_like_a_message_is_not_one() {
    let inner = "HTTP/1.1 200 OK\r\nX-Request-Id: no\r\n\r\n";
    let after = "HTTP/1.1 204 No\r\nX-Request-Id: r-2\r\n\r\n";
    let length = inner.len();
    check(
        &header_probe(),
        &format!("HTTP/1.1 200 OK\r\nX-Request-Id: r-1\r\nContent-Length: {length}\r\n\r\n{inner}{after}"),
        &[id("r-1"), id("r-2")],
    );
    check(
        &header_probe(),
        &format!(
            "POST / HTTP/1.1\r\nX-Request-Id: r-1\r\nTransfer-Encoding: chunked\r\n\r\n{length:x};a=b\r\n{inner}\r\n0\r\nX-Request-Id: no\r\n\r\n{after}"
        ),
        &[id("r-1"), id("r-2")],
    );
    check(&header_probe(), &format!("HTTP/1.1 200 OK\r\nX-Request-Id: r-1\r\n\r\n{inner}"), &[id("r-1")]);
}

#[test]
fn the_field_of_a_body_counts_where_the_header_is_not_there() {
    let body = r#"{"meta": {"id": "r-1"}}"#;
    let length = body.len();
    check(&body_probe(), &format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"), &[id("r-1")]);
    check(
        &body_probe(),
        &format!("HTTP/1.1 200 OK\r\nX-Request-Id: h\r\nContent-Length: {length}\r\n\r\n{body}"),
        &[id("h")],
    );
    check(&body_probe(), &format!("HTTP/1.1 200 OK\r\n\r\n{body}"), &[id("r-1")]);
    let (first, second) = body.split_at(9);
    check(
        &body_probe(),
        &format!(
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
            second.len()
        ),
        &[id("r-1")],
    );
    check(&body_probe(), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", &[Err(NoId::Absent)]);
    check(&body_probe(), "GET / HTTP/1.1\r\n\r\n", &[Err(NoId::Absent)]);
    check(
        &body_probe(),
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\n{}",
        &[Err(NoId::Absent)],
    );
    check(
        &body_probe(),
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        &[Err(NoId::BodyEncoded)],
    );
    let long = format!(r#"{{"meta": {{"id": "{}"}}}}"#, "x".repeat(129));
    check(
        &body_probe(),
        &format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{long}", long.len()),
        &[Err(NoId::IdTooLong)],
    );
}

#[test]
fn a_direction_leaves_the_other_out() {
    let both = "GET / HTTP/1.1\r\nX-Request-Id: r-1\r\n\r\nHTTP/1.1 204 No\r\nX-Request-Id: r-2\r\n\r\n";
    let of = |direction| RequestProbe { direction, ..header_probe() };
    check(&of(Direction::Request), both, &[id("r-1"), Err(NoId::OtherDirection)]);
    check(&of(Direction::Response), both, &[Err(NoId::OtherDirection), id("r-2")]);
}

#[test]
fn of_a_traceparent_the_trace_id_counts() {
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let wanted = RequestProbe { header: Some("traceparent".to_owned()), ..header_probe() };
    check(
        &wanted,
        &format!("GET / HTTP/1.1\r\nTraceparent: 00-{trace}-00f067aa0ba902b7-01\r\n\r\n"),
        &[id(trace)],
    );
    for none in [
        "",
        "00",
        "00-short-00f067aa0ba902b7-01",
        &format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
        trace,
    ] {
        check(&wanted, &format!("GET / HTTP/1.1\r\ntraceparent: {none}\r\n\r\n"), &[id("")]);
    }
}

#[test]
fn what_is_no_message_is_not_taken_for_one() {
    for other in [
        "GETTY\r\nX-Request-Id: no\r\n\r\n",
        "GET /\r\nX-Request-Id: no\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.1 20\r\n\r\n",
    ] {
        check(&header_probe(), other, &[]);
    }
}

#[test]
fn a_header_section_beyond_the_window_is_counted_once() {
    let lines = |count: usize| "A: b\r\n".repeat(count);
    let limit = HEADER_WINDOW_LEN as usize / 6;
    let message = |before, after| {
        format!("HTTP/1.1 204 No\r\n{}X-Request-Id: r-1\r\n{}\r\n", lines(before), lines(after))
    };
    for piece_len in [100, 2048, 100_000] {
        let tell = |before, after| tell(&header_probe(), message(before, after).as_bytes(), piece_len);
        assert_eq!(tell(limit / 2, 0), [id("r-1")], "{piece_len}");
        assert_eq!(tell(0, limit), [id("r-1")], "{piece_len}");
    }
    assert_eq!(tell(&header_probe(), message(2 * limit, 0).as_bytes(), 2048), [Err(NoId::HeaderTooLong)]);
    let body = format!(r#"{{"a": "{}", "meta": {{"id": "r-1"}}}}"#, "x".repeat(BODY_WINDOW_LEN as usize));
    let message = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    assert_eq!(tell(&body_probe(), message.as_bytes(), 2048), [Err(NoId::BodyTooLong)]);
}

// ---- Streams: pieces with their places.

/// One connection, and what it tells, to a daemon that is killed and begins anew after each piece.
struct Connection {
    streams: Streams,
    /// Made from the changes of `streams` alone, as after a restart.
    heir: Streams,
    wanted: RequestProbe,
    told: Vec<Told>,
}

impl Connection {
    fn new(wanted: RequestProbe) -> Self {
        Self { streams: Streams::default(), heir: Streams::default(), wanted, told: Vec::new() }
    }

    /// Sends `payload`, of which `captured_len` bytes were captured.
    fn send_cut(&mut self, position: u32, received: u32, payload: &[u8], captured_len: usize) -> bool {
        let send = Send {
            peer: "10.0.0.1:443".parse().ok(),
            stream: 1,
            local_port: 80,
            position,
            positioned: true,
            new: false,
            more: false,
            received,
            piece_len: length(payload),
            payload: &payload[..captured_len.min(payload.len())],
        };
        let is_new = self.streams.take((0, &self.wanted), (7, Hook::Write, 0), &send, &mut self.told);
        self.restart();
        is_new
    }

    fn restart(&mut self) {
        for change in self.streams.take_changes() {
            let written = postcard::to_stdvec(&change).expect("in memory");
            self.heir.make_again(postcard::from_bytes(&written).expect("is what was written"));
        }
        assert_eq!(self.heir.count(), self.streams.count());
        std::mem::swap(&mut self.streams, &mut self.heir);
    }

    fn send(&mut self, position: u32, payload: &str) -> bool {
        self.send_cut(position, 0, payload.as_bytes(), payload.len())
    }
}

/// Length in bytes, as positions count.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("is short")
}

const ONE: &str = "HTTP/1.1 204 No\r\nX-Request-Id: r-1\r\n\r\n";
const TWO: &str = "HTTP/1.1 204 No\r\nX-Request-Id: r-2\r\n\r\n";

#[test]
fn a_piece_that_is_sent_again_counts_once() {
    let mut connection = Connection::new(header_probe());
    let start = u32::MAX - 10;
    assert!(connection.send(start, ONE));
    assert!(!connection.send(start, ONE), "refused and repeated");
    // The first half of both went through at first, so the second half is sent again.
    let both = format!("{ONE}{TWO}");
    let at = start.wrapping_add(length(ONE.as_ref()));
    assert!(connection.send(at, &both));
    assert!(!connection.send(at.wrapping_add(50), &both[50..]));
    assert_eq!(connection.told, [id("r-1"), id("r-1"), id("r-2")]);
}

#[test]
fn a_body_that_was_not_captured_is_skipped_by_its_length() {
    let mut connection = Connection::new(header_probe());
    let head = "HTTP/1.1 200 OK\r\nX-Request-Id: r-1\r\nContent-Length: 1000000\r\n\r\n";
    connection.send(5, head);
    let body = 5 + length(head.as_ref());
    connection.send(body + 4000, TWO);
    assert_eq!(connection.told, [id("r-1")], "it is within the body");
    connection.send(body + 1_000_000, TWO);
    assert_eq!(connection.told, [id("r-1"), id("r-2")]);
}

#[test]
fn after_bytes_that_nobody_saw_the_next_message_counts() {
    let mut connection = Connection::new(header_probe());
    connection.send(0, "HTTP/1.1 200 OK\r\nX-Req");
    connection.send(1000, ONE);
    assert_eq!(connection.told, [Err(NoId::Unfinished), id("r-1")]);
    // More than 2 GiB on is not the past.
    connection.send(3_000_000_000, TWO);
    assert_eq!(connection.told.last(), Some(&id("r-2")));
}

#[test]
fn an_answer_to_head_has_no_body() {
    let mut connection = Connection::new(header_probe());
    let head = "HTTP/1.1 200 OK\r\nX-Request-Id: r-1\r\nContent-Length: 1000000\r\n\r\n";
    let at = length(head.as_ref());
    connection.send_cut(0, 100, head.as_bytes(), head.len());
    // Nothing was read in between: a body.
    connection.send_cut(at, 100, TWO.as_bytes(), TWO.len());
    assert_eq!(connection.told, [id("r-1")]);
    let mut connection = Connection::new(header_probe());
    connection.send_cut(0, 100, head.as_bytes(), head.len());
    connection.send_cut(at, 200, TWO.as_bytes(), TWO.len());
    assert_eq!(connection.told, [id("r-1"), id("r-2")]);
}

#[test]
fn only_headers_that_do_not_end_within_what_was_captured_are_too_long() {
    let check = |message: &str, captured_len, expected: &[Told]| {
        let mut connection = Connection::new(header_probe());
        connection.send_cut(0, 0, message.as_bytes(), captured_len);
        assert_eq!(connection.told, expected, "{captured_len} bytes of {message:?}");
    };
    let large = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(5000));
    check(&large, 2048, &[Err(NoId::Absent)]);
    let late = format!("HTTP/1.1 200 OK\r\nA: {}\r\nX-Request-Id: r-1\r\n\r\n", "x".repeat(5000));
    check(&late, 2048, &[Err(NoId::HeaderTooLong)]);
    let early = format!("HTTP/1.1 200 OK\r\nX-Request-Id: r-1\r\nA: {}\r\n\r\n", "x".repeat(5000));
    check(&early, 2048, &[id("r-1")]);
}

#[test]
fn a_connection_that_goes_silent_is_given_up_and_counted() {
    let text = "services: [{ name: a, match: { exe: /a }, request: { id: { header: X-Request-Id } } }]";
    let config = crate::config::Config::parse(text, std::path::Path::new("test.yaml")).expect("valid");
    let services: Vec<Service> = config.services;
    let mut connection = Connection::new(header_probe());
    connection.send(0, "HTTP/1.1 200 OK\r\nX-Req");
    connection.streams.forget_idle(&services, 59_999_999_999);
    assert!(connection.streams.take_given_up().is_empty());
    connection.streams.forget_idle(&services, 60_000_000_000);
    assert_eq!(connection.streams.take_given_up(), [Hook::Write]);
    assert_eq!(connection.streams.count(), 0);
}

#[test]
fn a_call_of_a_tls_library_that_is_made_again_counts_once() {
    let mut connection = Connection::new(header_probe());
    let mut call = |buffer: u32, payload: &str| {
        let send = Send {
            peer: None,
            stream: 1,
            local_port: 0,
            position: 0,
            positioned: false,
            new: true,
            more: false,
            received: buffer,
            piece_len: length(payload.as_ref()),
            payload: payload.as_bytes(),
        };
        let place = (7, Hook::TlsWrite, 0);
        connection.streams.take((0, &connection.wanted), place, &send, &mut connection.told)
    };
    assert!(call(100, ONE));
    assert!(!call(100, ONE));
    assert!(!call(100, ONE));
    assert!(call(100, TWO), "the same buffer with another message");
    assert!(call(200, TWO), "another buffer with the same message");
    assert_eq!(connection.told, [id("r-1"), id("r-2"), id("r-2")]);
}

// ---- Any stream, cut in any way.

/// A message and what it tells a [`body_probe`].
fn message() -> impl Strategy<Value = (Vec<u8>, Told)> {
    let value = "[a-z0-9-]{1,20}";
    let body = prop_oneof![
        Just((String::new(), None)),
        value.prop_map(|value| (format!(r#"{{"x": [1.5], "meta": {{"id": "{value}"}}}}"#), Some(value))),
        Just(("HTTP/1.1 200 OK\r\nX-Request-Id: no\r\n\r\n".to_owned(), None)),
        Just(("GET / HTTP/1.1\r\n\r\n".to_owned(), None)),
    ];
    (any::<bool>(), any::<bool>(), prop::option::of(value), body, 1..40usize).prop_map(
        |(response, chunked, header, (body, field), chunk_len)| {
            let mut text = if response { "HTTP/1.1 200 OK\r\n" } else { "POST /x HTTP/1.1\r\n" }.to_owned();
            if let Some(header) = &header {
                text.push_str(&format!("x-request-id: {header}\r\n"));
            }
            if chunked {
                text.push_str("Transfer-Encoding: gzip, chunked\r\n\r\n");
                for chunk in body.as_bytes().chunks(chunk_len) {
                    text.push_str(&format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk)));
                }
                text.push_str("0\r\n\r\n");
            } else {
                text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
            }
            let told = header.or(field).map_or(Err(NoId::Absent), |id| Ok(id.into_bytes()));
            (text.into_bytes(), told)
        },
    )
}

proptest! {
    #[test]
    fn any_cut_of_a_stream_tells_the_same(
        messages in prop::collection::vec(message(), 1..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        start: u32,
        repeat: bool,
    ) {
        let stream: Vec<u8> = messages.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        let expected: Vec<Told> = messages.into_iter().map(|(_, told)| told).collect();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let mut connection = Connection::new(body_probe());
        for pair in cuts.windows(2).filter(|pair| pair[0] < pair[1]) {
            let position = start.wrapping_add(u32::try_from(pair[0]).expect("is short"));
            let piece = &stream[pair[0]..pair[1]];
            connection.send_cut(position, 0, piece, piece.len());
            if repeat {
                // Sent whole at first and in part again, as after a write that was done in part.
                let half = piece.len() / 2;
                connection.send_cut(position.wrapping_add(u32::try_from(half).expect("is short")), 0, &piece[half..], piece.len());
            }
        }
        prop_assert_eq!(connection.told, expected);
    }

    #[test]
    fn it_agrees_with_a_full_parser(
        names in prop::collection::vec("[A-Za-z-]{1,12}", 0..6),
        value in "[!-~]{0,20}",
        position in 0usize..6,
    ) {
        let mut lines: Vec<String> = names.iter().map(|name| format!("{name}: v")).collect();
        lines.insert(position.min(lines.len()), format!("x-ReQuest-id: {value}"));
        let message = format!("HTTP/1.1 200 OK\r\n{}\r\n\r\n", lines.join("\r\n"));
        let mut headers = [httparse::EMPTY_HEADER; 8];
        let mut response = httparse::Response::new(&mut headers);
        prop_assume!(response.parse(message.as_bytes()).is_ok());
        let parsed = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("X-Request-Id"));
        let expected = parsed.map_or(Err(NoId::Absent), |header| Ok(header.value.to_vec()));
        prop_assert_eq!(tell(&header_probe(), message.as_bytes(), 1000), vec![expected]);
        prop_assert_eq!(head::end(message.as_bytes()), Some(message.len()));
    }

    #[test]
    fn no_bytes_make_it_panic(
        pieces in prop::collection::vec((any::<u16>(), prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            "(GET / HTTP/1.1\r\n|HTTP/1.1 200 OK\r\n|Content-Length: [0-9]{1,21}\r\n|Transfer-Encoding: chunked\r\n|\r\n|[0-9a-f]{1,17}\r\n|\\{\"meta\":\\{\"id\":)".prop_map(String::into_bytes),
        ], any::<u8>()), 0..30),
    ) {
        let mut connection = Connection::new(body_probe());
        let mut position = 0u32;
        for (step, payload, captured) in pieces {
            position = if step % 4 == 0 { position.wrapping_add(u32::from(step)) } else { position };
            connection.send_cut(position, u32::from(captured), &payload, usize::from(captured));
            position = position.wrapping_add(length(payload.as_ref()));
        }
    }
}
