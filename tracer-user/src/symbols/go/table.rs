//! The table of functions that the Go linker writes for stack traces (`.gopclntab`).
//!
//! It stays in a stripped program, since the runtime reads it. Layout, from the documentation of
//! `runtime.pcHeader` and `runtime._func` in each release: a header with offsets of its parts, then
//! names, files, line programs, and last an ordered array (entry, record) with one record per
//! function. From Go 1.18 entries are offsets from the text's start, before it addresses.

use crate::symbols::image::{Image, Machine, Segment, text_at, u32_at, u64_at};

/// 200,000 functions are a very large program.
const MAX_FUNCTIONS: u64 = 1 << 20;

/// Which releases write the table like this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// 1.16 and 1.17.
    Go116,
    /// 1.18 and 1.19.
    Go118,
    /// 1.20 and later.
    Go120,
}

impl Format {
    pub(super) const ALL: [Self; 3] = [Self::Go116, Self::Go118, Self::Go120];

    /// How a table starts. Two zero bytes follow the number.
    pub(super) const fn magic(self) -> [u8; 6] {
        let first = match self {
            Self::Go116 => 0xfa,
            Self::Go118 => 0xf0,
            Self::Go120 => 0xf1,
        };
        [first, 0xff, 0xff, 0xff, 0, 0]
    }

    /// Of the five offsets in the header.
    const fn offsets_at(self) -> usize {
        match self {
            Self::Go116 => 24,
            Self::Go118 | Self::Go120 => 32,
        }
    }

    const fn ftab_entry_len(self) -> usize {
        match self {
            Self::Go116 => 16,
            Self::Go118 | Self::Go120 => 8,
        }
    }
}

/// A table whose header is sound. Nothing says yet that it is the one the program uses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table<'a> {
    pub(super) address: u64,
    pub(super) format: Format,
    pub(super) functions: usize,
    /// Since Go 1.26 zero, and zero where the loader writes it.
    pub(super) header_text: Option<u64>,
    /// Offsets from the header: names, units' files, files, line programs, records.
    pub(super) parts: [u64; 5],
    bytes: &'a [u8],
}

/// What a function's record says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'a> {
    /// Where it starts: an address for [`Format::Go116`], else an offset from the text's start.
    pub(super) entry: u64,
    /// Where its name is among the names.
    pub(super) name_offset: u32,
    /// The record after its entry field.
    fields: &'a [u8],
    format: Format,
}

/// Places in a record, counted from the end of its entry field.
impl Record<'_> {
    const PC_FILE: usize = 16;
    const PCDATA_COUNT: usize = 24;
    const UNIT: usize = 28;

    const fn fixed_len(&self) -> usize {
        match self.format {
            Format::Go116 | Format::Go118 => 36,
            Format::Go120 => 40,
        }
    }

    /// The offset of the table of values number `index` among the line programs.
    pub(super) fn pcdata(&self, index: u32) -> Option<u32> {
        let count = u32_at(self.fields, Self::PCDATA_COUNT)?;
        let place = self.fixed_len().checked_add(usize::try_from(index).ok()? * 4)?;
        (index < count).then(|| u32_at(self.fields, place)).flatten().filter(|offset| *offset != 0)
    }

    /// The offset of the data number `index` from `moduledata.gofunc` (Go 1.18 and later).
    pub(super) fn funcdata(&self, index: u8) -> Option<u32> {
        let count = *self.fields.get(self.fixed_len() - 1)?;
        let pcdata = usize::try_from(u32_at(self.fields, Self::PCDATA_COUNT)?).ok()?;
        let place = pcdata.checked_mul(4)?.checked_add(self.fixed_len() + usize::from(index) * 4)?;
        (index < count).then(|| u32_at(self.fields, place)).flatten().filter(|offset| *offset != u32::MAX)
    }
}

impl<'a> Table<'a> {
    /// The table that starts at `address`, if a sound header does.
    pub(super) fn parse(image: &Image<'a>, address: u64) -> Option<Self> {
        let bytes = image.from(address)?;
        let format = Format::ALL.into_iter().find(|format| bytes.starts_with(&format.magic()))?;
        let step = match image.machine() {
            Machine::Amd64 => 1,
            Machine::Arm64 => 4,
            Machine::Other => return None,
        };
        if !address.is_multiple_of(8) || bytes.get(6..8)? != [step, 8] {
            return None;
        }
        let functions = u64_at(bytes, 8).filter(|count| (1..=MAX_FUNCTIONS).contains(count))?;
        let at = format.offsets_at();
        let mut parts = [0; 5];
        for (index, part) in parts.iter_mut().enumerate() {
            *part = u64_at(bytes, at + 8 * index)?;
        }
        let header_len = at as u64 + 40;
        let header_text = match format {
            Format::Go116 => None,
            Format::Go118 | Format::Go120 => image.pointer(address + 24).filter(|text| *text != 0),
        };
        let functions = usize::try_from(functions).ok()?;
        let table = Self { address, format, functions, header_text, parts, bytes };
        let ftab_len = functions * format.ftab_entry_len() + format.ftab_entry_len() / 2;
        let sound = parts[0] >= header_len
            && parts.is_sorted()
            && parts[4] < bytes.len() as u64
            && table.records().len() > ftab_len;
        sound.then_some(table)
    }

    fn part(&self, index: usize) -> &'a [u8] {
        let place = |index: usize| usize::try_from(self.parts[index]).unwrap_or(usize::MAX);
        let end = if index + 1 < self.parts.len() { place(index + 1) } else { self.bytes.len() };
        self.bytes.get(place(index)..end).unwrap_or_default()
    }

    pub(super) fn names(&self) -> &'a [u8] {
        self.part(0)
    }

    pub(super) fn line_programs(&self) -> &'a [u8] {
        self.part(3)
    }

    fn records(&self) -> &'a [u8] {
        self.part(4)
    }

    /// The place of entry `index` of the ordered array: the last, `functions`, is the end of all.
    pub(super) fn ftab_entry(&self, image: &Image<'_>, index: usize) -> Option<u64> {
        let place = index * self.format.ftab_entry_len();
        match self.format {
            Format::Go116 => image.pointer(self.address.checked_add(self.parts[4])? + place as u64),
            Format::Go118 | Format::Go120 => u32_at(self.records(), place).map(u64::from),
        }
    }

    pub(super) fn record(&self, image: &Image<'_>, index: usize) -> Option<Record<'a>> {
        let place = index * self.format.ftab_entry_len() + self.format.ftab_entry_len() / 2;
        let (records, format) = (self.records(), self.format);
        let (entry, fields) = match format {
            Format::Go116 => {
                let offset = u64_at(records, place)?;
                let address = self.address.checked_add(self.parts[4])?.checked_add(offset)?;
                (image.pointer(address)?, records.get(usize::try_from(offset).ok()?.checked_add(8)?..)?)
            }
            Format::Go118 | Format::Go120 => {
                let offset = u32_at(records, place)? as usize;
                (u64::from(u32_at(records, offset)?), records.get(offset + 4..)?)
            }
        };
        Some(Record { entry, name_offset: u32_at(fields, 0)?, fields, format })
    }

    pub(super) fn name(&self, offset: u32) -> Option<&'a str> {
        text_at(self.names(), offset as usize)
    }

    /// Was the function written by the compiler itself: a wrapper around another of the same code?
    pub(super) fn is_generated(&self, record: &Record<'a>) -> bool {
        self.file(record) == Some("<autogenerated>")
    }

    fn file(&self, record: &Record<'a>) -> Option<&'a str> {
        let program = u32_at(record.fields, Record::PC_FILE)?;
        let (first, _) = Values::new(self.line_programs(), program)?.next()?;
        let unit = u32_at(record.fields, Record::UNIT)? as usize;
        let slot = unit.checked_add(usize::try_from(first).ok()?)?;
        text_at(self.part(2), u32_at(self.part(1), slot.checked_mul(4)?)? as usize)
    }
}

/// Places in `segment` where a table may start.
pub(super) fn candidates(segment: &Segment<'_>) -> impl Iterator<Item = u64> {
    Format::ALL.into_iter().flat_map(|format| {
        let magic = format.magic();
        memchr::memmem::find_iter(segment.bytes, &magic)
            .map(|at| segment.address + at as u64)
            .collect::<Vec<_>>()
    })
}

/// A program of values over code: pairs of a change of the value and a stretch of code.
pub(super) struct Values<'a> {
    bytes: &'a [u8],
    value: i64,
    first: bool,
}

impl<'a> Values<'a> {
    pub(super) fn new(programs: &'a [u8], offset: u32) -> Option<Self> {
        let bytes = programs.get(usize::try_from(offset).ok()?..)?;
        Some(Self { bytes, value: -1, first: true })
    }

    fn varint(&mut self) -> Option<u32> {
        let mut number = 0_u32;
        for shift in [0, 7, 14, 21, 28] {
            let (byte, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            number |= u32::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

impl Iterator for Values<'_> {
    /// A value, and over how many units of code it holds.
    type Item = (i64, u32);

    fn next(&mut self) -> Option<Self::Item> {
        let change = self.varint()?;
        if change == 0 && !self.first {
            return None;
        }
        self.first = false;
        let magnitude = i64::from(change >> 1);
        self.value += if change & 1 == 1 { -magnitude - 1 } else { magnitude };
        Some((self.value, self.varint()?))
    }
}
