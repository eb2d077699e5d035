//! Loads the kernel side and attaches it: a kprobe first, where the kernel has none a tracepoint.
//!
//! Which hook is used is decided by trying, per hook. Nothing is captured before
//! [`Kernel::set_capture`]. What is attached to is decided elsewhere (`discover`, `symbols`).
//!
//! With pins it all outlives the process, and is taken over where it is there already (`pins`).

mod hooks;
mod links;
pub mod pins;
mod programs;
mod ring;
mod sdk;
#[cfg(test)]
mod stack;
mod tls;
mod usdt;

use std::path::{Path, PathBuf};

use aya::{
    Ebpf, EbpfLoader,
    maps::{
        Array, HashMap, MapData, PerCpuArray,
        lpm_trie::{Key, LpmTrie},
    },
};
use tracer_common::{
    counters::{COUNTER_COUNT, HitOutcome, Hook, counter_index},
    limits::WAKEUP_FILL_DIVISOR,
    settings::{
        COLLECTOR_KEY_BITS, CollectorKey, Offsets, SWITCH_OFF, SWITCH_ON, TARGET_BODIES, TARGET_MESSAGES,
        TARGET_TLS, TARGET_TRACED,
    },
    usdt::MAX_USDT_SITES,
};

pub use self::{
    hooks::{AttachedHook, HookKind},
    programs::{Trial, try_each},
    ring::Ring,
    sdk::{SdkFunction, SdkPlace, SdkSite},
    tls::{TLS_FUNCTIONS, TlsFunction},
    usdt::UsdtPlace,
};
use self::{links::ProbeLinks, programs::LoadedPrograms};
use crate::config::{HookChoice, Network, Service};
use pins::PinSet;

/// Why the kernel side is not in place.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The kernel refused the object or a map of it.
    #[error(
        "the kernel refused the tracer's programs or maps: {0}\n  remedy: `linktracer check` shows what is missing"
    )]
    Load(#[from] aya::EbpfError),
    /// A map cannot be used.
    #[error("the map {name} cannot be used: {error}")]
    Map {
        /// Which map.
        name: &'static str,
        /// Why.
        error: aya::maps::MapError,
    },
    /// The object lacks a program or map, so daemon and kernel side are of different builds.
    #[error("the kernel side has no `{0}`: it was built from other sources than the daemon")]
    Missing(&'static str),
    /// No kind of hook that the configuration allows could be attached.
    #[error("the hook {hook} cannot be attached: {reasons}\n  remedy: {remedy}")]
    Hook {
        /// Which hook.
        hook: &'static str,
        /// What each kind answered.
        reasons: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Without attach cookies, two probes look alike to the kernel side.
    #[error(
        "cannot attach to {file} at offset {offset:#x}: this kernel has no attach cookies (5.15 and later do), and \
         another function, or one of another service, is traced at the same place within a page\n  remedy: a newer \
         kernel, or trace only one of the two"
    )]
    SamePlace {
        /// Which file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
    },
    /// A probe on an SDK function was refused.
    #[error("cannot attach to {file} at offset {offset:#x}: {error}")]
    Sdk {
        /// Which file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// Why.
        error: aya::programs::ProgramError,
    },
    /// Something cannot be pinned.
    #[error("cannot pin {path}: {reason}")]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A USDT probe with a semaphore was refused.
    #[error(
        "cannot attach to {file} at offset {offset:#x}: {error}\n  remedy: a USDT probe with a semaphore needs the `ref_ctr_offset` of /sys/bus/event_source/devices/uprobe/format"
    )]
    Semaphore {
        /// Which file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// Why.
        error: std::io::Error,
    },
    /// The kernel cannot tell one USDT probe from another.
    #[error(
        "no USDT probe of {file} can be traced: this kernel has no attach cookies\n  remedy: kernel 5.15 or later, or trace a function (`symbol`)"
    )]
    NoUsdt {
        /// Which file.
        file: PathBuf,
    },
    /// The kernel side's table is full.
    #[error(
        "no room for another place of a USDT probe in {file}: {MAX_USDT_SITES} are in use\n  remedy: name fewer probes"
    )]
    TooManyUsdtSites {
        /// Which file.
        file: PathBuf,
    },
}

/// The kernel side's object file, built by build.rs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/linktracer"));

/// The loaded kernel side. Dropping it detaches everything that is not pinned.
pub struct Kernel {
    ebpf: Ebpf,
    hooks: Vec<AttachedHook>,
    sdk: sdk::SdkProbes,
    usdt: usdt::UsdtProbes,
    links: ProbeLinks,
    pins: Option<PinSet>,
    targets: HashMap<MapData, u32, u32>,
    collectors: LpmTrie<MapData, CollectorKey, u32>,
    switch: Array<MapData, u32>,
    kernel_log: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
}

/// What the daemon reads from the kernel side.
pub struct Channels {
    /// Records.
    pub ring: Ring,
    /// Hits by hook and outcome.
    pub counters: Counters,
}

/// How to load.
#[derive(Debug)]
pub struct Settings {
    /// Where fields stand in this kernel's structures.
    pub offsets: Offsets,
    /// Bytes of the ring, a power of two.
    pub ring_bytes: u32,
    /// Which kind of hook to use.
    pub hooks: HookChoice,
    /// Are there collectors? Sends to them are reports; which they are is said later.
    pub has_collectors: bool,
    /// Added to the state of a process that is not known yet.
    pub pending_flags: u32,
    /// Let the kernel side log what it loses, at some cost per loss.
    pub kernel_log: bool,
}

impl Kernel {
    /// Loads the kernel side and attaches the hooks that belong to no file. SDK functions follow by
    /// [`Self::attach_sdk`]. What is in `pins` already is taken as it is, the rest is pinned there.
    ///
    /// # Errors
    /// See [`AttachError`]; nothing stays attached but what was pinned by then.
    pub fn load(settings: &Settings, pins: Option<PinSet>) -> Result<(Self, Channels), AttachError> {
        if let Some(pins) = &pins {
            pins.create()
                .map_err(|error| AttachError::Pin { path: pins.path(""), reason: error.to_string() })?;
        }
        let mut ebpf = load_object(settings, pins.as_ref())?;
        let ring = ebpf.take_map("EVENTS").ok_or(AttachError::Missing("EVENTS"))?;
        let ring = Ring::open(ring).map_err(|error| AttachError::Map { name: "EVENTS", error })?;
        let counters = take(&mut ebpf, "COUNTERS")?;
        let targets = take(&mut ebpf, "TARGETS")?;
        let switch = take(&mut ebpf, "SWITCH")?;
        let collectors = take(&mut ebpf, "COLLECTORS")?;
        let kernel_log = settings.kernel_log.then(|| aya_log::EbpfLogger::init(&mut ebpf).ok()).flatten();
        let hooks = hooks::attach_all(&mut ebpf, settings.hooks, pins.as_ref())?;
        let places = (!has_cookies()).then(|| take(&mut ebpf, "PLACES")).transpose()?;
        let links = ProbeLinks::of(pins.as_ref());
        let sdk = sdk::SdkProbes::load(&mut ebpf, places)?;
        let usdt = usdt::UsdtProbes::new(take(&mut ebpf, "USDT_SITES")?, sdk.sleepable(), &links);
        let counters = Counters { map: counters, programs: LoadedPrograms::of(&ebpf, pins.as_ref()) };
        let kernel = Self { ebpf, hooks, sdk, usdt, links, pins, targets, collectors, switch, kernel_log };
        Ok((kernel, Channels { ring, counters }))
    }

    /// The hooks that belong to no file, and which kind each became.
    pub fn hooks(&self) -> &[AttachedHook] {
        &self.hooks
    }

    /// Can probes on SDK functions wait for memory that is not resident?
    pub fn sleepable(&self) -> bool {
        self.sdk.sleepable()
    }

    /// Does what is attached stay when this process ends?
    pub const fn is_pinned(&self) -> bool {
        self.pins.is_some()
    }

    /// Attaches to one place in one file, in every process that maps it. False when a predecessor did.
    /// The probe goes with this process until [`Self::pin_probes`].
    ///
    /// # Errors
    /// The kernel refuses, or the table of USDT probes is full.
    pub fn attach_sdk(&mut self, site: &SdkSite) -> Result<bool, AttachError> {
        match &site.place {
            SdkPlace::Function(ids) => self.sdk.attach(&mut self.ebpf, site, *ids, &mut self.links),
            SdkPlace::Usdt(place) => self.usdt.attach(&mut self.ebpf, site, place, &mut self.links),
        }
    }

    /// Attaches to a function of a TLS library, in every process that maps the file; which of them
    /// count is in the table of processes. True when the probe is new.
    ///
    /// # Errors
    /// [`AttachError::Sdk`].
    pub fn attach_tls(
        &mut self,
        function: &TlsFunction,
        file: &Path,
        file_identity: &str,
        offset: u64,
    ) -> Result<bool, AttachError> {
        let name = format!("tls-{file_identity}-{offset:x}");
        tls::attach(&mut self.ebpf, function, file, offset, name, &mut self.links)
    }

    /// Has the probes on functions outlive this process, where there are pins. Until then, whoever
    /// comes after a sudden end attaches them anew, and knows that they were not there.
    ///
    /// # Errors
    /// [`AttachError::Pin`].
    pub fn pin_probes(&mut self) -> Result<(), AttachError> {
        self.pins.as_ref().map_or(Ok(()), |pins| self.links.pin(pins))
    }

    /// Says that whoever comes next can go on with this kernel side. Does nothing the second time.
    ///
    /// # Errors
    /// [`AttachError::Pin`].
    pub fn complete_pins(&mut self) -> Result<(), AttachError> {
        let Some(pins) = &mut self.pins else { return Ok(()) };
        pins.complete().map_err(|error| AttachError::Pin { path: pins.path(""), reason: error.to_string() })
    }

    /// Starts or ends capture, for all hooks at once.
    ///
    /// # Errors
    /// [`AttachError::Map`].
    pub fn set_capture(&mut self, on: bool) -> Result<(), AttachError> {
        let value = if on { SWITCH_ON } else { SWITCH_OFF };
        self.switch.set(0, value, 0).map_err(|error| AttachError::Map { name: "SWITCH", error })
    }

    /// Captures what the process sends and connects to, as far as its service asks for it
    /// ([`target_flags`]).
    ///
    /// # Errors
    /// [`AttachError::Map`], when the table is full.
    pub fn trace_process(&mut self, pid: u32, flags: u32) -> Result<(), AttachError> {
        self.targets
            .insert(pid, TARGET_TRACED | flags, 0)
            .map_err(|error| AttachError::Map { name: "TARGETS", error })
    }

    /// From now on what goes to a port of this network is a report.
    ///
    /// # Errors
    /// [`AttachError::Map`], when the table is full.
    pub fn add_collector(&mut self, network: Network, port: u16) -> Result<(), AttachError> {
        self.collectors
            .insert(&collector_key(network, port), 1, 0)
            .map_err(|error| AttachError::Map { name: "COLLECTORS", error })
    }

    /// No longer a collector.
    pub fn remove_collector(&mut self, network: Network, port: u16) {
        // What is not in the table is as forgotten as it can be.
        let _ = self.collectors.remove(&collector_key(network, port));
    }

    /// No longer captures what the process sends and connects to.
    pub fn forget_process(&mut self, pid: u32) {
        // A process that is not in the table is as forgotten as it can be.
        let _ = self.targets.remove(&pid);
    }

    /// Process ids in the table, whatever their state.
    pub fn processes(&self) -> Vec<u32> {
        self.targets.keys().filter_map(Result::ok).collect()
    }

    /// Passes on what the kernel side logged, where that is on.
    pub fn flush_kernel_log(&mut self) {
        if let Some(log) = &mut self.kernel_log {
            log.flush();
        }
    }
}

/// Creates the maps and makes the programs ready to be loaded one by one.
fn load_object(settings: &Settings, pins: Option<&PinSet>) -> Result<Ebpf, AttachError> {
    let wakeup_bytes = u64::from(settings.ring_bytes) / WAKEUP_FILL_DIVISOR;
    let log_level: u8 = if settings.kernel_log { aya_log::Level::Debug as u8 } else { 0 };
    let has_collectors = u32::from(settings.has_collectors);
    let mut loader = EbpfLoader::new();
    if let Some(pins) = pins {
        for name in pins::PINNED_MAPS {
            loader.map_pin_path(name, pins.path(name));
        }
    }
    Ok(loader
        .override_global("OFFSETS", &settings.offsets, true)
        .override_global("WAKEUP_BYTES", &wakeup_bytes, true)
        .override_global("HAS_COLLECTORS", &has_collectors, true)
        .override_global("PENDING_FLAGS", &settings.pending_flags, true)
        .override_global("HAS_COOKIES", &u32::from(has_cookies()), true)
        .override_global(aya_log::LEVEL, &log_level, true)
        .map_max_entries("EVENTS", settings.ring_bytes)
        .load(OBJECT)?)
}

/// Does the kernel hand a cookie to the programs of a probe? Found by loading a program that asks for one.
fn has_cookies() -> bool {
    aya::features().bpf_cookie()
}

/// What the kernel side has to know of a process of this service.
pub const fn target_flags(service: &Service) -> u32 {
    let Some(request) = &service.request else { return 0 };
    let bodies = if request.body.is_some() { TARGET_BODIES } else { 0 };
    let tls = if request.tls { TARGET_TLS } else { 0 };
    TARGET_MESSAGES | bodies | tls
}

/// Key of a network in the kernel's table: the port is always compared as a whole.
fn collector_key(network: Network, port: u16) -> Key<CollectorKey> {
    let mut key: CollectorKey = [0; size_of::<CollectorKey>()];
    key[..2].copy_from_slice(&port.to_be_bytes());
    key[2..].copy_from_slice(&network.first_address().octets());
    Key::new(COLLECTOR_KEY_BITS - 128 + u32::from(network.prefix_len()), key)
}

/// Takes a map out of the object.
fn take<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, AttachError>
where
    T: TryFrom<aya::maps::Map, Error = aya::maps::MapError>,
{
    let map = ebpf.take_map(name).ok_or(AttachError::Missing(name))?;
    T::try_from(map).map_err(|error| AttachError::Map { name, error })
}

/// The kernel side's counters.
pub struct Counters {
    map: PerCpuArray<MapData, u64>,
    programs: LoadedPrograms,
}

impl Counters {
    /// How often the hook had this outcome since its map was made, on all CPUs together.
    ///
    /// # Errors
    /// The kernel refused the look-up.
    pub fn read(&self, hook: Hook, outcome: HitOutcome) -> Result<u64, aya::maps::MapError> {
        let values = self.map.get(&counter_index(hook, outcome), 0)?;
        Ok(values.iter().sum())
    }

    /// How many counts [`Self::all`] has.
    pub const COUNT: usize = COUNTER_COUNT as usize + Hook::ALL.len();

    /// Where in [`Self::all`] it stands how often a hook was skipped.
    pub const fn place_of_skipped(hook: Hook) -> usize {
        COUNTER_COUNT as usize + hook as usize
    }

    /// Every count by its place in the table; one that cannot be read is 0. After them, how often each
    /// hook was skipped.
    pub fn all(&self) -> Vec<u64> {
        let count = |place| self.map.get(&place, 0).map_or(0, |values| values.iter().sum());
        let skipped = Hook::ALL.into_iter().map(|hook| self.skipped(hook));
        (0..COUNTER_COUNT).map(count).chain(skipped).collect()
    }

    /// How often the kernel did not run the hook at all, where it tells.
    pub fn skipped(&self, hook: Hook) -> u64 {
        self.programs.skipped(hook)
    }
}
