//! Go toolchains, and programs built with them in every way that matters to a tracer.
//!
//! `LINKTRACER_GO` names toolchains (paths of `go`, separated by colons) besides those found in
//! `PATH` and `/usr/lib/go-*`. Without any the tests say so and pass, unless
//! `LINKTRACER_REQUIRE_GO=1`.

#![expect(clippy::print_stderr, reason = "what was skipped is for people")]

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, OnceLock},
};

use anyhow::{Context as _, Result, ensure};

/// A way to build a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Position-independent.
    pub pie: bool,
    /// Who links.
    pub link: Link,
}

/// Who links, and which relocations a position-independent program gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Go, nothing of C in it.
    Pure,
    /// Go, with parts of C.
    Cgo,
    /// The C toolchain, which leaves the places of pointers empty.
    External,
    /// The same, with DT_RELR.
    ExternalPacked,
}

const WAYS: [Way; 7] = [
    Way { pie: false, link: Link::Pure },
    Way { pie: true, link: Link::Pure },
    Way { pie: false, link: Link::Cgo },
    Way { pie: true, link: Link::Cgo },
    Way { pie: false, link: Link::External },
    Way { pie: true, link: Link::External },
    Way { pie: true, link: Link::ExternalPacked },
];

/// Every way that this machine can build in.
pub fn ways() -> impl Iterator<Item = Way> {
    let compiler = Command::new("cc").arg("--version").output().is_ok();
    if !compiler {
        eprintln!("skipped: no C compiler, so no programs with cgo");
    }
    WAYS.into_iter().filter(move |way| compiler || way.link == Link::Pure)
}

/// Go's name of this machine.
pub const fn native() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// A Go toolchain.
#[derive(Debug, Clone)]
pub struct Toolchain {
    go: PathBuf,
    /// Such as `go1.27.3`.
    pub version: String,
}

/// The toolchains that are here, one of each version.
///
/// # Panics
/// There is none, and there has to be one.
pub fn toolchains() -> &'static [Toolchain] {
    static FOUND: OnceLock<Vec<Toolchain>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let named = env::var("LINKTRACER_GO").unwrap_or_default();
        let path = env::var("PATH").unwrap_or_default();
        let installed = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
        let candidates = env::split_paths(&named)
            .chain(
                installed
                    .filter(|path| path.to_string_lossy().contains("/go-"))
                    .map(|path| path.join("bin/go")),
            )
            .chain(env::split_paths(&path).map(|folder| folder.join("go")));
        let mut found: Vec<Toolchain> = Vec::new();
        for go in candidates.filter(|go| go.is_file()) {
            let Some(version) = version(&go) else { continue };
            if !found.iter().any(|known| known.version == version) {
                found.push(Toolchain { go, version });
            }
        }
        let required = env::var_os("LINKTRACER_REQUIRE_GO").is_some_and(|value| value == "1");
        assert!(!found.is_empty() || !required, "LINKTRACER_REQUIRE_GO=1, and there is no Go toolchain");
        if found.is_empty() {
            eprintln!(
                "skipped: no Go toolchain here (`apt-get install golang-go`, or name one in LINKTRACER_GO)"
            );
        }
        found
    })
}

fn version(go: &Path) -> Option<String> {
    let output = Command::new(go).args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local").output().ok()?;
    let version = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && version.starts_with("go1.")).then_some(version)
}

/// Where programs and Go's cache are kept from run to run.
fn kept() -> PathBuf {
    // Without `..`: the paths of what is built there are compared with those that processes have.
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of it");
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from).join("tmp")
}

impl Toolchain {
    /// The program of `fixtures/NAME`.
    ///
    /// # Errors
    /// It cannot be built.
    pub fn fixture(&self, name: &str, way: Way, stripped: bool, architecture: &str) -> Result<PathBuf> {
        let file = format!(
            "{name}-{architecture}-{:?}{}{}",
            way.link,
            if way.pie { "-pie" } else { "" },
            if stripped { "-stripped" } else { "" }
        );
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
        self.build(&source, way, stripped, architecture, &kept().join("go").join(&self.version).join(file))
    }

    /// Builds a package, once in a run of the tests.
    ///
    /// # Errors
    /// It cannot be built.
    ///
    /// # Panics
    /// An earlier call did.
    pub fn build(
        &self,
        source: &Path,
        way: Way,
        stripped: bool,
        architecture: &str,
        output: &Path,
    ) -> Result<PathBuf> {
        static BUILT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
        let mut built = BUILT.lock().expect("no builder panicked");
        if built.contains(output) {
            return Ok(output.to_path_buf());
        }
        let mut link_flags = if stripped { "-s -w".to_owned() } else { String::new() };
        link_flags.push_str(match way.link {
            Link::Pure | Link::Cgo => "",
            Link::External => " -linkmode=external",
            Link::ExternalPacked => " -linkmode=external -extldflags=-Wl,-z,pack-relative-relocs",
        });
        let mut new = output.as_os_str().to_owned();
        new.push(format!("-new-{}", std::process::id()));
        let status = Command::new(&self.go)
            .current_dir(source)
            .args(["build", "-buildvcs=false", "-ldflags", &link_flags, "-o"])
            .arg(&new)
            .args(if way.pie { &["-buildmode=pie"][..] } else { &["-buildmode=exe"] })
            .arg(".")
            .env("GOCACHE", kept().join("go-cache"))
            .env("GOPROXY", "off")
            .env("GOTOOLCHAIN", "local")
            .env("GOARCH", architecture)
            .env("CGO_ENABLED", if way.link == Link::Pure { "0" } else { "1" })
            .env_remove("GOFLAGS")
            .status()
            .context("run go build")?;
        ensure!(status.success(), "{} cannot build {way:?}", self.version);
        replace(output, Path::new(&new))?;
        without_sections(output)?;
        built.insert(output.to_path_buf());
        Ok(output.to_path_buf())
    }
}

/// Puts `new` in the place of `old`, but not where that is the same already: another run of the tests may
/// be tracing it, and a new file of the same name is another file.
fn replace(old: &Path, new: &Path) -> Result<()> {
    if fs::read(old).is_ok_and(|bytes| fs::read(new).is_ok_and(|other| other == bytes)) {
        fs::remove_file(new)?;
    } else {
        fs::rename(new, old)?;
    }
    Ok(())
}

/// The copy of `program` that has no section headers.
pub fn bare_copy(program: &Path) -> PathBuf {
    let mut name = program.as_os_str().to_owned();
    name.push("-nosections");
    name.into()
}

/// Writes that copy: its file header does not know the section headers any more.
fn without_sections(program: &Path) -> Result<()> {
    let mut bytes = fs::read(program)?;
    bytes[40..48].fill(0); // e_shoff
    bytes[58..64].fill(0); // e_shentsize, e_shnum, e_shstrndx
    let copy = bare_copy(program);
    let mut new = copy.as_os_str().to_owned();
    new.push(format!("-new-{}", std::process::id()));
    fs::write(&new, bytes)?;
    fs::set_permissions(&new, fs::metadata(program)?.permissions())?;
    replace(&copy, Path::new(&new))
}
