//! One probe in one file: what tells the file from others, and attaching to it.
//!
//! Which files there are, and what it means when one has no probe, is `coverage`'s.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use crate::{
    attach::{AttachError, Kernel, SdkFunction, SdkPlace, SdkSite, UsdtPlace},
    config::{SdkProbe, Target},
    symbols::{self, SymbolError},
};

/// What tells one probe in one file from another.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct SiteKey {
    pub(super) service: usize,
    pub(super) function: SdkFunction,
    pub(super) file: FileIdentity,
}

/// What tells one file from another, as the kernel does when it attaches.
#[derive(PartialEq, Eq, Hash)]
pub(super) enum FileIdentity {
    /// A file of an ordinary file system.
    Plain { device: u64, inode: u64 },
    /// A file seen through an overlay. Each mount has a device number of its own, while the inode number,
    /// size and time are those of the one file below, and it is that file which gets the probe: a second
    /// probe through a second mount would count every call twice.
    Overlaid { inode: u64, size: u64, modified_ns: i128 },
}

impl FileIdentity {
    /// As a part of the name of a pin.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Plain { device, inode } => format!("{device:x}-{inode:x}"),
            Self::Overlaid { inode, size, modified_ns } => format!("{inode:x}-{size:x}-{modified_ns:x}"),
        }
    }

    pub(super) fn of(file: &Path) -> io::Result<Self> {
        /// `OVERLAYFS_SUPER_MAGIC` in `linux/magic.h`.
        const OVERLAYFS: i64 = 0x794c_7630;
        let metadata = fs::metadata(file)?;
        let (device, inode, size) = (metadata.dev(), metadata.ino(), metadata.size());
        if rustix::fs::statfs(file)?.f_type != OVERLAYFS {
            return Ok(Self::Plain { device, inode });
        }
        let modified_ns = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        Ok(Self::Overlaid { inode, size, modified_ns })
    }
}

/// What was done to a file.
pub(super) struct Attached {
    pub(super) places: usize,
    /// A predecessor had not done it.
    pub(super) new: bool,
}

/// Why a place has no probe.
#[derive(Debug, thiserror::Error)]
pub(super) enum SiteError {
    #[error("{0}")]
    File(#[from] io::Error),
    #[error("{0}")]
    Symbol(#[from] SymbolError),
    #[error("{0}")]
    Arguments(String),
    #[error("{0}")]
    Attach(#[from] AttachError),
}

impl SiteError {
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::File(_) | Self::Symbol(SymbolError::Unreadable { .. }) => "unreadable",
            Self::Symbol(SymbolError::NotElf { .. }) => "not_elf",
            Self::Symbol(
                SymbolError::NotFound { .. }
                | SymbolError::NotInFile { .. }
                | SymbolError::UsdtNotFound { .. },
            ) => "symbol_not_found",
            Self::Symbol(SymbolError::TooMany { .. } | SymbolError::TooManyUsdt { .. }) => "too_many_symbols",
            Self::Symbol(SymbolError::Go { .. } | SymbolError::NoSite { .. }) => "no_certain_place",
            Self::Symbol(SymbolError::Usdt { .. }) => "arguments",
            Self::Arguments(_) => "arguments",
            Self::Attach(_) => "refused",
        }
    }

    /// May it go by itself? A file of a process that is just starting or ending may.
    pub(super) const fn is_passing(&self) -> bool {
        matches!(self, Self::File(_) | Self::Symbol(SymbolError::Unreadable { .. }))
    }
}

/// Attaches to a function in a file, unless a predecessor did.
///
/// # Errors
/// The file cannot be read, has no such function, or the kernel refuses.
pub(super) fn attach_site(
    kernel: &mut Kernel,
    key: &SiteKey,
    probe: &SdkProbe,
    file: &Path,
) -> Result<Attached, SiteError> {
    let places = match &probe.target {
        Target::Function(symbol) => function_places(probe, symbol, file)?,
        Target::Usdt(name) => usdt_places(probe, name, file)?,
    };
    let mut attached = Attached { places: places.len(), new: false };
    for (file_offset, place) in places {
        attached.new |= kernel.attach_sdk(&SdkSite {
            function: key.function,
            file: file.to_path_buf(),
            file_identity: key.file.name(),
            file_offset,
            place,
            probe: u32::try_from(key.service).unwrap_or(u32::MAX),
        })?;
    }
    Ok(attached)
}

/// Where in a file the functions of a probe are.
fn function_places(probe: &SdkProbe, symbol: &str, file: &Path) -> Result<Vec<(u64, SdkPlace)>, SiteError> {
    // One function may have several names.
    let mut places: Vec<(u64, SdkPlace)> = Vec::new();
    for found in symbols::find(file, symbol)? {
        let abi = probe.abi.unwrap_or(found.abi);
        let ids = probe.args.locate(abi).map_err(SiteError::Arguments)?;
        let offset = found.site.file_offset;
        if !places.iter().any(|(known, _)| *known == offset) {
            places.push((offset, SdkPlace::Function(ids)));
        }
    }
    Ok(places)
}

/// Where in a file a USDT probe is.
fn usdt_places(probe: &SdkProbe, name: &str, file: &Path) -> Result<Vec<(u64, SdkPlace)>, SiteError> {
    let sites = symbols::find_usdt(file, name, &probe.args)?;
    let place = |site: symbols::UsdtSite| {
        let place = UsdtPlace { ids: site.ids, semaphore_offset: site.semaphore_offset };
        (site.file_offset, SdkPlace::Usdt(place))
    };
    Ok(sites.into_iter().map(place).collect())
}
