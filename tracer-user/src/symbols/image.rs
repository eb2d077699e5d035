//! A program file as the kernel maps it: segments first, section headers only as a hint.
//!
//! A stripped program may have no section headers, and nothing stops a section header from lying;
//! what runs is what the segments say. Every access is bounded, and the relocations that a
//! position-independent program needs before its pointers mean anything are applied on reading.

use object::{
    LittleEndian,
    elf::{self, FileHeader64, ProgramHeader64, SectionHeader64, Sym64},
    read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _},
};

/// A program has a handful of them. Every look-up walks them.
const MAX_SEGMENTS: usize = 128;

/// Entries read of a symbol table; the largest browsers have half of it.
const MAX_SYMBOLS: usize = 1 << 20;

/// Why a file cannot be read as a program.
#[derive(Debug, thiserror::Error)]
pub enum ElfProblem {
    /// It has no ELF header, or one that leads out of the file.
    #[error("it is no ELF file: {0}")]
    NotElf(object::Error),
    /// Programs of 32 bits, or with the other byte order.
    #[error("it is not for a 64-bit little-endian machine")]
    OtherMachine,
    /// More loadable segments than a program has.
    #[error("it has more than {MAX_SEGMENTS} segments")]
    TooManySegments,
    /// One address in two places of the file.
    #[error("two of its segments overlap")]
    OverlappingSegments,
}

/// The instruction set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Machine {
    Amd64,
    Arm64,
    Other,
}

/// One part of the file that is mapped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment<'a> {
    pub(super) address: u64,
    pub(super) file_offset: u64,
    pub(super) bytes: &'a [u8],
    pub(super) executable: bool,
    pub(super) writable: bool,
}

impl<'a> Segment<'a> {
    fn from(&self, address: u64) -> Option<&'a [u8]> {
        let within = usize::try_from(address.checked_sub(self.address)?).ok()?;
        self.bytes.get(within..).filter(|rest| !rest.is_empty())
    }
}

/// The file.
pub(super) struct Image<'a> {
    bytes: &'a [u8],
    header: &'a FileHeader64<LittleEndian>,
    segments: Vec<Segment<'a>>,
    relocations: Vec<Relocation>,
}

/// A pointer that the loader writes: `value` is what it is before the program is moved.
#[derive(Debug, Clone, Copy)]
struct Relocation {
    place: u64,
    value: u64,
}

/// A function as the symbol table has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Symbol<'a> {
    pub(super) name: &'a str,
    pub(super) address: u64,
    pub(super) len: u64,
}

impl<'a> Image<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, ElfProblem> {
        let kind = object::FileKind::parse(bytes).map_err(ElfProblem::NotElf)?;
        match kind {
            object::FileKind::Elf64 if bytes.get(5) == Some(&elf::ELFDATA2LSB) => {}
            _ => return Err(ElfProblem::OtherMachine),
        }
        let header = FileHeader64::<LittleEndian>::parse(bytes).map_err(ElfProblem::NotElf)?;
        let headers = header.program_headers(LittleEndian, bytes).map_err(ElfProblem::NotElf)?;
        let loads = || headers.iter().filter(|segment| segment.p_type(LittleEndian) == elf::PT_LOAD);
        if loads().count() > MAX_SEGMENTS {
            return Err(ElfProblem::TooManySegments);
        }
        let mut segments: Vec<Segment<'a>> = loads().filter_map(|load| segment(load, bytes)).collect();
        segments.sort_by_key(|segment| segment.address);
        let overlap = segments.windows(2).any(|pair| pair[0].from(pair[1].address).is_some());
        if overlap {
            return Err(ElfProblem::OverlappingSegments);
        }
        let mut image = Self { bytes, header, segments, relocations: Vec::new() };
        if let Some(dynamic) = headers.iter().find(|segment| segment.p_type(LittleEndian) == elf::PT_DYNAMIC)
        {
            image.relocations = image.relative_relocations(dynamic.p_vaddr(LittleEndian));
        }
        Ok(image)
    }

    pub(super) fn machine(&self) -> Machine {
        match self.header.e_machine(LittleEndian) {
            elf::EM_X86_64 => Machine::Amd64,
            elf::EM_AARCH64 => Machine::Arm64,
            _ => Machine::Other,
        }
    }

    pub(super) fn segments(&self) -> &[Segment<'a>] {
        &self.segments
    }

    /// From `address` to the end of what the file holds of its segment.
    pub(super) fn from(&self, address: u64) -> Option<&'a [u8]> {
        self.segments.iter().find_map(|segment| segment.from(address))
    }

    pub(super) fn at(&self, address: u64, len: u64) -> Option<&'a [u8]> {
        self.from(address)?.get(..usize::try_from(len).ok()?)
    }

    /// Where in the file the instruction at `address` is, if that part is mapped as code.
    pub(super) fn code_offset(&self, address: u64) -> Option<u64> {
        self.offset_where(address, |segment| segment.executable)
    }

    /// Where in the file the byte at `address` is, if that part is mapped for writing.
    pub(super) fn data_offset(&self, address: u64) -> Option<u64> {
        self.offset_where(address, |segment| segment.writable)
    }

    fn offset_where(&self, address: u64, wanted: impl Fn(&Segment<'a>) -> bool) -> Option<u64> {
        let segment = self.segments.iter().find(|segment| segment.from(address).is_some())?;
        wanted(segment).then(|| segment.file_offset.checked_add(address - segment.address)).flatten()
    }

    /// The pointer at `address`, as it is when the program is not moved.
    pub(super) fn pointer(&self, address: u64) -> Option<u64> {
        let found = self.relocations.binary_search_by_key(&address, |relocation| relocation.place);
        match found {
            Ok(index) => Some(self.relocations[index].value),
            Err(_) => u64_at(self.at(address, 8)?, 0),
        }
    }

    /// Every aligned place that points into `targets` (sorted): the loader's list and the segments' bytes.
    pub(super) fn pointers_to<'i>(&'i self, targets: &'i [u64]) -> impl Iterator<Item = u64> + 'i {
        let relocated = self
            .relocations
            .iter()
            .filter(|relocation| targets.binary_search(&relocation.value).is_ok())
            .map(|relocation| relocation.place);
        let plain = self.segments.iter().flat_map(move |segment| {
            let skip = usize::try_from(segment.address.next_multiple_of(8) - segment.address).unwrap_or(0);
            let words = segment.bytes.get(skip..).unwrap_or_default().chunks_exact(8);
            words.enumerate().filter_map(move |(index, word)| {
                let value = u64_at(word, 0)?;
                (targets.binary_search(&value).is_ok())
                    .then(|| segment.address + skip as u64 + 8 * index as u64)
            })
        });
        relocated.chain(plain)
    }

    /// Where the section called `name` is mapped. A hint: what is there has to prove itself.
    pub(super) fn section(&self, name: &[u8]) -> Option<u64> {
        let sections = self.header.sections(LittleEndian, self.bytes).ok()?;
        let (_, section) = sections.section_by_name(LittleEndian, name)?;
        Some(section.sh_addr(LittleEndian)).filter(|address| *address != 0)
    }

    /// The bytes of the section called `name`, mapped or not.
    pub(super) fn section_bytes(&self, name: &[u8]) -> Option<&'a [u8]> {
        let sections = self.header.sections(LittleEndian, self.bytes).ok()?;
        let (_, section) = sections.section_by_name(LittleEndian, name)?;
        section.data(LittleEndian, self.bytes).ok()
    }

    /// The variables that the symbol tables define. One in both comes twice.
    pub(super) fn variables(&self) -> impl Iterator<Item = Symbol<'a>> + use<'a> {
        self.symbols_of(elf::STT_OBJECT)
    }

    /// The functions that the symbol tables define. A name in both comes twice.
    pub(super) fn symbols(&self) -> impl Iterator<Item = Symbol<'a>> + use<'a> {
        self.symbols_of(elf::STT_FUNC)
    }

    fn symbols_of(&self, kind: u8) -> impl Iterator<Item = Symbol<'a>> + use<'a> {
        let table = |section| self.symbol_table(section).unwrap_or_default();
        let tables = [table(elf::SHT_SYMTAB), table(elf::SHT_DYNSYM)];
        tables.into_iter().flat_map(move |(symbols, names)| {
            symbols.iter().take(MAX_SYMBOLS).filter_map(move |symbol| {
                let defined = symbol.st_shndx.get(LittleEndian) != elf::SHN_UNDEF;
                if !defined || symbol.st_info & 0xf != kind {
                    return None;
                }
                let name = text_within(names, symbol.st_name.get(LittleEndian) as usize, MAX_SYMBOL_LEN)?;
                let (address, len) = (symbol.st_value.get(LittleEndian), symbol.st_size.get(LittleEndian));
                Some(Symbol { name, address, len })
            })
        })
    }

    fn symbol_table(&self, kind: u32) -> Option<(&'a [Sym64<LittleEndian>], &'a [u8])> {
        let sections: &[SectionHeader64<LittleEndian>] =
            self.header.section_headers(LittleEndian, self.bytes).ok()?;
        let section = sections.iter().find(|section| section.sh_type(LittleEndian) == kind)?;
        let symbols = section.data_as_array(LittleEndian, self.bytes).ok()?;
        let names = sections.get(section.sh_link(LittleEndian) as usize)?;
        Some((symbols, names.data(LittleEndian, self.bytes).ok()?))
    }

    /// What the loader adds the program's base to, from the dynamic section's DT_RELA. The places
    /// that DT_RELR names need no list: they hold their value in the file.
    fn relative_relocations(&self, dynamic: u64) -> Vec<Relocation> {
        let relative = match self.machine() {
            Machine::Amd64 => elf::R_X86_64_RELATIVE,
            Machine::Arm64 => elf::R_AARCH64_RELATIVE,
            Machine::Other => return Vec::new(),
        };
        let Some((address, len)) = self.rela_table(dynamic) else { return Vec::new() };
        let entries = self.at(address, len).unwrap_or_default().chunks_exact(24);
        let mut relocations: Vec<Relocation> = entries
            .filter(|entry| u64_at(entry, 8) == Some(u64::from(relative)))
            .filter_map(|entry| Some(Relocation { place: u64_at(entry, 0)?, value: u64_at(entry, 16)? }))
            .collect();
        // Real tables are in order already.
        relocations.sort_unstable_by_key(|relocation| relocation.place);
        relocations
    }

    fn rela_table(&self, dynamic: u64) -> Option<(u64, u64)> {
        let entries = self.from(dynamic)?.chunks_exact(16).map(|entry| (u64_at(entry, 0), u64_at(entry, 8)));
        let (mut address, mut len) = (None, None);
        for (tag, value) in entries.take_while(|(tag, _)| *tag != Some(0)) {
            // The list ends with DT_NULL, which is 0.
            match tag.map(u64::cast_signed) {
                Some(elf::DT_RELA) => address = value,
                Some(elf::DT_RELASZ) => len = value,
                _ => {}
            }
        }
        address.zip(len)
    }
}

fn segment<'a>(header: &ProgramHeader64<LittleEndian>, bytes: &'a [u8]) -> Option<Segment<'a>> {
    let (file_offset, file_len) = header.file_range(LittleEndian);
    let start = usize::try_from(file_offset).ok()?;
    let end = start.checked_add(usize::try_from(file_len).ok()?)?.min(bytes.len());
    let address = header.p_vaddr(LittleEndian);
    address.checked_add(file_len)?.checked_next_multiple_of(8)?;
    Some(Segment {
        address,
        file_offset,
        bytes: bytes.get(start..end)?,
        executable: header.p_flags(LittleEndian) & elf::PF_X != 0,
        writable: header.p_flags(LittleEndian) & elf::PF_W != 0,
    })
}

/// No name that anybody probes is longer; names without ends must not be walked for each entry.
const MAX_SYMBOL_LEN: usize = 1024;
const MAX_GO_NAME_LEN: usize = 4096;

/// The text that begins at `offset` and ends before the next zero byte.
pub(super) fn text_at(bytes: &[u8], offset: usize) -> Option<&str> {
    text_within(bytes, offset, MAX_GO_NAME_LEN)
}

fn text_within(bytes: &[u8], offset: usize, limit: usize) -> Option<&str> {
    let rest = bytes.get(offset..)?;
    let window = &rest[..rest.len().min(limit)];
    let text = &window[..memchr::memchr(0, window)?];
    str::from_utf8(text).ok().filter(|text| !text.is_empty())
}

pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().copied().map(u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().copied().map(u64::from_le_bytes)
}
