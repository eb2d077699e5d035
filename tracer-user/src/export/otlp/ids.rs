//! Trace and span ids, made of what the events say.
//!
//! The same event has the same ids wherever and whenever it is told: daemons of several nodes and a daemon before and
//! after a restart agree. So the keys of the hash are fixed, and who knows a request id can find its trace; nothing here
//! hides anything.

use std::hash::Hasher as _;

use siphasher::{
    sip::SipHasher13,
    sip128::{Hasher128 as _, SipHasher13 as SipHasher13Wide},
};

use crate::domain::Kind;

/// The trace of a request id: the id itself where it is the trace id of a `traceparent` header, so that the spans stand
/// in the service's own trace. Never 0.
pub(super) fn of_request(request_id: &str) -> u128 {
    let is_trace_id =
        request_id.len() == 32 && request_id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let own = if is_trace_id { u128::from_str_radix(request_id, 16).unwrap_or(0) } else { 0 };
    if own != 0 { own } else { wide(&[b"request", request_id.as_bytes()]) }
}

/// The trace of a click, which is its own.
pub(super) fn of_click(request_id: &str, item_id: &str, timestamp_ns: u64) -> u128 {
    wide(&[b"click", request_id.as_bytes(), item_id.as_bytes(), &timestamp_ns.to_le_bytes()])
}

/// The span of an event. Never 0.
pub(super) fn of_span(trace: u128, kind: Kind, item_id: &str, timestamp_ns: u64) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(&trace.to_le_bytes());
    hasher.write(kind.name().as_bytes());
    hasher.write(&timestamp_ns.to_le_bytes());
    hasher.write(item_id.as_bytes());
    hasher.finish().max(1)
}

/// A number that is spread evenly, however the traces of a service are numbered.
pub(super) fn spread(trace: u128) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(&trace.to_le_bytes());
    hasher.finish()
}

fn wide(parts: &[&[u8]]) -> u128 {
    let mut hasher = SipHasher13Wide::new();
    for part in parts {
        // Lengths keep apart what would be one text without them.
        hasher.write(&(part.len() as u64).to_le_bytes());
        hasher.write(part);
    }
    hasher.finish128().as_u128().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_id_is_taken_as_it_is_and_every_other_request_id_gets_one() {
        assert_eq!(of_request("0af7651916cd43dd8448eb211c80319c"), 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        let others = [
            "r-1",
            "r-2",
            "00000000000000000000000000000000",
            "0AF7651916CD43DD8448EB211C80319C",
            "+af7651916cd43dd8448eb211c80319c",
        ];
        let traces: std::collections::HashSet<u128> = others.into_iter().map(of_request).collect();
        assert_eq!(traces.len(), others.len());
        // It stays what it is from version to version: daemons of two versions run side by side.
        assert_eq!(format!("{:032x}", of_request("r-1")), "dbb6f395c6beb5363fbff7b06a3f1192");
    }

    #[test]
    fn neighbours_do_not_run_into_each_other() {
        assert_ne!(of_click("ab", "c", 1), of_click("a", "bc", 1));
        assert_ne!(of_span(1, Kind::Request, "", 1), of_span(1, Kind::Exposure, "", 1));
        assert_ne!(of_span(1, Kind::Exposure, "a", 1), of_span(1, Kind::Exposure, "a", 2));
    }
}
