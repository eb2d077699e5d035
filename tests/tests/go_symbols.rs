//! Functions of Go programs: each toolchain that is here builds the fixture in every way that
//! matters, and what is read from the stripped program is held against the symbol table of the
//! same program unstripped, for every function. At the chosen place the kernel counts each call.
//! Which toolchains those are: `tests::go`.

#![expect(clippy::print_stderr, reason = "what was skipped and what was counted is for people")]

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context as _, Result};
use object::{Object as _, ObjectSymbol as _, SymbolKind};
use proptest::prelude::*;
use tests::{
    daemon::Daemon,
    go::{Link, Toolchain, Way, bare_copy, native, toolchains, ways},
    wait_for,
};
use tracer_user::{
    config::Abi,
    symbols::{self, SiteReason, SymbolError},
};

const TRACK_EXPOSURE: &str = "example.com/shop/sdk.TrackExposure";

type Functions = BTreeSet<(u64, String)>;

/// What the symbol table says, for the code that Go linked.
fn truth(program: &Path) -> Result<Functions> {
    let bytes = fs::read(program)?;
    let elf = object::File::parse(&*bytes)?;
    let address = |name: &str| elf.symbol_by_name(name).map(|symbol| symbol.address());
    let text = address("runtime.text").context("no runtime.text")?;
    let end = address("runtime.etext").context("no runtime.etext")?;
    let functions =
        elf.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition());
    let named = functions.filter(|symbol| (text..end).contains(&symbol.address())).filter_map(|symbol| {
        let name = symbol.name().ok()?;
        let plain = name.strip_suffix(".abi0").or_else(|| name.strip_suffix(".abiinternal")).unwrap_or(name);
        // The start of what a C object brought along is no function.
        (!plain.contains("(.text")).then(|| (symbol.address(), without_types(plain)))
    });
    Ok(named.filter(|(_, name)| name != "runtime.text" && name != "runtime.etext").collect())
}

/// Some releases keep the types of generic functions in one of the two tables only.
fn without_types(name: &str) -> String {
    let name = name.replace('·', ".");
    let types = name.find('[').zip(name.rfind(']'));
    types.map_or_else(|| name.clone(), |(start, end)| format!("{}...{}", &name[..=start], &name[end..]))
}

fn read(program: &Path, within: &Functions) -> Result<Functions, SymbolError> {
    let (first, last) = (within.first().map_or(0, |first| first.0), within.last().map_or(0, |last| last.0));
    let mut functions = Functions::new();
    symbols::each_function(program, &mut |name, address, _| {
        if (first..=last).contains(&address) {
            functions.insert((address, without_types(name)));
        }
    })?;
    Ok(functions)
}

#[track_caller]
fn assert_same(found: &Functions, expected: &Functions, of: &Path) {
    let missing: Vec<_> = expected.difference(found).take(5).collect();
    let extra: Vec<_> = found.difference(expected).take(5).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "{}: of {} functions, not found {missing:x?}; found and not there {extra:x?}",
        of.display(),
        expected.len()
    );
}

fn check_way(toolchain: &Toolchain, way: Way, architecture: &str) -> Result<()> {
    let plain = shop(toolchain, way, false, architecture)?;
    let stripped = shop(toolchain, way, true, architecture)?;
    let expected = truth(&plain)?;
    assert!(expected.len() > 1500, "{} functions in {}", expected.len(), plain.display());
    for program in [plain.clone(), bare_copy(&plain), stripped.clone(), bare_copy(&stripped)] {
        let found = read(&program, &expected).with_context(|| format!("read {}", program.display()))?;
        assert_same(&found, &expected, &program);
        let functions = symbols::find(&program, TRACK_EXPOSURE)?;
        let [function] = functions.as_slice() else { panic!("{functions:?}") };
        assert_eq!((function.abi, function.site.reason), (Abi::Go, SiteReason::AfterStackCheck));
        assert!(function.site.address > function.address);
        let info = symbols::go::build_info(&program)?.context("build information")?;
        assert_eq!(info.go_version, toolchain.version);
        assert_eq!(info.main.map(|module| module.path).as_deref(), Some("example.com/shop"));
    }
    eprintln!(
        "{} {architecture} {way:?}: {} functions, exact in four forms",
        toolchain.version,
        expected.len()
    );
    Ok(())
}

#[test]
fn every_function_of_every_build_is_where_the_symbol_table_has_it() -> Result<()> {
    for toolchain in toolchains() {
        for way in ways() {
            check_way(toolchain, way, native())?;
        }
    }
    Ok(())
}

#[test]
fn every_function_of_a_build_for_the_other_machine_too() -> Result<()> {
    for toolchain in toolchains() {
        for architecture in ["amd64", "arm64"] {
            check_way(toolchain, Way { pie: false, link: Link::Pure }, architecture)?;
            check_way(toolchain, Way { pie: true, link: Link::Pure }, architecture)?;
        }
    }
    Ok(())
}

/// The fixture built in one way, from the cache when it is there.
fn shop(toolchain: &Toolchain, way: Way, stripped: bool, architecture: &str) -> Result<PathBuf> {
    toolchain.fixture("go", way, stripped, architecture)
}

/// A stripped, position-independent program without section headers.
fn bare(toolchain: &Toolchain) -> Result<PathBuf> {
    Ok(bare_copy(&shop(toolchain, Way { pie: true, link: Link::Pure }, true, native())?))
}

#[test]
fn each_kind_of_function_has_its_place() -> Result<()> {
    use SiteReason::{AfterStackCheck, NoStackCheck};
    for toolchain in toolchains() {
        let program = bare(toolchain)?;
        for (name, count, reason) in [
            ("example.com/shop/sdk.(*Client).TrackClick", 1, AfterStackCheck),
            ("example.com/shop/sdk.Client.ByValue", 1, AfterStackCheck),
            ("example.com/shop/sdk.HugeFrame", 1, AfterStackCheck),
            ("example.com/shop/sdk.NoStackCheck", 1, NoStackCheck),
            ("example.com/shop/sdk.Generic[...]", 2, AfterStackCheck),
            ("example.com/shop/sdk.Callback.func1", 1, AfterStackCheck),
            ("*/sdk.Track*", 1, AfterStackCheck),
            ("golang.org/x/net/dns/dnsmessage.(*Parser).Start", 1, AfterStackCheck),
        ] {
            let functions = symbols::find(&program, name).with_context(|| toolchain.version.clone())?;
            assert_eq!(functions.len(), count, "{functions:?}");
            assert!(functions.iter().all(|function| function.site.reason == reason), "{functions:?}");
        }
        let thin = symbols::find(&program, "example.com/shop/sdk.Thin")?;
        let inlined = thin[0].inlined.clone().context("inlining is known since Go 1.18")?;
        assert_eq!((inlined.count, inlined.into), (1, vec!["main.once".to_owned()]));
    }
    Ok(())
}

#[test]
fn what_is_not_there_is_answered_with_what_is() -> Result<()> {
    for toolchain in toolchains() {
        let program = bare(toolchain)?;
        let Err(SymbolError::NotFound { nearest, .. }) = symbols::find(&program, "sdk.TrackExposure") else {
            panic!("a name without its path was found");
        };
        assert_eq!(nearest, [TRACK_EXPOSURE]);
        let Err(SymbolError::NotFound { inlined, .. }) = symbols::find(&program, "example.com/shop/sdk.New")
        else {
            panic!("an inlined function was found");
        };
        assert!(inlined.count >= 1 && inlined.into.contains(&"main.once".to_owned()), "{inlined:?}");
        assert!(matches!(symbols::find(&program, "*"), Err(SymbolError::TooMany { .. })));
        let mut text = Vec::new();
        symbols::describe(&program, Some("*/sdk.Track*"), &mut text)?;
        let text = String::from_utf8(text)?;
        assert!(text.contains(&toolchain.version) && text.contains("after the stack check"), "{text}");
    }
    Ok(())
}

#[test]
fn a_go_program_inside_a_go_program_is_not_taken_for_it() -> Result<()> {
    for toolchain in toolchains() {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("go.mod"), "module example.com/outer\n\ngo 1.18\n")?;
        let source = "package main\n\nimport _ \"embed\"\n\n//go:embed inner\nvar inner []byte\n\nfunc main() { println(len(inner)) }\n";
        fs::write(folder.path().join("main.go"), source)?;
        fs::copy(bare(toolchain)?, folder.path().join("inner"))?;
        let way = Way { pie: true, link: Link::Pure };
        let outer = toolchain.build(folder.path(), way, true, native(), &folder.path().join("outer"))?;
        let outer = bare_copy(&outer);
        assert_eq!(symbols::find(&outer, "main.main")?.len(), 1);
        assert!(matches!(symbols::find(&outer, TRACK_EXPOSURE), Err(SymbolError::NotFound { .. })));
    }
    Ok(())
}

/// Probes by the kernel's own interface, gone with the value.
struct KernelCounters {
    group: String,
}

impl KernelCounters {
    const FOLDER: &str = "/sys/kernel/tracing";

    /// Probes at these offsets of `program`; `None` where this process may not set any.
    fn new(program: &Path, places: &[(&str, u64)]) -> Result<Option<Self>> {
        let events = Path::new(Self::FOLDER).join("uprobe_events");
        let Ok(mut file) = fs::OpenOptions::new().append(true).open(events) else { return Ok(None) };
        let counters = Self { group: format!("linktracer_test_{}", std::process::id()) };
        for (name, offset) in places {
            // Each probe is one write.
            file.write_all(
                format!("p:{}/{name} {}:{offset:#x}\n", counters.group, program.display()).as_bytes(),
            )?;
        }
        counters.enable(true)?;
        Ok(Some(counters))
    }

    fn enable(&self, on: bool) -> Result<()> {
        let file = Path::new(Self::FOLDER).join("events").join(&self.group).join("enable");
        fs::write(file, if on { "1" } else { "0" }).context("switch the probes")
    }

    fn hits(&self, probe: &str) -> Result<u64> {
        let profile = fs::read_to_string(Path::new(Self::FOLDER).join("uprobe_profile"))?;
        let mut lines = profile.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let line = lines.find(|fields| fields.get(1) == Some(&probe)).context("no such probe")?;
        Ok(line.get(2).context("no count")?.parse()?)
    }
}

impl Drop for KernelCounters {
    fn drop(&mut self) {
        let _ = self.enable(false);
        let events = fs::OpenOptions::new().append(true).open(Path::new(Self::FOLDER).join("uprobe_events"));
        if let Ok(mut file) = events {
            let _ = file.write_all(format!("-:{}/\n", self.group).as_bytes());
        }
    }
}

#[test]
fn a_probe_at_the_place_counts_each_call_once_while_stacks_grow() -> Result<()> {
    const CALLS: u64 = 170_000;
    for toolchain in toolchains() {
        for pie in [false, true] {
            let program = bare_copy(&shop(toolchain, Way { pie, link: Link::Pure }, true, native())?);
            let function = symbols::find(&program, TRACK_EXPOSURE)?.remove(0);
            let entry = function.site.file_offset - (function.site.address - function.address);
            let places = [("at_site", function.site.file_offset), ("at_entry", entry)];
            let Some(counters) = KernelCounters::new(&program, &places)? else {
                eprintln!(
                    "skipped: tracefs is not there or not writable, so no probe by the kernel's own interface"
                );
                return Ok(());
            };
            let output = Command::new(&program)
                .args(["grow", &CALLS.to_string()])
                .stderr(Stdio::inherit())
                .output()?;
            assert!(output.status.success());
            assert_eq!(
                String::from_utf8(output.stdout)?.trim(),
                CALLS.to_string(),
                "the fixture's own count"
            );
            let (site, entry) = (counters.hits("at_site")?, counters.hits("at_entry")?);
            eprintln!(
                "{} pie={pie}: {CALLS} calls, {site} hits at the place, {entry} at the entry",
                toolchain.version
            );
            assert_eq!(site, CALLS);
            assert!(entry > CALLS, "no stack grew: {entry} hits at the entry");
        }
    }
    Ok(())
}

/// Where a program's headers, its table of functions, its data and its code are, for damage.
fn vulnerable(bytes: &[u8]) -> Vec<usize> {
    let magic = [0xf1, 0xff, 0xff, 0xff, 0, 0];
    let table =
        bytes.windows(6).position(|window| window == magic || window[..] == [0xf0, 0xff, 0xff, 0xff, 0, 0]);
    let elf = object::File::parse(bytes).expect("the fixture is a program");
    let segments =
        object::Object::segments(&elf).map(|segment| object::ObjectSegment::file_range(&segment).0);
    let starts = segments.filter_map(|start| usize::try_from(start).ok());
    starts.chain(table).chain([0, 0x1000]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_program_is_answered_and_never_ends_the_reader(
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..6000, any::<u8>()), 1..40),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        which in any::<prop::sample::Index>(),
    ) {
        if toolchains().is_empty() {
            return Ok(());
        }
        static PROGRAMS: OnceLock<Vec<(Vec<u8>, Vec<usize>)>> = OnceLock::new();
        let programs = PROGRAMS.get_or_init(|| {
            let ways = [Way { pie: false, link: Link::Pure }, Way { pie: true, link: Link::Pure }];
            let all = toolchains().iter().flat_map(|toolchain| ways.map(|way| (toolchain, way)));
            let build = |(toolchain, way): (&Toolchain, Way)| {
                let path = shop(toolchain, way, way.pie, native()).expect("the fixture builds");
                let bytes = fs::read(path).expect("it was just built");
                let places = vulnerable(&bytes);
                (bytes, places)
            };
            all.map(build).collect()
        });
        let (bytes, places) = which.get(programs);
        let mut bytes = bytes.clone();
        for (place, offset, value) in damage {
            let at = place.get(places) + offset;
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        // Any answer will do, as long as there is one.
        for pattern in [TRACK_EXPOSURE, "*.Track*", "nothing"] {
            let _ = symbols::find_in(Path::new("damaged"), &bytes, pattern);
        }
        let _ = symbols::describe_in(Path::new("damaged"), &bytes, Some("*Track*"), &mut std::io::sink());
        let _ = symbols::go::build_info_in(Path::new("damaged"), &bytes);
    }
}

/// The daemon and not only the kernel: each call of a function whose stack grows is one event, with its ids.
#[test]
fn every_call_of_a_stripped_program_is_one_event() -> Result<()> {
    const CALLS: u32 = 170_000;
    for toolchain in toolchains() {
        for pie in [false, true] {
            let program = bare_copy(&shop(toolchain, Way { pie, link: Link::Pure }, true, native())?);
            let scratch = tempfile::tempdir()?;
            let services = format!(
                "ring_buffer_size: 64MiB\nservices:\n  - name: shop\n    match: {{ exe: {} }}\n    exposure: {{ symbol: {TRACK_EXPOSURE}, args: \"(request_id string, item_id string)\" }}\njoin: {{ lateness: 500ms }}\n",
                program.display()
            );
            let daemon = Daemon::start(scratch.path(), &services);
            let output = Command::new(&program).args(["grow", &CALLS.to_string()]).output()?;
            assert!(output.status.success());
            let events = || daemon.metric("linktracer_events_total", &[("kind", "exposure")]);
            wait_for("every call is an event", Duration::from_secs(60), || {
                assert!(events() <= f64::from(CALLS), "{} events of {CALLS} calls", events());
                (events() == f64::from(CALLS)).then_some(())
            });
            let missing = [("edge", "request_exposure"), ("outcome", "missing_id")];
            assert_eq!(daemon.metric("linktracer_links_total", &missing), 0.0, "{}", daemon.log());
            daemon.finish();
            eprintln!("{} pie={pie}: {CALLS} calls, as many events", toolchain.version);
        }
    }
    Ok(())
}
