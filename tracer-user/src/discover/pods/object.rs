//! What matters here of a pod as the API has it.

use k8s_openapi::api::core::v1;

use super::{Container, Image, Pod};

impl From<&v1::Pod> for Pod {
    fn from(pod: &v1::Pod) -> Self {
        /// What the kubelet names the cgroup of a pod from a file by.
        const FILE_HASH: &str = "kubernetes.io/config.hash";
        let metadata = &pod.metadata;
        let hash = metadata.annotations.as_ref().and_then(|annotations| annotations.get(FILE_HASH));
        Self {
            uids: metadata.uid.iter().chain(hash).map(|uid| uid.to_ascii_lowercase()).collect(),
            namespace: metadata.namespace.clone().unwrap_or_default(),
            labels: metadata.labels.clone().unwrap_or_default(),
            containers: containers(pod),
        }
    }
}

/// The containers that have an id by now.
fn containers(pod: &v1::Pod) -> Vec<Container> {
    let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else { return Vec::new() };
    let plain = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let asked_for = |name: &str| {
        let ephemeral = spec.ephemeral_containers.iter().flatten();
        plain
            .clone()
            .map(|container| (&container.name, &container.image))
            .chain(ephemeral.map(|container| (&container.name, &container.image)))
            .find_map(|(of, image)| (of == name).then(|| image.clone()).flatten())
    };
    let all =
        [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    let known = all.into_iter().flatten().flatten().filter_map(|known| {
        let id = known.container_id.as_deref()?.rsplit('/').next().filter(|id| !id.is_empty())?;
        let name = asked_for(&known.name).unwrap_or_else(|| known.image.clone());
        let image = Image { name, resolved: known.image.clone(), id: known.image_id.clone() };
        Some(Container { id: id.to_owned(), image })
    });
    known.collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1;

    use super::Pod;

    #[test]
    fn every_kind_of_container_is_joined_with_what_the_pod_asks_for() {
        let pod: v1::Pod = serde_json::from_str(
            r#"{"metadata":{"uid":"ABC","namespace":"shop","labels":{"app":"a"},
                            "annotations":{"kubernetes.io/config.hash":"0f"}},
                "spec":{"containers":[{"name":"main","image":"shop/recommend:1.2"}],
                        "initContainers":[{"name":"init","image":"shop/init:1"}],
                        "ephemeralContainers":[{"name":"debug","image":"busybox"}]},
                "status":{"containerStatuses":[
                    {"name":"main","containerID":"containerd://c1","image":"docker.io/shop/recommend:other",
                     "imageID":"docker.io/shop/recommend@sha256:ab","ready":true,"restartCount":0}],
                  "initContainerStatuses":[
                    {"name":"init","containerID":"cri-o://c2","image":"i","imageID":"","ready":true,"restartCount":0}],
                  "ephemeralContainerStatuses":[
                    {"name":"debug","containerID":"docker://c3","image":"b","imageID":"","ready":true,"restartCount":0},
                    {"name":"late","image":"b","imageID":"","ready":false,"restartCount":0}]}}"#,
        )
        .expect("is a pod");
        let pod = Pod::from(&pod);
        assert_eq!(pod.uids, ["abc", "0f"]);
        let containers: Vec<(&str, &str, &str)> = pod
            .containers
            .iter()
            .map(|container| (&*container.id, &*container.image.name, &*container.image.resolved))
            .collect();
        let expected = [
            ("c1", "shop/recommend:1.2", "docker.io/shop/recommend:other"),
            ("c2", "shop/init:1", "i"),
            ("c3", "busybox", "b"),
        ];
        assert_eq!(containers, expected);
        assert_eq!(pod.containers[0].image.digest(), Some("sha256:ab"));
    }
}
