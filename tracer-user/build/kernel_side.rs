//! Finds the compiler and the linker that build the kernel side.
//!
//! The kernel side builds for a target that has no prebuilt `core`, so it takes a toolchain with the library's
//! sources and unstable cargo options: a rustup nightly with `rust-src`, or a distribution's compiler linked into
//! rustup, which accepts unstable options under `RUSTC_BOOTSTRAP=1`.
//!
//! Included by `tracer-user/build.rs`, which builds, and by `xtask`, which installs: both must mean the same toolchain.
//! Standard library only, starts nothing but `rustc -vV`, changes nothing on the machine.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// Names the toolchain to use, as rustup knows it, and nothing else is looked at.
pub(crate) const TOOLCHAIN_VARIABLE: &str = "LINKTRACER_BPF_TOOLCHAIN";

/// The name under which `cargo xtask setup` links a distribution's compiler into rustup.
pub(crate) const LINKED_TOOLCHAIN: &str = "linktracer-bpf";

/// `rust-version` of the crates that the kernel side is made of.
pub(crate) const OLDEST_RUSTC_MINOR: u32 = 95;

/// LLVM versions that bpf-linker 0.13 can be built against. The compiler's must be one of them.
pub(crate) const LLVM_MAJORS: std::ops::RangeInclusive<u32> = 21..=23;

/// Set to `none`, it asks the build script for an empty object in place of the kernel side: lints read the user side's
/// sources and run nothing, and a second full build of the kernel side for them would take a minute.
pub(crate) const KERNEL_SIDE_VARIABLE: &str = "LINKTRACER_KERNEL_SIDE";

/// Older bpf-linkers do not know the LLVM versions of such compilers.
pub(crate) const OLDEST_LINKER: (u32, u32) = (0, 13);

/// A compiler that can build the kernel side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KernelToolchain {
    /// As `rustup run` takes it; without rustup it is `system`, and the compiler on the path is meant.
    pub(crate) name: String,
    /// Directory of the `core` crate's sources.
    pub(crate) sources: PathBuf,
    /// Whether unstable options need `RUSTC_BOOTSTRAP=1`: true of every compiler that is not a nightly.
    pub(crate) needs_bootstrap: bool,
    /// Major version of the compiler's LLVM; the linker's must not be older, or it cannot read the bitcode.
    pub(crate) llvm_major: u32,
    /// `rustc --version` without the word `rustc`, for messages.
    pub(crate) version: String,
}

/// Why one candidate cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// It runs and is new enough; only the library's sources are missing.
    NoSources,
    /// Anything else, in words.
    Other(String),
}

/// The first complete toolchain: the one named by `LINKTRACER_BPF_TOOLCHAIN` if it is set, else the one that setup
/// linked, else a nightly, newest name first; where there is no rustup, the compiler on the path.
///
/// The error is for a person: what was looked at, why it was not taken, and what to do.
pub(crate) fn find_toolchain() -> Result<KernelToolchain, String> {
    if let Some(name) = env::var(TOOLCHAIN_VARIABLE).ok().filter(|name| !name.is_empty()) {
        let directory = toolchain_directory(&name);
        return examine(&name, &directory).map_err(|unfit| {
            format!("{TOOLCHAIN_VARIABLE}={name}: {}\n{OVERRIDDEN}", describe(&unfit, &directory))
        });
    }
    let candidates = candidates();
    let mut refused = Vec::new();
    for (name, directory) in &candidates {
        match examine(name, directory) {
            Ok(toolchain) => return Ok(toolchain),
            Err(unfit) => refused.push(format!("  {name}: {}", describe(&unfit, directory))),
        }
    }
    if refused.is_empty() {
        refused.push(format!("  no nightly and no `{LINKED_TOOLCHAIN}` among rustup's toolchains"));
    }
    Err(format!("no toolchain here can build the kernel side:\n{}\n{REMEDY}", refused.join("\n")))
}

const OVERRIDDEN: &str = "complete that toolchain, or unset the variable to have one chosen";

const REMEDY: &str = "run `cargo xtask setup`, which installs one and says which";

/// Toolchains worth examining with their directories, best first.
pub(crate) fn candidates() -> Vec<(String, PathBuf)> {
    if find_program("rustup").is_none() {
        return system_directory().map(|directory| ("system".to_owned(), directory)).into_iter().collect();
    }
    let mut names: Vec<String> = std::fs::read_dir(rustup_home().join("toolchains"))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name == LINKED_TOOLCHAIN || name.starts_with("nightly"))
        .collect();
    // `nightly-2026-05-20-…` sorts below `nightly-x86_64-…`; both are good, what counts is that the order is fixed.
    names.sort_by(|a, b| (b == LINKED_TOOLCHAIN).cmp(&(a == LINKED_TOOLCHAIN)).then_with(|| b.cmp(a)));
    names.into_iter().map(|name| (name.clone(), toolchain_directory(&name))).collect()
}

/// Whether the toolchain in `directory` can build the kernel side.
pub(crate) fn examine(name: &str, directory: &Path) -> Result<KernelToolchain, Unfit> {
    let rustc = directory.join("bin/rustc");
    let output = Command::new(&rustc)
        .arg("-vV")
        .env_remove("RUSTUP_TOOLCHAIN")
        .output()
        .map_err(|error| Unfit::Other(format!("{} does not start: {error}", rustc.display())))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let Some((release, llvm_major)) = parse_version(&text) else {
        return Err(Unfit::Other(format!("`{} -vV` gives no release and LLVM version", rustc.display())));
    };
    let minor = release.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok()).unwrap_or(0);
    if minor < OLDEST_RUSTC_MINOR {
        return Err(Unfit::Other(format!("rustc {release} is older than 1.{OLDEST_RUSTC_MINOR}")));
    }
    if !LLVM_MAJORS.contains(&llvm_major) {
        let (oldest, newest) = (LLVM_MAJORS.start(), LLVM_MAJORS.end());
        let reason = format!("its LLVM is {llvm_major}, bpf-linker knows {oldest} to {newest}");
        return Err(Unfit::Other(reason));
    }
    let sources = directory.join("lib/rustlib/src/rust/library/core");
    if !sources.join("Cargo.toml").exists() {
        return Err(Unfit::NoSources);
    }
    Ok(KernelToolchain {
        name: name.to_owned(),
        sources,
        needs_bootstrap: !release.contains("nightly"),
        llvm_major,
        version: text.lines().next().unwrap_or_default().trim_start_matches("rustc ").to_owned(),
    })
}

impl KernelToolchain {
    /// Makes this process's environment right for building with this toolchain: `aya_build::build_ebpf` passes its
    /// own environment on to cargo. For a build script only, which is a process of its own; the crates of the user
    /// side are compiled by others and never see `RUSTC_BOOTSTRAP`.
    ///
    /// # Safety
    ///
    /// No other thread may run: changing the environment is not safe against readers in other threads.
    pub(crate) unsafe fn enter(&self, linker: &Path) {
        if self.needs_bootstrap {
            // The value is exactly 1: with a crate's name, its dependencies fail.
            // SAFETY: the caller promises that this is the only thread. So for the others below.
            unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
        }
        // aya-build turns each line of cargo's progress into a warning of the user side, shown again at every build.
        // SAFETY: as above.
        unsafe { env::set_var("CARGO_TERM_QUIET", "true") };
        let directory = linker.parent().unwrap_or(Path::new("/"));
        let path = env::var_os("PATH").unwrap_or_default();
        let wider = std::iter::once(directory.to_path_buf()).chain(env::split_paths(&path));
        if let Ok(wider) = env::join_paths(wider) {
            // SAFETY: as above.
            unsafe { env::set_var("PATH", wider) };
        }
    }
}

/// A `bpf-linker` that is new enough, on the path or among cargo's binaries.
pub(crate) fn find_linker() -> Result<PathBuf, String> {
    let Some(program) = find_program("bpf-linker") else {
        return Err(format!("no bpf-linker on the path or in {}\n{LINKER_REMEDY}", cargo_bin().display()));
    };
    let output = Command::new(&program).arg("--version").output();
    let output = output.map_err(|error| {
        format!("{} does not start: {error} (is its LLVM gone?)\n{LINKER_REMEDY}", program.display())
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split_whitespace().nth(1).unwrap_or("unknown");
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found < OLDEST_LINKER {
        let (major, minor) = OLDEST_LINKER;
        let place = program.display();
        return Err(format!("{place} is version {version}, {major}.{minor} is needed\n{LINKER_REMEDY}"));
    }
    Ok(program)
}

const LINKER_REMEDY: &str = "run `cargo xtask setup`, which builds one against the compiler's LLVM";

/// The first executable of that name on the path, else among cargo's binaries.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain([cargo_bin()]);
    directories.map(|directory| directory.join(name)).find(|program| program.is_file())
}

/// Where `cargo install` puts binaries.
pub(crate) fn cargo_bin() -> PathBuf {
    env::var_os("CARGO_INSTALL_ROOT")
        .or_else(|| env::var_os("CARGO_HOME"))
        .map_or_else(|| home().join(".cargo"), PathBuf::from)
        .join("bin")
}

fn describe(unfit: &Unfit, directory: &Path) -> String {
    match unfit {
        Unfit::NoSources => format!("no library sources (`rust-src`) in {}", directory.display()),
        Unfit::Other(reason) => reason.clone(),
    }
}

/// Release and LLVM's major version from the output of `rustc -vV`.
pub(crate) fn parse_version(text: &str) -> Option<(String, u32)> {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let llvm = value("LLVM version:")?.split('.').next()?.parse().ok()?;
    Some((value("release:")?.to_owned(), llvm))
}

fn toolchain_directory(name: &str) -> PathBuf {
    let toolchains = rustup_home().join("toolchains");
    let exact = toolchains.join(name);
    if exact.exists() {
        return exact;
    }
    // rustup takes `nightly` for `nightly-HOST`.
    let mut longer = std::fs::read_dir(&toolchains)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|other| other.strip_prefix(name).is_some_and(|rest| rest.starts_with('-')))
        .filter(|other| !other[name.len() + 1..].starts_with(|first: char| first.is_ascii_digit()));
    longer.next().map_or(exact, |other| toolchains.join(other))
}

fn system_directory() -> Option<PathBuf> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(path.trim())).filter(|path| path.is_dir())
}

fn rustup_home() -> PathBuf {
    env::var_os("RUSTUP_HOME").map_or_else(|| home().join(".rustup"), PathBuf::from)
}

fn home() -> PathBuf {
    env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from)
}
