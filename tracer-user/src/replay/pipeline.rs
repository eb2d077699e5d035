//! Reading, taking lines apart and joining, each on threads of its own.
//!
//! One thread reads and unpacks bytes and cuts them into pieces; the pieces go round the parsing threads
//! in turn, and the batches are taken from them in the same turn, so that the order of events is the
//! order of the input, however many threads there are. Every queue is bounded: what is read and not yet
//! joined is a few pieces, whatever the length of the input.

use std::io::Read;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::batch::{Batch, PieceReader};
use super::pieces::{Cut, Piece, Pieces};

/// Bytes of a piece, unless a line is longer.
pub(super) const PIECE_BYTES: usize = 1 << 18;
/// Pieces and batches that wait for each parsing thread and behind it.
const QUEUED: usize = 4;
/// More parsing threads than this only wait for the join.
const MAX_PARSERS: usize = 8;

/// How many threads take lines apart. They share the processors with the join, which leaves them idle
/// whenever it waits.
pub(super) fn parsers() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(MAX_PARSERS)
}

/// Gives every batch of the input to `take`, in order, on the calling thread.
///
/// # Errors
/// The input cannot be read any further. What was read before was taken.
pub(super) fn run(
    input: impl Read + Send,
    piece_bytes: usize,
    parsers: usize,
    reader: &PieceReader,
    mut take: impl FnMut(Batch),
) -> Result<(), Cut> {
    thread::scope(|scope| {
        let mut inboxes = Vec::new();
        let mut outboxes = Vec::new();
        for _ in 0..parsers.max(1) {
            let (inbox, pieces) = sync_channel(QUEUED);
            let (batches, outbox) = sync_channel(QUEUED);
            let reader = reader.clone();
            scope.spawn(move || parse(&pieces, reader, &batches));
            inboxes.push(inbox);
            outboxes.push(outbox);
        }
        let cutter = scope.spawn(move || read(input, piece_bytes, &inboxes));
        // The first one that has no more is the one whose turn it was when the input ended.
        for outbox in outboxes.iter().cycle() {
            let Ok(batch) = outbox.recv() else { break };
            take(batch);
        }
        // Were there more, because a thread died, nobody would take them.
        drop(outboxes);
        cutter.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Gives the pieces to the parsing threads in turn.
fn read(input: impl Read, piece_bytes: usize, inboxes: &[SyncSender<Piece>]) -> Result<(), Cut> {
    let mut pieces = Pieces::new(input, piece_bytes);
    for inbox in inboxes.iter().cycle() {
        let Some(piece) = pieces.next_piece()? else { break };
        if inbox.send(piece).is_err() {
            break;
        }
    }
    Ok(())
}

fn parse(pieces: &Receiver<Piece>, mut reader: PieceReader, batches: &SyncSender<Batch>) {
    while let Ok(piece) = pieces.recv() {
        if batches.send(reader.read(&piece)).is_err() {
            break;
        }
    }
}
