//! What a cluster could change on the machine that it runs on.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Settings that a node's programs write to.
const SETTINGS: [&str; 10] = [
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/bridge/bridge-nf-call-iptables",
    "net/ipv4/conf/all/route_localnet",
    "net/ipv4/ip_forward",
    "net/netfilter/nf_conntrack_max",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
];

/// Folders that a node's programs write to.
const FOLDERS: [&str; 12] = [
    "/etc",
    "/etc/cni",
    "/opt",
    "/run",
    "/run/containerd",
    "/run/netns",
    "/sys/fs/bpf",
    "/usr/libexec",
    "/var/lib",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log",
];

/// What other tests make and remove at the same time.
const OTHERS: [&str; 1] = ["/var/lib/ringfence-test"];

/// The machine at one moment: one line for each thing.
pub struct Machine(BTreeSet<String>);

impl Machine {
    /// Looks.
    pub fn look() -> Result<Self> {
        let mut lines = BTreeSet::new();
        for name in SETTINGS {
            // Not every kernel has all.
            if let Ok(value) = fs::read_to_string(format!("/proc/sys/{name}")) {
                lines.insert(format!("setting {name} {}", value.trim()));
            }
        }
        for folder in FOLDERS {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path().display().to_string();
                if !OTHERS.contains(&path.as_str()) {
                    lines.insert(format!("file {path}"));
                }
            }
        }
        for entry in fs::read_dir("/sys/class/net")?.flatten() {
            lines.insert(format!("interface {}", entry.file_name().display()));
        }
        // This process has a mount namespace of its own.
        let mounts = fs::read_to_string("/proc/1/mountinfo").context("/proc/1/mountinfo")?;
        lines.extend(mounts.lines().filter_map(|line| Some(format!("mount {}", line.split(' ').nth(4)?))));
        for program in ["iptables-save", "ip6tables-save"] {
            let rules = Command::new(program).output().context(program)?;
            let text = String::from_utf8_lossy(&rules.stdout);
            let without_counters = |line: &str| line.split(" [").next().unwrap_or_default().to_owned();
            let rules = text.lines().filter(|line| !line.starts_with('#')).map(without_counters);
            lines.extend(rules.map(|rule| format!("{program} {rule}")));
        }
        Ok(Self(lines))
    }

    /// An error that tells what is there now and was not before, or the other way round.
    pub fn compare(&self, after: &Self) -> Result<()> {
        let new = after.0.difference(&self.0).map(|line| format!("+ {line}"));
        let gone = self.0.difference(&after.0).map(|line| format!("- {line}"));
        let changes: Vec<_> = new.chain(gone).collect();
        ensure!(changes.is_empty(), "the machine is not as it was: {}", changes.join("; "));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_and_what_went_is_told() {
        let machine = |lines: &[&str]| Machine(lines.iter().map(|&line| line.to_owned()).collect());
        let (before, after) = (machine(&["interface lo", "setting a 0"]), machine(&["interface lo", "setting a 1"]));
        assert!(before.compare(&before).is_ok());
        let error = before.compare(&after).expect_err("it changed").to_string();
        assert!(error.contains("+ setting a 1; - setting a 0"), "{error}");
    }
}
