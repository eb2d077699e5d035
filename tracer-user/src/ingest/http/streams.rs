//! One parser for each connection, and where in its stream it is.
//!
//! The kernel side gives each piece its place in the stream, so that a piece that is sent again
//! counts once, and what was not captured is known by its length. Bounded in number and in bytes;
//! what is pushed out while it waits for the rest of a message is given up, and counted.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::SocketAddr,
};

use serde::{Deserialize, Serialize};
use tracer_common::counters::Hook;

use super::super::hook_index;
use super::parser::{NoId, Parser, Told};
use crate::config::{RequestProbe, Service};

/// Connections that are remembered.
const MAX_STREAMS: usize = 16_384;
/// Bytes of messages that are remembered, over all connections.
const MAX_BYTES: usize = 64 << 20;
/// How far back a piece can start that is sent again.
const MAX_REPEATED_LEN: i64 = 1 << 30;
/// A connection on which nothing was sent for so long is forgotten.
const IDLE_NS: u64 = 60_000_000_000;

/// A piece of a stream, as a record has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Send<'a> {
    /// The other end, where it is an internet address.
    pub peer: Option<SocketAddr>,
    /// What tells one connection from another while both are open.
    pub stream: u64,
    /// The port of this end; 0 where it is not known.
    pub local_port: u16,
    /// Where in the stream the piece starts, modulo 2^32.
    pub position: u32,
    /// Does the position go on from call to call?
    pub positioned: bool,
    /// What came before on the stream is over.
    pub new: bool,
    /// The same call has another piece, in another record.
    pub more: bool,
    /// Bytes that the process had read from the connection, modulo 2^32. Of a TLS connection, what
    /// tells buffers apart.
    pub received: u32,
    /// Length of the piece.
    pub piece_len: u32,
    /// What was captured of it.
    pub payload: &'a [u8],
}

/// What tells connections apart: the memory of one that was closed is soon another's, whose port at
/// one end is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
struct Key {
    stream: u64,
    pid: u32,
    peer: Option<SocketAddr>,
    local_port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stream {
    service: usize,
    #[serde(with = "hook_index")]
    hook: Hook,
    /// The place of the next byte.
    at: u32,
    received: u32,
    parser: Parser,
    /// The last call that handed it something to encrypt.
    last_call: Option<TlsCall>,
    /// Its place in the order of use.
    turn: u64,
    used_ns: u64,
}

/// What tells a call of a TLS library from the one before: its buffer, and what that holds. A library
/// whose socket does not take more asks for the same call again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct TlsCall {
    buffer: u32,
    len: u32,
    hash: u64,
}

impl TlsCall {
    fn of(send: &Send<'_>) -> Self {
        let mut hasher = DefaultHasher::new();
        send.payload.hash(&mut hasher);
        Self { buffer: send.received, len: send.piece_len, hash: hasher.finish() }
    }
}

/// A change of what is remembered of one connection: what it is now, if anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamChange {
    key: Key,
    stream: Option<Stream>,
}

/// The connections of all traced processes.
#[derive(Debug, Default)]
pub struct Streams {
    table: HashMap<Key, Stream>,
    /// Those of `table` by their last use.
    order: BTreeMap<u64, Key>,
    turn: u64,
    remembered_len: usize,
    given_up: Vec<Hook>,
    /// Those that changed since they were asked for.
    changed: BTreeSet<Key>,
}

impl Streams {
    /// Takes a piece that a process of `service` (its position in the configuration) sent, and says of
    /// each message that it settles what the id is. False when all of it was seen before.
    pub fn take(
        &mut self,
        (service, wanted): (usize, &RequestProbe),
        (pid, hook, now_ns): (u32, Hook, u64),
        send: &Send<'_>,
        out: &mut Vec<Told>,
    ) -> bool {
        let key = Key { stream: send.stream, pid, peer: send.peer, local_port: send.local_port };
        let mut stream = self.remove(&key).unwrap_or_else(|| Stream::new(service, send));
        let call = (hook == Hook::TlsWrite).then(|| TlsCall::of(send));
        if call.is_some() && call == stream.last_call {
            stream.used_ns = now_ns;
            self.insert(key, stream);
            return false;
        }
        if send.new && stream.at != send.position {
            stream.parser.end(wanted, false, out);
            stream = Stream::new(service, send);
        }
        let is_new = stream.feed(wanted, send, out);
        let is_whole = !send.positioned && !send.more;
        if is_whole {
            stream.parser.end(wanted, true, out);
        }
        if !is_whole || call.is_some() {
            stream.service = service;
            stream.hook = hook;
            stream.used_ns = now_ns;
            stream.last_call = call;
            self.insert(key, stream);
        }
        is_new
    }

    /// Forgets connections that were not used for long.
    pub fn forget_idle(&mut self, services: &[Service], now_ns: u64) {
        while let Some((_, key)) = self.order.first_key_value() {
            let key = *key;
            let idle = |stream: &Stream| now_ns.saturating_sub(stream.used_ns) >= IDLE_NS;
            let is_over = self.table.len() > MAX_STREAMS || self.remembered_len > MAX_BYTES;
            if !is_over && !self.table.get(&key).is_some_and(idle) {
                break;
            }
            let Some(mut stream) = self.remove(&key) else { break };
            let Some(wanted) = services[stream.service].request.as_ref() else { continue };
            let mut out = Vec::new();
            stream.parser.end(wanted, false, &mut out);
            self.given_up.extend(out.iter().map(|_| stream.hook));
        }
    }

    /// Messages that were given up since the last call: the hook that the last piece of each came from.
    pub fn take_given_up(&mut self) -> Vec<Hook> {
        std::mem::take(&mut self.given_up)
    }

    /// What changed since the last call.
    pub fn take_changes(&mut self) -> Vec<StreamChange> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|key| StreamChange { key, stream: self.table.get(&key).cloned() }).collect()
    }

    /// The changes that make these out of none.
    pub fn as_changes(&self) -> Vec<StreamChange> {
        let changes =
            self.order.values().map(|key| StreamChange { key: *key, stream: self.table.get(key).cloned() });
        changes.collect()
    }

    /// Makes a change again that was made before a restart.
    pub fn make_again(&mut self, change: StreamChange) {
        self.remove(&change.key);
        if let Some(stream) = change.stream {
            self.insert(change.key, stream);
        }
        self.changed.remove(&change.key);
    }

    /// Forgets every connection, after a time in which pieces were missed. Returns the hooks whose messages
    /// were waited for: each is [`NoId::Unfinished`].
    pub fn abandon(&mut self) -> Vec<Hook> {
        let mut waiting = Vec::new();
        while let Some((_, key)) = self.order.first_key_value() {
            let key = *key;
            let stream = self.remove(&key);
            waiting.extend(stream.filter(|stream| stream.parser.is_waiting()).map(|stream| stream.hook));
        }
        waiting
    }

    /// How many connections are remembered.
    pub fn count(&self) -> usize {
        self.table.len()
    }

    fn remove(&mut self, key: &Key) -> Option<Stream> {
        let stream = self.table.remove(key)?;
        self.changed.insert(*key);
        self.order.remove(&stream.turn);
        self.remembered_len -= stream.parser.remembered_len();
        Some(stream)
    }

    fn insert(&mut self, key: Key, mut stream: Stream) {
        self.turn += 1;
        stream.turn = self.turn;
        self.remembered_len += stream.parser.remembered_len();
        self.changed.insert(key);
        self.order.insert(stream.turn, key);
        self.table.insert(key, stream);
    }
}

impl Stream {
    fn new(service: usize, send: &Send<'_>) -> Self {
        Self {
            service,
            hook: Hook::Write,
            at: send.position,
            received: send.received,
            parser: Parser::default(),
            last_call: None,
            turn: 0,
            used_ns: 0,
        }
    }

    fn feed(&mut self, wanted: &RequestProbe, send: &Send<'_>, out: &mut Vec<Told>) -> bool {
        let ahead = i64::from(send.position.wrapping_sub(self.at).cast_signed());
        // What is that far back is not sent again: it is more than 2 GiB ahead.
        let ahead = if ahead < -MAX_REPEATED_LEN { i64::MAX } else { ahead };
        let seen_len = u32::try_from(-ahead).unwrap_or(0);
        let end = send.position.wrapping_add(send.piece_len);
        if seen_len >= send.piece_len && send.piece_len > 0 {
            return false;
        }
        if let Ok(gap) = u64::try_from(ahead) {
            self.parser.skip(wanted, gap, NoId::Unfinished, out);
        }
        let payload = send.payload.get(seen_len as usize..).unwrap_or_default();
        if seen_len == 0 && send.received != self.received {
            self.parser.note_read(wanted, payload, out);
        }
        self.received = send.received;
        self.parser.feed(wanted, payload, out);
        let from = seen_len.max(u32::try_from(send.payload.len()).unwrap_or(u32::MAX));
        self.at = end;
        if send.more {
            // The next record has what follows this one, of the same buffer or another.
            self.at = send.position.wrapping_add(from);
        } else {
            self.parser.skip(wanted, u64::from(send.piece_len - from), NoId::BodyTooLong, out);
        }
        true
    }
}
