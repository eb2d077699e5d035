//! A probe that is in place, on a function that exists, and is never called while its service sends requests.

use std::{process::Command, time::Duration};

use anyhow::Result;
use tests::{
    daemon::Daemon,
    go::{Link, Way, native, toolchains},
    server::Server,
    wait_for,
};

const LIMIT: Duration = Duration::from_secs(20);
const AFTER: u32 = 200;

#[test]
fn a_function_that_is_never_called_is_reported_until_it_is() -> Result<()> {
    let Some(toolchain) = toolchains().last() else { return Ok(()) };
    let program = toolchain.fixture("goservice", Way { pie: false, link: Link::Pure }, true, native())?;
    let scratch = tempfile::tempdir()?;
    let sdk = "example.com/goservice/sdk.(*Tracker)";
    let services = format!(
        "services:\n  - name: go\n    match: {{ exe: {} }}\n    request: {{ id: {{ header: X-Request-Id }} }}\n    exposure: {{ symbol: \"{sdk}.TrackExposure\", args: \"(tracker pointer, ctx interface, request_id string, item_id string)\" }}\n    click: {{ symbol: \"{sdk}.TrackClick\", args: \"(tracker pointer, ctx interface, request_id string, position int, item_id string)\" }}\n    suspicious_after: {AFTER}\njoin: {{ lateness: 200ms }}\n",
        program.display()
    );
    let daemon = Daemon::start(scratch.path(), &services);
    let suspicious =
        |hook| daemon.metric("linktracer_suspicious_probes", &[("service", "go"), ("hook", hook)]);
    let requests = || daemon.metric("linktracer_events_total", &[("kind", "request"), ("service", "go")]);
    let arrived = |count: u32| {
        wait_for("the requests are seen", LIMIT, || (requests() == f64::from(count)).then_some(()));
    };

    let silent = Server::start(Command::new(&program).args(["-exposures", "0"]));
    silent.ask(0, AFTER - 1);
    arrived(AFTER - 1);
    assert_eq!(suspicious("exposure"), 0.0);
    silent.ask(AFTER - 1, 1);
    arrived(AFTER);
    assert_eq!(suspicious("exposure"), 1.0);
    silent.ask(AFTER, 2 * AFTER);
    arrived(3 * AFTER);
    let (code, page) = wait_for("the page says so, too", LIMIT, || {
        let (code, page) = daemon.page("/readyz");
        page.contains("go/exposure: attached, and suspicious: not hit in the last 600 requests")
            .then_some((code, page))
    });
    assert_eq!(code, 200, "{page}");
    assert!(page.contains("go/click: attached\n"), "every fourth request has a click: {page}");
    assert_eq!(suspicious("click"), 0.0);
    let attached = [("service", "go"), ("hook", "exposure")];
    assert_eq!(daemon.metric("linktracer_attached_probes", &attached), 1.0);
    assert_eq!(daemon.metric("linktracer_target_processes", &[("service", "go")]), 1.0);

    let speaking = Server::start(&mut Command::new(&program));
    speaking.ask(3 * AFTER, 1);
    wait_for("a call ends the suspicion", LIMIT, || (suspicious("exposure") == 0.0).then_some(()));
    let log = daemon.finish();
    assert_eq!(log.matches("a probe is in place and was not hit once").count(), 1, "{log}");
    assert_eq!(log.matches("a suspicious probe was hit after all").count(), 1, "{log}");
    Ok(())
}
