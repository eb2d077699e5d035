//! What is known of releases, and which release an event belongs to.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    os::unix::fs::{MetadataExt as _, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::process::Signal;
use tests::{daemon::Daemon, printed, wait_for};
use tracer_user::{
    demo::{
        fixture::{Collector, Fixture},
        http::Connection,
    },
    domain::{Release, Releases},
};

const LIMIT: Duration = Duration::from_secs(30);

/// A child that is killed when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("starts");
    assert!(output.status.success(), "{command:?}: {}", printed(&output));
    String::from_utf8(output.stdout).expect("text")
}

fn releases(daemon: &Daemon) -> Vec<Release> {
    let (status, text) = daemon.page("/releases");
    assert_eq!(status, 200, "{text}");
    serde_json::from_str::<Releases>(&text).expect("what the page says it is").releases
}

/// Builds a Go program that waits, from a repository with one more commit; returns its path and the commit.
fn go_build(go: &str, folder: &Path, name: &str, flags: &[&str], cgo: &str) -> (PathBuf, String) {
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.current_dir(folder).args(["-c", "user.name=t", "-c", "user.email=t@example.com"]).args(arguments);
        run(git.env("GIT_CONFIG_GLOBAL", "/dev/null"))
    };
    if !folder.join(".git").exists() {
        git(&["init", "--quiet"]);
        fs::write(folder.join("go.mod"), "module example.com/shop\n\ngo 1.19\n").expect("is writable");
    }
    let source = format!(
        "package main\n\nimport \"os\"\n\n// {name}\nfunc main() {{ os.Stdin.Read(make([]byte, 1)) }}\n"
    );
    fs::write(folder.join("main.go"), source).expect("is writable");
    fs::write(folder.join(".gitignore"), "recommend-*\n").expect("is writable");
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message", name]);
    let program = folder.join(name);
    let mut build = Command::new(go);
    build.current_dir(folder).args(["build", "-buildvcs=true", "-o"]).arg(&program).args(flags).arg(".");
    build.env("GOCACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-cache"));
    run(build
        .env("GOPROXY", "off")
        .env("GOTOOLCHAIN", "local")
        .env("CGO_ENABLED", cgo)
        .env_remove("GOFLAGS"));
    (program, git(&["rev-parse", "HEAD"]).trim().to_owned())
}

#[test]
#[expect(clippy::print_stderr, reason = "what was skipped is for people")]
fn two_builds_of_one_service_are_told_apart_by_what_changed() {
    let Some(go) = env::var("LINKTRACER_GO").ok().and_then(|list| Some(list.split(':').next()?.to_owned()))
    else {
        let required = env::var_os("LINKTRACER_REQUIRE_GO").is_some_and(|value| value == "1");
        assert!(!required, "LINKTRACER_REQUIRE_GO=1, and LINKTRACER_GO names no toolchain");
        eprintln!("skipped: LINKTRACER_GO names no toolchain");
        return;
    };
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let source = scratch.path().join("source");
    fs::create_dir(&source).expect("is writable");
    let (old, old_commit) = go_build(&go, &source, "recommend-old", &["-ldflags=-s -w"], "0");
    let (new, new_commit) = go_build(&go, &source, "recommend-new", &[], "1");
    let services = format!(
        "source: node-a\nservices:\n  - name: shop\n    match: {{ exe: \"{}/recommend-*\" }}\n    \
         release: [go_build_info, \"env:UNUSED\"]\n    report: {{ to: [\"127.0.0.1:9\"] }}\n",
        source.display()
    );
    let start =
        |program: &Path| Running(Command::new(program).stdin(Stdio::piped()).spawn().expect("starts"));
    let running = [start(&old), start(&old)];
    let daemon = Daemon::start(scratch.path(), &services);
    let _later = start(&new);
    let seen = wait_for("both releases are known", LIMIT, || {
        let seen = releases(&daemon);
        (seen.iter().map(|release| release.processes).sum::<u64>() == 3).then_some(seen)
    });
    let of = |commit: &str| {
        let found: Vec<&Release> = seen.iter().filter(|release| release.release == commit).collect();
        assert_eq!(found.len(), 1, "{seen:#?}");
        found[0].clone()
    };
    let (old_release, new_release) = (of(&old_commit), of(&new_commit));
    assert_eq!((seen.len(), old_release.processes, new_release.processes), (2, 2, 1));
    assert!(!old_release.mixed && !new_release.mixed);
    let (before, after) = (&old_release.facts, &new_release.facts);
    assert_eq!(before.commit.as_deref(), Some(&*old_commit));
    assert_eq!(before.executable.as_deref(), old.to_str());
    assert!(before.go_version.as_deref().is_some_and(|version| version.starts_with("go1.")));
    assert_eq!(before.go_version, after.go_version);
    let setting = |name: &str| [before, after].map(|facts| facts.settings.get(name).map(String::as_str));
    assert_eq!(setting("-ldflags"), [Some("-s -w"), None]);
    assert_eq!(setting("CGO_ENABLED"), [Some("0"), Some("1")]);
    drop(running);
    wait_for("the old one is known to be gone", LIMIT, || {
        let seen = releases(&daemon);
        (seen.iter().any(|release| release.release == old_commit && release.processes == 0)).then_some(())
    });
    daemon.finish();
}

/// Waits until what the file system in `folder` calls now is later than the system's clock is now: its stamps are
/// as coarse as the kernel's tick, and a change is only told apart from what happened in another tick.
fn wait_for_a_tick(folder: &Path) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
    let probe = folder.join("tick");
    wait_for("the kernel's clock ticks", LIMIT, || {
        fs::write(&probe, "").expect("is writable");
        let metadata = fs::metadata(&probe).expect("is there");
        let stamp = i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec());
        (stamp > i128::try_from(now).expect("fits")).then_some(())
    });
}

#[test]
fn a_model_that_is_swapped_within_the_container_is_a_new_release_from_that_moment() {
    const CALLS: usize = 50;
    let fixture = Fixture::unpack().expect("unpacks");
    let collector = Collector::start().expect("starts");
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let models = scratch.path().join("models");
    fs::create_dir(&models).expect("is writable");
    let services = format!(
        "services:\n  - name: demo\n    match: {{ exe: {exe} }}\n    \
         release: [\"env:BUILD_COMMIT_TAG\", \"file:{models}/active\"]\n    \
         request: {{ id: {{ header: X-Request-Id }} }}\njoin: {{ lateness: 500ms }}\n",
        exe = fixture.service().display(),
        models = models.display(),
    );
    let daemon = Daemon::start(scratch.path(), &services);
    // The models are in the service's mount namespace alone.
    let script = format!(
        "set -e; mount -t tmpfs tmpfs {models}; ln -s model-0 {models}/active; exec {exe} --port 0 --collector {collector}",
        models = models.display(),
        exe = fixture.service().display(),
        collector = collector.address(),
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).env("BUILD_COMMIT_TAG", "a1b2c3").stdout(Stdio::piped());
    let mut service = Running(command.spawn().expect("unshare starts"));
    let mut line = String::new();
    BufReader::new(service.0.stdout.take().expect("is piped")).read_line(&mut line).expect("is text");
    let port = line.trim().strip_prefix("listening ").and_then(|port| port.parse().ok()).expect("its port");
    let inside = PathBuf::from(format!("/proc/{}/root{}", service.0.id(), models.display()));
    let mut connection = Connection::open(SocketAddr::from(([127, 0, 0, 1], port))).expect("connects");
    let mut request = |name: &str| {
        for call in 0..CALLS {
            let path = format!("/recommend?id={name}-{call}&items=a");
            assert!(connection.get(&path).expect("answers").status < 300);
        }
    };
    let expect = |model: usize, rounds: usize| {
        let release = format!("a1b2c3+model-{model}");
        let labels = [("kind", "request"), ("release", release.as_str())];
        wait_for(&format!("the requests of {release}"), LIMIT, || {
            let (count, expected) =
                (daemon.metric("linktracer_events_total", &labels), (rounds * CALLS) as f64);
            assert!(count <= expected, "{count} requests of {release}\n{}", daemon.log());
            (count == expected).then_some(())
        });
    };
    for swap in 1..10 {
        request(&format!("before{swap}"));
        wait_for_a_tick(&inside);
        symlink(format!("model-{swap}"), inside.join("next")).expect("is writable");
        fs::rename(inside.join("next"), inside.join("active")).expect("is writable");
        // Without waiting for anybody: the change counts, not when it is noticed.
        request(&format!("after{swap}"));
        expect(swap - 1, if swap == 1 { 1 } else { 2 });
        expect(swap, 1);
    }
    // Not even when all of it is already over before the daemon looks.
    daemon.signal(Signal::STOP);
    request("before10");
    wait_for_a_tick(&inside);
    symlink("model-10", inside.join("next")).expect("is writable");
    fs::rename(inside.join("next"), inside.join("active")).expect("is writable");
    request("after10");
    daemon.signal(Signal::CONT);
    expect(9, 2);
    expect(10, 1);
    let seen = wait_for("the last release runs", LIMIT, || {
        let seen = releases(&daemon);
        seen.iter()
            .any(|release| release.release == "a1b2c3+model-10" && release.processes == 1)
            .then_some(seen)
    });
    assert_eq!(seen.len(), 11, "{seen:#?}");
    assert!(seen.iter().all(|release| release.processes == u64::from(release.release.ends_with("-10"))));
    let last = seen.iter().find(|release| release.processes == 1).expect("it runs");
    assert_eq!(last.facts.files.values().collect::<Vec<_>>(), ["model-10"]);
    drop(service);
    daemon.finish();
}
