//! Patterns with `*`, `?`, `[...]` and `{a,b}`.

use std::fmt;

/// A pattern that a path or a command line is held against.
#[derive(Clone)]
pub struct Pattern {
    text: String,
    matcher: globset::GlobMatcher,
}

impl Pattern {
    /// A pattern for paths: `*` stays within one folder, `**` does not.
    pub(super) fn path(text: &str) -> Result<Self, String> {
        Self::new(text, true)
    }

    /// A pattern for any text: `*` stands for everything.
    pub(super) fn text(text: &str) -> Result<Self, String> {
        Self::new(text, false)
    }

    fn new(text: &str, literal_separator: bool) -> Result<Self, String> {
        let glob = globset::GlobBuilder::new(text)
            .literal_separator(literal_separator)
            .backslash_escape(true)
            .empty_alternates(true)
            .build()
            .map_err(|error| format!("not a pattern: {error}"))?;
        Ok(Self { text: text.to_owned(), matcher: glob.compile_matcher() })
    }

    /// Does the whole of `text` match?
    pub fn matches(&self, text: &str) -> bool {
        self.matcher.is_match(text)
    }

    /// The pattern's text when it stands for itself alone.
    pub fn literal(&self) -> Option<&str> {
        (!self.text.contains(['*', '?', '[', '{', '\\'])).then_some(self.text.as_str())
    }
}

impl fmt::Debug for Pattern {
    /// The same for the same pattern, which what is compiled from it is not.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
