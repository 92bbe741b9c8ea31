//! What crate `containers` tells of containerd.

use std::collections::BTreeSet;
use std::thread;

use anyhow::{Context, Result, ensure};
use containerd_client::services::v1::{
    Container as Record, UpdateContainerRequest, containers_client::ContainersClient,
};
use ringfence_containers::{ContainerEvent, ContainerKey, Kind, cgroup_names};

use super::super::client::plain;
use super::follower::Follower;
use super::{IMAGE, node_with_image, sleeper};
use crate::harness::{Image, Spec};

/// From its creation to its end, with everything that is known of it.
pub fn a_life_in_order() -> Result<()> {
    let node = node_with_image()?;
    let mut follower = Follower::containerd(&node, &[node.namespace()])?;
    ensure!(follower.next()? == ContainerEvent::Synced, "nothing exists yet");
    let spec = Spec::new(IMAGE, ["sh", "-c", "exit 5"]).id("web").label("app", "web").network(node.bridge());
    let mut created = node.create(&spec)?;
    let known = follower.next_known()?;
    let key = ContainerKey::new(node.namespace(), "web");
    ensure!(known.key == key && known.kind == Kind::Plain && known.pod.is_none() && known.name == "web", "{known:?}");
    ensure!(known.selector_labels().get("app").is_some_and(|value| value == "web"), "{:?}", known.labels);
    let digest = Image::busybox(IMAGE).build()?.manifest.digest;
    ensure!(known.image == IMAGE && known.image_digest.as_deref() == Some(&digest), "{known:?}");
    ensure!(known.snapshotter == "overlayfs" && !known.host_network && known.pid.is_none(), "{known:?}");
    ensure!(known.netns.as_deref() == created.netns(), "{:?}", known.netns);
    ensure!(cgroup_names(&known) == [format!("{}/web", node.namespace())], "{:?}", cgroup_names(&known));
    created.start()?;
    let pid = created.pid();
    ensure!(follower.next()? == ContainerEvent::Created { key: key.clone(), pid }, "creation");
    ensure!(follower.next()? == ContainerEvent::Started { key: key.clone(), pid }, "start");
    ensure!(follower.next()? == ContainerEvent::Exited { key: key.clone(), pid, status: Some(5) }, "end");
    created.remove()?;
    ensure!(follower.next()? == ContainerEvent::Removed(key), "removal");
    Ok(())
}

/// Containers that were there first, in each of their states.
pub fn what_runs_already() -> Result<()> {
    let node = node_with_image()?;
    let _created = node.create(&sleeper().id("created"))?;
    let running = node.run(&sleeper().id("running").host_network())?;
    let ended = node.run(&Spec::new(IMAGE, ["true"]).id("ended"))?;
    ended.wait()?;
    let mut follower = Follower::containerd(&node, &[node.namespace()])?;
    let mut told = Vec::new();
    follower.until(|event| {
        told.push(event.clone());
        matches!(event, ContainerEvent::Synced).then_some(())
    })?;
    let known: BTreeSet<&str> = told
        .iter()
        .filter_map(|event| if let ContainerEvent::Known(known) = event { Some(known.key.id.as_str()) } else { None })
        .collect();
    ensure!(known == BTreeSet::from(["created", "ended", "running"]), "{known:?}");
    let key = ContainerKey::new(node.namespace(), "running");
    let started: Vec<_> = told.iter().filter(|event| matches!(event, ContainerEvent::Started { .. })).collect();
    ensure!(started == [&ContainerEvent::Started { key: key.clone(), pid: running.pid() }], "{started:?}");
    let host = told
        .iter()
        .any(|event| matches!(event, ContainerEvent::Known(known) if known.key == key && known.host_network));
    ensure!(host, "{told:?}");
    ensure!(told.len() == 5, "{told:?}");
    Ok(())
}

/// The promise that everything rests on: whoever acts on `Known` acts before the container's cgroup exists. Under load.
pub fn known_before_it_runs() -> Result<()> {
    const COUNT: usize = 24;
    let node = node_with_image()?;
    let mut follower = Follower::containerd(&node, &[node.namespace()])?;
    follower.until_synced()?;
    let spec = Spec::new(IMAGE, ["true"]);
    let (late, ended) = thread::scope(|scope| -> Result<(Vec<String>, usize)> {
        let starters: Vec<_> = (0..3)
            .map(|_| {
                let run = || -> Result<()> {
                    for _ in 0..COUNT / 3 {
                        node.run(&spec)?.wait()?;
                    }
                    Ok(())
                };
                scope.spawn(run)
            })
            .collect();
        let (mut late, mut ended, mut known) = (Vec::new(), 0, BTreeSet::new());
        while ended < COUNT {
            match follower.next()? {
                ContainerEvent::Known(container) => {
                    // By the time we hear of it its first process must not have been made.
                    if container.pid.is_some()
                        || std::path::Path::new("/sys/fs/cgroup/pids").join(&container.cgroups_path[1..]).exists()
                    {
                        late.push(container.key.to_string());
                    }
                    known.insert(container.key);
                }
                ContainerEvent::Created { key, .. } | ContainerEvent::Started { key, .. } if !known.contains(&key) => {
                    late.push(key.to_string());
                }
                ContainerEvent::Exited { .. } => ended += 1,
                _ => {}
            }
        }
        for starter in starters {
            starter.join().ok().context("a thread panicked")??;
        }
        Ok((late, ended))
    })?;
    ensure!(late.is_empty() && ended == COUNT, "known too late: {late:?}");
    Ok(())
}

/// Labels that are changed later are told again.
pub fn labels_change() -> Result<()> {
    let node = node_with_image()?;
    let container = node.run(&sleeper().id("web").label("app", "web"))?;
    let mut follower = Follower::containerd(&node, &[node.namespace()])?;
    follower.until_synced()?;
    let record =
        Record { id: "web".to_owned(), labels: [("app".to_owned(), "shop".to_owned())].into(), ..Record::default() };
    let mask = prost_types::FieldMask { paths: vec!["labels".to_owned()] };
    let update = UpdateContainerRequest { container: Some(record), update_mask: Some(mask) };
    let channel = follower.wait(containerd_client::connect(node.socket()))?;
    follower.wait(ContainersClient::new(channel).update(plain(node.namespace(), update)))?;
    let known = follower.next_known()?;
    ensure!(known.labels.get("app").is_some_and(|value| value == "shop"), "{known:?}");
    ensure!(known.pid == Some(container.pid()), "{known:?}");
    Ok(())
}

/// Only the namespaces that were asked for.
pub fn other_namespaces_are_not_told() -> Result<()> {
    let node = node_with_image()?;
    let mut other = Follower::containerd(&node, &["default", "k8s.io"])?;
    let mut own = Follower::containerd(&node, &["default", node.namespace()])?;
    other.until_synced()?;
    own.until_synced()?;
    node.run(&Spec::new(IMAGE, ["true"]))?.wait()?;
    own.until(|event| matches!(event, ContainerEvent::Removed(_)).then_some(()))?;
    // An event that it must see, to know that it would have seen the others before.
    node.crash_containerd()?;
    let next = other.next()?;
    ensure!(matches!(next, ContainerEvent::Disconnected { .. }), "{next:?}");
    node.restart_containerd()
}

/// containerd is killed. What happens meanwhile is told afterwards; what stays is not told twice.
pub fn containerd_crashes() -> Result<()> {
    let node = node_with_image()?;
    let stays = node.run(&sleeper().id("stays"))?;
    let ends = node.run(&sleeper().id("ends"))?;
    let mut follower = Follower::containerd(&node, &[node.namespace()])?;
    follower.until_synced()?;
    node.crash_containerd()?;
    let next = follower.next()?;
    ensure!(matches!(next, ContainerEvent::Disconnected { .. }), "{next:?}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(ends.pid().cast_signed()), nix::sys::signal::Signal::SIGKILL)?;
    node.restart_containerd()?;
    let (mut exited, mut synced) = (None, false);
    while exited.is_none() || !synced {
        match follower.next()? {
            ContainerEvent::Exited { key, pid, .. } => exited = Some((key.id, pid)),
            ContainerEvent::Synced => synced = true,
            ContainerEvent::Disconnected { .. } => {}
            other => anyhow::bail!("told twice: {other:?}"),
        }
    }
    ensure!(exited == Some(("ends".to_owned(), ends.pid())), "{exited:?}");
    let new = node.run(&sleeper().id("new"))?;
    follower.until(|event| matches!(event, ContainerEvent::Started { pid, .. } if *pid == new.pid()).then_some(()))?;
    ensure!(stays.is_running()?, "it should have lived on");
    Ok(())
}
