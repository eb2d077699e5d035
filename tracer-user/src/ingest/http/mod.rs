//! HTTP/1 messages in what was captured of a stream of bytes.
//!
//! `head` reads start lines and headers, `body` finds a field, `parser` follows a stream from message
//! to message however it is cut into calls, `streams` keeps one parser for each connection. Whatever
//! is not needed to find request ids and the ends of messages is skipped.

mod body;
mod head;
mod parser;
mod streams;
#[cfg(test)]
mod tests;

pub use self::{
    parser::{NoId, Parser},
    streams::{Send, StreamChange, Streams},
};
