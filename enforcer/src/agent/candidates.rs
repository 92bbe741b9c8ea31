//! Candidates: programs whose arguments are longer than the kernel looks at, where those decide. Here they are decided,
//! and mitigated as the kernel would have done.

use super::{Agent, Context};
use crate::{kernel::Candidate, processes, report};
use ringfence_abi::{CANDIDATE_ARGS, Counter, Event, EventHeader, NONE, Vector, done};
use ringfence_control::CandidatesStatus;
use ringfence_policy::confirm;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

impl Agent {
    /// Confirms it, and does what its rules ask for; or counts that it was none.
    pub(super) fn candidate(&mut self, candidate: Candidate) {
        let Candidate { mut event, args } = candidate;
        let Some(context) = self.context(&event) else { return };
        let Some(args) = self.whole(&event.header, args) else {
            self.candidates.undecided += 1;
            let rules = context.tables.rules_of(context.class, &event.header.lines);
            let rules: Vec<String> = rules.map(|rule| rule.id.to_string()).collect();
            tracing::warn!(
                container = %context.owner.container.key.id,
                pid = event.header.pid,
                beginning = ?report::arguments(&event.args[..64]),
                "the arguments of a program could not be read whole: whether it violates {} is not known",
                rules.join(", ")
            );
            return;
        };
        let confirmed = match confirm(&context.tables, &event, &args) {
            Ok(lines) if lines == NONE => {
                self.candidates.refuted += 1;
                return;
            }
            Ok(lines) => lines,
            Err(error) => {
                tracing::error!(%error, "a candidate can't be decided");
                return;
            }
        };
        self.candidates.confirmed += 1;
        event.header.lines = confirmed;
        event.header.done = 0;
        let failed = self.mitigate(&mut event, &context);
        let mut violations = self.violations(&event, &context);
        for violation in &mut violations {
            violation.process.cmd = report::arguments(&args[..args.len().min(CANDIDATE_ARGS)]);
            violation.mitigation_failed.extend(failed.iter().cloned());
        }
        self.act(&context.owner.container.key, &event.header, violations);
    }

    /// All of the arguments: those in the record, and what follows them. `None`: they can't be had.
    ///
    /// What the record holds was read before the program's first instruction; what follows it may have changed since.
    fn whole(&mut self, header: &EventHeader, recorded: Vec<u8>) -> Option<Vec<u8>> {
        if !recorded.is_empty() && recorded.len() < CANDIDATE_ARGS {
            return Some(recorded);
        }
        self.parts.processes.arguments(header).filter(|args| args.starts_with(&recorded))
    }

    /// What the kernel would have done: the isolated bit, and the end of the process. What did not work, in sentences.
    fn mitigate(&mut self, event: &mut Event, context: &Context) -> Vec<String> {
        let vectors = context.tables.ruleset_vectors(&context.owner.resolved)[context.class as usize];
        let header = &mut event.header;
        let asked = |of: &Vector| of.iter().zip(&header.lines).any(|(of, lines)| of & lines != 0);
        let (block, isolate, terminate) = (asked(&vectors.block), asked(&vectors.isolate), asked(&vectors.terminate));
        let known = self.known.get(&context.owner.container.key);
        if known.is_none_or(|known| known.slot != header.slot) {
            return vec!["the container had been removed before it could be mitigated".to_owned()];
        }
        let mut failed = Vec::new();
        if isolate || terminate {
            match self.parts.switch.isolate(header.slot) {
                Ok(()) => header.done |= done::ISOLATED,
                Err(error) => failed.push(error.to_string()),
            }
        }
        if terminate && let Err(error) = self.parts.switch.terminate(header.slot) {
            failed.push(error.to_string());
        }
        if block || terminate {
            match kill(header) {
                Ok(()) => header.done |= done::KILLED,
                Err(problem) => failed.push(problem),
            }
        }
        if block || isolate || terminate {
            header.mitigated_at = report::monotonic();
        }
        failed
    }

    pub(super) fn candidates_status(&mut self) -> anyhow::Result<CandidatesStatus> {
        let counters = self.parts.kernel.counters()?;
        let lost = counters.iter().map(|of_class| of_class[Counter::LostCandidates as usize]).sum();
        Ok(CandidatesStatus { lost, ..self.candidates })
    }
}

/// Kills the process that a record is about, and no later one with its number.
pub(super) fn kill(header: &EventHeader) -> Result<(), String> {
    let gone = || format!("process {} had ended before it could be killed", header.pid);
    let pid = i32::try_from(header.pid).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| gone())?;
    // The descriptor holds on to one process from here on: is it that one?
    if !processes::is_there(header.pid, header.start) {
        return Err(gone());
    }
    pidfd_send_signal(process, Signal::KILL).map_err(|_| gone())
}
