//! Links of probes on functions, which outlive this process where there are pins.
//!
//! A new link is pinned only when [`ProbeLinks::pin`] is called, so that whoever attaches can first make
//! sure that it is known since when the probe is there.

use std::{
    collections::BTreeSet,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::programs::{
    ProgramError, UProbe,
    uprobe::{UProbeLink, UProbeLinkId},
};

use super::{
    AttachError,
    pins::{self, PinSet},
};

/// The links, as far as somebody has to hold them.
pub(super) struct ProbeLinks {
    to_pin: bool,
    /// Names of those that a predecessor left.
    inherited: BTreeSet<String>,
    unpinned: Vec<(String, ProbeLink)>,
    /// Those that are no program's and not to be pinned.
    held: Vec<OwnedFd>,
}

enum ProbeLink {
    Aya(UProbeLink),
    Own(OwnedFd),
}

impl ProbeLinks {
    pub(super) fn of(pins: Option<&PinSet>) -> Self {
        let inherited = pins.map(PinSet::links).unwrap_or_default();
        Self { to_pin: pins.is_some(), inherited, unpinned: Vec::new(), held: Vec::new() }
    }

    /// Did a predecessor leave it?
    pub(super) fn is_inherited(&self, name: &str) -> bool {
        self.inherited.contains(name)
    }

    /// Names of all links that a predecessor left.
    pub(super) fn inherited(&self) -> impl Iterator<Item = &str> {
        self.inherited.iter().map(String::as_str)
    }

    /// Has the link of a program stay. Without pins it stays with the program.
    pub(super) fn keep(
        &mut self,
        name: String,
        program: &mut UProbe,
        link: UProbeLinkId,
    ) -> Result<(), ProgramError> {
        if self.to_pin {
            self.unpinned.push((name, ProbeLink::Aya(program.take_link(link)?)));
        }
        Ok(())
    }

    /// As [`Self::keep`], for a link that is no program's. Without pins it stays with this.
    pub(super) fn keep_own(&mut self, name: String, link: OwnedFd) {
        if self.to_pin {
            self.unpinned.push((name, ProbeLink::Own(link)));
        } else {
            self.held.push(link);
        }
    }

    /// Has the new links outlive this process.
    pub(super) fn pin(&mut self, pins: &PinSet) -> Result<(), AttachError> {
        self.unpinned.drain(..).try_for_each(|(name, link)| {
            let path = pins.path(&name);
            match link {
                ProbeLink::Aya(link) => pins::pin(link, &path),
                ProbeLink::Own(link) => pins::pin_descriptor(link.as_fd(), &path)
                    .map_err(|error| AttachError::Pin { path, reason: error.to_string() }),
            }
        })
    }
}
