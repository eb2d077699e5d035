//! Where results go: one sink per file.

pub mod http;
pub mod otlp;
pub mod page;
pub mod recording;
pub mod scrape;
pub mod server;
