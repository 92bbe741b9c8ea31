//! Loading: which form of the object this kernel takes, and its programs, several at a time.

use super::{
    Attachment, Error, Hook, Pins, ftrace,
    object::{Calls, Form, Object},
    overlay, preflight,
    programs::{self, SecurityHook},
    stage::Stage,
};
use aya::{
    Btf, Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{Array, MapInfo},
    programs::{Program, ProgramError, links::FdLink},
};
use ringfence_abi::{ABSENT, Node, Offsets, Op, Tier, room};
use std::{
    fs,
    num::NonZero,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    thread,
};

/// Threads that load programs: the verifier walks each program on the CPU of who loads it.
const MOST_THREADS: usize = 4;

/// What an LSM program returns to deny: -EPERM.
const REFUSAL: u32 = (-(nix::errno::Errno::EPERM as i32)).cast_unsigned();

/// Opens the object, again and again: what it needs of the node is found once.
pub struct Loader<'a>(EbpfLoader<'a>);

impl<'a> Loader<'a> {
    /// Another one, which reads the types again.
    pub fn again(offsets: &'a Offsets) -> Self {
        Self::over(EbpfLoader::new(), offsets)
    }

    /// Over one of aya's that has not been used.
    pub fn over(mut loader: EbpfLoader<'a>, offsets: &'a Offsets) -> Self {
        // Without a level the kernel only says why it refused, and takes a fraction of the time to say it.
        loader.override_global("OFFSETS", offsets, true).verifier_log_level(VerifierLogLevel::STATS);
        Self(loader)
    }

    /// With other offsets.
    pub fn with(&mut self, offsets: &'a Offsets) -> &mut Self {
        self.0.override_global("OFFSETS", offsets, true);
        self
    }

    /// The object with maps of its own.
    pub fn open(&mut self, object: &Object, node: &'a Node) -> Result<Ebpf, Error> {
        Ok(self.0.override_global("NODE", node, true).load(object.bytes())?)
    }

    /// The object over the pinned maps, which are made and pinned where they are missing.
    pub fn open_pinned(
        &mut self,
        object: &Object,
        node: &'a Node,
        pins: &Pins,
        maps: impl IntoIterator<Item = (&'a str, PathBuf)>,
    ) -> Result<Ebpf, Error> {
        make_way(pins)?;
        for (map, pin) in maps {
            self.0.map_pin_path(map, pin);
        }
        self.open(object, node)
    }
}

/// Ring buffers keep nothing: one of another size, an earlier enforcer's, makes way for ours.
fn make_way(pins: &Pins) -> Result<(), Error> {
    let rings = [("EVENTS", room::EVENTS), ("MITIGATIONS", room::MITIGATIONS), ("CANDIDATES", room::CANDIDATES)];
    for (map, bytes) in rings {
        let pin = pins.maps().join(map);
        if MapInfo::from_pin(&pin).is_ok_and(|found| found.max_entries() != bytes) {
            fs::remove_file(&pin).map_err(|source| Error::Path { path: pin, source })?;
        }
    }
    Ok(())
}

/// A throw-away instance of the object, in the form that this kernel takes.
pub struct Trial {
    /// The object.
    pub object: Object,
    /// The instance. [`overlay::TRIAL`] is loaded.
    pub ebpf: Ebpf,
    /// Whether anything may be put on functions of the kernel, LSM programs included: with ftrace turned off nothing is,
    /// not even for a trial. What is put there meanwhile, and taken off, leaves 6.1 with functions that take nothing more.
    functions: bool,
    /// Who makes the occasions for hooks, once it is needed.
    stage: Option<Stage>,
}

/// Why it is not known whether a hook's program is called.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error(transparent)]
    Stage(#[from] std::io::Error),
    #[error(transparent)]
    Program(Box<ProgramError>),
    #[error(transparent)]
    Map(#[from] aya::maps::MapError),
}

impl From<ProgramError> for CallError {
    fn from(error: ProgramError) -> Self {
        Self::Program(Box::new(error))
    }
}

impl Trial {
    /// With direct reads, if a program that makes them loads; else without.
    pub fn new<'a>(loader: &mut Loader<'a>, types: &ringfence_btf::Btf, node: &'a Node) -> Result<Self, Error> {
        let functions = !ftrace::is_off();
        if !functions {
            tracing::warn!("kernel.ftrace_enabled is 0: this kernel does not call programs on its functions");
        }
        if let Some(object) = Object::with_direct_reads(types) {
            let mut ebpf = loader.open(&object, node)?;
            match load_trial(&mut ebpf) {
                Ok(()) => return Ok(Self { object, ebpf, functions, stage: None }),
                Err(error) => tracing::info!(%error, "this kernel takes no direct reads: a helper call for each"),
            }
        }
        let object = Object::with_helper_reads();
        let mut ebpf = loader.open(&object, node)?;
        let failed = |source| Error::Program { program: overlay::TRIAL, hook: "no hook".to_owned(), source };
        load_trial(&mut ebpf).map_err(failed)?;
        Ok(Self { object, ebpf, functions, stage: None })
    }

    /// The strongest form that this kernel takes, up to a tier.
    pub fn form(&mut self, strongest: Tier, offsets: &Offsets, btf: &Btf) -> Result<Form, Error> {
        let calls = if self.pins_tracepoints() {
            Calls::Tracepoints
        } else if self.takes_trampoline(programs::OPENAT.function, btf) && self.calls_functions(btf) {
            Calls::Functions
        } else if offsets.call_number != ABSENT && self.sees_every_call(btf) {
            Calls::Every
        } else {
            return Err(Error::Missing {
                feature: "attachments to system calls that outlive the enforcer",
                remedy: "kernel 5.15 or later is needed; before, BPF trampolines and kernel.ftrace_enabled=1, or arm64",
            });
        };
        let hooks = [Tier::Lsm, Tier::Fentry, Tier::Kprobe].into_iter().filter(|tier| *tier <= strongest);
        let hooks = hooks.into_iter().find(|tier| self.takes_hooks(*tier, btf)).unwrap_or(Tier::Tracepoint);
        Ok(Form { hooks, calls })
    }

    /// Whether this kernel takes programs on security hooks in the way of this tier, and calls them.
    pub fn takes_hooks(&mut self, tier: Tier, btf: &Btf) -> bool {
        let mut functions = programs::ESSENTIAL.iter().map(|hook| hook.function);
        let taken = match tier {
            Tier::Lsm => preflight::lsm_is_active() && self.functions && self.takes_lsm(btf),
            Tier::Fentry => functions.all(|function| self.takes_trampoline(function, btf)),
            Tier::Kprobe => functions.all(|function| self.takes_kprobe(function)),
            Tier::Tracepoint => return true,
        };
        taken && programs::essential_hooks(tier).all(|hook| self.is_called(hook, tier, btf))
    }

    /// The programs on security hooks that have a place on this kernel, on a tier that it takes.
    pub fn hooks(&mut self, tier: Tier, types: &ringfence_btf::Btf, btf: &Btf) -> Vec<Attachment> {
        let further = programs::FURTHER.iter().filter(|hook| {
            let there = match tier {
                Tier::Lsm => self.is_hook(hook.name, btf),
                Tier::Fentry | Tier::Kprobe => types.function_number(hook.function).is_some(),
                Tier::Tracepoint => return false,
            };
            if !there {
                tracing::info!(hook = hook.name, "this kernel has no such security hook: system calls are watched");
            }
            there && self.is_called(hook, tier, btf)
        });
        let further: Vec<Attachment> = further.filter_map(|hook| hook.on(tier)).collect();
        programs::essential(tier).chain(further).collect()
    }

    /// Whether programs on the functions of system calls are called.
    pub fn calls_functions(&mut self, btf: &Btf) -> bool {
        self.is_called(programs::OPENAT, Tier::Fentry, btf)
    }

    /// Whether a program on a hook that is there sees what the hook is called for: a function may have been inlined where
    /// it is called, or what calls programs on functions be off (`kernel.ftrace_enabled`).
    fn is_called(&mut self, hook: &SecurityHook, tier: Tier, btf: &Btf) -> bool {
        match self.comes_by(hook, tier, btf) {
            Ok(Some(called)) => {
                if !called {
                    tracing::warn!(hook = hook.name, ?tier, "this kernel does not call the hook's program");
                }
                called
            }
            // As where it works: nothing speaks against it.
            Ok(None) => true,
            Err(error) => {
                tracing::warn!(hook = hook.name, ?tier, %error, "not tried whether the hook's program is called");
                true
            }
        }
    }

    /// Whether the kernel comes by the program on a hook. `None`: the occasion for it could not be made.
    fn comes_by(&mut self, hook: &SecurityHook, tier: Tier, btf: &Btf) -> Result<Option<bool>, CallError> {
        let name = match tier {
            Tier::Lsm if self.functions => "trial_hook",
            Tier::Fentry if self.functions => "trial_trampoline",
            Tier::Kprobe if self.functions => "trial_kprobe",
            _ => return Ok(None),
        };
        let attached = match self.ebpf.program_mut(name) {
            Some(Program::Lsm(program)) => program.load(hook.name, btf).and_then(|()| program.attach().map(drop)),
            Some(Program::FExit(program)) => program.load(hook.function, btf).and_then(|()| program.attach().map(drop)),
            Some(Program::KProbe(program)) => {
                let loaded = if program.fd().is_ok() { Ok(()) } else { program.load() };
                loaded.and_then(|()| program.attach(hook.function, 0).map(drop))
            }
            _ => unreachable!("the trials are programs of the object"),
        };
        let came_by = attached.map_err(CallError::from).and_then(|()| self.is_noted(hook));
        // Bound to the hook that it was loaded for; this ends the attachment, too.
        let _ = match self.ebpf.program_mut(name) {
            Some(Program::Lsm(program)) => program.unload(),
            Some(Program::FExit(program)) => program.unload(),
            Some(Program::KProbe(program)) => program.unload(),
            _ => Ok(()),
        };
        came_by
    }

    /// Whether the program that is attached notes the thread on the stage.
    fn is_noted(&mut self, hook: &SecurityHook) -> Result<Option<bool>, CallError> {
        let stage = match self.stage.take() {
            Some(stage) => stage,
            None => Stage::set()?,
        };
        let stage = self.stage.insert(stage);
        let mut seen = Array::<_, u32>::try_from(self.ebpf.map_mut("TRIAL").expect("a map of the object"))?;
        seen.set(0, stage.thread(), 0)?;
        seen.set(2, 0, 0)?;
        let provoked = stage.provoke(hook);
        let noted = seen.get(&2, 0)? != 0;
        if let Err(error) = &provoked {
            tracing::debug!(hook = hook.name, %error, "no occasion for the hook");
        }
        Ok((noted || provoked.is_ok()).then_some(noted))
    }

    /// Whether LSM programs can be put on a hook.
    fn is_hook(&mut self, hook: &str, btf: &Btf) -> bool {
        let Some(Program::Lsm(program)) = self.ebpf.program_mut("trial_hook") else {
            unreachable!("the trial is a program of the object")
        };
        let taken = program.load(hook, btf);
        // Bound to the hook that it was loaded for.
        let _ = program.unload();
        taken.is_ok()
    }

    /// Whether an attachment to a system call's tracepoint can be pinned.
    pub fn pins_tracepoints(&mut self) -> bool {
        let Some(Program::TracePoint(program)) = self.ebpf.program_mut(overlay::TRIAL) else {
            unreachable!("the trial is a program of the object")
        };
        match program.attach("syscalls", "sys_exit_openat").and_then(|id| program.take_link(id)).map(FdLink::try_from) {
            Ok(Ok(_)) => return true,
            Ok(Err(_)) => tracing::info!("attachments to tracepoints end with the enforcer: system calls by functions"),
            Err(error) => tracing::warn!(%error, "no tracepoint of a system call can be attached to"),
        }
        false
    }

    /// Whether a program can be put on the tracepoint of all system calls.
    fn sees_every_call(&mut self, btf: &Btf) -> bool {
        programs::EVERY_CALL.iter().all(|attachment| {
            let (Some(Program::BtfTracePoint(program)), Hook::Trace(hook)) =
                (self.ebpf.program_mut(attachment.program), attachment.hook)
            else {
                unreachable!("both are programs of the object")
            };
            let taken = program.load(hook, btf).and_then(|()| program.attach()).and_then(|id| program.detach(id));
            if let Err(error) = &taken {
                tracing::info!(hook, %error, "no program on all system calls");
            }
            taken.is_ok()
        })
    }

    /// Whether a program can be put on a function by a trampoline.
    pub fn takes_trampoline(&mut self, function: &str, btf: &Btf) -> bool {
        if !self.functions {
            return false;
        }
        let Some(Program::FExit(program)) = self.ebpf.program_mut("trial_trampoline") else {
            unreachable!("the trial is a program of the object")
        };
        let taken = program.load(function, btf).and_then(|()| program.attach().map(drop));
        // Bound to the function that it was loaded for; this ends the attachment, too.
        let _ = program.unload();
        if let Err(error) = &taken {
            tracing::info!(function, %error, "no trampoline");
        }
        taken.is_ok()
    }

    /// Whether a program can be put on a function by a kprobe, and stay there without the enforcer.
    fn takes_kprobe(&mut self, function: &str) -> bool {
        if !self.functions {
            return false;
        }
        let Some(Program::KProbe(program)) = self.ebpf.program_mut("trial_kprobe") else {
            unreachable!("the trial is a program of the object")
        };
        let loaded = if program.fd().is_ok() { Ok(()) } else { program.load() };
        let link = loaded.and_then(|()| program.attach(function, 0)).and_then(|id| program.take_link(id));
        match link.map(FdLink::try_from) {
            Ok(Ok(_)) => return true,
            Ok(Err(_)) => tracing::info!(function, "no kprobe tier: before 5.15 a kprobe ends with the enforcer"),
            Err(error) => tracing::info!(function, %error, "no kprobe tier"),
        }
        false
    }

    /// Whether this kernel takes LSM programs.
    fn takes_lsm(&mut self, btf: &Btf) -> bool {
        programs::essential(Tier::Lsm).all(|attachment| {
            let Hook::Lsm(hook) = attachment.hook else { return false };
            let loaded = match self.ebpf.program_mut(attachment.program) {
                Some(Program::Lsm(program)) => program.load(hook, btf).and_then(|()| program.attach().map(drop)),
                _ => return false,
            };
            if let Err(error) = &loaded {
                tracing::info!(hook, %error, "no lsm tier");
            }
            loaded.is_ok()
        })
    }
}

fn load_trial(ebpf: &mut Ebpf) -> Result<(), ProgramError> {
    match ebpf.program_mut(overlay::TRIAL) {
        Some(Program::TracePoint(program)) => program.load(),
        _ => unreachable!("the trial is a program of the object"),
    }
}

/// What the programs know of the node before anything has been tried.
pub fn node(v1_controller: Option<u32>) -> Node {
    Node {
        v1_controller: v1_controller.unwrap_or(ABSENT),
        hooks: Tier::Lsm as u32,
        tracing_hooked: 0,
        sockets_hooked: 0,
        refusal: REFUSAL,
        overlay_proven: 1,
        calls_by_registers: 0,
        compat_calls: 0,
    }
}

/// The same for programs in a form, with these on security hooks.
pub fn formed(node: Node, form: Form, hooks: &[Attachment]) -> Node {
    let hooked = |op| u32::from(hooks.iter().any(|hook| hook.ops.contains(&op)));
    Node {
        hooks: form.hooks as u32,
        tracing_hooked: hooked(Op::Ptrace),
        sockets_hooked: hooked(Op::Socket),
        refusal: if form.hooks == Tier::Lsm { REFUSAL } else { 0 },
        calls_by_registers: u32::from(form.calls != Calls::Tracepoints),
        ..node
    }
}

/// The same for programs on the functions of 32-bit system calls.
pub fn compat(node: Node) -> Node {
    Node { calls_by_registers: 1, compat_calls: 1, ..node }
}

/// Loads the programs of these attachments that are not loaded yet.
pub fn load(ebpf: &mut Ebpf, btf: &Btf, attachments: &[&Attachment]) -> Result<(), Error> {
    let of = |name: &str| attachments.iter().find(|attachment| attachment.program == name);
    let mut waiting = ebpf.programs_mut().filter_map(|(name, program)| Some((program, *of(name)?)));
    let (queue, failed) = (Mutex::new(&mut waiting), Mutex::new(None));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        while let Some((program, attachment)) = next() {
            if let Err(source) = load_one(program, attachment.hook, btf) {
                let error = Error::Program { program: attachment.program, hook: attachment.link_name(), source };
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS);
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// Loads a program for the hook that it is to sit on.
pub fn load_one(program: &mut Program, hook: Hook, btf: &Btf) -> Result<(), ProgramError> {
    if program.fd().is_ok() {
        return Ok(());
    }
    match (program, hook) {
        (Program::BtfTracePoint(program), Hook::Trace(hook)) => program.load(hook, btf),
        (Program::BtfTracePoint(program), Hook::Enter(_)) => program.load("sys_enter", btf),
        (Program::BtfTracePoint(program), Hook::Exit(_)) => program.load("sys_exit", btf),
        (Program::Lsm(program), Hook::Lsm(hook)) => program.load(hook, btf),
        (Program::TracePoint(program), _) => program.load(),
        (Program::FExit(program), Hook::Function(function)) => program.load(function, btf),
        (Program::KProbe(program), _) => program.load(),
        // Bound to one call's function by the load, and wanted for several: loaded when it is attached.
        (Program::FEntry(_) | Program::FExit(_), Hook::Enter(_) | Hook::Exit(_)) => Ok(()),
        _ => unreachable!("tests hold every attachment against the object"),
    }
}
