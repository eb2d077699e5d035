//! A real browser, without a window.

use std::{path::Path, process::Command};

/// Runs the browser on a page; its profile is in the folder `profile`. No name leads anywhere but to this machine. Returns
/// what it prints.
///
/// # Panics
/// It is not there, or fails.
pub fn browse(url: &str, profile: &Path, options: &[&str]) -> String {
    let output = Command::new("chromium-headless-shell")
        .args(["--no-sandbox", "--disable-gpu", "--window-size=1200,1700"])
        .arg("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1")
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(options)
        .arg(url)
        .output()
        .expect("`cargo xtask test` installs the browser");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}
