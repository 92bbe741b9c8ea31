//! What is tested where: kernels, layouts of control groups, and how much of the tests.

use std::{
    collections::VecDeque,
    fmt, mem,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use ringfence_image::Architecture;

use super::{
    Cgroups, Kernel, MODULES,
    initramfs::Contents,
    machine::{Machine, Patience},
    verify,
};
use crate::{
    interrupt, process,
    products::Products,
    tally::{Suite, Tally},
};

/// How much of the tests runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Everything.
    Full,
    /// Of each rule one behaviour and one near miss, on the strongest tier and the weakest.
    Brief,
    /// Every operation once, and every mitigation: emulated, this architecture is ten times slower than this machine's.
    Smoke,
    /// With containerd and runc in it: the networks that CNI plug-ins make, those tests whose name begins so.
    Networks(&'static str),
}

/// A VM that tests run in.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Its kernel.
    pub kernel: Kernel,
    /// What it emulates.
    pub architecture: Architecture,
    /// How control groups are mounted.
    pub cgroups: Cgroups,
    /// How much runs there.
    pub extent: Extent,
}

/// What `cargo xtask test` boots, the longest first.
const MATRIX: [Place; 14] = [
    Place::full(Kernel::V5_10),
    Place::full(Kernel::V6_1),
    Place::full(Kernel::V6_12),
    Place::full(Kernel::Newest),
    Place { cgroups: Cgroups::V1, extent: Extent::Brief, ..Place::full(Kernel::V6_1) },
    Place { cgroups: Cgroups::Hybrid, extent: Extent::Brief, ..Place::full(Kernel::V6_1) },
    Place { extent: Extent::Networks(NETWORKS), ..Place::full(Kernel::V6_12) },
    // Without tcx.
    Place { extent: Extent::Networks("networks/dual"), ..Place::full(Kernel::V5_10) },
    Place { extent: Extent::Networks("networks/dual/all"), ..Place::full(Kernel::V6_1) },
    Place { extent: Extent::Networks("networks/dual/all"), ..Place::full(Kernel::Newest) },
    Place { cgroups: Cgroups::V1, extent: Extent::Networks("networks/dual/all"), ..Place::full(Kernel::V6_1) },
    Place { cgroups: Cgroups::Hybrid, extent: Extent::Networks("networks/dual/all"), ..Place::full(Kernel::V6_1) },
    Place { architecture: Architecture::Arm64, extent: Extent::Smoke, ..Place::full(Kernel::V6_12) },
    Place { architecture: Architecture::Arm64, extent: Extent::Smoke, ..Place::full(Kernel::V5_10) },
];

/// With the tests in one VM. They take a quarter of that beside everything else on two cores, and say something every minute.
const PATIENCE: Patience = Patience { whole: Duration::from_mins(45), silence: Duration::from_mins(10) };

/// Memory of a VM, in MiB.
const MEMORY: u32 = 1536;

/// The part of the suite that is about networks.
pub const NETWORKS: &str = "networks";

/// The name by which the verification of all programs is filtered.
const VERIFY: &str = "verify";

/// Every program on the oldest kernel, then the tests in VMs. Whoever has nothing else to do lends a thread to it.
pub struct Matrix<'a> {
    products: &'a Products,
    /// For the other architecture, if it is among the places.
    foreign: Option<Products>,
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
    /// In all VMs, or everything on these kernels alone. Builds what the other architecture needs.
    pub fn new(kernels: &[Kernel], products: &'a Products, filter: Option<&'a str>) -> Result<Self> {
        let places: Vec<Place> = if kernels.is_empty() {
            MATRIX.to_vec()
        } else {
            let foreign = MATRIX.iter().filter(|place| place.architecture != products.architecture());
            let foreign = foreign.filter(|place| kernels.contains(&place.kernel)).copied();
            kernels.iter().map(|kernel| Place::full(*kernel)).chain(foreign).collect()
        };
        let verify = filter.is_none_or(|filter| VERIFY.contains(filter)).then_some(Job::Verify);
        let suites = if filter == Some(VERIFY) { 0 } else { places.len() };
        let todo = verify.into_iter().chain((0..suites).map(Job::Suite)).collect();
        let foreign = places[..suites].iter().map(|place| place.architecture).find(|of| *of != products.architecture());
        let foreign = foreign.map(Products::build_for).transpose()?;
        Ok(Self { products, foreign, filter, places, todo: Mutex::new(todo), told: Mutex::default() })
    }

    /// One after the other, until nothing is left that nobody has begun, or somebody interrupts all this.
    pub fn work(&self) {
        let next = || interrupt::check().ok().and_then(|()| locked(&self.todo).pop_front());
        while let Some(job) = next() {
            let began = Instant::now();
            let tally = match job {
                Job::Verify => Ok(verify::run(&self.oldest(), &self.products.enforcer(), false)),
                Job::Suite(number) => self.suite(self.places[number]),
            };
            let seconds = began.elapsed().as_secs();
            println!("==> {} took {} min {} s", self.name(job), seconds / 60, seconds % 60);
            locked(&self.told).push((job, tally));
        }
    }

    fn suite(&self, place: Place) -> Result<Tally> {
        let built = [Some(self.products), self.foreign.as_ref()];
        let products = built.into_iter().flatten().find(|products| products.architecture() == place.architecture);
        place.suite(products.context("nothing is built for this architecture")?, self.filter)
    }

    /// Nothing else is begun.
    pub fn stop(&self) {
        locked(&self.todo).clear();
    }

    /// A result for each, when all threads are through.
    pub fn finish(&self) -> Result<Vec<(String, Tally)>> {
        let mut told = mem::take(&mut *locked(&self.told));
        told.sort_by_key(|(job, _)| *job);
        told.into_iter().map(|(job, tally)| Ok((self.name(job), tally?))).collect()
    }

    fn name(&self, job: Job) -> String {
        match job {
            Job::Verify => format!("vm {VERIFY}"),
            Job::Suite(number) => format!("vm {}", self.places[number]),
        }
    }

    /// The verifier that refuses most. All programs are loaded on the others as well, by their suites.
    fn oldest(&self) -> verify::Kernels {
        let kernels = self.places.first().map(|place| place.kernel).into_iter().collect();
        verify::Kernels { kernels, architecture: self.products.architecture() }
    }
}

pub(super) fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Place {
    /// Everything on a kernel, as this machine has it: cgroup v2, and its architecture.
    const fn full(kernel: Kernel) -> Self {
        Self { kernel, architecture: Architecture::Amd64, cgroups: Cgroups::V2, extent: Extent::Full }
    }

    /// Boots the VM with our programs in /bin and counts what the tests in it say.
    pub fn suite(self, products: &Products, filter: Option<&str>) -> Result<Tally> {
        let of_this_machine = match self.extent {
            Extent::Full | Extent::Brief => programs_of_this_machine(&["runc"])?,
            // There is no runc for it.
            Extent::Smoke => Vec::new(),
            Extent::Networks(_) => containers()?,
        };
        let (programs, cgroups) = (products.programs(), self.cgroups);
        let contents = Contents { programs, of_this_machine, modules: &MODULES, cgroups };
        let machine = Machine::new(self.kernel, self.architecture, &contents, MEMORY)?;
        let suite =
            |extent| format!("/bin/ringfence-integration vm-suite --cgroups {} --extent {extent}", self.cgroups.name());
        let mut command = match self.extent {
            Extent::Full => suite("full"),
            Extent::Brief => suite("brief"),
            Extent::Smoke => suite("smoke"),
            Extent::Networks(part) => format!("/bin/ringfence-integration suite --part {part}"),
        };
        if let Some(filter) = filter {
            command.extend([" --filter '", filter, "'"]);
        }
        println!("==> Linux {self} in a VM: {command}");
        let mut suite = Suite::default();
        let exit = machine.run(&command, PATIENCE, |line| {
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
        match self.architecture {
            Architecture::Amd64 => write!(f, "{} {}", self.kernel, self.cgroups.name())?,
            Architecture::Arm64 => write!(f, "{} {} {}", self.kernel, self.architecture, self.cgroups.name())?,
        }
        match self.extent {
            Extent::Networks(part) => write!(f, " {part}"),
            Extent::Full | Extent::Brief | Extent::Smoke => Ok(()),
        }
    }
}

/// What containers and their networks are made by.
const CONTAINERS: [&str; 7] = ["containerd", "containerd-shim-runc-v2", "ctr", "runc", "ip", "nsenter", "setpriv"];
const PLUGINS: [&str; 6] = ["bridge", "ptp", "macvlan", "ipvlan", "host-local", "loopback"];

/// Where Debian's package has the plug-ins, and the suite looks for them.
const PLUGINS_FOLDER: &str = "/usr/lib/cni";

/// A part of tests' names, as it may stand in a VM's command line, between quotation marks.
pub fn part_of_a_name(text: &str) -> Result<String, String> {
    if text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:/() ".contains(c)) {
        Ok(text.to_owned())
    } else {
        Err("names of tests have letters, digits, blanks and -_.:/() in them, nothing else".to_owned())
    }
}

/// Programs of this machine, and where the suite finds them in a VM.
fn programs_of_this_machine(names: &[&str]) -> Result<Vec<(PathBuf, PathBuf)>> {
    let program = |name: &&str| {
        let found = process::find(name).with_context(|| format!("{name} is not installed"))?;
        Ok((found, Path::new("/usr/bin").join(name)))
    };
    names.iter().map(program).collect()
}

fn containers() -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut programs = programs_of_this_machine(&CONTAINERS)?;
    programs.extend(PLUGINS.map(|name| Path::new(PLUGINS_FOLDER).join(name)).map(|path| (path.clone(), path)));
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_the_quotation_is_no_part_of_a_name() {
        assert!(part_of_a_name("vm/kprobe/coverage/RF-906/open (write)").is_ok());
        assert!(part_of_a_name("x'; reboot").is_err());
    }
}
