//! What a process says it is: its release, its group, and what is known of how it was built.
//!
//! Reads; how many values the labels can have is decided in `labels`.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    pods::{Fact, Image, PodView},
    proc, release_file,
};
use crate::{
    config::{LabelSource, Service},
    domain::ReleaseFacts,
    symbols::go::{self, BuildInfo},
};

/// Stands between the parts of a release.
const PART_SEPARATOR: char = '+';
/// Modules and build settings that are kept of a release, and the longest value in bytes.
const MAX_MODULES: usize = 1000;
const MAX_SETTINGS: usize = 64;
const MAX_FACT_LEN: usize = 512;

/// What a process says of itself, and Kubernetes of its pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// What the configured sources of the release answer, in their order; those that do not are left out.
    release_answers: Vec<Answer>,
    group_answer: Option<Answer>,
    /// The first of the release's that is something; `None` as long as that is not known.
    base: Option<String>,
    /// The files that are part of the release.
    pub(super) files: Vec<FilePart>,
    /// The A/B group.
    pub(super) group: String,
    executable: Option<String>,
    /// Known from the file, and not after a restart.
    #[serde(skip)]
    build: Option<Arc<BuildInfo>>,
    image: Option<String>,
    pod_labels: BTreeMap<String, String>,
}

/// What one source answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Answer {
    Said(String),
    /// Kubernetes will.
    OfPod(LabelSource),
}

/// A file whose content is part of the release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FilePart {
    path: String,
    reading: Option<release_file::Reading>,
}

impl Identity {
    /// Asks the process `pid`. What it does not say, or no longer can, stays empty.
    pub(super) fn read(service: &Service, pid: u32, builds: &mut Builds) -> Self {
        let build = builds.of_process(pid);
        let said = |source: &LabelSource| match source {
            LabelSource::Environment(name) => proc::environment_variable(pid, name).ok()?,
            LabelSource::GoBuildInfo => build.as_ref()?.revision().map(str::to_owned),
            LabelSource::File(_)
            | LabelSource::ImageTag
            | LabelSource::ImageDigest
            | LabelSource::PodLabel(_) => None,
        };
        let answer = |source: &LabelSource| match source {
            LabelSource::ImageTag | LabelSource::ImageDigest | LabelSource::PodLabel(_) => {
                Some(Answer::OfPod(source.clone()))
            }
            _ => said(source).filter(|value| !value.is_empty()).map(Answer::Said),
        };
        let files = service.release.iter().filter_map(|source| match source {
            LabelSource::File(path) => {
                Some(FilePart { path: path.clone(), reading: release_file::read(pid, path).ok() })
            }
            _ => None,
        });
        Self {
            release_answers: service.release.iter().filter_map(answer).collect(),
            group_answer: service.group.as_ref().and_then(answer),
            files: files.collect(),
            executable: proc::exe(pid).ok().map(short),
            build,
            ..Self::default()
        }
    }

    /// Takes what is known of the pod. True when that is all that release and group need; what is not known yet is
    /// empty until then, and no later source stands in for it.
    pub(super) fn learn(&mut self, pod: &PodView<'_>) -> bool {
        let (mut base, mut is_complete) = (None, true);
        for answer in &self.release_answers {
            match answer.of(pod) {
                Fact::Is(value) => base = Some(value.to_owned()),
                Fact::Absent => continue,
                Fact::NotYet => is_complete = false,
            }
            break;
        }
        self.base = base;
        self.group = String::new();
        match self.group_answer.as_ref().map(|answer| answer.of(pod)) {
            Some(Fact::Is(group)) => self.group = group.to_owned(),
            Some(Fact::NotYet) => is_complete = false,
            Some(Fact::Absent) | None => {}
        }
        if let Fact::Is(image) = pod.image {
            self.image = Some(short(full_name(image)));
        }
        if let Fact::Is(labels) = pod.labels {
            let asked_for =
                self.release_answers.iter().chain(&self.group_answer).filter_map(|answer| match answer {
                    Answer::OfPod(LabelSource::PodLabel(name)) => {
                        Some((short(name.clone()), short(labels.get(name)?.clone())))
                    }
                    _ => None,
                });
            self.pod_labels = asked_for.collect();
        }
        is_complete
    }

    /// The release: what the first source said, then what each file says.
    pub(super) fn release(&self) -> String {
        let files = self.files.iter().filter_map(|part| part.reading.as_ref());
        let parts: Vec<&str> =
            self.base.as_deref().into_iter().chain(files.map(|reading| reading.value.as_str())).collect();
        parts.join(&PART_SEPARATOR.to_string())
    }

    /// What is known of it.
    pub(super) fn facts(&self) -> ReleaseFacts {
        let said =
            |part: &FilePart| Some((short(part.path.clone()), short(part.reading.as_ref()?.value.clone())));
        ReleaseFacts {
            executable: self.executable.clone(),
            image: self.image.clone(),
            pod_labels: self.pod_labels.clone(),
            files: self.files.iter().filter_map(said).collect(),
            ..self.build.as_deref().map(build_facts).unwrap_or_default()
        }
    }

    /// Reads the files again that may have changed by `wall_ns`, in nanoseconds since the Unix epoch as the
    /// system's clock has it now. Returns the time of the last change when one says something else. A file that
    /// is gone or empty keeps its last word: it is about to be replaced.
    pub(super) fn follow(&mut self, pid: u32, wall_ns: u64) -> Option<u64> {
        let mut changed_ns = None;
        for FilePart { path, reading } in &mut self.files {
            if reading.as_ref().is_some_and(|known| known.holds(pid, path, wall_ns)) {
                continue;
            }
            let Ok(new) = release_file::read(pid, path) else { continue };
            if reading.as_ref().is_none_or(|known| known.value != new.value) {
                changed_ns = changed_ns.max(Some(new.changed_ns()));
            }
            *reading = Some(new);
        }
        changed_ns
    }
}

impl Answer {
    /// The value; one that is empty is none.
    fn of<'a>(&'a self, pod: &PodView<'a>) -> Fact<&'a str> {
        let value = match self {
            Self::Said(value) => Fact::Is(Some(value.as_str())),
            Self::OfPod(LabelSource::PodLabel(name)) => {
                pod.labels.map(|labels| labels.get(name).map(String::as_str))
            }
            Self::OfPod(LabelSource::ImageDigest) => pod.image.map(Image::digest),
            Self::OfPod(_) => pod.image.map(Image::tag),
        };
        match value {
            Fact::Is(Some(value)) if !value.is_empty() => Fact::Is(value),
            Fact::Is(_) | Fact::Absent => Fact::Absent,
            Fact::NotYet => Fact::NotYet,
        }
    }
}

/// The image as the pod asks for it, with the digest of what runs.
fn full_name(image: &Image) -> String {
    match image.digest() {
        Some(digest) if !image.name.contains(digest) => format!("{}@{digest}", image.name),
        _ => image.name.clone(),
    }
}

/// What Go's toolchain wrote into executables, each file read once.
#[derive(Default)]
pub(super) struct Builds {
    known: HashMap<FileVersion, Option<Arc<BuildInfo>>>,
}

/// One state of one file: device, inode, size, and time of the last change in seconds and nanoseconds.
type FileVersion = (u64, u64, u64, i64, i64);

impl Builds {
    /// Executables that are remembered.
    const MAX_KNOWN: usize = 256;

    fn of_process(&mut self, pid: u32) -> Option<Arc<BuildInfo>> {
        // The file itself, whatever root the process has, and also when it was replaced.
        let path = format!("/proc/{pid}/exe");
        let metadata = fs::metadata(&path).ok()?;
        let version =
            (metadata.dev(), metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec());
        if let Some(known) = self.known.get(&version) {
            return known.clone();
        }
        let build = go::build_info(Path::new(&path)).ok()?.map(Arc::new);
        if self.known.len() >= Self::MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(version, build.clone());
        build
    }
}

fn build_facts(build: &BuildInfo) -> ReleaseFacts {
    let main = build.main.as_ref().filter(|main| !main.path.is_empty());
    let module = |module: &go::ModuleVersion| (short(module.path.clone()), short(module.version.clone()));
    let setting = |(name, value): &(String, String)| (short(name.clone()), short(value.clone()));
    ReleaseFacts {
        commit: build.revision().map(|commit| short(commit.to_owned())),
        go_version: Some(short(build.go_version.clone())),
        main_module: main.map(|main| short(format!("{}@{}", main.path, main.version))),
        modules: build.dependencies.iter().take(MAX_MODULES).map(module).collect(),
        modules_left_out: build.dependencies.len().saturating_sub(MAX_MODULES) as u64,
        settings: build.settings.iter().take(MAX_SETTINGS).map(setting).collect(),
        ..ReleaseFacts::default()
    }
}

/// What a process says is not trusted: its length is bounded.
fn short(mut text: String) -> String {
    if text.len() > MAX_FACT_LEN {
        text.truncate(text.floor_char_boundary(MAX_FACT_LEN));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, os::unix::fs::symlink, path::Path, process};

    use super::{Builds, Identity, short};
    use crate::{
        config::Config,
        discover::pods::{Fact, Image, PodView},
    };

    #[test]
    fn a_file_is_part_of_the_release_and_is_followed() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let link = folder.path().join("active");
        symlink("model-7", &link).expect("is writable");
        let text = format!(
            "services: [{{ name: a, match: {{ exe: /a }}, release: [\"env:CARGO_PKG_NAME\", \"file:{}\"], report: {{ to: [\"1.2.3.4:5\"] }} }}]",
            link.display()
        );
        let service = Config::parse(&text, Path::new("test.yaml")).expect("valid").services.remove(0);
        let mut identity = Identity::read(&service, process::id(), &mut Builds::default());
        assert!(identity.learn(&PodView::ABSENT));
        assert_eq!(identity.release(), "tracer-user+model-7");
        let later = |identity: &Identity| {
            identity.files[0].reading.as_ref().map_or(0, |reading| reading.changed_ns()) + 1_000_000_000
        };
        assert_eq!(identity.follow(process::id(), later(&identity)), None);
        // As `ln -sfn` does it.
        symlink("model-8", folder.path().join("new")).expect("is writable");
        fs::rename(folder.path().join("new"), &link).expect("is writable");
        let changed_ns = identity.follow(process::id(), later(&identity)).expect("it changed");
        assert!(changed_ns > 0);
        assert_eq!(identity.release(), "tracer-user+model-8");
        assert_eq!(identity.facts().files.values().collect::<Vec<_>>(), ["model-8"]);
        fs::remove_file(&link).expect("is there");
        assert_eq!(identity.follow(process::id(), later(&identity)), None);
        assert_eq!(identity.release(), "tracer-user+model-8", "it keeps its last word");
    }

    #[test]
    fn what_kubernetes_says_has_its_place_in_the_order_and_nothing_stands_in_for_it() {
        let release = |sources: &str, view: &PodView<'_>| {
            let text = format!(
                "services: [{{ name: a, match: {{ exe: /a }}, release: [{sources}], group: \"pod_label:track\", report: {{ to: [\"1.2.3.4:5\"] }} }}]"
            );
            let service = Config::parse(&text, Path::new("test.yaml")).expect("valid").services.remove(0);
            let mut identity = Identity::read(&service, process::id(), &mut Builds::default());
            let is_complete = identity.learn(view);
            (identity.release(), identity.group.clone(), is_complete)
        };
        let image = Image { name: "shop:1.2".into(), resolved: String::new(), id: "shop@sha256:ab".into() };
        let labels = BTreeMap::from([("track".to_owned(), "canary".to_owned())]);
        let known = PodView { namespace: Fact::Is("n"), labels: Fact::Is(&labels), image: Fact::Is(&image) };
        let starting = PodView { image: Fact::NotYet, ..known };
        let said = |release: &str, is_complete| (release.to_owned(), "canary".to_owned(), is_complete);
        assert_eq!(release("\"env:CARGO_PKG_NAME\", image_tag", &starting), said("tracer-user", true));
        assert_eq!(release("\"env:UNUSED\", image_tag", &known), said("1.2", true));
        assert_eq!(release("\"pod_label:version\", image_digest", &known), said("sha256:ab", true));
        assert_eq!(release("image_tag, \"env:CARGO_PKG_NAME\"", &starting), said("", false));
        let absent = (String::from("tracer-user"), String::new(), true);
        assert_eq!(release("image_tag, \"env:CARGO_PKG_NAME\"", &PodView::ABSENT), absent);
    }

    #[test]
    fn a_fact_is_bounded() {
        assert_eq!(short("a".repeat(600)).len(), 512 + '…'.len_utf8());
        assert!(short("ä".repeat(600)).len() < 520);
    }
}
