//! The SDK's exposure function:
//!
//!     void trackExposure(const char *request_id, const char *item_id)

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use tracer_common::counters::Hook;

use super::sdk;
use crate::emit;

#[uprobe]
pub fn exposure_uprobe(context: ProbeContext) -> u32 {
    emit::run(&context, Hook::Exposure, || sdk::capture(&context, Hook::Exposure))
}

#[uprobe(sleepable)]
pub fn exposure_uprobe_sleepable(context: ProbeContext) -> u32 {
    emit::run(&context, Hook::Exposure, || sdk::capture_sleepable(&context, Hook::Exposure))
}
