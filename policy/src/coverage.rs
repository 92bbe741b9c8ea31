//! What a node can do about each operation, and so about each rule. Nobody writes it down: it follows from what sees the
//! operation, and from what is left of it when the process that did it is killed. The VM suite holds it against what
//! happens (`integration/src/vm/coverage.rs`).

mod markdown;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ringfence_abi::{Facet, Op, Tier, flag};
use serde::{Deserialize, Serialize};

use crate::line::{FlagTest, Line, op_name};
use crate::rule::Rule;

pub use markdown::markdown;

/// The tiers and their names, the strongest first.
pub const TIERS: [(&str, Tier); 4] =
    [("lsm", Tier::Lsm), ("fentry", Tier::Fentry), ("kprobe", Tier::Kprobe), ("tracepoint", Tier::Tracepoint)];

/// Operations that have a security hook, each where the kernel has it: denied on `lsm`, and on `fentry` and `kprobe`
/// seen where the kernel asks the hook. On the `tracepoint` tier, and all others on every tier, they are seen by
/// tracepoints, most as their system call returns.
pub const HOOKED: &[Op] = &[
    Op::Exec,
    Op::Open,
    Op::Mmap,
    Op::Unlink,
    Op::RenameFrom,
    Op::RenameTo,
    Op::LinkFrom,
    Op::LinkTo,
    Op::SymlinkTarget,
    Op::Symlink,
    Op::Chmod,
    Op::Mkdir,
    Op::Connect,
    Op::Socket,
    Op::Ptrace,
    Op::MountSource,
];

/// Of these, what only the `lsm` tier judges at its hook. Who can't deny waits for what knows more: at
/// `sched_process_exec` an execution has its arguments.
pub const HOOKED_TO_DENY: &[Op] = &[Op::Exec];

/// Where an operation is seen on a kernel that lets us have this tier and all of [`HOOKED`].
pub fn seen_at(op: Op, tier: Tier) -> Tier {
    let hooked = HOOKED.contains(&op) && (tier == Tier::Lsm || !HOOKED_TO_DENY.contains(&op));
    if hooked { tier } else { Tier::Tracepoint }
}

/// What can be done about an operation, the least first. `block` is what is asked for; nothing stronger leaves more of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Coverage {
    /// No event comes of it.
    Blind,
    /// Its effect outlives the process that is killed for it.
    DetectedAfter,
    /// The process is killed before it can use what the operation gave it, and that ends with the process.
    DetectedBefore,
    /// It does not take effect: it is denied, or the process is killed first.
    Prevented,
}

impl Coverage {
    /// All, the strongest first.
    pub const ALL: [Self; 4] = [Self::Prevented, Self::DetectedBefore, Self::DetectedAfter, Self::Blind];

    /// The words for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blind => "blind",
            Self::DetectedAfter => "detected after",
            Self::DetectedBefore => "detected before",
            Self::Prevented => "prevented",
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// An operation, as far as it decides what is left of it. What an open leaves, or tracing, depends on what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deed {
    /// An operation; of opens, one that changes nothing; of tracing, what begins it.
    Of(Op),
    /// An existing file is opened for writing, and keeps what it holds.
    OpenToWrite,
    /// An open that empties the file.
    OpenToEmpty,
    /// An open that makes the file.
    OpenToCreate,
    /// The traced process gets other memory or registers.
    TraceToWrite,
}

impl Deed {
    /// All, in the order of the operations.
    pub fn all() -> impl Iterator<Item = Self> {
        Op::ALL.into_iter().flat_map(|op| {
            let further = [Self::OpenToWrite, Self::OpenToEmpty, Self::OpenToCreate, Self::TraceToWrite];
            std::iter::once(Self::Of(op)).chain(further.into_iter().filter(move |deed| deed.op() == op))
        })
    }

    /// The operation.
    pub const fn op(self) -> Op {
        match self {
            Self::Of(op) => op,
            Self::OpenToWrite | Self::OpenToEmpty | Self::OpenToCreate => Op::Open,
            Self::TraceToWrite => Op::Ptrace,
        }
    }

    /// What can be done about it where it is seen at this tier.
    pub const fn coverage(self, seen_at: Tier) -> Coverage {
        match (self, seen_at) {
            // The kernel has made the name when it asks whether the file may be opened (fs/namei.c, `lookup_open`). Of
            // tracing it asks when that begins, and then not if it was the traced process that wanted it.
            (Self::OpenToCreate | Self::TraceToWrite, _) => Coverage::DetectedAfter,
            // Killed before the program's first instruction; whoever shared the old program's memory is gone.
            (_, Tier::Lsm) | (Self::Of(Op::Exec | Op::Script), _) => Coverage::Prevented,
            (deed, _) if deed.outlives_its_process() => Coverage::DetectedAfter,
            _ => Coverage::DetectedBefore,
        }
    }

    /// Whether its effect is there for others when the process is killed as the operation returns.
    const fn outlives_its_process(self) -> bool {
        match self {
            Self::OpenToWrite => false,
            Self::OpenToEmpty | Self::OpenToCreate | Self::TraceToWrite => true,
            Self::Of(op) => match op {
                Op::Unlink
                | Op::RenameFrom
                | Op::RenameTo
                | Op::LinkFrom
                | Op::LinkTo
                | Op::SymlinkTarget
                | Op::Symlink
                | Op::Chmod
                | Op::Truncate
                | Op::Mkdir
                // The other end has it in its queue.
                | Op::Connect
                // Of a Unix socket: the name.
                | Op::Bind
                | Op::MountSource
                | Op::MountTarget
                // What is attached or pinned.
                | Op::Bpf
                | Op::Module
                | Op::Kill
                // A cgroup that was made, and a process that was moved by another one.
                | Op::Escape => true,
                Op::Exec
                | Op::Script
                | Op::Open
                | Op::Mmap
                | Op::Listen
                | Op::Socket
                // Dropped, whatever becomes of the process.
                | Op::Packet
                | Op::Stdio
                | Op::Ptrace
                | Op::Setns
                | Op::Unshare
                | Op::Memfd
                | Op::Ring => false,
            },
        }
    }

    /// What is meant by it for this operation where it is not denied: when the process is killed, and what is left.
    pub const fn without_denial(self) -> &'static str {
        match self {
            Self::OpenToWrite => "killed before a byte is written",
            Self::OpenToEmpty => "the file is empty",
            Self::OpenToCreate => "the file is there, empty (where it is denied, too)",
            Self::TraceToWrite => "what was written stays",
            Self::Of(op) => match op {
                Op::Exec => "killed before the program's first instruction",
                Op::Script => "killed before its interpreter's first instruction",
                Op::Open => "killed before a byte is read",
                Op::Mmap => "killed before the mapping can be used",
                Op::Unlink => "the name is gone",
                Op::RenameFrom | Op::RenameTo => "it has the new name",
                Op::LinkFrom | Op::LinkTo | Op::SymlinkTarget | Op::Symlink => "the link is there",
                Op::Chmod => "the mode is set",
                Op::Truncate => "what was cut off is gone",
                Op::Mkdir => "the directory is there",
                Op::Connect => "the other end has the connection, until the killed process's end of it is closed",
                Op::Bind => "the name of a Unix socket is there",
                Op::Listen => "killed before a connection can be taken",
                Op::Socket => "killed before the socket can be used",
                Op::Packet => "the packet is dropped; more of the process to the same place within a second are not",
                Op::Stdio => "killed before the stream can be used",
                Op::Ptrace => "killed before it can look or write; the traced process may stay stopped",
                Op::MountSource | Op::MountTarget => "the mount is there",
                Op::Setns => "killed before it runs on in the namespace",
                Op::Unshare => "killed before it runs on in the new namespace",
                Op::Memfd => "killed before the file can be used",
                Op::Ring => "killed before the ring can be used",
                Op::Bpf => "what was attached or pinned is there",
                Op::Module => "the module is there, or gone",
                Op::Kill => "the signal is sent",
                Op::Escape => "a cgroup that was made is there; who was moved by another process is there and lives",
            },
        }
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Of(op) => op_name(*op),
            Self::OpenToWrite => "open (write)",
            Self::OpenToEmpty => "open (empty)",
            Self::OpenToCreate => "open (create)",
            Self::TraceToWrite => "ptrace (write)",
        })
    }
}

/// What a node's probes have found.
#[derive(Clone, Copy, Debug)]
pub struct Probed<F> {
    /// Where it sees an operation.
    pub tier: F,
    /// Whether it can tell the layers of overlayfs apart.
    pub drift: bool,
    /// Whether it sees files that are opened through `io_uring` where opens are seen as they return.
    pub rings: bool,
    /// Whether it sees 32-bit system calls as they return, if it has any.
    pub compat: bool,
}

/// A kernel that lets us have this tier, and shows what any of that tier shows.
pub fn on_tier(tier: Tier) -> Probed<impl Fn(Op) -> Tier> {
    Probed { tier: move |op| seen_at(op, tier), drift: true, rings: true, compat: true }
}

/// What a node can do about a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleCoverage {
    /// Each operation that violates it. What one line sees and another does not stands there twice.
    pub operations: BTreeMap<String, Coverage>,
    /// What is missed: sentences.
    pub misses: Vec<String>,
}

impl RuleCoverage {
    /// Of a rule on a node.
    pub fn of<F: Fn(Op) -> Tier>(rule: &Rule, node: &Probed<F>) -> Self {
        let mut operations = BTreeMap::new();
        for line in &rule.lines {
            for deed in deeds(line) {
                if asks_for_layers(line) && !node.drift {
                    operations.insert(format!("{deed} (drift)"), Coverage::Blind);
                } else {
                    operations.insert(deed.to_string(), deed.coverage((node.tier)(deed.op())));
                }
            }
        }
        Self { operations, misses: misses(rule, node) }
    }

    /// That of the operation about which least can be done.
    pub fn weakest(&self) -> Coverage {
        self.operations.values().copied().min().unwrap_or(Coverage::Blind)
    }

    /// Whether nothing of it is seen.
    pub fn is_blind(&self) -> bool {
        self.operations.values().all(|coverage| *coverage == Coverage::Blind)
    }
}

impl fmt::Display for RuleCoverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&in_words(&self.operations))
    }
}

/// What is missed of a rule on each tier: on all of them, and besides that on each, in the order of [`TIERS`].
pub fn misses_by_tier(rule: &Rule) -> (Vec<String>, [Vec<String>; 4]) {
    let mut each = TIERS.map(|(_, tier)| RuleCoverage::of(rule, &on_tier(tier)).misses);
    let everywhere: Vec<String> =
        each[0].iter().filter(|miss| each.iter().all(|on_tier| on_tier.contains(miss))).cloned().collect();
    for on_tier in &mut each {
        on_tier.retain(|miss| !everywhere.contains(miss));
    }
    (everywhere, each)
}

/// One word if it is the same for all operations, else by operation, the strongest first.
pub fn in_words(operations: &BTreeMap<String, Coverage>) -> String {
    let parts: Vec<(Coverage, Vec<&str>)> = Coverage::ALL
        .into_iter()
        .map(|coverage| {
            let of_it = operations.iter().filter(|(_, of)| **of == coverage);
            (coverage, of_it.map(|(operation, _)| operation.as_str()).collect())
        })
        .filter(|(_, of_it): &(_, Vec<_>)| !of_it.is_empty())
        .collect();
    match parts.as_slice() {
        [(coverage, _)] => coverage.to_string(),
        parts => {
            let parts: Vec<String> = parts.iter().map(|(c, of_it)| format!("{c}: {}", of_it.join(", "))).collect();
            parts.join("; ")
        }
    }
}

/// `linux/ptrace.h`
const PTRACE_ATTACH: u64 = 16;
const PTRACE_SEIZE: u64 = 0x4206;

/// What an event can have been that satisfies the line.
pub fn deeds(line: &Line) -> Vec<Deed> {
    let FlagTest { required, refused } = line.flags;
    line.ops
        .iter()
        .flat_map(|op| match op {
            Op::Open if required & flag::CREATED != 0 => vec![Deed::OpenToCreate],
            Op::Open if required & flag::EMPTIED != 0 => vec![Deed::OpenToEmpty],
            Op::Open if required & flag::WRITE != 0 => {
                let mut deeds = vec![Deed::OpenToWrite];
                // What the kernel makes up has nothing that could be emptied, and no new names.
                if !names_kernel_files(line) {
                    if refused & flag::EMPTIED == 0 {
                        deeds.push(Deed::OpenToEmpty);
                    }
                    if refused & flag::CREATED == 0 && required & flag::FROM_IMAGE == 0 {
                        deeds.push(Deed::OpenToCreate);
                    }
                }
                deeds
            }
            Op::Ptrace => {
                let begins = |request: &u64| [PTRACE_ATTACH, PTRACE_SEIZE].contains(request);
                let asked = &line.number.any;
                let mut deeds = Vec::new();
                if asked.is_empty() || asked.iter().any(begins) {
                    deeds.push(Deed::Of(Op::Ptrace));
                }
                if asked.is_empty() || !asked.iter().all(begins) {
                    deeds.push(Deed::TraceToWrite);
                }
                deeds
            }
            op => vec![Deed::Of(*op)],
        })
        .collect()
}

fn names_kernel_files(line: &Line) -> bool {
    let below = |path: &str| path.starts_with("/proc/") || path.starts_with("/sys/");
    line.text(Facet::ObjectPath)
        .is_some_and(|test| !test.any.is_empty() && test.any.iter().all(|pattern| below(pattern.text())))
}

fn asks_for_layers(line: &Line) -> bool {
    line.flags.required & (flag::DRIFTED | flag::UPPER | flag::FROM_IMAGE) != 0
}

/// Whether the path of such an event is what the caller wrote, where it is seen at this tier.
fn by_string(op: Op, seen_at: Tier) -> bool {
    match op {
        Op::Unlink
        | Op::RenameFrom
        | Op::RenameTo
        | Op::LinkFrom
        | Op::LinkTo
        | Op::Symlink
        | Op::Chmod
        | Op::Truncate
        | Op::Mkdir
        | Op::MountTarget => seen_at == Tier::Tracepoint,
        Op::MountSource => true,
        _ => false,
    }
}

fn misses<F: Fn(Op) -> Tier>(rule: &Rule, node: &Probed<F>) -> Vec<String> {
    let mut misses = Vec::new();
    if !node.drift && rule.lines.iter().any(asks_for_layers) {
        misses.push("Overlayfs's layers can't be told apart on this node.".to_owned());
    }
    let mut strings: Vec<Op> = Vec::new();
    for line in &rule.lines {
        if line.cares(Facet::ObjectPath) || line.cares(Facet::ObjectName) {
            strings.extend(line.ops.iter().filter(|op| by_string(**op, (node.tier)(**op))));
        }
    }
    strings.sort_unstable();
    strings.dedup();
    if !strings.is_empty() {
        let names: Vec<_> = strings.into_iter().map(op_name).collect();
        misses.push(format!(
            "By the caller's string, normalised, not by the kernel's own path: {}. A symbolic link on the way hides the \
             target.",
            names.join(", ")
        ));
    }
    let mounts = rule.lines.iter().any(|line| line.ops.contains(&Op::MountSource));
    if mounts && (node.tier)(Op::MountSource) != Tier::Tracepoint {
        misses.push("What fsconfig(2) mounts is seen, and not denied, as on `tracepoint`.".to_owned());
    }
    let opens = rule.lines.iter().any(|line| line.ops.contains(&Op::Open));
    if opens && !node.rings && (node.tier)(Op::Open) == Tier::Tracepoint {
        misses.push(
            "What is opened through io_uring is not seen on this kernel; that a ring is set up is (RF-117).".to_owned(),
        );
    }
    if !node.compat {
        // What is seen otherwise than as its system call returns.
        const BY_OTHERS: [Op; 5] = [Op::Exec, Op::Script, Op::Packet, Op::Listen, Op::Escape];
        let ops = rule.lines.iter().flat_map(|line| line.ops.iter().copied());
        let by_calls: BTreeSet<Op> =
            ops.filter(|op| (node.tier)(*op) == Tier::Tracepoint && !BY_OTHERS.contains(op)).collect();
        if !by_calls.is_empty() {
            let names: Vec<_> = by_calls.into_iter().map(op_name).collect();
            misses.push(format!("By 32-bit system calls these are not seen on this node: {}.", names.join(", ")));
        }
    }
    if rule.lines.iter().any(|line| line.cares(Facet::Arg)) {
        misses.push(
            "With more than 2 KiB of arguments, user space decides: the program may run for milliseconds.".to_owned(),
        );
    }
    misses.extend(rule.misses.as_ref().map(|misses| format!("Not seen: {misses}")));
    misses
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Catalogue;

    fn of(rule: &str, node: &Probed<impl Fn(Op) -> Tier>) -> RuleCoverage {
        RuleCoverage::of(Catalogue::builtin().find(rule).expect("it is in the catalogue"), node)
    }

    #[test]
    fn what_is_hooked_to_deny_is_hooked() {
        assert!(HOOKED_TO_DENY.iter().all(|op| HOOKED.contains(op)));
        assert_eq!(seen_at(Op::Exec, Tier::Kprobe), Tier::Tracepoint);
        assert_eq!(seen_at(Op::Open, Tier::Kprobe), Tier::Kprobe);
        assert_eq!(seen_at(Op::Setns, Tier::Lsm), Tier::Tracepoint);
    }

    #[test]
    fn a_rule_says_it_by_operation_where_these_differ() {
        assert_eq!(of("RF-901", &on_tier(Tier::Lsm)).to_string(), "prevented");
        assert_eq!(of("RF-901", &on_tier(Tier::Kprobe)).to_string(), "prevented: exec; detected before: open");
        assert_eq!(of("RF-401", &on_tier(Tier::Tracepoint)).to_string(), "detected after");
        assert_eq!(of("RF-903", &on_tier(Tier::Lsm)).to_string(), "detected after");
        let preload = of("RF-210", &on_tier(Tier::Fentry));
        let expected = "prevented: exec; detected before: open (write); \
                        detected after: link_to, open (create), open (empty), rename_to, symlink";
        assert_eq!(preload.to_string(), expected);
        assert_eq!(preload.weakest(), Coverage::DetectedAfter);
    }

    #[test]
    fn the_flags_of_a_line_say_what_an_open_can_have_been() {
        let of_rule = |rule| Catalogue::builtin().find(rule).expect("it is in the catalogue").lines.iter();
        assert!(of_rule("RF-307").flat_map(deeds).all(|deed| deed == Deed::OpenToWrite), "below /proc and /sys");
        assert!(!of_rule("RF-906").flat_map(deeds).any(|deed| deed == Deed::OpenToCreate), "files of the image");
        assert_eq!(of_rule("RF-409").flat_map(deeds).collect::<Vec<_>>(), [Deed::Of(Op::Ptrace), Deed::TraceToWrite]);
        assert!(of_rule("RF-508").flat_map(deeds).all(|deed| deed == Deed::Of(Op::Open)), "read");
    }

    #[test]
    fn what_the_probes_did_not_find_is_not_covered() {
        let node = Probed { drift: false, ..on_tier(Tier::Lsm) };
        let drift = of("RF-901", &node);
        assert_eq!(drift.to_string(), "prevented: exec; blind: exec (drift), open (drift)");
        assert!(!drift.is_blind() && drift.weakest() == Coverage::Blind && drift.misses[0].contains("layers"));
        assert!(of("RF-906", &node).is_blind());
        let node = Probed { rings: false, ..on_tier(Tier::Tracepoint) };
        assert!(of("RF-501", &node).misses.iter().any(|miss| miss.contains("io_uring")));
        let node = Probed { rings: false, ..on_tier(Tier::Fentry) };
        assert!(!of("RF-501", &node).misses.iter().any(|miss| miss.contains("io_uring")), "the hook sees it");
        let blind_to_compat = |rule, tier| {
            let misses = of(rule, &Probed { compat: false, ..on_tier(tier) }).misses;
            misses.into_iter().find(|miss| miss.starts_with("By 32-bit system calls"))
        };
        assert!(blind_to_compat("RF-312", Tier::Lsm).is_some_and(|miss| miss.contains(": setns.")));
        assert!(blind_to_compat("RF-501", Tier::Tracepoint).is_some_and(|miss| miss.contains("open")));
        assert_eq!(blind_to_compat("RF-501", Tier::Lsm), None, "the hook sees it");
        assert_eq!(blind_to_compat("RF-901", Tier::Kprobe), None);
    }

    #[test]
    fn a_stronger_tier_is_never_weaker() {
        for deed in Deed::all() {
            let on = |tier| deed.coverage(seen_at(deed.op(), tier));
            assert!(TIERS.iter().rev().map(|(_, tier)| on(*tier)).is_sorted(), "{deed}");
        }
    }
}
