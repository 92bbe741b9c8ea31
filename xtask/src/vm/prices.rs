//! What an operation costs beside the enforcer on each tier, and how fast it mitigates, measured in VMs.

use std::{num::NonZero, thread, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use ringfence_image::Architecture;

use super::{Cgroups, Kernel, MODULES, initramfs::Contents, machine::Machine};
use crate::{process, products::Products};

/// It has all tiers, and its attachments to tracepoints can be pinned.
const KERNEL: Kernel = Kernel::V6_12;

const TIERS: [&str; 4] = ["lsm", "fentry", "kprobe", "tracepoint"];

/// MiB: the programs that are measured, and nothing else.
const MEMORY: u32 = 1536;

/// Programs lie in an overlay's lower layer, as those of an image: what is on a plain tmpfs is new (RF-901).
const IMAGE: &str = "mkdir /over && mount -t tmpfs none /over && mkdir /over/upper /over/work && \
                     mount -t overlay none -o lowerdir=/bin,upperdir=/over/upper,workdir=/over/work /bin";

/// The files that are opened.
const FILES: &str = "echo vm >/etc/hostname && echo 'root:*:' >/etc/shadow";

/// A guard against hanging.
const TIMEOUT: Duration = Duration::from_hours(1);

/// A table in Markdown. Two VMs of one processor at a time, where this machine has two.
pub fn table(products: &Products) -> Result<String> {
    let setpriv = process::find("setpriv").context("setpriv is not installed")?;
    let contents = Contents {
        programs: products.programs(),
        of_this_machine: vec![(setpriv, "/usr/bin/setpriv".into())],
        modules: &MODULES,
        cgroups: Cgroups::V2,
    };
    let machine = Machine::new(KERNEL, Architecture::Amd64, &contents, MEMORY)?;
    let (mut prices, mut latencies) = (String::new(), String::new());
    let at_a_time = thread::available_parallelism().map_or(1, NonZero::get).min(2);
    for tiers in TIERS.chunks(at_a_time) {
        let measured: Vec<Result<Rows>> = thread::scope(|scope| {
            let machine = &machine;
            let started: Vec<_> = tiers.iter().map(|tier| scope.spawn(move || measure(machine, tier))).collect();
            started.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?).collect()
        });
        for of_tier in measured {
            let of_tier = of_tier?;
            prices += &of_tier.prices;
            latencies += &of_tier.latencies;
        }
    }
    Ok(format!(
        "Linux {KERNEL} of Debian, emulated by QEMU's TCG; cgroup v2.\n\n\
         | strongest tier | tier of the operation | operation | | all rules over no enforcer | all rules over empty programs |\n\
         |---|---|---|---|---|---|\n{prices}\n\
         From the violation to the mitigation (RF-501), in multiples of what an open and close of a small file takes there \
         without an enforcer:\n\n\
         | strongest tier | tier of the operation | | repetitions | median | p99 |\n\
         |---|---|---|---|---|---|\n{latencies}"
    ))
}

/// Rows of one tier.
#[derive(Default)]
struct Rows {
    prices: String,
    latencies: String,
}

/// The line between them.
const LATENCIES: &str = "latencies:";

fn measure(machine: &Machine, tier: &str) -> Result<Rows> {
    let command = format!("{IMAGE} && {FILES} && /bin/ringfence-integration bench --ratios {tier}");
    println!("==> Linux {KERNEL} in a VM: {command}");
    let (mut rows, mut of_latencies) = (Rows::default(), false);
    let exit = machine.run(&command, TIMEOUT, |line| {
        println!("{tier}: {line}");
        of_latencies |= line == LATENCIES;
        if line.starts_with("| ") {
            let table = if of_latencies { &mut rows.latencies } else { &mut rows.prices };
            table.extend([line, "\n"]);
        }
    })?;
    let complete = !rows.prices.is_empty() && !rows.latencies.is_empty();
    ensure!(exit == 0 && complete, "measuring {tier} ended with {exit}");
    Ok(rows)
}
