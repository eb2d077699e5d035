//! Builds what goes into the binary beside Rust: the kernel side and the demo's C service.

#[path = "build/fixture.rs"]
mod fixture;
#[path = "build/kernel_side.rs"]
mod kernel_side;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, anyhow};

fn main() -> anyhow::Result<()> {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?);
    for changed in ["build.rs", "build", "../tracer-common/src"] {
        println!("cargo:rerun-if-changed={changed}");
    }
    println!("cargo:rustc-env={COMMIT_VARIABLE}={}", commit());
    fixture::build(&out_dir);
    kernel_object(&out_dir)
}

/// Compiles the kernel side into `OUT_DIR/linktracer`.
fn kernel_object(out_dir: &Path) -> anyhow::Result<()> {
    println!("cargo:rerun-if-env-changed={}", kernel_side::KERNEL_SIDE_VARIABLE);
    println!("cargo:rerun-if-env-changed={}", kernel_side::TOOLCHAIN_VARIABLE);
    if env::var_os(kernel_side::KERNEL_SIDE_VARIABLE).is_some_and(|value| value == "none") {
        return fs::write(out_dir.join("linktracer"), []).context("cannot write the empty object");
    }
    let toolchain = kernel_side::find_toolchain().map_err(|reason| anyhow!(reason))?;
    let linker = kernel_side::find_linker().map_err(|reason| anyhow!(reason))?;
    // SAFETY: a build script has no other thread here.
    unsafe { toolchain.enter(&linker) };
    let package =
        aya_build::Package { name: "tracer-ebpf", root_dir: "../tracer-ebpf", ..Default::default() };
    aya_build::build_ebpf([package], aya_build::Toolchain::Custom(&toolchain.name))
        .with_context(|| format!("cannot build the kernel side with {}", toolchain.version))
}

/// Says which commit this is, where there are the sources alone, as in the build of an image.
const COMMIT_VARIABLE: &str = "LINKTRACER_COMMIT";

/// The commit this is built from, for `linktracer_build_info`.
fn commit() -> String {
    println!("cargo:rerun-if-env-changed={COMMIT_VARIABLE}");
    if let Some(commit) = env::var(COMMIT_VARIABLE).ok().filter(|commit| !commit.is_empty()) {
        return commit;
    }
    println!("cargo:rerun-if-changed=../.git/HEAD");
    println!("cargo:rerun-if-changed=../.git/refs/heads");
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let text = output.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    text.and_then(|text| String::from_utf8(text).ok())
        .map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned())
}
