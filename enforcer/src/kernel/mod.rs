//! The eBPF object on this node: found offsets, loaded programs, pinned maps and links.
//!
//! Invariants:
//! - What is attached is pinned: the enforcer's end, however it comes, detaches nothing.
//! - A start attaches what is missing before it removes what an older object left: there is no moment without.
//! - A program is loaded only when a rule needs it; the tier of a class is what loads, never what a version promises.

mod calls;
mod carry;
mod compat;
mod error;
mod ftrace;
mod load;
mod object;
mod offsets;
mod overlay;
mod pins;
mod preflight;
mod programs;
mod records;
mod retain;
mod stage;
mod tables;
mod types;
mod verify;

pub use error::Error;
pub use pins::Pins;
pub use preflight::{Hierarchy, mount_bpffs, node_cgroups, preflight, private_mounts};
pub use programs::{Attachment, Hook};
pub use records::{Candidate, Record, Records, Rest, read, zeroed};
pub use retain::Isolated;
pub use types::TypesFile;
pub use verify::{Outcome, Statistics, Verified, verify};

use compat::Compat;
use load::Trial;
use object::{Calls, Form};

use aya::{
    Btf, Ebpf,
    maps::{Array, HashMap, MapData, MapError, PerCpuArray, ProgramArray, lpm_trie::LpmTrie},
    programs::{Program, ProgramError, links::FdLink, trace_point::TracePointError},
};
use ringfence_abi::{
    ABSENT, CGROUP_NAME, CLASSES, COUNTERS, CgroupKey, CgroupName, Class, Counter, Isolation, Node, Op, SLOTS, Slot,
    Tier,
};
use std::{collections::BTreeSet, fs::File, hash::Hasher, path::PathBuf};

/// Maps that outlive the enforcer. The others are working memory.
const PINNED: &[&str] = &[
    "ATTACHED",
    "BYTE_FACETS",
    "CANDIDATES",
    "CGROUPS",
    "COMING",
    "COUNTS",
    "DESTINATIONS",
    "ENTERING",
    "ESCAPED",
    "ESCAPES",
    "EVENTS",
    "EXCEPTIONS",
    "FACET_DEFAULTS",
    "GENERATION",
    "ISOLATED",
    "MEMBERS",
    "MITIGATIONS",
    "NAMES",
    "NAME_PREFIXES",
    "NAME_STARTS",
    "NEIGHBOUR_AT",
    "NODE_ADDRESSES",
    "NUMBERS",
    "PATHS",
    "PATH_PREFIXES",
    "PROBE_FLOWS",
    "RULESETS",
    "SLOTS",
    "STRANGERS",
    "TERMINATING",
    "VETHS",
    "WRITTEN",
];

/// By the number of a system call, the programs of one object that see its entry, and those that see its exit.
const ENTERS: &str = "ENTERS";
const EXITS: &str = "EXITS";

/// How to load.
#[derive(Clone, Debug)]
pub struct Options {
    /// A mounted bpf file system.
    pub bpffs: PathBuf,
    /// Where the kernel's types are.
    pub types: TypesFile,
    /// Which v1 controller knows tasks, if the node is not pure v2.
    pub hierarchy: Hierarchy,
    /// No stronger tier than this.
    pub strongest: Tier,
    /// Operations that will have to be observed: their programs are loaded together with those of identity.
    pub ops: BTreeSet<Op>,
}

/// The loaded object.
pub struct Kernel {
    ebpf: Ebpf,
    /// Another one for 32-bit system calls, where there are any and they can be seen.
    compat: Option<Compat>,
    types: TypesFile,
    /// What is in there, until the first rules are in force.
    btf: Option<Btf>,
    pins: Pins,
    /// As long as it is open, nobody else works over the pins.
    _claim: File,
    object: String,
    form: Form,
    /// Programs on security hooks that have a place here.
    hooks: Vec<Attachment>,
    attached: BTreeSet<String>,
    adopted: bool,
    visible: Visible,
}

/// What this node lets programs see, by its probes.
#[derive(Clone, Copy, Debug)]
pub struct Visible {
    /// New files can be told from the image's (overlayfs).
    pub drift: bool,
    /// What is opened through `io_uring` is seen (tracepoint tier).
    pub rings: bool,
    /// 32-bit system calls are seen like others, if there are any.
    pub compat: bool,
}

impl Kernel {
    /// Finds offsets, loads the object over the pinned maps, and puts in place what identity needs.
    pub fn load(options: &Options) -> Result<Self, Error> {
        let types = options.types.read()?;
        let offsets = offsets::find(&types.ours)?;
        let compat_offsets = offsets::compat(&types.ours, &offsets);
        let pins = Pins::new(&options.bpffs);
        let claim = pins.claim()?;
        let untried = load::node(options.hierarchy.controller());
        let (mut loader, types, btf) = types.into_loader(&offsets);
        let mut trial = Trial::new(&mut loader, &types, &untried)?;
        let form = trial.form(options.strongest, &offsets, &btf)?;
        let hooks = trial.hooks(form.hooks, &types, &btf);
        let seen = compat_offsets.is_some() && trial.takes_trampoline(compat::ANY, &btf) && trial.calls_functions(&btf);
        // A kernel without them hides nothing.
        let compat_visible = seen || (compat_offsets.is_some() && types.function_number(compat::ANY).is_none());
        let drift = offsets.ovl_upper != ABSENT && overlay::told_apart(trial.ebpf);
        let node = Node { overlay_proven: u32::from(drift), ..load::formed(untried, form, &hooks) };
        let elf = trial.object.clone().in_form(form);
        let object = fingerprint(&[elf.bytes(), &bytes_of(&offsets), &bytes_of(&node)]);
        pins.create(&object)?;
        let adopted = pins.links(&object).read_dir().is_ok_and(|mut dir| dir.next().is_some())
            || !pins.foreign_links(&object).is_empty();
        // What sees every call goes on to programs of this object alone.
        let own: &[&str] = if form.calls == Calls::Every { &[ENTERS, EXITS] } else { &[] };
        let own = own.iter().map(|map| (*map, pins.links(&object).join(map)));
        let shared = || PINNED.iter().map(|map| (*map, pins.maps().join(map)));
        let ebpf = loader.open_pinned(&elf, &node, &pins, shared().chain(own))?;
        let compat_node = load::compat(node);
        let compat = match compat_offsets.as_ref().filter(|_| seen) {
            Some(offsets) => {
                let elf = trial.object.in_form(Form { calls: Calls::Functions, ..form });
                Some(Compat::new(loader.with(offsets).open_pinned(&elf, &compat_node, &pins, shared())?, &types))
            }
            None => None,
        };
        carry::over(&pins)?;
        let mut kernel = Self {
            ebpf,
            compat,
            types: options.types.clone(),
            btf: None,
            pins,
            _claim: claim,
            object,
            form,
            hooks,
            attached: BTreeSet::new(),
            adopted,
            visible: Visible { drift, rings: offsets.io_result != ABSENT, compat: compat_visible },
        };
        let all: Vec<Attachment> = programs::IDENTITY.iter().copied().chain(kernel.wanted(&options.ops)).collect();
        let missing: Vec<&Attachment> = all.iter().filter(|attachment| kernel.is_missing(attachment)).collect();
        load::load(&mut kernel.ebpf, &btf, &missing).map_err(|error| options.types.blamed(error))?;
        for attachment in programs::IDENTITY {
            kernel.attach(attachment, Some(&btf))?;
        }
        kernel.btf = Some(btf);
        Ok(kernel)
    }

    /// Whether programs of an earlier enforcer were found at work.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// What this node lets programs see.
    pub fn visible(&self) -> Visible {
        self.visible
    }

    /// Turns on what calls programs on the kernel's functions, if there are any of ours and somebody has turned it off.
    /// What became of it; `None`: it was on.
    pub fn turn_on(&self) -> Option<std::io::Result<()>> {
        let called_by_ftrace =
            self.form.hooks != Tier::Tracepoint || self.form.calls == Calls::Functions || self.compat.is_some();
        (called_by_ftrace && ftrace::is_off()).then(ftrace::turn_on)
    }

    /// The pins.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// The object, for the datapath's owner.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// The tier that judges an operation.
    pub fn tier(&self, op: Op) -> Tier {
        if self.is_hooked(op) { self.form.hooks } else { Tier::Tracepoint }
    }

    fn is_hooked(&self, op: Op) -> bool {
        self.hooks.iter().any(|hook| hook.ops.contains(&op))
    }

    /// Attaches what these operations need, then detaches what they do not need any more.
    /// Hooks that the kernel does not have (system calls of other architectures or versions) are left out.
    pub fn attach_for(&mut self, ops: &BTreeSet<Op>) -> Result<(), Error> {
        let wanted = self.wanted(ops);
        let missing: Vec<&Attachment> = wanted.iter().filter(|attachment| self.is_missing(attachment)).collect();
        let links = self.pins.links(&self.object);
        let compat_is_missing = self.compat.as_ref().is_some_and(|compat| compat.is_missing(&wanted, &links));
        let mut btf = self.btf.take();
        if compat_is_missing || missing.iter().any(|attachment| !self.is_loaded(attachment)) {
            // Read anew: the kernel's types are large, and seldom needed once the first rules are in force.
            let btf = match &btf {
                Some(btf) => btf,
                None => btf.insert(self.types.for_programs()?),
            };
            load::load(&mut self.ebpf, btf, &missing)?;
        }
        for attachment in &wanted {
            self.attach(attachment, btf.as_ref())?;
        }
        let mut keep: BTreeSet<String> = wanted.iter().chain(programs::IDENTITY).map(Attachment::link_name).collect();
        if let Some(compat) = &mut self.compat {
            let names = compat.attach(&wanted, &links, btf.as_ref())?;
            self.attached.extend(names.iter().cloned());
            keep.extend(names);
        }
        for gone in self.attached.iter().filter(|name| !keep.contains(*name)).cloned().collect::<Vec<_>>() {
            let path = self.pin(&gone);
            // First: what is pinned is at work, also for who finds it after a crash.
            std::fs::remove_file(&path).map_err(|source| Error::Path { path, source })?;
            if let Some((map, number)) = self.by_number(&gone) {
                self.numbered(map)?.clear_index(&number).map_err(|source| Error::Map { map, source })?;
            }
            self.attached.remove(&gone);
        }
        Ok(())
    }

    /// Detaches what older objects left: their links, and then maps of other layouts. To be called once a generation is in
    /// force: until then, in maps of a new layout, nothing is.
    pub fn remove_foreign(&self) -> Result<(), Error> {
        for old in self.pins.foreign_links(&self.object) {
            pins::remove(&old)?;
        }
        carry::finish(&self.pins)
    }

    /// What these operations need on the tiers that this kernel has.
    fn wanted(&self, ops: &BTreeSet<Op>) -> Vec<Attachment> {
        let tracepoints = programs::TRACEPOINT.iter().filter(|attachment| {
            !attachment.only_without_hooks || attachment.ops.iter().any(|op| !self.is_hooked(*op))
        });
        let mut wanted: Vec<_> = self.hooks.iter().chain(tracepoints).filter(|a| a.is_needed(ops)).copied().collect();
        if self.form.calls == Calls::Every {
            let any = |side: fn(&Attachment) -> bool| wanted.iter().any(side);
            let sides = [any(|a| matches!(a.hook, Hook::Enter(_))), any(|a| matches!(a.hook, Hook::Exit(_)))];
            let every = programs::EVERY_CALL.iter().zip(sides).filter(|(_, any)| *any).map(|(every, _)| *every);
            wanted.extend(every.collect::<Vec<_>>());
        }
        wanted
    }

    fn is_loaded(&self, attachment: &Attachment) -> bool {
        self.ebpf.program(attachment.program).is_some_and(|program| program.fd().is_ok())
    }

    /// Whether it is neither attached nor impossible on this kernel.
    fn is_missing(&self, attachment: &Attachment) -> bool {
        !self.is_attached(&attachment.link_name()) && self.is_possible(attachment)
    }

    fn is_attached(&self, link: &str) -> bool {
        self.attached.contains(link) || self.pin(link).exists()
    }

    /// Where a link is pinned.
    fn pin(&self, link: &str) -> PathBuf {
        self.pins.links(&self.object).join(link)
    }

    fn is_possible(&self, attachment: &Attachment) -> bool {
        match attachment.hook {
            // Not every kernel has every system call.
            Hook::Enter(call) | Hook::Exit(call) => {
                preflight::has_syscall(call) && (self.form.calls != Calls::Every || calls::number(call).is_some())
            }
            Hook::Trace("io_uring_complete") => self.visible.rings,
            Hook::Trace(_) | Hook::Lsm(_) | Hook::Function(_) => true,
        }
    }

    /// Attaches a program that is loaded, or that is loaded for each of its hooks anew.
    fn attach(&mut self, attachment: &Attachment, btf: Option<&Btf>) -> Result<(), Error> {
        let name = attachment.link_name();
        if self.is_attached(&name) {
            self.attached.insert(name);
            return Ok(());
        }
        if !self.is_possible(attachment) {
            tracing::debug!(name, "this kernel has no such hook");
            return Ok(());
        }
        let program = attachment.program;
        let failed = |source| Error::Program { program, hook: name.clone(), source };
        let pin = self.pin(&name);
        let not_pinned = |error: aya::pin::PinError| Error::Pin(name.clone(), error.to_string());
        if let Some((map, number)) = self.by_number(&name) {
            let descriptor = self.program(attachment).fd().and_then(|fd| Ok(fd.try_clone()?)).map_err(failed)?;
            self.numbered(map)?.set(number, &descriptor, 0).map_err(|source| Error::Map { map, source })?;
            // The array keeps it; the pin tells the next enforcer that it is there.
            self.program(attachment).pin(pin).map_err(not_pinned)?;
        } else {
            Self::link(&mut self.ebpf, attachment, btf).map_err(failed)?.pin(pin).map_err(not_pinned)?;
        }
        self.attached.insert(name);
        Ok(())
    }

    /// Where every system call goes on to the program of a link, if that is how it is attached.
    fn by_number(&self, link: &str) -> Option<(&'static str, u32)> {
        let (side, call) = link.split_once('-').filter(|_| self.form.calls == Calls::Every)?;
        let map = match side {
            "enter" => ENTERS,
            "exit" => EXITS,
            _ => return None,
        };
        Some((map, calls::number(call)?))
    }

    fn program(&mut self, attachment: &Attachment) -> &mut Program {
        self.ebpf.program_mut(attachment.program).expect("every attachment names a program of the object")
    }

    fn numbered(&mut self, map: &'static str) -> Result<ProgramArray<&mut MapData>, Error> {
        ProgramArray::try_from(self.map(map)).map_err(|source| Error::Map { map, source })
    }

    fn link(ebpf: &mut Ebpf, attachment: &Attachment, btf: Option<&Btf>) -> Result<FdLink, ProgramError> {
        let btf = || btf.expect("the types are read where a program is missing that is loaded when it is attached");
        let program = ebpf.program_mut(attachment.program).expect("every attachment names a program of the object");
        match (program, attachment.hook) {
            (Program::BtfTracePoint(p), Hook::Trace(_)) => {
                let id = p.attach()?;
                Ok(p.take_link(id)?.into())
            }
            (Program::Lsm(p), Hook::Lsm(_)) => {
                let id = p.attach()?;
                Ok(p.take_link(id)?.into())
            }
            (Program::FExit(p), Hook::Function(_)) => {
                let id = p.attach()?;
                Ok(p.take_link(id)?.into())
            }
            (Program::KProbe(p), Hook::Function(function)) => {
                let id = p.attach(function, 0)?;
                p.take_link(id)?.try_into().map_err(|_| not_pinnable(function))
            }
            (program @ (Program::FEntry(_) | Program::FExit(_)), Hook::Enter(call) | Hook::Exit(call)) => {
                compat::on_function(program, &programs::function_of(call), btf())
            }
            (Program::TracePoint(p), Hook::Enter(call) | Hook::Exit(call)) => {
                let side = if matches!(attachment.hook, Hook::Enter(_)) { "enter" } else { "exit" };
                let id = p.attach("syscalls", &format!("sys_{side}_{call}"))?;
                p.take_link(id)?.try_into().map_err(|_| not_pinnable(call))
            }
            _ => unreachable!("tests hold every attachment against the object"),
        }
    }

    fn map(&mut self, map: &'static str) -> &mut aya::maps::Map {
        self.ebpf.map_mut(map).expect("a map of the object")
    }

    fn array<T: aya::Pod>(&mut self, map: &'static str) -> Result<Array<&mut MapData, T>, Error> {
        Array::try_from(self.map(map)).map_err(|source| Error::Map { map, source })
    }

    fn hash<K: aya::Pod, V: aya::Pod>(&mut self, map: &'static str) -> Result<HashMap<&mut MapData, K, V>, Error> {
        HashMap::try_from(self.map(map)).map_err(|source| Error::Map { map, source })
    }

    fn lpm<K: aya::Pod, V: aya::Pod>(&mut self, map: &'static str) -> Result<LpmTrie<&mut MapData, K, V>, Error> {
        LpmTrie::try_from(self.map(map)).map_err(|source| Error::Map { map, source })
    }

    /// Sets a pod's slot.
    pub fn set_slot(&mut self, slot: u32, value: Slot) -> Result<(), Error> {
        self.array("SLOTS")?.set(slot, value, 0).map_err(|source| Error::Map { map: "SLOTS", source })
    }

    /// A pod's slot, as the programs see it.
    pub fn slot(&mut self, slot: u32) -> Result<Slot, Error> {
        self.array("SLOTS")?.get(&slot, 0).map_err(|source| Error::Map { map: "SLOTS", source })
    }

    /// Announces a container by the ends of its cgroups' path, before they exist.
    pub fn announce(&mut self, names: &[String], slot: u32) -> Result<(), Error> {
        let mut coming = self.hash("COMING")?;
        for name in names {
            coming.insert(cgroup_name(name), slot, 0).map_err(|source| Error::Map { map: "COMING", source })?;
        }
        Ok(())
    }

    /// Takes an announcement back.
    pub fn withdraw(&mut self, names: &[String]) -> Result<(), Error> {
        let mut coming = self.hash::<CgroupName, u32>("COMING")?;
        for name in names {
            let _ = coming.remove(&cgroup_name(name));
        }
        Ok(())
    }

    /// The slot under which one of the names is announced.
    pub fn announced(&mut self, names: &[String]) -> Result<Option<u32>, Error> {
        let coming = self.hash::<CgroupName, u32>("COMING")?;
        Ok(names.iter().find_map(|name| coming.get(&cgroup_name(name), 0).ok()))
    }

    /// Takes back all announcements of a slot.
    pub fn withdraw_slot(&mut self, slot: u32) -> Result<(), Error> {
        let mut coming = self.hash::<CgroupName, u32>("COMING")?;
        let gone: Vec<CgroupName> = coming.iter().flatten().filter(|(_, s)| *s == slot).map(|(name, _)| name).collect();
        for name in gone {
            let _ = coming.remove(&name);
        }
        Ok(())
    }

    /// Binds a cgroup that exists already.
    pub fn bind(&mut self, cgroup: CgroupKey, slot: u32) -> Result<(), Error> {
        self.hash("CGROUPS")?.insert(cgroup, slot, 0).map_err(|source| Error::Map { map: "CGROUPS", source })
    }

    /// Notes that a process is in a bound cgroup, unless the kernel has seen it come: a process that was there before
    /// anybody looked may move itself out.
    pub fn note_member(&mut self, pid: u32, cgroup: CgroupKey) -> Result<(), Error> {
        const NO_EXIST: u64 = 1;
        let mut members = self.hash::<u32, CgroupKey>("MEMBERS")?;
        match members.insert(pid, cgroup, NO_EXIST) {
            // Its end may have been missed.
            Ok(()) if !PathBuf::from(format!("/proc/{pid}")).exists() => {
                let _ = members.remove(&pid);
            }
            Ok(()) => {}
            Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(Error::Map { map: "MEMBERS", source }),
        }
        Ok(())
    }

    /// Takes a cgroup back from whom it is bound to.
    pub fn unbind_cgroup(&mut self, cgroup: CgroupKey) -> Result<(), Error> {
        let _ = self.hash::<CgroupKey, u32>("CGROUPS")?.remove(&cgroup);
        Ok(())
    }

    /// The slot of a bound cgroup.
    pub fn bound(&mut self, cgroup: CgroupKey) -> Result<Option<u32>, Error> {
        Ok(self.hash::<CgroupKey, u32>("CGROUPS")?.get(&cgroup, 0).ok())
    }

    /// The name of the pod's cgroup that a cgroup is in, if nobody had announced that pod. It may be gone.
    pub fn stranger(&mut self, cgroup: CgroupKey) -> Result<Option<String>, Error> {
        let name = self.hash::<CgroupKey, CgroupName>("STRANGERS")?.get(&cgroup, 0).ok();
        Ok(name.map(|CgroupName { name }| {
            let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
            String::from_utf8_lossy(&name[..end]).into_owned()
        }))
    }

    /// Whether any cgroup is bound to a slot.
    pub fn is_bound(&mut self, slot: u32) -> Result<bool, Error> {
        Ok(self.hash::<CgroupKey, u32>("CGROUPS")?.iter().flatten().any(|(_, of)| of == slot))
    }

    /// Processes that took their slot along into a cgroup of nobody's, with that slot.
    pub fn escaped(&mut self) -> Result<Vec<(u32, u32)>, Error> {
        Ok(self.hash::<u32, u32>("ESCAPED")?.iter().flatten().collect())
    }

    /// All slots that a cgroup is bound to or that are announced.
    pub fn slots_in_use(&mut self) -> Result<BTreeSet<u32>, Error> {
        let mut used = BTreeSet::new();
        used.extend(self.hash::<CgroupKey, u32>("CGROUPS")?.iter().flatten().map(|(_, slot)| slot));
        used.extend(self.hash::<CgroupName, u32>("COMING")?.iter().flatten().map(|(_, slot)| slot));
        used.remove(&0);
        Ok(used)
    }

    /// Unbinds every cgroup of a slot that is given back.
    pub fn unbind(&mut self, slot: u32) -> Result<(), Error> {
        let mut cgroups = self.hash::<CgroupKey, u32>("CGROUPS")?;
        let gone: Vec<CgroupKey> = cgroups.iter().flatten().filter(|(_, s)| *s == slot).map(|(key, _)| key).collect();
        for key in gone {
            let _ = cgroups.remove(&key);
        }
        Ok(())
    }

    /// Whether and since when a slot is isolated.
    pub fn isolation(&mut self, slot: u32) -> Result<Isolation, Error> {
        self.array("ISOLATED")?.get(&slot, 0).map_err(|source| Error::Map { map: "ISOLATED", source })
    }

    /// Counters, summed over the CPUs: `[class][counter]`.
    pub fn counters(&mut self) -> Result<[[u64; COUNTERS]; CLASSES], Error> {
        let failed = |source| Error::Map { map: "COUNTS", source };
        let counts: PerCpuArray<_, u64> = PerCpuArray::try_from(self.map("COUNTS")).map_err(failed)?;
        let mut sums = [[0; COUNTERS]; CLASSES];
        for class in Class::ALL {
            for (counter, sum) in sums[class as usize].iter_mut().enumerate() {
                let index = u32::try_from(class as usize * COUNTERS + counter).expect("a handful");
                *sum = counts.get(&index, 0).map_err(failed)?.iter().sum();
            }
        }
        Ok(sums)
    }

    /// Records that were lost since the maps were made, of any class.
    pub fn lost(counters: &[[u64; COUNTERS]; CLASSES]) -> u64 {
        let lost = [Counter::LostLog, Counter::LostMitigating, Counter::LostCandidates];
        counters.iter().flat_map(|of_class| lost.map(|counter| of_class[counter as usize])).sum()
    }

    /// The ring buffers: mitigations, candidates, logs.
    pub fn records(&mut self) -> Result<[Records; 3], Error> {
        Ok([self.ring("MITIGATIONS")?, self.ring("CANDIDATES")?, self.ring("EVENTS")?])
    }

    fn ring(&mut self, map: &'static str) -> Result<Records, Error> {
        let ring = self.ebpf.take_map(map).expect("a map of the object, taken once");
        Records::new(ring).map_err(|source| Error::Map { map, source })
    }
}

/// Before 5.15 a tracepoint's attachment is no link, and goes with the enforcer.
fn not_pinnable(call: &str) -> ProgramError {
    let message =
        format!("the attachment to {call} can't outlive the enforcer on this kernel (5.15 or later is needed)");
    ProgramError::TracePointError(TracePointError::FileError {
        filename: "/sys/kernel/tracing".into(),
        io_error: std::io::Error::new(std::io::ErrorKind::Unsupported, message),
    })
}

/// Number of the last slot, exclusive.
pub const SLOT_END: u32 = SLOTS;

fn cgroup_name(name: &str) -> CgroupName {
    let mut bytes = [0; CGROUP_NAME];
    let len = name.len().min(CGROUP_NAME);
    bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
    CgroupName { name: bytes }
}

/// Names an object with its constants: same name, same programs.
fn fingerprint(parts: &[&[u8]]) -> String {
    let mut hasher = std::hash::DefaultHasher::new();
    for part in parts {
        hasher.write(part);
    }
    format!("{:016x}", hasher.finish())
}

fn bytes_of<T: aya::Pod>(value: &T) -> Vec<u8> {
    // SAFETY: Pod: plain data without padding.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of::<T>()) }.to_vec()
}
