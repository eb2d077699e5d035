//! Function names as people write them: exact, or with `*` for any text.

/// Other spellings of a longer name are not tried.
const MAX_RESPELT_LEN: usize = 512;

/// A name to look for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pattern<'p>(&'p str);

impl<'p> Pattern<'p> {
    pub(super) const fn new(text: &'p str) -> Self {
        Self(text)
    }

    /// Is `name` meant? A vendored package goes by its own import path too, and so does one whose
    /// path the linker has escaped (`gopkg.in/yaml%2ev3` for `gopkg.in/yaml.v3`). The types of a
    /// generic function may be left out as `[...]`, which is all that some releases of Go keep.
    pub(super) fn matches(self, name: &str) -> bool {
        let meant =
            |name: &str| self.is_spelt(name) || without_vendor(name).is_some_and(|name| self.is_spelt(name));
        meant(name) || (name.len() <= MAX_RESPELT_LEN && Self::matches_respelt(name, meant))
    }

    fn matches_respelt(name: &str, meant: impl Fn(&str) -> bool) -> bool {
        unescaped(name).is_some_and(|name| meant(&name))
            || without_types(name).is_some_and(|name| meant(&name))
    }

    /// Is this the very text that is meant, without any other spelling?
    pub(super) fn is_spelt(self, text: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else { return self.0 == text };
        let Some(mut text) = text.strip_prefix(first) else { return false };
        let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        for part in middle.split('*') {
            let Some(at) = text.find(part) else { return false };
            text = &text[at + part.len()..];
        }
        text.ends_with(last)
    }
}

fn without_vendor(name: &str) -> Option<&str> {
    let path = &name[..name.find('(').unwrap_or(name.len())];
    match path.rfind("/vendor/") {
        Some(at) => Some(&name[at + "/vendor/".len()..]),
        None => name.strip_prefix("vendor/"),
    }
}

fn unescaped(name: &str) -> Option<String> {
    let mut parts = name.split('%');
    let mut text = String::from(parts.next()?);
    for part in parts {
        let code = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok())?;
        text.push(char::from(code));
        text.push_str(&part[2..]);
    }
    (text.len() != name.len()).then_some(text)
}

fn without_types(name: &str) -> Option<String> {
    let (before, rest) = name.split_once('[')?;
    let (_, after) = rest.rsplit_once(']')?;
    Some(format!("{before}[...]{after}"))
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[track_caller]
    fn check(pattern: &str, name: &str, expected: bool) {
        assert_eq!(Pattern::new(pattern).matches(name), expected, "{pattern} {name}");
    }

    #[test]
    fn an_exact_name_is_that_name_and_its_vendored_copies() {
        check("example.com/sdk.Track", "example.com/sdk.Track", true);
        check("example.com/sdk.Track", "example.com/sdk.TrackAll", false);
        check("example.com/sdk.Track", "example.com/app/vendor/example.com/sdk.Track", true);
        check("golang.org/x/net.Dial", "vendor/golang.org/x/net.Dial", true);
        check("example.com/sdk.(*T).Track", "a/vendor/example.com/sdk.(*T).Track", true);
        check("sdk.Track", "example.com/sdk.Track", false);
    }

    #[test]
    fn a_star_stands_for_any_text() {
        check("*.TrackExposure", "example.com/sdk.TrackExposure", true);
        check("*.(*Client).Track*", "a/b.(*Client).TrackClick", true);
        check("a*b*c", "a-b-b-c", true);
        check("a*b*c", "a-c-b", false);
        check("ab*ba", "aba", false);
        check("*", "anything", true);
        check("a**b", "ab", true);
    }

    #[test]
    fn the_types_of_a_generic_function_may_be_left_out() {
        check("a/b.Get[...]", "a/b.Get[go.shape.string]", true);
        check("a/b.Get[...]", "a/b.Get[...]", true);
        check("a/b.(*T[...]).Get", "a/b.(*T[go.shape.[]int]).Get", true);
        check("a/b.Get", "a/b.Get[go.shape.string]", false);
    }

    #[test]
    fn a_dot_that_the_linker_escaped_is_a_dot() {
        check("gopkg.in/yaml.v3.Unmarshal", "gopkg.in/yaml%2ev3.Unmarshal", true);
        check("gopkg.in/yaml.v3.Unmarshal", "gopkg.in/yaml%2", false);
        check("a%zz", "a%zz", true);
        check("é", "%é", false);
    }
}
