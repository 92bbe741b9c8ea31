//! Loads every program and says what the verifier thought of it, without attaching or pinning anything.
//!
//! The verifier's statistics stand in its log, and aya keeps the log of a load that failed only. So every load is made to
//! fail in its last step: a process that may open no file gets no descriptor for the program that was just accepted
//! (`kernel/bpf/syscall.c`, `bpf_prog_load`: `bpf_check` comes long before `bpf_prog_new_fd`).

use super::{
    Attachment, Error, Hook, compat,
    load::{self, Loader, Trial},
    object::{Calls, Form},
    offsets, preflight, programs,
    types::TypesFile,
};
use aya::{
    Btf, Ebpf,
    programs::{Program, ProgramError},
};
use nix::errno::Errno;
use ringfence_abi::{ABSENT, Tier};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use std::{
    num::NonZero,
    sync::{Mutex, PoisonError, mpsc},
    thread,
};

/// Lines of the verifier's log that are told of a program that it refused: the reason stands at the end.
const LAST_LINES: usize = 25;

/// The verifier's answer for one program.
#[derive(Debug, Serialize)]
pub struct Verified {
    /// Name in the object.
    pub program: String,
    /// The answer.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What became of a program.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It may run.
    Accepted(Statistics),
    /// It has no place on this kernel: why.
    NoHook(String),
    /// The end of the verifier's log.
    Refused(String),
}

/// What it took to prove a program safe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Statistics {
    /// Instructions walked, each as often as it was. A million is the end.
    pub instructions: u32,
    /// States remembered, in all.
    pub total_states: u32,
    /// The most that were remembered at a time.
    pub peak_states: u32,
    /// Bytes of stack of the function that takes most. 512 is the end, for a function with those that it calls.
    pub stack: u32,
}

impl Statistics {
    /// Reads the log of an accepted program (`kernel/bpf/verifier.c`, `print_verification_stats`).
    fn read(log: &str) -> Option<Self> {
        let mut found = Self::default();
        let stack = log.lines().rev().find_map(|line| line.strip_prefix("stack depth "))?;
        let depths = stack.split_whitespace().next()?.split('+');
        found.stack =
            depths.map(|bytes| bytes.parse::<u32>().ok()).try_fold(0, |most, bytes| Some(most.max(bytes?)))?;
        let words: Vec<&str> =
            log.lines().rev().find(|line| line.starts_with("processed "))?.split_whitespace().collect();
        let after =
            |name: &str| words.iter().position(|word| *word == name).and_then(|at| words.get(at + 1)?.parse().ok());
        found.instructions = after("processed")?;
        found.total_states = after("total_states")?;
        found.peak_states = after("peak_states")?;
        Some(found)
    }
}

/// Loads the programs of the object on this kernel whose name contains `filter`, and reports each as it comes.
pub fn verify(
    types: &TypesFile,
    v1_controller: Option<u32>,
    filter: &str,
    mut report: impl FnMut(Verified),
) -> Result<(), Error> {
    let types = types.read()?;
    let offsets = offsets::find(&types.ours)?;
    let rings_visible = offsets.io_result != ABSENT;
    let node = load::node(v1_controller);
    let (mut loader, types, btf) = types.into_loader(&offsets);
    let mut trial = Trial::new(&mut loader, &types, &node)?;
    let strongest = trial.form(Tier::Lsm, &offsets, &btf)?;
    let others: Vec<Tier> =
        [Tier::Fentry, Tier::Kprobe].into_iter().filter(|tier| trial.takes_hooks(*tier, &btf)).collect();
    // What is on no security hook, with none there: it has the most to do then. What is on these, in each form.
    for hooks in [Tier::Tracepoint, Tier::Lsm].into_iter().chain(others) {
        let form = Form { hooks, ..strongest };
        let on_hooks = trial.hooks(hooks, &types, &btf);
        let node = load::formed(node, form, &on_hooks);
        let mut loader = Loader::again(&offsets);
        let ebpf = loader.open(&trial.object.clone().in_form(form), &node)?;
        let what = What { form, compat: false, on_hooks, rings_visible, types: &types, btf: &btf };
        what.verify(ebpf, filter, &mut report);
    }
    // What is on the functions of system calls, once more, with the numbers of 32-bit ones.
    if let Some(offsets) = offsets::compat(&types, &offsets).filter(|_| trial.takes_trampoline(compat::ANY, &btf)) {
        let form = Form { calls: Calls::Functions, hooks: Tier::Tracepoint };
        let node = load::compat(load::formed(node, form, &[]));
        let mut loader = Loader::again(&offsets);
        let ebpf = loader.open(&trial.object.in_form(form), &node)?;
        let what = What { form, compat: true, on_hooks: Vec::new(), rings_visible, types: &types, btf: &btf };
        what.verify(ebpf, filter, &mut report);
    }
    Ok(())
}

/// The object in one form, and which programs of it are to be looked at.
struct What<'a> {
    form: Form,
    compat: bool,
    on_hooks: Vec<Attachment>,
    rings_visible: bool,
    types: &'a ringfence_btf::Btf,
    btf: &'a Btf,
}

impl What<'_> {
    fn has(&self, name: &str) -> bool {
        match self.form.hooks {
            Tier::Tracepoint if self.compat => programs::TRACEPOINT
                .iter()
                .any(|a| a.program == name && matches!(a.hook, Hook::Enter(_) | Hook::Exit(_))),
            Tier::Tracepoint => programs::security_hooks().all(|hook| hook.name != name),
            _ => self.on_hooks.iter().any(|attachment| attachment.program == name),
        }
    }

    /// A function of a system call that this kernel has.
    fn function(&self, call: &str) -> Option<String> {
        if self.compat {
            let has = |function: &str| self.types.function_number(function).is_some();
            return programs::compat_functions_of(call, has).into_iter().next();
        }
        preflight::has_syscall(call).then(|| programs::function_of(call))
    }

    fn named(&self, name: &str) -> String {
        match self.form.hooks {
            _ if self.compat => format!("{name}/32-bit"),
            Tier::Tracepoint | Tier::Lsm => name.to_owned(),
            hooks => format!("{name}/{hooks:?}").to_lowercase(),
        }
    }

    fn verify(&self, mut ebpf: Ebpf, filter: &str, report: &mut impl FnMut(Verified)) {
        let _no_files = NoFiles::begin();
        let mut waiting = ebpf.programs_mut().filter(|(name, _)| name.contains(filter) && self.has(name));
        let queue = Mutex::new(&mut waiting);
        let (answers, answered) = mpsc::channel();
        let work = |answers: mpsc::Sender<Verified>| {
            let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            while let Some((name, program)) = next() {
                let outcome = self.outcome(name, program);
                let _ = answers.send(Verified { program: self.named(name), outcome });
            }
        };
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
                let answers = answers.clone();
                scope.spawn(|| work(answers));
            }
            drop(answers);
            answered.iter().for_each(report);
        });
    }
    fn outcome(&self, name: &str, program: &mut Program) -> Outcome {
        let Self { form: Form { calls, .. }, on_hooks, rings_visible, btf, .. } = self;
        let function = |call| self.function(call).expect("what is absent is not looked at");
        let all = [programs::IDENTITY, programs::EVERY_CALL, on_hooks, programs::TRACEPOINT].concat();
        let hooks: Vec<Hook> = all.iter().filter(|a| a.program == name).map(|a| a.hook).collect();
        let absent = |hook: &Hook| match hook {
            Hook::Enter(call) | Hook::Exit(call) => self.function(call).is_none(),
            Hook::Trace("io_uring_complete") => !*rings_visible,
            Hook::Trace("sys_enter" | "sys_exit") => *calls != Calls::Every,
            Hook::Trace(_) | Hook::Lsm(_) | Hook::Function(_) => false,
        };
        if !hooks.is_empty() && hooks.iter().all(absent) {
            return Outcome::NoHook("no such system call or tracepoint".to_owned());
        }
        let answer = match (program, hooks.iter().find(|hook| !absent(hook))) {
            (Program::FEntry(p), Some(Hook::Enter(call))) => p.load(&function(call), btf),
            (Program::FExit(p), Some(Hook::Exit(call))) => p.load(&function(call), btf),
            (Program::FExit(p), None) => p.load(&programs::function_of("openat"), btf),
            (Program::KProbe(p), None) => p.load(),
            (Program::Lsm(p), None) => p.load(programs::EXECUTION.name, btf),
            (Program::TracePoint(p), None) => p.load(),
            (Program::CgroupSkb(p), _) => p.load(),
            (Program::SchedClassifier(p), _) => p.load(),
            (program, Some(hook)) => load::load_one(program, *hook, btf),
            (_, None) => unreachable!("{name} has no entry in the table of programs"),
        };
        judged(answer)
    }
}

/// What the end of a load under [`NoFiles`] says.
fn judged(answer: Result<(), ProgramError>) -> Outcome {
    match answer {
        Err(ProgramError::LoadError { io_error, verifier_log }) => {
            let log = verifier_log.to_string();
            let accepted = io_error.raw_os_error() == Some(Errno::EMFILE as i32);
            match Statistics::read(&log).filter(|_| accepted) {
                Some(statistics) => Outcome::Accepted(statistics),
                None => Outcome::Refused(last_lines(&format!("{log}\n{io_error}"))),
            }
        }
        Err(ProgramError::Btf(error)) => Outcome::NoHook(error.to_string()),
        Err(other) => Outcome::Refused(other.to_string()),
        Ok(()) => Outcome::Refused("it was loaded although no file may be opened: nothing is known of it".to_owned()),
    }
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

/// As long as it lives, this process opens no further file.
struct NoFiles(Rlimit);

impl NoFiles {
    fn begin() -> Self {
        let usual = getrlimit(Resource::Nofile);
        Self::limit(Rlimit { current: Some(0), ..usual });
        Self(usual)
    }

    fn limit(limit: Rlimit) {
        setrlimit(Resource::Nofile, limit).expect("a limit may be lowered, and raised again to what it was");
    }
}

impl Drop for NoFiles {
    fn drop(&mut self) {
        Self::limit(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_read_from_the_log() {
        let log = "verification time 812 usec\nstack depth 48+0+312+96\n\
            processed 2431 insns (limit 1000000) max_states_per_insn 4 total_states 180 peak_states 95 mark_read 12\n";
        let expected = Statistics { instructions: 2431, total_states: 180, peak_states: 95, stack: 312 };
        assert_eq!(Statistics::read(log), Some(expected));
        assert_eq!(Statistics::read("stack depth 8\nR1 invalid mem access"), None);
        assert_eq!(Statistics::read(""), None);
    }
}
