//! Which file systems are watched: those of some folders, and those mounted at certain places.

use std::collections::BTreeMap;

use crate::config::Pattern;

/// One line of `/proc/PID/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// The device number, `major:minor`: one for each file system.
    pub(super) device: String,
    pub(super) point: String,
}

/// The mounts of a namespace, from the text of its `mountinfo`, in the order in which they were made.
pub(super) fn parse(text: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let mut fields = line.split(' ');
        Some(Mount { device: fields.nth(2)?.to_owned(), point: unescaped(fields.nth(1)?) })
    };
    text.lines().filter_map(mount).collect()
}

/// Spaces and the like stand as octal numbers.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = tail.get(..3).filter(|_| *first == b'\\').and_then(|digits| str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The file systems to watch among `mounts`: a mount point for each device number.
pub(super) fn wanted(mounts: &[Mount], folders: &[String], patterns: &[Pattern]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for folder in folders {
        // The longest, and of two at one place the later: it hides the other.
        let covering = mounts.iter().filter(|mount| is_within(folder, &mount.point));
        if let Some(mount) = covering.max_by_key(|mount| mount.point.len()) {
            found.insert(mount.device.clone(), mount.point.clone());
        }
    }
    for mount in mounts.iter().filter(|mount| patterns.iter().any(|pattern| pattern.matches(&mount.point))) {
        found.insert(mount.device.clone(), mount.point.clone());
    }
    found
}

fn is_within(path: &str, folder: &str) -> bool {
    let rest = path.strip_prefix(folder.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::{parse, wanted};
    use crate::config::Pattern;

    const TEXT: &str = "22 1 254:0 / / rw - ext4 /dev/vda rw\n\
                        30 22 0:30 / /run/a\\040b rw shared:1 - tmpfs tmpfs rw\n\
                        31 22 0:31 / /run/c1/rootfs rw - overlay overlay rw\n\
                        32 22 0:32 / /run/c2/rootfs rw - overlay overlay rw\n\
                        33 22 0:33 / /usr/bin rw - tmpfs tmpfs rw\n\
                        34 22 0:34 / /usr/bin rw - tmpfs tmpfs rw\n";

    fn devices(folders: &[&str], patterns: &[&str]) -> Vec<String> {
        let folders: Vec<String> = folders.iter().map(ToString::to_string).collect();
        let patterns: Vec<Pattern> =
            patterns.iter().map(|text| Pattern::path(text).expect("a pattern")).collect();
        wanted(&parse(TEXT), &folders, &patterns).into_keys().collect()
    }

    #[test]
    fn the_file_system_of_a_folder_is_that_of_the_innermost_mount() {
        assert_eq!(devices(&["/usr/lib"], &[]), ["254:0"]);
        assert_eq!(devices(&["/usr/bin/x"], &[]), ["0:34"], "the later mount hides the earlier");
        assert_eq!(devices(&["/usr/binary"], &[]), ["254:0"]);
        assert_eq!(devices(&["/run/a b"], &[]), ["0:30"]);
    }

    #[test]
    fn a_pattern_takes_every_mount_that_it_matches_and_nothing_more() {
        assert_eq!(devices(&[], &["/run/*/rootfs"]), ["0:31", "0:32"]);
        assert!(devices(&[], &[]).is_empty());
    }
}
