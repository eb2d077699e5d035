//! linktracer: from request to exposure to click, seen from the kernel.
//!
//! Where to start reading: `run` wires the stages together, in the order in which data goes through
//! them: `attach` (hook), the ring buffer, `ingest`, `join`, `telemetry` and `export`. What the join
//! decides and why is in docs/semantics.md; the whole picture is in docs/architecture.md.

pub mod attach;
pub mod baseline;
pub mod build;
pub mod cli;
pub mod compare;
pub mod config;
pub mod demo;
pub mod discover;
pub mod domain;
pub mod durable;
pub mod export;
pub mod hold;
pub mod ingest;
pub mod join;
pub mod lint;
pub mod preflight;
pub mod prometheus_api;
pub mod replay;
pub mod run;
pub mod slo;
mod suggest;
pub mod symbols;
pub mod telemetry;
