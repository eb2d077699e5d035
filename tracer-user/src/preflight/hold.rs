//! Can programs be held until they are probed, and which?

use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags};

use super::{Check, Status, check};
use crate::config::Config;

/// One line when all is well, else one for each limit. None when nothing is to be held.
pub(super) fn checks(config: &Config) -> Vec<Check> {
    if !config.discover.hold_exec {
        return Vec::new();
    }
    if let Err(error) = Fanotify::init(InitFlags::FAN_CLASS_CONTENT, EventFFlags::O_RDONLY) {
        let text = format!(
            "`discover.hold_exec` does not work here: {error}\n  remedy: a kernel with \
             CONFIG_FANOTIFY_ACCESS_PERMISSIONS and the capability CAP_SYS_ADMIN, or `hold_exec: false`"
        );
        return vec![check("hold", Status::Failed, text)];
    }
    let mut checks = Vec::new();
    for service in &config.services {
        if service.exposure.is_none() && service.click.is_none() {
            continue;
        }
        let text = match &service.processes.exe {
            None => "its programs are not held: `match.exe` does not say which they are",
            Some(exe) if exe.literal_folder().is_none() && config.discover.hold_mounts.is_empty() => {
                "its programs are not held: `match.exe` does not say on which file system they are; \
                 `discover.hold_mounts` can"
            }
            Some(_) => continue,
        };
        checks.push(check(format!("hold, service {}", service.name), Status::Limited, text));
    }
    if checks.is_empty() {
        checks.push(check("hold", Status::Good, "programs are held until they are probed"));
    }
    checks
}
