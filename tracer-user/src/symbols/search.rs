//! Functions of one file by name: those of Go from their table, all others from the symbol tables.

use std::path::Path;

use super::{
    Function, SymbolError,
    describe::is_of_a_team,
    go::{GoFunction, GoProgram, GoRefusal, Inlined},
    image::{Image, Symbol},
    pattern::Pattern,
    site::{self, Site, SiteReason, SiteRefusal},
};
use crate::{config::Abi, suggest::nearest};

/// Names that a misspelt one is compared with, at most, and how long they may be.
const MAX_COMPARED: usize = 20_000;
const MAX_COMPARED_LEN: usize = 160;

/// One file.
pub(super) struct Search<'a> {
    path: &'a Path,
    image: &'a Image<'a>,
    go: Result<Option<GoProgram<'a>>, GoRefusal>,
}

/// A function that matched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'a> {
    pub(super) name: &'a str,
    pub(super) address: u64,
    pub(super) len: u64,
    go: Option<GoFunction<'a>>,
}

impl<'a> Search<'a> {
    pub(super) fn new(path: &'a Path, image: &'a Image<'a>) -> Self {
        Self { path, image, go: GoProgram::read(image) }
    }

    pub(super) const fn go(&self) -> Result<Option<&GoProgram<'a>>, &GoRefusal> {
        match &self.go {
            Ok(Some(program)) => Ok(Some(program)),
            Ok(None) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// The functions that `pattern` means, at most `limit`.
    pub(super) fn matching(&self, pattern: Pattern<'_>, limit: usize) -> Result<Vec<Found<'a>>, SymbolError> {
        let meant = || self.go_functions().filter(|found| pattern.matches(found.name));
        let mut found: Vec<Found<'a>> = meant().filter(|found| !found.is_generated()).take(limit).collect();
        if found.is_empty() {
            found = meant().take(limit).collect();
        }
        let others = self.other_functions().filter(|found| pattern.is_spelt(found.name));
        found.extend(others.take(limit));
        found.sort_by(|left, right| (left.address, left.name).cmp(&(right.address, right.name)));
        found.dedup_by(|left, right| (left.address, left.name) == (right.address, right.name));
        let uncertain =
            self.go.is_err() && (found.is_empty() || found.iter().any(|found| looks_like_go(found.name)));
        if uncertain && let Err(refusal) = &self.go {
            return Err(SymbolError::Go { path: self.path.to_path_buf(), refusal: refusal.clone() });
        }
        found.truncate(limit);
        Ok(found)
    }

    pub(super) fn go_functions(&self) -> impl Iterator<Item = Found<'a>> + '_ {
        self.go.as_ref().ok().and_then(Option::as_ref).into_iter().flat_map(|program| {
            program.functions().map(|function| Found {
                name: function.name,
                address: function.address,
                len: function.len,
                go: Some(function),
            })
        })
    }

    /// Functions of the symbol tables that are not Go's.
    pub(super) fn other_functions(&self) -> impl Iterator<Item = Found<'a>> + '_ {
        let program = self.go.as_ref().ok().and_then(Option::as_ref);
        // The mark of the end of Go's code stands where another function may start.
        let is_go = move |symbol: &Symbol<'_>| {
            program.is_some_and(|program| program.holds(symbol.address)) || symbol.name == "runtime.etext"
        };
        self.image.symbols().filter(move |symbol| !is_go(symbol)).map(|Symbol { name, address, len }| Found {
            name,
            address,
            len,
            go: None,
        })
    }

    pub(super) fn inlined(&self, names: &[&str]) -> Option<Vec<Inlined>> {
        self.go.as_ref().ok()?.as_ref()?.inlined(names)
    }

    /// Where the probe of `found` goes.
    pub(super) fn site(&self, found: &Found<'a>) -> Result<Site, SiteRefusal> {
        let (address, reason) = match (&self.go, &found.go) {
            (Ok(Some(program)), Some(function)) => {
                let is_morestack = |address| program.is_morestack(address);
                let code = program.code(function);
                site::choose(self.image.machine(), code, function.address, &is_morestack)?
            }
            _ => (found.address, SiteReason::FunctionStart),
        };
        let file_offset = self.image.code_offset(address).ok_or(SiteRefusal::NoCode)?;
        Ok(Site { address, file_offset, reason })
    }

    pub(super) fn with_site(
        &self,
        found: &Found<'a>,
        inlined: Option<Inlined>,
    ) -> Result<Function, SymbolError> {
        let (path, symbol, address) = (self.path.to_path_buf(), found.name.to_owned(), found.address);
        if self.image.code_offset(address).is_none() {
            return Err(SymbolError::NotInFile { path, symbol, address });
        }
        match self.site(found) {
            Err(refusal) => Err(SymbolError::NoSite { path, symbol, address, refusal }),
            Ok(site) => Ok(Function {
                name: symbol,
                address,
                len: found.len,
                abi: found.abi(),
                site,
                inlined: inlined.filter(|_| found.go.is_some()),
            }),
        }
    }

    pub(super) fn instruction(&self, address: u64) -> String {
        let bytes = self.image.from(address).unwrap_or_default();
        site::instruction(self.image.machine(), &bytes[..bytes.len().min(15)], address)
    }

    pub(super) fn not_found(&self, pattern: &str) -> SymbolError {
        let inlined = self.inlined(&[pattern]).and_then(|mut inlined| inlined.pop());
        SymbolError::NotFound {
            path: self.path.to_path_buf(),
            symbol: pattern.to_owned(),
            nearest: self.similar(pattern),
            inlined: inlined.unwrap_or_default(),
        }
    }

    /// Names that may have been meant: those that end in the text, else those that look like it.
    fn similar(&self, pattern: &str) -> Vec<String> {
        const COUNT: usize = 3;
        let text = pattern.trim_matches('*');
        let short = text.get(..MAX_COMPARED_LEN).unwrap_or(text);
        let names = || {
            let all = self.go_functions().chain(self.other_functions()).map(|found| found.name);
            all.filter(|name| name.len() <= MAX_COMPARED_LEN)
        };
        let tails = |name: &&str| {
            let before = name.strip_suffix(text).and_then(|before| before.chars().next_back());
            !text.is_empty() && matches!(before, Some('.' | '/' | ')'))
        };
        let mut similar: Vec<&str> = names().filter(tails).take(COUNT).collect();
        if similar.is_empty() && short.len() <= MAX_COMPARED_LEN {
            // A team's own functions first: the standard library alone may use up what is compared.
            // Names that are much longer are none that was misspelt, and would use it up as well.
            let candidates = || names().filter(|name| name.len() <= 3 * short.len() + 8);
            let own = candidates().filter(|name| is_of_a_team(name));
            let all = own.chain(candidates().filter(|name| !is_of_a_team(name)));
            similar = nearest(short, all.take(MAX_COMPARED), COUNT);
        }
        similar.into_iter().map(str::to_owned).collect()
    }
}

impl Found<'_> {
    pub(super) const fn is_generated(&self) -> bool {
        matches!(self.go, Some(GoFunction { generated: true, .. }))
    }

    fn abi(&self) -> Abi {
        if self.go.is_some() { Abi::Go } else { abi_of_name(self.name) }
    }
}

/// What a symbol's mangling says of its language: Rust's own (`_R...`) and its older one, which is
/// C++'s with a hash of 16 digits at the end, and C++'s (`_Z...`).
fn abi_of_name(name: &str) -> Abi {
    let old_rust = |rest: &str| {
        let hash = rest.strip_suffix('E').and_then(|rest| rest.rsplit_once("17h"));
        hash.is_some_and(|(_, hash)| hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    match name.strip_prefix("_Z") {
        Some(rest) if rest.starts_with('N') && old_rust(rest) => Abi::Rust,
        Some(_) => Abi::Cpp,
        None if name.starts_with("_R") => Abi::Rust,
        None => Abi::C,
    }
}

/// Go's names have a package and a dot; of C's and C++'s, compilers give a dot to parts only.
fn looks_like_go(name: &str) -> bool {
    name.contains('.') && !name.starts_with('_')
}

#[cfg(test)]
mod tests {
    use super::abi_of_name;
    use crate::config::Abi;

    #[test]
    fn mangled_names_tell_the_language() {
        assert_eq!(abi_of_name("trackClick"), Abi::C);
        assert_eq!(abi_of_name("_ZN3rec10trackClickERKNSt7__cxx1112basic_stringE"), Abi::Cpp);
        assert_eq!(abi_of_name("_ZN3rec11track_click17h0123456789abcdefE"), Abi::Rust);
        assert_eq!(abi_of_name("_RNvCs4fqI2P2rA04_3rec11track_click"), Abi::Rust);
    }
}
