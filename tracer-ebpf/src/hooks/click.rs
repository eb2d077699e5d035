//! The SDK's click function:
//!
//!     void trackClick(const char *request_id, const char *item_id)

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use tracer_common::counters::Hook;

use super::sdk;
use crate::emit;

#[uprobe]
pub fn click_uprobe(context: ProbeContext) -> u32 {
    emit::run(&context, Hook::Click, || sdk::capture(&context, Hook::Click))
}

#[uprobe(sleepable)]
pub fn click_uprobe_sleepable(context: ProbeContext) -> u32 {
    emit::run(&context, Hook::Click, || sdk::capture_sleepable(&context, Hook::Click))
}
