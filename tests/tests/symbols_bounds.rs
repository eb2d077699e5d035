//! What reading functions from a large file takes: at most 256 MiB of memory and 2 seconds for 100 MB, whatever is
//! in the file. In a process of its own, whose peak is that of this one test.

#![expect(clippy::print_stderr, reason = "what was measured is for people")]

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::time::{ClockId, clock_gettime};
use tests::go::{Link, Way, bare_copy, native, toolchains};
use tracer_user::{config::SdkArgs, symbols};

const LIMIT_MIB: u64 = 256;
const LIMIT: Duration = Duration::from_secs(2);
const LARGE: usize = 100 << 20;

/// A Go program of 100 MB: most of it data, which is full of what a Go program's tables begin with.
fn large_go_program(folder: &Path) -> Result<Option<PathBuf>> {
    let Some(toolchain) = toolchains().last() else { return Ok(None) };
    let source = folder.join("large");
    fs::create_dir(&source)?;
    fs::write(source.join("go.mod"), "module example.com/large\n\ngo 1.18\n")?;
    fs::write(
        source.join("main.go"),
        "package main\n\nimport (\n\t_ \"embed\"\n\t\"net/http\"\n)\n\n//go:embed data\nvar data []byte\n\nfunc main() { println(len(data)); http.ListenAndServe(\"\", nil) }\n",
    )?;
    let table = [0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8].repeat(LARGE / 8);
    fs::write(source.join("data"), table)?;
    let way = Way { pie: true, link: Link::Pure };
    toolchain.build(&source, way, true, native(), &folder.join("program"))?;
    Ok(Some(bare_copy(&folder.join("program"))))
}

/// A file that is nothing but a section of notes without content, in 100 MB.
fn many_notes(folder: &Path) -> Result<PathBuf> {
    let program = env::current_exe()?;
    let mut bytes = fs::read(program)?;
    let sections = usize::try_from(u64::from_le_bytes(bytes[40..48].try_into()?))?;
    let notes_at = bytes.len();
    // The last section becomes the notes, by the name that it is found by.
    let count = usize::from(u16::from_le_bytes(bytes[60..62].try_into()?));
    let names = sections + 64 * usize::from(u16::from_le_bytes(bytes[62..64].try_into()?));
    let names_at = u64::from_le_bytes(bytes[names + 24..names + 32].try_into()?);
    let victim =
        (1..count).map(|index| sections + 64 * index).find(|at| *at != names).context("a section")?;
    let name =
        usize::try_from(names_at)? + u32::from_le_bytes(bytes[victim..victim + 4].try_into()?) as usize;
    bytes[name..name + 14].copy_from_slice(b".note.stapsdt\0");
    bytes[victim + 4..victim + 8].copy_from_slice(&7_u32.to_le_bytes());
    bytes[victim + 24..victim + 32].copy_from_slice(&(notes_at as u64).to_le_bytes());
    bytes[victim + 32..victim + 40].copy_from_slice(&(LARGE as u64).to_le_bytes());
    let path = folder.join("notes");
    let mut file = fs::File::create(&path)?;
    file.write_all(&bytes)?;
    let note = [
        [8, 28, 3].map(u32::to_le_bytes).concat(),
        b"stapsdt\0".to_vec(),
        vec![b'a'; 24],
        b"p\0n\0".to_vec(),
    ];
    file.write_all(&note.concat().repeat(LARGE / 48))?;
    file.set_len((notes_at + LARGE) as u64)?;
    Ok(path)
}

fn processor_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Peak memory of this process, since the last call.
fn peak_mib() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    fs::write("/proc/self/clear_refs", "5")?;
    Ok(kib / 1024)
}

fn check(program: &Path) -> Result<()> {
    let args = SdkArgs::parse("(request_id cstr, item_id cstr)").expect("is right");
    let mib = fs::metadata(program)?.len() >> 20;
    let shown = program.file_name().unwrap_or_default().to_string_lossy();
    type Look<'a> = &'a dyn Fn(&Path);
    let looks: [(&str, Look<'_>); 4] = [
        ("a name that is not there", &|path| drop(symbols::find(path, "example.com/no.Such"))),
        ("a pattern", &|path| drop(symbols::find(path, "*Track*"))),
        ("a USDT probe", &|path| drop(symbols::find_usdt(path, "*:n*", &args))),
        ("a list of all", &|path| drop(symbols::describe(path, Some("*"), &mut std::io::sink()))),
    ];
    for (what, look) in looks {
        peak_mib()?;
        let before = processor_time();
        look(program);
        let took = processor_time().checked_sub(before).unwrap_or_default();
        let peak = peak_mib()?;
        eprintln!("{shown} ({mib} MiB), {what}: {} ms of processor time, {peak} MiB", took.as_millis());
        assert!(took < LIMIT && peak < LIMIT_MIB, "{}: {took:?}, {peak} MiB", program.display());
    }
    Ok(())
}

#[test]
fn reading_a_large_file_is_bounded() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let go = large_go_program(folder.path())?;
    let path = env::var_os("PATH").unwrap_or_default();
    let installed = ["prometheus", "node"].map(|program| {
        env::split_paths(&path).map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
    });
    let notes = many_notes(folder.path())?;
    for program in go.into_iter().chain(installed.into_iter().flatten()).chain([notes]) {
        check(&program)?;
    }
    Ok(())
}
