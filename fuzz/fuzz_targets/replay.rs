//! Any bytes may be called a recording. Every line is an event or rejected; an event that is written is read again as the
//! same one; and the join, which asserts its own accounting, takes whatever comes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_user::{
    join::{Join, JoinConfig, Reports},
    replay::{EventReader, write_event},
};

fuzz_target!(|bytes: &[u8]| {
    let mut join = Join::new(JoinConfig { reports: Reports::All, ..JoinConfig::default() });
    let mut outcomes = Vec::new();
    let mut reader = EventReader::new(bytes);
    while let Some(record) = reader.next_record().expect("memory can be read") {
        let Ok(event) = record.event else { continue };
        let mut line = Vec::new();
        write_event(&event, &mut line).expect("memory can be written");
        let again = EventReader::new(&*line).next_record().expect("memory can be read").expect("is there");
        assert_eq!(format!("{:?}", again.event.expect("was an event")), format!("{event:?}"));
        join.push(event, &mut outcomes);
        outcomes.clear();
    }
    join.finish(&mut outcomes);
});
