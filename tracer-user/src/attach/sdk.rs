//! Probes on the SDK's functions.

use std::path::PathBuf;

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
    programs::{
        ProgramError, UProbe,
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeScope},
    },
};
use tracer_common::{
    counters::Hook,
    settings::{place_key, sdk_cookie},
};

use super::{AttachError, links::ProbeLinks, usdt::UsdtPlace};
use crate::config::IdArguments;

/// Which function of the SDK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SdkFunction {
    /// The one that reports an exposure.
    Exposure,
    /// The one that reports a click.
    Click,
}

impl SdkFunction {
    /// The name in the configuration and in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exposure => "exposure",
            Self::Click => "click",
        }
    }

    const fn hook(self) -> Hook {
        match self {
            Self::Exposure => Hook::Exposure,
            Self::Click => Hook::Click,
        }
    }

    const fn programs(self) -> [&'static str; 2] {
        match self {
            Self::Exposure => ["exposure_uprobe_sleepable", "exposure_uprobe"],
            Self::Click => ["click_uprobe_sleepable", "click_uprobe"],
        }
    }
}

/// One place for a probe.
#[derive(Debug, Clone)]
pub struct SdkSite {
    /// Which function.
    pub function: SdkFunction,
    /// The file that holds it, as this process reaches it.
    pub file: PathBuf,
    /// What tells the file from every other; letters, digits and hyphens.
    pub file_identity: String,
    /// Where in the file, in bytes.
    pub file_offset: u64,
    /// What is there.
    pub place: SdkPlace,
    /// A number that every record of this probe carries.
    pub probe: u32,
}

impl SdkSite {
    /// The name of the probe's link among the pins; of a USDT probe, what it begins with.
    pub(super) fn link_name(&self) -> String {
        let (function, probe) = (self.function.name(), self.probe);
        format!("{function}-{probe}-{}-{:x}", self.file_identity, self.file_offset)
    }
}

/// What a probe is put on.
#[derive(Debug, Clone)]
pub enum SdkPlace {
    /// A function, with its ids among its arguments.
    Function(IdArguments),
    /// A USDT probe.
    Usdt(UsdtPlace),
}

/// The loaded programs and what they are attached to.
pub(super) struct SdkProbes {
    sleepable: bool,
    /// Where the kernel has no attach cookies: the cookie of each place.
    places: Option<HashMap<MapData, u32, u64>>,
}

impl SdkProbes {
    /// Loads the programs: the sleepable ones where the kernel takes them. `places` is there when the
    /// kernel has no attach cookies.
    pub(super) fn load(
        ebpf: &mut Ebpf,
        places: Option<HashMap<MapData, u32, u64>>,
    ) -> Result<Self, AttachError> {
        let functions = [SdkFunction::Exposure, SdkFunction::Click];
        let sleepable = functions.iter().all(|function| {
            let loaded = program(ebpf, function.programs()[0]).and_then(UProbe::load);
            if let Err(error) = &loaded {
                tracing::info!(%error, "no sleepable uprobes: ids on pages that are not in memory count as read faults");
            }
            loaded.is_ok()
        });
        if !sleepable {
            for function in functions {
                program(ebpf, function.programs()[1]).and_then(UProbe::load).map_err(|error| {
                    AttachError::Hook {
                        hook: function.name(),
                        reasons: error.to_string(),
                        remedy: "`linktracer check` shows what is missing",
                    }
                })?;
            }
        }
        Ok(Self { sleepable, places })
    }

    pub(super) const fn sleepable(&self) -> bool {
        self.sleepable
    }

    /// Attaches to a place, unless a predecessor did and left its link. True when the probe is new.
    pub(super) fn attach(
        &mut self,
        ebpf: &mut Ebpf,
        site: &SdkSite,
        ids: IdArguments,
        links: &mut ProbeLinks,
    ) -> Result<bool, AttachError> {
        let link_name = site.link_name();
        if links.is_inherited(&link_name) {
            return Ok(false);
        }
        let name = site.function.programs()[usize::from(!self.sleepable)];
        let location = UProbeAttachLocation::AbsoluteOffset(site.file_offset);
        let cookie = sdk_cookie(ids.request_id, ids.item_id, site.probe);
        let cookie = match &mut self.places {
            Some(places) => {
                note_place(places, site, cookie)?;
                None
            }
            None => Some(cookie),
        };
        let point = UProbeAttachPoint { location, cookie };
        program(ebpf, name)
            .and_then(|program| {
                let link = program.attach(point, &site.file, UProbeScope::AllProcesses)?;
                links.keep(link_name, program, link)
            })
            .map(|()| true)
            .map_err(|error| AttachError::Sdk { file: site.file.clone(), offset: site.file_offset, error })
    }
}

/// Notes the cookie of a place, before anything is attached to it.
fn note_place(
    places: &mut HashMap<MapData, u32, u64>,
    site: &SdkSite,
    cookie: u64,
) -> Result<(), AttachError> {
    let key = place_key(site.function.hook(), site.file_offset);
    match places.get(&key, 0) {
        Ok(known) if known != cookie => {
            Err(AttachError::SamePlace { file: site.file.clone(), offset: site.file_offset })
        }
        Ok(_) => Ok(()),
        Err(_) => places.insert(key, cookie, 0).map_err(|error| AttachError::Map { name: "PLACES", error }),
    }
}

pub(super) fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut UProbe, ProgramError> {
    ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()
}
