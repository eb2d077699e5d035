//! What the benchmarks share: a stream of events like that of a shop, and a plain join to compare with.
//!
//! `cargo run --release -p bench -- --help` measures a whole process; `cargo bench -p bench` has small
//! benchmarks for work on the join.

pub mod naive;
pub mod workload;
