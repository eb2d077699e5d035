//! The hooks that belong to no file: the send family, connections, and the life of processes.
//!
//! With pins, a hook whose link is there already is left as it is, and each new link is pinned.

use std::path::PathBuf;

use aya::{
    Ebpf,
    programs::{
        KProbe, Program, ProgramError, TracePoint,
        links::{FdLink, LinkError},
    },
};
use tracer_common::counters::Hook;

use super::{
    AttachError,
    pins::{self, PinSet},
};
use crate::config::HookChoice;

/// What a hook became.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookKind {
    /// A kprobe.
    Kprobe,
    /// A tracepoint.
    Tracepoint,
}

impl HookKind {
    /// The name in messages and in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
        }
    }
}

/// A hook that is in place.
#[derive(Debug, Clone, Copy)]
pub struct AttachedHook {
    /// Which hook.
    pub hook: Hook,
    /// What it became.
    pub kind: HookKind,
}

/// What a hook can be attached to.
struct Plan {
    hook: Hook,
    kprobe: Option<(&'static str, &'static str)>,
    tracepoint: (&'static str, &'static str, &'static str),
}

/// The prefix of the kernel's system call entry functions.
macro_rules! entry {
    ($name:literal) => {
        if cfg!(target_arch = "x86_64") {
            concat!("__x64_sys_", $name)
        } else {
            concat!("__arm64_sys_", $name)
        }
    };
}

/// A hook on a system call: program names and places by its name.
macro_rules! send_hook {
    ($hook:ident, $name:literal) => {
        Plan {
            hook: Hook::$hook,
            kprobe: Some((concat!($name, "_kprobe"), entry!($name))),
            tracepoint: (concat!($name, "_tracepoint"), "syscalls", concat!("sys_enter_", $name)),
        }
    };
}

/// Processes are followed before anything is captured, so those hooks come first.
const PLANS: [Plan; 9] = [
    Plan { hook: Hook::Exec, kprobe: None, tracepoint: ("exec_tracepoint", "sched", "sched_process_exec") },
    Plan { hook: Hook::Fork, kprobe: None, tracepoint: ("fork_tracepoint", "task", "task_newtask") },
    Plan { hook: Hook::Exit, kprobe: None, tracepoint: ("exit_tracepoint", "sched", "sched_process_exit") },
    send_hook!(Sendto, "sendto"),
    send_hook!(Sendmsg, "sendmsg"),
    send_hook!(Sendmmsg, "sendmmsg"),
    send_hook!(Write, "write"),
    send_hook!(Writev, "writev"),
    Plan {
        hook: Hook::Connect,
        kprobe: Some(("connect_kprobe", "tcp_connect")),
        tracepoint: ("connect_tracepoint", "sock", "inet_sock_set_state"),
    },
];

/// Attaches every hook, each as the first kind that this kernel takes and `choice` allows.
pub(super) fn attach_all(
    ebpf: &mut Ebpf,
    choice: HookChoice,
    pins: Option<&PinSet>,
) -> Result<Vec<AttachedHook>, AttachError> {
    PLANS.iter().map(|plan| attach(ebpf, plan, choice, pins)).collect()
}

/// The name of a hook's link among the pins.
fn link_name(hook: Hook, kind: HookKind) -> String {
    format!("{}-{}", hook.name(), kind.name())
}

fn attach(
    ebpf: &mut Ebpf,
    plan: &Plan,
    choice: HookChoice,
    pins: Option<&PinSet>,
) -> Result<AttachedHook, AttachError> {
    for kind in [HookKind::Kprobe, HookKind::Tracepoint] {
        if pins.is_some_and(|pins| pins.path(&link_name(plan.hook, kind)).exists()) {
            return Ok(AttachedHook { hook: plan.hook, kind });
        }
    }
    let mut reasons = Vec::new();
    if let Some((program, function)) = plan.kprobe
        && choice != HookChoice::Tracepoint
    {
        let pins = HookPins::of(pins, plan.hook, HookKind::Kprobe, program);
        match kprobe(ebpf, program, function, pins.as_ref())? {
            Ok(()) => return Ok(AttachedHook { hook: plan.hook, kind: HookKind::Kprobe }),
            Err(error) => {
                tracing::debug!(hook = plan.hook.name(), %error, "no kprobe");
                reasons.push(format!("kprobe {function}: {}", chain(&error)));
            }
        }
    }
    if plan.kprobe.is_none() || choice != HookChoice::Kprobe {
        let (program, category, name) = plan.tracepoint;
        let pins = HookPins::of(pins, plan.hook, HookKind::Tracepoint, program);
        match tracepoint(ebpf, program, category, name, pins.as_ref())? {
            Ok(()) => return Ok(AttachedHook { hook: plan.hook, kind: HookKind::Tracepoint }),
            Err(error) => reasons.push(format!("tracepoint {category}:{name}: {}", chain(&error))),
        }
    }
    let remedy = match choice {
        HookChoice::Kprobe => "this kernel may have no kprobes; use `hooks: auto`",
        HookChoice::Tracepoint => "this kernel may lack the tracepoint; use `hooks: auto`",
        HookChoice::Auto => "`linktracer check` shows what is missing",
    };
    Err(AttachError::Hook { hook: plan.hook.name(), reasons: reasons.join("; "), remedy })
}

fn kprobe(
    ebpf: &mut Ebpf,
    program: &'static str,
    function: &str,
    pins: Option<&HookPins>,
) -> Result<Result<(), ProgramError>, AttachError> {
    let found = ebpf.program_mut(program).ok_or(AttachError::Missing(program))?;
    let link = (|| {
        let kprobe: &mut KProbe = found.try_into()?;
        kprobe.load()?;
        match kprobe.attach(function, 0) {
            Ok(link) => pins.map(|_| kprobe.take_link(link)).transpose(),
            Err(error) => {
                kprobe.unload()?;
                Err(error)
            }
        }
    })();
    keep(found, link, pins)
}

fn tracepoint(
    ebpf: &mut Ebpf,
    program: &'static str,
    category: &str,
    name: &str,
    pins: Option<&HookPins>,
) -> Result<Result<(), ProgramError>, AttachError> {
    let found = ebpf.program_mut(program).ok_or(AttachError::Missing(program))?;
    let link = (|| {
        let tracepoint: &mut TracePoint = found.try_into()?;
        tracepoint.load()?;
        let link = tracepoint.attach(category, name)?;
        pins.map(|_| tracepoint.take_link(link)).transpose()
    })();
    keep(found, link, pins)
}

/// Where the pins of a hook are.
struct HookPins {
    link: PathBuf,
    program: PathBuf,
}

impl HookPins {
    fn of(pins: Option<&PinSet>, hook: Hook, kind: HookKind, program: &str) -> Option<Self> {
        let pins = pins?;
        Some(Self { link: pins.path(&link_name(hook, kind)), program: pins.program_path(program) })
    }
}

/// Pins a program, and its link, which was taken out of it for that.
fn keep<L>(
    program: &mut Program,
    link: Result<Option<L>, ProgramError>,
    pins: Option<&HookPins>,
) -> Result<Result<(), ProgramError>, AttachError>
where
    FdLink: TryFrom<L, Error = LinkError>,
{
    let (link, pins) = match (link, pins) {
        (Ok(Some(link)), Some(pins)) => (link, pins),
        (link, _) => return Ok(link.map(drop)),
    };
    // A kernel that cannot pin the link says so first.
    pins::pin(link, &pins.link)?;
    program
        .pin(&pins.program)
        .map_err(|error| AttachError::Pin { path: pins.program.clone(), reason: error.to_string() })?;
    Ok(Ok(()))
}

/// An error with all its causes: the kernel's own word is the last of them.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
