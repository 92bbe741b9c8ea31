//! Which system calls have an effect that outlives their process, and what they are called.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::FileExt;

use aya::maps::loaded_maps;
use nix::libc;
use nix::unistd::Pid;

const PATH: usize = 256;
/// Maps of which what is written decides who is governed, and how. Entries of others are of one kind.
const TELLING: [&str; 5] = ["generation", "isolated", "cgroups", "coming", "members"];
/// Older forms of the same calls.
#[cfg(target_arch = "x86_64")]
const OLD: &[(i64, &str)] = &[
    (libc::SYS_mkdir, "mkdir"),
    (libc::SYS_rmdir, "unlink"),
    (libc::SYS_unlink, "unlink"),
    (libc::SYS_rename, "rename"),
    (libc::SYS_link, "link"),
    (libc::SYS_symlink, "link"),
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[(i64, &str)] = &[];
const NEW: &[(i64, &str)] = &[
    (libc::SYS_mkdirat, "mkdir"),
    (libc::SYS_unlinkat, "unlink"),
    (libc::SYS_renameat, "rename"),
    (libc::SYS_renameat2, "rename"),
    (libc::SYS_linkat, "link"),
    (libc::SYS_symlinkat, "link"),
    (libc::SYS_kill, "kill"),
    (libc::SYS_pidfd_send_signal, "kill"),
];
#[cfg(target_arch = "x86_64")]
const OPEN: i64 = libc::SYS_open;
#[cfg(not(target_arch = "x86_64"))]
const OPEN: i64 = -1;

/// Maps' names by their ids.
#[derive(Default)]
pub struct Names(HashMap<u32, String>);

impl Names {
    fn of(&mut self, thread: Pid, fd: u64) -> Option<String> {
        let text = fs::read_to_string(format!("/proc/{thread}/fdinfo/{fd}")).ok()?;
        let id = text.lines().find_map(|line| line.strip_prefix("map_id:")?.trim().parse().ok())?;
        if !self.0.contains_key(&id) {
            for map in loaded_maps().flatten() {
                if let Some(name) = map.name_as_str() {
                    self.0.insert(map.id(), name.to_lowercase());
                }
            }
        }
        self.0.get(&id).cloned()
    }
}

/// The step that a thread is about to make, if it is one.
pub fn of(thread: Pid, names: &mut Names) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{thread}/syscall")).ok()?;
    let mut words = text.split_whitespace();
    let number: i64 = words.next()?.parse().ok()?;
    let mut arguments = [0_u64; 6];
    for argument in &mut arguments {
        *argument = u64::from_str_radix(words.next()?.trim_start_matches("0x"), 16).ok()?;
    }
    let memory = Memory(thread);
    match number {
        libc::SYS_bpf => bpf(&memory, arguments, names),
        libc::SYS_openat => open(&memory, arguments[1], arguments[2]),
        OPEN => open(&memory, arguments[0], arguments[1]),
        libc::SYS_sendto => netlink(&memory, arguments[1], arguments[2]),
        libc::SYS_write if is_output(thread, arguments[0]) => Some("tell".into()),
        _ => OLD.iter().chain(NEW).find(|(of, _)| *of == number).map(|(_, name)| (*name).to_owned()),
    }
}

/// Whether a descriptor is the standard output, maybe by another number.
fn is_output(thread: Pid, fd: u64) -> bool {
    let file = |fd| fs::read_link(format!("/proc/{thread}/fd/{fd}")).ok();
    file(1).is_some_and(|output| file(fd) == Some(output))
}

fn bpf(memory: &Memory, [command, attributes, ..]: [u64; 6], names: &mut Names) -> Option<String> {
    let word = |at| memory.number(attributes + at);
    let mut entry = |verb: &str| {
        let map = names.of(memory.0, word(0)?.into())?;
        Some(if TELLING.contains(&map.as_str()) { format!("{verb}-{map}") } else { verb.to_owned() })
    };
    Some(match command {
        0 => "bpf-map-create".into(),
        2 => entry("bpf-map-update")?,
        3 => entry("bpf-map-delete")?,
        5 => "bpf-prog-load".into(),
        6 => {
            let path = memory.text(memory.long(attributes)?)?;
            let folder = path.split("/ringfence/").nth(1)?.split('/').next()?;
            format!("bpf-obj-pin-{folder}")
        }
        8 => "bpf-prog-attach".into(),
        9 => "bpf-prog-detach".into(),
        17 => "bpf-raw-tracepoint-open".into(),
        26 => "bpf-map-update-batch".into(),
        28 => "bpf-link-create".into(),
        29 => "bpf-link-update".into(),
        34 => "bpf-link-detach".into(),
        _ => return None,
    })
}

fn open(memory: &Memory, path: u64, flags: u64) -> Option<String> {
    let flags = i32::try_from(flags & 0x7fff_ffff).ok()?;
    if flags & (libc::O_CREAT | libc::O_WRONLY | libc::O_RDWR) == 0 {
        return None;
    }
    let path = memory.text(path)?;
    if path.starts_with("/dev/") {
        return None;
    }
    Some(format!("open-{}", path.rsplit('/').next()?))
}

/// Those that change something: of four kinds of messages about an object the first two (make, remove).
fn netlink(memory: &Memory, buffer: u64, length: u64) -> Option<String> {
    if u64::from(memory.number(buffer)?) != length {
        return None;
    }
    let kind = memory.number(buffer + 4)? & 0xffff;
    (kind >= 16 && kind % 4 < 2).then(|| format!("netlink-{kind}"))
}

struct Memory(Pid);

impl Memory {
    fn read(&self, at: u64, into: &mut [u8]) -> Option<usize> {
        fs::File::open(format!("/proc/{}/mem", self.0)).ok()?.read_at(into, at).ok()
    }

    fn number(&self, at: u64) -> Option<u32> {
        let mut bytes = [0; 4];
        (self.read(at, &mut bytes)? == 4).then(|| u32::from_ne_bytes(bytes))
    }

    fn long(&self, at: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        (self.read(at, &mut bytes)? == 8).then(|| u64::from_ne_bytes(bytes))
    }

    fn text(&self, at: u64) -> Option<String> {
        let mut bytes = [0; PATH];
        let read = self.read(at, &mut bytes)?;
        let end = bytes[..read].iter().position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }
}
