//! What an operation costs beside the enforcer on each tier, measured in VMs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfence_image::Architecture;

use super::{Cgroups, Kernel, MODULES, initramfs::Contents, machine::Machine};
use crate::{process, products::Products};

/// It has all tiers, and its attachments to tracepoints can be pinned.
const KERNEL: Kernel = Kernel::V6_12;

const TIERS: [&str; 4] = ["lsm", "fentry", "kprobe", "tracepoint"];

/// MiB: the programs that are measured, and nothing else.
const MEMORY: u32 = 1536;

/// A guard against hanging.
const TIMEOUT: Duration = Duration::from_hours(1);

/// A table in Markdown. One VM after the other: two would disturb each other.
pub fn table(products: &Products) -> Result<String> {
    let setpriv = process::find("setpriv").context("setpriv is not installed")?;
    let contents = Contents {
        programs: products.programs(),
        of_this_machine: vec![(setpriv, "/usr/bin/setpriv".into())],
        modules: &MODULES,
        cgroups: Cgroups::V2,
    };
    let machine = Machine::new(KERNEL, Architecture::Amd64, &contents, MEMORY)?;
    let mut rows = String::new();
    for tier in TIERS {
        // The files that are opened.
        let files = "echo vm >/etc/hostname && echo 'root:*:' >/etc/shadow";
        let command = format!("{files} && /bin/ringfence-integration bench --ratios {tier}");
        let before = rows.len();
        println!("==> Linux {KERNEL} in a VM: {command}");
        let exit = machine.run(&command, TIMEOUT, |line| {
            println!("{line}");
            if line.starts_with("| ") {
                rows.extend([line, "\n"]);
            }
        })?;
        ensure!(exit == 0 && rows.len() > before, "measuring {tier} ended with {exit}");
    }
    Ok(format!(
        "Linux {KERNEL} of Debian, emulated by QEMU's TCG; cgroup v2.\n\n\
         | strongest tier | tier of the operation | operation | | all rules over no enforcer | all rules over empty programs |\n\
         |---|---|---|---|---|---|\n{rows}"
    ))
}
