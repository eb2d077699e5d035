//! Where in a function its probe goes.
//!
//! A Go function may start with a check of the stack; when there is too little, it calls
//! `runtime.morestack` and afterwards jumps back to its first instruction, which so runs twice in
//! one call. The instruction after the check runs once, and the arguments are still in their
//! registers there. Only the exact code that the Go compiler writes is recognised. Anything else
//! is refused: a wrong count is worse than a missing one.

mod amd64;
mod arm64;

use std::fmt;

use super::image::Machine;

/// Where the probe goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// Its address in the file's own address space.
    pub address: u64,
    /// Its offset from the start of the file in bytes, which is what the kernel attaches by.
    pub file_offset: u64,
    /// Why there.
    pub reason: SiteReason,
}

/// Why a probe goes where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SiteReason {
    /// No Go function: its first instruction.
    FunctionStart,
    /// Right after the check of the stack, which can run twice.
    AfterStackCheck,
    /// Its first instruction, since it never grows the stack.
    NoStackCheck,
}

impl fmt::Display for SiteReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FunctionStart => "first instruction",
            Self::AfterStackCheck => "after the stack check, which can run twice",
            Self::NoStackCheck => "first instruction; it never grows the stack",
        })
    }
}

/// Why a function has no place where a probe would count each call once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SiteRefusal {
    /// No decoder for this machine.
    #[error("Go functions are known on amd64 and arm64 only")]
    OtherMachine,
    /// Nothing there, or too much.
    #[error("its code is not in the file, or is longer than {} KiB", MAX_CODE_LEN >> 10)]
    NoCode,
    /// Bytes that are no instruction.
    #[error("the bytes at {address:#x} are no instruction")]
    NotCode {
        /// Where.
        address: u64,
    },
    /// It grows its stack, but does not start with a check that is known.
    #[error("it grows its stack in a way that is not known, so calls might be counted twice")]
    UnknownStackCheck,
    /// It starts with the check, but what the check jumps to is not known.
    #[error("what its stack check leads to at {address:#x} is not known, so calls might be counted twice")]
    UnknownGrowth {
        /// Where.
        address: u64,
    },
    /// Something in the function jumps to the place.
    #[error(
        "the jump at {address:#x} leads back to the place of the probe, so a call might be counted twice"
    )]
    Loop {
        /// Where.
        address: u64,
    },
    /// Jumps through a table, and no frame whose set-up nothing jumps to.
    #[error("it jumps through a table and has no frame, so a call might be counted twice")]
    IndirectJump,
}

/// Code of one function beyond this is not swept for jumps.
const MAX_CODE_LEN: usize = 256 << 10;

/// A place in code, before it is known where the code is in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    address: u64,
    reason: SiteReason,
}

/// What a function's code is looked at with.
struct Code<'c> {
    machine: Machine,
    bytes: &'c [u8],
    start: u64,
    /// Does a function that makes the stack larger start there?
    is_morestack: &'c dyn Fn(u64) -> bool,
}

impl Code<'_> {
    /// The rule for every machine, given what the decoder found.
    fn choose(&self, found: &Sweep) -> Result<Place, SiteRefusal> {
        let Some(check) = found.check else {
            if found.morestack_calls > 0 {
                return Err(SiteRefusal::UnknownStackCheck);
            }
            let place = Place { address: self.start, reason: SiteReason::NoStackCheck };
            if found.indirect_jump && !found.frame_at_start {
                return Err(SiteRefusal::IndirectJump);
            }
            return found.no_jump_to(self.start..=self.start, None).map(|()| place);
        };
        let growth = check.growth.ok_or(SiteRefusal::UnknownGrowth { address: check.target })?;
        if found.morestack_calls != 1 {
            return Err(SiteRefusal::UnknownGrowth { address: check.target });
        }
        let site = check.site.ok_or(SiteRefusal::UnknownStackCheck)?;
        found.no_jump_to(self.start..=site, Some(growth))?;
        Ok(Place { address: site, reason: SiteReason::AfterStackCheck })
    }
}

/// The stack check at a function's start.
#[derive(Debug, Clone, Copy)]
struct StackCheck {
    /// The instruction after it, if that sets up the frame.
    site: Option<u64>,
    /// Where it jumps when there is too little stack.
    target: u64,
    /// The last instruction of what is there, which jumps to the function's start; `None` when it
    /// is not exactly what the compiler writes.
    growth: Option<u64>,
}

/// What a decoder finds in a function.
#[derive(Debug)]
struct Sweep {
    check: Option<StackCheck>,
    morestack_calls: usize,
    indirect_jump: bool,
    /// The first instruction makes room on the stack.
    frame_at_start: bool,
    /// Jumps to somewhere between the function's start and the instruction after the check.
    jumps_to_start: Vec<(u64, u64)>,
}

impl Sweep {
    fn no_jump_to(
        &self,
        places: std::ops::RangeInclusive<u64>,
        except: Option<u64>,
    ) -> Result<(), SiteRefusal> {
        let mut jumps = self.jumps_to_start.iter();
        let jump = jumps.find(|(from, to)| places.contains(to) && Some(*from) != except);
        jump.map_or(Ok(()), |(from, _)| Err(SiteRefusal::Loop { address: *from }))
    }
}

/// Where the probe of the Go function with this code at `start` goes.
pub(super) fn choose(
    machine: Machine,
    bytes: Option<&[u8]>,
    start: u64,
    is_morestack: &dyn Fn(u64) -> bool,
) -> Result<(u64, SiteReason), SiteRefusal> {
    let bytes = bytes.filter(|bytes| !bytes.is_empty() && bytes.len() <= MAX_CODE_LEN);
    let bytes = bytes.ok_or(SiteRefusal::NoCode)?;
    let code = Code { machine, bytes, start, is_morestack };
    let found = match code.machine {
        Machine::Amd64 => amd64::sweep(&code)?,
        Machine::Arm64 => arm64::sweep(&code)?,
        Machine::Other => return Err(SiteRefusal::OtherMachine),
    };
    code.choose(&found).map(|place| (place.address, place.reason))
}

/// The instruction at the start of `bytes`, for people to read.
pub(super) fn instruction(machine: Machine, bytes: &[u8], address: u64) -> String {
    match machine {
        Machine::Amd64 => amd64::instruction(bytes, address),
        Machine::Arm64 => arm64::instruction(bytes),
        Machine::Other => String::new(),
    }
}

#[cfg(test)]
mod tests;
