//! From bytes on the ring to events, with an account of every record.
//!
//! `decode` checks a record's bytes, `http` finds the request id in a message, `interpret` decides
//! what a record is, and `held` keeps those that wait for what their process is. Nothing here knows the join, metrics or files.

pub mod clock;
pub mod decode;
pub mod held;
mod hook_index;
pub mod http;
pub mod interpret;
