//! Loads every program and says what the verifier thought of it, without attaching or pinning anything.

use super::{
    Error, Hook,
    load::{Loader, Trial, Types},
    offsets, programs,
};
use aya::programs::Program;
use ringfence_abi::{ABSENT, Node};

/// The verifier's answer for one program.
#[derive(Debug)]
pub struct Verified {
    /// Name in the object.
    pub program: String,
    /// Instructions that the verifier walked, and bytes after translation; or why it was refused.
    pub outcome: Result<(u32, u32), String>,
}

/// Loads the programs of the object on this kernel whose name contains `filter`, and reports each as it comes.
pub fn verify(v1_controller: Option<u32>, filter: &str, mut report: impl FnMut(Verified)) -> Result<(), Error> {
    let types = Types::read()?;
    let offsets = offsets::find(&types.ours)?;
    let helper = Node {
        v1_controller: v1_controller.unwrap_or(ABSENT),
        exec_judged_early: 0,
        overlay_proven: 1,
        connect_judged_early: 0,
        direct_reads: 0,
    };
    let direct = Node { direct_reads: 1, ..helper };
    let (mut loader, types, btf) = Loader::new(types, &offsets);
    let Trial { object, direct_reads, .. } = Trial::new(&mut loader, &types, &helper, &direct)?;
    let mut ebpf = loader.open(&object, if direct_reads { &direct } else { &helper })?;
    let all = [programs::IDENTITY, programs::LSM, programs::TRACEPOINT].concat();
    for (name, program) in ebpf.programs_mut().filter(|(name, _)| name.contains(filter)) {
        let hook = all.iter().find(|a| a.program == name).map(|a| a.hook);
        let answer = match (&mut *program, hook) {
            (Program::BtfTracePoint(p), Some(Hook::Trace(hook))) => p.load(hook, &btf),
            (Program::Lsm(p), Some(Hook::Lsm(hook))) => p.load(hook, &btf),
            (Program::TracePoint(p), _) => p.load(),
            (Program::CgroupSkb(p), _) => p.load(),
            (Program::SchedClassifier(p), _) => p.load(),
            (_, hook) => unreachable!("{name} has no entry in the table of programs, or another kind: {hook:?}"),
        };
        let outcome = answer.map_err(|error| explain(&error)).and_then(|()| {
            let info = program.info().map_err(|error| error.to_string())?;
            Ok((info.verified_instruction_count().unwrap_or(0), info.size_translated().unwrap_or(0)))
        });
        report(Verified { program: name.to_owned(), outcome });
    }
    Ok(())
}

/// The end of the verifier's log is where the reason stands.
fn explain(error: &aya::programs::ProgramError) -> String {
    let text = match error {
        aya::programs::ProgramError::LoadError { io_error, verifier_log } => format!("{io_error}\n{verifier_log}"),
        other => other.to_string(),
    };
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}
