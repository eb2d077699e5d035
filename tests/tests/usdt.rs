//! USDT probes: of a program of ours with every form of argument that compilers choose, and of runtimes that
//! people run.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use proptest::prelude::*;
use rustix::process::Signal;
use tests::{
    daemon::{Daemon, Pinned},
    linktracer, printed, wait_for,
};
use tracer_user::{config::SdkArgs, symbols};

const LIMIT: Duration = Duration::from_secs(20);

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/usdt").join(name)
}

/// A program that is told by lines what to do, and killed when this is dropped.
struct Told {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Told {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("is installed");
        let input = child.stdin.take().expect("is piped");
        let output = BufReader::new(child.stdout.take().expect("is piped"));
        Self { child, input, output }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("is text");
        line.trim().to_owned()
    }

    /// Makes so many exposures and clicks, and returns how many exposures the program was asked for.
    fn make(&mut self, count: u32) -> u32 {
        writeln!(self.input, "{count}").expect("it reads");
        self.line().parse().expect("a number")
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The fixture, built so.
fn shop(folder: &Path, optimisation: &str) -> PathBuf {
    let program = folder.join("shop");
    let sources = [fixture("exposures.c"), fixture("clicks.c")];
    let output = Command::new("cc").arg(optimisation).args(sources).arg("-o").arg(&program).output();
    let output = output.expect("there is a compiler");
    assert!(output.status.success(), "{}", printed(&output));
    program
}

fn shop_services(program: &Path) -> String {
    format!(
        "services:\n  - name: shop\n    match: {{ exe: {} }}\n    exposure: {{ usdt: \"shop:exposure\", args: \"(number int, request_id cstr, item_id cstr)\" }}\n    click: {{ usdt: \"shop:click\", args: \"(request_id bytes, item_id cstr)\" }}\njoin: {{ lateness: 500ms }}\n",
        program.display()
    )
}

/// Counts exactly what a program made: of one that runs already and of one that starts later, while the
/// daemon is there, and nothing before and after, when the program itself knows that nobody listens.
#[track_caller]
fn check_shop(optimisation: &str) {
    const EARLY: u32 = 1500;
    const LATE: u32 = 700;
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let program = shop(scratch.path(), optimisation);
    let mut early = Told::start(&mut Command::new(&program));
    assert_eq!(early.make(10), 0, "nobody listens yet");
    let daemon = Daemon::start(scratch.path(), &shop_services(&program));
    let attached = |hook| daemon.metric("linktracer_attached_probes", &[("service", "shop"), ("hook", hook)]);
    wait_for("both places of the exposure are attached", LIMIT, || {
        (attached("exposure") == 2.0).then_some(())
    });
    assert_eq!(attached("click"), 1.0);
    assert_eq!(early.make(EARLY), EARLY);
    let mut late = Told::start(&mut Command::new(&program));
    assert_eq!(late.make(LATE), LATE, "the semaphore is up from the first instruction");
    let events = |kind| daemon.metric("linktracer_events_total", &[("kind", kind), ("service", "shop")]);
    let expected = f64::from(EARLY + LATE);
    for kind in ["exposure", "click"] {
        wait_for("each call is one event", LIMIT, || {
            assert!(events(kind) <= expected, "{kind}: {}", events(kind));
            (events(kind) == expected).then_some(())
        });
    }
    // The late process counts from 0, so its ids up to LATE are those of the early one, which made 10 before.
    let outcome = |outcome| {
        daemon.metric("linktracer_links_total", &[("edge", "exposure_click"), ("outcome", outcome)])
    };
    let distinct = f64::from(EARLY + 10);
    wait_for("every click is linked", LIMIT, || (outcome("linked") == distinct).then_some(()));
    assert_eq!(outcome("mismatch") + outcome("orphan") + outcome("missing_id"), 0.0, "{}", daemon.log());
    assert_eq!(daemon.metric("linktracer_lost_events_total", &[]), 0.0);
    daemon.finish();
    assert_eq!(early.make(10), 0, "nobody listens any more");
    assert_eq!(late.make(10), 0);
}

#[test]
fn arguments_where_an_optimising_compiler_has_them() {
    check_shop("-O2");
}

#[test]
fn arguments_where_a_compiler_that_does_not_optimise_has_them() {
    check_shop("-O0");
}

/// A daemon that is killed leaves its probes, and the next one counts what they saw meanwhile.
#[test]
fn probes_stay_where_state_is_kept() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let program = shop(scratch.path(), "-O2");
    let pinned = Pinned::new(scratch.path());
    let text = format!("{}{}", pinned.settings(), shop_services(&program));
    let daemon = Daemon::start(scratch.path(), &text);
    let mut service = Told::start(&mut Command::new(&program));
    assert_eq!(service.make(100), 100, "the semaphore is up from the first instruction");
    daemon.signal(Signal::KILL);
    drop(daemon);
    assert_eq!(service.make(200), 200, "the semaphore stays up");
    let daemon = Daemon::start(scratch.path(), &text);
    assert_eq!(service.make(300), 300);
    let mut late = Told::start(&mut Command::new(&program));
    assert_eq!(late.make(400), 400);
    for kind in ["exposure", "click"] {
        wait_for("each call is one event", LIMIT, || {
            let events = daemon.metric("linktracer_events_total", &[("kind", kind)]);
            assert!(events <= 1000.0, "{kind}: {events}");
            (events == 1000.0).then_some(())
        });
    }
    assert_eq!(daemon.metric("linktracer_coverage_horizon_moves_total", &[]), 0.0, "{}", daemon.log());
    daemon.finish();
    drop(pinned);
    // The kernel takes a link away some time after its last name.
    wait_for("nobody listens any more", LIMIT, || (service.make(10) == 0).then_some(()));
}

#[test]
fn what_cannot_be_read_is_refused_by_name_before_anything_is_attached() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let program = shop(scratch.path(), "-O2");
    let stripped = scratch.path().join("shop-stripped");
    let output = Command::new("strip").arg("-o").arg(&stripped).arg(&program).output().expect("starts");
    assert!(output.status.success());
    for (program, probe, part) in [
        (
            &program,
            "usdt: \"shop:exposed\", args: \"(request_id cstr, item_id cstr)\"",
            "for example, shop:exposure",
        ),
        (
            &program,
            "usdt: \"shop:click\", args: \"(a int, b int, c int, request_id cstr, item_id cstr)\"",
            "`request_id` is `8f@",
        ),
        (
            &program,
            "usdt: \"shop:exposure\", args: \"(a int, request_id cstr, b int, c int, item_id cstr)\"",
            "`item_id` would be its argument 5, and it has 3",
        ),
        (
            &stripped,
            "usdt: \"shop:click\", args: \"(request_id bytes, item_id cstr)\"",
            "no single variable `current_request`",
        ),
    ] {
        let config = scratch.path().join("linktracer.yaml");
        let text = format!(
            "services: [{{ name: shop, match: {{ exe: {} }}, click: {{ {probe} }} }}]\n",
            program.display()
        );
        fs::write(&config, text).expect("is writable");
        let output = linktracer(&["run", "--config", config.to_str().expect("is text")]);
        assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
        assert!(printed(&output).contains(part), "{part:?} is not in {}", printed(&output));
    }
}

#[test]
fn the_probes_of_a_program_are_listed_with_their_arguments() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let program = shop(scratch.path(), "-O2");
    let output = linktracer(&["symbols", program.to_str().expect("is text"), "shop:*"]);
    let text = printed(&output);
    assert!(output.status.success(), "{text}");
    let exposures = text.lines().filter(|line| line.starts_with("shop:exposure") && line.contains(" 0x"));
    assert_eq!(exposures.count(), 2, "{text}");
    assert!(text.contains("8@current_request(%rip) -4@current_len(%rip)"), "{text}");
}

/// The fixture's bytes, and where its notes, its section headers and its file header begin.
fn vulnerable() -> &'static (Vec<u8>, Vec<usize>) {
    static FIXTURE: OnceLock<(Vec<u8>, Vec<usize>)> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let bytes = fs::read(shop(folder.path(), "-O2")).expect("was just built");
        let notes = bytes.windows(8).enumerate().filter(|(_, window)| *window == b"stapsdt\0");
        let mut places: Vec<usize> = notes.map(|(at, _)| at - 12).collect();
        let sections = u64::from_le_bytes(bytes[40..48].try_into().expect("eight bytes"));
        places.extend([0, usize::try_from(sections).expect("is in the file")]);
        (bytes, places)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_program_is_answered_and_never_ends_the_reader(
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..2600, any::<u8>()), 1..30),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let (whole, places) = vulnerable();
        let mut bytes = whole.clone();
        for (place, offset, value) in damage {
            if let Some(byte) = bytes.get_mut(place.get(places) + offset) {
                *byte = value;
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        // Any answer will do, as long as there is one, and what is found is in the file.
        let args = SdkArgs::parse("(request_id bytes, item_id cstr)").expect("is right");
        for probe in ["shop:click", "*:*"] {
            for site in symbols::find_usdt_in(Path::new("damaged"), &bytes, probe, &args).unwrap_or_default() {
                let last = site.file_offset.max(site.semaphore_offset.unwrap_or(0));
                prop_assert!(usize::try_from(last).is_ok_and(|last| last < bytes.len()));
            }
        }
        let _ = symbols::describe_in(Path::new("damaged"), &bytes, Some("*:*"), &mut std::io::sink());
    }
}

/// Debian's Python has probes with semaphores on every call of a function: of those written in Python between two
/// marks there are exactly as many as the script was told.
#[test]
fn calls_of_functions_of_a_python_program() {
    const CALLS: u32 = 1200;
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let python = fs::canonicalize("/usr/bin/python3").expect("is installed");
    let script = fixture("calls.py");
    let mut program = Told::start(Command::new(&python).arg(&script).arg(CALLS.to_string()));
    assert_eq!(program.line(), "ready");
    let services = format!(
        "services:\n  - name: script\n    match: {{ exe: {}, cmdline: \"*fixtures/usdt/calls.py {CALLS}\" }}\n    exposure: {{ usdt: \"python:function__entry\", args: \"(request_id cstr, item_id cstr, line int)\" }}\njoin: {{ lateness: 500ms, exposure_window: 1s }}\n",
        python.display()
    );
    let daemon = Daemon::start(scratch.path(), &services);
    program.input.write_all(b"\n").expect("it reads");
    assert_eq!(program.line(), "done");
    let judged = || {
        let labels = [("edge", "request_exposure"), ("service", "script")];
        daemon.metric("linktracer_links_total", &labels)
    };
    // Each function has a name of its own, so that none is a duplicate of another: the ids are right, too.
    wait_for("each call is one event", LIMIT, || {
        assert!(judged() <= f64::from(CALLS), "{}", judged());
        (judged() == f64::from(CALLS)).then_some(())
    });
    assert_eq!(daemon.metric("linktracer_duplicates_total", &[]), 0.0);
    daemon.finish();
}

/// The Java virtual machine tells of every method that it compiles, with class and name as address and length; so
/// does its own log, with the same number.
#[test]
fn compilations_of_a_java_program() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let java = fs::canonicalize(which("java")).expect("is installed");
    let library = java.parent().expect("bin").join("../lib/server/libjvm.so");
    let library = fs::canonicalize(library).expect("belongs to it");
    let source = scratch.path().join("Shop.java");
    fs::write(&source, JAVA).expect("is writable");
    let services = format!(
        "services:\n  - name: shop\n    match: {{ exe: {}, cmdline: \"*{}*\" }}\n    exposure: {{ library: {}, usdt: \"hotspot:method__compile__begin\", args: \"(compiler bytes, request_id bytes, item_id bytes)\" }}\njoin: {{ lateness: 500ms, exposure_window: 1s }}\n",
        java.display(),
        source.display(),
        library.display()
    );
    let daemon = Daemon::start(scratch.path(), &services);
    let mut run = Command::new(&java);
    run.args([
        "-Xbatch",
        "-XX:TieredStopAtLevel=1",
        "-XX:CompileCommand=quiet",
        "-XX:CompileCommand=compileonly,Shop::track*",
        "-XX:+PrintCompilation",
    ]);
    let mut child = run.arg(&source).stdout(Stdio::piped()).spawn().expect("starts");
    let mut log = String::new();
    child.stdout.take().expect("is piped").read_to_string(&mut log).expect("is text");
    assert!(child.wait().expect("is ours").success(), "{log}");
    let compiled =
        log.lines().filter(|line| line.contains("Shop::track") && !line.contains("made not entrant"));
    let compiled = u32::try_from(compiled.count()).expect("few");
    assert!(compiled >= 10, "{log}");
    let judged = || {
        let labels = [("edge", "request_exposure"), ("service", "shop")];
        daemon.metric("linktracer_links_total", &labels)
    };
    wait_for("each compilation is one event", LIMIT, || {
        assert!(judged() <= f64::from(compiled), "{} of {compiled}\n{log}", judged());
        (judged() == f64::from(compiled)).then_some(())
    });
    daemon.finish();
    let output = linktracer(&["symbols", library.to_str().expect("is text"), "hotspot:method__compile__*"]);
    assert!(printed(&output).contains("hotspot:method__compile__begin"), "{}", printed(&output));
}

fn which(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = std::env::split_paths(&path).map(|folder| folder.join(program));
    candidates.find(|candidate| candidate.is_file()).unwrap_or_else(|| panic!("{program} is not installed"))
}

const JAVA: &str = "public class Shop {
    static int sum;
    static void track0(int by) { sum += by; } static void track1(int by) { sum += 2 * by; }
    static void track2(int by) { sum -= by; } static void track3(int by) { sum ^= by; }
    static void track4(int by) { sum |= by; } static void track5(int by) { sum &= by; }
    static void track6(int by) { sum += 7 * by; } static void track7(int by) { sum += 9 * by; }
    static void track8(int by) { sum -= 3 * by; } static void track9(int by) { sum -= 5 * by; }
    public static void main(String[] arguments) {
        for (int round = 0; round < 20000; round++) {
            track0(round); track1(round); track2(round); track3(round); track4(round);
            track5(round); track6(round); track7(round); track8(round); track9(round);
        }
    }
}
";
