//! Any bytes may be sent, in calls of any lengths, some of them again. What a stream tells does not depend on how it was
//! cut, as long as every byte of it is some message's; nothing that is told was not sent; and what is remembered is
//! bounded, also of streams that were captured in parts.
//!
//! The input: two bytes of choices, eight lengths of pieces, the stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use linktracer_fuzz::within;
use tracer_common::{counters::Hook, limits::MAX_ID_LEN};
use tracer_user::{
    config::{Direction, RequestProbe},
    ingest::http::{NoId, Parser, Send, Streams},
};

type Told = Result<Vec<u8>, NoId>;

/// Below the window of a message, which is counted in pieces and so depends on how they are cut.
const MAX_STREAM_LEN: usize = 4096;
/// For the tables of one connection, and for everything that a message of that length can be copied into.
const MEMORY_LIMIT: usize = 64 << 10;

fuzz_target!(|bytes: &[u8]| {
    let Some(([choice, loss, lens @ ..], stream)) = bytes.split_first_chunk::<10>() else { return };
    let stream = &stream[..stream.len().min(MAX_STREAM_LEN)];
    let wanted = wanted(*choice);

    let mut whole = Parser::default();
    let mut told = Vec::new();
    within(MEMORY_LIMIT, || whole.feed(&wanted, stream, &mut told));
    let is_lost = whole.is_lost();
    for id in told.iter().flatten() {
        assert!(id.len() <= MAX_ID_LEN);
        // A field of a body may be written with escapes.
        let is_part = id.is_empty() || stream.windows(id.len()).any(|part| part == id);
        assert!(is_part || wanted.body.is_some(), "{id:?}");
    }

    let waits = whole.is_waiting();
    let mut ended = told.clone();
    whole.end(&wanted, choice & 0x40 != 0, &mut ended);
    assert_eq!(
        ended.len(),
        told.len() + usize::from(waits),
        "what waits is told at the end, and nothing else"
    );
    assert!(!whole.is_waiting() && whole.remembered_len() == 0);

    let cut = within(MEMORY_LIMIT, || in_pieces(&wanted, stream, lens));
    let sent = within(MEMORY_LIMIT, || sent_in_pieces(&wanted, stream, lens, choice & 0x80 != 0, None));
    if is_lost {
        // What comes after the loss counts where it begins a piece.
        assert!(
            cut.starts_with(&told) && sent.starts_with(&told),
            "{cut:?} and {sent:?} do not begin as {told:?}"
        );
    } else {
        let mut ended = told;
        whole_again(&wanted, stream).end(&wanted, false, &mut ended);
        assert_eq!(cut, ended);
        // The last message may not be told yet: a body is not looked through for every byte that is added.
        assert!(ended.starts_with(&sent) && sent.len() + 1 >= ended.len(), "{sent:?} of {ended:?}");
    }

    within(MEMORY_LIMIT, || sent_in_pieces(&wanted, stream, lens, true, Some(usize::from(*loss))));
});

fn wanted(choice: u8) -> RequestProbe {
    let header = if choice & 8 == 0 { "X-Request-Id" } else { "traceparent" };
    RequestProbe {
        header: (choice & 0x30 != 0x10).then(|| header.to_owned()),
        body: (choice & 0x30 != 0).then(|| vec!["meta".to_owned(), "id".to_owned()]),
        direction: Direction::ALL[usize::from(choice & 7) % Direction::ALL.len()],
        tls: true,
    }
}

fn whole_again(wanted: &RequestProbe, stream: &[u8]) -> Parser {
    let mut parser = Parser::default();
    parser.feed(wanted, stream, &mut Vec::new());
    parser
}

/// The pieces of `stream` of `lens` bytes, round and round.
fn pieces<'a>(mut stream: &'a [u8], lens: &'a [u8; 8]) -> impl Iterator<Item = &'a [u8]> {
    let mut lens = lens.iter().cycle().map(|len| usize::from(*len) + 1);
    std::iter::from_fn(move || {
        let len = lens.next()?.min(stream.len());
        let (piece, rest) = stream.split_at(len);
        stream = rest;
        (len > 0).then_some(piece)
    })
}

/// What a parser tells that gets the stream in pieces, and that no more comes.
fn in_pieces(wanted: &RequestProbe, stream: &[u8], lens: &[u8; 8]) -> Vec<Told> {
    let mut parser = Parser::default();
    let mut told = Vec::new();
    for piece in pieces(stream, lens) {
        parser.feed(wanted, piece, &mut told);
    }
    parser.end(wanted, false, &mut told);
    told
}

/// Sends the stream in pieces on one connection; with `repeat` the second half of each once more. Of each piece at most
/// `captured` bytes are seen.
fn sent_in_pieces(
    wanted: &RequestProbe,
    stream: &[u8],
    lens: &[u8; 8],
    repeat: bool,
    captured: Option<usize>,
) -> Vec<Told> {
    let mut streams = Streams::default();
    let mut told = Vec::new();
    let mut take = |position: u32, piece: &[u8]| {
        let send = Send {
            peer: None,
            stream: 1,
            local_port: 80,
            position,
            positioned: true,
            new: false,
            more: false,
            received: 0,
            piece_len: piece.len() as u32,
            payload: &piece[..captured.unwrap_or(piece.len()).min(piece.len())],
        };
        streams.take((0, wanted), (7, Hook::Write, 0), &send, &mut told)
    };
    // The positions pass the end of their range on the way.
    let mut position = u32::MAX - 100;
    for piece in pieces(stream, lens) {
        take(position, piece);
        if repeat {
            let half = piece.len() / 2;
            assert!(!take(position.wrapping_add(half as u32), &piece[half..]), "it was seen before");
        }
        position = position.wrapping_add(piece.len() as u32);
    }
    assert!(streams.count() <= 1);
    told
}
