//! What the agent says of itself.

use super::Agent;
use crate::{kernel::Visible, report::wall_clock};
use ringfence_abi::{Class, Counter, Op, Tier};
use ringfence_control::{ClassStatus, ContainerStatus, DatapathStatus, Escaped, Isolation, RuleStatus, Status};
use ringfence_policy::{Rule, RuleCoverage, coverage::Probed};
use std::collections::BTreeMap;

impl Agent {
    pub(super) fn status(&mut self) -> anyhow::Result<Status> {
        let mut containers = Vec::new();
        let slots: Vec<_> = self.known.keys().cloned().collect();
        for key in slots {
            if self.known[&key].slot != 0 {
                containers.push(self.container_status(&key)?);
            }
        }
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.parts.node.to_string(),
            kernel: nix::sys::utsname::uname()?.release().to_string_lossy().into_owned(),
            started_at: self.started_at,
            classes: self.classes()?,
            rules: self.parts.rulesets.named().map(|rule| self.rule(rule)).collect(),
            containers,
            datapaths: self.parts.covered_cgroup.iter().map(|path| cgroup_skb(&path.to_string_lossy())).collect(),
            rulesets: self.parts.rulesets.status(),
            candidates: self.candidates_status()?,
            warnings: self.warnings(),
        })
    }

    fn classes(&mut self) -> anyhow::Result<Vec<ClassStatus>> {
        let counters = self.parts.kernel.counters()?;
        Ok(Class::ALL
            .into_iter()
            .map(|class| {
                let count = |counter: Counter| counters[class as usize][counter as usize];
                let tier =
                    Op::ALL.into_iter().filter(|op| op.class() == class).map(|op| self.parts.kernel.tier(op)).max();
                ClassStatus {
                    class: format!("{class:?}").to_lowercase(),
                    tier: tier.map(Into::into),
                    seen: count(Counter::Seen),
                    violations: count(Counter::Violations),
                    lost_log: count(Counter::LostLog),
                    lost_mitigating: count(Counter::LostMitigating),
                    unreadable: count(Counter::Unreadable),
                }
            })
            .collect())
    }

    /// What this node can do about a rule.
    pub(super) fn coverage_of(&self, rule: &Rule) -> RuleCoverage {
        let kernel = &self.parts.kernel;
        let Visible { drift, rings, compat } = kernel.visible();
        RuleCoverage::of(rule, &Probed { tier: |op| kernel.tier(op), drift, rings, compat })
    }

    fn rule(&self, rule: &Rule) -> RuleStatus {
        let coverage = self.coverage_of(rule);
        RuleStatus {
            id: rule.id,
            name: rule.name.to_string(),
            severity: rule.severity,
            coverage: coverage.weakest(),
            note: coverage.misses.join(" "),
            operations: coverage.operations,
        }
    }

    fn container_status(&mut self, key: &ringfence_containers::ContainerKey) -> anyhow::Result<ContainerStatus> {
        let known = &self.known[key];
        let (slot, container) = (known.slot, known.owner.container.clone());
        let isolation = self.parts.switch.isolation(slot)?;
        let known = &self.known[key];
        let coverage = self.coverage(slot);
        let why = known.why_isolated.clone().unwrap_or_default();
        let mut datapaths = Vec::new();
        if coverage.cgroup {
            datapaths.push(cgroup_skb(&container.cgroups_path));
        }
        datapaths.extend(coverage.veths.iter().map(|armed| DatapathStatus {
            kind: format!("{:?}", armed.hook).to_lowercase(),
            place: Escaped::from(armed.interface.as_str()),
        }));
        let gaps: Vec<Escaped> = coverage.gaps.iter().map(|gap| Escaped::from(gap.text.as_str())).collect();
        let no_datapath =
            (!coverage.is_covered()).then(|| gaps.iter().map(Escaped::as_str).collect::<Vec<_>>().join("; "));
        Ok(ContainerStatus {
            id: Escaped::from(key.id.as_str()),
            name: (container.name != key.id).then(|| Escaped::from(container.name.as_str())),
            runtime_namespace: Escaped::from(key.namespace.as_str()),
            image: (!container.image.is_empty()).then(|| Escaped::from(container.image.as_str())),
            labels: container
                .selector_labels()
                .iter()
                .map(|(k, v)| (Escaped::from(k.as_str()), Escaped::from(v.as_str())))
                .collect::<BTreeMap<_, _>>(),
            rulesets: known.owner.resolved.rulesets.clone(),
            slot,
            isolated: (isolation.since != 0).then(|| Isolation {
                since: wall_clock(isolation.since),
                rule: why.rule,
                reason: why.reason.as_deref().map(Escaped::from),
                dropped_packets: isolation.dropped,
            }),
            datapaths,
            no_datapath,
            gaps,
            drift_visible: self.parts.kernel.visible().drift && is_overlay(&container.snapshotter),
            snapshotter: (!container.snapshotter.is_empty()).then_some(container.snapshotter),
        })
    }

    /// What covers a slot. Where no interfaces are armed its sockets still are, by their cgroup.
    pub(super) fn coverage(&self, slot: u32) -> ringfence_netiso::Coverage {
        self.network.coverage(slot).cloned().unwrap_or_else(|| ringfence_netiso::Coverage {
            cgroup: self.parts.covered_cgroup.is_some(),
            ..ringfence_netiso::Coverage::default()
        })
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.in_force {
            warnings.push(
                "the container runtime has not told all containers yet: the rulesets are not in force".to_owned(),
            );
        }
        let visible = self.parts.kernel.visible();
        if !visible.drift {
            warnings.push("overlayfs's layers can't be told apart: drift rules are blind on this node".to_owned());
        }
        if self.parts.covered_cgroup.is_none() {
            warnings.push("no cgroup v2: isolation depends on the containers' interfaces alone".to_owned());
        }
        if !visible.rings && self.parts.kernel.tier(Op::Open) == Tier::Tracepoint {
            warnings.push("what is opened through io_uring is not seen on this kernel".to_owned());
        }
        if !visible.compat {
            warnings.push(
                "32-bit system calls are not seen: this kernel takes no BPF trampolines on their functions".to_owned(),
            );
        }
        if self.late > 0 {
            warnings.push(format!(
                "{} containers had begun before they were known here: their first moments were not seen",
                self.late
            ));
        }
        if self.candidates.undecided > 0 {
            warnings.push(format!(
                "{} programs were gone before their long arguments could be read: whether they violated a rule is not \
                 known",
                self.candidates.undecided
            ));
        }
        warnings.extend(self.blind.warning());
        warnings.extend(self.parts.output.warning());
        warnings.extend(self.unheld());
        if self.disagreements > 0 {
            warnings.push(format!("{} answers of the kernel differ from the rules' declarations", self.disagreements));
        }
        warnings
    }
}

fn cgroup_skb(place: &str) -> DatapathStatus {
    DatapathStatus { kind: "cgroup_skb".to_owned(), place: Escaped::from(place) }
}

fn is_overlay(snapshotter: &str) -> bool {
    matches!(snapshotter, "" | "overlayfs" | "fuse-overlayfs" | "stargz" | "nydus" | "soci")
}
