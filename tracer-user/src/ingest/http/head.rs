//! The start line and the headers of a message.
//!
//! A search, not a validator: what is asked is which kind of message this is, where it ends, and the
//! value of one header. Lines end in CR LF; a bare LF is taken too, as every server does.

/// How the body of a message is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// By its length in bytes; 0 where there is none.
    Length(u64),
    /// In chunks.
    Chunked,
    /// By the end of the connection.
    UntilClose,
    /// By a length that cannot be understood.
    Unknown,
}

/// First words of a request.
const METHODS: [&[u8]; 8] = [b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"PATCH", b"OPTIONS", b"CONNECT"];

/// The headers of a message, as far as they were seen: whole lines after the start line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'a> {
    start: Start<'a>,
    headers: &'a [u8],
}

#[derive(Debug, Clone, Copy)]
enum Start<'a> {
    Request { method: &'a [u8] },
    Response { status: u16 },
}

/// What the start of some bytes is.
#[derive(Debug)]
pub(super) enum Beginning<'a> {
    /// A message, of which `headers` are whole lines.
    Message(Head<'a>),
    /// It can be one, but its start line is not complete.
    Open,
    /// Anything else.
    Other,
}

impl<'a> Head<'a> {
    /// Reads the start line of `bytes`; the headers are the lines after it that have an end.
    pub(super) fn read(bytes: &'a [u8]) -> Beginning<'a> {
        let Some((line, rest)) = split_line(bytes) else {
            return if can_start(bytes) { Beginning::Open } else { Beginning::Other };
        };
        let Some(start) = start(line) else { return Beginning::Other };
        let end = memchr::memrchr(b'\n', rest).map_or(0, |end| end + 1);
        Beginning::Message(Self { start, headers: &rest[..end] })
    }

    /// Is it an answer, and not a request?
    pub(super) const fn is_response(&self) -> bool {
        matches!(self.start, Start::Response { .. })
    }

    /// The value of a header (its name in any case), without the white space around it.
    pub(super) fn value(&self, name: &str) -> Option<&'a [u8]> {
        self.values(name).next()
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.headers;
        std::iter::from_fn(move || {
            let (line, after) = split_line(rest)?;
            rest = after;
            (!line.is_empty()).then_some(line)
        })
        .filter_map(move |line| value_of(line, name))
    }

    /// How the body is delimited (RFC 9112, section 6.3), as far as that can be told without the
    /// request that this answers.
    pub(super) fn framing(&self) -> Framing {
        let without_body = Framing::Length(0);
        match self.start {
            Start::Response { status: 101 } => return Framing::UntilClose,
            Start::Response { status: 100..=199 | 204 | 304 } => return without_body,
            Start::Request { method: b"CONNECT" } => return Framing::UntilClose,
            Start::Response { .. } | Start::Request { .. } => {}
        }
        if let Some(coding) = self.values("Transfer-Encoding").last() {
            let last = coding.rsplit(|byte| *byte == b',').next().unwrap_or(coding);
            return match (last.trim_ascii().eq_ignore_ascii_case(b"chunked"), self.is_response()) {
                (true, _) => Framing::Chunked,
                (false, true) => Framing::UntilClose,
                (false, false) => Framing::Unknown,
            };
        }
        let mut lengths = self.values("Content-Length");
        match lengths.next() {
            None if self.is_response() => Framing::UntilClose,
            None => without_body,
            Some(text) if lengths.any(|other| other != text) => Framing::Unknown,
            Some(text) => number(text, 10).map_or(Framing::Unknown, Framing::Length),
        }
    }
}

/// Where the header section of `bytes` ends: after its empty line.
pub(super) fn end(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let (line, rest) = split_line(&bytes[at..])?;
        at = bytes.len() - rest.len();
        if line.is_empty() {
            return Some(at);
        }
    }
}

/// Can a message start like this?
pub(super) fn can_start(bytes: &[u8]) -> bool {
    let begins = |word: &[u8]| {
        let len = word.len().min(bytes.len());
        word[..len] == bytes[..len] && bytes.get(len).is_none_or(|byte| *byte == b' ')
    };
    const VERSION: &[u8] = b"HTTP/1.";
    let len = VERSION.len().min(bytes.len());
    VERSION[..len] == bytes[..len] || METHODS.iter().any(|method| begins(method))
}

/// The trace id within the value of a `traceparent` header (W3C Trace Context): every hop changes the
/// header, but not this part of it. Empty where the value has none, which is what such a request has
/// for an id.
pub(super) fn trace_id(value: &[u8]) -> &[u8] {
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

/// A number of digits alone.
pub(super) fn number(text: &[u8], radix: u32) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    // `from_str_radix` takes a sign, which HTTP does not.
    text.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u64::from_str_radix(text, radix).ok())?
}

/// The first line without its end, and what follows it.
pub(super) fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\n', bytes)?;
    let line = &bytes[..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), &bytes[end + 1..]))
}

fn start(line: &[u8]) -> Option<Start<'_>> {
    let mut words = line.split(|byte| *byte == b' ');
    let (first, second, third) = (words.next()?, words.next()?, words.next());
    if is_version(first) {
        let status = (second.len() == 3).then(|| number(second, 10)).flatten()?;
        return Some(Start::Response { status: u16::try_from(status).ok()? });
    }
    let is_request = METHODS.contains(&first) && !second.is_empty() && is_version(third?);
    (is_request && words.next().is_none()).then_some(Start::Request { method: first })
}

fn is_version(word: &[u8]) -> bool {
    matches!(word, b"HTTP/1.1" | b"HTTP/1.0")
}

/// The value, if the line is that header.
fn value_of<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    start.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
}
