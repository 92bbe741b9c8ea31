//! What is tested where: kernels, layouts of control groups, and how much of the tests.

use std::{
    collections::VecDeque,
    fmt,
    num::NonZero,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Result, bail};
use clap::ValueEnum;

use super::{Cgroups, Kernel, MODULES, initramfs::Contents, machine::Machine, verify};
use crate::{
    products::Products,
    tally::{Suite, Tally},
};

/// How much of the tests runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Everything.
    Full,
    /// Of each rule one behaviour and one near miss.
    Brief,
}

/// A VM that tests run in.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Its kernel.
    pub kernel: Kernel,
    /// How control groups are mounted.
    pub cgroups: Cgroups,
    /// How much runs there.
    pub extent: Extent,
}

/// What `cargo xtask test` boots, the longest first.
const MATRIX: [Place; 6] = [
    Place { kernel: Kernel::V5_10, cgroups: Cgroups::V2, extent: Extent::Full },
    Place { kernel: Kernel::V6_1, cgroups: Cgroups::V2, extent: Extent::Full },
    Place { kernel: Kernel::V6_12, cgroups: Cgroups::V2, extent: Extent::Full },
    Place { kernel: Kernel::Newest, cgroups: Cgroups::V2, extent: Extent::Full },
    Place { kernel: Kernel::V6_1, cgroups: Cgroups::V1, extent: Extent::Brief },
    Place { kernel: Kernel::V6_1, cgroups: Cgroups::Hybrid, extent: Extent::Brief },
];

/// Longest time for the tests in one VM. Five times what they take on two cores.
const TIMEOUT: Duration = Duration::from_mins(15);

/// Memory of a VM, in MiB.
const MEMORY: u32 = 1536;

/// The name by which the verification of all programs is filtered.
const VERIFY: &str = "verify";

/// Every program on every kernel, then the tests in all VMs of the matrix, or on these kernels alone; a result for each.
pub fn run(kernels: &[Kernel], products: &Products, filter: Option<&str>) -> Result<Vec<(String, Tally)>> {
    let mut results = Vec::new();
    if filter.is_none_or(|filter| VERIFY.contains(filter)) {
        let wanted = if kernels.is_empty() { Kernel::value_variants() } else { kernels };
        let tally = verify::run(wanted, &products.enforcer(), false);
        results.push((format!("vm {VERIFY}"), tally));
    }
    if filter == Some(VERIFY) {
        return Ok(results);
    }
    let named = kernels.iter().map(|kernel| Place { kernel: *kernel, cgroups: Cgroups::V2, extent: Extent::Full });
    let places: Vec<Place> = if kernels.is_empty() { MATRIX.to_vec() } else { named.collect() };
    let queue = Mutex::new(places.iter().enumerate().collect::<VecDeque<_>>());
    let told = Mutex::new(Vec::new());
    let work = || {
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        while let Some((number, place)) = next() {
            let tally = place.suite(products, filter);
            told.lock().unwrap_or_else(PoisonError::into_inner).push((number, tally));
        }
    };
    // An emulated machine keeps little more than one core busy.
    let machines = thread::available_parallelism().map_or(1, NonZero::get).min(places.len());
    thread::scope(|scope| (0..machines).for_each(|_| drop(scope.spawn(work))));
    let mut told = told.into_inner().unwrap_or_else(PoisonError::into_inner);
    told.sort_by_key(|(number, _)| *number);
    for (number, tally) in told {
        results.push((format!("vm {}", places[number]), tally?));
    }
    Ok(results)
}

impl Place {
    /// Boots the VM with our programs in /bin and counts what the tests in it say.
    pub fn suite(self, products: &Products, filter: Option<&str>) -> Result<Tally> {
        let contents = Contents { programs: products.programs(), modules: &MODULES, cgroups: self.cgroups };
        let machine = Machine::new(self.kernel, &contents, MEMORY)?;
        let mut command = format!("/bin/ringfence-integration vm-suite --cgroups {}", self.cgroups.name());
        if self.extent == Extent::Brief {
            command.push_str(" --brief");
        }
        if let Some(filter) = filter {
            if !filter.chars().all(|c| c.is_ascii_alphanumeric() || "-_.: /".contains(c)) {
                bail!("the filter {filter:?} has characters that no test's name has");
            }
            command.extend([" --filter '", filter, "'"]);
        }
        println!("==> Linux {self} in a VM: {command}");
        let mut suite = Suite::default();
        let exit = machine.run(&command, TIMEOUT, |line| {
            println!("[{self}] {line}");
            suite.line(line);
        });
        let (mut tally, complaint) = suite.finish(exit.as_ref().ok().copied());
        match (exit, complaint) {
            (Err(error), _) => {
                println!("FAILED vm {self}: {error:#}");
                tally.failed = tally.failed.max(1);
            }
            (Ok(_), Some(complaint)) => println!("FAILED vm {self}: {complaint}"),
            (Ok(_), None) => {}
        }
        Ok(tally)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kernel, self.cgroups.name())
    }
}
