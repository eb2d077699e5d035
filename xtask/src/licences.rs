//! `cargo xtask licences`: the licences of all that is linked into a static build of the daemon, as files to pass on with
//! it: its own, those of the crates of both sides, of Rust's library, and of the C library.
//!
//! Texts are taken from where the build took the code, so it is run after a build and where that was made. What they
//! ask for is for a person to judge.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::{
    cargo,
    command::{command, quietly},
    machine::Machine,
};

/// The project's own, from the repository's top.
const OWN: [&str; 2] = ["LICENSE-MIT", "LICENSE-APACHE"];
/// What Rust says of its library and of what that is made of, from the toolchain's top.
const RUST_LIBRARY: &str = "share/doc/rust/COPYRIGHT-library.html";
/// What Debian says of the C library.
const C_LIBRARY: &str = "/usr/share/doc/libc6/copyright";
/// Where the rest goes.
const THIRD_PARTY: &str = "THIRD-PARTY";

/// The names of all files that are written.
pub(crate) const FILES: [&str; 4] = [OWN[0], OWN[1], "COPYRIGHT-library.html", THIRD_PARTY];

/// What the beginning of a licence file's name is, in capitals.
const BEGINNINGS: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];
/// How far below a crate's folder the C code that some bring along has its licence.
const DEPTH: usize = 2;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The folder to write to; made if it is not there
    folder: PathBuf,
}

/// A crate of another project, as `cargo tree` names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Crate {
    /// `NAME-VERSION`.
    name: String,
    /// What its manifest says.
    licence: String,
}

pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    let machine = Machine::look();
    let folder = &arguments.folder;
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    for name in OWN {
        copy(&machine.workspace.join(name), &folder.join(name))?;
    }
    let sysroot = quietly(command("rustc", ["--print", "sysroot"]).current_dir(&machine.workspace))?;
    copy(&Path::new(sysroot.trim()).join(RUST_LIBRARY), &folder.join(FILES[2]))?;
    let crates = crates(&machine)?;
    let c_library = fs::read_to_string(C_LIBRARY)
        .with_context(|| format!("reading {C_LIBRARY}: a static build is made on Debian"))?;
    let text = third_party(&crates, &registries()?, &c_library)?;
    fs::write(folder.join(THIRD_PARTY), text).with_context(|| format!("writing {THIRD_PARTY}"))?;
    println!("licences of {} crates, Rust's library and the C library in {}", crates.len(), folder.display());
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).with_context(|| format!("copying {} to {}", from.display(), to.display()))
}

/// Every crate that is linked into the daemon or the kernel side.
fn crates(machine: &Machine) -> Result<BTreeSet<Crate>> {
    let mut all = BTreeSet::new();
    for package in ["tracer-user", "tracer-ebpf"] {
        let mut tree = cargo::plain(machine, "tree");
        tree.args(["--package", package, "--edges", "normal,no-proc-macro", "--prefix", "none"]);
        let text = quietly(tree.args(["--locked", "--no-dedupe", "--format", "{p}|{l}"]))?;
        all.extend(text.lines().filter_map(parse));
    }
    ensure!(!all.is_empty(), "`cargo tree` has named no crate");
    Ok(all)
}

/// Of `aya v0.14.0|MIT OR Apache-2.0`; `None` of the workspace's own, which have a path.
fn parse(line: &str) -> Option<Crate> {
    let (package, licence) = line.split_once('|')?;
    let (name, version) = package.split_once(" v")?;
    (!version.contains(' ')).then(|| Crate { name: format!("{name}-{version}"), licence: licence.to_owned() })
}

/// Where cargo has unpacked crates, one folder for each registry.
fn registries() -> Result<Vec<PathBuf>> {
    let sources = cargo::home().join("registry/src");
    let entries = fs::read_dir(&sources).with_context(|| format!("reading {}", sources.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

/// Each text once, below the names of what it belongs to.
fn third_party(crates: &BTreeSet<Crate>, registries: &[PathBuf], c_library: &str) -> Result<String> {
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut without = String::new();
    for one in crates {
        let places: Vec<PathBuf> = registries.iter().map(|registry| registry.join(&one.name)).collect();
        let place = places.iter().find(|place| place.is_dir());
        let place = place.with_context(|| format!("cargo has not unpacked {}: build first", one.name))?;
        let files = licence_files(place, DEPTH)?;
        if files.is_empty() {
            writeln!(without, "{}: {}", one.name, one.licence)?;
        }
        for file in files {
            let bytes = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
            let below = file.strip_prefix(place).unwrap_or(&file).display();
            let text = String::from_utf8_lossy(&bytes).trim().to_owned();
            texts.entry(text).or_default().push(format!("{}: {below}", one.name));
        }
    }
    texts.insert(c_library.trim().to_owned(), vec!["The GNU C library".to_owned()]);
    let mut all = format!(
        "What linktracer is made of beside its own code, and under which licences. Rust's library: {}.\n\n\
         Packages that name their licence and have no text of it:\n{without}",
        FILES[2]
    );
    for (text, names) in texts {
        write!(all, "\n{}\n{}\n\n{text}\n", "=".repeat(80), names.join("\n"))?;
    }
    Ok(all)
}

/// The files that are named like licences, in `folder` and `depth` levels below.
fn licence_files(folder: &Path, depth: usize) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("reading {}", folder.display()))?.path();
        if path.is_dir() {
            if depth > 0 {
                files.extend(licence_files(&path, depth - 1)?);
            }
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        // Sources of a crate about licences are no licence.
        let source = [".RS", ".C", ".H"].iter().any(|ending| name.ends_with(ending));
        if !source && BEGINNINGS.iter().any(|beginning| name.starts_with(beginning)) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_of_others_are_told_from_our_own() {
        let aya = Crate { name: "aya-0.14.0".to_owned(), licence: "MIT OR Apache-2.0".to_owned() };
        assert_eq!(parse("aya v0.14.0|MIT OR Apache-2.0"), Some(aya));
        assert_eq!(parse("tracer-common v0.1.0 (/source/tracer-common)|MIT OR Apache-2.0"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn every_crate_of_the_daemon_is_there_with_a_text_or_by_name() {
        let machine = Machine::look();
        let crates = crates(&machine).expect("cargo names them");
        assert!(crates.iter().any(|one| one.name.starts_with("zstd-sys-")), "{crates:?}");
        let registries = registries().expect("cargo has some");
        let text = third_party(&crates, &registries, "of the C library").expect("they are unpacked");
        for one in &crates {
            assert!(text.contains(&format!("{}: ", one.name)), "{}", one.name);
        }
        // The C code that a crate brings along, below its folder.
        assert!(text.contains(": zstd/LICENSE\n"), "zstd's own");
    }
}
