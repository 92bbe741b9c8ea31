//! The file of violations on a disk without room: said once and counted, and nothing else suffers from it.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use ringfence_control::Violation;
use ringfence_policy::Mitigation;

use super::Part;
use super::context::Context;
use super::usage::{alone, refused};
use crate::cases::Needs;
use crate::enforcer::Enforcer;
use crate::wait;

pub const PART: Part = Part::Table(&[
    ("log/full-at-start", |context| with_disk(context, full_at_start)),
    ("log/fills-up", |context| with_disk(context, fills_up)),
]);

/// Violations while the disk is full. One more than fit into what is left of the file's last page.
const WHILE_FULL: usize = 8;

fn with_disk(context: &mut Context, test: fn(&mut Context, &Disk) -> Result<()>) -> Result<()> {
    let disk = Disk::mount(context.node.directory().join("disk"))?;
    let result = test(context, &disk);
    // The next test finds the enforcer as it was, which also lets go of the disk.
    let restored = context.restart_with(&[]);
    result.and(restored)
}

/// A tiny disk. Only this process and its children see it.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: PathBuf) -> Result<Self> {
        fs::create_dir_all(&path)?;
        mount(Some("disk"), &path, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).context("mount a tmpfs")?;
        Ok(Self(path))
    }

    fn log(&self) -> PathBuf {
        self.0.join("violations.json")
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Takes every byte that is left.
    fn fill(&self) -> Result<()> {
        let mut filler = File::create(self.filler())?;
        loop {
            match filler.write(&[0; 4096]) {
                Ok(1..) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                other => bail!("the disk does not fill up: {other:?}"),
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.0, MntFlags::MNT_DETACH) {
            eprintln!("unmount {}: {error}", self.0.display());
        }
    }
}

fn full_at_start(context: &mut Context, disk: &Disk) -> Result<()> {
    alone(context)?;
    disk.fill()?;
    let mut command = context.start.command(&context.node);
    refused(command.arg("--log-file").arg(disk.log()), &["--log-file", "violations.json", "no space"])
}

fn fills_up(context: &mut Context, disk: &Disk) -> Result<()> {
    let log = disk.log();
    context.restart_with(&["--log-file", log.to_str().context("a strange path")?])?;
    let spec = context.spec(Needs::Nothing, "RF-501", Mitigation::Log, ["actor", "sleep", "600000"]);
    let container = context.run(&spec)?;
    let violate = || container.exec(["cat", "/etc/shadow"]).map(drop);
    violate()?;
    wait::until("the first violation is in the file", || Ok(lines(&log)?.len() == 1))?;

    disk.fill()?;
    for _ in 0..WHILE_FULL {
        violate()?;
    }
    let spec = context.spec(Needs::Nothing, "RF-501", Mitigation::Isolate, ["actor", "sleep", "600000"]);
    let isolated = context.run(&spec)?;
    isolated.exec(["cat", "/etc/shadow"])?;
    let enforcer = context.enforcer()?;
    wait::until("the container is isolated", || Ok(enforcer.container(isolated.id())?.isolated.is_some()))?;
    wait::until("status tells of what is missing", || {
        Ok(enforcer.status()?.warnings.iter().any(|warning| warning.contains("violations.json")))
    })?;
    ensure!(said(enforcer, "can't be written") == 1, "not said once: {}", enforcer.messages());

    fs::remove_file(disk.filler())?;
    violate()?;
    wait::until("it says that there is room again", || Ok(said(enforcer, "can be written to") == 1))?;
    let written = lines(&log)?;
    for line in &written {
        serde_json::from_str::<Violation>(line).with_context(|| format!("a line is torn: {line}"))?;
    }
    // The first, those that still fitted, the last; the isolated container's is among all of them as well.
    let missing = 1 + WHILE_FULL + 1 + 1 - written.len();
    ensure!(missing > 0, "everything fitted: the disk was not full");
    let count = format!("; {missing} are missing there");
    ensure!(said(enforcer, &count) == 1, "{missing} are missing, but it said: {}", enforcer.messages());
    Ok(())
}

fn lines(file: &Path) -> Result<Vec<String>> {
    Ok(fs::read_to_string(file)?.lines().map(str::to_owned).collect())
}

/// How many lines of its messages hold `text`.
fn said(enforcer: &Enforcer, text: &str) -> usize {
    enforcer.messages().lines().filter(|line| line.contains(text)).count()
}
