//! The switch of everything that is put on functions of the kernel: `kernel.ftrace_enabled` (`kernel/trace/ftrace.c`).
//!
//! While it is off, programs of the tiers `lsm`, `fentry` and `kprobe` are in place and nobody calls them. Root of a
//! privileged container can turn it off.

use super::stage::{self, PLACE};
use std::{fs, io, path::Path, thread};

const SWITCH: &str = "sys/kernel/ftrace_enabled";

/// Whether it is off. A kernel without it has nothing that it could turn off.
pub fn is_off() -> bool {
    fs::read(Path::new("/proc").join(SWITCH)).is_ok_and(|value| value.trim_ascii() == b"0")
}

/// Turns it on. In a container /proc/sys may be mounted read-only: then on a /proc that one thread alone sees.
pub fn turn_on() -> io::Result<()> {
    match fs::write(Path::new("/proc").join(SWITCH), "1") {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => thread::scope(|scope| {
            let apart = scope.spawn(|| {
                stage::enter("proc")?;
                fs::write(Path::new(PLACE).join(SWITCH), "1")
            });
            apart.join().map_err(|_| io::Error::other("the thread panicked"))?
        }),
        result => result,
    }
}
