//! Recordings in, counts and complaints out, without a process around them.

use clap::Parser;
use proptest::prelude::*;

use super::line_tests::plain_reading;
use super::{MAX_LINE_BYTES, ProgressDrawTarget, ReplayArgs, Span, run, write_event};
use crate::domain::{Event, Kind, Labels};
use crate::join::JoinConfig;

/// The chain of docs/semantics.md.
const CHAIN: &str = r#"{"kind":"request","ts":1700000000000000000,"source":"node-a","request_id":"r-1","pid":7,"tid":7,"service":"recommend","release":"a1b2c3","group":"control","peer":"10.0.0.9:8080"}
{"kind":"exposure","ts":1700000000000100000,"source":"node-a","request_id":"r-1","item_id":"i-9","pid":7,"tid":7,"service":"recommend"}
{"kind":"click","ts":1700000000000200000,"source":"node-b","request_id":"r-1","item_id":"i-9","pid":9,"tid":9,"service":"web"}
{"kind":"report","ts":1700000000000300000,"source":"node-b","pid":9,"tid":9,"service":"web","peer":"10.0.0.7:443"}
"#;

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    replay: ReplayArgs,
}

fn args(options: &[&str]) -> ReplayArgs {
    CommandLine::parse_from([&["replay"], options].concat()).replay
}

/// What is printed, on the output and on the error stream.
fn replay(options: &[&str], input: impl AsRef<[u8]>) -> (String, String) {
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let progress = ProgressDrawTarget::hidden();
    run(&args(options), input.as_ref(), &mut output, &mut errors, progress)
        .expect("input and output are in memory");
    (String::from_utf8(output).expect("text"), String::from_utf8(errors).expect("text"))
}

fn replay_json(options: &[&str], input: impl AsRef<[u8]>) -> serde_json::Value {
    let (output, _) = replay(&[&["-", "--output", "json"], options].concat(), input);
    serde_json::from_str(&output).expect("one object")
}

/// Each line is rejected for this reason and the lines around it are counted.
#[track_caller]
fn check_rejected(line: impl AsRef<[u8]>, reason: &str) {
    let request = br#"{"kind":"request","ts":1}"#.as_slice();
    let input = [request, line.as_ref(), request].join(&b'\n');
    let (output, errors) = replay(&["-", "--output", "json"], input);
    assert_eq!(errors, format!("stdin:2: {reason}\n"));
    assert!(output.contains(r#""rejected":1,"#), "{output}");
    assert!(output.starts_with(r#"{"events":{"request":2,"#), "{output}");
}

#[test]
fn a_whole_chain_is_printed_as_the_documented_object() {
    let (output, errors) = replay(&["-", "--output", "json", "--service-report", "web"], CHAIN);
    assert_eq!(errors, "");
    let expected = concat!(
        r#"{"events":{"request":1,"exposure":1,"click":1,"report":1},"#,
        r#""duplicate":{"request":0,"exposure":0,"click":0},"#,
        r#""late":{"request":0,"exposure":0,"click":0,"report":0},"rejected":0,"#,
        r#""edges":{"request_exposure":{"linked":1,"orphan":0,"missing_id":0,"unseen":0},"#,
        r#""exposure_click":{"linked":1,"mismatch":0,"orphan":0,"missing_id":0,"unseen":0},"#,
        r#""click_report":{"reported":1,"unreported":0},"#,
        r#""triple":{"complete":1,"broken":0,"unseen":0}},"#,
        r#""requests":{"exposed":1,"unexposed":0,"missing_id":0},"#,
        r#""broken_link_ratio":{"request_exposure":0.0,"exposure_click":0.0,"click_report":0.0,"triple":0.0}}"#,
        "\n",
    );
    assert_eq!(output, expected);
}

#[test]
fn a_whole_chain_is_printed_as_a_table() {
    let (output, _) = replay(&["-", "--reports"], CHAIN);
    let expected = "\
edge                broken ratio        linked      mismatch        orphan    missing id        unseen
request_exposure          0.000%             1             -             0             0             0
exposure_click            0.000%             1             0             0             0             0

                    broken ratio      reported    unreported
click_report              0.000%             1             0

                    broken ratio      complete        broken        unseen
triple                    0.000%             1             0             0

                         exposed     unexposed    missing id
requests                       1             0             0

                        received     duplicate          late    no outcome
request                        1             0             0             0
exposure                       1             0             0             0
click                          1             0             0             0
report                         1             -             0             -
rejected lines                 0
";
    assert_eq!(output, expected);
}

#[test]
fn a_source_whose_clock_is_behind_is_named_and_so_is_a_service_that_is_nowhere() {
    let second_ns = 1_000_000_000_u64;
    let mut lines = String::new();
    for number in 0..100 {
        let ts = 1_700_000_000 * second_ns + number * second_ns;
        for (kind, source, ts) in [("exposure", "a", ts), ("click", "b", ts - 20 * second_ns)] {
            lines += &format!(
                r#"{{"kind":"{kind}","ts":{ts},"source":"{source}","request_id":"r-{number}","item_id":"i"}}"#
            );
            lines.push('\n');
        }
    }
    let (output, errors) = replay(&["-", "--service-report", "nowhere"], &lines);
    assert!(errors.contains("stdin: source `b`: each of its 100 events"), "{errors}");
    assert!(errors.contains("100 of them were late"), "{errors}");
    assert!(errors.contains("--service-report `nowhere`: no event"), "{errors}");
    let row = output.lines().find(|line| line.starts_with("click ")).expect("there is a row of clicks");
    assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["click", "100", "0", "100", "100"], "{output}");
    let (_, errors) = replay(&["-"], CHAIN);
    assert_eq!(errors, "");
}

#[test]
fn a_file_is_read_and_one_that_is_not_there_is_named() {
    let path = std::env::temp_dir().join(format!("linktracer-replay-{}.jsonl", std::process::id()));
    std::fs::write(&path, CHAIN).expect("write a temporary file");
    let (output, _) = replay(&[&path.display().to_string()], "");
    std::fs::remove_file(&path).expect("remove the temporary file");
    assert!(output.contains("triple"), "{output}");

    let error = run(
        &args(&[&path.display().to_string()]),
        &b""[..],
        Vec::new(),
        Vec::new(),
        ProgressDrawTarget::hidden(),
    );
    let error = format!("{:#}", error.expect_err("the file is gone"));
    assert!(error.starts_with(&format!("open {}: No such file", path.display())), "{error}");
}

#[test]
fn the_defaults_are_those_of_the_join() {
    assert_eq!(args(&["-"]).join.join_config(), JoinConfig::default());
}

#[test]
fn the_options_reach_the_join() {
    let options = [
        "-",
        "--exposure-window",
        "1h",
        "--click-window",
        "2s",
        "--report-window",
        "3ms",
        "--lateness",
        "4us",
        "--skew",
        "0s",
        "--idle-timeout",
        "1m 5s",
        "--memory-limit",
        "16MiB",
        "--reports",
    ];
    let config = args(&options).join.join_config();
    assert_eq!(config.exposure_window_ns, 3_600_000_000_000);
    assert_eq!(config.click_window_ns, 2_000_000_000);
    assert_eq!(config.report_window_ns, 3_000_000);
    assert_eq!(config.lateness_ns, 4_000);
    assert_eq!(config.skew_ns, 0);
    assert_eq!(config.idle_timeout_ns, 65_000_000_000);
    assert_eq!(config.memory_limit_bytes, 16 << 20);
    assert_eq!(config.reports, crate::join::Reports::All);
}

#[test]
fn a_duration_has_units_and_is_never_too_long() {
    assert!("10".parse::<Span>().is_err());
    assert_eq!("5000years".parse::<Span>().map(|span| span.0), Ok(u64::MAX));
}

#[test]
fn the_coverage_start_leaves_unseen_what_reaches_back_beyond_it() {
    let exposure = r#"{"kind":"exposure","ts":1700000000000000000,"request_id":"r","item_id":"i"}"#;
    let click = exposure.replace("exposure", "click").replace("\"i\"", "\"other\"");
    let events = format!("{exposure}\n{click}\n");
    let counts = replay_json(&[], &events);
    assert_eq!(counts["edges"]["request_exposure"]["orphan"], 1);
    assert_eq!(counts["edges"]["exposure_click"]["mismatch"], 1);
    let counts = replay_json(&["--coverage-start", "1700000000000000000"], &events);
    assert_eq!(counts["edges"]["request_exposure"]["unseen"], 1);
    assert_eq!(counts["edges"]["exposure_click"]["unseen"], 1);
    assert_eq!(counts["edges"]["triple"]["unseen"], 1);
}

#[test]
fn an_id_that_is_absent_empty_or_null_is_missing() {
    let lines = r#"{"kind":"request","ts":1}
{"kind":"exposure","ts":2,"request_id":"","item_id":"i"}
{"kind":"click","ts":3,"request_id":"r","item_id":null}
"#;
    let counts = replay_json(&[], lines);
    assert_eq!(counts["requests"]["missing_id"], 1);
    assert_eq!(counts["edges"]["request_exposure"]["missing_id"], 1);
    assert_eq!(counts["edges"]["exposure_click"]["missing_id"], 1);
    assert_eq!(counts["rejected"], 0);
}

#[test]
fn blank_lines_unknown_keys_and_a_missing_last_newline_are_fine() {
    let lines = "\n  \t\r\n{\"kind\":\"request\",\"ts\":1,\"color\":{\"deep\":[1]},\"source\":null}\r\n\n{\"ts\":2,\"kind\":\"report\"}";
    let (output, errors) = replay(&["-", "--output", "json"], lines);
    assert_eq!(errors, "");
    assert!(output.starts_with(r#"{"events":{"request":1,"exposure":0,"click":0,"report":1}"#), "{output}");
}

#[test]
fn a_line_that_is_no_event_is_rejected_with_its_reason() {
    check_rejected("{\"kind\":", "EOF while parsing a value, column 8");
    check_rejected("hello", "expected value, column 1");
    check_rejected("[\"request\",1]", "not a JSON object");
    check_rejected("{} {}", "missing field `kind`, column 2");
    check_rejected(r#"{"ts":1}"#, "missing field `kind`, column 8");
    check_rejected(r#"{"kind":"request"}"#, "missing field `ts`, column 18");
    check_rejected(
        r#"{"kind":"impression","ts":1}"#,
        "unknown kind \"impression\", expected request, exposure, click or report",
    );
    check_rejected(r#"{"kind":"request","ts":-1}"#, "invalid value: integer `-1`, expected u64, column 25");
    check_rejected(
        r#"{"kind":"request","ts":1.5}"#,
        "invalid type: floating point `1.5`, expected u64, column 26",
    );
    check_rejected(
        r#"{"kind":"request","ts":18446744073709551616}"#,
        "invalid type: floating point `1.8446744073709552e+19`, expected u64, column 43",
    );
    check_rejected(
        r#"{"kind":"request","ts":1,"request_id":5}"#,
        "invalid type: integer `5`, expected a string, column 39",
    );
    check_rejected(
        r#"{"kind":"request","ts":1,"pid":4294967296}"#,
        "invalid value: integer `4294967296`, expected u32, column 41",
    );
    check_rejected(r#"{"kind":"request","ts":1,"ts":2}"#, "duplicate field `ts`, column 29");
    check_rejected(b"{\"kind\":\"request\",\"ts\":1,\"peer\":\"\xff\"}", "not UTF-8, column 34");
    check_rejected(b"{\"kind\":\"request\",\"ts\":1,\"unknown\":\"\xff\"}", "not UTF-8, column 37");
}

#[test]
fn a_line_beyond_the_bound_is_rejected_and_the_next_one_is_read() {
    let padding = "x".repeat(MAX_LINE_BYTES - r#"{"kind":"request","ts":1,"pad":""}"#.len());
    let longest = format!(r#"{{"kind":"request","ts":1,"pad":"{padding}"}}"#);
    assert_eq!(longest.len(), MAX_LINE_BYTES);
    let (_, errors) = replay(&["-"], &longest);
    assert_eq!(errors, "");
    check_rejected(format!("{longest} "), "line is longer than 1048576 bytes");
    check_rejected("y".repeat(3 * MAX_LINE_BYTES + 1), "line is longer than 1048576 bytes");
}

#[test]
fn only_the_first_rejected_lines_are_named() {
    let (output, errors) = replay(&["-"], "nonsense\n".repeat(25));
    assert_eq!(errors.lines().count(), 21);
    assert!(
        errors.ends_with("stdin:20: expected ident, column 2\nstdin: 5 more lines were rejected\n"),
        "{errors}"
    );
    assert!(output.contains("rejected lines                25"), "{output}");
    let (_, errors) = replay(&["-"], "nonsense\n".repeat(20));
    assert_eq!(errors.lines().count(), 20);
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Request), Just(Kind::Exposure), Just(Kind::Click), Just(Kind::Report)]
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), ".{0,8}", "[\"\\\\\n\r\u{0}\u{7f}é😀]{0,6}"]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_event_written_and_read_is_the_same_event(
        kind in kinds(),
        timestamp_ns in any::<u64>(),
        (pid, tid) in any::<(u32, u32)>(),
        [source, service, release, group, request_id, item_id] in prop::array::uniform6(texts()),
        peer in prop::option::of(texts()),
    ) {
        let event = Event {
            kind,
            timestamp_ns,
            source: source.into(),
            pid,
            tid,
            labels: Labels { service: service.into(), release: release.into(), group: group.into() }.into(),
            request_id: if kind == Kind::Report { "".into() } else { request_id.into() },
            item_id: if matches!(kind, Kind::Exposure | Kind::Click) { item_id.into() } else { "".into() },
            peer: peer.map(Into::into),
        };
        let mut line = Vec::new();
        write_event(&event, &mut line)?;
        prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        // The typed reading is held against the plain one in line_tests.
        prop_assert_eq!(plain_reading(&line), Some(event));
    }

    /// Whatever is in a file, it is counted or rejected and the run goes on.
    #[test]
    fn no_line_ends_the_run(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        replay(&["-"], bytes);
    }
}
