//! What the benchmarks share: a stream of events like that of a shop, and a plain join to compare with; and what tracing
//! costs a service ([`service`]).
//!
//! `cargo xtask bench join` measures the join full to the brim, in the way of docs/performance.md; `cargo bench -p
//! bench` has small benchmarks for work on the join.

pub mod measure;
pub mod naive;
pub mod service;
pub mod workload;
