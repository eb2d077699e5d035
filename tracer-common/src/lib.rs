//! The wire record between kernel and daemon: layouts, limits and counter indices.
//!
//! Shared by the kernel side and the user side, so it is `no_std`, has no dependency and holds no
//! logic beyond the arithmetic of indices. The kernel side writes these records; the user side
//! never casts bytes to them but reads them with a checked cursor (`tracer-user/src/ingest`).
#![no_std]

pub mod counters;
pub mod limits;
pub mod record;
pub mod settings;
pub mod usdt;
