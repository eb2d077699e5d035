//! A field of a body: of a JSON document, or of a form.
//!
//! The body may be cut anywhere. A field that stands before the cut is found; one that may come
//! after it is [`Field::Open`].

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::head::Head;

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Format {
    Json,
    Form,
}

/// What a body can be read as.
pub(super) enum Readable {
    /// As this.
    As(Format),
    /// It is compressed.
    Encoded,
    /// It is something else.
    No,
}

/// What is known of the field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field {
    Found(Vec<u8>),
    Absent,
    Open,
}

impl Format {
    /// By the headers of the message. A body without a type is taken for JSON.
    pub(super) fn of(head: &Head<'_>) -> Readable {
        let kind = head.value("Content-Type").unwrap_or(b"application/json").to_ascii_lowercase();
        let format = if kind.starts_with(b"application/x-www-form-urlencoded") {
            Self::Form
        } else if memchr::memmem::find(&kind, b"json").is_some() {
            Self::Json
        } else {
            return Readable::No;
        };
        match head.value("Content-Encoding") {
            Some(coding) if !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity") => {
                Readable::Encoded
            }
            _ => Readable::As(format),
        }
    }

    /// The field at `path` in `bytes`; `complete` says that no more comes.
    pub(super) fn find(self, bytes: &[u8], complete: bool, path: &[String]) -> Field {
        match self {
            Self::Json => in_json(bytes, complete, path),
            Self::Form => in_form(bytes, complete, path),
        }
    }
}

fn in_json(bytes: &[u8], complete: bool, path: &[String]) -> Field {
    // A number that the cut goes through would be taken for a whole one.
    let in_number = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    let trimmed = if complete { 0 } else { bytes.iter().rev().take_while(|byte| in_number(byte)).count() };
    let bytes = &bytes[..bytes.len() - trimmed];
    let mut found = None;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let read = Search { path, found: &mut found }.deserialize(&mut deserializer);
    match (found, read) {
        (Some(value), _) => Field::Found(value.into_bytes()),
        (None, Err(error)) if error.is_eof() && !complete => Field::Open,
        (None, _) => Field::Absent,
    }
}

/// Looks for the value at `path`, and at what is beside it only to get past it.
struct Search<'p, 'f> {
    path: &'p [String],
    found: &'f mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Search<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Search<'_, '_> {
    /// A value that can be an id counts where the path ends, and nowhere else.
    fn value<E>(self, value: impl ToString) -> Result<(), E> {
        if self.path.is_empty() {
            self.found.get_or_insert_with(|| value.to_string());
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Search<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            match self.path.split_first() {
                Some((first, path)) if *first == name && self.found.is_none() => {
                    map.next_value_seed(Search { path, found: &mut *self.found })?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.value(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.value(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.value(value)
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

fn in_form(bytes: &[u8], complete: bool, path: &[String]) -> Field {
    let [name] = path else { return Field::Absent };
    let mut fields = bytes.split(|byte| *byte == b'&').peekable();
    while let Some(field) = fields.next() {
        if fields.peek().is_none() && !complete {
            // The last one may go on.
            return Field::Open;
        }
        let mut parts = field.splitn(2, |byte| *byte == b'=');
        let (key, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if decoded(key) == name.as_bytes() {
            return Field::Found(decoded(value));
        }
    }
    Field::Absent
}

/// A name or value of a form, with `+` and `%XX` resolved.
fn decoded(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match (first, after) {
            (b'+', _) => decoded.push(b' '),
            (b'%', [high, low, tail @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |byte: u8| {
                    u8::try_from((byte as char).to_digit(16).unwrap_or_default()).unwrap_or_default()
                };
                decoded.push(digit(*high) << 4 | digit(*low));
                rest = tail;
            }
            (byte, _) => decoded.push(*byte),
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::{Field, Format};

    #[track_caller]
    fn check(format: Format, body: &str, path: &str, expected: Option<&str>) {
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        let expected = expected.map_or(Field::Absent, |id| Field::Found(id.into()));
        assert_eq!(format.find(body.as_bytes(), true, &path), expected, "{body}");
        // Cut anywhere it is the same, or not known yet.
        for len in 0..body.len() {
            let field = format.find(&body.as_bytes()[..len], false, &path);
            assert!(field == expected || field == Field::Open, "{len} bytes of {body}: {field:?}");
        }
    }

    #[test]
    fn a_field_of_a_json_document() {
        let json = |body, path, expected| check(Format::Json, body, path, expected);
        json(r#"{"items": [{"request_id": "no"}], "request_id": "r-1", "x": 1}"#, "request_id", Some("r-1"));
        json(r#"{"meta": {"a": 1.5, "id": "r\u002d2"}, "id": "no"}"#, "meta.id", Some("r-2"));
        json(r#"{"id": "first", "id": "second"}"#, "id", Some("first"));
        json(r#"{"id": 12345}"#, "id", Some("12345"));
        json(r#"{"id": ""}"#, "id", Some(""));
        json(r#"{"id": null, "other": {"id": "no"}}"#, "id", None);
        json(r#"{"id": {"id": "no"}}"#, "id", None);
        json(r#"{"id": 1.5}"#, "id", None);
        json(r#"["id", "no"]"#, "id", None);
        json(r#"{"meta": "no"}"#, "meta.id", None);
    }

    #[test]
    fn a_document_that_is_none_has_no_field() {
        let path = ["id".to_owned()];
        assert_eq!(Format::Json.find(b"<html>", false, &path), Field::Absent);
        assert_eq!(Format::Json.find(b"{\"id\": \"r-1", true, &path), Field::Absent);
        let deep = "[".repeat(10_000);
        assert_eq!(Format::Json.find(deep.as_bytes(), true, &path), Field::Absent);
    }

    #[test]
    fn a_field_of_a_form() {
        let form = |body, path, expected| check(Format::Form, body, path, expected);
        form("a=b&request_id=r-1&c", "request_id", Some("r-1"));
        form("request%5Fid=r%2D1+2%", "request_id", Some("r-1 2%"));
        form("request_id", "request_id", Some(""));
        form("a=b", "request_id", None);
    }
}
