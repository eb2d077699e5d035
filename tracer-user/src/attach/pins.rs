//! What stays in the kernel when the daemon ends: maps and links, pinned in a folder of bpffs.
//!
//! Each build and configuration of the kernel side has a folder of its own, named by a fingerprint of
//! both. One that is complete is taken over by the next daemon with the same fingerprint; any other is
//! stopped, accounted for and removed. What may be taken over is decided in `run/takeover.rs`; this
//! file only finds, locks, pins and removes.
//!
//! A set is made under another name and gets its own when it is complete.

use std::{
    collections::BTreeSet,
    ffi::CString,
    fs::{self, File},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd},
        unix::{ffi::OsStrExt as _, fs::DirBuilderExt as _},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aya::{
    maps::{Array, Map, MapData, PerCpuArray},
    programs::links::{FdLink, LinkError},
};
use tracer_common::{
    counters::{HitOutcome, Hook},
    settings::{SWITCH_OFF, SWITCH_ON},
};

use super::{AttachError, Counters, LoadedPrograms, OBJECT, Ring};

/// Maps that a successor needs, by their names in the object.
pub(super) const PINNED_MAPS: [&str; 7] =
    ["EVENTS", "COUNTERS", "TARGETS", "SWITCH", "COLLECTORS", "WINDOWS", "USDT_SITES"];
/// Names of programs begin like this.
const PROGRAM_PREFIX: &str = "program-";
/// The name of a set that is being made.
const INCOMPLETE: &str = "incomplete";
/// The name of one that was stopped, until what it had counted is on the disk.
const STOPPED: &str = "stopped";
/// A predecessor that was killed may take this long to be gone.
const LOCK_LIMIT: Duration = Duration::from_secs(10);
/// Hits that are under way when capture is switched off are done long before.
const QUIET_LIMIT: Duration = Duration::from_secs(1);
/// `BPF_FS_MAGIC` in `linux/magic.h`.
const BPF_FS: i64 = 0xcafe_4a11;

/// Why pins cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The folder is on another file system.
    #[error("{0} is not on a BPF file system\n  remedy: mount -t bpf bpf /sys/fs/bpf")]
    NotBpffs(PathBuf),
    /// Somebody has it.
    #[error("another linktracer uses {0}\n  remedy: stop it, or give this one a `pin_dir` of its own")]
    InUse(PathBuf),
    /// The file system says no.
    #[error("{path}: {error}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// The folder of all sets, held by one daemon at a time.
#[derive(Debug)]
pub struct PinFolder {
    path: PathBuf,
    /// Holds the lock.
    _lock: File,
}

impl PinFolder {
    /// Makes the folder if need be and takes its lock.
    ///
    /// # Errors
    /// It is not on bpffs, cannot be made, or is in use.
    pub fn open(path: &Path) -> Result<Self, PinError> {
        let failed = |error| PinError::Io { path: path.to_path_buf(), error };
        if !is_on_bpffs(path) {
            return Err(PinError::NotBpffs(path.to_path_buf()));
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let folder = File::open(path).map_err(failed)?;
        if !lock(&folder).map_err(failed)? {
            return Err(PinError::InUse(path.to_path_buf()));
        }
        Ok(Self { path: path.to_path_buf(), _lock: folder })
    }

    /// The set of a fingerprint, complete or not there.
    pub fn set(&self, fingerprint: &str) -> PinSet {
        let folder = self.path.join(fingerprint);
        PinSet { complete: folder.clone(), folder }
    }

    /// A set of a fingerprint that is to be made.
    pub fn new_set(&self, fingerprint: &str) -> PinSet {
        PinSet { complete: self.path.join(fingerprint), folder: self.path.join(INCOMPLETE) }
    }

    /// Every set of which there is anything. What has another name than ours is somebody else's.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn sets(&self) -> io::Result<Vec<PinSet>> {
        let mut sets = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(is_name_of_set) {
                sets.push(PinSet { complete: entry.path(), folder: entry.path() });
            }
        }
        Ok(sets)
    }
}

/// Can pins be made there? Looks at what is there of the path.
pub fn is_on_bpffs(path: &Path) -> bool {
    let there = path.ancestors().find(|path| path.exists());
    there.is_some_and(|path| rustix::fs::statfs(path).is_ok_and(|found| found.f_type == BPF_FS))
}

/// Takes the lock of a file or folder for as long as it is open. False when somebody else has it for
/// longer than it takes a killed process to go.
///
/// # Errors
/// The file system has no locks.
pub fn lock(file: &File) -> io::Result<bool> {
    use rustix::{
        fs::{FlockOperation, flock},
        io::Errno,
    };
    let deadline = Instant::now() + LOCK_LIMIT;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

/// What a kernel side is: its object file, and everything that it was told. Two that are equal can
/// stand in for each other.
pub fn fingerprint(told: &impl std::fmt::Debug) -> String {
    // Another standard library may hash otherwise. Then the probes are attached anew, once.
    let mut hasher = DefaultHasher::new();
    OBJECT.hash(&mut hasher);
    format!("{told:?}").hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Is it a fingerprint, or what a set is called before it has that name or after?
fn is_name_of_set(name: &str) -> bool {
    let is_fingerprint = name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_fingerprint || [INCOMPLETE, STOPPED].contains(&name)
}

/// The pins of one kernel side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinSet {
    folder: PathBuf,
    /// Its name once it is complete.
    complete: PathBuf,
}

impl PinSet {
    /// Makes the folder.
    pub(super) fn create(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)
    }

    /// Where the pin of that name is. Names of maps are in capitals, names of links are not.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Where the pin of a program is: the kernel counts there how often it did not run it.
    pub(super) fn program_path(&self, program: &str) -> PathBuf {
        self.path(&format!("{PROGRAM_PREFIX}{program}"))
    }

    /// Names of all links.
    pub(super) fn links(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().filter_map(Result::ok);
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names
            .filter(|name| !PINNED_MAPS.contains(&name.as_str()) && !name.starts_with(PROGRAM_PREFIX))
            .collect()
    }

    /// Names of all programs, and where their pins are.
    pub(super) fn programs(&self) -> Vec<(String, PathBuf)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().filter_map(Result::ok);
        let of = |path: PathBuf| {
            let name = path.file_name()?.to_str()?.strip_prefix(PROGRAM_PREFIX)?.to_owned();
            Some((name, path))
        };
        entries.filter_map(|entry| of(entry.path())).collect()
    }

    /// Gives it its own name.
    pub(super) fn complete(&mut self) -> io::Result<()> {
        if self.folder != self.complete {
            fs::rename(&self.folder, &self.complete)?;
            self.folder.clone_from(&self.complete);
        }
        Ok(())
    }

    /// Its ring; `None` where it has none.
    pub fn ring(&self) -> Option<Ring> {
        Ring::open(self.map("EVENTS")?).ok()
    }

    /// Its counters; `None` where it has none.
    pub fn counters(&self) -> Option<Counters> {
        let map = PerCpuArray::try_from(self.map("COUNTERS")?).ok()?;
        Some(Counters { map, programs: LoadedPrograms::pinned(self) })
    }

    /// Is its capture switched on?
    pub fn captures(&self) -> bool {
        self.switch().is_some_and(|switch| switch.get(&0, 0).is_ok_and(|state| state == SWITCH_ON))
    }

    /// Gives it a name by which nobody goes on with it.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn set_aside(&mut self, of: &PinFolder) -> io::Result<()> {
        let aside = of.path.join(STOPPED);
        if self.folder != aside {
            fs::rename(&self.folder, &aside)?;
        }
        (self.folder, self.complete) = (aside.clone(), aside);
        Ok(())
    }

    /// Ends its capture and returns its counters once they stand still; `None` where it has none.
    pub fn stop(&self) -> Option<Counters> {
        self.switch()?.set(0, SWITCH_OFF, 0).ok()?;
        let counters = self.counters()?;
        let deadline = Instant::now() + QUIET_LIMIT;
        while !is_quiet(&counters) && Instant::now() < deadline {
            std::thread::yield_now();
        }
        Some(counters)
    }

    /// Takes all of it away. Links that nobody has open are detached by that.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn map(&self, name: &str) -> Option<Map> {
        Map::from_map_data(MapData::from_pin(self.path(name)).ok()?).ok()
    }

    fn switch(&self) -> Option<Array<MapData, u32>> {
        self.map("SWITCH")?.try_into().ok()
    }
}

/// Is no hit of a capture hook under way? Each is counted as a hit first and by its outcome last.
fn is_quiet(counters: &Counters) -> bool {
    let capture = Hook::ALL.iter().filter(|hook| !matches!(hook, Hook::Exec | Hook::Fork | Hook::Exit));
    capture.into_iter().all(|hook| {
        let read = |outcome: &HitOutcome| counters.read(*hook, *outcome).unwrap_or_default();
        let outcomes = HitOutcome::ALL.iter().filter(|outcome| **outcome != HitOutcome::Hit);
        read(&HitOutcome::Hit) == outcomes.map(read).sum::<u64>()
    })
}

/// Pins a link: it stays attached for as long as the pin is there.
pub(super) fn pin<L>(link: L, path: &Path) -> Result<(), AttachError>
where
    FdLink: TryFrom<L, Error = LinkError>,
{
    let failed = |reason: String| AttachError::Pin { path: path.to_path_buf(), reason };
    let link = FdLink::try_from(link)
        .map_err(|_| failed("kernels before 5.15 cannot pin the links of probes".to_owned()))?;
    link.pin(path).map(drop).map_err(|error| failed(error.to_string()))
}

/// Pins what the descriptor is, as [`pin`] does for links of the library.
pub(super) fn pin_descriptor(descriptor: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    const BPF_OBJ_PIN: libc::c_int = 6;
    /// What `bpf(BPF_OBJ_PIN)` takes.
    #[repr(C)]
    struct PinAttributes {
        path: u64,
        descriptor: i32,
        flags: u32,
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes =
        PinAttributes { path: path.as_ptr() as u64, descriptor: descriptor.as_raw_fd(), flags: 0 };
    // SAFETY: the size is that of the attributes, the path outlives the call, and the kernel only reads both.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_OBJ_PIN, std::ptr::from_ref(&attributes), size_of::<PinAttributes>())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
