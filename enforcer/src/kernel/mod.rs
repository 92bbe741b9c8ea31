//! The eBPF object on this node: found offsets, loaded programs, pinned maps and links.
//!
//! Invariants:
//! - What is attached is pinned: the enforcer's end, however it comes, detaches nothing.
//! - A start attaches what is missing before it removes what an older object left: there is no moment without.
//! - A program is loaded only when a rule needs it; the tier of a class is what loads, never what a version promises.

mod error;
mod object;
mod offsets;
mod overlay;
mod pins;
mod preflight;
mod programs;
mod records;
mod tables;
mod verify;

pub use error::Error;
pub use pins::Pins;
pub use preflight::{Hierarchy, mount_bpffs, preflight, private_mounts};
pub use programs::{Attachment, Hook};
pub use records::{Records, record};
pub use verify::{Verified, verify};

use object::Object;

use aya::{
    Btf, Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{Array, HashMap, MapData, PerCpuArray, lpm_trie::LpmTrie},
    programs::{BtfTracePoint, Lsm, Program, ProgramError, TracePoint, links::FdLink, trace_point::TracePointError},
};
use ringfence_abi::{
    ABSENT, CGROUP_NAME, CLASSES, COUNTERS, CgroupKey, CgroupName, Class, Counter, Isolation, Node, Offsets, Op, SLOTS,
    Slot, Tier,
};
use std::{collections::BTreeSet, fs::File, hash::Hasher, path::PathBuf};

/// Maps that outlive the enforcer. The others are working memory.
const PINNED: &[&str] = &[
    "ATTACHED",
    "BYTE_FACETS",
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
    "VETHS",
    "WRITTEN",
];

/// How to load.
#[derive(Clone, Debug)]
pub struct Options {
    /// A mounted bpf file system.
    pub bpffs: PathBuf,
    /// Which v1 controller knows tasks, if the node is not pure v2.
    pub hierarchy: Hierarchy,
    /// No stronger tier than this.
    pub strongest: Tier,
}

/// The loaded object.
#[expect(clippy::struct_excessive_bools, reason = "each answers a question of status on its own")]
pub struct Kernel {
    ebpf: Ebpf,
    pins: Pins,
    /// As long as it is open, nobody else works over the pins.
    _claim: File,
    object: String,
    btf: Btf,
    lsm: bool,
    attached: BTreeSet<String>,
    adopted: bool,
    drift_visible: bool,
    rings_visible: bool,
}

impl Kernel {
    /// Finds offsets, loads the object over the pinned maps, and puts in place what identity needs.
    pub fn load(options: &Options) -> Result<Self, Error> {
        let types = ringfence_btf::Btf::from_sys_fs().map_err(Error::NoBtf)?;
        let offsets = offsets::find(&types)?;
        let pins = Pins::new(&options.bpffs);
        let claim = pins.claim()?;
        let lsm = options.strongest >= Tier::Lsm && preflight::lsm_is_active();
        let btf = Btf::from_sys_fs().map_err(aya::EbpfError::BtfError)?;
        let mut node = Node {
            v1_controller: options.hierarchy.controller().unwrap_or(ABSENT),
            exec_judged_early: 0,
            overlay_proven: 0,
            connect_judged_early: 0,
            direct_reads: 0,
        };
        let elf = Self::choose(&types, &offsets, &mut node)?;
        let lsm = lsm && Self::lsm_loads(&elf, &offsets, &node, &btf);
        let trial = Self::open(&elf, &offsets, &Node { overlay_proven: 1, ..node }, None)?;
        let drift_visible = offsets.ovl_upper != ABSENT && overlay::told_apart(trial);
        node.overlay_proven = u32::from(drift_visible);
        if lsm {
            (node.exec_judged_early, node.connect_judged_early) = (1, 1);
        }
        let object = fingerprint(&[elf.bytes(), &bytes_of(&offsets), &bytes_of(&node)]);
        pins.create(&object)?;
        let adopted = pins.links(&object).read_dir().is_ok_and(|mut dir| dir.next().is_some())
            || !pins.foreign_links(&object).is_empty();
        let ebpf = Self::open(&elf, &offsets, &node, Some(&pins))?;
        let mut kernel = Self {
            ebpf,
            pins,
            _claim: claim,
            object,
            btf,
            lsm,
            attached: BTreeSet::new(),
            adopted,
            drift_visible,
            rings_visible: offsets.io_result != ABSENT,
        };
        for attachment in programs::IDENTITY {
            kernel.attach(attachment)?;
        }
        Ok(kernel)
    }

    /// The object with direct reads, if a program that makes them loads; else the one without.
    fn choose(types: &ringfence_btf::Btf, offsets: &Offsets, node: &mut Node) -> Result<Object, Error> {
        let Some(object) = Object::with_direct_reads(types) else { return Ok(Object::built()) };
        let direct = Node { direct_reads: 1, ..*node };
        let mut trial = Self::open(&object, offsets, &direct, None)?;
        let loaded = match trial.program_mut(overlay::TRIAL) {
            Some(Program::TracePoint(program)) => program.load(),
            _ => unreachable!("the trial is a program of the object"),
        };
        match loaded {
            Ok(()) => {
                *node = direct;
                Ok(object)
            }
            Err(error) => {
                tracing::info!(%error, "this kernel takes no direct reads: a helper call for each");
                Ok(Object::built())
            }
        }
    }

    fn open(object: &Object, offsets: &Offsets, node: &Node, pins: Option<&Pins>) -> Result<Ebpf, Error> {
        let mut loader = EbpfLoader::new();
        loader.override_global("OFFSETS", offsets, true).override_global("NODE", node, true);
        // Without a level the kernel only says why it refused, and takes a fraction of the time to say it.
        loader.verifier_log_level(VerifierLogLevel::STATS);
        if let Some(pins) = pins {
            for map in PINNED {
                loader.map_pin_path(map, pins.maps().join(map));
            }
        }
        Ok(loader.load(object.bytes())?)
    }

    /// Whether this kernel takes LSM programs: by loading one, without a trace.
    fn lsm_loads(object: &Object, offsets: &Offsets, node: &Node, btf: &Btf) -> bool {
        let Ok(mut trial) = Self::open(object, offsets, node, None) else { return false };
        programs::LSM.iter().all(|attachment| {
            let Hook::Lsm(hook) = attachment.hook else { return false };
            let loaded = match trial.program_mut(attachment.program) {
                Some(Program::Lsm(program)) => program.load(hook, btf).and_then(|()| program.attach().map(drop)),
                _ => return false,
            };
            if let Err(error) = &loaded {
                tracing::info!(hook, %error, "no lsm tier");
            }
            loaded.is_ok()
        })
    }

    /// Whether programs of an earlier enforcer were found at work.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// Whether new files can be told from the image's (overlayfs).
    pub fn drift_visible(&self) -> bool {
        self.drift_visible
    }

    /// Whether what is opened through `io_uring` is seen (tracepoint tier).
    pub fn rings_visible(&self) -> bool {
        self.rings_visible
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
        match op {
            Op::Exec | Op::Open | Op::Connect if self.lsm => Tier::Lsm,
            _ => Tier::Tracepoint,
        }
    }

    /// Attaches what these operations need, then detaches what they do not need any more, and what older objects left.
    /// Hooks that the kernel does not have (system calls of other architectures or versions) are left out.
    pub fn attach_for(&mut self, ops: &BTreeSet<Op>) -> Result<(), Error> {
        let (lsm, tracepoint) = (programs::LSM, programs::TRACEPOINT);
        let wanted: Vec<Attachment> = lsm
            .iter()
            .filter(|_| self.lsm)
            .chain(tracepoint.iter().filter(|a| !(self.lsm && programs::replaced_by_lsm(a))))
            .filter(|a| a.is_needed(ops))
            .copied()
            .collect();
        for attachment in &wanted {
            self.attach(attachment)?;
        }
        let keep: BTreeSet<String> = wanted.iter().chain(programs::IDENTITY).map(Attachment::link_name).collect();
        for gone in self.attached.iter().filter(|name| !keep.contains(*name)).cloned().collect::<Vec<_>>() {
            let path = self.pins.links(&self.object).join(&gone);
            std::fs::remove_file(&path).map_err(|source| Error::Path { path, source })?;
            self.attached.remove(&gone);
        }
        for old in self.pins.foreign_links(&self.object) {
            pins::remove(&old)?;
        }
        Ok(())
    }

    fn attach(&mut self, attachment: &Attachment) -> Result<(), Error> {
        let name = attachment.link_name();
        let pin = self.pins.links(&self.object).join(&name);
        if self.attached.contains(&name) || pin.exists() {
            self.attached.insert(name);
            return Ok(());
        }
        if let Hook::Enter(call) | Hook::Exit(call) = attachment.hook
            && !preflight::has_syscall(call)
        {
            tracing::debug!(call, "this kernel has no such system call");
            return Ok(());
        }
        if attachment.hook == Hook::Trace("io_uring_complete") && !self.rings_visible {
            return Ok(());
        }
        let program = attachment.program;
        let failed = |source| Error::Program { program, hook: name.clone(), source };
        let link = Self::link(&mut self.ebpf, &self.btf, attachment).map_err(failed)?;
        link.pin(&pin).map_err(|error| Error::Pin(name.clone(), error.to_string()))?;
        self.attached.insert(name);
        Ok(())
    }

    fn link(ebpf: &mut Ebpf, btf: &Btf, attachment: &Attachment) -> Result<FdLink, ProgramError> {
        let program = ebpf.program_mut(attachment.program).expect("every attachment names a program of the object");
        let loaded = program.fd().is_ok();
        match (program, attachment.hook) {
            (Program::BtfTracePoint(p), Hook::Trace(hook)) => {
                let p: &mut BtfTracePoint = p;
                if !loaded {
                    p.load(hook, btf)?;
                }
                let id = p.attach()?;
                Ok(p.take_link(id)?.into())
            }
            (Program::Lsm(p), Hook::Lsm(hook)) => {
                let p: &mut Lsm = p;
                if !loaded {
                    p.load(hook, btf)?;
                }
                let id = p.attach()?;
                Ok(p.take_link(id)?.into())
            }
            (Program::TracePoint(p), Hook::Enter(call) | Hook::Exit(call)) => {
                let p: &mut TracePoint = p;
                if !loaded {
                    p.load()?;
                }
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

    /// The slot of a bound cgroup.
    pub fn bound(&mut self, cgroup: CgroupKey) -> Result<Option<u32>, Error> {
        Ok(self.hash::<CgroupKey, u32>("CGROUPS")?.get(&cgroup, 0).ok())
    }

    /// All slots that a cgroup is bound to or that are announced.
    pub fn slots_in_use(&mut self) -> Result<BTreeSet<u32>, Error> {
        let mut used = BTreeSet::new();
        used.extend(self.hash::<CgroupKey, u32>("CGROUPS")?.iter().flatten().map(|(_, slot)| slot));
        used.extend(self.hash::<CgroupName, u32>("COMING")?.iter().flatten().map(|(_, slot)| slot));
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
        counters.iter().map(|c| c[Counter::LostLog as usize] + c[Counter::LostMitigating as usize]).sum()
    }

    /// The two ring buffers, mitigations first.
    pub fn records(&mut self) -> Result<[Records; 2], Error> {
        Ok([self.ring("MITIGATIONS")?, self.ring("EVENTS")?])
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
