//! The kernel side of linktracer. It reads, fills a record, submits it and counts. Nothing else: no
//! parsing beyond the first bytes of a message, no joining, no policy.
//!
//! One hook per file under `hooks/`; each names the kernel prototype or tracepoint it relies on.
//! A hook returns what became of the hit, and [`emit::run`] counts it: there is no path that drops
//! something without a counter.
#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod emit;
mod hooks;
mod maps;
mod read;
mod socket;

/// The kernel refuses GPL-only helpers (reading user memory among them) to any other licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// A panic that can be reached is a loop the verifier refuses: it shows when loading, never later.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
