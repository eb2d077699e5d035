//! Patterns with `*`, `?`, `[...]` and `{a,b}`.

use std::fmt;

/// A pattern that a path or a command line is held against.
#[derive(Clone)]
pub struct Pattern {
    text: String,
    matcher: globset::GlobMatcher,
}

/// Patterns of one text for two kinds of things are two patterns.
impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.matcher.glob() == other.matcher.glob()
    }
}

impl Pattern {
    /// A pattern for paths: `*` stays within one folder, `**` does not.
    pub(crate) fn path(text: &str) -> Result<Self, String> {
        Self::new(text, true)
    }

    /// A pattern for any text: `*` stands for everything.
    pub(crate) fn text(text: &str) -> Result<Self, String> {
        Self::new(text, false)
    }

    /// The folder that everything it matches lies in or below; `None` when it may lie anywhere.
    pub fn literal_folder(&self) -> Option<&str> {
        let literal = self.text.find(['*', '?', '[', '{', '\\']).map_or(&*self.text, |at| &self.text[..at]);
        let folder = &literal[..literal.rfind('/')?];
        match folder {
            "" if self.literal().is_some() => Some("/"),
            "" => None,
            folder => Some(folder),
        }
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

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn a_pattern_lies_in_the_folder_before_its_first_star() {
        let folder = |text: &str| Pattern::path(text).expect("valid").literal_folder().map(str::to_owned);
        assert_eq!(folder("/usr/bin/recommend*").as_deref(), Some("/usr/bin"));
        assert_eq!(folder("/opt/*/bin/x").as_deref(), Some("/opt"));
        assert_eq!(folder("/usr/bin/x").as_deref(), Some("/usr/bin"));
        assert_eq!(folder("/x").as_deref(), Some("/"));
        assert_eq!((folder("**/recommend"), folder("/*/x"), folder("/**/x")), (None, None, None));
    }
}
