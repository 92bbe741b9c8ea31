//! The eBPF programs of the enforcer: one object for all kernels from 5.8 on.
//!
//! One event's way through the files, in order:
//!
//! | file | what it answers |
//! |---|---|
//! | `class/*.rs` | which hook saw it, and what the event is; thin entry points over one body per class |
//! | `identity.rs` | which pod did it, or nobody of ours: then out |
//! | `path.rs`, `object.rs`, `socket.rs`, `process.rs` | what it was done to, read from the kernel's own objects |
//! | `facets.rs` | which lines are satisfied by that |
//! | `judge.rs` | what is left is a violation: mitigate in this run, then report |
//! | `datapath.rs` | the isolated pod's packets |
//!
//! The verifier of 5.10 sets the style: state of loops lives in the per-CPU [`scratch`] and is read and written
//! volatile (kept in registers it multiplies the states), kernel memory is read without early returns inside loops,
//! and buffer positions are masked right before use.
#![no_std]
#![no_main]

mod class;
mod datapath;
mod facets;
mod identity;
mod judge;
mod kernel;
mod network;
mod object;
mod path;
mod process;
mod scratch;
mod socket;
mod trial;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Never reached: the object would not pass the verifier with a reachable panic.
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
