//! A week with a release whose links break by 2.3 %, one whose users click 2.3 % less, and a healthy one: the comparison,
//! the alerts and each canary gate are right about each. Asked of a real Prometheus, of promtool, and of recorded events.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{BufWriter, Write as _},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tests::{
    binary,
    browser::browse,
    daemon::free_address,
    linktracer, printed,
    promtool::promtool,
    templates::{FILES, Look, check_gates, read},
    wait_for,
    week::{ROLLOUTS, STABLE, START_SECONDS, Week},
};
use tracer_user::{demo::http::get_once, lint::template::Phase};

/// A server that is killed when this is dropped.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// A Prometheus that has what was counted in the week, a sample every five minutes.
    fn start(folder: &Path) -> Self {
        let metrics = folder.join("week.om");
        fs::write(&metrics, Week::new().open_metrics(5)).expect("is writable");
        let data = folder.join("data");
        promtool([
            "tsdb".as_ref(),
            "create-blocks-from".as_ref(),
            "openmetrics".as_ref(),
            metrics.as_os_str(),
            data.as_os_str(),
        ]);
        let config = folder.join("prometheus.yml");
        fs::write(&config, "global: {}\n").expect("is writable");
        let address = free_address();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg("--storage.tsdb.retention.time=100y")
            .arg(format!("--web.listen-address={address}"))
            .stderr(File::create(folder.join("prometheus.log")).expect("is writable"))
            .spawn()
            .expect("`cargo xtask test` puts prometheus on the path");
        let server = Self { child, address };
        wait_for("Prometheus is ready", Duration::from_secs(60), || {
            get_once(address, "/-/ready").ok().filter(|response| response.status == 200)
        });
        server
    }

    fn ask(&self, command: &str, options: &[&str]) -> Value {
        let url = format!("http://{}", self.address);
        let mut arguments = vec![command, "--prometheus", &url, "--service", "s", "--output", "json"];
        arguments.extend(options);
        let output = linktracer(&arguments);
        assert!(output.status.success(), "{}", printed(&output));
        serde_json::from_slice(&output.stdout).expect("is JSON")
    }
}

/// A minute of the week, as the command line takes it.
fn time(minute: u64) -> String {
    // START_SECONDS is the 17th of November 2025, 00:00 UTC.
    format!("2025-11-{:02}T{:02}:{:02}:00Z", 17 + minute / 1_440, minute % 1_440 / 60, minute % 60)
}

const RIGHT: [(&str, &str, &[&str]); 3] = [
    ("v2-links", "worse", &["links_broke"]),
    ("v3-clicks", "worse", &["clicked_less"]),
    ("v4-healthy", "healthy", &[]),
];

#[test]
fn the_comparison_and_the_baseline_are_right_about_each_release() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let server = Server::start(scratch.path());
    for ((release, start), (_, verdict, causes)) in ROLLOUTS.into_iter().zip(RIGHT) {
        let compare = |minute: u64, window: &str| {
            let at = time(minute);
            server.ask("compare", &["--stable", STABLE, "--canary", release, "--at", &at, "--window", window])
        };
        let answer = compare(start + 540, "8h");
        assert_eq!(answer["verdict"], verdict, "{answer}");
        assert_eq!(answer["causes"], serde_json::json!(causes), "{answer}");
        // Half an hour after its start, clicks on what it has shown are still to come.
        let early = compare(start + 30, "30m");
        assert_eq!(early["verdict"], "not_trustworthy", "{early}");
        assert_eq!(early["doubts"][0]["reason"], "too_young", "{early}");
    }
    // Half of the traffic clicks 2.3 % less: of all clicks 1.15 % are missing. The plain fit takes the change from hour to
    // hour for chance, and does not see it.
    let low = |method: &str| {
        let answer = server.ask("baseline", &["--at", &time(3 * 1_440 + 840), "--method", method]);
        answer["unusually_low"].as_bool().expect("there is a baseline")
    };
    assert_eq!([low("beta-binomial"), low("beta-moments")], [true, false]);
    let usual = server.ask("baseline", &["--history", "72h", "--at", &time(4 * 1_440)]);
    assert_eq!(usual["unusually_low"], false, "{usual}");
    assert!(usual["hours"].as_u64().is_some_and(|hours| hours >= 71), "{usual}");
    let early = server.ask("baseline", &["--at", &time(600)]);
    assert_eq!(early["no_baseline"]["reason"], "too_few_hours", "{early}");
    assert_eq!(early["unusually_low"], Value::Null, "{early}");

    let unknown =
        linktracer(&["compare", "--prometheus", "http://127.0.0.1:1", "--stable", "a", "--canary", "b"]);
    assert_eq!(unknown.status.code(), Some(1), "{}", printed(&unknown));
}

/// What the queries of the gates should give at a minute of the week, from its counts: windows too low, low and not
/// recovering, excess of broken links, excess of requests that show nothing.
fn look(week: &Week, canary: &str, minute: u64) -> Look {
    let clicks = |release: &str, end: u64, minutes: u64| {
        let [exposures, linked, broken] = week.counted(release, end, minutes);
        ((linked + broken) as f64, (linked + broken) as f64 / exposures as f64)
    };
    // Ratio of CTRs, its standard error, and the fewer clicks of the two.
    let ratio = |end: u64, minutes: u64| {
        let ((of_canary, ctr), (of_stable, stable_ctr)) =
            (clicks(canary, end, minutes), clicks(STABLE, end, minutes));
        (ctr / stable_ctr, (1.0 / of_canary + 1.0 / of_stable).sqrt(), of_canary.min(of_stable))
    };
    let windows = [0, 15, 30].map(|back| ratio(minute - back, 15));
    assert!(windows.iter().all(|(_, _, clicks)| *clicks >= 45_000.0));
    let low = windows.iter().filter(|(ratio, error, _)| *ratio < 0.977 + error).count();
    let (now, error, _) = ratio(minute, 60);
    let (earlier, _, _) = ratio(minute - 30, 60);
    let deficit = 1.0 - now;
    let stays = deficit > 0.01 && deficit > 3.0 * error && deficit > 0.75 * (1.0 - earlier);
    let broken = |release: &str| {
        let [_, linked, broken] = week.counted(release, minute, 15);
        broken as f64 / (linked + broken) as f64
    };
    let excess = ((broken(canary) - broken(STABLE)) * 10_000.0 + 0.5).floor() / 10_000.0;
    // All requests of the week show something.
    [Some(low as f64), Some(f64::from(u8::from(stays))), Some(excess), Some(0.0)]
}

#[test]
fn the_gates_and_the_alerts_are_right_about_each_release() {
    let week = Week::new();
    let alerts: [&[(&str, &str)]; 3] = [&[("LinktracerBrokenLinksUp", "v2-links")], &[], &[]];
    // Which gates roll it back, in the order of the files.
    let right = [[false, false, true, false], [true, true, false, false], [false; FILES.len()]];
    for (((release, start), alerts), right) in ROLLOUTS.into_iter().zip(alerts).zip(right) {
        // From two hours after its start on, a measurement every quarter of an hour, for three hours. The first minute of
        // the test is an hour before the start.
        let first = start - 60;
        let looks: Vec<(u64, Look)> =
            (120..=300).step_by(15).map(|after| (after + 60, look(&week, release, start + after))).collect();
        let phases = check_gates(&week.input_series(start + 300, 360), [STABLE, release], &looks, alerts);
        assert_eq!(first % 15, 0, "windows are aligned");
        let rolled_back = std::array::from_fn(|gate| {
            let limit: usize =
                read(FILES[gate]).metrics[0].settings["failureLimit"].text.parse().expect("a number");
            phases.iter().filter(|phases| phases[gate] == Phase::Failed).count() > limit
        });
        assert_eq!(rolled_back, right, "{release}: {looks:?}");
        assert!(phases.iter().flatten().all(|phase| matches!(phase, Phase::Failed | Phase::Successful)));
    }
}

/// 4 x 60,000 exposures with a CTR of 0.9, spread over the week: click after click, counted out.
fn record(file: &Path) {
    let mut output = BufWriter::new(File::create(file).expect("is writable"));
    // Of 1,000 exposures 900 are clicked; 4 of those clicks name an item that was not shown.
    let releases = [(STABLE, 900, 4), ("v2-links", 900, 25), ("v3-clicks", 879, 4), ("v4-healthy", 900, 4)];
    for request in 0..3_000_u64 {
        for (release, clicked, lost) in releases {
            let ts = (START_SECONDS + request * 201) * 1_000_000_000;
            let line = |kind: &str, item: &str, ts: u64| {
                format!(
                    "{{\"kind\":\"{kind}\",\"ts\":{ts},\"request_id\":\"{release}-{request}\",\"item_id\":\"{item}\",\"service\":\"s\",\"release\":\"{release}\"}}\n"
                )
            };
            let mut text = line("request", "", ts);
            for item in 0..20_u64 {
                text += &line("exposure", &item.to_string(), ts + 1 + item);
                let place = (request * 20 + item) % 1_000;
                if place < clicked {
                    let shown = if place < lost { format!("other-{item}") } else { item.to_string() };
                    text += &line("click", &shown, ts + 1_000 + item);
                }
            }
            output.write_all(text.as_bytes()).expect("is writable");
        }
    }
    output.into_inner().expect("is writable");
}

/// What the comparison makes of recorded events.
fn compare_recorded(file: &str, stable: &str, canary: &str) -> Value {
    let compared =
        linktracer(&["compare", "--file", file, "--stable", stable, "--canary", canary, "--output", "json"]);
    assert!(compared.status.success(), "{}", printed(&compared));
    serde_json::from_slice(&compared.stdout).expect("is JSON")
}

#[test]
fn the_comparison_of_recorded_events_is_right_about_each_release_and_the_page_shows_why() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let file = scratch.path().join("week.jsonl");
    record(&file);
    let file = file.to_str().expect("is text");
    for (release, verdict, causes) in RIGHT {
        let answer = compare_recorded(file, STABLE, release);
        assert_eq!(answer["stable"]["exposures"], 60_000, "{answer}");
        assert_eq!(answer["stable"]["clicks"], 54_000, "{answer}");
        assert_eq!(answer["stable"]["broken"], 240, "{answer}");
        assert_eq!(answer["verdict"], verdict, "{answer}");
        assert_eq!(answer["causes"], serde_json::json!(causes), "{answer}");
    }
    let page = Page::of(scratch.path(), file);
    assert!(
        page.text.contains("recorded from 2025-11-17T00:00:00Z to 2025-11-23T23:26:39Z"),
        "{}",
        page.text
    );
    assert!(page.text.contains("A recording does not say what its daemon lost"), "{}", page.text);
    // Requests, exposures, clicks, CTR, linked CTR; broken exposures, clicks, reports, triples.
    let stable =
        ["3,000", "60,000", "54,000", "90.00 %", "89.60 %", "0.00 %", "0.44 % mismatch", "–", "0.44 %"];
    assert_eq!(page.release(STABLE), stable);
    assert_eq!(page.release("v4-healthy"), stable, "healthy: as the stable one in everything");
    // Both lose 2.3 % of the clicks that are linked. Of the one, users click as much as before and the links broke ...
    let links =
        ["3,000", "60,000", "54,000", "90.00 %", "87.50 %", "0.00 %", "2.78 % mismatch", "–", "2.78 %"];
    assert_eq!(page.release("v2-links"), links);
    // ... and of the other one the links are as whole as before, and users click less.
    let clicks =
        ["3,000", "60,000", "52,740", "87.90 %", "87.50 %", "0.00 %", "0.46 % mismatch", "–", "0.46 %"];
    assert_eq!(page.release("v3-clicks"), clicks);
    // Everything that broke is named: an item was clicked that was not shown.
    assert_eq!(page.text.matches("<td>mismatch</td>").count(), 5, "{}", page.text);
}

/// The page of a recording, as a browser has it.
struct Page {
    text: String,
}

impl Page {
    fn of(scratch: &Path, file: &str) -> Self {
        let address = free_address();
        let listen = address.to_string();
        let mut replay = Command::new(binary());
        replay.args(["replay", file, "--output", "json", "--serve", &listen]);
        let log = File::create(scratch.join("replay.log")).expect("is writable");
        let child = replay.stdout(Stdio::null()).stderr(log).spawn().expect("the binary starts");
        let server = Server { child, address };
        wait_for("the page is there", Duration::from_secs(120), || {
            get_once(server.address, "/metrics").ok().filter(|response| response.status == 200)
        });
        let text = browse(&format!("http://{address}/"), &scratch.join("profile"), &["--dump-dom"]);
        Self { text }
    }

    /// The cells of a release's row, but those of its name and group.
    fn release(&self, release: &str) -> Vec<String> {
        let (_, rest) = self.text.split_once("<table class=\"releases\">").expect("a table of releases");
        let (table, _) = rest.split_once("</table>").expect("its end");
        let start = format!("<th scope=\"row\">{release}</th>");
        let (_, rest) = table.split_once(&start).unwrap_or_else(|| panic!("no {release} in {table}"));
        let (row, _) = rest.split_once("</tr>").expect("its end");
        let cells = row.split("<td").skip(2).map(|cell| {
            let mut text = String::new();
            for part in cell.split('<') {
                text.push_str(part.split_once('>').map_or("", |(_, text)| text));
            }
            text.trim().to_owned()
        });
        cells.collect()
    }
}

/// Three releases of 1,000 requests with ten items each, one of them clicked. The SDK of the blind one does not run for
/// every third request, and the one with `undefined` sends that as the id of every request.
fn record_faults_that_leave_links_whole(path: &Path) {
    let mut text = String::new();
    for request in 0..1_000_u64 {
        for release in ["good", "blind", "undefined"] {
            let id = if release == "undefined" { release.to_owned() } else { format!("{release}-{request}") };
            let mut add = |kind: &str, item: u64, after_ns: u64| {
                let ts = START_SECONDS * 1_000_000_000 + request * 100_000_000 + after_ns;
                let ids = format!("\"request_id\":\"{id}\",\"item_id\":\"i{item}\"");
                let from = format!(
                    "\"source\":\"a\",\"pid\":1,\"tid\":1,\"service\":\"s\",\"release\":\"{release}\""
                );
                writeln!(text, "{{\"kind\":\"{kind}\",\"ts\":{ts},{ids},{from}}}").expect("in memory");
            };
            add("request", 0, 0);
            if release == "blind" && request % 3 == 0 {
                continue;
            }
            for place in 0..10 {
                add("exposure", (request * 7 + place) % 400, 1 + place);
            }
            add("click", (request * 7) % 400, 20);
        }
    }
    fs::write(path, text).expect("is writable");
}

/// Of one, what is left is clicked ten times as often; of the other, exposures and clicks are missing together.
#[test]
fn a_fault_that_leaves_links_whole_is_not_found_healthy() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let file = scratch.path().join("faults.jsonl");
    record_faults_that_leave_links_whole(&file);
    let file = file.to_str().expect("is text");
    let compare = |canary: &str| -> Value {
        let answer = compare_recorded(file, "good", canary);
        assert_eq!(answer["canary"]["linked_share"], 1.0, "{answer}");
        answer
    };

    let blind = compare("blind");
    assert_eq!(blind["canary"]["click_rate"], 0.1, "{blind}");
    assert_eq!([&blind["canary"]["requests"], &blind["canary"]["exposed"]], [1_000, 666], "{blind}");
    assert_eq!(blind["verdict"], "worse", "{blind}");
    assert_eq!(blind["causes"], serde_json::json!(["shows_less"]), "{blind}");

    let repeated = compare("undefined");
    assert_eq!(
        repeated["stable"]["repeats"]["requests"],
        serde_json::json!({"events": 1_000, "repeated": 0})
    );
    assert_eq!(
        repeated["canary"]["repeats"]["requests"],
        serde_json::json!({"events": 1_000, "repeated": 999})
    );
    assert_eq!(repeated["canary"]["exposures"], 400, "{repeated}");
    assert_eq!(repeated["verdict"], "not_trustworthy", "{repeated}");
    let doubts = repeated["doubts"].as_array().expect("a list");
    let kinds: Vec<_> = doubts.iter().map(|doubt| &doubt["kind"]).collect();
    assert_eq!(kinds, ["request", "exposure"], "{repeated}");

    let page = Page::of(scratch.path(), file);
    let said =
        "99.9 % of the requests of release undefined of s repeat an earlier one, and 0.0 % of those of good";
    assert!(page.text.contains(said), "{}", page.text);
}
