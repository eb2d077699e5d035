//! From a function's name to the place in the file where a probe goes.
//!
//! Reads ELF files only, and trusts none of their bytes (crate `object` checks every access). What
//! is attached where is not decided here.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use memmap2::Mmap;
use object::{Object as _, ObjectSegment as _, ObjectSymbol as _, SymbolKind};

use crate::{config::Abi, suggest::nearest};

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
    /// The file is no ELF file.
    #[error("{path} is not an executable or a library that can be read: {error}")]
    NotElf {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: object::Error,
    },
    /// No function of that name.
    #[error("{path} has no function `{symbol}`{}", did_you_mean(nearest))]
    NotFound {
        /// Which file.
        path: PathBuf,
        /// What was looked for.
        symbol: String,
        /// Functions of similar names, the most similar first.
        nearest: Vec<String>,
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
        /// Where the symbol table puts it.
        address: u64,
    },
}

fn did_you_mean(nearest: &[String]) -> String {
    match nearest {
        [] => "; it has none of a similar name either".to_owned(),
        names => format!("; similar names there: {}", names.join(", ")),
    }
}

/// A function found in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Its address in the file's own address space.
    pub address: u64,
    /// Its offset from the start of the file in bytes, which is what the kernel attaches by.
    pub file_offset: u64,
    /// Its length in bytes; 0 where the file does not say.
    pub len: u64,
    /// How it takes its arguments, as far as the file tells.
    pub abi: Abi,
}

/// Finds the function `symbol` in the file at `path`.
///
/// # Errors
/// See [`SymbolError`].
pub fn find(path: &Path, symbol: &str) -> Result<Function, SymbolError> {
    let functions = functions(path)?;
    match functions.iter().find(|function| function.name == symbol) {
        None => {
            let names = functions.iter().map(|function| function.name.as_str());
            let nearest = nearest(symbol, names, 3).into_iter().map(str::to_owned).collect();
            Err(SymbolError::NotFound { path: path.to_path_buf(), symbol: symbol.to_owned(), nearest })
        }
        Some(function) if function.file_offset == 0 => Err(SymbolError::NotInFile {
            path: path.to_path_buf(),
            symbol: symbol.to_owned(),
            address: function.address,
        }),
        Some(function) => Ok(function.clone()),
    }
}

/// Every function that the file at `path` defines, by address. `file_offset` is 0 for one that no
/// executable segment holds.
///
/// # Errors
/// [`SymbolError::Unreadable`] and [`SymbolError::NotElf`].
pub fn functions(path: &Path) -> Result<Vec<Function>, SymbolError> {
    let unreadable = |error| SymbolError::Unreadable { path: path.to_path_buf(), error };
    let file = File::open(path).map_err(unreadable)?;
    // SAFETY: the map is read-only. A file that is truncated while it is mapped raises a signal; the
    // same holds for every tool that reads binaries, and package managers replace files instead.
    let bytes = unsafe { Mmap::map(&file) }.map_err(unreadable)?;
    let not_elf = |error| SymbolError::NotElf { path: path.to_path_buf(), error };
    let elf = object::File::parse(&*bytes).map_err(not_elf)?;
    let is_go = elf.section_by_name(".go.buildinfo").is_some();
    let mut functions: Vec<Function> = elf
        .symbols()
        .chain(elf.dynamic_symbols())
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition())
        .filter_map(|symbol| {
            let address = symbol.address();
            let file_offset = file_offset(&elf, address).unwrap_or(0);
            let name = symbol.name().ok()?.to_owned();
            let abi = if is_go { Abi::Go } else { abi_of_name(&name) };
            Some(Function { name, address, file_offset, len: symbol.size(), abi })
        })
        .collect();
    functions.sort_by(|left, right| (left.address, &left.name).cmp(&(right.address, &right.name)));
    functions.dedup();
    Ok(functions)
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

/// Where in the file the byte at `address` comes from, if that part is loaded as code.
fn file_offset(elf: &object::File<'_>, address: u64) -> Option<u64> {
    elf.segments().find_map(|segment| {
        let object::SegmentFlags::Elf { p_flags } = segment.flags() else { return None };
        let within = address.checked_sub(segment.address())?;
        let (start, len) = segment.file_range();
        (p_flags & object::elf::PF_X != 0 && within < len).then(|| start + within)
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{SymbolError, abi_of_name, find};
    use crate::config::Abi;

    #[test]
    fn a_function_of_this_test_program_is_found_in_it() {
        let program = std::env::current_exe().expect("this test runs from a file");
        let function = find(&program, "main").expect("every program has one");
        assert!(function.file_offset > 0 && function.address > 0);
    }

    #[test]
    fn mangled_names_tell_the_language() {
        assert_eq!(abi_of_name("trackClick"), Abi::C);
        assert_eq!(abi_of_name("_ZN3rec10trackClickERKNSt7__cxx1112basic_stringE"), Abi::Cpp);
        assert_eq!(abi_of_name("_ZN3rec11track_click17h0123456789abcdefE"), Abi::Rust);
        assert_eq!(abi_of_name("_RNvCs4fqI2P2rA04_3rec11track_click"), Abi::Rust);
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
