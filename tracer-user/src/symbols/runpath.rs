//! Where a program has its libraries looked for: `DT_RUNPATH`, else `DT_RPATH`.

use std::path::Path;

use object::{
    LittleEndian,
    elf::{self, FileHeader64},
    read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _},
};

use super::{SymbolError, mapped};

/// Entries read of the dynamic section; programs have some tens.
const MAX_ENTRIES: usize = 1024;

/// The folders that the program at `path` has its libraries looked for in, as it writes them (`$ORIGIN` is the
/// program's own). None for one that does not say.
///
/// # Errors
/// [`SymbolError::Unreadable`].
pub fn library_folders(path: &Path) -> Result<Vec<String>, SymbolError> {
    Ok(folders(&mapped(path)?).unwrap_or_default())
}

fn folders(bytes: &[u8]) -> Option<Vec<String>> {
    let header = FileHeader64::<LittleEndian>::parse(bytes).ok()?;
    let segments = header.program_headers(LittleEndian, bytes).ok()?;
    let dynamic = segments.iter().find_map(|segment| segment.dynamic(LittleEndian, bytes).ok().flatten())?;
    let value = |tag| {
        let entry = dynamic.iter().take(MAX_ENTRIES).find(|entry| entry.d_tag(LittleEndian) == tag)?;
        Some(entry.d_val(LittleEndian))
    };
    let (strings, len) = (value(elf::DT_STRTAB)?, value(elf::DT_STRSZ)?);
    let strings = segments
        .iter()
        .find_map(|segment| segment.data_range(LittleEndian, bytes, strings, len).ok().flatten())?;
    let at = value(elf::DT_RUNPATH).or_else(|| value(elf::DT_RPATH))?;
    let text = strings.get(usize::try_from(at).ok()?..)?.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(text).split(':').map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::folders;

    #[test]
    fn the_folders_of_the_demos_service_are_its_own() {
        let service = include_bytes!(concat!(env!("OUT_DIR"), "/linktracer-demo-service"));
        assert_eq!(folders(service).as_deref(), Some(&["$ORIGIN".to_owned()][..]));
        assert_eq!(folders(&service[..100]), None);
        assert_eq!(folders(b"no program"), None);
    }
}
