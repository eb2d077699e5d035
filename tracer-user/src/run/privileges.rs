//! Gives up what the daemon does not need, as early as it can.
//!
//! Started as root, it has every capability, and needs six. Which and what for is in `preflight::privileges` and in
//! docs/operations.md. Threads that talk to the network keep none; processes that start later have to be looked at and
//! attached to, so the thread that does this keeps all six. Called by `run` only.

use rustix::{
    io,
    thread::{
        CapabilitySet, CapabilitySets, capabilities, configure_capability_in_ambient_set, set_capabilities,
        set_no_new_privs,
    },
};

/// What tracing needs; what the process does not have of them it does not get.
fn for_tracing() -> CapabilitySet {
    CapabilitySet::SYS_ADMIN
        | CapabilitySet::SYS_PTRACE
        | CapabilitySet::DAC_READ_SEARCH
        | CapabilitySet::SYS_RESOURCE
        | CapabilitySet::PERFMON
        | CapabilitySet::BPF
}

/// Leaves this thread, and those that it starts from now on, what tracing needs. No program that is
/// executed from here can get more.
///
/// # Errors
/// The kernel refused, which it never does when capabilities are only given up.
pub(super) fn keep_for_tracing() -> io::Result<()> {
    set_no_new_privs(true)?;
    keep(for_tracing())
}

/// Has the program that this thread executes next keep what the thread has, whoever it runs as.
///
/// # Errors
/// The kernel refused: the container or unit forbids capabilities to be passed on (`SECBIT_NO_CAP_AMBIENT_RAISE`).
pub(super) fn keep_across_execution() -> io::Result<()> {
    let CapabilitySets { permitted, effective, .. } = capabilities(None)?;
    set_capabilities(None, CapabilitySets { effective, permitted, inheritable: permitted })?;
    permitted.iter().try_for_each(|capability| configure_capability_in_ambient_set(capability, true))
}

/// Leaves this thread nothing, and others what they have: it talks to the network, and needs none of it.
///
/// # Errors
/// As [`keep_for_tracing`].
pub(super) fn keep_nothing() -> io::Result<()> {
    keep(CapabilitySet::empty())
}

fn keep(wanted: CapabilitySet) -> io::Result<()> {
    let CapabilitySets { permitted, .. } = capabilities(None)?;
    let kept = permitted & wanted;
    set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
    )
}
