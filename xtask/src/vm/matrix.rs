//! What is tested where: kernels, layouts of control groups, and how much of the tests.

use std::{
    collections::VecDeque,
    fmt, mem,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
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

/// Longest time for the tests in one VM. Four times what they take beside everything else on two cores.
const TIMEOUT: Duration = Duration::from_mins(45);

/// Memory of a VM, in MiB.
const MEMORY: u32 = 1536;

/// The name by which the verification of all programs is filtered.
const VERIFY: &str = "verify";

/// Every program on every kernel, then the tests in VMs. Whoever has nothing else to do lends a thread to it.
pub struct Matrix<'a> {
    products: &'a Products,
    filter: Option<&'a str>,
    places: Vec<Place>,
    todo: Mutex<VecDeque<Job>>,
    told: Mutex<Vec<(Job, Result<Tally>)>>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Job {
    Verify,
    /// Of the places, by number.
    Suite(usize),
}

impl<'a> Matrix<'a> {
    /// In all VMs, or on these kernels alone.
    pub fn new(kernels: &[Kernel], products: &'a Products, filter: Option<&'a str>) -> Self {
        let named = kernels.iter().map(|kernel| Place { kernel: *kernel, cgroups: Cgroups::V2, extent: Extent::Full });
        let places: Vec<Place> = if kernels.is_empty() { MATRIX.to_vec() } else { named.collect() };
        let verify = filter.is_none_or(|filter| VERIFY.contains(filter)).then_some(Job::Verify);
        let suites = if filter == Some(VERIFY) { 0 } else { places.len() };
        let todo = verify.into_iter().chain((0..suites).map(Job::Suite)).collect();
        Self { products, filter, places, todo: Mutex::new(todo), told: Mutex::default() }
    }

    /// One after the other, until nothing is left that nobody has begun.
    pub fn work(&self) {
        let next = || self.todo.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        while let Some(job) = next() {
            let began = Instant::now();
            let tally = match job {
                Job::Verify => Ok(verify::run(&self.kernels(), &self.products.enforcer(), false)),
                Job::Suite(number) => self.places[number].suite(self.products, self.filter),
            };
            let seconds = began.elapsed().as_secs();
            println!("==> {} took {} min {} s", self.name(job), seconds / 60, seconds % 60);
            self.told.lock().unwrap_or_else(PoisonError::into_inner).push((job, tally));
        }
    }

    /// Nothing else is begun.
    pub fn stop(&self) {
        self.todo.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// A result for each, when all threads are through.
    pub fn finish(&self) -> Result<Vec<(String, Tally)>> {
        let mut told = mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner));
        told.sort_by_key(|(job, _)| *job);
        told.into_iter().map(|(job, tally)| Ok((self.name(job), tally?))).collect()
    }

    fn name(&self, job: Job) -> String {
        match job {
            Job::Verify => format!("vm {VERIFY}"),
            Job::Suite(number) => format!("vm {}", self.places[number]),
        }
    }

    fn kernels(&self) -> Vec<Kernel> {
        let used = |kernel: &Kernel| self.places.iter().any(|place| place.kernel == *kernel);
        Kernel::value_variants().iter().copied().filter(used).collect()
    }
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
