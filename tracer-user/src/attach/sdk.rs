//! Probes on the SDK's functions.

use std::{collections::BTreeSet, path::PathBuf};

use aya::{
    Ebpf,
    programs::{
        ProgramError, UProbe,
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope},
    },
};
use tracer_common::settings::sdk_cookie;

use super::{
    AttachError,
    pins::{self, PinSet},
};
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
    /// Where the ids stand among its arguments.
    pub ids: IdArguments,
    /// A number that every record of this probe carries.
    pub probe: u32,
}

impl SdkSite {
    /// The name of the probe's link among the pins.
    fn link_name(&self) -> String {
        let (function, probe) = (self.function.name(), self.probe);
        format!("{function}-{probe}-{}-{:x}", self.file_identity, self.file_offset)
    }
}

/// The loaded programs and what they are attached to.
pub(super) struct SdkProbes {
    sleepable: bool,
    /// Links that a predecessor left.
    inherited: BTreeSet<String>,
    /// Links that are to be pinned.
    unpinned: Vec<(String, UProbeLink)>,
}

impl SdkProbes {
    /// Loads the programs: the sleepable ones where the kernel takes them.
    pub(super) fn load(ebpf: &mut Ebpf, pins: Option<&PinSet>) -> Result<Self, AttachError> {
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
        let inherited = pins.map(PinSet::links).unwrap_or_default();
        Ok(Self { sleepable, inherited, unpinned: Vec::new() })
    }

    pub(super) const fn sleepable(&self) -> bool {
        self.sleepable
    }

    /// Attaches to a place, unless a predecessor did and left its link. True when the probe is new.
    /// With `to_pin`, it stays only as long as this process until [`Self::pin`].
    pub(super) fn attach(
        &mut self,
        ebpf: &mut Ebpf,
        site: &SdkSite,
        to_pin: bool,
    ) -> Result<bool, AttachError> {
        let link_name = site.link_name();
        if self.inherited.contains(&link_name) {
            return Ok(false);
        }
        let name = site.function.programs()[usize::from(!self.sleepable)];
        let location = UProbeAttachLocation::AbsoluteOffset(site.file_offset);
        let cookie = sdk_cookie(site.ids.request_id, site.ids.item_id, site.probe);
        let point = UProbeAttachPoint { location, cookie: Some(cookie) };
        let link = program(ebpf, name).and_then(|program| {
            let link = program.attach(point, &site.file, UProbeScope::AllProcesses)?;
            if to_pin { program.take_link(link).map(Some) } else { Ok(None) }
        });
        let failed = |error| AttachError::Sdk { file: site.file.clone(), offset: site.file_offset, error };
        self.unpinned.extend(link.map_err(failed)?.map(|link| (link_name, link)));
        Ok(true)
    }

    /// Has the new probes outlive this process.
    pub(super) fn pin(&mut self, pins: &PinSet) -> Result<(), AttachError> {
        self.unpinned.drain(..).try_for_each(|(name, link)| pins::pin(link, &pins.path(&name)))
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut UProbe, ProgramError> {
    ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()
}
