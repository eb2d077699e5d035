use std::{path::Path, time::Duration};

use super::{Abi, Config, ConfigError, HookChoice, LabelSource};

const SMALLEST: &str = "services:\n  - name: recommend\n    match: { exe: /usr/bin/recommend }\n    request: { id: { header: X-Request-Id } }\n";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("test.yaml"))
}

#[track_caller]
fn check_problems(text: &str, expected: &[(usize, &str, &str)]) {
    let Err(ConfigError::Invalid { problems, .. }) = parse(text) else { panic!("was accepted: {text}") };
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, (line, key, part)) in problems.iter().zip(expected) {
        assert_eq!((problem.line, problem.key.as_str()), (*line, *key), "{problem:?}");
        assert!(problem.message.contains(part), "{problem:?} does not say {part:?}");
    }
}

#[test]
fn the_smallest_file_gets_the_defaults() {
    let config = parse(SMALLEST).expect("valid");
    assert_eq!(config.listen.to_string(), "127.0.0.1:9464");
    assert_eq!(config.hooks, HookChoice::Auto);
    assert_eq!(config.ring_buffer_size, 16 * 1024 * 1024);
    assert_eq!(config.join.click_window, Duration::from_secs(1800));
    assert_eq!(config.join.memory_limit, 1 << 30);
    assert_eq!((config.ratio.window, config.ratio.trusted_width), (Duration::from_secs(900), 0.01));
    assert!(!config.show_ids);
    assert_eq!(config.otlp, None);
    assert_eq!(config.services[0].name, "recommend");
}

#[test]
fn every_key_is_read() {
    let text = r#"
source: node-a
listen: 0.0.0.0:9000
state_dir: /tmp/state
pin_dir: /sys/fs/bpf/other
checkpoint_interval: 10s
hooks: tracepoint
ring_buffer_size: 64KiB
btf: /tmp/btf
discover: { hold_exec: true, hold_limit: 2s, hold_mounts: ["/run/*/rootfs"], kubernetes: false, node_name: node-b, pod_wait: 3s }
services:
  - name: recommend
    match: { exe: "/usr/bin/recommend-*", cmdline: "*--port*", cgroup: "*/recommend.service", image: "shop:*", namespace: shop, pod_labels: { app.kubernetes.io/name: "r*" } }
    release: [go_build_info, "env:BUILD_COMMIT_TAG", image_tag, image_digest, "pod_label:version", "file:/models/active"]
    group: "env:AB_GROUP"
    request: { id: { header: X-Request-Id } }
    exposure: { library: librecsdk.so, symbol: trackExposure, args: "(request_id cstr, item_id cstr)" }
    click: { symbol: trackClick, args: "(user int, item_id cstr, request_id cstr)", abi: c }
    report: { to: ["127.0.0.1:9999", "[::1]:9999"] }
join: { exposure_window: 1m, click_window: 2m, report_window: 3s, lateness: 4s, skew: 5ms, memory_limit: 64MiB }
ratio: { window: 5m, trusted_width: 0.5% }
page: { show_ids: true }
export: { otlp: { endpoint: "https://collector:4318/", show_ids: true, broken_per_second: 0, complete_per_second: 7 } }
"#;
    let config = parse(text).expect("valid");
    let service = &config.services[0];
    assert_eq!(config.source, "node-a");
    assert_eq!(config.ring_buffer_size, 65536);
    assert!(service.processes.exe.as_ref().is_some_and(|exe| exe.matches("/usr/bin/recommend-7")));
    assert!(!service.processes.exe.as_ref().is_some_and(|exe| exe.matches("/usr/bin/recommend-7/x")));
    assert_eq!(service.release.len(), 6);
    assert_eq!(service.release[4], LabelSource::PodLabel("version".to_owned()));
    let wanted = &service.processes;
    assert!(wanted.image.as_ref().is_some_and(|image| image.matches("shop:1")) && wanted.namespace.is_some());
    assert!(
        wanted.pod_labels[0].0 == "app.kubernetes.io/name" && wanted.pod_labels[0].1.matches("recommend")
    );
    let click = service.click.as_ref().expect("configured");
    assert_eq!((click.abi, click.args.locate(Abi::C).map(|ids| ids.request_id.slot)), (Some(Abi::C), Ok(2)));
    assert_eq!(service.report.as_ref().map(|report| report.to.len()), Some(2));
    assert_eq!(config.join.skew, Duration::from_millis(5));
    assert_eq!(config.join.memory_limit, 64 << 20);
    assert!(config.discover.hold_exec && config.discover.hold_mounts[0].matches("/run/c1/rootfs"));
    assert_eq!(config.discover.hold_limit, Duration::from_secs(2));
    assert_eq!((config.discover.kubernetes, &*config.discover.node_name), (Some(false), "node-b"));
    assert_eq!(config.discover.pod_wait, Duration::from_secs(3));
    assert_eq!((config.ratio.window, config.ratio.trusted_width), (Duration::from_secs(300), 0.005));
    assert!(config.show_ids);
    let otlp = config.otlp.as_ref().expect("configured");
    assert_eq!(otlp.endpoint, "https://collector:4318");
    assert_eq!((otlp.show_ids, otlp.broken_per_second, otlp.complete_per_second), (true, 0, 7));
}

#[test]
fn traces_go_to_a_url_and_no_faster_than_allowed() {
    let with = |otlp: &str| format!("{SMALLEST}export: {{ otlp: {{ {otlp} }} }}\n");
    let line = with("").lines().count();
    let config = parse(&with("endpoint: \"http://[::1]:4318\"")).expect("valid");
    let otlp = config.otlp.expect("configured");
    assert_eq!((otlp.show_ids, otlp.broken_per_second, otlp.complete_per_second), (false, 10, 1));
    for (endpoint, part) in [
        ("collector:4318", "no URL"),
        ("grpc://collector:4317", "no URL"),
        ("http://", "no URL"),
        ("http://collector:4318/v1/traces", "/v1/traces is added"),
        ("http://collector:4318?a=b", "too much"),
    ] {
        check_problems(&with(&format!("endpoint: \"{endpoint}\"")), &[(line, "export.otlp.endpoint", part)]);
    }
    check_problems(
        &with("broken_per_second: 1001, complete_per_second: -1, colour: 1"),
        &[
            (line, "export.otlp", "`endpoint` is missing"),
            (line, "export.otlp.broken_per_second", "from 0 to 1000"),
            (line, "export.otlp.complete_per_second", "from 0 to 1000"),
            (line, "export.otlp.colour", "unknown key"),
        ],
    );
}

#[test]
fn what_is_asked_of_kubernetes_has_its_form() {
    let text = SMALLEST.replace("exe: /usr/bin/recommend", "pod_labels: { app: 1 }, namespace: []")
        + "discover: { kubernetes: maybe, node_name: \"a,b\", pod_wait: 31s }\n";
    let problems = [
        (3, "services[0].match.pod_labels.app", "expected a text, found the number 1"),
        (3, "services[0].match.namespace", "expected a text, found a list"),
        (5, "discover.kubernetes", "expected `auto`, `true` or `false`"),
        (5, "discover.node_name", "`kubectl get nodes` lists them"),
        (5, "discover.pod_wait", "`100ms` to `30s`"),
    ];
    check_problems(&text, &problems);
    let empty = SMALLEST.replace("exe: /usr/bin/recommend", "pod_labels: {}");
    check_problems(&empty, &[(3, "services[0].match.pod_labels", "at least one label")]);
}

#[test]
fn a_window_and_a_width_have_their_ranges() {
    let text = format!("{SMALLEST}ratio: {{ window: 100ms, trusted_width: 1 %, colour: 1 }}\n");
    let line = text.lines().count();
    let problems = [
        (line, "ratio.window", "100ms is out of range; `1s` to `24h`"),
        (line, "ratio.colour", "unknown key; known keys here: `window`, `trusted_width`"),
    ];
    check_problems(&text, &problems);
    for width in ["1", "\"\"", "101%", "-1%", "NaN%", "wide"] {
        let text = format!("{SMALLEST}ratio: {{ trusted_width: {width} }}\n");
        assert!(parse(&text).is_err(), "{width}");
    }
}

#[test]
fn a_memory_limit_has_a_unit_and_a_range() {
    for (limit, problem) in [
        ("1000000000", "expected a text, found the number"),
        ("1GB", "not a size; write it like"),
        ("15MiB", "15728640 bytes is out of range; `16MiB` to `128GiB`"),
        ("129GiB", "out of range; `16MiB` to `128GiB`"),
        ("99999999999GiB", "larger than any memory"),
    ] {
        let text = format!("{SMALLEST}join: {{ memory_limit: {limit} }}\n");
        let line = text.lines().count();
        check_problems(&text, &[(line, "join.memory_limit", problem)]);
    }
}

#[test]
fn all_problems_are_reported_at_once_with_their_places() {
    let text = "lisen: 1.2.3.4:5\nlisten: nowhere\nhooks: 5\nring_buffer_size: 100KiB\nservices:\n  - name: a\n    match: { exe: /a }\n    click: { symbol: trackClick, args: \"(request_id string, item_id cstr)\", abi: c }\n  - match: {}\n    colour: red\n";
    check_problems(
        text,
        &[
            (1, "lisen", "did you mean `listen`"),
            (2, "listen", "not an address"),
            (3, "hooks", "expected a text, found the number 5"),
            (4, "ring_buffer_size", "nearest are 64 and 128 KiB"),
            (8, "services[0].click.args", "abi `c` does not have"),
            (9, "services[1]", "`name` is missing"),
            (9, "services[1]", "nothing to trace"),
            (9, "services[1].match", "matches every process"),
            (10, "services[1].colour", "unknown key"),
        ],
    );
}

#[test]
fn a_release_and_a_group_have_sources_of_their_own() {
    let service = SMALLEST.trim_end().to_owned()
        + "\n    release: [\"file:active\", \"env:\", commit]\n    group: go_build_info\n";
    check_problems(
        &service,
        &[
            (5, "services[0].release[0]", "no absolute path"),
            (5, "services[0].release[1]", "one of `go_build_info`"),
            (5, "services[0].release[2]", "one of `go_build_info`"),
            (6, "services[0].group", "`env:NAME`"),
        ],
    );
}

#[test]
fn holding_programs_has_bounds() {
    check_problems(
        &format!("discover: {{ hold_exec: yes please, hold_limit: 1m }}\n{SMALLEST}"),
        &[(1, "discover.hold_exec", "`true` or `false`"), (1, "discover.hold_limit", "`1ms` to `10s`")],
    );
}

#[test]
fn a_file_without_services_is_refused() {
    check_problems("listen: 127.0.0.1:1\n", &[(1, "", "`services` is missing")]);
    check_problems("services: []\n", &[(1, "services", "at least one service")]);
    check_problems("", &[(1, "", "empty")]);
}

#[test]
fn text_that_is_not_yaml_is_refused_with_its_place() {
    check_problems("services: [\n", &[(2, "", "not YAML")]);
}

#[test]
fn a_variable_of_the_environment_is_put_in() {
    let text = format!("source: \"node-${{CARGO_PKG_NAME}}\"\n{SMALLEST}");
    assert_eq!(parse(&text).expect("valid").source, "node-tracer-user");
    check_problems(
        &format!("source: \"${{NO_SUCH_VARIABLE_HERE}}\"\n{SMALLEST}"),
        &[(1, "source", "NO_SUCH_VARIABLE")],
    );
}

#[test]
fn two_services_of_one_name_are_refused() {
    let second = SMALLEST.trim_start_matches("services:\n");
    check_problems(&format!("{SMALLEST}{second}"), &[(5, "services[1]", "second service")]);
}

#[test]
fn what_differs_is_named_and_places_do_not_count() {
    let text = format!("{SMALLEST}    click: {{ symbol: f, args: \"(request_id cstr, item_id cstr)\" }}\n");
    let config = parse(&text).expect("valid");
    let differences = |text: &str| config.differences(&parse(text).expect("valid"));
    assert!(differences(&format!("# a comment\n{text}")).is_empty());
    assert_eq!(differences(&text.replace("symbol: f", "symbol: g")), ["services"]);
    assert_eq!(differences(&text.replace("/usr/bin/recommend", "/usr/bin/*")), ["services"]);
    assert_eq!(differences(&format!("{text}hooks: kprobe\njoin: {{ skew: 1s }}\n")), ["hooks", "join"]);
    assert_eq!(
        differences(&format!("{text}ratio: {{ window: 1h }}\nlisten: 127.0.0.1:1\n")),
        ["listen", "ratio"]
    );
}
