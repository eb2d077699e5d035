//! Started without root: each capability that is left out is missed by name, and nothing else is.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
};

use tests::{binary, daemon::free_address, printed};
use tracer_user::demo::fixture::Fixture;

/// The documented set, with what stands for what: `BPF` and `PERFMON` are parts of `SYS_ADMIN`.
const ALL: [&str; 5] = ["SYS_ADMIN", "BPF", "PERFMON", "SYS_PTRACE", "DAC_READ_SEARCH"];
const PARTS_OF_ADMIN: [&str; 2] = ["BPF", "PERFMON"];

/// Runs `linktracer check` as a user who owns nothing and has these capabilities.
fn check(folder: &Path, capabilities: &[&str]) -> (bool, String) {
    let plus: String = capabilities.iter().map(|name| format!(",+{}", name.to_lowercase())).collect();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    for set in ["--inh-caps", "--ambient-caps", "--bounding-set"] {
        command.arg(format!("{set}=-all{plus}"));
    }
    let output = command
        .arg(folder.join("linktracer"))
        .args(["check", "--config"])
        .arg(folder.join("linktracer.yaml"))
        .current_dir("/")
        .process_group(0)
        .output()
        .expect("setpriv starts");
    (output.status.success(), printed(&output))
}

/// The capabilities that are called missing, in the order of [`ALL`].
fn missed(text: &str) -> Vec<&'static str> {
    let named = |name: &&str| {
        let mut lines = text.lines().filter(|line| line.contains("missing CAP_"));
        lines.any(|line| line.contains(&format!("CAP_{name}")))
    };
    ALL.into_iter().filter(named).collect()
}

#[test]
fn a_capability_that_is_missing_is_named_and_no_other() {
    let fixture = Fixture::unpack().expect("unpacks");
    let scratch = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()
        .expect("a scratch folder");
    // The build's folder may not be readable for somebody else.
    fs::copy(binary(), scratch.path().join("linktracer")).expect("the scratch folder is writable");
    let text = format!(
        "listen: {}\nservices:\n  - name: demo\n    match: {{ exe: {} }}\n    \
         click: {{ library: {}, symbol: trackClick, args: \"(request_id cstr, item_id cstr)\" }}\n",
        free_address(),
        fixture.service().display(),
        fixture.library().display()
    );
    fs::write(scratch.path().join("linktracer.yaml"), text).expect("the scratch folder is writable");

    let (fits, text) = check(scratch.path(), &ALL);
    assert!(fits && missed(&text).is_empty(), "{text}");
    for left_out in ALL {
        let rest: Vec<&str> = ALL.into_iter().filter(|name| *name != left_out).collect();
        let (fits, text) = check(scratch.path(), &rest);
        let expected = if PARTS_OF_ADMIN.contains(&left_out) { vec![] } else { vec![left_out] };
        assert_eq!(missed(&text), expected, "without {left_out}: {text}");
        // Kernels differ in whether they ask for SYS_ADMIN, so that is for `run` to find out.
        assert_eq!(fits, expected.is_empty() || left_out == "SYS_ADMIN", "without {left_out}: {text}");
    }
    for left_out in PARTS_OF_ADMIN {
        let rest: Vec<&str> =
            ALL.into_iter().filter(|name| ![left_out, "SYS_ADMIN"].contains(name)).collect();
        let (fits, text) = check(scratch.path(), &rest);
        assert_eq!(missed(&text), ["SYS_ADMIN", left_out], "without {left_out}: {text}");
        assert!(!fits, "{text}");
    }
}
