//! From a function's name to the place in the file where a probe goes.
//!
//! Reads ELF files only, and trusts none of their bytes. Functions of Go programs come from the
//! table that their runtime needs, which stripping leaves; all others from the symbol tables. A
//! place that is not certain is refused with the reason: never guessed. What is attached where is
//! not decided here.
//!
//! Start reading at [`find`]. A name may hold `*` for any text. A generic Go function is called
//! `package.Name[...]`, and its first argument is a hidden pointer to its types.

mod describe;
pub mod go;
mod image;
mod pattern;
mod runpath;
mod search;
mod site;
mod usdt;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use memmap2::Mmap;

pub use self::{
    describe::{DescribeError, describe, describe_in},
    image::ElfProblem,
    runpath::library_folders,
    site::{Site, SiteReason, SiteRefusal},
    usdt::{UsdtSite, find_usdt, find_usdt_in},
};
use self::{
    go::{GoRefusal, Inlined},
    image::Image,
    pattern::Pattern,
    search::Search,
};
use crate::config::Abi;

/// More functions than this are no list of probes, and each costs the traced service.
const MAX_FOUND: usize = 64;

/// Why a function has no place for a probe.
#[derive(Debug, thiserror::Error)]
pub enum SymbolError {
    /// The file cannot be read.
    #[error("cannot read {path}: {error}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is no ELF file of this machine's kind.
    #[error("{path} is not an executable or a library that can be read: {problem}")]
    NotElf {
        /// Which file.
        path: PathBuf,
        /// Why.
        problem: ElfProblem,
    },
    /// No function of that name.
    #[error("{path} has no function `{symbol}`{}", instead(nearest, inlined))]
    NotFound {
        /// Which file.
        path: PathBuf,
        /// What was looked for.
        symbol: String,
        /// Functions of similar names, the most similar first.
        nearest: Vec<String>,
        /// Where it was copied into its callers, when nothing else is left of it.
        inlined: Inlined,
    },
    /// The function is not in any part of the file that is loaded as code.
    #[error(
        "{path}: the function `{symbol}` at address {address:#x} is in no executable segment of the file"
    )]
    NotInFile {
        /// Which file.
        path: PathBuf,
        /// Which function.
        symbol: String,
        /// Where the file puts it.
        address: u64,
    },
    /// A Go program whose functions cannot be told with certainty.
    #[error("{path}: {refusal}")]
    Go {
        /// Which file.
        path: PathBuf,
        /// Why.
        refusal: GoRefusal,
    },
    /// A function in which no place counts every call exactly once.
    #[error("{path}: the function `{symbol}` at address {address:#x} has no place for a probe: {refusal}")]
    NoSite {
        /// Which file.
        path: PathBuf,
        /// Which function.
        symbol: String,
        /// Where it is.
        address: u64,
        /// Why.
        refusal: SiteRefusal,
    },
    /// The pattern stands for too many.
    #[error("{path} has more than {MAX_FOUND} functions like `{pattern}`; write more of the name")]
    TooMany {
        /// Which file.
        path: PathBuf,
        /// What was looked for.
        pattern: String,
    },
    /// No USDT probe of that name.
    #[error("{path} has no USDT probe `{probe}`{}", known(nearest))]
    UsdtNotFound {
        /// Which file.
        path: PathBuf,
        /// What was looked for.
        probe: String,
        /// Probes of similar names, or any.
        nearest: Vec<String>,
    },
    /// A USDT probe in too many places.
    #[error("{path} has more than {limit} places of USDT probes like `{probe}`; write more of the name")]
    TooManyUsdt {
        /// Which file.
        path: PathBuf,
        /// What was looked for.
        probe: String,
        /// How many would be taken.
        limit: usize,
    },
    /// A USDT probe whose ids cannot be read.
    #[error("{path}: the USDT probe `{probe}` at {address:#x} cannot be used: {problem}")]
    Usdt {
        /// Which file.
        path: PathBuf,
        /// Which probe.
        probe: String,
        /// Which of its places.
        address: u64,
        /// Why.
        problem: String,
    },
}

impl SymbolError {
    pub(in crate::symbols) fn not_elf(path: &Path, problem: ElfProblem) -> Self {
        Self::NotElf { path: path.to_path_buf(), problem }
    }
}

fn known(nearest: &[String]) -> String {
    match nearest {
        [] => "; it has no USDT probes".to_owned(),
        names => format!("; it has, for example, {}", names.join(", ")),
    }
}

fn instead(nearest: &[String], inlined: &Inlined) -> String {
    if inlined.count > 0 {
        return format!(
            " of its own: the compiler copied it into {} others ({}). Trace what it calls, or mark it `//go:noinline`",
            inlined.count,
            inlined.into.join(", ")
        );
    }
    match nearest {
        [] => "; it has none of a similar name either".to_owned(),
        names => format!("; similar names there: {}", names.join(", ")),
    }
}

/// A function found in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its name as the file spells it.
    pub name: String,
    /// Its address in the file's own address space.
    pub address: u64,
    /// Its length in bytes; 0 where the file does not say. For Go with the padding after it.
    pub len: u64,
    /// How it takes its arguments, as far as the file tells.
    pub abi: Abi,
    /// Where its probe goes.
    pub site: Site,
    /// Functions that hold a copy of it, whose calls a probe does not see. `None` where the file
    /// does not say (not Go, or Go 1.17).
    pub inlined: Option<Inlined>,
}

/// Finds the functions called `pattern` in the file at `path`, by address; at least one.
///
/// There are several when the pattern holds `*`, when a Go package is there more than once
/// (vendored), and for a generic function. Wrappers that the Go compiler writes are left out when
/// what they wrap is there.
///
/// # Errors
/// See [`SymbolError`]. One function without a certain place fails the whole: a part of the calls
/// would look like all of them.
pub fn find(path: &Path, pattern: &str) -> Result<Vec<Function>, SymbolError> {
    find_in(path, &mapped(path)?, pattern)
}

/// As [`find`], of a file that is in memory already; `path` is for messages.
///
/// # Errors
/// See [`find`].
pub fn find_in(path: &Path, bytes: &[u8], pattern: &str) -> Result<Vec<Function>, SymbolError> {
    let image = Image::parse(bytes).map_err(|problem| SymbolError::not_elf(path, problem))?;
    let search = Search::new(path, &image);
    let mut found = search.matching(Pattern::new(pattern), MAX_FOUND + 1)?;
    if found.is_empty() {
        return Err(search.not_found(pattern));
    }
    if found.len() > MAX_FOUND {
        return Err(SymbolError::TooMany { path: path.to_path_buf(), pattern: pattern.to_owned() });
    }
    found.sort_by_key(|found| found.address);
    let names: Vec<&str> = found.iter().map(|found| found.name).collect();
    let mut inlined = search.inlined(&names).map(Vec::into_iter);
    let with_site = |found| {
        let inlined = inlined.as_mut().and_then(Iterator::next);
        search.with_site(found, inlined)
    };
    found.iter().map(with_site).collect()
}

/// Shows every function of the file at `path` to `visit` (name, address, length in bytes): Go's by
/// address, then those of the symbol tables, which may name one function several times.
///
/// # Errors
/// As [`find`], except that a function is not looked into.
pub fn each_function(path: &Path, visit: &mut dyn FnMut(&str, u64, u64)) -> Result<(), SymbolError> {
    let bytes = mapped(path)?;
    let image = Image::parse(&bytes).map_err(|problem| SymbolError::not_elf(path, problem))?;
    let search = Search::new(path, &image);
    if let Err(refusal) = search.go() {
        return Err(SymbolError::Go { path: path.to_path_buf(), refusal: refusal.clone() });
    }
    for found in search.go_functions().chain(search.other_functions()) {
        visit(found.name, found.address, found.len);
    }
    Ok(())
}

/// The bytes of the file at `path`.
pub(in crate::symbols) fn mapped(path: &Path) -> Result<Mmap, SymbolError> {
    let unreadable = |error| SymbolError::Unreadable { path: path.to_path_buf(), error };
    // Opening a pipe would wait for somebody to write to it.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(unreadable(io::Error::other("it is no regular file")));
    }
    let file = File::open(path).map_err(unreadable)?;
    // SAFETY: the map is read-only. A file that is truncated while it is mapped raises a signal; the
    // same holds for every tool that reads binaries, and package managers replace files instead.
    unsafe { Mmap::map(&file) }.map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{SiteReason, SymbolError, find};
    use crate::config::Abi;

    #[test]
    fn a_function_of_this_test_program_is_found_in_it() {
        let program = std::env::current_exe().expect("this test runs from a file");
        let functions = find(&program, "main").expect("every program has one");
        let [function] = functions.as_slice() else { panic!("one main: {functions:?}") };
        assert!(function.address > 0 && function.site.file_offset > 0);
        assert_eq!((function.abi, function.site.reason), (Abi::C, SiteReason::FunctionStart));
        assert_eq!(function.site.address, function.address);
    }

    #[test]
    fn a_misspelt_function_is_answered_with_similar_names() {
        let program = std::env::current_exe().expect("this test runs from a file");
        let Err(SymbolError::NotFound { nearest, .. }) = find(&program, "maim") else { panic!("was found") };
        assert!(nearest.iter().any(|name| name == "main"), "{nearest:?}");
    }

    #[test]
    fn a_file_that_is_no_program_is_refused() {
        assert!(matches!(find(Path::new("Cargo.toml"), "main"), Err(SymbolError::NotElf { .. })));
        assert!(matches!(find(Path::new("/no/such/file"), "main"), Err(SymbolError::Unreadable { .. })));
    }
}
