//! The end of a container or pod: everything in it is killed, also if the enforcer that was about to do it is gone.

use super::{Agent, Told};
use crate::report;
use ringfence_containers::{Container, ContainerKey, Kind, cgroups::Hierarchies};
use ringfence_control::{Done, Escaped, Violation};
use ringfence_policy::RuleId;
use std::{fmt, sync::Arc, time::Duration};

/// A mark of the kernel that is older has no record that is still to come.
const OVERDUE: Duration = Duration::from_secs(1);

/// Why a container is terminated.
pub(super) enum Cause {
    /// They ask for it, and are told once it is done.
    Violations(Vec<Violation>),
    /// Nothing that is told as a violation.
    Other(Reason),
}

/// Why a container is terminated without a violation that could be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It was isolated, and isolation does not hold it any more.
    Unheld {
        /// The rule by which it was isolated, if that is known.
        rule: Option<RuleId>,
        /// The ways past it, in a sentence.
        gaps: Escaped,
    },
    /// A violation asked for it, as the kernel remembers. The enforcer that had its record ended before it was done, or
    /// the record was lost.
    Unfinished,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unheld { rule: Some(rule), gaps } => write!(f, "isolated by {rule}, it has got a way past that: {gaps}"),
            Self::Unheld { rule: None, gaps } => write!(f, "isolated, it has got a way past that: {gaps}"),
            Self::Unfinished => f.write_str(
                "a violation asked for its end, and the enforcer that was to bring it about ended before, or did not get \
                 the record",
            ),
        }
    }
}

/// Everything that an end of a termination needs.
pub(super) struct Terminated {
    container: Container,
    cause: Cause,
    outcome: Result<usize, String>,
}

impl Agent {
    /// Kills everything in it, and tells how that went.
    pub(super) fn terminate(&self, container: Container, names: &[String], cause: Cause) {
        let paths = match container.kind {
            Kind::Pod => self.paths(names),
            _ => Ok(vec![cgroup_path(&container.cgroups_path)]),
        };
        let (hierarchies, runtime) = (Arc::clone(&self.parts.hierarchies), self.parts.runtime.clone());
        let done = self.terminations.0.clone();
        tokio::spawn(async move {
            let outcome = kill_all(&hierarchies, paths).await;
            let (key, kind) = (container.key.clone(), container.kind);
            // Reported as soon as nothing runs any more; the runtime tidies up after that. A pod is the API server's to
            // delete.
            let _ = done.send(Terminated { container, cause, outcome });
            if kind != Kind::Pod
                && let Some(runtime) = runtime
                && let Err(error) = runtime.stop(&key).await
            {
                tracing::error!(container = %key.id, %error, "the runtime could not stop a terminated container");
            }
        });
    }

    /// Paths of the cgroups that exist under these names, those below them left out.
    fn paths(&self, names: &[String]) -> Result<Vec<String>, String> {
        let wanted = names.iter().map(|name| (name.clone(), ())).collect();
        let found = self.parts.hierarchies.find(&wanted).map_err(|error| error.to_string())?;
        let mut paths: Vec<String> = found.into_iter().map(|((), cgroup)| cgroup.path).collect();
        paths.sort();
        paths.dedup_by(|path, above| path == above || path.starts_with(&format!("{above}/")));
        Ok(paths)
    }

    /// It came to this.
    pub(super) fn terminated(&mut self, terminated: Terminated) {
        let Terminated { container, cause, outcome } = terminated;
        if let Some(known) = self.known.get_mut(&container.key) {
            // It may be started again, and is to be ended again then.
            known.terminating = false;
            if matches!(cause, Cause::Other(Reason::Unheld { .. })) && outcome.is_ok() {
                known.ended = known.pid;
            }
            // What could not be terminated is tried again by the next enforcer.
            if outcome.is_ok()
                && known.slot != 0
                && let Err(error) = self.parts.switch.terminated(known.slot)
            {
                tracing::error!(container = %container.key.id, %error, "it is terminated again and again");
            }
        }
        match cause {
            Cause::Violations(mut violations) => {
                for violation in &mut violations {
                    match &outcome {
                        Ok(_) => violation.mitigation_done.push(Done::Terminated),
                        Err(problem) => violation.mitigation_failed.push(problem.clone()),
                    }
                }
                self.publish(violations);
                self.parts.output.flush();
            }
            Cause::Other(reason) => {
                if let Err(problem) = &outcome {
                    tracing::error!(container = %container.key.id, "it could not be terminated: {problem}");
                }
                self.tell(Told::Terminated { container, reason, outcome: outcome.map(drop) });
            }
        }
    }

    /// Terminates what the kernel has marked and nobody has told of.
    pub(super) fn finish_terminations(&mut self) {
        if !self.in_force {
            return;
        }
        let unknown = self.unknown_slot();
        let now = report::monotonic();
        let mut overdue: Vec<ContainerKey> = Vec::new();
        for (key, known) in &self.known {
            if known.slot == 0 || known.slot == unknown || known.terminating || known.pid.is_none() {
                continue;
            }
            match self.parts.switch.terminating(known.slot) {
                Ok(0) => {}
                Ok(since) => {
                    if Duration::from_nanos(now.saturating_sub(since)) > OVERDUE {
                        overdue.push(key.clone());
                    }
                }
                Err(error) => tracing::error!(container = %key.id, %error, "whether it is to end can't be looked up"),
            }
        }
        for key in overdue {
            self.finish_termination(&key);
        }
    }

    fn finish_termination(&mut self, key: &ContainerKey) {
        let container = self.known[key].owner.container.clone();
        let governed = !self.known[key].owner.resolved.rules.is_empty();
        if !governed || self.held(&container).is_some() {
            tracing::warn!(container = %key.id, "a violation asked for its end, which the policy does not allow any more");
            if let Err(error) = self.parts.switch.terminated(self.known[key].slot) {
                tracing::error!(container = %key.id, %error, "that can't be noted");
            }
            return;
        }
        tracing::warn!(container = %key.id, "terminated: {}", Reason::Unfinished);
        let known = self.known.get_mut(key).expect("it was just there");
        known.terminating = true;
        let names = known.names.clone();
        self.count(&container);
        self.terminate(container, &names, Cause::Other(Reason::Unfinished));
        self.limit();
    }
}

/// Kills every process of these cgroups; returns how many they were.
async fn kill_all(hierarchies: &Hierarchies, paths: Result<Vec<String>, String>) -> Result<usize, String> {
    let mut killed = 0;
    for path in paths? {
        killed += hierarchies.kill_all(&path).await.map_err(|error| error.to_string())?;
    }
    Ok(killed)
}

/// The path of a container's cgroup below the hierarchies' roots: the systemd form is spelt out.
fn cgroup_path(cgroups_path: &str) -> String {
    let parts: Vec<&str> = cgroups_path.split(':').collect();
    let [slice, prefix, name] = parts.as_slice() else { return cgroups_path.to_owned() };
    let mut path = String::new();
    let stem = slice.trim_end_matches(".slice");
    let mut so_far = String::new();
    for part in stem.split('-').filter(|part| !part.is_empty()) {
        if !so_far.is_empty() {
            so_far.push('-');
        }
        so_far.push_str(part);
        path.push('/');
        path.push_str(&so_far);
        path.push_str(".slice");
    }
    let scope = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
    format!("{path}/{scope}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systemd_form_of_a_cgroup_path_is_spelt_out() {
        assert_eq!(cgroup_path("/default/demo"), "/default/demo");
        assert_eq!(
            cgroup_path("kubepods-burstable-podx_y.slice:cri-containerd:abc"),
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podx_y.slice/cri-containerd-abc.scope"
        );
    }
}
