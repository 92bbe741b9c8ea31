//! Finds the offsets that the programs read kernel memory at, in the running kernel's BTF.

use super::Error;
use ringfence_abi::{ABSENT, Offsets};
use ringfence_btf::Btf;

/// All offsets of the running kernel. A member that has to be there and is missing, or ambiguous, is an error that
/// names it; overlayfs's own are left [`ABSENT`] where the kernel does not tell, and drift is blind then.
pub fn find(kernel: &Btf) -> Result<Offsets, Error> {
    let mut values = Vec::with_capacity(Offsets::MEMBERS.len());
    for member in Offsets::MEMBERS {
        values.push(any_of(kernel, member.of, member.path)?);
    }
    let mut offsets = Offsets::from_members(&values);
    overlay(kernel, &mut offsets);
    offsets.arguments = arguments(kernel)?;
    offsets.parameters = parameters(kernel)?;
    if let Some(parameters) = kernel.function_args("bpf_lsm_path_rename") {
        offsets.rename_parameters = u32::try_from(parameters.len()).unwrap_or(ABSENT);
    }
    // Both or nothing: a call's number without whose it is names another call.
    if let (Ok(number), Ok(state)) = (kernel.offset("pt_regs", "syscallno"), kernel.offset("pt_regs", "pstate")) {
        (offsets.call_number, offsets.call_state) = (number, state);
    }
    // Both or nothing: without them what a ring opens is not seen.
    if let (Ok(opcode), Ok(result)) = (kernel.offset("io_kiocb", "opcode"), kernel.offset("io_kiocb", "cqe.res")) {
        (offsets.io_opcode, offsets.io_result) = (opcode, result);
    }
    Ok(offsets)
}

/// Where the kernel keeps the arguments of a system call until its end: the registers of the architecture's convention
/// (`syscall(2)`). Of arm64's the first is also the result's, so that the kernel keeps another copy.
fn arguments(kernel: &Btf) -> Result<[u32; 5], Error> {
    let register = |name: &str| any_of(kernel, "pt_regs", name);
    match register("orig_x0") {
        Ok(first) => {
            let x = register("regs")?;
            Ok([first, x + 8, x + 16, x + 24, x + 32])
        }
        Err(_) => Ok([register("di")?, register("si")?, register("dx")?, register("r10")?, register("r8")?]),
    }
}

/// The same for 32-bit system calls (`arch/x86/include/asm/syscall_wrapper.h`, `SC_IA32_REGS_TO_ARGS`). `None`: of another
/// architecture, whose 32-bit calls nothing here knows.
pub fn compat(kernel: &Btf, offsets: &Offsets) -> Option<Offsets> {
    let register = |name: &str| kernel.offset("pt_regs", name).ok();
    let arguments = [register("bx")?, register("cx")?, register("dx")?, register("si")?, register("di")?];
    Some(Offsets { arguments, ..*offsets })
}

/// Where the arguments of a function are at its entry: the registers of the architecture's convention for calls.
fn parameters(kernel: &Btf) -> Result<[u32; 5], Error> {
    let register = |name: &str| any_of(kernel, "pt_regs", name);
    match register("regs") {
        Ok(x) => Ok([x, x + 8, x + 16, x + 24, x + 32]),
        Err(_) => Ok([register("di")?, register("si")?, register("dx")?, register("cx")?, register("r8")?]),
    }
}

/// The first of the alternative paths that the struct has.
fn any_of(btf: &Btf, of: &str, paths: &str) -> Result<u32, Error> {
    let mut last = None;
    for path in paths.split('|') {
        match btf.offset(of, path) {
            Ok(offset) => return Ok(offset),
            Err(error) => last = Some(error),
        }
    }
    Err(Error::Member { member: format!("{of}.{paths}"), source: last.expect("split yields at least one path") })
}

/// overlayfs may be built in or a module; some modules come without BTF of their own.
fn overlay(kernel: &Btf, offsets: &mut Offsets) {
    let module = Btf::module("overlay").ok();
    let overlay = if kernel.size("ovl_inode").is_ok() { Some(kernel) } else { module.as_ref() };
    let Some(btf) = overlay else {
        // `__upperdentry` follows the embedded inode on every kernel since 4.13, and what is set where there is a lower
        // layer follows that until 6.4 (`lower`, then `lowerpath.layer`); a trial at start proves both.
        if let Ok(size) = kernel.size("inode") {
            offsets.ovl_upper = size.next_multiple_of(8);
            offsets.ovl_lower = offsets.ovl_upper + 8;
        }
        return;
    };
    let Ok(inode) = btf.offset("ovl_inode", "vfs_inode") else { return };
    let relative = |member: &str| btf.offset("ovl_inode", member).ok().and_then(|offset| offset.checked_sub(inode));
    offsets.ovl_upper = relative("__upperdentry").unwrap_or(ABSENT);
    // 6.5 and later: ovl_entry with a count of layers; before: lowerpath.dentry (6.2), lower (5.x).
    if let (Some(entry), Ok(count)) = (relative("oe"), btf.offset("ovl_entry", "__numlower")) {
        (offsets.ovl_entry, offsets.ovl_entry_numlower) = (entry, count);
    } else if let Some(lower) = relative("lowerpath.dentry").or_else(|| relative("lower")) {
        offsets.ovl_lower = lower;
    }
}
