//! Class process: somebody of a pod gets out of the pod's cgroups. What does stays governed (`identity.rs`); that it was
//! tried is a violation of its own.

use crate::{
    facets::{self, any},
    identity::Governed,
    judge::{self, Report, Tracepoint},
    kernel, process,
    scratch::Lane,
};
use ringfence_abi::{Class, Op, flag};

const CLASS: Class = Class::Process;

/// The current task has brought a process (0: a cgroup) to where the cgroups of its pod are not. Verified by itself: three
/// programs come here.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn rf_escaped(slot: u32, target: u32) -> u32 {
    let Some(mut held) = judge::begin_as::<Tracepoint>(Governed { slot, cgroup: 0 }, CLASS, Lane::Process, Op::Escape)
    else {
        return 0;
    };
    let s = &mut *held;
    s.event.header.target_pid = target;
    if target != 0 && target != kernel::process(kernel::current()) {
        s.event.header.flags = flag::OTHER_PROCESS;
    }
    facets::flags(s, CLASS);
    let Some(defaults) = facets::defaults(s, CLASS) else { return 0 };
    facets::without_object(s, defaults);
    if any(&s.hit) {
        process::match_actor(s, CLASS, defaults);
        judge::settle::<Tracepoint>(s, CLASS, Report::None);
    }
    0
}
