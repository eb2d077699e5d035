//! Finding a header in the start of an HTTP/1 message.
//!
//! A search, not a parser: the bytes may be cut short anywhere, and the only question is the value
//! of one header. No header search runs in the kernel.

/// What the start of a message says about a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header<'a> {
    /// Its value, without the white space around it; may be empty.
    Found(&'a [u8]),
    /// The header section ends without it.
    Absent,
    /// The header section goes on past what was captured, or the value does.
    Beyond,
}

/// Looks for the header `name` (any case) in `message`; `cut` says that the message goes on.
pub fn find_header<'a>(message: &'a [u8], cut: bool, name: &str) -> Header<'a> {
    // Not one whole line: what follows the first line cannot be told from a body.
    let missing = if cut { Header::Beyond } else { Header::Absent };
    let Some((_, mut rest)) = split_line(message) else { return missing };
    loop {
        let Some((line, after)) = split_line(rest) else {
            // A header section that ends with the piece: the next piece of the vector goes on with it.
            return if cut {
                Header::Beyond
            } else {
                value_of(rest, name).map_or(Header::Absent, Header::Found)
            };
        };
        if line.is_empty() {
            return Header::Absent;
        }
        if let Some(value) = value_of(line, name) {
            return Header::Found(value);
        }
        rest = after;
    }
}

/// The trace id within the value of a `traceparent` header (W3C Trace Context): every hop changes the
/// header, but not this part of it. Empty where the value has none, which is what such a request has
/// for an id.
pub fn trace_id(value: &[u8]) -> &[u8] {
    let mut parts = value.split(|byte| *byte == b'-');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some([_, _]), Some(id), Some(_), Some(_))
            if id.len() == 32
                && id.iter().all(u8::is_ascii_hexdigit)
                && id.iter().any(|digit| *digit != b'0') =>
        {
            id
        }
        _ => b"",
    }
}

/// The value, if the line is that header.
fn value_of<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    start.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
}

/// The first line without its end, and what follows it. Lines end in CR LF; a bare LF is taken too,
/// as every server does.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\n', bytes)?;
    let line = &bytes[..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Header, find_header, trace_id};

    #[test]
    fn the_trace_id_is_what_all_hops_share() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(trace_id(format!("00-{id}-00f067aa0ba902b7-01").as_bytes()), id.as_bytes());
        for none in [
            "",
            "00",
            "00-short-00f067aa0ba902b7-01",
            &format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            id,
        ] {
            assert_eq!(trace_id(none.as_bytes()), b"", "{none}");
        }
    }

    #[track_caller]
    fn check(message: &str, cut: bool, expected: Header<'_>) {
        assert_eq!(find_header(message.as_bytes(), cut, "X-Request-Id"), expected, "{message:?}");
    }

    #[test]
    fn the_value_is_found_in_any_case_without_white_space() {
        check("HTTP/1.1 200 OK\r\nx-request-ID: \t r-1 \r\n\r\n{}", false, Header::Found(b"r-1"));
        check("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id:r-1\r\n\r\n", true, Header::Found(b"r-1"));
    }

    #[test]
    fn an_empty_value_is_found_as_such() {
        check("HTTP/1.1 200 OK\r\nX-Request-Id:\r\n\r\n", false, Header::Found(b""));
    }

    #[test]
    fn a_body_that_looks_like_the_header_is_not_one() {
        check("HTTP/1.1 200 OK\r\nA: b\r\n\r\nX-Request-Id: r-1\r\n", false, Header::Absent);
        check("HTTP/1.1 200 OK\r\nNot-X-Request-Id: r-1\r\nX-Request-Id-2: r\r\n\r\n", false, Header::Absent);
    }

    #[test]
    fn a_value_that_is_cut_is_not_taken_for_whole() {
        check("HTTP/1.1 200 OK\r\nX-Request-Id: r-1", true, Header::Beyond);
        check("HTTP/1.1 200 OK\r\nX-Request-Id: r-1\r\n", true, Header::Found(b"r-1"));
        check("HTTP/1.1 200 OK\r\nA: b\r\n", true, Header::Beyond);
        check("HTTP/1.1 200 OK", true, Header::Beyond);
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_full_parser(
            names in prop::collection::vec("[A-Za-z-]{1,12}", 0..6),
            value in "[!-~]{0,20}",
            position in 0usize..6,
        ) {
            let mut lines: Vec<String> = names.iter().map(|name| format!("{name}: v")).collect();
            lines.insert(position.min(lines.len()), format!("x-ReQuest-id: {value}"));
            let message = format!("HTTP/1.1 200 OK\r\n{}\r\n\r\nbody", lines.join("\r\n"));
            let mut headers = [httparse::EMPTY_HEADER; 8];
            let mut response = httparse::Response::new(&mut headers);
            prop_assume!(response.parse(message.as_bytes()).is_ok());
            let parsed = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("X-Request-Id"));
            let expected = parsed.map_or(Header::Absent, |header| Header::Found(header.value));
            prop_assert_eq!(find_header(message.as_bytes(), false, "X-Request-Id"), expected);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut: bool) {
            find_header(&bytes, cut, "X-Request-Id");
        }
    }
}
