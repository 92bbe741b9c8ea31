//! docs/coverage.md.

use std::fmt::{self, Write};

use super::{Coverage, Deed, RuleCoverage, TIERS, deeds, on_tier, seen_at};
use crate::catalogue::Catalogue;

const INTRODUCTION: &str = "\
What can be done about each rule, and about each operation, on each tier. A node has one tier for all that has a
security hook, the strongest that its kernel allows; `ringfence status` says it for the node and its rules, with what
its probes did not find.
";

const WORDS: &str = "\
Each word says what is left when the violated rule asks for `block`. `terminate` stops the same operation in the same
way, and then the rest of the container. With `log` every operation takes effect, with `isolate` all but packets do.
";

const fn meaning(coverage: Coverage) -> &'static str {
    match coverage {
        Coverage::Prevented => {
            "It does not take effect. It is denied with EPERM (`lsm`), or the process is killed before it could begin \
             (executions)."
        }
        Coverage::DetectedBefore => {
            "The kernel carries it out, and the process is killed before it can use what it got: what was opened is \
             not read, the socket not used. What it got ends with it, unless it shares it with \
             another process (`CLONE_FILES`) or another of its threads is quicker."
        }
        Coverage::DetectedAfter => {
            "It takes effect, and the process is killed for it as the operation returns: the file is there, gone or \
             changed, the connection was made."
        }
        Coverage::Blind => "No event comes of it, and so nothing is done.",
    }
}

const BEYOND: &str = "\
- **By `io_uring`.** Where an operation is seen at a security hook, it is seen whatever it comes by. Where it is seen as
  its system call returns (on `tracepoint` everything, on the others what has no hook), operations by a ring are blind,
  but for opens that leave an entry in the completion queue (Linux 5.19 and later), TCP connects and packets. That a ring is
  set up is an operation of its own, `ring`, seen on every tier (RF-117).
- **By 32-bit system calls** (`int 0x80`): seen like the others, on the functions of these calls, where the kernel takes
  BPF trampolines. Where it takes none, what is seen as its system call returns is blind by them; `ringfence status` says
  so. What `socketcall(2)` and the first of their two `mmap(2)` are asked for is read from the caller's memory as they
  return, where another thread may have changed it; what has a hook does not depend on that. By x32 calls (which few kernels
  have and fewer have switched on) what is seen as its system call returns is blind.
- **Memory of other processes** (`process_vm_writev`, `/proc/PID/mem`, `pidfd_getfd`) counts as `ptrace` where that has its
  hook, and is blind on `tracepoint`.
- **Mounts by `fsconfig`** are seen as on `tracepoint`.
- **Paths.** A line that names a path or a name knows it from the kernel's own objects, or from the caller's string,
  which a symbolic link on the way makes another: [rules.md](rules.md) says it per rule and tier.
- **Hooks that a kernel lacks.** Each operation is on the tier on which its own hook is there; `ringfence status` goes by
  that.
- **Drift.** Where overlayfs's layers can't be told apart, what asks for them is blind: `ringfence status` says so.
- **TCP Fast Open.** Data that is sent with `MSG_FASTOPEN` connects on its way, past the hook: seen as on `tracepoint`.
- **Connects of Unix datagram sockets** are seen on `tracepoint` alone.

What else there is to know about evasions: [threat-model.md](threat-model.md).
";

const CHECKED: &str = "\
`cargo xtask test` and `cargo xtask vm --kernel KERNEL --filter coverage` perform each operation of each rule, on each
tier, in VMs with Debian's 5.10 (which has no `kprobe` tier), 6.1, 6.12 and newest (7.2) with cgroup v2, and look for the
effect from outside: with `log` it must be there, with `block` it must be as the table says. A table that says more, or
less, fails. On 6.12 and the newest, `fentry`, `kprobe` and `tracepoint` perform each operation once, of one rule. The
exceptions:

- A connect of RF-510 does not get as far as the table says: the packet that begins it is dropped as well.
- Not tried: `ptrace (write)` (of RF-409; it comes after an attach, which is a violation itself), operations that no
  managed rule asks for. On arm64 each operation is performed once, of one rule, on the strongest tier that the kernel has:
  `tracepoint` on 5.10, `lsm` on 6.12.
";

/// docs/coverage.md.
pub fn markdown(catalogue: &Catalogue) -> String {
    let mut document = String::new();
    write(&mut document, catalogue).expect("writing to a string does not fail");
    document
}

fn write(out: &mut String, catalogue: &Catalogue) -> fmt::Result {
    writeln!(out, "# What is prevented, what is detected\n")?;
    writeln!(out, "<!-- Generated: `cargo run -p ringfence-policy --example coverage > docs/coverage.md`. -->\n")?;
    writeln!(out, "{INTRODUCTION}\n{WORDS}\n| | |\n|---|---|")?;
    for coverage in Coverage::ALL {
        writeln!(out, "| {coverage} | {} |", meaning(coverage))?;
    }
    writeln!(out, "\n## Rules\n")?;
    header(out, &["rule"], &[])?;
    for rule in catalogue.rules() {
        write!(out, "| {} {} |", rule.id, rule.name)?;
        for (_, tier) in TIERS {
            write!(out, " {} |", RuleCoverage::of(rule, &on_tier(tier)))?;
        }
        writeln!(out)?;
    }
    writeln!(out, "\n## Operations\n")?;
    header(out, &["operation"], &["where it is not denied", "rules"])?;
    for deed in Deed::all() {
        write!(out, "| {deed} |")?;
        for (_, tier) in TIERS {
            write!(out, " {} |", deed.coverage(seen_at(deed.op(), tier)))?;
        }
        let asks = catalogue.rules().filter(|rule| rule.lines.iter().any(|line| deeds(line).contains(&deed)));
        let ids: Vec<String> = asks.map(|rule| rule.id.to_string()).collect();
        writeln!(out, " {} | {} |", deed.without_denial(), ids.join(", "))?;
    }
    writeln!(out, "\n## What is not in the tables\n\n{BEYOND}\n## Where it was checked\n\n{CHECKED}")?;
    out.truncate(out.trim_end().len());
    writeln!(out)
}

fn header(out: &mut String, before: &[&str], after: &[&str]) -> fmt::Result {
    let columns: Vec<&str> =
        before.iter().copied().chain(TIERS.map(|(name, _)| name)).chain(after.iter().copied()).collect();
    writeln!(out, "| {} |\n|{}", columns.join(" | "), "---|".repeat(columns.len()))
}
