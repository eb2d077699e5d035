//! What a service encrypts, and whether that is seen.

use super::{Check, Status, check};
use crate::{attach::TLS_FUNCTIONS, config::Service, discover, symbols};

/// Processes of a service that are looked at: the others are mostly the same.
const MAX_PROCESSES: usize = 8;
/// What is not read, and how it shows.
const NOT_READ: &str =
    "HTTP/2 is not read, encrypted or not: linktracer_kernel_hits_total counts its starts as `http2`";

/// Says of a service with requests where it encrypts; `None` where nothing of it runs.
pub(super) fn service_check(service: &Service, running: &[u32]) -> Option<Check> {
    let request = service.request.as_ref()?;
    let mut places: Vec<String> =
        running.iter().take(MAX_PROCESSES).flat_map(|pid| tls_functions(*pid)).collect();
    places.sort();
    places.dedup();
    let subject = format!("service {}, TLS", service.name);
    if running.is_empty() {
        return None;
    }
    Some(match (places.is_empty(), request.tls) {
        (true, _) => {
            let text = format!(
                "no OpenSSL and no Go TLS in its processes; what another library encrypts is not seen, and its sends are counted as `tls`\n  {NOT_READ}"
            );
            check(subject, Status::Good, text)
        }
        (false, true) => {
            let text = format!(
                "messages are seen before they are encrypted, by {}\n  {NOT_READ}",
                places.join(", ")
            );
            check(subject, Status::Good, text)
        }
        (false, false) => {
            let text = format!(
                "what it encrypts by {} is not seen, since `tls: off`\n  remedy: leave `request.tls` out where such messages count",
                places.join(", ")
            );
            check(subject, Status::Limited, text)
        }
    })
}

/// The functions of TLS libraries that a process has, each with its file.
fn tls_functions(pid: u32) -> Vec<String> {
    let functions = TLS_FUNCTIONS.iter().filter_map(|function| {
        let file = discover::file_of_process(function.library, pid)?;
        let found = symbols::find(&file, function.symbol).ok()?;
        let place = found.iter().find(|place| place.name == function.symbol)?;
        let shown = file.to_string_lossy().replace(&format!("/proc/{pid}/root"), "");
        Some(format!("{} of {shown}", place.name))
    });
    functions.collect()
}
