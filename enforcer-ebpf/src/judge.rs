//! From the lines that are left to what is done about them, in the same run, and the report.

use crate::{
    datapath::ISOLATED,
    facets::{any, intersects},
    identity::{self, Governed},
    kernel::{self, copy_words, put},
    process,
    scratch::{self, Held, Lane, Scratch},
};
use aya_ebpf::{
    helpers::{
        bpf_ktime_get_ns,
        generated::{bpf_ringbuf_output, bpf_send_signal},
    },
    macros::map,
    maps::{Array, PerCpuArray, RingBuf},
};
use ringfence_abi::{
    CANDIDATE_ARGS, CLASSES, COUNTERS, Class, Counter, EVENT_ARGS, EVENT_FIXED, Op, RULESET_ENTRIES, RulesetVectors,
    SLOTS, Tier, done, room, ruleset_index,
};

/// Which generation of the tables is in force. Flipped by user space once the next one is complete.
#[map]
static GENERATION: Array<u32> = Array::with_max_entries(1, 0);

/// Since when slots are to be terminated (`CLOCK_MONOTONIC`, ns), as long as user space has not done it.
#[map]
static TERMINATING: Array<u64> = Array::with_max_entries(SLOTS, 0);

#[map]
static RULESETS: Array<RulesetVectors> = Array::with_max_entries(RULESET_ENTRIES, 0);

/// Records of violations that only log.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(room::EVENTS, 0);

/// Records of violations that were mitigated: room of their own, so that noise can't starve them.
#[map]
static MITIGATIONS: RingBuf = RingBuf::with_byte_size(room::MITIGATIONS, 0);

/// Records of candidates: room of their own too, because they are noise until user space has confirmed them.
#[map]
static CANDIDATES: RingBuf = RingBuf::with_byte_size(room::CANDIDATES, 0);

/// One candidate's record in work.
#[map]
static CANDIDATE: PerCpuArray<Candidate> = PerCpuArray::with_max_entries(1, 0);

/// An event that goes on with all the arguments that there is room for.
#[repr(C)]
struct Candidate {
    fixed: [u8; EVENT_FIXED],
    args: [u8; CANDIDATE_ARGS],
}

#[map]
static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries((CLASSES * COUNTERS) as u32, 0);

const SIGKILL: u32 = 9;

#[inline(always)]
pub fn count(class: Class, counter: Counter) {
    if let Some(n) = COUNTS.get_ptr_mut(class as u32 * COUNTERS as u32 + counter as u32) {
        // SAFETY: per CPU; a lost increment under preemption is acceptable for a counter.
        unsafe { *n += 1 };
    }
}

/// What a generation's ruleset of a pod asks for.
#[inline(always)]
fn ruleset(generation: u32, slot: u32, class: Class) -> Option<&'static RulesetVectors> {
    let ruleset = identity::SLOTS.get(slot)?.ruleset[(generation & 1) as usize];
    RULESETS.get(ruleset_index(generation, ruleset, class))
}

/// What kind of hook an entry point sits on. Bodies are generic over it and need not know more.
pub trait EntryPoint {
    /// A [`Tier`].
    fn tier() -> u8;
    /// Stops the operation, or the process that does it. Returns the bit of [`done`] that tells how.
    fn stop() -> u8;
}

/// A tracepoint: the process is killed before it returns to user mode (to its first instruction, at exec).
pub struct Tracepoint;

/// A security hook: the operation is denied, by what the program returns; where the program sits on the hook's function
/// and can't deny, the process is killed before it returns to user mode.
pub struct SecurityHook;

/// A packet in the datapath: it is dropped, by what the program returns.
pub struct Packet;

impl EntryPoint for Tracepoint {
    #[inline(always)]
    fn tier() -> u8 {
        Tier::Tracepoint as u8
    }

    #[inline(always)]
    fn stop() -> u8 {
        if unsafe { bpf_send_signal(SIGKILL) } == 0 { done::KILLED } else { 0 }
    }
}

impl EntryPoint for SecurityHook {
    #[inline(always)]
    fn tier() -> u8 {
        kernel::hooks() as u8
    }

    #[inline(always)]
    fn stop() -> u8 {
        if kernel::hooks_are(Tier::Lsm) { done::DENIED } else { Tracepoint::stop() }
    }
}

impl EntryPoint for Packet {
    #[inline(always)]
    fn tier() -> u8 {
        Tier::Tracepoint as u8
    }

    #[inline(always)]
    fn stop() -> u8 {
        done::DENIED
    }
}

/// Starts judging an event of the current task: `None` if it is not governed, is the runtime's own doing, or has no
/// line to break. Afterwards the event's header is clean, and `s.hit` holds the lines that are enabled for the pod and
/// look at this operation.
#[inline(always)]
pub fn begin<E: EntryPoint>(class: Class, lane: Lane, op: Op) -> Option<Held<Scratch>> {
    let task = kernel::current();
    let who = identity::current_task(task)?;
    if identity::is_entering(kernel::process(task)) {
        return None;
    }
    begin_as::<E>(who, class, lane, op)
}

/// [`begin`] for a pod that is known already.
#[inline(always)]
pub fn begin_as<E: EntryPoint>(who: Governed, class: Class, lane: Lane, op: Op) -> Option<Held<Scratch>> {
    let generation = *GENERATION.get(0)?;
    let vectors = ruleset(generation, who.slot, class)?;
    if !any(&vectors.enabled) {
        return None;
    }
    count(class, Counter::Seen);
    let Some(mut s) = scratch::hold(lane) else {
        count(class, Counter::Unreadable);
        return None;
    };
    s.event.header.generation = generation;
    copy_words(&mut s.hit, &vectors.enabled);
    crate::facets::byte(&mut s, class, ringfence_abi::ByteFacet::Op, op as u8);
    if !any(&s.hit) {
        return None;
    }
    let h = &raw mut s.event.header;
    // Volatile: together, the compiler would call a function that zeros bytes.
    // SAFETY: `h` points into the scratch.
    unsafe {
        put(&raw mut (*h).begun_at, bpf_ktime_get_ns());
        put(&raw mut (*h).mitigated_at, 0);
        put(&raw mut (*h).cgroup, who.cgroup);
        put(&raw mut (*h).slot, who.slot);
        put(&raw mut (*h).number, 0);
        put((&raw mut (*h).address).cast(), [0u64; 2]);
        put(&raw mut (*h).flags, 0);
        put(&raw mut (*h).target_pid, 0);
        put(&raw mut (*h).port, 0);
        put(&raw mut (*h).protocol, 0);
        put(&raw mut (*h).path_len, 0);
        put(&raw mut (*h).exe_len, 0);
        put(&raw mut (*h).args_len, 0);
        put(&raw mut (*h).class, class as u8);
        put(&raw mut (*h).op, op as u8);
        put(&raw mut (*h).tier, E::tier());
        put(&raw mut (*h).done, 0);
        put(&raw mut (*h).family, 0);
        put(&raw mut (*h).socket_type, 0);
    }
    Some(s)
}

/// What a violation asks of the entry point.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    /// The operation must not take effect: an entry point that can deny does so.
    Stop,
}

impl Verdict {
    /// Of one operation that was judged twice.
    #[inline(always)]
    pub fn and(self, other: Self) -> Self {
        if self == Self::Stop { self } else { other }
    }
}

/// Mitigates and reports what is left in `s.hit`.
#[inline(always)]
pub fn settle<E: EntryPoint>(s: &mut Scratch, class: Class, report: Report) -> Verdict {
    if !any(&s.hit) {
        return Verdict::Pass;
    }
    let slot = s.event.header.slot;
    // Of the generation that the lines were numbered in: another may be in force by now.
    let Some(vectors) = ruleset(s.event.header.generation, slot, class) else { return Verdict::Pass };
    let block = intersects(&s.hit, &vectors.block);
    let isolate = intersects(&s.hit, &vectors.isolate);
    let terminate = intersects(&s.hit, &vectors.terminate);
    let mitigating = block || isolate || terminate;
    s.event.header.at = unsafe { bpf_ktime_get_ns() };
    if isolate || terminate {
        set_isolated(slot, s.event.header.at);
        s.event.header.done |= done::ISOLATED;
    }
    if terminate {
        set_terminating(slot, s.event.header.at);
    }
    let mut verdict = Verdict::Pass;
    if block || terminate {
        verdict = Verdict::Stop;
        s.event.header.done |= E::stop();
    }
    if mitigating {
        s.event.header.mitigated_at = unsafe { bpf_ktime_get_ns() };
    }
    count(class, Counter::Violations);
    let hit = &raw const s.hit;
    // SAFETY: both are in the scratch, and do not overlap.
    copy_words(&mut s.event.header.lines, unsafe { &*hit });
    report.object(s);
    process::describe(s);
    if class != Class::Exec {
        process::fetch_arguments(s, kernel::current());
    }
    emit(s, class, mitigating);
    verdict
}

/// Ships the lines in `s.open`, which only the rest of the arguments can decide.
#[inline(always)]
pub fn propose(s: &mut Scratch, class: Class, report: Report) {
    if !any(&s.open) {
        return;
    }
    s.event.header.at = unsafe { bpf_ktime_get_ns() };
    s.event.header.mitigated_at = 0;
    s.event.header.done = done::CANDIDATE;
    let open = &raw const s.open;
    // SAFETY: both are in the scratch, and do not overlap.
    copy_words(&mut s.event.header.lines, unsafe { &*open });
    report.object(s);
    process::describe(s);
    let Some(record) = CANDIDATE.get_ptr_mut(0) else { return };
    // SAFETY: from the map; tracepoint programs are not preempted, and only they come here. What is written and read
    // lies inside the record.
    let failed = unsafe {
        kernel::copy((&raw mut (*record).fixed).cast(), EVENT_FIXED as u32, (&raw const s.event) as u64);
        let size = EVENT_FIXED as u64 + process::copy_arguments((&raw mut (*record).args).cast()) as u64;
        bpf_ringbuf_output((&raw const CANDIDATES).cast_mut().cast(), record.cast(), size, 0)
    };
    if failed != 0 {
        count(class, Counter::LostCandidates);
    }
}

/// What the record says of the object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// Nothing.
    None,
    /// The file in `s.object`.
    File,
    /// The event's path is filled in already.
    Path,
}

impl Report {
    /// Writes the object's path into the event.
    #[inline(always)]
    pub fn object(self, s: &mut Scratch) {
        match self {
            Self::File => {
                let o = &raw const s.object;
                // SAFETY: points into the scratch.
                let (dentry, mnt, sb) = unsafe { ((*o).dentry, (*o).mnt, (*o).sb) };
                crate::path::measure(s, dentry, mnt, sb);
                let len = crate::path::write(s);
                kernel::copy_bytes(&mut s.event.path, s.path.as_ptr());
                s.event.header.path_len = len as u16;
            }
            Self::None => s.event.header.path_len = 0,
            Self::Path => {}
        }
    }
}

#[inline(always)]
fn emit(s: &mut Scratch, class: Class, mitigating: bool) {
    let tail = s.event.header.args_len as u64;
    let tail = if tail > EVENT_ARGS as u64 { EVENT_ARGS as u64 } else { tail };
    let size = EVENT_FIXED as u64 + tail;
    let data = (&raw mut s.event).cast();
    // SAFETY: `size` is at most the event's size.
    let failed = unsafe {
        if mitigating {
            bpf_ringbuf_output((&raw const MITIGATIONS).cast_mut().cast(), data, size, 0)
        } else {
            bpf_ringbuf_output((&raw const EVENTS).cast_mut().cast(), data, size, 0)
        }
    };
    if failed != 0 {
        count(class, if mitigating { Counter::LostMitigating } else { Counter::LostLog });
    }
}

/// Asks for the slot's end. User space forgets it once that has come, so that neither a record that is lost nor an enforcer
/// that ends meanwhile lets the slot live.
#[inline(always)]
fn set_terminating(slot: u32, at: u64) {
    if let Some(since) = TERMINATING.get_ptr_mut(slot) {
        // SAFETY: from the map. Two CPUs that set it at once write two times that are both true.
        unsafe {
            if *since == 0 {
                *since = at;
            }
        }
    }
}

/// Sets the slot's isolated bit: from here on the datapath drops its packets.
#[inline(always)]
fn set_isolated(slot: u32, at: u64) {
    if let Some(isolation) = ISOLATED.get_ptr_mut(slot) {
        // SAFETY: from the map. Two CPUs that set it at once write two times that are both true.
        unsafe {
            if (*isolation).since == 0 {
                (*isolation).since = at;
            }
        }
    }
}
