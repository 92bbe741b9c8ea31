//! The tests that need a cluster. One is started for all of them, for each Kubernetes.

mod account;
mod admission;
pub mod audit;
mod basics;
mod chart;
mod commands;
mod enforcement;
mod failure;
mod limits;
mod machine;
mod place;
mod pods;
mod policy;
pub mod release;
mod rights;
pub mod soak;
pub mod told;
mod traffic;
mod two_nodes;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, ensure};

use crate::cluster::{self, Boot, Cluster, Interrupt, Options, Version};
use crate::harness::Image;
use crate::suite::Report;
use audit::Audit;
use machine::Machine;
use place::Place;
use release::Release;

/// What the tests share.
pub struct Context {
    /// The cluster.
    pub cluster: Cluster,
    /// The folder with the static programs that are shipped.
    pub programs: PathBuf,
    /// What a second node's VM boots with.
    boot: Option<Boot>,
    /// The images of the programs are in the node.
    shipped: bool,
}

impl Context {
    /// Of a cluster that has nothing of ours yet.
    pub fn new(cluster: Cluster, programs: PathBuf) -> Self {
        Self { cluster, programs, boot: None, shipped: false }
    }

    /// One of those programs.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        let path = self.programs.join(name);
        ensure!(path.is_file(), "{} is missing: build it, or name another folder", path.display());
        Ok(path)
    }
}

/// Tests that belong together.
struct Part {
    /// Names of all of its tests.
    names: fn() -> Vec<String>,
    /// Runs those tests of it that the report wants.
    run: fn(&mut Context, &mut Report),
}

const PARTS: [Part; 8] = [
    basics::PART,
    admission::PART,
    enforcement::PART,
    limits::PART,
    chart::PART,
    failure::PART,
    commands::PART,
    two_nodes::PART,
];

/// Names of the tests of a table.
fn names_of<T>(tests: &[(&str, T)]) -> Vec<String> {
    tests.iter().map(|(name, _)| (*name).to_owned()).collect()
}

/// Runs the tests of a table in their order, on what was set up for them and is returned. If that failed, it is a
/// failure with the name `set_up`, and none of them runs.
fn in_turn<S, T: Copy>(
    report: &mut Report,
    (set_up, site): (&str, Result<S>),
    tests: &[(&str, T)],
    run: impl Fn(T, &mut S) -> Result<()>,
) -> Option<S> {
    match site {
        Ok(mut site) => {
            for (name, test) in tests {
                report.check(name, || run(*test, &mut site));
            }
            Some(site)
        }
        Err(error) => {
            report.fail(set_up, &format!("{error:#}"));
            None
        }
    }
}

/// A test of what a release in the cluster does.
type OfRelease = fn(&mut Cluster, &Release) -> Result<()>;

/// The same for tests that share a release.
fn over_release(
    context: &mut Context,
    report: &mut Report,
    (set_up, prepare): (&str, fn(&mut Context) -> Result<Release>),
    tests: &[(&str, OfRelease)],
) {
    let release = prepare(context);
    let site = release.map(|release| (&mut context.cluster, release));
    in_turn(report, (set_up, site), tests, |test, (cluster, release)| test(cluster, release));
}

const RULESETS: &str = include_str!("../../charts/ringfence/files/crds/runtimerulesets.yaml");
const POLICIES: &str = include_str!("../../charts/ringfence/files/crds/runtimepolicies.yaml");

const DEFINITIONS: [&str; 2] = ["crd/runtimerulesets.ringfence.dev", "crd/runtimepolicies.ringfence.dev"];

/// Makes rulesets and policies known to the API server, without a chart.
fn define(cluster: &Cluster) -> Result<()> {
    for definition in [RULESETS, POLICIES] {
        cluster.apply(definition)?;
    }
    let wait = ["wait", "--for=condition=Established", "--timeout=30s"];
    cluster.kubectl(wait.iter().chain(&DEFINITIONS)).map(drop)
}

/// Takes that back, with all rulesets and policies.
fn undefine(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(["delete"].iter().chain(&DEFINITIONS)).map(drop)
}

/// After the cluster is down, the machine is as it was.
const NOTHING_LEFT: &str = "cluster/nothing-left";

/// Prints the names of all tests that hold `filter`; of all versions' tests that are run without naming a version.
pub fn list(filter: &str, versions: &[Version]) -> Result<()> {
    let names = places(versions)?.into_iter().flat_map(|place| names(&place));
    for name in names.filter(|name| name.contains(filter)) {
        println!("{name}");
    }
    Ok(())
}

/// Named versions are tested wholly.
fn places(versions: &[Version]) -> Result<Vec<Place>> {
    if versions.is_empty() { Place::usual() } else { Ok(versions.iter().copied().map(Place::whole).collect()) }
}

/// Whole names of the tests in a place.
fn names(place: &Place) -> Vec<String> {
    let without = if place.version == Version::default() { crate::chart::names() } else { Vec::new() };
    without.into_iter().chain(of_cluster()).filter_map(|name| place.scope.name(&name)).collect()
}

fn of_cluster() -> impl Iterator<Item = String> {
    PARTS.iter().flat_map(|part| (part.names)()).chain([NOTHING_LEFT.to_owned()])
}

/// Runs all tests whose names hold `filter`; 1 if one failed. Without such a test no cluster is started.
///
/// Without a version it is everything on the newest, and the essential on the others if they are built already. A second
/// node boots with what is in the folder `boot`.
pub fn run(programs: &Path, filter: &str, versions: &[Version], boot: Option<&Path>) -> Result<ExitCode> {
    let boot = boot.map(Boot::of).transpose()?;
    let mut report = Report::new(filter);
    let interrupt = Interrupt::by_signals()?;
    for place in places(versions)? {
        let place = if boot.is_some() { place } else { place.without_second_node() };
        report.enter(place.scope.clone());
        if place.version == Version::default() {
            crate::chart::run(&mut report, &interrupt)?;
        }
        let wanted: Vec<_> = of_cluster().filter(|name| report.wants(name)).collect();
        if wanted.is_empty() {
            continue;
        }
        if place.to_be_built || place.version.is_built()? {
            on(place.version, programs, boot.as_ref(), &mut report, &interrupt)?;
        } else {
            let (name, whole) = (place.version.name(), place.version.kubernetes());
            let hint = format!("`cargo xtask test --only cluster --kubernetes {name}` builds it, for minutes");
            for name in wanted {
                report.skip(&name, &format!("Kubernetes {whole} is not built on this machine; {hint}"));
            }
        }
    }
    Ok(report.finish())
}

/// Runs the tests on one Kubernetes, in a cluster that is started for them and ended.
fn on(
    version: Version,
    programs: &Path,
    boot: Option<&Boot>,
    report: &mut Report,
    interrupt: &Interrupt,
) -> Result<()> {
    let audit = Audit::prepare()?;
    let options = Options { version, interrupt: interrupt.clone(), api_server: audit.arguments() };
    cluster::remove_stale()?;
    let before = Machine::look()?;
    let mut context = Context::new(Cluster::up(&options)?, programs.to_path_buf());
    context.boot = boot.cloned();
    context.cluster.import(&Image::busybox(pods::IMAGE))?;
    for part in &PARTS {
        let names = (part.names)();
        if names.iter().any(|name| report.wants(name)) {
            (part.run)(&mut context, report);
            interrupt.check()?;
            for name in names {
                if report.wants(&name) && !report.has(&name) {
                    report.fail(&name, "it did not run");
                }
            }
        }
    }
    let down = context.cluster.down();
    // Told whatever the filter says, if it is not so.
    let left = down.and_then(|()| before.compare(&Machine::look()?));
    if left.is_err() || report.wants(NOTHING_LEFT) {
        report.tell(NOTHING_LEFT, left);
    }
    Ok(())
}
