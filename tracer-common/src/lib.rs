//! The wire record between kernel and daemon.
#![no_std]
