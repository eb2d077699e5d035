//! What there is to know about the machine this runs on: whose it is, how it installs software, where caches go.

use std::{
    env, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The machine, looked at once.
pub(crate) struct Machine {
    /// Whether this process may install packages, mount file systems and load programs into the kernel.
    pub(crate) root: bool,
    /// How software is installed here.
    pub(crate) packager: Packager,
    /// The repository's top.
    pub(crate) workspace: PathBuf,
    /// Downloads that no package manager owns: `$XDG_CACHE_HOME/linktracer`.
    pub(crate) cache: PathBuf,
}

/// A family of distributions, told apart by its package manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packager {
    /// Debian, Ubuntu: the only one whose packages are installed without asking.
    Apt,
    /// Fedora and its relatives.
    Dnf,
    /// Arch.
    Pacman,
    /// Alpine.
    Apk,
    /// openSUSE.
    Zypper,
    /// None of the known ones.
    Unknown,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let cache = env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map_or_else(
            || PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache"),
            PathBuf::from,
        );
        Self {
            root: fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0),
            packager: Packager::of_this_machine(),
            workspace: workspace(),
            cache: cache.join("linktracer"),
        }
    }
}

impl Packager {
    fn of_this_machine() -> Self {
        let known = [
            ("apt-get", Self::Apt),
            ("dnf", Self::Dnf),
            ("pacman", Self::Pacman),
            ("apk", Self::Apk),
            ("zypper", Self::Zypper),
        ];
        let there =
            |name: &&str| ["/usr/bin", "/sbin", "/bin"].iter().any(|d| Path::new(d).join(name).exists());
        known.iter().find(|(name, _)| there(name)).map_or(Self::Unknown, |(_, packager)| *packager)
    }

    /// The command a person types to install packages.
    pub(crate) fn command(self) -> &'static str {
        match self {
            Self::Apt => "apt-get install --no-install-recommends",
            Self::Dnf => "dnf install",
            Self::Pacman => "pacman -S",
            Self::Apk => "apk add",
            Self::Zypper => "zypper install",
            Self::Unknown => "install",
        }
    }
}

/// Cargo says where this package is; the binary alone remembers where it was built.
fn workspace() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}
