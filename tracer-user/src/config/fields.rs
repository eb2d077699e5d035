//! From the document's tree to the structs: which keys there are and what they hold.

use std::{collections::HashSet, net::SocketAddr, path::PathBuf, time::Duration};

use super::{
    Abi, CHECKPOINT_INTERVALS, Collector, Config, DEFAULT_BTF, DEFAULT_CHECKPOINT_INTERVAL, DEFAULT_LISTEN,
    DEFAULT_PIN_DIR, DEFAULT_SUSPICIOUS_AFTER, Direction, DiscoverSettings, HookChoice, JoinSettings,
    MAX_MEMORY_LIMIT_BYTES, MAX_RING_BYTES, MIN_MEMORY_LIMIT_BYTES, MIN_RING_BYTES, OtlpSettings, Pattern,
    ProcessMatch, RatioSettings, ReportProbe, RequestProbe, SdkArgs, SdkProbe, Service, Target,
    reader::{Fields, Node, Reader},
    sources::{group_source, release_source},
    units,
};

pub(super) fn config(reader: &mut Reader, root: Node<'_, '_>) -> Config {
    let fields = reader.map(
        &root,
        &[
            "source",
            "listen",
            "state_dir",
            "pin_dir",
            "checkpoint_interval",
            "hooks",
            "ring_buffer_size",
            "btf",
            "discover",
            "services",
            "join",
            "ratio",
            "page",
            "export",
        ],
    );
    let source = fields.optional("source").and_then(|node| reader.text(&node));
    let listen = fields.optional("listen").and_then(|node| reader.parsed(&node, address));
    let state_dir = fields.optional("state_dir").and_then(|node| reader.text(&node));
    let pin_dir = fields.optional("pin_dir").and_then(|node| reader.parsed(&node, pin_dir));
    let interval =
        fields.optional("checkpoint_interval").and_then(|node| reader.parsed(&node, checkpoint_interval));
    let hooks = fields.optional("hooks").and_then(|node| reader.parsed(&node, hook_choice));
    let ring = fields.optional("ring_buffer_size").and_then(|node| reader.parsed(&node, ring_size));
    let btf = fields.optional("btf").and_then(|node| reader.text(&node));
    let discover = fields.optional("discover").map(|node| discover(reader, &node));
    let services = fields.required(reader, "services").map(|node| services(reader, &node));
    let join = fields.optional("join").map(|node| join(reader, &node));
    let ratio = fields.optional("ratio").map(|node| ratio(reader, &node));
    let show_ids = fields.optional("page").and_then(|node| show_ids(reader, &node));
    let otlp = fields.optional("export").and_then(|node| export(reader, &node));
    Config {
        source: source.unwrap_or_else(host_name),
        listen: listen.unwrap_or(DEFAULT_LISTEN),
        state_dir: state_dir.map(PathBuf::from),
        pin_dir: pin_dir.unwrap_or_else(|| PathBuf::from(DEFAULT_PIN_DIR)),
        checkpoint_interval: interval.unwrap_or(DEFAULT_CHECKPOINT_INTERVAL),
        hooks: hooks.unwrap_or(HookChoice::Auto),
        ring_buffer_size: ring.unwrap_or(tracer_common::limits::DEFAULT_RING_BYTES),
        btf: btf.map_or_else(|| PathBuf::from(DEFAULT_BTF), PathBuf::from),
        discover: discover.unwrap_or_default(),
        services: services.unwrap_or_default(),
        join: join.unwrap_or_default(),
        ratio: ratio.unwrap_or_default(),
        show_ids: show_ids.unwrap_or(false),
        otlp,
    }
}

/// A program that waits longer than this looks like one that hangs.
const MAX_HOLD: Duration = Duration::from_secs(10);

/// Half of the time after which a connection on which nothing happens is forgotten.
const MAX_POD_WAIT: Duration = Duration::from_secs(30);

fn discover(reader: &mut Reader, node: &Node<'_, '_>) -> DiscoverSettings {
    let known = ["hold_exec", "hold_limit", "hold_mounts", "kubernetes", "node_name", "pod_wait"];
    let fields = reader.map(node, &known);
    let mut settings = DiscoverSettings::default();
    if let Some(flag) = fields.optional("hold_exec").and_then(|node| reader.flag(&node)) {
        settings.hold_exec = flag;
    }
    set_duration(reader, &fields, "hold_limit", &mut settings.hold_limit);
    if let Some(node) = fields.optional("hold_limit")
        && !(Duration::from_millis(1)..=MAX_HOLD).contains(&settings.hold_limit)
    {
        reader.problem(&node, "out of range; `1ms` to `10s`");
    }
    if let Some(node) = fields.optional("hold_mounts") {
        let nodes = reader.list(&node);
        settings.hold_mounts = nodes.iter().filter_map(|node| reader.parsed(node, Pattern::path)).collect();
    }
    settings.kubernetes = fields.optional("kubernetes").and_then(|node| reader.flag_or_auto(&node));
    if let Some(name) = fields.optional("node_name").and_then(|node| reader.parsed(&node, kubernetes_name)) {
        settings.node_name = name;
    }
    set_duration(reader, &fields, "pod_wait", &mut settings.pod_wait);
    if let Some(node) = fields.optional("pod_wait")
        && !(Duration::from_millis(100)..=MAX_POD_WAIT).contains(&settings.pod_wait)
    {
        reader.problem(&node, "out of range; `100ms` to `30s`");
    }
    settings
}

fn services(reader: &mut Reader, node: &Node<'_, '_>) -> Vec<Service> {
    let nodes = reader.list(node);
    if nodes.is_empty() {
        reader.problem(node, "at least one service is needed");
    }
    let mut names = HashSet::new();
    let mut services = Vec::with_capacity(nodes.len());
    for node in &nodes {
        let service = service(reader, node);
        if !service.name.is_empty() && !names.insert(service.name.clone()) {
            reader.problem(node, format!("a second service of the name \"{}\"", service.name));
        }
        services.push(service);
    }
    services
}

fn service(reader: &mut Reader, node: &Node<'_, '_>) -> Service {
    let known =
        ["name", "match", "release", "group", "request", "exposure", "click", "report", "suspicious_after"];
    let fields = reader.map(node, &known);
    let name = fields.required(reader, "name").and_then(|node| reader.parsed(&node, service_name));
    let processes = fields.required(reader, "match").map(|node| process_match(reader, &node));
    let release = fields.optional("release").map(|node| {
        let nodes = reader.list(&node);
        nodes.iter().filter_map(|node| reader.parsed(node, release_source)).collect()
    });
    let group = fields.optional("group").and_then(|node| reader.parsed(&node, group_source));
    let request = fields.optional("request").and_then(|node| request(reader, &node));
    let exposure = fields.optional("exposure").and_then(|node| sdk_probe(reader, &node));
    let click = fields.optional("click").and_then(|node| sdk_probe(reader, &node));
    let report = fields.optional("report").and_then(|node| report(reader, &node));
    let suspicious_after = fields.optional("suspicious_after").and_then(|node| reader.count(&node));
    if ["request", "exposure", "click", "report"].iter().all(|key| fields.optional(key).is_none()) {
        reader
            .problem(node, "nothing to trace: give at least one of `request`, `exposure`, `click`, `report`");
    }
    Service {
        name: name.unwrap_or_default(),
        processes: processes.unwrap_or_default(),
        release: release.unwrap_or_default(),
        group,
        request,
        exposure,
        click,
        report,
        suspicious_after: suspicious_after.unwrap_or(DEFAULT_SUSPICIOUS_AFTER),
    }
}

fn process_match(reader: &mut Reader, node: &Node<'_, '_>) -> ProcessMatch {
    let known = ["exe", "cmdline", "cgroup", "image", "namespace", "pod_labels"];
    let fields = reader.map(node, &known);
    let mut pattern = |name: &str, parse: fn(&str) -> Result<Pattern, String>| {
        fields.optional(name).and_then(|node| reader.parsed(&node, parse))
    };
    let processes = ProcessMatch {
        exe: pattern("exe", Pattern::path),
        cmdline: pattern("cmdline", Pattern::text),
        cgroup: pattern("cgroup", Pattern::text),
        image: pattern("image", Pattern::text),
        namespace: pattern("namespace", Pattern::text),
        pod_labels: Vec::new(),
    };
    if known.iter().all(|key| fields.optional(key).is_none()) {
        reader.problem(
            node,
            "matches every process: give at least one of `exe`, `cmdline`, `cgroup`, `image`, `namespace`, `pod_labels`",
        );
    }
    let Some(node) = fields.optional("pod_labels") else { return processes };
    let labels = reader.pairs(&node);
    if labels.is_empty() {
        reader.problem(&node, "at least one label; write it like `pod_labels: { app: recommend }`");
    }
    let pattern =
        |(name, node): &(String, Node<'_, '_>)| Some((name.clone(), reader.parsed(node, Pattern::text)?));
    ProcessMatch { pod_labels: labels.iter().filter_map(pattern).collect(), ..processes }
}

fn request(reader: &mut Reader, node: &Node<'_, '_>) -> Option<RequestProbe> {
    let fields = reader.map(node, &["id", "direction", "tls"]);
    let direction = fields.optional("direction").and_then(|node| reader.parsed(&node, direction));
    let tls = fields.optional("tls").and_then(|node| reader.parsed(&node, tls));
    let id = fields.required(reader, "id")?;
    let fields = reader.map(&id, &["header", "body"]);
    let header = fields.optional("header").and_then(|node| reader.parsed(&node, header_name));
    let body = fields.optional("body").and_then(|node| reader.parsed(&node, body_field));
    if fields.optional("header").is_none() && fields.optional("body").is_none() {
        reader.problem(&id, "where the id is is not said: give `header`, `body` or both");
    }
    Some(RequestProbe {
        header,
        body,
        direction: direction.unwrap_or(Direction::Any),
        tls: tls.unwrap_or(true),
    })
}

fn sdk_probe(reader: &mut Reader, node: &Node<'_, '_>) -> Option<SdkProbe> {
    let fields = reader.map(node, &["library", "symbol", "usdt", "args", "abi"]);
    let library = fields.optional("library").and_then(|node| reader.text(&node));
    let target = target(reader, node, &fields);
    let is_usdt = fields.optional("usdt").is_some();
    if let Some(node) = fields.optional("abi").filter(|_| is_usdt) {
        reader.problem(&node, "a USDT probe says itself where its arguments are: leave `abi` out");
    }
    let abi = fields.optional("abi").and_then(|node| reader.parsed(&node, abi)).flatten();
    let args = fields.required(reader, "args").and_then(|node| {
        reader.parsed(&node, |text| {
            let args = SdkArgs::parse(text)?;
            if is_usdt {
                return args.locate_usdt().map(|_| args);
            }
            // With `auto` the file decides later; now it has to make sense under one of them.
            match abi {
                Some(abi) => args.locate(abi).map(drop)?,
                None if Abi::ALL.iter().any(|abi| args.locate(*abi).is_ok()) => {}
                None => args.locate(Abi::C).map(drop)?,
            }
            Ok(args)
        })
    });
    let place = format!("{} ({})", node.key(), node.place());
    Some(SdkProbe { library, target: target?, args: args?, abi, place })
}

/// What a probe is on: `symbol` or `usdt`.
fn target(reader: &mut Reader, node: &Node<'_, '_>, fields: &Fields<'_, '_>) -> Option<Target> {
    match (fields.optional("symbol"), fields.optional("usdt")) {
        (Some(symbol), None) => reader.text(&symbol).map(Target::Function),
        (None, Some(usdt)) => reader.parsed(&usdt, usdt_name).map(Target::Usdt),
        (Some(_), Some(usdt)) => {
            reader.problem(&usdt, "`symbol` and `usdt` are two things to trace: give one of them");
            None
        }
        (None, None) => {
            reader.problem(
                node,
                "nothing to trace: give `symbol`, a function, or `usdt`, a probe `provider:name`",
            );
            None
        }
    }
}

fn usdt_name(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some((provider, name)) if !provider.is_empty() && !name.is_empty() && !name.contains(':') => {
            Ok(text.to_owned())
        }
        _ => Err(format!("\"{text}\" is no USDT probe; write it like `provider:name`")),
    }
}

/// So that a handful of services fits into the kernel side's table, with several addresses a name.
const MAX_COLLECTORS_PER_SERVICE: usize = 64;

fn report(reader: &mut Reader, node: &Node<'_, '_>) -> Option<ReportProbe> {
    let fields = reader.map(node, &["to"]);
    let to = fields.required(reader, "to")?;
    let nodes = reader.list(&to);
    if nodes.is_empty() || nodes.len() > MAX_COLLECTORS_PER_SERVICE {
        reader.problem(&to, format!("1 to {MAX_COLLECTORS_PER_SERVICE} collectors, found {}", nodes.len()));
    }
    Some(ReportProbe { to: nodes.iter().filter_map(|node| reader.parsed(node, Collector::parse)).collect() })
}

fn join(reader: &mut Reader, node: &Node<'_, '_>) -> JoinSettings {
    let known = ["exposure_window", "click_window", "report_window", "lateness", "skew", "memory_limit"];
    let fields = reader.map(node, &known);
    let mut settings = JoinSettings::default();
    let mut set = |name: &str, slot: &mut Duration| set_duration(reader, &fields, name, slot);
    set("exposure_window", &mut settings.exposure_window);
    set("click_window", &mut settings.click_window);
    set("report_window", &mut settings.report_window);
    set("lateness", &mut settings.lateness);
    set("skew", &mut settings.skew);
    if let Some(limit) = fields.optional("memory_limit").and_then(|node| reader.parsed(&node, memory_limit)) {
        settings.memory_limit = limit;
    }
    settings
}

fn ratio(reader: &mut Reader, node: &Node<'_, '_>) -> RatioSettings {
    let fields = reader.map(node, &["window", "trusted_width"]);
    let mut settings = RatioSettings::default();
    if let Some(window) = fields.optional("window").and_then(|node| reader.parsed(&node, ratio_window)) {
        settings.window = window;
    }
    if let Some(width) =
        fields.optional("trusted_width").and_then(|node| reader.parsed(&node, units::percent))
    {
        settings.trusted_width = width;
    }
    settings
}

fn show_ids(reader: &mut Reader, node: &Node<'_, '_>) -> Option<bool> {
    let fields = reader.map(node, &["show_ids"]);
    fields.optional("show_ids").and_then(|node| reader.flag(&node))
}

/// What goes through the queue to the receiver.
const MAX_TRIPLES_PER_SECOND: u32 = 1000;

fn export(reader: &mut Reader, node: &Node<'_, '_>) -> Option<OtlpSettings> {
    let fields = reader.map(node, &["otlp"]);
    fields.optional("otlp").and_then(|node| otlp(reader, &node))
}

fn otlp(reader: &mut Reader, node: &Node<'_, '_>) -> Option<OtlpSettings> {
    let fields = reader.map(node, &["endpoint", "show_ids", "broken_per_second", "complete_per_second"]);
    let endpoint = fields.required(reader, "endpoint").and_then(|node| reader.parsed(&node, otlp_endpoint));
    let show_ids = fields.optional("show_ids").and_then(|node| reader.flag(&node));
    let mut limit =
        |name| fields.optional(name).and_then(|node| reader.at_most(&node, MAX_TRIPLES_PER_SECOND));
    let broken_per_second = limit("broken_per_second");
    let complete_per_second = limit("complete_per_second");
    Some(OtlpSettings {
        endpoint: endpoint?,
        show_ids: show_ids.unwrap_or(false),
        broken_per_second: broken_per_second.unwrap_or(OtlpSettings::DEFAULT_BROKEN_PER_SECOND),
        complete_per_second: complete_per_second.unwrap_or(OtlpSettings::DEFAULT_COMPLETE_PER_SECOND),
    })
}

/// Where a receiver is, such as `http://127.0.0.1:4318`, without a slash at the end.
fn otlp_endpoint(text: &str) -> Result<String, String> {
    let is_base = |uri: &ureq::http::Uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    };
    match text.parse().ok().filter(is_base) {
        Some(_) if text.contains('?') || text.trim_end_matches('/').ends_with("/v1/traces") => Err(format!(
            "\"{text}\" is too much: /v1/traces is added to it; write it like `http://127.0.0.1:4318`"
        )),
        Some(_) => Ok(text.trim_end_matches('/').to_owned()),
        None => Err(format!("\"{text}\" is no URL of a receiver; write it like `http://127.0.0.1:4318`")),
    }
}

fn ratio_window(text: &str) -> Result<Duration, String> {
    const SHORTEST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(24 * 3600);
    let window = units::duration(text)?;
    if (SHORTEST..=LONGEST).contains(&window) {
        Ok(window)
    } else {
        Err(format!("{text} is out of range; `1s` to `24h`"))
    }
}

fn set_duration(reader: &mut Reader, fields: &Fields<'_, '_>, name: &str, slot: &mut Duration) {
    if let Some(value) = fields.optional(name).and_then(|node| reader.parsed(&node, units::duration)) {
        *slot = value;
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("\"{text}\" is not an address with a port; write it like `127.0.0.1:9464`"))
}

fn hook_choice(text: &str) -> Result<HookChoice, String> {
    [HookChoice::Auto, HookChoice::Kprobe, HookChoice::Tracepoint]
        .into_iter()
        .find(|choice| choice.name() == text)
        .ok_or_else(|| format!("unknown kind of hook \"{text}\"; one of `auto`, `kprobe`, `tracepoint`"))
}

fn abi(text: &str) -> Result<Option<Abi>, String> {
    match Abi::ALL.into_iter().find(|abi| abi.name() == text) {
        None if text != "auto" => {
            Err(format!("unknown abi \"{text}\"; one of `auto`, `c`, `cpp`, `go`, `rust`"))
        }
        abi => Ok(abi),
    }
}

/// A folder of bpffs, which takes no dots in names: it keeps them for itself.
fn pin_dir(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if !path.is_absolute() {
        Err("not an absolute path".to_owned())
    } else if text.contains('.') {
        Err("a BPF file system takes no dots in names".to_owned())
    } else {
        Ok(path)
    }
}

fn checkpoint_interval(text: &str) -> Result<Duration, String> {
    let interval = units::duration(text)?;
    if CHECKPOINT_INTERVALS.contains(&interval) {
        Ok(interval)
    } else {
        Err("out of range; `1s` to `1h`".to_owned())
    }
}

/// A bound of the join's memory such as `1GiB`, in bytes.
pub(crate) fn memory_limit(text: &str) -> Result<u64, String> {
    let size = units::size(text)?;
    if (MIN_MEMORY_LIMIT_BYTES..=MAX_MEMORY_LIMIT_BYTES).contains(&size) {
        Ok(size)
    } else {
        Err(format!("{size} bytes is out of range; `16MiB` to `128GiB`"))
    }
}

fn ring_size(text: &str) -> Result<u32, String> {
    let size = units::size(text)?;
    let lower = match size {
        0 => MIN_RING_BYTES,
        size => 1 << size.ilog2(),
    };
    if !size.is_power_of_two() {
        return Err(format!(
            "{size} bytes is no power of two, and the kernel takes nothing else; the nearest are {} and {} KiB",
            lower / 1024,
            lower.saturating_mul(2) / 1024
        ));
    }
    u32::try_from(size)
        .ok()
        .filter(|_| (MIN_RING_BYTES..=MAX_RING_BYTES).contains(&size))
        .ok_or_else(|| format!("{size} bytes is out of range; `64KiB` to `1GiB`"))
}

/// Names become label values: short, and nothing that breaks a line.
fn service_name(text: &str) -> Result<String, String> {
    if text.len() > 63 || text.chars().any(char::is_control) {
        return Err("a service's name has at most 63 bytes and no control characters".to_owned());
    }
    Ok(text.to_owned())
}

fn header_name(text: &str) -> Result<String, String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.bytes().all(token) {
        Ok(text.to_owned())
    } else {
        Err(format!("\"{text}\" cannot be the name of a header; write it like `X-Request-Id`"))
    }
}

fn body_field(text: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> = text.split('.').map(str::to_owned).collect();
    if names.iter().all(|name| !name.is_empty()) {
        Ok(names)
    } else {
        Err(format!(
            "\"{text}\" is no field; write it like `request_id`, or `meta.request_id` within an object"
        ))
    }
}

fn tls(text: &str) -> Result<bool, String> {
    match text {
        "auto" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("unknown way with TLS \"{text}\"; one of `auto`, `off`")),
    }
}

fn direction(text: &str) -> Result<Direction, String> {
    Direction::ALL
        .into_iter()
        .find(|direction| direction.name() == text)
        .ok_or_else(|| format!("unknown direction \"{text}\"; one of `any`, `request`, `response`"))
}

/// The node's name where the configuration does not say it: what a pod gets by `fieldRef`, else the host's.
pub(super) fn node_name() -> String {
    std::env::var("NODE_NAME").ok().filter(|name| !name.is_empty()).unwrap_or_else(host_name)
}

/// It becomes part of a question to the API.
fn kubernetes_name(text: &str) -> Result<String, String> {
    let is_name =
        text.len() <= 253 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
    if is_name {
        Ok(text.to_owned())
    } else {
        Err(format!("\"{text}\" cannot be the name of a node; `kubectl get nodes` lists them"))
    }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}
