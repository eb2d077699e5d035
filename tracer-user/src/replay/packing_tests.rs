//! Packed input, input that is cut off, and the order of events on several threads.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::batch::{PieceReader, Recorded};
use super::pieces::Piece;
use super::{ProgressDrawTarget, ReplayArgs, pipeline, run};
use crate::join::Fingerprinter;

#[derive(clap::Parser)]
struct CommandLine {
    #[command(flatten)]
    replay: ReplayArgs,
}

/// What is printed on the output, and the error at the end if there is one.
fn replay(input: &[u8]) -> (String, Option<String>) {
    let CommandLine { replay } = clap::Parser::parse_from(["replay", "-", "--output=json"]);
    let mut output = Vec::new();
    let end = run(&replay, input, &mut output, &mut Vec::new(), ProgressDrawTarget::hidden());
    (String::from_utf8(output).expect("text"), end.err().map(|error| error.to_string()))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).expect("in memory")
}

/// Lines of requests, each with an id and a time of its own, some of them rejected or blank.
fn recording(lines: usize) -> String {
    let mut text = String::new();
    for number in 0..lines {
        match number % 10 {
            7 => text.push_str("nonsense\n"),
            8 => text.push('\n'),
            _ => text.push_str(&format!(
                "{{\"kind\":\"request\",\"ts\":{number},\"request_id\":\"r-{number}\"}}\n"
            )),
        }
    }
    text
}

#[test]
fn packed_input_is_known_by_its_content_and_may_have_several_parts() {
    let text = recording(1000);
    let (first, second) = text.as_bytes().split_at(text.len() / 3);
    let expected = (replay(text.as_bytes()).0, None);
    assert!(expected.0.contains(r#""events":{"request":800,"#) && expected.0.contains(r#""rejected":100,"#));
    assert_eq!(replay(&gzip(text.as_bytes())), expected);
    assert_eq!(replay(&zstd(text.as_bytes())), expected);
    assert_eq!(replay(&[gzip(first), gzip(b""), gzip(second)].concat()), expected);
    assert_eq!(replay(&[zstd(first), zstd(b""), zstd(second)].concat()), expected);
    // zstd's own kind of comment.
    let skipped = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0], b"abc".as_slice()].concat();
    assert_eq!(replay(&[skipped.clone(), zstd(first), skipped, zstd(second)].concat()), expected);
}

#[test]
fn input_shorter_than_any_mark_is_read() {
    for input in ["", "\n", "{}", "x"] {
        let (output, error) = replay(input.as_bytes());
        assert_eq!(error, None);
        assert_eq!(output.contains(r#""rejected":1,"#), !input.trim().is_empty(), "{input:?}");
    }
}

/// Wherever packed input is cut off, the counts are those of the whole lines before, and it is said.
#[track_caller]
fn check_cut_off(packed: &[u8], text: &str, name: &str) {
    for length in (5..packed.len()).step_by(7) {
        let (output, error) = replay(&packed[..length]);
        let error = error.expect("it is cut off");
        let number = |mark: &str| {
            let (_, rest) = error.split_once(mark).unwrap_or_else(|| panic!("no {mark} in {error}"));
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<usize>().expect("digits")
        };
        assert!(error.starts_with(&format!("stdin: the {name} data is cut off after line ")), "{error}");
        let lines: Vec<&str> = text.split_inclusive('\n').take(number("after line ")).collect();
        let before = lines.concat();
        assert_eq!(number("(byte "), before.len(), "{error}");
        assert_eq!(output, replay(before.as_bytes()).0, "{error}");
    }
}

#[test]
fn cut_off_input_keeps_what_was_read_and_says_where() {
    let text = recording(300);
    check_cut_off(&gzip(text.as_bytes()), &text, "gzip");
    let parts: Vec<Vec<u8>> =
        text.as_bytes().chunks(1000).map(|part| zstd::encode_all(part, 3).expect("in memory")).collect();
    check_cut_off(&parts[..4].concat(), &text, "zstd");
}

#[test]
fn damaged_input_keeps_what_was_read_and_says_where() {
    let text = recording(300);
    let mut packed = [gzip(text.as_bytes()), gzip(text.as_bytes())].concat();
    let last_checksum = packed.len() - 8;
    packed[last_checksum] ^= 1;
    let (output, error) = replay(&packed);
    assert_eq!(output, replay([text.clone(), text.clone()].concat().as_bytes()).0);
    let error = error.expect("the checksum is wrong");
    assert!(error.contains("after line 600 (byte ") && error.contains("checksum"), "{error}");
}

#[test]
fn the_order_is_that_of_the_input_on_any_number_of_threads() {
    let text = recording(5000);
    let reader = PieceReader::new(Fingerprinter::random());
    let expected = reader.clone().read(&Piece::Lines(text.clone().into()));
    for parsers in [1, 2, 3, 8] {
        for piece_bytes in [100, 1000, 1 << 20] {
            let (mut events, mut lines, mut rejected) = (Vec::<Recorded>::new(), 0, Vec::new());
            pipeline::run(text.as_bytes(), piece_bytes, parsers, &reader, |batch| {
                rejected.extend(batch.named.iter().map(|(line, _)| lines + line));
                events.extend(batch.events);
                lines += batch.lines;
            })
            .expect("nothing is cut off");
            assert_eq!(events, expected.events);
            assert_eq!(lines, 5000);
            // No more of a piece are named.
            rejected.truncate(20);
            assert!(rejected.into_iter().eq((0..20).map(|ten| ten * 10 + 8)));
        }
    }
}
