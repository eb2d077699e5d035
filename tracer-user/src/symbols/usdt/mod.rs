//! USDT probes: places that a program's author marked, and what its notes say of them.
//!
//! The compiler's assembler leaves one note for each place: provider and name, the address, where the
//! arguments are, and the address of a semaphore if the program asks it whether anybody listens. Notes are
//! not mapped into memory, so this needs the section headers. Nothing of it is trusted: what cannot be
//! evaluated is refused by name.

mod argument;
mod notes;
mod registers;

use std::{collections::HashMap, path::Path};

use tracer_common::usdt::{UsdtId, UsdtIds, UsdtValue};

use self::argument::Argument;
pub(super) use self::notes::Note;
use super::{SymbolError, image::Image, mapped, pattern::Pattern};
use crate::{
    config::{SdkArgs, UsdtArgument},
    suggest::nearest,
};

/// More places than this are no probe for exposures or clicks.
const MAX_SITES: usize = 64;

/// A place of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsdtSite {
    /// `provider:name`.
    pub probe: String,
    /// Its address in the file's own address space.
    pub address: u64,
    /// Where in the file, in bytes.
    pub file_offset: u64,
    /// Where in the file the counter is that says whether anybody listens.
    pub semaphore_offset: Option<u64>,
    /// Where the ids are.
    pub ids: UsdtIds,
}

/// Finds every place of the probes called `probe` (`provider:name`, with `*` for any text) in the file at
/// `path`, at least one, and in each of them the ids among `args`.
///
/// # Errors
/// See [`SymbolError`]. One place whose ids cannot be read fails the whole: a part of the calls would look
/// like all of them.
pub fn find_usdt(path: &Path, probe: &str, args: &SdkArgs) -> Result<Vec<UsdtSite>, SymbolError> {
    find_usdt_in(path, &mapped(path)?, probe, args)
}

/// As [`find_usdt`], of a file that is in memory already; `path` is for messages.
///
/// # Errors
/// See [`find_usdt`].
pub fn find_usdt_in(
    path: &Path,
    bytes: &[u8],
    probe: &str,
    args: &SdkArgs,
) -> Result<Vec<UsdtSite>, SymbolError> {
    let image = Image::parse(bytes).map_err(|problem| SymbolError::not_elf(path, problem))?;
    let pattern = Pattern::new(probe);
    let found: Vec<Note<'_>> =
        notes::all(&image).filter(|note| pattern.is_spelt(&note.probe())).take(MAX_SITES + 1).collect();
    if found.is_empty() {
        return Err(not_found(path, &image, probe));
    }
    if found.len() > MAX_SITES {
        return Err(SymbolError::TooManyUsdt {
            path: path.to_path_buf(),
            probe: probe.to_owned(),
            limit: MAX_SITES,
        });
    }
    let variables = Variables::of(&image, &found);
    let read = |note: &Note<'_>| {
        site(&image, &variables, note, args).map_err(|problem| SymbolError::Usdt {
            path: path.to_path_buf(),
            probe: note.probe(),
            address: note.address,
            problem,
        })
    };
    found.iter().map(read).collect()
}

/// The probes of a file, place by place.
pub(super) fn notes<'a>(image: &'a Image<'a>) -> impl Iterator<Item = Note<'a>> {
    notes::all(image)
}

fn not_found(path: &Path, image: &Image<'_>, probe: &str) -> SymbolError {
    const COUNT: usize = 3;
    let mut names: Vec<String> = notes::all(image).map(|note| note.probe()).collect();
    names.sort();
    names.dedup();
    let nearest = match nearest(probe, names.iter().map(String::as_str), COUNT).as_slice() {
        [] => names.into_iter().take(COUNT).collect(),
        near => near.iter().map(|name| (*name).to_owned()).collect(),
    };
    SymbolError::UsdtNotFound { path: path.to_path_buf(), probe: probe.to_owned(), nearest }
}

fn site(
    image: &Image<'_>,
    variables: &Variables<'_>,
    note: &Note<'_>,
    args: &SdkArgs,
) -> Result<UsdtSite, String> {
    let file_offset = image.code_offset(note.address).ok_or("it is in no executable segment of the file")?;
    let semaphore_offset =
        match note.semaphore {
            0 => None,
            address => Some(image.data_offset(address).ok_or_else(|| {
                format!("its semaphore at {address:#x} is in no writable segment of the file")
            })?),
        };
    let texts = argument::split(note.arguments);
    let wanted = args.locate_usdt()?;
    let id = |name: &str, wanted: UsdtArgument| {
        let read = |position: usize| {
            let text = texts.get(position).ok_or_else(|| {
                format!("`{name}` would be its argument {}, and it has {}", position + 1, texts.len())
            })?;
            value(image, variables, note, text).map_err(|problem| format!("`{name}` is `{text}`, {problem}"))
        };
        let address = read(wanted.position)?;
        let len = if wanted.has_len { read(wanted.position + 1)? } else { UsdtValue::ZERO };
        Ok::<_, String>(UsdtId { address, len, has_len: u32::from(wanted.has_len), padding: 0 })
    };
    let ids =
        UsdtIds { request_id: id("request_id", wanted.request_id)?, item_id: id("item_id", wanted.item_id)? };
    Ok(UsdtSite { probe: note.probe(), address: note.address, file_offset, semaphore_offset, ids })
}

fn value(
    image: &Image<'_>,
    variables: &Variables<'_>,
    note: &Note<'_>,
    text: &str,
) -> Result<UsdtValue, String> {
    let argument = Argument::parse(image.machine(), text)?;
    argument.value(image.machine(), note.address, &|name| variables.address(name))
}

/// The variables that arguments name, found in one pass over the symbol tables.
struct Variables<'a> {
    /// Where each is; more than one place is not certain.
    places: HashMap<&'a str, Place>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Unknown,
    At(u64),
    Several,
}

impl<'a> Variables<'a> {
    fn of(image: &Image<'_>, notes: &[Note<'a>]) -> Self {
        let texts = notes.iter().flat_map(|note| argument::split(note.arguments));
        let arguments = texts.filter_map(|text| Argument::parse(image.machine(), text).ok());
        let mut places: HashMap<&str, Place> =
            arguments.filter_map(|argument| Some((argument.variable()?, Place::Unknown))).collect();
        if !places.is_empty() {
            for found in image.variables() {
                let Some(place) = places.get_mut(found.name) else { continue };
                *place = match *place {
                    Place::At(known) if known != found.address => Place::Several,
                    Place::Several => Place::Several,
                    _ => Place::At(found.address),
                };
            }
        }
        Self { places }
    }

    fn address(&self, name: &str) -> Option<u64> {
        match self.places.get(name) {
            Some(Place::At(address)) => Some(*address),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{SymbolError, find_usdt};
    use crate::config::SdkArgs;

    #[test]
    fn a_program_without_probes_says_so() {
        let program = std::env::current_exe().expect("this test runs from a file");
        let args = SdkArgs::parse("(request_id cstr, item_id cstr)").expect("is right");
        match find_usdt(&program, "a:b", &args) {
            Err(error @ SymbolError::UsdtNotFound { .. }) => {
                assert!(error.to_string().contains("it has no USDT probes"), "{error}");
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(find_usdt(Path::new("Cargo.toml"), "a:b", &args), Err(SymbolError::NotElf { .. })));
    }
}
