//! The typed reading of a line against a plain one: serde_json makes a list of keys and values of it,
//! and the table of docs/semantics.md ("Recorded events") is followed key by key.

use proptest::prelude::*;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::batch::{PieceReader, Recorded};
use super::pieces::Piece;
use crate::domain::{Event, Kind, Labels};
use crate::join::Fingerprinter;

const TEXT_KEYS: [&str; 6] = ["source", "request_id", "item_id", "service", "release", "group"];
const KNOWN_KEYS: [&str; 11] =
    ["kind", "ts", "source", "request_id", "item_id", "service", "release", "group", "pid", "tid", "peer"];

/// The known keys of an object with their values, in order, repetitions included. Of other values
/// only the grammar is asked.
struct Pairs(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Pairs;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    if KNOWN_KEYS.contains(&key.as_str()) {
                        pairs.push((key, map.next_value()?));
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// The event of a line as the table says; `None` when the line is rejected.
pub(super) fn plain_reading(line: &[u8]) -> Option<Event> {
    let Pairs(pairs) = serde_json::from_str(str::from_utf8(line).ok()?).ok()?;
    for (number, (key, _)) in pairs.iter().enumerate() {
        if pairs[..number].iter().any(|(earlier, _)| earlier == key) {
            return None;
        }
    }
    let value = |key: &str| {
        let found = pairs.iter().find(|(found, _)| found == key).map(|(_, value)| value);
        found.filter(|value| !value.is_null())
    };
    let kind =
        Kind::ALL.into_iter().find(|kind| value("kind").and_then(Value::as_str) == Some(kind.name()))?;
    let mut texts = Vec::new();
    for key in TEXT_KEYS {
        texts.push(match value(key) {
            None => "",
            Some(value) => value.as_str()?,
        });
    }
    let [source, request_id, item_id, service, release, group] = texts[..] else { return None };
    let number = |key| match value(key) {
        None => Some(0),
        Some(value) => value.as_u64().and_then(|number| u32::try_from(number).ok()),
    };
    Some(Event {
        kind,
        timestamp_ns: value("ts")?.as_u64()?,
        source: source.into(),
        pid: number("pid")?,
        tid: number("tid")?,
        labels: Labels { service: service.into(), release: release.into(), group: group.into() }.into(),
        request_id: if kind == Kind::Report { "" } else { request_id }.into(),
        item_id: if matches!(kind, Kind::Exposure | Kind::Click) { item_id } else { "" }.into(),
        peer: match value("peer") {
            None => None,
            Some(value) => Some(value.as_str()?.into()),
        },
    })
}

/// The events of these lines with their labels, and how many lines are rejected.
fn typed_reading(prints: &Fingerprinter, lines: &[u8]) -> (Vec<(Recorded, Labels)>, u64) {
    let batch = PieceReader::new(prints.clone()).read(&Piece::Lines(lines.to_vec()));
    let labels = |event: &Recorded| Labels::clone(&batch.labels.sets()[event.labels]);
    (
        batch.events.iter().map(|event| (Recorded { labels: 0, ..*event }, labels(event))).collect(),
        batch.rejected,
    )
}

/// The same of an event.
fn recorded(prints: &Fingerprinter, event: &Event) -> (Recorded, Labels) {
    let recorded = Recorded {
        kind: event.kind,
        timestamp_ns: event.timestamp_ns,
        source: prints.source(&event.source),
        pid: event.pid,
        request: prints.request(&event.request_id),
        item: prints.item(&event.item_id),
        labels: 0,
    };
    (recorded, Labels::clone(&event.labels))
}

/// Texts as they stand in a line, quotes included: plain, escaped in every way, and not quite right.
fn quoted() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        6 => "[a-z0-9-]{1,6}",
        2 => Just("é😀\u{7f}\u{2028}".to_owned()),
        2 => prop::sample::select(vec![
            r#"\""#, r"\\", r"\/", r"\b", r"\f", r"\n", r"\r", r"\t", r"\u0041", r"\u00e9", r"\u0000", r"\ud83d\ude00",
        ]).prop_map(str::to_owned),
        1 => prop::sample::select(vec![
            r"\ud83d", r"\ude00\ud83d", r"\u12", r"\x41", r"\", "\t", "\u{1}", r"\uD83Dx",
        ]).prop_map(str::to_owned),
    ];
    prop::collection::vec(part, 0..4).prop_map(|parts| format!("\"{}\"", parts.concat()))
}

fn numbers() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<u64>().prop_map(|number| number.to_string()),
        any::<u32>().prop_map(|number| number.to_string()),
        prop::sample::select(vec![
            "0",
            "-0",
            "00",
            "01",
            "-1",
            "1.0",
            "1.5",
            "1e3",
            "1E+2",
            "1e400",
            "0e0",
            "+1",
            ".5",
            "1.",
            "0x1",
            "NaN",
            "4294967295",
            "4294967296",
            "18446744073709551615",
            "18446744073709551616",
            "-9223372036854775809",
        ])
        .prop_map(str::to_owned),
    ]
}

fn values() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => quoted(),
        3 => numbers(),
        1 => prop::sample::select(vec![
            "null", "true", "false", "[]", "{}", "[1,[2,{\"a\":[]}]]", "{\"kind\":\"click\",\"ts\":2}", "nul", "[1,]",
        ]).prop_map(str::to_owned),
    ]
}

/// A key with a value that more often than not is of the right type.
fn members() -> impl Strategy<Value = String> {
    let kinds = prop::sample::select(vec![
        r#""request""#,
        r#""exposure""#,
        r#""click""#,
        r#""report""#,
        r#""cl\u0069ck""#,
        r#""Click""#,
        r#""""#,
    ]);
    let right = prop_oneof![
        kinds.prop_map(|value| format!("\"kind\":{value}")),
        numbers().prop_map(|value| format!("\"ts\":{value}")),
        (prop::sample::select(TEXT_KEYS.to_vec()), quoted())
            .prop_map(|(key, value)| format!("\"{key}\":{value}")),
    ];
    let any_key = prop_oneof![
        prop::sample::select(KNOWN_KEYS.to_vec()).prop_map(|key| format!("\"{key}\"")),
        prop::sample::select(vec![
            r#""k\u0069nd""#,
            r#""t\u0073""#,
            r#""color""#,
            r#""Kind""#,
            r#""""#,
            r#""p\id""#
        ])
        .prop_map(str::to_owned),
        quoted(),
    ];
    let spaces = prop::sample::select(vec!["", " ", "\t", "\r "]);
    let any_member =
        (any_key, spaces, values()).prop_map(|(key, space, value)| format!("{key}{space}:{space}{value}"));
    prop_oneof![3 => right, 2 => any_member]
}

fn lines() -> impl Strategy<Value = Vec<u8>> {
    let beginnings = prop::sample::select(vec![
        r#"{"kind":"request","ts":1700000000000000000"#,
        r#"{"ts":5,"kind":"exposure""#,
        r#" { "kind" : "click" , "ts" : 0"#,
        r#"{"kind":"report""#,
        r#"{"color":1"#,
        r#"["kind""#,
    ]);
    let whole = (
        beginnings,
        prop::collection::vec(members(), 0..6),
        prop::sample::select(vec!["}", " } ", "}\r", "", "}}"]),
    )
        .prop_map(|(beginning, members, end)| {
            let members: String = members.iter().map(|member| format!(",{member}")).collect();
            format!("{beginning}{members}{end}").into_bytes()
        });
    let wrong_byte = (any::<prop::sample::Index>(), any::<u8>());
    // Mostly whole; some with one byte put in the place of another.
    (whole, prop::option::weighted(0.3, wrong_byte)).prop_map(|(mut line, wrong)| {
        if let Some((at, byte)) = wrong {
            let at = at.index(line.len());
            line[at] = byte;
        }
        line
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn a_line_is_what_the_plain_reading_says(line in lines()) {
        let parts: Vec<&[u8]> = line.split(|byte| *byte == b'\n').collect();
        let told: Vec<_> = parts.iter().filter(|part| !part.trim_ascii().is_empty()).collect();
        let prints = Fingerprinter::random();
        let expected: Vec<_> =
            told.iter().filter_map(|part| Some(recorded(&prints, &plain_reading(part)?))).collect();
        let rejected = (told.len() - expected.len()) as u64;
        prop_assert_eq!(typed_reading(&prints, &line), (expected, rejected), "{}", String::from_utf8_lossy(&line));
    }
}

#[test]
fn nesting_without_end_is_rejected_and_not_followed() {
    let deep = format!(r#"{{"kind":"request","ts":1,"x":{}"#, "[".repeat(500_000));
    assert_eq!(typed_reading(&Fingerprinter::random(), deep.as_bytes()), (Vec::new(), 1));
}
