//! What the benchmarks share: a stream of events like that of a shop, and a plain join to compare with.
//!
//! `cargo xtask bench join` measures the join full to the brim, in the way of docs/performance.md; `cargo bench -p
//! bench` has small benchmarks for work on the join.

pub mod measure;
pub mod naive;
pub mod workload;
