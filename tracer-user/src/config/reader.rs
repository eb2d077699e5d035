//! A YAML document as a tree that knows its places, and the list of what is wrong with it.
//!
//! Reading goes on after a problem with a value of no meaning, so that one run reports all of them;
//! [`read`] hands out the result only when there was none.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};

use crate::suggest::nearest;

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// Path of the key, such as `services[0].click.symbol`; empty for the whole document.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Why a configuration was refused.
#[derive(Debug)]
pub enum ConfigError {
    /// The file cannot be read.
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The content is wrong.
    Invalid {
        /// Which file.
        path: PathBuf,
        /// Everything that is wrong with it, in the order of the file.
        problems: Vec<Problem>,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, error } => write!(
                f,
                "cannot read the configuration {}: {error}\n  remedy: give an existing file with --config; \
                 deploy/linktracer.yaml explains every key",
                path.display()
            ),
            Self::Invalid { path, problems } => {
                let count = problems.len();
                write!(
                    f,
                    "{}: {count} problem{} in the configuration",
                    path.display(),
                    if count == 1 { "" } else { "s" }
                )?;
                for Problem { line, column, key, message } in problems {
                    let colon = if key.is_empty() { "" } else { ": " };
                    write!(f, "\n  {}:{line}:{column}: {key}{colon}{message}", path.display())?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for ConfigError {}

/// Parses `text` and hands its root to `build`; what `build` returns counts only when nothing was wrong.
pub(super) fn read<T>(
    text: &str,
    path: &Path,
    build: impl FnOnce(&mut Reader, Node<'_, '_>) -> T,
) -> Result<T, ConfigError> {
    let invalid = |problems| ConfigError::Invalid { path: path.to_path_buf(), problems };
    let documents = MarkedYaml::load_from_str(text).map_err(|error| {
        invalid(vec![Problem {
            line: error.marker().line(),
            column: error.marker().col() + 1,
            key: String::new(),
            message: format!("not YAML: {}", error.info()),
        }])
    })?;
    let [root] = documents.as_slice() else {
        let message = match documents.len() {
            0 => "the file is empty; at least `services` is needed".to_owned(),
            count => format!("{count} documents in one file; put everything into one"),
        };
        return Err(invalid(vec![Problem { line: 1, column: 1, key: String::new(), message }]));
    };
    let mut reader = Reader::default();
    let built = build(&mut reader, Node { yaml: root, key: String::new() });
    if reader.problems.is_empty() {
        Ok(built)
    } else {
        reader.problems.sort_by_key(|problem| (problem.line, problem.column));
        Err(invalid(reader.problems))
    }
}

/// Collects what is wrong.
#[derive(Default)]
pub(super) struct Reader {
    problems: Vec<Problem>,
}

/// A value of the document, with its path.
#[derive(Clone)]
pub(super) struct Node<'a, 'input> {
    yaml: &'a MarkedYaml<'input>,
    key: String,
}

impl Node<'_, '_> {
    /// The path of the value within the document.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Where the value stands, as `line:column`.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.yaml.span.start.line(), self.yaml.span.start.col() + 1)
    }

    /// What kind of value this is, for messages.
    fn describe(&self) -> String {
        match &self.yaml.data {
            YamlData::Mapping(_) => "a map".to_owned(),
            YamlData::Sequence(_) => "a list".to_owned(),
            YamlData::Value(Scalar::Null) => "nothing".to_owned(),
            YamlData::Value(Scalar::Boolean(value)) => format!("the boolean {value}"),
            YamlData::Value(Scalar::Integer(value)) => format!("the number {value}"),
            YamlData::Value(Scalar::FloatingPoint(value)) => format!("the number {value}"),
            YamlData::Value(Scalar::String(value)) => format!("the text \"{value}\""),
            _ => "something else".to_owned(),
        }
    }
}

impl Reader {
    /// Notes that the value at `node` is wrong.
    pub(super) fn problem(&mut self, node: &Node<'_, '_>, message: impl Into<String>) {
        let start = node.yaml.span.start;
        self.problems.push(Problem {
            line: start.line(),
            column: start.col() + 1,
            key: node.key.clone(),
            message: message.into(),
        });
    }

    /// Notes that the value is of the wrong type.
    fn wrong_type<T>(&mut self, node: &Node<'_, '_>, expected: &str) -> Option<T> {
        let found = node.describe();
        self.problem(node, format!("expected {expected}, found {found}"));
        None
    }

    /// The fields of a map, whose keys all have to be among `known`.
    pub(super) fn map<'a, 'input>(&mut self, node: &Node<'a, 'input>, known: &[&str]) -> Fields<'a, 'input> {
        let mut entries = Vec::new();
        let YamlData::Mapping(mapping) = &node.yaml.data else {
            self.wrong_type::<()>(node, &format!("a map with the keys {}", list(known)));
            return Fields { of: node.clone(), entries, usable: false };
        };
        for (key, value) in mapping {
            let path = |name: &str| match node.key.as_str() {
                "" => name.to_owned(),
                outer => format!("{outer}.{name}"),
            };
            let YamlData::Value(Scalar::String(name)) = &key.data else {
                let at = Node { yaml: key, key: node.key.clone() };
                self.wrong_type::<()>(&at, "the name of a key");
                continue;
            };
            if known.contains(&name.as_ref()) {
                entries.push((name.to_string(), Node { yaml: value, key: path(name) }));
            } else {
                let hint = match nearest(name, known.iter().copied(), 1).first() {
                    Some(near) => format!("; did you mean `{near}`?"),
                    None => format!("; known keys here: {}", list(known)),
                };
                self.problem(&Node { yaml: key, key: path(name) }, format!("unknown key{hint}"));
            }
        }
        Fields { of: node.clone(), entries, usable: true }
    }

    /// The keys of a map that may be anything, with their values.
    pub(super) fn pairs<'a, 'input>(&mut self, node: &Node<'a, 'input>) -> Vec<(String, Node<'a, 'input>)> {
        let YamlData::Mapping(mapping) = &node.yaml.data else {
            self.wrong_type::<()>(node, "a map");
            return Vec::new();
        };
        let mut pairs = Vec::new();
        for (key, yaml) in mapping {
            match &key.data {
                YamlData::Value(Scalar::String(name)) if !name.is_empty() => {
                    let value = Node { yaml, key: format!("{}.{name}", node.key) };
                    pairs.push((name.to_string(), value));
                }
                _ => {
                    let at = Node { yaml: key, key: node.key.clone() };
                    self.wrong_type::<()>(&at, "a name");
                }
            }
        }
        pairs
    }

    /// The elements of a list.
    pub(super) fn list<'a, 'input>(&mut self, node: &Node<'a, 'input>) -> Vec<Node<'a, 'input>> {
        let YamlData::Sequence(elements) = &node.yaml.data else {
            self.wrong_type::<()>(node, "a list");
            return Vec::new();
        };
        let numbered = elements.iter().enumerate();
        numbered.map(|(index, yaml)| Node { yaml, key: format!("{}[{index}]", node.key) }).collect()
    }

    /// A whole number from 1 on.
    pub(super) fn count(&mut self, node: &Node<'_, '_>) -> Option<u64> {
        match &node.yaml.data {
            YamlData::Value(Scalar::Integer(value)) if *value > 0 => Some(value.unsigned_abs()),
            _ => self.wrong_type(node, "a whole number from 1 on"),
        }
    }

    /// A whole number from 0 to `most`.
    pub(super) fn at_most(&mut self, node: &Node<'_, '_>, most: u32) -> Option<u32> {
        if let YamlData::Value(Scalar::Integer(value)) = &node.yaml.data
            && let Ok(value) = u32::try_from(*value)
            && value <= most
        {
            return Some(value);
        }
        self.problem(node, format!("not a whole number from 0 to {most}"));
        None
    }

    /// A text that is not empty, with `${NAME}` replaced by the environment's variable.
    pub(super) fn text(&mut self, node: &Node<'_, '_>) -> Option<String> {
        let YamlData::Value(Scalar::String(text)) = &node.yaml.data else {
            return self.wrong_type(node, "a text");
        };
        let mut expanded = String::with_capacity(text.len());
        let mut rest: &str = text;
        while let Some((before, after)) = rest.split_once("${") {
            let Some((name, tail)) = after.split_once('}') else {
                self.problem(node, "`${` without its `}`");
                return None;
            };
            let Ok(value) = std::env::var(name) else {
                self.problem(
                    node,
                    format!("the environment has no variable {name}; set it or write the value"),
                );
                return None;
            };
            expanded.push_str(before);
            expanded.push_str(&value);
            rest = tail;
        }
        expanded.push_str(rest);
        if expanded.is_empty() {
            self.problem(node, "must not be empty");
            return None;
        }
        Some(expanded)
    }

    /// Yes or no.
    pub(super) fn flag(&mut self, node: &Node<'_, '_>) -> Option<bool> {
        let YamlData::Value(Scalar::Boolean(flag)) = &node.yaml.data else {
            return self.wrong_type(node, "`true` or `false`");
        };
        Some(*flag)
    }

    /// Yes, no, or `auto`, which is neither.
    pub(super) fn flag_or_auto(&mut self, node: &Node<'_, '_>) -> Option<bool> {
        match &node.yaml.data {
            YamlData::Value(Scalar::Boolean(flag)) => Some(*flag),
            YamlData::Value(Scalar::String(text)) if text == "auto" => None,
            _ => self.wrong_type(node, "`auto`, `true` or `false`"),
        }
    }

    /// A text that `parse` understands; its error says what would be right.
    pub(super) fn parsed<T>(
        &mut self,
        node: &Node<'_, '_>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(node)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(message) => {
                self.problem(node, message);
                None
            }
        }
    }
}

/// The fields of one map.
pub(super) struct Fields<'a, 'input> {
    of: Node<'a, 'input>,
    entries: Vec<(String, Node<'a, 'input>)>,
    usable: bool,
}

impl<'a, 'input> Fields<'a, 'input> {
    /// The value of a key that may be absent.
    pub(super) fn optional(&self, name: &str) -> Option<Node<'a, 'input>> {
        self.entries.iter().find(|(key, _)| key == name).map(|(_, node)| node.clone())
    }

    /// The value of a key that has to be there.
    pub(super) fn required(&self, reader: &mut Reader, name: &str) -> Option<Node<'a, 'input>> {
        let found = self.optional(name);
        if found.is_none() && self.usable {
            reader.problem(&self.of, format!("the key `{name}` is missing"));
        }
        found
    }
}

/// `a, b, c`, each in backquotes.
fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
