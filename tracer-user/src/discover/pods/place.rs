//! Which container a process is in, from the names of its cgroups.
//!
//! The kubelet and the runtimes name them, in some dozen ways: with systemd or without, each runtime with a prefix of
//! its own, a pod's id with `-` or `_`, in hierarchies of version 1 or 2, below the reader's own cgroup or beside it.
//! All have in common that a pod is `pod` with a UUID (or a hash of 32 digits for a pod from a file), and a container
//! 64 hexadecimal digits. What else the names say is not used.

use serde::{Deserialize, Serialize};

/// Where a process runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) enum Place {
    /// In no container.
    Host,
    /// In a container, or in what is around those of a pod.
    Container {
        /// The id of the pod that the cgroup names.
        pod_uid: Option<String>,
        /// The runtime's id of the container.
        container_id: Option<String>,
    },
    /// It was gone before it could be read.
    Unknown,
}

impl Place {
    /// Reads the lines of `/proc/PID/cgroup`. A line that names a pod says more than one that does not.
    pub(in super::super) fn parse(text: &str) -> Self {
        let mut best = Self::Host;
        for line in text.lines() {
            let Some(path) = line.splitn(3, ':').nth(2) else { continue };
            let place = Self::of_path(path);
            match &place {
                Self::Container { pod_uid: Some(_), container_id: Some(_) } => return place,
                Self::Container { pod_uid: Some(_), .. } => best = place,
                Self::Container { .. } if best == Self::Host => best = place,
                _ => {}
            }
        }
        best
    }

    /// What the line of the version 2 hierarchy alone says: the one whose cgroup a record of the kernel side names.
    pub(in super::super) fn of_unified(text: &str) -> Self {
        text.lines().find_map(|line| line.strip_prefix("0::")).map_or(Self::Host, Self::of_path)
    }

    fn of_path(path: &str) -> Self {
        let (mut pod_uid, mut container_id) = (None, None);
        // Of nested ones, the outermost pod counts and the container just within it: those inside are its own affair.
        for name in path.split(['/', ':']) {
            if pod_uid.is_none()
                && let Some(uid) = pod_in(name)
            {
                (pod_uid, container_id) = (Some(uid), None);
            } else if container_id.is_none() {
                container_id = container_in(name);
            }
        }
        match (pod_uid, container_id) {
            (None, None) => Self::Host,
            (pod_uid, container_id) => Self::Container { pod_uid, container_id },
        }
    }
}

/// The id of a pod in the name of its cgroup: `podUID`, `kubepods-burstable-podUID.slice`.
fn pod_in(name: &str) -> Option<String> {
    let name = name.strip_suffix(".slice").unwrap_or(name);
    let at = name.rfind("pod")?;
    if at > 0 && !name[..at].ends_with('-') {
        return None;
    }
    let uid = &name[at + 3..];
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts: Vec<&str> = uid.split(['-', '_']).collect();
    let is_uuid =
        parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]) && parts.iter().all(|part| hex(part));
    let is_hash = uid.len() == 32 && hex(uid);
    (is_uuid || is_hash).then(|| uid.replace('_', "-").to_ascii_lowercase())
}

/// The id of a container in the name of its cgroup: bare, `cri-containerd-ID.scope`, `crio-ID.scope`,
/// `docker-ID.scope`, or with the pod's slice before it (`SLICE:cri-containerd:ID`).
fn container_in(name: &str) -> Option<String> {
    const LEN: usize = 64;
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let start = name.len().checked_sub(LEN)?;
    let id = name.get(start..)?;
    let is_alone = start == 0 || name[..start].ends_with(['-', ':']);
    (is_alone && id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)))
        // CRI-O's process that watches over a container is not in it.
        .then(|| id.to_owned())
        .filter(|_| !name[..start].ends_with("conmon-"))
}

#[cfg(test)]
mod tests {
    use super::Place;

    const UID: &str = "3f2a1c4e-8b7d-4e6f-9a0b-1c2d3e4f5a6b";
    const SLICED_UID: &str = "3f2a1c4e_8b7d_4e6f_9a0b_1c2d3e4f5a6b";
    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[track_caller]
    fn check(path: &str, pod: Option<&str>, container: Option<&str>) {
        let path = path.replace("UID", UID).replace("SLICED", SLICED_UID).replace("ID64", ID);
        let expected = match (pod, container) {
            (None, None) => Place::Host,
            _ => Place::Container { pod_uid: pod.map(Into::into), container_id: container.map(Into::into) },
        };
        assert_eq!(Place::parse(&format!("0::{path}\n")), expected, "version 2: {path}");
        let lines = format!("12:pids:{path}\n1:name=systemd:{path}\n0::/\n");
        assert_eq!(Place::parse(&lines), expected, "version 1: {path}");
    }

    #[test]
    fn every_driver_and_runtime_is_understood() {
        // cgroupfs, as every runtime has it there.
        check("/kubepods/burstable/podUID/ID64", Some(UID), Some(ID));
        check("/kubepods/podUID/ID64", Some(UID), Some(ID));
        let slice = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podSLICED.slice";
        check(&format!("{slice}/cri-containerd-ID64.scope"), Some(UID), Some(ID));
        check(&format!("{slice}/crio-ID64.scope"), Some(UID), Some(ID));
        check(&format!("{slice}/crio-ID64.scope/container"), Some(UID), Some(ID));
        check(&format!("{slice}/docker-ID64.scope"), Some(UID), Some(ID));
        check("/kubepods.slice/kubepods-podSLICED.slice/cri-containerd-ID64.scope", Some(UID), Some(ID));
        // containerd told to use cgroupfs below a systemd kubelet.
        check("/system.slice/kubepods-besteffort-podSLICED.slice:cri-containerd:ID64", Some(UID), Some(ID));
        // Clusters whose nodes are containers, seen from within and from outside.
        check(&format!("/docker/{}/kubelet/kubepods/podUID/ID64", "9".repeat(64)), Some(UID), Some(ID));
        check(
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort-podSLICED.slice/cri-containerd-ID64.scope",
            Some(UID),
            Some(ID),
        );
        // As a reader in a cgroup namespace of its own sees another pod, and another container of its own pod.
        check("/../../kubepods-burstable-podSLICED.slice/cri-containerd-ID64.scope", Some(UID), Some(ID));
        check("/../cri-containerd-ID64.scope", None, Some(ID));
        // A pod from a file of the kubelet.
        check(
            "/kubepods/burstable/pod0123456789abcdef0123456789abcdef/ID64",
            Some("0123456789abcdef0123456789abcdef"),
            Some(ID),
        );
    }

    #[test]
    fn what_is_in_no_pod_is_not_taken_for_one() {
        check("/system.slice/docker-ID64.scope", None, Some(ID));
        check("/docker/ID64", None, Some(ID));
        check("/system.slice/tripod.service", None, None);
        check("/user.slice/user-0.slice/session-1.scope", None, None);
        check("/kubepods.slice/kubepods-burstable.slice", None, None);
        check("/podUIDx/x", None, None);
        check("/machine.slice/libpod-ID64.scope", None, Some(ID));
        check("/kubepods/podUID/crio-conmon-ID64.scope", Some(UID), None);
        check("/0123/0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef", None, None);
    }

    #[test]
    fn the_line_that_says_most_counts() {
        let text = format!("3:cpu:/docker/{ID}\n2:pids:/kubepods/pod{UID}/{ID}\n0::/\n");
        let both = Place::Container { pod_uid: Some(UID.into()), container_id: Some(ID.into()) };
        assert_eq!(Place::parse(&text), both);
        assert_eq!(Place::of_unified(&text), Place::Host);
        assert_eq!(Place::parse("nonsense\n\n0:\n"), Place::Host);
    }
}
