//! The floor: empty programs on the hooks that the enforcer sits on. What they cost is the kernel's own price of being
//! called there at all; what the enforcer costs over that is its own.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use aya::programs::{CgroupAttachMode, CgroupSkbAttachType, Program};
use aya::{Btf, Ebpf};
use nix::mount::{MsFlags, mount};
use object::write::{Object, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};
use ringfence_control::Tier;

/// Where tracepoints have their numbers, and what is there if it is mounted.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "events"];

/// A place in the kernel at which the enforcer has a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    kind: Kind,
    /// System call, tracepoint or security hook.
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Enter,
    Exit,
    Trace,
    Lsm,
    /// The function of a security hook, by a trampoline or a kprobe.
    Function,
    /// Before and after the function of a 32-bit system call, by a trampoline.
    CompatEnter,
    CompatExit,
    Ingress,
    Egress,
}

/// The kinds, with what stands before the hook in the name of a pinned link.
const KINDS: [(&str, Kind); 7] = [
    ("enter-", Kind::Enter),
    ("exit-", Kind::Exit),
    ("trace-", Kind::Trace),
    ("lsm-", Kind::Lsm),
    ("function-", Kind::Function),
    ("cgroup-ingress", Kind::Ingress),
    ("cgroup-egress", Kind::Egress),
];

/// What functions of 32-bit system calls begin with.
const COMPAT: &str = "__ia32_";

impl Hook {
    /// From the name of a pinned link.
    fn of_link(link: &str) -> Option<Self> {
        let (start, kind) = KINDS.iter().find(|(start, _)| link.starts_with(start))?;
        let name = link[start.len()..].to_owned();
        let kind = match kind {
            Kind::Enter if name.starts_with(COMPAT) => Kind::CompatEnter,
            Kind::Exit if name.starts_with(COMPAT) => Kind::CompatExit,
            kind => *kind,
        };
        Some(Self { kind, name })
    }

    /// Section of an ELF file by which a loader knows the kind of program.
    fn section(&self, tier: Tier) -> String {
        match self.kind {
            Kind::Enter | Kind::Exit => "tracepoint".to_owned(),
            Kind::Trace => format!("tp_btf/{}", self.name),
            Kind::Lsm => format!("lsm/{}", self.name),
            Kind::CompatEnter => format!("fentry/{}", self.name),
            Kind::CompatExit => format!("fexit/{}", self.name),
            Kind::Function if tier == Tier::Fentry => format!("fexit/{}", self.name),
            Kind::Function => format!("kprobe/{}", self.name),
            Kind::Ingress => "cgroup_skb/ingress".to_owned(),
            Kind::Egress => "cgroup_skb/egress".to_owned(),
        }
    }

    /// `r0 = verdict; exit`. A packet passes with 1; everywhere else 0 changes nothing.
    fn code(&self) -> [u8; 16] {
        let verdict = u8::from(matches!(self.kind, Kind::Ingress | Kind::Egress));
        [0xb7, 0, 0, 0, verdict, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0]
    }
}

/// The hooks at which a running enforcer has programs, by what it pinned below `bpffs`.
pub fn hooks(bpffs: &Path) -> Result<Vec<Hook>> {
    let root = bpffs.join("ringfence");
    let objects = names(&root.join("links"))?;
    ensure!(objects.len() == 1, "links of {} objects below {}, one was expected", objects.len(), root.display());
    let mut hooks = Vec::new();
    for folder in [root.join("links").join(&objects[0]), root.join("net")] {
        for link in names(&folder)? {
            let unknown = || format!("{}/{link}: a kind of hook that the bench does not know", folder.display());
            hooks.push(Hook::of_link(&link).with_context(unknown)?);
        }
    }
    ensure!(!hooks.is_empty(), "the enforcer has pinned no link below {}", root.display());
    Ok(hooks)
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut names =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// Empty programs, attached. Dropped, they are gone.
pub struct Floor {
    _programs: Ebpf,
}

impl Floor {
    /// One on each hook, in the way of a tier; those at sockets, at the sockets of `cgroup`.
    pub fn attach(hooks: &[Hook], tier: Tier, cgroup: &Path) -> Result<Self> {
        let mut programs = Ebpf::load(&elf(hooks, tier)?).context("load the empty programs")?;
        let btf = Btf::from_sys_fs()?;
        let cgroup = File::open(cgroup).with_context(|| cgroup.display().to_string())?;
        for (number, hook) in hooks.iter().enumerate() {
            let program = programs.program_mut(&program_name(number)).context("a program of our own is missing")?;
            attach(program, hook, &btf, &cgroup).with_context(|| format!("an empty program on {hook:?}"))?;
        }
        Ok(Self { _programs: programs })
    }
}

fn attach(program: &mut Program, hook: &Hook, btf: &Btf, cgroup: &File) -> Result<()> {
    match (program, hook.kind) {
        (Program::TracePoint(program), Kind::Enter | Kind::Exit) => {
            program.load()?;
            let side = if hook.kind == Kind::Enter { "enter" } else { "exit" };
            program.attach("syscalls", &format!("sys_{side}_{}", hook.name))?;
        }
        (Program::BtfTracePoint(program), Kind::Trace) => {
            program.load(&hook.name, btf)?;
            program.attach()?;
        }
        (Program::Lsm(program), Kind::Lsm) => {
            program.load(&hook.name, btf)?;
            program.attach()?;
        }
        (Program::FEntry(program), Kind::CompatEnter) => {
            program.load(&hook.name, btf)?;
            program.attach()?;
        }
        (Program::FExit(program), Kind::Function | Kind::CompatExit) => {
            program.load(&hook.name, btf)?;
            program.attach()?;
        }
        (Program::KProbe(program), Kind::Function) => {
            program.load()?;
            program.attach(&hook.name, 0)?;
        }
        (Program::CgroupSkb(program), Kind::Ingress | Kind::Egress) => {
            let ingress = hook.kind == Kind::Ingress;
            let direction = if ingress { CgroupSkbAttachType::Ingress } else { CgroupSkbAttachType::Egress };
            program.load()?;
            program.attach(cgroup, direction, CgroupAttachMode::Single)?;
        }
        _ => bail!("the loader takes it for another kind of program"),
    }
    Ok(())
}

/// An object with one program per hook. Two instructions need no compiler.
fn elf(hooks: &[Hook], tier: Tier) -> Result<Vec<u8>> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    for (number, hook) in hooks.iter().enumerate() {
        let section = object.add_section(Vec::new(), hook.section(tier).into_bytes(), SectionKind::Text);
        let code = hook.code();
        object.append_section_data(section, &code, 8);
        object.add_symbol(Symbol {
            name: program_name(number).into_bytes(),
            value: 0,
            size: code.len() as u64,
            kind: SymbolKind::Text,
            scope: SymbolScope::Dynamic,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        });
    }
    // Some hooks are open to programs under the GPL alone.
    let license = object.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    object.append_section_data(license, b"Dual MIT/GPL\0", 1);
    Ok(object.write()?)
}

fn program_name(number: usize) -> String {
    format!("empty_{number}")
}

/// Mounts tracefs where it is missing, for this process and its children. To be called after
/// [`crate::bpffs::private_mounts`].
pub fn mount_tracefs() -> Result<()> {
    let [path, sign] = TRACEFS;
    if !Path::new(path).join(sign).exists() {
        mount(Some("tracefs"), path, Some("tracefs"), MsFlags::empty(), None::<&str>).context(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_tells_its_hook() {
        let of = |link| Hook::of_link(link).map(|hook| (hook.kind, hook.name));
        assert_eq!(of("exit-open_by_handle_at"), Some((Kind::Exit, "open_by_handle_at".to_owned())));
        assert_eq!(of("enter-connect"), Some((Kind::Enter, "connect".to_owned())));
        assert_eq!(of("trace-sched_process_exec"), Some((Kind::Trace, "sched_process_exec".to_owned())));
        let compat = "__ia32_sys_dup".to_owned();
        assert_eq!(of("exit-__ia32_sys_dup"), Some((Kind::CompatExit, compat)));
        assert_eq!(of("function-security_file_open"), Some((Kind::Function, "security_file_open".to_owned())));
        assert_eq!(of("cgroup-egress").map(|(kind, _)| kind), Some(Kind::Egress));
        assert_eq!(of("tcx-7-ingress"), None);
    }
}
