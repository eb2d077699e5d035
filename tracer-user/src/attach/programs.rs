//! What the kernel tells of the programs it was given: how much there was to verify, and how often it did
//! not run them.
//!
//! A program that the kernel skips counts nothing itself, so this loss would show nowhere else. Kernels
//! from 7.2 on skip the tracepoint of a system call while another process, preempted in the midst of it,
//! holds the same processor; older ones skip kprobes and tracepoints when somebody is preempted in a
//! look-up of any BPF map.

use std::{fs, os::fd::AsRawFd as _};

use aya::{
    Ebpf,
    programs::{Program, ProgramError, ProgramFd, ProgramInfo},
};
use tracer_common::{
    counters::Hook,
    limits::DEFAULT_RING_BYTES,
    settings::{Offsets, TARGET_BODIES, TARGET_MESSAGES},
};

use super::{AttachError, Settings, pins::PinSet};
use crate::config::HookChoice;

/// The programs that are loaded, by hook.
pub(super) struct LoadedPrograms(Vec<(Hook, ProgramFd)>);

impl LoadedPrograms {
    /// Those that were loaded now, and those that a predecessor left pinned.
    pub(super) fn of(ebpf: &Ebpf, pins: Option<&PinSet>) -> Self {
        let mut programs: Vec<_> = pins.map(Self::pinned).map(|pinned| pinned.0).unwrap_or_default();
        programs.extend(ebpf.programs().filter_map(|(name, program)| {
            // What is loaded and pinned is there already.
            let is_pinned = pins.is_some_and(|pins| pins.program_path(name).exists());
            let program = program.fd().ok().filter(|_| !is_pinned)?;
            Some((hook_of(name)?, program.try_clone().ok()?))
        }));
        Self(programs)
    }

    /// Those that are pinned.
    pub(super) fn pinned(pins: &PinSet) -> Self {
        let programs = pins.programs().into_iter().filter_map(|(name, path)| {
            let program = ProgramInfo::from_pin(path).and_then(|info| info.fd());
            if let Err(error) = &program {
                tracing::warn!(%error, name, "what the kernel skips of this program is not counted");
            }
            Some((hook_of(&name)?, program.ok()?))
        });
        Self(programs.collect())
    }

    /// How often the kernel did not run a program of the hook. 0 where it does not say (before 5.12).
    pub(super) fn skipped(&self, hook: Hook) -> u64 {
        let of_hook = self.0.iter().filter(|(of, _)| *of == hook);
        of_hook.filter_map(|(_, program)| recursion_misses(program)).sum()
    }
}

/// A program is called after its hook: `write_kprobe`, `exposure_uprobe_sleepable`.
fn hook_of(program: &str) -> Option<Hook> {
    let (hook, _) = program.split_once('_')?;
    Hook::ALL.into_iter().find(|known| known.name() == hook)
}

fn recursion_misses(program: &ProgramFd) -> Option<u64> {
    use std::os::fd::AsFd as _;
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_fd().as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
}

/// What this kernel makes of one program.
#[derive(Debug)]
pub struct Trial {
    /// The program's name.
    pub program: String,
    /// Instructions that the verifier went through, which kernels before 5.16 do not tell; or the kernel's
    /// refusal.
    pub verified: Result<Option<u32>, ProgramError>,
}

/// Has the kernel verify every program, those too that it would never be asked for because it takes a
/// better one. Attaches nothing.
///
/// # Errors
/// The maps cannot be created.
pub fn try_each(offsets: Offsets) -> Result<Vec<Trial>, AttachError> {
    let settings = Settings {
        offsets,
        ring_bytes: DEFAULT_RING_BYTES,
        hooks: HookChoice::Auto,
        // Without any, the verifier would leave a part out.
        has_collectors: true,
        pending_flags: TARGET_MESSAGES | TARGET_BODIES,
        kernel_log: false,
    };
    let mut ebpf = super::load_object(&settings, None)?;
    let mut trials: Vec<Trial> = ebpf
        .programs_mut()
        .map(|(name, program)| Trial { program: name.to_owned(), verified: verify(program) })
        .collect();
    trials.sort_by(|one, other| one.program.cmp(&other.program));
    Ok(trials)
}

fn verify(program: &mut Program) -> Result<Option<u32>, ProgramError> {
    match program {
        Program::KProbe(program) => program.load()?,
        Program::TracePoint(program) => program.load()?,
        Program::UProbe(program) => program.load()?,
        _ => return Err(ProgramError::UnexpectedProgramType),
    }
    Ok(program.info()?.verified_instruction_count())
}

#[cfg(test)]
mod tests {
    use tracer_common::counters::Hook;

    use super::hook_of;

    #[test]
    fn a_program_is_called_after_its_hook() {
        assert_eq!(hook_of("exposure_uprobe_sleepable"), Some(Hook::Exposure));
        assert_eq!(hook_of("write_tracepoint"), Some(Hook::Write));
        assert_eq!(hook_of("writev_kprobe"), Some(Hook::Writev));
        assert_eq!(hook_of("memcpy"), None);
    }
}
