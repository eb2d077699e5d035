//! What the end-to-end and differential tests share.
//!
//! End-to-end tests run the built binary as a person would, as root, on this machine's kernel. Each
//! cleans up after itself: processes are children that are killed when their handle is dropped.

pub mod browser;
pub mod cgroups;
pub mod commanded;
pub mod daemon;
pub mod go;
pub mod kubernetes;
pub mod otlp;
pub mod promtool;
pub mod reference;
pub mod server;
pub mod simulation;
pub mod templates;
pub mod week;

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

/// The daemon under test: the one that `cargo xtask test` names, else the one it builds.
///
/// # Panics
/// There is none.
pub fn binary() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/checked/linktracer");
    let binary = env::var_os("LINKTRACER_BIN").map_or(built, PathBuf::from);
    assert!(binary.exists(), "{} is not there; run `cargo xtask test`, which builds it", binary.display());
    binary
}

/// Runs the daemon with these arguments to its end.
///
/// # Panics
/// It cannot be started.
pub fn linktracer(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).output().expect("the binary starts")
}

/// What executes the rest of a command line under the seccomp profile that is deployed.
///
/// # Panics
/// The profile is not there.
pub fn within_seccomp() -> [String; 3] {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = |path: PathBuf| path.canonicalize().expect("is there").to_str().expect("UTF-8").to_owned();
    let profile = text(package.join("../deploy/seccomp/linktracer.json"));
    ["/usr/bin/python3".to_owned(), text(package.join("fixtures/within_seccomp.py")), profile]
}

/// Asks `question` until it has an answer.
///
/// # Panics
/// There is none within `limit`.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut question: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a finished process printed, for messages.
pub fn printed(output: &Output) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    format!("{}\n{stdout}{stderr}", output.status)
}
