//! What this kernel, these privileges and these binaries allow, in plain language.
//!
//! Looks, tries and reports; attaches nothing and changes nothing. `run` refuses to start on a
//! failure found here, `check` prints all of it.

pub mod btf;
mod hold;
mod kubernetes;
pub mod layout;
mod namespaces;
mod privileges;
mod tls;
pub mod tracefs;

use std::{fmt, net::TcpListener, path::Path};

use crate::{
    attach::pins,
    config::{Config, SdkProbe, Service, Target},
    discover, symbols,
};

/// How one check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// As it should be.
    Good,
    /// It will work, with a limit that the text names.
    Limited,
    /// It will not work; the text says what to do.
    Failed,
}

/// One line of the report.
#[derive(Debug, Clone)]
pub struct Check {
    /// What was looked at.
    pub subject: String,
    /// How it went.
    pub status: Status,
    /// What was found, and the remedy where there is something to mend.
    pub text: String,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.status {
            Status::Good => "ok     ",
            Status::Limited => "limited",
            Status::Failed => "FAILED ",
        };
        write!(f, "{mark}  {}: {}", self.subject, self.text)
    }
}

/// Looks at everything that tracing by `config` needs.
pub fn run(config: &Config) -> Vec<Check> {
    let mut checks = privileges::checks();
    checks.extend([namespaces::check(), kernel_layout(&config.btf), uprobes(), kprobes()]);
    checks.push(address(config));
    if let Some(state_dir) = &config.state_dir {
        checks.extend([folder(state_dir), bpffs(&config.pin_dir)]);
    }
    checks.extend(hold::checks(config));
    checks.extend(kubernetes::checks(config));
    for service in &config.services {
        checks.extend(service_checks(service));
    }
    checks
}

/// The checks that failed.
pub fn failures(checks: &[Check]) -> impl Iterator<Item = &Check> {
    checks.iter().filter(|check| check.status == Status::Failed)
}

fn check(subject: impl Into<String>, status: Status, text: impl Into<String>) -> Check {
    Check { subject: subject.into(), status, text: text.into() }
}

fn kernel_layout(btf: &Path) -> Check {
    match layout::read(btf) {
        Ok(_) => {
            check("kernel layout", Status::Good, "type information and tracepoints say all that is needed")
        }
        Err(error) => check("kernel layout", Status::Failed, error.to_string()),
    }
}

fn uprobes() -> Check {
    if Path::new("/sys/bus/event_source/devices/uprobe").exists() {
        check("uprobes", Status::Good, "the kernel has them")
    } else {
        let remedy = "the kernel has none, so no SDK function can be seen\n  remedy: a kernel built with CONFIG_UPROBE_EVENTS=y";
        check("uprobes", Status::Failed, remedy)
    }
}

fn kprobes() -> Check {
    if Path::new("/sys/bus/event_source/devices/kprobe").exists() {
        check("kprobes", Status::Good, "the kernel has them")
    } else {
        check(
            "kprobes",
            Status::Limited,
            "the kernel has none (CONFIG_KPROBES); tracepoints are used instead",
        )
    }
}

/// Subject of the check of the listening address.
pub const LISTEN: &str = "listen";

fn address(config: &Config) -> Check {
    match TcpListener::bind(config.listen) {
        Ok(_) => check(LISTEN, Status::Good, format!("{} is free", config.listen)),
        Err(error) => check(
            LISTEN,
            Status::Failed,
            format!(
                "cannot listen on {}: {error}\n  remedy: stop what uses the port (ss -ltnp shows it), or set `listen:` to another address",
                config.listen
            ),
        ),
    }
}

/// Subject of the check of the folder for state.
pub const STATE_DIR: &str = "state_dir";

/// Can state be kept there? The folder is made by the daemon, so what is there of its path counts.
fn folder(state_dir: &Path) -> Check {
    use rustix::fs::{Access, access};
    let there = state_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let problem = if !state_dir.is_absolute() {
        Some("it is not an absolute path".to_owned())
    } else if !there.is_dir() {
        Some(format!("{} is no folder", there.display()))
    } else {
        access(there, Access::WRITE_OK | Access::EXEC_OK)
            .err()
            .map(|error| format!("{}: {error}", there.display()))
    };
    match problem {
        None => check(STATE_DIR, Status::Good, format!("{} can be written to", state_dir.display())),
        Some(problem) => {
            let remedy = "make it writable, name another folder, or leave `state_dir` out";
            check(
                STATE_DIR,
                Status::Failed,
                format!("{} cannot be used: {problem}\n  remedy: {remedy}", state_dir.display()),
            )
        }
    }
}

/// Can the kernel side outlive the daemon?
fn bpffs(pin_dir: &Path) -> Check {
    const SUBJECT: &str = "pin_dir";
    if pins::is_on_bpffs(pin_dir) {
        let text = format!("{} is on a BPF file system: probes stay while no daemon runs", pin_dir.display());
        check(SUBJECT, Status::Good, text)
    } else {
        let text = format!(
            "{} is not on a BPF file system: what happens while no daemon runs is not seen\n  remedy: mount -t bpf bpf /sys/fs/bpf",
            pin_dir.display()
        );
        check(SUBJECT, Status::Limited, text)
    }
}

/// A file that the configuration names and that is not there. Within a container that says little: the
/// service sees other files, and they are looked at when it starts.
fn missing_file(path: &str, remedy: &str) -> (Status, String) {
    if namespaces::sees_the_hosts_files() {
        (Status::Failed, format!("there is no file {path}\n  remedy: {remedy}"))
    } else {
        (
            Status::Limited,
            format!("there is no file {path} in this container; it is looked for in the service's own"),
        )
    }
}

fn service_checks(service: &Service) -> Vec<Check> {
    let mut checks = Vec::new();
    let subject = |what: &str| format!("service {}, {what}", service.name);
    if let Some(exe) = service.processes.exe.as_ref().and_then(|pattern| pattern.literal())
        && !Path::new(exe).exists()
    {
        let remedy = "correct `match.exe`, or install the service; with `*` in the pattern it may come later";
        let (status, text) = missing_file(exe, remedy);
        checks.push(check(subject("executable"), status, text));
    }
    let running = discover::matching_processes(service);
    let text = match running.len() {
        0 => "none is running now; one that starts later is traced from its start".to_owned(),
        count if service.processes.asks_for_pod() => {
            format!("{count} running now, but for what Kubernetes has to say of them")
        }
        count => format!("{count} running now"),
    };
    checks.push(check(subject("processes"), Status::Good, text));
    checks.extend(tls::service_check(service, &running));
    for (what, probe) in [("exposure", &service.exposure), ("click", &service.click)] {
        let Some(probe) = probe else { continue };
        let places = discover::probe_files(service, probe, &running);
        if places.is_empty() {
            let text = match &probe.library {
                Some(library) if library.starts_with('/') => {
                    let (status, text) = missing_file(library, "correct `library`");
                    checks.push(check(subject(what), status, format!("{}: {text}", probe.place)));
                    continue;
                }
                Some(library) => {
                    format!("{library} is not found yet; it is looked for when a process starts")
                }
                None => "the executable is not known yet; it is looked at when a process starts".to_owned(),
            };
            checks.push(check(subject(what), Status::Limited, text));
        }
        for file in places {
            let (status, text) = found_places(probe, &file);
            checks.push(check(subject(what), status, text));
        }
    }
    checks
}

/// What is said of the places that a probe goes to in a file.
fn found_places(probe: &SdkProbe, file: &Path) -> (Status, String) {
    let (found, key) = match &probe.target {
        Target::Function(name) => {
            (symbols::find(file, name).map(|functions| found_functions(&functions, file)), "symbol")
        }
        Target::Usdt(name) => {
            (symbols::find_usdt(file, name, &probe.args).map(|sites| found_usdt(&sites, file)), "usdt")
        }
    };
    found.unwrap_or_else(|error| {
        let remedy = format!("correct `{key}`; `linktracer symbols FILE` lists what there is");
        (Status::Failed, format!("{}: {error}\n  remedy: {remedy}", probe.place))
    })
}

/// What is said of the places of a USDT probe.
fn found_usdt(sites: &[symbols::UsdtSite], file: &Path) -> (Status, String) {
    let place = |site: &symbols::UsdtSite| {
        let semaphore = if site.semaphore_offset.is_some() { ", with a semaphore" } else { "" };
        format!("USDT probe {} at {:#x} of {}{semaphore}", site.probe, site.address, file.display())
    };
    (Status::Good, sites.iter().map(place).collect::<Vec<_>>().join("\n  "))
}

/// What is said of the functions that a probe's `symbol` means.
fn found_functions(functions: &[symbols::Function], file: &Path) -> (Status, String) {
    let place = |function: &symbols::Function| {
        let (name, site) = (&function.name, function.site);
        format!("{name} at {:#x} of {}, {}", site.address, file.display(), site.reason)
    };
    let mut text = functions.iter().map(place).collect::<Vec<_>>().join("\n  ");
    let mut status = Status::Good;
    for function in functions {
        let Some(inlined) = function.inlined.as_ref().filter(|inlined| inlined.count > 0) else { continue };
        status = Status::Limited;
        text.push_str(&format!(
            "\n  the compiler copied {} into {} others ({}), whose calls are not seen\n  remedy: mark it `//go:noinline`, or trace what it calls",
            function.name,
            inlined.count,
            inlined.into.join(", ")
        ));
    }
    (status, text)
}
