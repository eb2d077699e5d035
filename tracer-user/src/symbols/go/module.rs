//! The runtime's own description of the program (`runtime.firstmoduledata`).
//!
//! It says at which address the functions' code begins, which the table of functions has not said
//! since Go 1.26. It is found by its first field, which points to the table, and believed only when
//! every field up to the text's bounds agrees with the table: its slices start where the table's
//! header puts them, and its first and last code address are those of the first and last function.

use super::table::{Format, Table};
use crate::symbols::image::Image;

/// Where the program's functions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Module {
    pub(super) text: u64,
    pub(super) text_end: u64,
    /// Where functions' data is counted from, where that is known (Go 1.18 and later).
    pub(super) function_data: Option<u64>,
}

/// Offsets of fields, the same from Go 1.16 to 1.27.
const SLICES_AT: u64 = 8;
const FTAB_AT: u64 = 128;
const CODE_BOUNDS_AT: u64 = 160;
const TEXT_AT: u64 = 176;

impl Module {
    /// The description at `address`, if it is one of a program with this table.
    pub(super) fn at(image: &Image<'_>, table: &Table<'_>, address: u64) -> Option<Self> {
        let field = |offset: u64| image.pointer(address.checked_add(offset)?);
        let slice = |offset: u64| {
            let (start, len, capacity) = (field(offset)?, field(offset + 8)?, field(offset + 16)?);
            (len == capacity).then_some((start, len))
        };
        if field(0)? != table.address {
            return None;
        }
        for (index, part) in table.parts.iter().enumerate() {
            // Of the second, which holds words, releases before 1.26 state the length in bytes.
            let (start, len) = slice(SLICES_AT + 24 * index as u64)?;
            let end = start.checked_add(len)?;
            let next =
                table.parts.get(index + 1).map_or(u64::MAX, |next| table.address.saturating_add(*next));
            if start != table.address.checked_add(*part)? || end > next || len == 0 {
                return None;
            }
            image.at(start, len)?;
        }
        let (ftab, functions) = slice(FTAB_AT)?;
        if ftab != table.address + table.parts[4] || functions != table.functions as u64 + 1 {
            return None;
        }
        let (text, text_end) = (field(TEXT_AT)?, field(TEXT_AT + 8)?);
        let base = if table.format == Format::Go116 { 0 } else { text };
        let first = base.checked_add(table.ftab_entry(image, 0)?)?;
        let last = base.checked_add(table.ftab_entry(image, table.functions)?)?;
        let agrees = (field(CODE_BOUNDS_AT)?, field(CODE_BOUNDS_AT + 8)?) == (first, last)
            && text <= first
            && first < last
            && last <= text_end
            && table.header_text.is_none_or(|stated| stated == text);
        image.at(text, text_end.checked_sub(text)?).filter(|_| agrees)?;
        image.code_offset(text)?;
        let function_data = function_data(image, table.format, address, text);
        Some(Self { text, text_end, function_data })
    }
}

/// `gofunc` moved between releases. The right place is the one that the list of text sections
/// follows, whose only entry begins at the text's start.
fn function_data(image: &Image<'_>, format: Format, module: u64, text: u64) -> Option<u64> {
    let places: &[(u64, u64)] = match format {
        Format::Go116 => &[],
        Format::Go118 => &[(304, 312)],
        Format::Go120 => &[(320, 328), (320, 336), (344, 360)],
    };
    places.iter().find_map(|(function_data, sections)| {
        let field = |offset: u64| image.pointer(module.checked_add(offset)?);
        let section = field(*sections)?;
        let one = field(sections + 8)? == 1 && field(sections + 16)? == 1;
        let starts_at_text = image.pointer(section)? == 0 && image.pointer(section.checked_add(16)?)? == text;
        (one && starts_at_text).then(|| field(*function_data)).flatten()
    })
}
