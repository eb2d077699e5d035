//! The configuration file, read into plain structs.
//!
//! [`Config::load`] reports every problem of a file at once, each with its place and its remedy, and
//! touches nothing but the file. Whether the machine can do what the file asks for is the question
//! of `preflight`. Every default stands in this file.

mod collector;
mod fields;
mod glob;
mod reader;
mod sdk_args;
mod sources;
#[cfg(test)]
mod tests;
mod units;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

pub use collector::{Collector, Network};
pub(crate) use fields::memory_limit;
pub use glob::Pattern;
pub use reader::{ConfigError, Problem};
pub use sdk_args::{Abi, IdArguments, SdkArgs, UsdtArgument, UsdtArguments};

/// Everything the daemon is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `source`: the name of this node. Default: the host's name.
    pub source: String,
    /// `listen`: where metrics and health are served. Default `127.0.0.1:9464`.
    pub listen: SocketAddr,
    /// `state_dir`: where state outlives the process; `None`, the default: it does not.
    pub state_dir: Option<PathBuf>,
    /// `pin_dir`: where, with `state_dir`, the kernel side outlives the process; on bpffs. Default
    /// `/sys/fs/bpf/linktracer`.
    pub pin_dir: PathBuf,
    /// `checkpoint_interval`: how often the state is written; 1 s to 1 h. Default 1 min.
    pub checkpoint_interval: Duration,
    /// `hooks`: which kind of kernel hook to use. Default `auto`.
    pub hooks: HookChoice,
    /// `ring_buffer_size`: bytes of the ring buffer; a power of two, 64 KiB to 1 GiB. Default 16 MiB.
    pub ring_buffer_size: u32,
    /// `btf`: the kernel's type information. Default `/sys/kernel/btf/vmlinux`.
    pub btf: PathBuf,
    /// `discover`: how processes are found.
    pub discover: DiscoverSettings,
    /// `services`: what to trace; at least one.
    pub services: Vec<Service>,
    /// `join`: windows and limits.
    pub join: JoinSettings,
    /// `ratio`: the broken-link ratio over time.
    pub ratio: RatioSettings,
    /// `page.show_ids`: show request and item ids of broken links on the page. Default: no.
    pub show_ids: bool,
    /// `export.otlp`: triples as traces; `None`, the default: none.
    pub otlp: Option<OtlpSettings>,
}

/// How processes are found.
#[derive(Debug, Clone, PartialEq)]
pub struct DiscoverSettings {
    /// `hold_exec`: hold the first exec of a program until its probes are in place. Default: no.
    pub hold_exec: bool,
    /// `hold_limit`: the longest time that a program is held. Default 500 ms.
    pub hold_limit: Duration,
    /// `hold_mounts`: mount points of file systems on which programs are held, besides those that the patterns of
    /// executables lead to. Default: none.
    pub hold_mounts: Vec<Pattern>,
    /// `kubernetes`: whether the API is asked for the pods of this node; `None` (`auto`, the default): where a service
    /// needs to know and there is an API.
    pub kubernetes: Option<bool>,
    /// `node_name`: the name of this node in Kubernetes. Default: the variable `NODE_NAME`, else the host's name.
    pub node_name: String,
    /// `pod_wait`: the longest time that a process waits for what Kubernetes says of it. Default 10 s.
    pub pod_wait: Duration,
}

impl Default for DiscoverSettings {
    fn default() -> Self {
        Self {
            hold_exec: false,
            hold_limit: Duration::from_millis(500),
            hold_mounts: Vec::new(),
            kubernetes: None,
            node_name: fields::node_name(),
            pod_wait: Duration::from_secs(10),
        }
    }
}

/// Which kind of kernel hook to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum HookChoice {
    /// A kprobe where the kernel takes one, else a tracepoint. Decided per hook, by trying.
    Auto,
    /// Kprobes only.
    Kprobe,
    /// Tracepoints only.
    Tracepoint,
}

impl HookChoice {
    /// The name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
        }
    }
}

/// A named set of processes with its probes.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// `name`: the value of the label `service`.
    pub name: String,
    /// `match`: which processes belong to it.
    pub processes: ProcessMatch,
    /// `release`: where a process says what it runs; the first source that answers counts, then every file.
    pub release: Vec<LabelSource>,
    /// `group`: where a process says its A/B group.
    pub group: Option<LabelSource>,
    /// `request`: how requests are recognised.
    pub request: Option<RequestProbe>,
    /// `exposure`: the SDK function that reports an exposure.
    pub exposure: Option<SdkProbe>,
    /// `click`: the SDK function that reports a click.
    pub click: Option<SdkProbe>,
    /// `report`: the collectors that click reports go to.
    pub report: Option<ReportProbe>,
    /// `suspicious_after`: requests without a single call after which a probe is suspicious. Default 1000.
    pub suspicious_after: u64,
}

/// Which processes belong to a service: those for which every given pattern holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ProcessMatch {
    /// `exe`: path of the executable, as the process itself sees it.
    pub exe: Option<Pattern>,
    /// `cmdline`: the arguments, joined by spaces.
    pub cmdline: Option<Pattern>,
    /// `cgroup`: path of the cgroup.
    pub cgroup: Option<Pattern>,
    /// `image`: the container's image, as the pod asks for it or as the runtime names it.
    pub image: Option<Pattern>,
    /// `namespace`: the pod's namespace.
    pub namespace: Option<Pattern>,
    /// `pod_labels`: labels that the pod has, and their values.
    pub pod_labels: Vec<(String, Pattern)>,
}

impl ProcessMatch {
    /// Does it take what only the Kubernetes API knows?
    pub const fn asks_the_api(&self) -> bool {
        self.image.is_some() || !self.pod_labels.is_empty()
    }

    /// Does it take anything of a pod?
    pub const fn asks_for_pod(&self) -> bool {
        self.asks_the_api() || self.namespace.is_some()
    }
}

impl Service {
    /// Do its processes say what they run only together with the Kubernetes API?
    pub fn labels_ask_the_api(&self) -> bool {
        self.release.iter().chain(&self.group).any(LabelSource::asks_the_api)
    }

    /// Is anything of a pod to be known before its processes can be told from others, or what they run?
    pub fn asks_for_pod(&self) -> bool {
        self.processes.asks_for_pod() || self.labels_ask_the_api()
    }
}

/// Where a label's value comes from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum LabelSource {
    /// `env:NAME`: a variable of the process's environment at its start.
    Environment(String),
    /// `go_build_info`: the commit that the Go toolchain wrote into the executable.
    GoBuildInfo,
    /// `file:PATH`, of releases only: a link's target or a file's first line, as the process sees it.
    File(String),
    /// `image_tag`: the tag of the container's image, as the pod asks for it.
    ImageTag,
    /// `image_digest`: the digest of the container's image.
    ImageDigest,
    /// `pod_label:NAME`: a label of the pod.
    PodLabel(String),
}

impl LabelSource {
    const fn asks_the_api(&self) -> bool {
        matches!(self, Self::ImageTag | Self::ImageDigest | Self::PodLabel(_))
    }
}

/// How requests are recognised.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestProbe {
    /// `id.header`: the header that carries the request id.
    pub header: Option<String>,
    /// `id.body`: the field of the body that carries it, where no such header is there: the names of
    /// the objects around it, outermost first, and its own.
    pub body: Option<Vec<String>>,
    /// `direction`: which messages that the service sends are looked at. Default `any`.
    pub direction: Direction,
    /// `tls`: whether messages are also looked at where they are handed to a TLS library. Default
    /// `auto`, which does.
    pub tls: bool,
}

/// Which messages that a service sends are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// All of them.
    Any,
    /// Requests to others.
    Request,
    /// Answers.
    Response,
}

impl Direction {
    /// Every direction.
    pub const ALL: [Self; 3] = [Self::Any, Self::Request, Self::Response];

    /// The name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Request => "request",
            Self::Response => "response",
        }
    }
}

/// A function of the tracking SDK.
#[derive(Debug, Clone)]
pub struct SdkProbe {
    /// `library`: path or name of the shared library; absent: the executable itself.
    pub library: Option<String>,
    /// `symbol` or `usdt`: what in that file.
    pub target: Target,
    /// `args`: its parameters.
    pub args: SdkArgs,
    /// `abi`: how it takes them; `None` (`auto`): as its file says.
    pub abi: Option<Abi>,
    /// Where the probe stands in the file, for messages.
    pub place: String,
}

/// Probes are equal wherever they stand in the file.
impl PartialEq for SdkProbe {
    fn eq(&self, other: &Self) -> bool {
        let Self { library, target, args, abi, place: _ } = self;
        (library, target, args, abi) == (&other.library, &other.target, &other.args, &other.abi)
    }
}

/// What of a file a probe is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `symbol`: functions of this name, which may hold `*`.
    Function(String),
    /// `usdt`: a probe that the program's author placed, `provider:name`; may hold `*`.
    Usdt(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(name) => write!(f, "{name}"),
            Self::Usdt(name) => write!(f, "usdt {name}"),
        }
    }
}

/// The collectors that click reports go to.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportProbe {
    /// `to`: networks or names, with ports. What goes to any of them is a report.
    pub to: Vec<Collector>,
}

/// Windows and limits of the join. Meaning in docs/semantics.md.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinSettings {
    /// `exposure_window`: from request to exposure. Default 10 min.
    pub exposure_window: Duration,
    /// `click_window`: from exposure to click. Default 30 min.
    pub click_window: Duration,
    /// `report_window`: from click to report. Default 30 s.
    pub report_window: Duration,
    /// `lateness`: how far out of order events may arrive. Default 2 s.
    pub lateness: Duration,
    /// `skew`: how far clocks may disagree. Default 100 ms.
    pub skew: Duration,
    /// `memory_limit`: the most memory that the join's state may take, in bytes; 16 MiB to 128 GiB. Default 1 GiB.
    pub memory_limit: u64,
}

impl Default for JoinSettings {
    fn default() -> Self {
        Self {
            exposure_window: Duration::from_secs(600),
            click_window: Duration::from_secs(1800),
            report_window: Duration::from_secs(30),
            lateness: Duration::from_secs(2),
            skew: Duration::from_millis(100),
            memory_limit: 1 << 30,
        }
    }
}

/// The broken-link ratio over time.
#[derive(Debug, Clone, PartialEq)]
pub struct RatioSettings {
    /// `window`: over how long it is taken. Default 15 min.
    pub window: Duration,
    /// `trusted_width`: how far its bounds may be apart for it to be trustworthy, as a share. Default 1 %.
    pub trusted_width: f64,
}

impl Default for RatioSettings {
    fn default() -> Self {
        Self { window: Duration::from_secs(900), trusted_width: 0.01 }
    }
}

/// Triples as traces, to a receiver of OTLP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpSettings {
    /// `endpoint`: where the receiver is, without the path `/v1/traces` and without a slash at the end.
    pub endpoint: String,
    /// `show_ids`: send request and item ids. Default: no.
    pub show_ids: bool,
    /// `broken_per_second`: at most so many broken triples. Default 10.
    pub broken_per_second: u32,
    /// `complete_per_second`: at most so many complete ones. Default 1.
    pub complete_per_second: u32,
}

impl OtlpSettings {
    pub(crate) const DEFAULT_BROKEN_PER_SECOND: u32 = 10;
    pub(crate) const DEFAULT_COMPLETE_PER_SECOND: u32 = 1;
}

/// Smallest ring buffer in bytes: sixteen pages.
pub const MIN_RING_BYTES: u64 = 64 * 1024;
/// Largest ring buffer in bytes.
pub const MAX_RING_BYTES: u64 = 1024 * 1024 * 1024;

/// Smallest bound of the join's memory in bytes: below it, what is evicted next is what came last.
pub const MIN_MEMORY_LIMIT_BYTES: u64 = 16 << 20;
/// Largest bound of the join's memory in bytes: it can address no more.
pub const MAX_MEMORY_LIMIT_BYTES: u64 = 128 << 30;

pub(crate) const DEFAULT_SUSPICIOUS_AFTER: u64 = 1000;
pub(crate) const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);
pub(crate) const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/linktracer";
pub(crate) const DEFAULT_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(60);
/// Shortest and longest `checkpoint_interval`.
pub const CHECKPOINT_INTERVALS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
pub(crate) const DEFAULT_BTF: &str = "/sys/kernel/btf/vmlinux";

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The file cannot be read or is not YAML, or every problem of its content.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable { path: path.to_path_buf(), error })?;
        Self::parse(&text, path)
    }

    /// The top-level keys whose values are others in `other`.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let Self {
            source,
            listen,
            state_dir,
            pin_dir,
            checkpoint_interval,
            hooks,
            ring_buffer_size,
            btf,
            discover,
            services,
            join,
            ratio,
            show_ids,
            otlp,
        } = self;
        let equal = [
            ("source", *source == other.source),
            ("listen", *listen == other.listen),
            ("state_dir", *state_dir == other.state_dir),
            ("pin_dir", *pin_dir == other.pin_dir),
            ("checkpoint_interval", *checkpoint_interval == other.checkpoint_interval),
            ("hooks", *hooks == other.hooks),
            ("ring_buffer_size", *ring_buffer_size == other.ring_buffer_size),
            ("btf", *btf == other.btf),
            ("discover", *discover == other.discover),
            ("services", *services == other.services),
            ("join", *join == other.join),
            ("ratio", *ratio == other.ratio),
            ("page", *show_ids == other.show_ids),
            ("export", *otlp == other.otlp),
        ];
        equal.iter().filter(|(_, equal)| !equal).map(|(key, _)| *key).collect()
    }

    /// Checks the text of a file; `path` is for messages.
    ///
    /// # Errors
    /// The text is not YAML, or every problem of its content.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        reader::read(text, path, fields::config)
    }
}
