//! A recording like that of a recommendation service: requests of 20 exposures, and clicks on some.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result};

const EXPOSURES: u64 = 20;
/// Requests a second of event time.
const REQUESTS_PER_SECOND: u64 = 500;
const START_NS: u64 = 1_700_000_000_000_000_000;

/// Writes so many events, the same ones each time. One click for every fifth request, on an item that
/// was exposed; every hundredth request is missing, so that its exposures are orphans.
pub(super) fn write(path: &Path, events: u64) -> Result<()> {
    let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    let mut output = BufWriter::with_capacity(1 << 20, file);
    let mut written = 0;
    let labels = r#""source":"node-a","pid":7123,"tid":7125,"service":"recommend","release":"a1b2c3d4e5f6","group":"control""#;
    for number in 0.. {
        let base_ns = START_NS + number * 1_000_000_000 / REQUESTS_PER_SECOND;
        // Ids as services make them: of one length, and without order.
        let id = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut line = |kind: &str, delay_us: u64, item: &str| -> Result<bool> {
            let ts = base_ns + delay_us * 1000;
            writeln!(output, r#"{{"kind":"{kind}","ts":{ts},"request_id":"req-{id:016x}"{item},{labels}}}"#)?;
            written += 1;
            Ok(written == events)
        };
        let item =
            |index: u64| format!(r#","item_id":"item-{:010}""#, id.rotate_left(20) % 10_000_000 + index);
        if number % 100 != 0 && line("request", 0, r#","peer":"10.0.0.9:8080""#)? {
            break;
        }
        let mut is_over = false;
        for index in 0..EXPOSURES {
            is_over = is_over || line("exposure", 100 + index, &item(index))?;
        }
        if is_over || (number % 5 == 0 && line("click", 1500, &item(number % EXPOSURES))?) {
            break;
        }
    }
    output.flush().with_context(|| format!("writing {}", path.display()))
}
