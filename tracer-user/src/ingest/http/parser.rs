//! Follows one stream from message to message, however it is cut into calls.
//!
//! Fed with the bytes in their order ([`Parser::feed`]) and told of those that were not seen
//! ([`Parser::skip`]), it says of each message that is looked for what its id is, or why there is
//! none. What it remembers of a message is bounded by the window that the kernel side captures.

use serde::{Deserialize, Serialize};
use tracer_common::limits::{BODY_WINDOW_LEN, HEADER_WINDOW_LEN, MAX_ID_LEN};

use super::{
    body::{Field, Format, Readable},
    head::{self, Beginning, Framing, Head},
};
use crate::config::{Direction, RequestProbe};

/// Why a message has no id that can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoId {
    /// It has no such header or field.
    Absent,
    /// It goes in the other direction.
    OtherDirection,
    /// The id is longer than the limit: lost.
    IdTooLong,
    /// The headers go on past what was captured, without the id so far: lost.
    HeaderTooLong,
    /// The body goes on past what was captured, without the id so far: lost.
    BodyTooLong,
    /// The body is compressed: lost.
    BodyEncoded,
    /// The rest of the message was not seen: lost.
    Unfinished,
}

/// The id of a message.
pub(super) type Told = Result<Vec<u8>, NoId>;

/// Longest line between two chunks of a body.
const MAX_CHUNK_LINE_LEN: usize = 256;

/// Where in a stream it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parser {
    state: State,
    /// Bytes of the current message that were seen.
    message_len: usize,
    /// The field that is looked for in its body.
    scan: Option<Scan>,
    /// It is an answer, and nothing of its body was seen yet.
    body_of_response_ahead: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    /// Where the next message starts.
    #[default]
    Between,
    /// Within the headers; `told` when all is known of it that is asked for.
    Head { bytes: Vec<u8>, told: bool },
    /// Within a body of which so many bytes are left.
    Length(u64),
    /// Within a body in chunks.
    Chunked(Chunk),
    /// Within a body that ends with the connection, or something that is no HTTP/1.
    UntilClose,
    /// Somewhere: the next piece that starts like a message is one.
    Lost,
}

/// Where in a body of chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Chunk {
    /// Within the line before a chunk.
    Line(Vec<u8>),
    /// Within a chunk, of which so many bytes are left.
    Data(u64),
    /// Within the line that ends a chunk.
    DataEnd(Vec<u8>),
    /// Within the lines after the last chunk.
    Trailer(Vec<u8>),
}

impl Chunk {
    /// What follows a line; `None` after the last one, and where it makes no sense.
    fn after(&self, line: &[u8]) -> Option<Self> {
        match self {
            Self::Line(_) => {
                let size = line.split(|byte| *byte == b';').next().unwrap_or(line).trim_ascii();
                match head::number(size, 16)? {
                    0 => Some(Self::Trailer(Vec::new())),
                    len => Some(Self::Data(len)),
                }
            }
            Self::DataEnd(_) => line.is_empty().then(|| Self::Line(Vec::new())),
            Self::Trailer(_) => (!line.is_empty()).then(|| Self::Trailer(Vec::new())),
            Self::Data(_) => None,
        }
    }
}

/// A body that is being looked through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Scan {
    format: Format,
    bytes: Vec<u8>,
    /// It is looked through again when it has this length: not for every byte that is added.
    next_look: usize,
}

impl Parser {
    /// Does a message of which something is asked go on?
    pub const fn is_waiting(&self) -> bool {
        matches!(self.state, State::Head { told: false, .. }) || self.scan.is_some()
    }

    /// Has it lost its place? Then the next piece that starts like a message is one, and what is told depends on how the
    /// stream is cut.
    pub const fn is_lost(&self) -> bool {
        matches!(self.state, State::Lost)
    }

    /// Bytes that it remembers.
    pub fn remembered_len(&self) -> usize {
        let head = match &self.state {
            State::Head { bytes, .. } => bytes.len(),
            _ => 0,
        };
        head + self.scan.as_ref().map_or(0, |scan| scan.bytes.len())
    }

    /// An answer to HEAD has the headers of a body and none. Where the process has read something
    /// since it sent the headers of an answer, what starts like another answer is one.
    pub fn note_read(&mut self, wanted: &RequestProbe, next: &[u8], out: &mut Vec<Told>) {
        let is_response = matches!(Head::read(next), Beginning::Message(head) if head.is_response());
        if self.body_of_response_ahead && is_response {
            self.end_scan(wanted, true, NoId::Absent, out);
            self.state = State::Between;
        }
    }

    /// Takes the next bytes of the stream.
    pub fn feed(&mut self, wanted: &RequestProbe, mut bytes: &[u8], out: &mut Vec<Told>) {
        if matches!(self.state, State::Lost) && !matches!(Head::read(bytes), Beginning::Other) {
            self.state = State::Between;
        }
        while !bytes.is_empty() {
            let taken = match &mut self.state {
                State::Between => self.begin(bytes),
                State::Head { .. } => self.in_head(wanted, bytes, out),
                State::Length(left) => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= taken as u64;
                    let ended = *left == 0;
                    self.in_body(wanted, &bytes[..taken], ended, out);
                    taken
                }
                State::Chunked(_) => self.in_chunks(wanted, bytes, out),
                State::UntilClose => {
                    self.in_body(wanted, bytes, false, out);
                    bytes.len()
                }
                State::Lost => bytes.len(),
            };
            bytes = &bytes[taken..];
            self.message_len += taken;
            // Beyond this the kernel side lets nothing through.
            if self.message_len >= window_len(wanted) {
                self.end_scan(wanted, false, NoId::BodyTooLong, out);
                if let State::Head { told, .. } = &self.state {
                    if !*told {
                        out.push(Err(NoId::HeaderTooLong));
                    }
                    self.state = State::Lost;
                }
            }
        }
    }

    /// Is told that `count` bytes were not seen, for this reason where something is still asked.
    pub fn skip(&mut self, wanted: &RequestProbe, count: u64, reason: NoId, out: &mut Vec<Told>) {
        if count == 0 {
            return;
        }
        if let State::Head { told: false, .. } = self.state {
            let of_headers = if reason == NoId::BodyTooLong { NoId::HeaderTooLong } else { reason };
            out.push(Err(of_headers));
        }
        self.end_scan(wanted, false, reason, out);
        self.body_of_response_ahead = false;
        match &mut self.state {
            State::Length(left) | State::Chunked(Chunk::Data(left)) if *left >= count => *left -= count,
            State::UntilClose => {}
            _ => self.state = State::Lost,
        }
        if matches!(self.state, State::Length(0)) {
            self.state = State::Between;
        } else if matches!(self.state, State::Chunked(Chunk::Data(0))) {
            self.state = State::Chunked(Chunk::DataEnd(Vec::new()));
        }
    }

    /// Nothing more of the stream is seen. `complete` when it ends there.
    pub fn end(&mut self, wanted: &RequestProbe, complete: bool, out: &mut Vec<Told>) {
        let reason = if complete { NoId::Absent } else { NoId::Unfinished };
        if let State::Head { bytes, told: false } = &mut self.state {
            // Where nothing can follow, the last line counts without its end.
            bytes.extend(b"\r\n");
            let found = match Head::read(bytes) {
                Beginning::Message(head) if complete => in_headers(wanted, &head),
                _ => None,
            };
            out.push(found.unwrap_or(Err(reason)));
        }
        self.end_scan(wanted, complete, reason, out);
        self.state = State::Lost;
    }

    fn begin(&mut self, bytes: &[u8]) -> usize {
        // Empty lines before a message are allowed.
        let empty = bytes.iter().take_while(|byte| b"\r\n".contains(byte)).count();
        if empty == 0 {
            self.message_len = 0;
            self.state = match head::can_start(bytes) {
                true => State::Head { bytes: Vec::new(), told: false },
                false => State::Lost,
            };
        }
        empty
    }

    fn in_head(&mut self, wanted: &RequestProbe, bytes: &[u8], out: &mut Vec<Told>) -> usize {
        let State::Head { bytes: before, told } = &mut self.state else { return 0 };
        let before_len = before.len();
        // Most headers come in one piece, which need not be copied.
        let seen = if before.is_empty() {
            HeadSeen::read(wanted, bytes)
        } else {
            before.extend(bytes);
            HeadSeen::read(wanted, before)
        };
        let Some(HeadSeen { answer, end }) = seen else {
            self.state = State::Lost;
            return bytes.len();
        };
        if !*told && let Some(answer) = answer {
            out.push(answer);
            *told = true;
        }
        let Some((end, is_response, framing, scan)) = end else {
            if before_len == 0 {
                before.extend(bytes);
            }
            return bytes.len();
        };
        if !*told {
            match scan {
                Ok(scan) => self.scan = Some(scan),
                Err(reason) => out.push(Err(reason)),
            }
        }
        self.body_of_response_ahead = is_response && framing != Framing::Length(0);
        self.state = match framing {
            Framing::Length(0) => State::Between,
            Framing::Length(len) => State::Length(len),
            Framing::Chunked => State::Chunked(Chunk::Line(Vec::new())),
            Framing::UntilClose => State::UntilClose,
            Framing::Unknown => State::Lost,
        };
        end - before_len
    }

    fn in_body(&mut self, wanted: &RequestProbe, bytes: &[u8], ended: bool, out: &mut Vec<Told>) {
        self.body_of_response_ahead = false;
        if let Some(scan) = &mut self.scan {
            scan.bytes.extend(bytes);
            if ended {
                self.end_scan(wanted, true, NoId::Absent, out);
            } else if scan.bytes.len() >= scan.next_look {
                scan.next_look = scan.bytes.len() * 2;
                match scan.find(wanted, false) {
                    Field::Open => {}
                    Field::Found(id) => self.answer(checked(id), out),
                    Field::Absent => self.answer(Err(NoId::Absent), out),
                }
            }
        }
        if ended {
            self.state = State::Between;
        }
    }

    fn in_chunks(&mut self, wanted: &RequestProbe, bytes: &[u8], out: &mut Vec<Told>) -> usize {
        let State::Chunked(chunk) = &mut self.state else { return 0 };
        let line = match chunk {
            Chunk::Data(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                if *left == 0 {
                    *chunk = Chunk::DataEnd(Vec::new());
                }
                self.in_body(wanted, &bytes[..taken], false, out);
                return taken;
            }
            Chunk::Line(line) | Chunk::DataEnd(line) | Chunk::Trailer(line) => line,
        };
        self.body_of_response_ahead = false;
        let end = memchr::memchr(b'\n', bytes);
        let taken = end.map_or(bytes.len(), |end| end + 1);
        line.extend(&bytes[..taken]);
        if line.len() > MAX_CHUNK_LINE_LEN {
            self.lose(wanted, out);
        } else if end.is_some() {
            let line = std::mem::take(line);
            let next = chunk.after(line.trim_ascii_end());
            match next {
                Some(next) => *chunk = next,
                None if matches!(chunk, Chunk::Trailer(_)) => {
                    self.end_scan(wanted, true, NoId::Absent, out);
                    self.state = State::Between;
                }
                None => self.lose(wanted, out),
            }
        }
        taken
    }

    /// What comes makes no sense as what it should be.
    fn lose(&mut self, wanted: &RequestProbe, out: &mut Vec<Told>) {
        self.end_scan(wanted, false, NoId::Unfinished, out);
        self.state = State::Lost;
    }

    /// No more of the body is seen; `reason` where the field may be in the rest.
    fn end_scan(&mut self, wanted: &RequestProbe, complete: bool, reason: NoId, out: &mut Vec<Told>) {
        if let Some(scan) = &self.scan {
            let answer = match scan.find(wanted, complete) {
                Field::Found(id) => checked(id),
                Field::Absent => Err(NoId::Absent),
                Field::Open => Err(reason),
            };
            self.answer(answer, out);
        }
    }

    fn answer(&mut self, answer: Told, out: &mut Vec<Told>) {
        self.scan = None;
        out.push(answer);
    }
}

impl Scan {
    fn find(&self, wanted: &RequestProbe, complete: bool) -> Field {
        self.format.find(&self.bytes, complete, wanted.body.as_deref().unwrap_or_default())
    }
}

/// What there is of a header section.
struct HeadSeen {
    /// What it says of the id, where that settles it.
    answer: Option<Told>,
    /// Where it ends and how the message goes on, when it is complete.
    end: Option<(usize, bool, Framing, Result<Scan, NoId>)>,
}

impl HeadSeen {
    /// `None` where `bytes` are no message.
    fn read(wanted: &RequestProbe, bytes: &[u8]) -> Option<Self> {
        let end = head::end(bytes);
        match Head::read(&bytes[..end.unwrap_or(bytes.len())]) {
            Beginning::Message(head) => {
                let framing = head.framing();
                let end = end.map(|end| (end, head.is_response(), framing, in_body(wanted, &head, framing)));
                Some(Self { answer: in_headers(wanted, &head), end })
            }
            Beginning::Open => Some(Self { answer: None, end: None }),
            Beginning::Other => None,
        }
    }
}

/// How much of a message the kernel side captures.
const fn window_len(wanted: &RequestProbe) -> usize {
    (if wanted.body.is_some() { BODY_WINDOW_LEN } else { HEADER_WINDOW_LEN }) as usize
}

/// What the headers say, where they settle it.
fn in_headers(wanted: &RequestProbe, head: &Head<'_>) -> Option<Told> {
    let other = match wanted.direction {
        Direction::Any => false,
        Direction::Request => head.is_response(),
        Direction::Response => !head.is_response(),
    };
    if other {
        return Some(Err(NoId::OtherDirection));
    }
    let name = wanted.header.as_deref()?;
    let value = head.value(name)?;
    Some(if name.eq_ignore_ascii_case("traceparent") {
        Ok(head::trace_id(value).to_vec())
    } else {
        checked(value.to_vec())
    })
}

/// How the body is looked through for the id, or why it is not.
fn in_body(wanted: &RequestProbe, head: &Head<'_>, framing: Framing) -> Result<Scan, NoId> {
    if wanted.body.is_none() || framing == Framing::Length(0) {
        return Err(NoId::Absent);
    }
    match Format::of(head) {
        Readable::As(format) => Ok(Scan { format, bytes: Vec::new(), next_look: 0 }),
        Readable::Encoded => Err(NoId::BodyEncoded),
        Readable::No => Err(NoId::Absent),
    }
}

fn checked(id: Vec<u8>) -> Told {
    if id.len() > MAX_ID_LEN { Err(NoId::IdTooLong) } else { Ok(id) }
}
