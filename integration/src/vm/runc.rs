//! Containers that a runtime makes: runc, of an OCI bundle each.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use ringfence_actor::now;
use ringfence_containers::cgroups::Hierarchies;
use ringfence_control::Done;
use ringfence_policy::Mitigation;

use super::smoke::{RULE, TRAFFIC, arrives, is_cut_off};
use super::{KILLED_EXIT, Machine, said};
use crate::bare::Bare;
use crate::enforcer::finish;
use crate::harness::{Netns, Spec};
use crate::suite::Report;

/// A mitigation, and what its container does.
struct Trial {
    mitigation: Mitigation,
    /// A shell's command.
    command: &'static str,
    /// What the event must tell.
    done: &'static [Done],
    /// Whether what the container said, and its exit code, are right.
    is_right: fn(&str, Option<i32>) -> bool,
}

const TRIALS: [Trial; 4] = [
    Trial {
        mitigation: Mitigation::Log,
        command: READS,
        done: &[],
        is_right: |said, exit| said.contains("root:x:0:0") && exit == Some(0),
    },
    Trial {
        mitigation: Mitigation::Block,
        command: READS,
        done: &[Done::Denied],
        is_right: |said, exit| said == "went on\n" && exit == Some(0),
    },
    Trial {
        mitigation: Mitigation::Isolate,
        command: TRAFFIC,
        done: &[Done::Isolated],
        is_right: |said, _| arrives(said, "before:") && is_cut_off(said, "after:"),
    },
    Trial {
        mitigation: Mitigation::Terminate,
        command: STAYS,
        done: &[Done::Terminated],
        is_right: |said, exit| said.is_empty() && exit == Some(KILLED_EXIT),
    },
];

/// Instead, where all cgroups are of v1: nothing covers a container that is named by its cgroup.
const NOT_COVERED: Trial = Trial {
    mitigation: Mitigation::Isolate,
    command: TRAFFIC,
    done: &[Done::Terminated],
    is_right: |said, exit| arrives(said, "before:") && !arrives(said, "after:") && exit == Some(KILLED_EXIT),
};

/// Violates, and says whether it went on.
const READS: &str = "cat /etc/shadow; echo went on";

/// The same by one that lives for longer than anybody waits.
const STAYS: &str = "cat /etc/shadow; sleep 100; echo went on";

/// A bundle for each mitigation, on the overlay and in the cgroup of a bare container.
pub struct Bundles {
    directory: PathBuf,
    bare: Vec<(Mitigation, Bare)>,
}

impl Bundles {
    /// Below this directory; `govern` makes a container of this name, governed for a rule and mitigation.
    pub fn new(directory: &Path, mut govern: impl FnMut(&str, &str, Mitigation) -> Result<Bare>) -> Result<Self> {
        let mut bare = Vec::new();
        for Trial { mitigation, .. } in TRIALS {
            bare.push((mitigation, govern(&format!("runc-{mitigation}"), RULE, mitigation)?));
        }
        Ok(Self { directory: directory.into(), bare })
    }

    /// A shell's command as the first process of a container with a loopback interface, to its end.
    fn run(&self, mitigation: Mitigation, command: &str) -> Result<Output> {
        let found = self.bare.iter().find(|(own, _)| *own == mitigation);
        let (_, bare) = found.context("there is one for each mitigation")?;
        let (netns, name) = (Netns::new()?, bare.cgroup());
        let script = format!("ip addr add 169.254.0.1/16 dev lo && ip link set lo up && {{ {command}; }}");
        let spec = Spec::new("", ["sh", "-c", &script]).capability("CAP_NET_ADMIN");
        let mut config = spec.runtime_spec(&format!("/{name}"), Some(netns.path()))?;
        config["root"]["path"] = bare.root().to_string_lossy().into();
        let bundle = self.directory.join(format!("{name}-bundle"));
        fs::create_dir_all(&bundle)?;
        fs::write(bundle.join("config.json"), config.to_string())?;
        let mut runc = Command::new("runc");
        finish(runc.arg("--root").arg(self.directory.join("runc")).arg("run").arg("--bundle").arg(&bundle).arg(name))
    }
}

/// Each mitigation once.
pub fn run(machine: &Machine, report: &mut Report) {
    let covered = Hierarchies::detect().is_ok_and(|hierarchies| hierarchies.v2().is_some());
    for trial in TRIALS {
        let trial = if trial.mitigation == Mitigation::Isolate && !covered { NOT_COVERED } else { trial };
        report.check(&format!("vm/runc/{}", trial.mitigation), || {
            let from = now();
            let output = machine.bundles.run(trial.mitigation, trial.command)?;
            let done = machine
                .violation_since(from, trial.mitigation)
                .with_context(|| format!("the container's end: {}", said(&output)))?;
            ensure!(trial.done.iter().all(|one| done.contains(one)), "it did {done:?}");
            let right = (trial.is_right)(&String::from_utf8_lossy(&output.stdout), output.status.code());
            ensure!(right, "{}", said(&output));
            Ok(())
        });
    }
}
