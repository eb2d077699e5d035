//! Probes on USDT probes. They have programs of their own, loaded when the first is attached; where the
//! arguments are goes into a table first.
//!
//! A probe with a semaphore is attached by this file and not by aya, which cannot name the semaphore: the
//! kernel then counts it up in every process that maps the file, and down again when the probe goes.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya::{
    Ebpf,
    maps::{Array, MapData},
    programs::{
        ProgramError, UProbe,
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeScope},
    },
};
use tracer_common::usdt::{MAX_USDT_SITES, UsdtIds, usdt_cookie};

use super::{
    AttachError,
    links::ProbeLinks,
    sdk::{SdkFunction, SdkSite, program},
};

/// The table, and what is attached.
pub(super) struct UsdtProbes {
    sites: Array<MapData, UsdtIds>,
    used: u32,
    sleepable: bool,
    loaded: Vec<&'static str>,
}

/// Between the name of a probe's link and its place in the table.
const PLACE_IN_TABLE: &str = "-usdt";

/// Where a USDT probe is.
#[derive(Debug, Clone)]
pub struct UsdtPlace {
    /// Where its ids are.
    pub ids: UsdtIds,
    /// Where in the file its semaphore is, in bytes.
    pub semaphore_offset: Option<u64>,
}

impl UsdtProbes {
    /// The table goes on after the probes that a predecessor left.
    pub(super) fn new(sites: Array<MapData, UsdtIds>, sleepable: bool, links: &ProbeLinks) -> Self {
        let place = |name: &str| name.rsplit_once(PLACE_IN_TABLE)?.1.parse::<u32>().ok();
        let used = links.inherited().filter_map(place).max().map_or(0, |last| last + 1);
        Self { sites, used, sleepable, loaded: Vec::new() }
    }

    /// Attaches to a place, unless a predecessor did and left its link. True when the probe is new.
    pub(super) fn attach(
        &mut self,
        ebpf: &mut Ebpf,
        site: &SdkSite,
        place: &UsdtPlace,
        links: &mut ProbeLinks,
    ) -> Result<bool, AttachError> {
        let link_name = site.link_name() + PLACE_IN_TABLE;
        if links.inherited().any(|name| name.starts_with(&link_name)) {
            return Ok(false);
        }
        let refused = |error| AttachError::Sdk { file: site.file.clone(), offset: site.file_offset, error };
        if !aya::features().bpf_cookie() {
            return Err(AttachError::NoUsdt { file: site.file.clone() });
        }
        if self.used >= MAX_USDT_SITES {
            return Err(AttachError::TooManyUsdtSites { file: site.file.clone() });
        }
        let program = self.loaded(ebpf, site.function).map_err(refused)?;
        self.sites
            .set(self.used, place.ids, 0)
            .map_err(|error| AttachError::Map { name: "USDT_SITES", error })?;
        let cookie = usdt_cookie(self.used, site.probe);
        let link_name = format!("{link_name}{}", self.used);
        self.used += 1;
        match place.semaphore_offset {
            None => {
                let location = UProbeAttachLocation::AbsoluteOffset(site.file_offset);
                let point = UProbeAttachPoint { location, cookie: Some(cookie) };
                let link = program.attach(point, &site.file, UProbeScope::AllProcesses).map_err(refused)?;
                links.keep(link_name, program, link).map_err(refused)?;
            }
            Some(semaphore_offset) => {
                let program = program.fd().map_err(refused)?.as_fd();
                let link = attach_counted(program, &site.file, site.file_offset, semaphore_offset, cookie)
                    .map_err(|error| AttachError::Semaphore {
                        file: site.file.clone(),
                        offset: site.file_offset,
                        error,
                    })?;
                links.keep_own(link_name, link);
            }
        }
        Ok(true)
    }

    /// The program for a function, loaded.
    fn loaded<'e>(
        &mut self,
        ebpf: &'e mut Ebpf,
        function: SdkFunction,
    ) -> Result<&'e mut UProbe, ProgramError> {
        let name = match (function, self.sleepable) {
            (SdkFunction::Exposure, true) => "exposure_usdt_sleepable",
            (SdkFunction::Exposure, false) => "exposure_usdt",
            (SdkFunction::Click, true) => "click_usdt_sleepable",
            (SdkFunction::Click, false) => "click_usdt",
        };
        let program = program(ebpf, name)?;
        if !self.loaded.contains(&name) {
            program.load()?;
            self.loaded.push(name);
        }
        Ok(program)
    }
}

/// `struct perf_event_attr` as far as its version 1 goes.
#[repr(C)]
struct PerfEventAttributes {
    kind: u32,
    size: u32,
    config: u64,
    unused: [u64; 4],
    wakeup_events: u32,
    breakpoint_kind: u32,
    config1: u64,
    config2: u64,
}

const _: () = assert!(size_of::<PerfEventAttributes>() == 72);

/// What `bpf(BPF_LINK_CREATE)` takes for a perf event.
#[repr(C)]
struct LinkAttributes {
    program: i32,
    target: i32,
    attach_kind: u32,
    flags: u32,
    cookie: u64,
}

/// The link of a probe that counts a semaphore up for as long as there is the link, which holds its event.
fn attach_counted(
    program: BorrowedFd<'_>,
    file: &Path,
    file_offset: u64,
    semaphore_offset: u64,
    cookie: u64,
) -> io::Result<OwnedFd> {
    /// In the upper half of `config`, since kernel 4.20.
    const SEMAPHORE_SHIFT: u32 = 32;
    if u32::try_from(semaphore_offset).is_err() {
        return Err(io::Error::other("its semaphore is beyond 4 GiB in the file"));
    }
    let path = CString::new(file.as_os_str().as_bytes())?;
    let event = open_event(&PerfEventAttributes {
        kind: event_kind()?,
        size: 72,
        config: semaphore_offset << SEMAPHORE_SHIFT,
        unused: [0; 4],
        wakeup_events: 0,
        breakpoint_kind: 0,
        config1: path.as_ptr() as u64,
        config2: file_offset,
    })?;
    create_link(program, event.as_fd(), cookie)
}

/// The number by which this kernel knows events of this kind.
fn event_kind() -> io::Result<u32> {
    const FOLDER: &str = "/sys/bus/event_source/devices/uprobe";
    let format = fs::read_to_string(format!("{FOLDER}/format/ref_ctr_offset"))?;
    if format.trim() != "config:32-63" {
        return Err(io::Error::other(format!(
            "this kernel takes semaphores in another form: {}",
            format.trim()
        )));
    }
    let kind = fs::read_to_string(format!("{FOLDER}/type"))?;
    kind.trim().parse().map_err(io::Error::other)
}

/// An event for every process; `attributes.config1` points to a path that outlives the call.
fn open_event(attributes: &PerfEventAttributes) -> io::Result<OwnedFd> {
    const EVERY_PROCESS: libc::c_int = -1;
    // One processor has to be named; probes of user space fire on all of them.
    const PROCESSOR: libc::c_int = 0;
    const NO_GROUP: libc::c_int = -1;
    const CLOSE_ON_EXEC: libc::c_ulong = 8;
    // SAFETY: the attributes are of the size that they name, and the kernel only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            std::ptr::from_ref(attributes),
            EVERY_PROCESS,
            PROCESSOR,
            NO_GROUP,
            CLOSE_ON_EXEC,
        )
    };
    descriptor(result)
}

fn create_link(program: BorrowedFd<'_>, event: BorrowedFd<'_>, cookie: u64) -> io::Result<OwnedFd> {
    const BPF_LINK_CREATE: libc::c_int = 28;
    const BPF_PERF_EVENT: u32 = 41;
    let attributes = LinkAttributes {
        program: program.as_raw_fd(),
        target: event.as_raw_fd(),
        attach_kind: BPF_PERF_EVENT,
        flags: 0,
        cookie,
    };
    // SAFETY: the size is that of the attributes, and the kernel only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_LINK_CREATE,
            std::ptr::from_ref(&attributes),
            size_of::<LinkAttributes>(),
        )
    };
    descriptor(result)
}

fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    match libc::c_int::try_from(result) {
        // SAFETY: the kernel just made it, and nobody else knows it.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}
