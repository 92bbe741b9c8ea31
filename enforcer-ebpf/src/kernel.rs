//! Reading kernel memory at offsets that user space found in the running kernel's BTF.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid,
    generated::{bpf_get_current_task, bpf_probe_read_kernel, bpf_probe_read_user},
};
use core::{
    ffi::c_void,
    mem::{MaybeUninit, align_of, size_of, transmute},
};
use ringfence_abi::{ABSENT, Node, Offsets, RDONLY_CAST, Tier};

/// Set before load, frozen, and so known constants to the verifier.
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets::UNKNOWN;

/// Set before load.
#[unsafe(no_mangle)]
static NODE: Node = Node {
    v1_controller: ABSENT,
    hooks: 0,
    tracing_hooked: 0,
    sockets_hooked: 0,
    refusal: 0,
    overlay_proven: 0,
    calls_by_registers: 0,
    compat_calls: 0,
};

/// Whether kernel memory is loaded from as if it were the program's own: see [`loadable`]. The object is built once with
/// and once without; a branch would be there at every read, for the verifier to walk and to take out again.
pub const DIRECT_READS: bool = cfg!(feature = "direct-reads");

/// One of [`OFFSETS`]' fields, as the loader set it.
macro_rules! offset {
    ($field:ident) => {
        $crate::kernel::constant(&raw const $crate::kernel::OFFSETS.$field)
    };
}
pub(crate) use offset;

/// A word of read-only data that the loader may have set: volatile, because the compiler must not assume the initial
/// value.
#[inline(always)]
pub fn constant(word: *const u32) -> u32 {
    // SAFETY: every caller passes a pointer into one of the two statics above.
    unsafe { word.read_volatile() }
}

/// Index of the v1 controller in `css_set.subsys`, or [`ABSENT`].
#[inline(always)]
pub fn v1_controller() -> u32 {
    constant(&raw const NODE.v1_controller)
}

/// Whether the programs on security hooks are on this tier.
#[inline(always)]
pub fn hooks_are(tier: Tier) -> bool {
    hooks() == tier as u32
}

/// The tier of the programs on security hooks, as a number.
#[inline(always)]
pub fn hooks() -> u32 {
    constant(&raw const NODE.hooks)
}

/// What a program on a security hook returns to deny; 0 where it can't. Read, not computed: older verifiers (5.10) lose
/// what they know of a number when it is negated.
#[inline(always)]
pub fn refusal() -> i32 {
    constant(&raw const NODE.refusal) as i32
}

/// Whether executions are judged before they happen; the tracepoint then only adds what needs arguments.
#[inline(always)]
pub fn exec_judged_early() -> bool {
    hooks_are(Tier::Lsm)
}

/// Whether connections are judged before they are begun.
#[inline(always)]
pub fn connect_judged_early() -> bool {
    !hooks_are(Tier::Tracepoint)
}

/// Whether it is judged before one process begins to trace another.
#[inline(always)]
pub fn tracing_judged_early() -> bool {
    constant(&raw const NODE.tracing_hooked) != 0
}

/// Whether it is judged as a socket is made, before it is given out.
#[inline(always)]
pub fn sockets_judged_early() -> bool {
    constant(&raw const NODE.sockets_hooked) != 0
}

/// Whether programs on system calls are handed the registers: elsewhere than at the call's own tracepoint.
#[inline(always)]
pub fn calls_by_registers() -> bool {
    constant(&raw const NODE.calls_by_registers) != 0
}

/// Whether these are the functions of 32-bit system calls.
#[inline(always)]
pub fn compat_calls() -> bool {
    constant(&raw const NODE.compat_calls) != 0
}

#[inline(always)]
pub fn overlay_proven() -> bool {
    constant(&raw const NODE.overlay_proven) != 0
}

/// An address as read-only memory that the program may load from: the kernel compiles such a load as a guarded one,
/// which yields zero where nothing can be read. It costs an instruction or two, the helper some 15 ns.
#[inline(always)]
fn loadable(address: u64) -> *const u8 {
    // SAFETY: only reached where the loader has put the kernel function in the place of this number. 0: no type.
    unsafe {
        let cast: unsafe extern "C" fn(u64, u64) -> *const u8 = transmute(RDONLY_CAST as usize);
        cast(address, 0)
    }
}

/// A `T` at `base + offset` of kernel memory; all zeros where that can't be read, so that callers need no branch. Null
/// pointers read as zeros the same way.
#[inline(always)]
pub fn read<T: Copy>(base: u64, offset: u32) -> T {
    let one_load = const { size_of::<T>() <= 8 && size_of::<T>() == align_of::<T>() };
    if one_load && DIRECT_READS {
        // SAFETY: guarded by the kernel; T is a number at every call.
        return unsafe { loadable(base.wrapping_add(offset as u64)).cast::<T>().read_volatile() };
    }
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes exactly `size_of::<T>()` bytes, and T is plain data at every call.
    unsafe {
        bpf_probe_read_kernel(
            value.as_mut_ptr().cast::<c_void>(),
            size_of::<T>() as u32,
            base.wrapping_add(offset as u64) as *const c_void,
        );
        value.assume_init()
    }
}

/// Words of the calling process's memory; zeros where they can't be read.
#[inline(always)]
pub fn words_of_caller<const N: usize>(from: u64) -> [u32; N] {
    let mut words = [0; N];
    // SAFETY: the helper writes exactly that many bytes.
    unsafe { bpf_probe_read_user(words.as_mut_ptr().cast(), size_of::<[u32; N]>() as u32, from as *const c_void) };
    words
}

/// `len` bytes of kernel memory to `to`, zeros where they can't be read.
///
/// # Safety
/// `to` must have room for `len` bytes.
#[inline(always)]
pub unsafe fn copy(to: *mut u8, len: u32, from: u64) {
    unsafe { bpf_probe_read_kernel(to.cast::<c_void>(), len, from as *const c_void) };
}

/// Copies a buffer of ours over another. One helper call: the compiler's own copy is a loop over bytes, which costs the
/// verifier an iteration each.
#[inline(always)]
pub fn copy_bytes<const N: usize>(to: &mut [u8; N], from: *const u8) {
    // SAFETY: `to` has N bytes; an address that can't be read gives zeros.
    unsafe { copy(to.as_mut_ptr(), N as u32, from as u64) };
}

/// Zeros a value of ours: the helper zero-fills what it can't read, and nothing can be read at null.
#[inline(always)]
pub fn zero<T>(value: &mut T) {
    // SAFETY: all values that this is used on are plain data.
    unsafe { copy((&raw mut *value).cast::<u8>(), size_of::<T>() as u32, 0) };
}

/// Copies words one by one: the compiler would call a function for it that goes by bytes.
#[inline(always)]
pub fn copy_words<const N: usize>(to: &mut [u64; N], from: &[u64; N]) {
    for (to, from) in to.iter_mut().zip(from) {
        put(to, *from);
    }
}

/// Zeros words one by one, for the same reason.
#[inline(always)]
pub fn zero_words<const N: usize>(words: &mut [u64; N]) {
    for word in words {
        put(word, 0);
    }
}

/// The current `task_struct`.
#[inline(always)]
pub fn current() -> u64 {
    unsafe { bpf_get_current_task() as u64 }
}

/// The process of the current task: its thread group's id in the initial pid namespace.
#[inline(always)]
pub fn process(task: u64) -> u32 {
    if DIRECT_READS { read(task, offset!(task_tgid)) } else { (bpf_get_current_pid_tgid() >> 32) as u32 }
}

/// A value kept in a map, past the compiler's knowledge. See the note on style in `main.rs`.
#[inline(always)]
pub fn get<T: Copy>(from: *const T) -> T {
    // SAFETY: every caller passes a pointer into its scratch.
    unsafe { from.read_volatile() }
}

/// The counterpart of [`get`].
#[inline(always)]
pub fn put<T: Copy>(to: *mut T, value: T) {
    // SAFETY: every caller passes a pointer into its scratch.
    unsafe { to.write_volatile(value) }
}
