//! Ending containers: by their runtime, and by their cgroup.

use std::collections::{BTreeSet, HashMap};
use std::fs;

use anyhow::{Context, Result, ensure};
use ringfence_containers::cgroups::{Hierarchies, cgroup_id};
use ringfence_containers::{ContainerEvent, ContainerKey, cgroup_names};

use super::follower::Follower;
use super::{IMAGE, is_alive, node_with_image, pids, sleeper};
use crate::harness::Spec;

/// Several processes that do not listen.
fn deaf() -> Spec {
    let script = "trap '' TERM INT HUP; for i in 1 2 3; do (trap '' TERM INT HUP; sleep 600; sleep 600) & done; echo ready; wait; sleep 600";
    Spec::new(IMAGE, ["sh", "-c", script])
}

/// The runtime kills everything, and keeps the exit status for whoever started it.
pub fn stop() -> Result<()> {
    let node = node_with_image()?;
    let container = node.run(&deaf().id("deaf"))?;
    container.wait_for_output("ready")?;
    let mut follower = Follower::containerd(&node, &[node.namespace()])?;
    follower.until_synced()?;
    let before = pids(&container)?;
    ensure!(before.len() >= 4, "{before:?}");
    let key = ContainerKey::new(node.namespace(), "deaf");
    follower.wait(follower.runtime().stop(&key))?;
    let exited = follower.next()?;
    ensure!(
        exited == ContainerEvent::Exited { key: key.clone(), pid: container.pid(), status: Some(137) },
        "{exited:?}"
    );
    let alive: Vec<u32> = before.into_iter().filter(|&pid| is_alive(pid)).collect();
    ensure!(alive.is_empty() && !container.is_running()?, "alive: {alive:?}");
    // Who started it still learns how it ended.
    ensure!(container.wait()? == 137, "the exit status is lost");
    // Who has ended is no error, nor who is gone, nor who never was.
    follower.wait(follower.runtime().stop(&key))?;
    container.remove()?;
    follower.wait(follower.runtime().stop(&key))?;
    follower.wait(follower.runtime().stop(&ContainerKey::new(node.namespace(), "never")))?;
    Ok(())
}

/// A running container's cgroups by its name, with the ids that the kernel has for its first process.
pub fn cgroups_are_found() -> Result<()> {
    let node = node_with_image()?;
    let container = node.run(&sleeper().id("web").label("app", "web"))?;
    let _other = node.run(&sleeper().id("webb"))?;
    let mut follower = Follower::containerd(&node, &[node.namespace()])?;
    let known = follower.until_known("web")?;
    let hierarchies = Hierarchies::detect()?;
    let names: HashMap<String, &str> = cgroup_names(&known).into_iter().map(|name| (name, "web")).collect();
    let found = hierarchies.find(&names)?;
    let of_process = hierarchies.of_process(container.pid())?;
    let sorted = |ids: Vec<(String, u64)>| ids.into_iter().collect::<BTreeSet<_>>();
    let by_name = sorted(found.iter().map(|(_, cgroup)| (cgroup.path.clone(), cgroup.id)).collect());
    let by_process = sorted(of_process.iter().map(|cgroup| (cgroup.path.clone(), cgroup.id)).collect());
    ensure!(!by_name.is_empty() && by_name == by_process, "{by_name:?} {by_process:?}");
    ensure!(by_name.iter().all(|(path, _)| *path == container.cgroup()), "{by_name:?}");
    Ok(())
}

/// Everything in the cgroup dies, also what hides in a nested one; nobody else.
pub fn kill_all() -> Result<()> {
    let node = node_with_image()?;
    let container = node.run(&deaf())?;
    container.wait_for_output("ready")?;
    let bystander = node.run(&sleeper())?;
    let before = pids(&container)?;
    // One of them moves into a nested cgroup of the hierarchies that count.
    let hidden = *before.last().context("no process")?;
    for directory in container.cgroup_directories()? {
        if directory.to_string_lossy().contains("/pids/") || directory.to_string_lossy().contains("/unified/") {
            fs::create_dir(directory.join("nested"))?;
            fs::write(directory.join("nested/cgroup.procs"), hidden.to_string())?;
            ensure!(cgroup_id(&directory.join("nested"))? != cgroup_id(&directory)?, "ids differ");
        }
    }
    let killed = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async { Hierarchies::detect()?.kill_all(container.cgroup()).await })?;
    ensure!(killed == before.len(), "killed {killed} of {before:?}");
    let alive: Vec<u32> = before.into_iter().filter(|&pid| is_alive(pid)).collect();
    ensure!(alive.is_empty(), "alive: {alive:?}");
    ensure!(container.wait()? == 137 && bystander.is_running()?, "the bystander should live");
    Ok(())
}

/// Processes that fork and end all the time, so that a list of them is stale when it is read.
pub fn kill_all_outruns_forks() -> Result<()> {
    let node = node_with_image()?;
    let script = "f() { while :; do (sleep 0.01; exec sh -c 'sleep 0.02 & sleep 600') & sleep 0.01; done; }; f & f & echo ready; f";
    let container = node.run(&Spec::new(IMAGE, ["sh", "-c", script]))?;
    container.wait_for_output("ready")?;
    let hierarchies = Hierarchies::detect()?;
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let killed = tokio.block_on(hierarchies.kill_all(container.cgroup()))?;
    ensure!(killed >= 3, "killed {killed}");
    ensure!(container.wait()? == 137, "it was killed");
    ensure!(tokio.block_on(hierarchies.kill_all(container.cgroup()))? == 0, "somebody was left");
    Ok(())
}
