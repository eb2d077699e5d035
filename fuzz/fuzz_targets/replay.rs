//! Any bytes may be called a recording. Every line is an event or rejected, however the reading of it is cut and packed;
//! the join, which asserts its own accounting, takes whatever comes; an event that is written is read again; and bytes
//! that only claim to be packed end in an error, not in memory.
//!
//! The input: a byte of choices, one of how many bytes make a piece, the recording.
#![no_main]

use std::{io::Write as _, sync::Arc, sync::LazyLock};

use clap::Parser as _;
use flate2::{Compression, write::GzEncoder};
use libfuzzer_sys::fuzz_target;
use linktracer_fuzz::within;
use tracer_user::{
    domain::{Counts, Event, Kind, Labels},
    replay::{JoinArgs, ReplayArgs, counts_by_pieces, write_event},
};

/// Room that does not depend on the recording: the join's tables, and windows of gzip and zstd, 8 MiB for the latter.
const MEMORY_AT_LEAST: usize = 24 << 20;

#[derive(clap::Parser)]
struct CommandLine {
    #[command(flatten)]
    replay: ReplayArgs,
}

static ARGUMENTS: LazyLock<JoinArgs> = LazyLock::new(|| {
    let words =
        ["replay", "-", "--reports", "--exposure-window=1us", "--click-window=2us", "--report-window=1us"];
    let words = words.into_iter().chain(["--lateness=100ns", "--skew=20ns", "--idle-timeout=10us"]);
    CommandLine::parse_from(words).replay.join
});

fuzz_target!(|bytes: &[u8]| {
    let [choice, piece_bytes, recording @ ..] = bytes else { return };
    let (counts, is_whole) = within(MEMORY_AT_LEAST, || read(recording, 1 << 18));
    let (in_pieces, is_whole_in_pieces) = read(recording, usize::from(*piece_bytes) + 1);
    assert_eq!(is_whole_in_pieces, is_whole);
    // How much of what is packed comes out before an error is seen depends on how much is asked for at a time.
    assert!(!is_whole || in_pieces == counts, "in pieces {in_pieces:?}, whole {counts:?}");

    if is_packed(recording) {
        return;
    }
    assert!(is_whole);
    let lines = recording.split(|byte| *byte == b'\n');
    let lines = lines.filter(|line| !line.trim_ascii().is_empty()).count() as u64;
    assert_eq!(total(&counts) + counts.rejected, lines);
    match choice & 7 {
        1 => assert_eq!(read(&gzip(recording), 1 << 18), (counts, true), "gzip"),
        2 => {
            let packed = zstd::encode_all(recording, 1).expect("memory can be written");
            assert_eq!(read(&packed, 1 << 18), (counts, true), "zstd");
        }
        3 => written_is_read(recording),
        _ => {}
    }
});

fn read(recording: &[u8], piece_bytes: usize) -> (Counts, bool) {
    let (counts, end) = counts_by_pieces(&ARGUMENTS, recording, piece_bytes);
    (counts, end.is_ok())
}

fn total(counts: &Counts) -> u64 {
    Kind::ALL.into_iter().map(|kind| counts.events[kind]).sum()
}

fn is_packed(bytes: &[u8]) -> bool {
    matches!(bytes, [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory can be written");
    encoder.finish().expect("memory can be written")
}

/// Texts of any content, between zeros, as the texts of an event.
fn written_is_read(texts: &[u8]) {
    let mut texts = texts.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let mut text = || texts.next().unwrap_or_default().into_owned();
    for kind in Kind::ALL {
        let labels = Labels { service: text().into(), release: text().into(), group: text().into() };
        let event = Event {
            kind,
            timestamp_ns: u64::MAX - 1,
            source: text().into(),
            pid: u32::MAX,
            tid: 0,
            labels: Arc::new(labels),
            request_id: text().into(),
            item_id: text().into(),
            peer: Some(text().into()),
        };
        let mut line = Vec::new();
        write_event(&event, &mut line).expect("memory can be written");
        let (counts, is_whole) = read(&line, 1 << 18);
        assert_eq!(
            (total(&counts), counts.rejected, is_whole),
            (1, 0, true),
            "{}",
            String::from_utf8_lossy(&line)
        );
        assert_eq!(counts.events[kind], 1);
    }
}
