//! How long the join stands still for a checkpoint, with ten million exposures waiting in it.
#![expect(clippy::print_stdout, reason = "the figure, for who asks with --nocapture")]

use std::{sync::Arc, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use tracer_user::{
    domain::{Event, Kind, Labels},
    join::{Join, JoinConfig},
};

const REQUESTS: u64 = 500_000;
const ITEMS: u64 = 20;
const LIMIT: Duration = Duration::from_millis(5);

/// What this thread has had of the processor. The machine may be doing other things.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[test]
fn ten_million_pending_exposures_are_handed_to_the_checkpoint_in_less_than_five_milliseconds() {
    let mut join = Join::new(JoinConfig { memory_limit_bytes: 1 << 30, ..JoinConfig::default() });
    let source: Arc<str> = "node".into();
    let labels = Arc::new(Labels { service: "demo".into(), release: "r".into(), group: "".into() });
    let mut out = Vec::new();
    let start_ns = 1_700_000_000_000_000_000;
    let mut event = Event {
        kind: Kind::Request,
        timestamp_ns: start_ns,
        source: Arc::clone(&source),
        pid: 1,
        tid: 1,
        labels,
        request_id: "".into(),
        item_id: "".into(),
        peer: None,
    };
    // Over 25 minutes, so that the default click window holds all of them.
    for request in 0..REQUESTS {
        event.timestamp_ns = start_ns + request * 3_000_000;
        event.request_id = format!("request-{request}").into();
        event.kind = Kind::Request;
        event.item_id = "".into();
        join.push(event.clone(), &mut out);
        event.kind = Kind::Exposure;
        for item in 0..ITEMS {
            event.item_id = format!("item-{item}").into();
            join.push(event.clone(), &mut out);
        }
        out.clear();
    }
    let pending = join.pending();
    let buffered = pending.buffered[Kind::Request];
    assert_eq!(pending.request_ids + buffered, REQUESTS, "nothing is forgotten yet");
    let before = processor_time();
    let snapshot = join.snapshot(&mut out);
    let pause = processor_time() - before;
    println!(
        "{} exposures, {} bytes of state: the join stood still for {pause:?}",
        REQUESTS * ITEMS,
        join.memory_bytes()
    );
    assert!(pause < LIMIT, "{pause:?}");
    // The state is whole: another join goes on from it.
    let other = Join::restore(JoinConfig::default(), snapshot).expect("is whole");
    assert_eq!(other.pending(), join.pending());
}
