//! What stands in `deploy/` and in the documents is true of the code: the configurations are accepted
//! and complete, every metric and every dependency is described, every link leads somewhere.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use tracer_user::{
    config::{Config, ConfigError, Problem},
    telemetry::Metric,
};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in a workspace").to_path_buf()
}

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[track_caller]
fn parse(text: &str, name: &str) -> Config {
    Config::parse(text, Path::new(name)).unwrap_or_else(|error| panic!("{error}"))
}

/// Paths of all keys of a YAML file in block style, such as `services[].match.exe`.
fn keys(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    // Where the maps around the line begin, and their paths.
    let mut open: Vec<(usize, String)> = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let content = line.trim_start().trim_start_matches("- ");
        let Some((key, _)) = content.split_once(':').filter(|(key, rest)| {
            key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
                && (rest.is_empty() || rest.starts_with(' '))
        }) else {
            continue;
        };
        let column = line.len() - content.len();
        open.retain(|(start, _)| *start < column);
        if line.trim_start().starts_with("- ")
            && let Some((_, list)) = open.last_mut()
            && !list.ends_with("[]")
        {
            list.push_str("[]");
        }
        let path = open.last().map_or_else(|| key.to_owned(), |(_, outer)| format!("{outer}.{key}"));
        found.insert(path.clone());
        open.push((column, path));
    }
    found
}

/// What the parser says to a document with nothing in it but keys that it does not know.
fn unknown_keys(text: &str) -> Vec<Problem> {
    match Config::parse(text, Path::new("unknown.yaml")) {
        Err(ConfigError::Invalid { problems, .. }) => problems,
        other => panic!("{other:?}"),
    }
}

/// The keys that the parser knows at the place of the key `QQQQ` in `text`, from its own message.
fn known_keys(text: &str) -> Vec<String> {
    let problems = unknown_keys(text);
    let message = problems
        .iter()
        .filter(|problem| problem.key.ends_with("QQQQ"))
        .find_map(|problem| problem.message.split_once("known keys here: "));
    let (_, list) = message.unwrap_or_else(|| panic!("no list of known keys for {text}: {problems:?}"));
    list.split(", ").map(|key| key.trim_matches('`').to_owned()).collect()
}

#[test]
fn the_example_has_every_key_that_the_parser_knows_and_no_other() {
    let places = [
        ("", "QQQQ: 1"),
        ("join.", "join: { QQQQ: 1 }"),
        ("discover.", "discover: { QQQQ: 1 }"),
        ("ratio.", "ratio: { QQQQ: 1 }"),
        ("page.", "page: { QQQQ: 1 }"),
        ("export.", "export: { QQQQ: 1 }"),
        ("export.otlp.", "export: { otlp: { QQQQ: 1 } }"),
        ("services[].", "services: [{ QQQQ: 1 }]"),
        ("services[].match.", "services: [{ match: { QQQQ: 1 } }]"),
        ("services[].request.", "services: [{ request: { QQQQ: 1 } }]"),
        ("services[].request.id.", "services: [{ request: { id: { QQQQ: 1 } } }]"),
        ("services[].exposure.", "services: [{ exposure: { QQQQ: 1 } }]"),
        ("services[].click.", "services: [{ click: { QQQQ: 1 } }]"),
        ("services[].report.", "services: [{ report: { QQQQ: 1 } }]"),
    ];
    let known: BTreeSet<String> = places
        .iter()
        .flat_map(|(place, text)| known_keys(text).into_iter().map(move |key| format!("{place}{key}")))
        .collect();
    assert_eq!(keys(&read("deploy/linktracer.yaml")), known);
}

#[test]
fn the_example_is_accepted_and_its_default_values_are_the_defaults() {
    let text = read("deploy/linktracer.yaml");
    let example = parse(&text, "deploy/linktracer.yaml");
    let smallest =
        parse("services: [{ name: a, match: { exe: /a }, report: { to: [\"[::1]:1\"] } }]", "small");
    assert_eq!(example.listen, smallest.listen);
    assert_eq!(smallest.state_dir, None);
    assert_eq!(example.pin_dir, smallest.pin_dir);
    assert_eq!(example.checkpoint_interval, smallest.checkpoint_interval);
    assert_eq!(example.hooks, smallest.hooks);
    assert_eq!(example.ring_buffer_size, smallest.ring_buffer_size);
    assert_eq!(example.btf, smallest.btf);
    assert_eq!(example.join, smallest.join);
    assert_eq!(example.services[0].suspicious_after, smallest.services[0].suspicious_after);
    assert_eq!(example.discover.hold_exec, smallest.discover.hold_exec);
    assert_eq!(example.discover.hold_limit, smallest.discover.hold_limit);
    assert_eq!(example.discover.kubernetes, smallest.discover.kubernetes);
    assert_eq!(example.discover.pod_wait, smallest.discover.pod_wait);
    assert_eq!(example.ratio, smallest.ratio);
    let traced = parse(
        "services: [{ name: a, match: { exe: /a }, report: { to: [\"[::1]:1\"] } }]\nexport: { otlp: { endpoint: \"http://127.0.0.1:4318\" } }",
        "traced",
    );
    assert_eq!((smallest.otlp, example.otlp), (None, traced.otlp));
    let exe = example.services[0].processes.exe.as_ref().expect("the example matches by executable");
    assert!(exe.matches("/usr/bin/recommend") && exe.matches("/usr/bin/recommend-v2"));
    assert!(!exe.matches("/usr/bin/other") && !exe.matches("/usr/bin/recommend-v2/x"));
}

#[test]
fn the_configurations_of_the_manifests_are_accepted_and_fit_the_pod() {
    let manifest = read("deploy/kustomize/base/objects.yaml");
    assert!(manifest.contains("- name: NODE_NAME"));
    for file in ["deploy/kustomize/base/linktracer.yaml", "deploy/kustomize/example/linktracer.yaml"] {
        let text = read(file);
        assert!(text.contains("source: \"${NODE_NAME}\""), "{file}");
        let config = parse(&text.replace("${NODE_NAME}", "node-a"), file);
        assert!(
            config.listen.ip().is_unspecified(),
            "{file}: probes and Prometheus come from outside the pod"
        );
        assert!(manifest.contains(&format!("containerPort: {}", config.listen.port())), "{file}");
        for service in &config.services {
            let exe = service.processes.exe.as_ref().expect("matches by executable");
            assert!(
                exe.literal().is_none(),
                "{file}: the daemon's container does not have the services' files"
            );
            assert!(exe.matches("/recommend") && exe.matches("/app/bin/recommend"), "{file}");
            for probe in [&service.exposure, &service.click].into_iter().flatten() {
                assert!(probe.library.as_ref().is_none_or(|library| !library.starts_with('/')), "{file}");
            }
        }
    }
    let values = read("deploy/helm/linktracer/values.yaml");
    assert!(values.contains("prometheus.io/port: \"9464\"") && values.contains("port: 9464"));
}

#[test]
fn the_configuration_of_the_readme_is_accepted() {
    let readme = read("README.md");
    let (_, rest) = readme.split_once("```yaml\n").expect("the README shows a configuration");
    let (text, _) = rest.split_once("```").expect("the block ends");
    parse(text, "README.md");
}

#[test]
fn the_metrics_document_names_every_metric_and_no_other() {
    let text = read("docs/metrics.md");
    let expected: BTreeSet<&str> = Metric::ALL.iter().map(|metric| metric.name()).collect();
    let mut named = BTreeSet::new();
    for (at, _) in text.match_indices("linktracer_") {
        let rest = &text[at..];
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(rest.len());
        let name = &rest[..end];
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        named.insert(family.filter(|family| expected.contains(family)).unwrap_or(name));
    }
    assert_eq!(named, expected);
}

/// Names of the crates that a manifest depends on, those of the workspace left out.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut within = false;
    for line in manifest.lines() {
        if let Some(section) = line.strip_prefix('[') {
            within = section.trim_end_matches(']').ends_with("dependencies");
        } else if within
            && let Some((name, value)) = line.split_once('=')
            && !name.trim_start().starts_with('#')
        {
            let name = name.trim().trim_end_matches(".workspace");
            if !value.contains("path =") && !name.starts_with("tracer-") {
                found.insert(name.to_owned());
            }
        }
    }
    found
}

#[test]
fn every_direct_dependency_is_explained() {
    let document = read("docs/dependencies.md");
    let mut manifests = vec!["Cargo.toml".to_owned()];
    for entry in fs::read_dir(repository()).expect("the repository is readable") {
        let name = entry.expect("is readable").file_name().into_string().expect("UTF-8");
        if repository().join(&name).join("Cargo.toml").exists() {
            manifests.push(format!("{name}/Cargo.toml"));
        }
    }
    assert!(manifests.len() > 5, "{manifests:?}");
    for manifest in manifests {
        for name in dependencies(&read(&manifest)) {
            assert!(document.contains(&format!("`{name}`")), "{manifest}: {name} is not explained");
        }
    }
}

#[test]
fn every_link_between_documents_leads_to_a_file_and_a_heading() {
    let mut documents = vec!["README.md".to_owned()];
    for entry in fs::read_dir(repository().join("docs")).expect("docs/ is readable") {
        documents.push(format!("docs/{}", entry.expect("is readable").file_name().to_string_lossy()));
    }
    for document in documents {
        let text = read(&document);
        for link in text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)) {
            if link.contains("://") {
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let folder = repository().join(&document).parent().expect("has a folder").to_path_buf();
            let target = if path.is_empty() { repository().join(&document) } else { folder.join(path) };
            assert!(target.is_file(), "{document}: {link} leads nowhere");
            if !heading.is_empty() {
                let target = fs::read_to_string(&target).expect("is text");
                let headings = target.lines().filter(|line| line.starts_with('#'));
                assert!(
                    headings.map(anchor).any(|name| name == heading),
                    "{document}: {link} has no heading"
                );
            }
        }
    }
}

/// The anchor that a heading gets: lower case, words joined by hyphens, nothing else kept.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    words
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}
