//! Functions of Go programs, stripped or not.
//!
//! What is found here is certain or refused: a probe at a wrong address would overwrite the middle
//! of an instruction of a running service.

pub(in crate::symbols) mod build_info;
mod inlined;
mod module;
mod table;

pub use self::{
    build_info::{BuildInfo, ModuleVersion, build_info, build_info_in},
    inlined::Inlined,
};
use self::{
    module::Module,
    table::{Format, Record, Table},
};
use super::image::{Image, Machine};

/// More places than this that look like a table, and none is believed.
const MAX_CANDIDATES: usize = 64;

/// Pointers to such places that are followed. A program has one to its table, or few.
const MAX_POINTERS: usize = 1024;

/// Why the functions of a Go program cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GoRefusal {
    /// A table of functions, and no module data that agrees with it.
    #[error(
        "the table of Go functions at {table:#x} has no module data that agrees with it, so where its functions are is not certain"
    )]
    NoModuleData {
        /// Where the table is.
        table: u64,
    },
    /// Several tables that all look right.
    #[error("it has {count} tables of Go functions that contradict each other")]
    Ambiguous {
        /// How many.
        count: usize,
    },
    /// The table contradicts itself.
    #[error("the table of Go functions is damaged at function {index} of {count}")]
    Damaged {
        /// Which function, from 0.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// Built before functions took their arguments in registers.
    #[error(
        "it is built with {version}, which passes arguments on the stack; Go 1.17 or later is needed (1.18 on arm64)"
    )]
    StackArguments {
        /// Which Go.
        version: String,
    },
}

/// A Go program whose functions are known.
pub(super) struct GoProgram<'a> {
    image: &'a Image<'a>,
    table: Table<'a>,
    module: Module,
    /// Where each function starts, and last where the last one ends.
    entries: Vec<u64>,
    morestack: Vec<u64>,
}

/// A function of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct GoFunction<'a> {
    pub(super) name: &'a str,
    pub(super) address: u64,
    /// To the start of the next one, so padding counts.
    pub(super) len: u64,
    /// Written by the compiler: a wrapper around another function.
    pub(super) generated: bool,
    record: Record<'a>,
}

impl<'a> GoProgram<'a> {
    /// The program in `image`, `None` when it is not written in Go.
    pub(super) fn read(image: &'a Image<'a>) -> Result<Option<Self>, GoRefusal> {
        let Some((table, module)) = locate(image)? else { return Ok(None) };
        refuse_stack_arguments(image, &table)?;
        let entries = entries(image, &table, &module)?;
        let mut program = Self { image, table, module, entries, morestack: Vec::new() };
        let names = ["runtime.morestack", "runtime.morestack_noctxt"];
        let morestack = program.functions().filter(|function| names.contains(&function.name));
        program.morestack = morestack.map(|function| function.address).collect();
        Ok(Some(program))
    }

    pub(super) const fn text(&self) -> (u64, u64) {
        (self.module.text, self.module.text_end)
    }

    pub(super) fn functions(&self) -> impl Iterator<Item = GoFunction<'a>> + '_ {
        (0..self.table.functions).filter_map(|index| self.function(index))
    }

    pub(super) const fn function_count(&self) -> usize {
        self.table.functions
    }

    fn function(&self, index: usize) -> Option<GoFunction<'a>> {
        let record = self.table.record(self.image, index)?;
        let address = self.entries[index];
        Some(GoFunction {
            name: self.table.name(record.name_offset)?,
            address,
            len: self.entries[index + 1] - address,
            generated: self.table.is_generated(&record),
            record,
        })
    }

    /// Is there Go code at `address`?
    pub(super) fn holds(&self, address: u64) -> bool {
        self.entries.first().is_some_and(|first| *first <= address)
            && self.entries.last().is_some_and(|last| address < *last)
    }

    /// Is `address` the start of the function that makes a stack larger?
    pub(super) fn is_morestack(&self, address: u64) -> bool {
        self.morestack.contains(&address)
    }

    pub(super) fn code(&self, function: &GoFunction<'_>) -> Option<&'a [u8]> {
        self.image.at(function.address, function.len)
    }
}

/// The table that the program uses, and where its functions are.
fn locate<'a>(image: &Image<'a>) -> Result<Option<(Table<'a>, Module)>, GoRefusal> {
    let named = [".gopclntab", ".data.rel.ro.gopclntab"];
    let named =
        named.iter().filter_map(|name| Table::parse(image, image.section(name.as_bytes())?)).collect();
    // The named section first, so that a large file need not be read from end to end.
    if let Ok(Some(found)) = proven(image, named) {
        return Ok(Some(found));
    }
    let places = image.segments().iter().flat_map(table::candidates);
    proven(
        image,
        places.filter_map(|address| Table::parse(image, address)).take(MAX_CANDIDATES + 1).collect(),
    )
}

fn proven<'a>(
    image: &Image<'a>,
    mut tables: Vec<Table<'a>>,
) -> Result<Option<(Table<'a>, Module)>, GoRefusal> {
    let Some(first) = tables.first() else { return Ok(None) };
    let refusal = GoRefusal::NoModuleData { table: first.address };
    if tables.len() > MAX_CANDIDATES {
        return Err(GoRefusal::Ambiguous { count: tables.len() });
    }
    tables.sort_by_key(|table| table.address);
    let addresses: Vec<u64> = tables.iter().map(|table| table.address).collect();
    let mut found: Vec<(Table<'a>, Module)> = Vec::new();
    for place in image.pointers_to(&addresses).take(MAX_POINTERS) {
        let Some(address) = image.pointer(place) else { continue };
        let Ok(index) = addresses.binary_search(&address) else { continue };
        let Some(module) = Module::at(image, &tables[index], place) else { continue };
        let known = |(table, other): &(Table<'_>, Module)| table.address == address && *other == module;
        if !found.iter().any(known) {
            found.push((tables[index], module));
        }
        if found.len() > 1 {
            return Err(GoRefusal::Ambiguous { count: found.len() });
        }
    }
    found.pop().map(Some).ok_or(refusal)
}

/// Go 1.16 writes the same table as 1.17, and arm64 has had register arguments since 1.18 only.
fn refuse_stack_arguments(image: &Image<'_>, table: &Table<'_>) -> Result<(), GoRefusal> {
    if table.format != Format::Go116 {
        return Ok(());
    }
    let version = build_info::version(image).unwrap_or_else(|| "Go 1.16 or 1.17".to_owned());
    if image.machine() == Machine::Amd64 && version.starts_with("go1.17") {
        return Ok(());
    }
    Err(GoRefusal::StackArguments { version })
}

/// Where every function starts, once all of the table is known to agree with itself.
fn entries(image: &Image<'_>, table: &Table<'_>, module: &Module) -> Result<Vec<u64>, GoRefusal> {
    let base = if table.format == Format::Go116 { 0 } else { module.text };
    let count = table.functions;
    let mut entries = Vec::with_capacity(count + 1);
    for index in 0..=count {
        let damaged = GoRefusal::Damaged { index, count };
        let Some(entry) = table.ftab_entry(image, index) else { return Err(damaged) };
        let record_agrees = index == count
            || table.record(image, index).is_some_and(|record| {
                record.entry == entry && (record.name_offset as usize) < table.names().len()
            });
        let address = base.checked_add(entry).filter(|address| {
            (module.text..=module.text_end).contains(address)
                && entries.last().is_none_or(|before| before < address)
        });
        match address {
            Some(address) if record_agrees => entries.push(address),
            _ => return Err(damaged),
        }
    }
    Ok(entries)
}
