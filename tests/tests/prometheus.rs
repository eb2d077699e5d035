//! A real Prometheus scrapes the daemon of a demo; what it answers is the truth.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tests::{binary, daemon::free_address, wait_for};
use tracer_user::demo::http::get_once;

/// A child that is ended when this is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // A demo takes its daemon with it only when it is asked to end. It may have ended by itself.
        let _ = kill_process(Pid::from_child(&self.0), Signal::INT);
        let _ = self.0.wait();
    }
}

/// The single value of an instant query.
fn query(prometheus: SocketAddr, expression: &str) -> Option<f64> {
    let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let response = get_once(prometheus, &format!("/api/v1/query?query={encoded}")).ok()?;
    let answer: Value = serde_json::from_slice(&response.body).ok()?;
    match answer["data"]["result"].as_array()?.as_slice() {
        [one] => one["value"][1].as_str()?.parse().ok(),
        _ => None,
    }
}

fn start_prometheus(folder: &Path, target: &str) -> (Killed, SocketAddr) {
    let address = free_address();
    let config = format!(
        "global: {{ scrape_interval: 1s }}\nscrape_configs:\n  - job_name: linktracer\n    static_configs: [{{ targets: [\"{target}\"] }}]\n"
    );
    fs::write(folder.join("prometheus.yml"), config).expect("is writable");
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .stderr(fs::File::create(folder.join("prometheus.log")).expect("is writable"))
        .spawn()
        .expect("`cargo xtask test` puts prometheus on the path");
    (Killed(child), address)
}

#[test]
fn the_ratio_asked_of_prometheus_equals_the_truth() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let truth_file = scratch.path().join("truth.json");
    let mut demo = Command::new(binary());
    demo.args(["demo", "--requests=2000", "--keep", "--truth"]).arg(&truth_file);
    let mut demo = Killed(demo.stdout(Stdio::piped()).spawn().expect("the binary starts"));
    let stdout = BufReader::new(demo.0.stdout.take().expect("is piped"));
    let url = stdout
        .lines()
        .map_while(Result::ok)
        .find_map(|line| Some(line.strip_prefix("metrics: http://")?.split('/').next()?.to_owned()))
        .expect("the demo ends with the URL of its metrics");

    let (_prometheus, address) = start_prometheus(scratch.path(), &url);
    let ask = |expression: &str| wait_for(expression, Duration::from_secs(60), || query(address, expression));
    assert_eq!(ask("up{job=\"linktracer\"} == 1"), 1.0);
    let truth: Value = serde_json::from_slice(&fs::read(truth_file).expect("written")).expect("JSON");
    let count = |edge: &str, outcome: &str| truth["edges"][edge][outcome].as_f64().unwrap_or(0.0);
    for (edge, broken, sound) in [
        ("request_exposure", ["orphan", "missing_id", "-"], "linked"),
        ("exposure_click", ["mismatch", "orphan", "missing_id"], "linked"),
        ("click_report", ["unreported", "-", "-"], "reported"),
        ("triple", ["broken", "-", "-"], "complete"),
    ] {
        let broken_count: f64 = broken.iter().map(|outcome| count(edge, outcome)).sum();
        let expected = broken_count / (broken_count + count(edge, sound));
        let of = |outcomes: &str| {
            format!("sum(linktracer_links_total{{edge=\"{edge}\",outcome=~\"{outcomes}\"}})")
        };
        let broken = broken.join("|");
        let from_counts = ask(&format!("{} / {}", of(&broken), of(&format!("{broken}|{sound}"))));
        let published = ask(&format!("linktracer_broken_link_ratio{{edge=\"{edge}\",bound=\"point\"}}"));
        assert!(expected > 0.0, "{edge}: nothing is broken in the demo");
        assert_eq!(from_counts, expected, "{edge}");
        assert_eq!(published, expected, "{edge}");
    }
    kill_process(Pid::from_child(&demo.0), Signal::INT).expect("is our child");
    assert!(demo.0.wait().expect("is our child").success());
}
