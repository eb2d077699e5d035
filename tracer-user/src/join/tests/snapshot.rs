//! What comes back from a file may be anything: it is refused, or makes a join that goes on.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::domain::RequestOutcome;
use crate::join::{RestoreError, Snapshot, SnapshotSegment, SnapshotState};

/// The state and the words of its segments.
type Parts = (SnapshotState, Vec<Option<Vec<u64>>>);

/// Events of a few ids, in some disorder, so that something waits in every table.
fn some_events() -> impl Strategy<Value = Vec<Event>> {
    let kinds = prop_oneof![
        2 => Just(Kind::Request),
        4 => Just(Kind::Exposure),
        4 => Just(Kind::Click),
        1 => Just(Kind::Report),
    ];
    let one = (kinds, 0..60_u64, 0..6_u8, 0..4_u8)
        .prop_map(|(kind, at, id, item)| event(kind, T + at, &format!("r-{id}"), &format!("i-{item}")));
    vec(one, 1..80).prop_map(|mut events| {
        events.sort_by_key(|event| event.timestamp_ns / 4);
        events
    })
}

fn parts_after(events: &[Event]) -> Parts {
    let mut join = Join::new(reporting());
    let mut outcomes = Vec::new();
    events.iter().for_each(|event| join.push(event.clone(), &mut outcomes));
    let (state, segments) = join.snapshot(&mut outcomes).into_parts();
    let words = segments.map(|segment| segment.map(|s| s.words().flatten().copied().collect())).collect();
    (state, words)
}

fn restore((state, segments): Parts) -> Result<Join, RestoreError> {
    let segments =
        segments.into_iter().map(|words| words.and_then(|words| SnapshotSegment::from_words(&words)));
    Join::restore(reporting(), Snapshot::new(state, segments))
}

/// The join takes whatever comes and ends with nothing left, if there is one.
fn go_on(join: Result<Join, RestoreError>, events: &[Event]) {
    let Ok(mut join) = join else { return };
    let mut outcomes = Vec::new();
    for event in events {
        let later = Event { timestamp_ns: event.timestamp_ns + 20, ..event.clone() };
        join.push(later, &mut outcomes);
    }
    join.evict_until(T + 30, &mut outcomes);
    join.heartbeat(&"node-a".into(), T + 1000, &mut outcomes);
    join.snapshot(&mut outcomes);
    join.finish(&mut outcomes);
    assert!(join.pending().is_empty(), "{:?}", join.pending());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Bytes of the state are replaced by others.
    #[test]
    fn a_damaged_state_is_refused_or_makes_a_join(
        events in some_events(),
        damage in vec((any::<Index>(), prop_oneof![Just(b'0'), Just(b'9'), Just(b'1'), any::<u8>()]), 1..4),
    ) {
        let (state, segments) = parts_after(&events);
        let mut bytes = serde_json::to_vec(&state).expect("it is in memory");
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Ok(state) = serde_json::from_slice::<SnapshotState>(&bytes) {
            go_on(restore((state, segments)), &events);
        }
    }

    /// Bits of the segments are turned round, mostly where groups are.
    #[test]
    fn damaged_segments_are_refused_or_make_a_join(
        events in some_events(),
        damage in vec((any::<Index>(), 0..128_usize, 0..64_u32), 1..6),
    ) {
        let (state, mut segments) = parts_after(&events);
        for (segment, word, bit) in damage {
            if segments.is_empty() {
                break;
            }
            let segment = segment.index(segments.len());
            if let Some(words) = &mut segments[segment] {
                words[word] ^= 1 << bit;
            }
        }
        go_on(restore((state, segments)), &events);
    }
}

/// What waits is judged by the windows of now, though nothing of it would be remembered any more.
#[test]
fn what_waits_is_judged_when_the_windows_have_become_shorter() {
    let mut join = Join::new(JoinConfig::default());
    let mut outcomes = Vec::new();
    const SECOND: u64 = 1_000_000_000;
    for at in 0..20 {
        join.push(event(Kind::Request, T + at, &format!("r-{at}"), ""), &mut outcomes);
    }
    join.heartbeat(&"node-a".into(), T + 20 * SECOND, &mut outcomes);
    let snapshot = join.snapshot(&mut outcomes);
    let (exposure_window_ns, click_window_ns) = (SECOND, 2 * SECOND);
    let shorter = JoinConfig { exposure_window_ns, click_window_ns, ..JoinConfig::default() };
    let mut join = Join::restore(shorter, snapshot).expect("is sound");
    assert_eq!(join.pending().requests, 20);
    outcomes.clear();
    for at in 0..100 {
        join.push(event(Kind::Request, T + 21 * SECOND + at, &format!("s-{at}"), ""), &mut outcomes);
    }
    join.finish(&mut outcomes);
    assert!(join.pending().is_empty(), "{:?}", join.pending());
    let unexposed =
        |outcome: &&Outcome| matches!(outcome, Outcome::Request { outcome: RequestOutcome::Unexposed, .. });
    assert_eq!(outcomes.iter().filter(unexposed).count(), 120);
}

#[test]
fn segments_that_are_not_those_of_the_state_are_refused() {
    let events: Vec<Event> = (0..50).map(|at| event(Kind::Request, T + at, &format!("r-{at}"), "")).collect();
    let (state, mut segments) = parts_after(&events);
    segments.push(None);
    assert_eq!(restore((state, segments)).map(|_| ()), Err(RestoreError::Segments));
    let (state, segments) = parts_after(&events);
    let absent = vec![None; segments.len()];
    assert_eq!(restore((state, absent)).map(|_| ()), Err(RestoreError::Segments));
    assert!(SnapshotSegment::from_words(&[0; 8]).is_none());
}
