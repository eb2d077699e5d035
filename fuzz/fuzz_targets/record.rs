//! Any bytes may be on the ring. They are decoded or refused, and what is decoded lies within them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_common::limits::MAX_ID_LEN;
use tracer_user::ingest::decode::{Body, decode};

fuzz_target!(|bytes: &[u8]| {
    let Ok(record) = decode(bytes) else { return };
    let within = |part: &[u8]| {
        let (all, part) = (bytes.as_ptr_range(), part.as_ptr_range());
        assert!(all.start <= part.start && part.end <= all.end);
    };
    match record.body {
        Body::Send { payload, .. } => within(payload),
        Body::Sdk { request_id, item_id } => {
            within(request_id);
            within(item_id);
            assert!(request_id.len() <= MAX_ID_LEN && item_id.len() <= MAX_ID_LEN);
        }
        Body::Exec { path } => within(path),
        Body::Connect { .. } | Body::Fork { .. } | Body::Exit => {}
    }
});
