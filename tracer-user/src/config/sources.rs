//! Where the value of a label comes from, from its text.

use super::LabelSource;

/// A source of the release.
pub(super) fn release_source(text: &str) -> Result<LabelSource, String> {
    match text.split_once(':') {
        Some(("file", path)) if path.starts_with('/') => Ok(LabelSource::File(path.to_owned())),
        Some(("file", path)) => {
            Err(format!("\"{path}\" is no absolute path; write it like `file:/models/active`"))
        }
        None if text == "go_build_info" => Ok(LabelSource::GoBuildInfo),
        _ => environment(text).or_else(|| pod_source(text)).ok_or_else(|| {
            format!(
                "unknown source \"{text}\"; one of `go_build_info`, `env:NAME`, `image_tag`, `image_digest`, `pod_label:NAME`, `file:/PATH`"
            )
        }),
    }
}

/// The source of the group.
pub(super) fn group_source(text: &str) -> Result<LabelSource, String> {
    environment(text).or_else(|| pod_source(text)).ok_or_else(|| {
        format!("unknown source \"{text}\"; one of `env:NAME`, `pod_label:NAME`, `image_tag`, `image_digest`")
    })
}

fn pod_source(text: &str) -> Option<LabelSource> {
    match text {
        "image_tag" => Some(LabelSource::ImageTag),
        "image_digest" => Some(LabelSource::ImageDigest),
        _ => {
            let name = text.strip_prefix("pod_label:").filter(|name| !name.is_empty())?;
            Some(LabelSource::PodLabel(name.to_owned()))
        }
    }
}

fn environment(text: &str) -> Option<LabelSource> {
    let name = text.strip_prefix("env:").filter(|name| !name.is_empty())?;
    Some(LabelSource::Environment(name.to_owned()))
}
