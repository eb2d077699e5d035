//! Any bytes may begin like a message. A header that is found lies within them, and more of the message never makes a
//! header that was found another one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_user::ingest::http::{Header, find_header, trace_id};

fuzz_target!(|bytes: &[u8]| {
    let [cut_at, message @ ..] = bytes else { return };
    for name in ["X-Request-Id", "traceparent"] {
        let whole = find_header(message, false, name);
        if let Header::Found(value) = whole {
            let (all, part) = (message.as_ptr_range(), value.as_ptr_range());
            assert!(all.start <= part.start && part.end <= all.end);
            assert!(value.trim_ascii() == value);
            assert!(matches!(trace_id(value).len(), 0 | 32));
        }
        let cut_at = usize::from(*cut_at).min(message.len());
        if let Header::Found(value) = find_header(&message[..cut_at], true, name) {
            assert_eq!(whole, Header::Found(value));
        }
    }
});
