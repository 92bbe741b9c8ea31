//! The cluster's network: a namespace of its own, and one veth pair between it and whoever uses the cluster.
//!
//! Bridges, pods' interfaces, kube-proxy's rules and all ports are in that namespace, and go with it. From outside, the
//! node, the pods and the Services' addresses are reached through the veth pair; nothing is forwarded the other way.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::harness::{Netns, loopback_up};

/// The end of the veth pair outside.
pub const LINK: &str = "rf-cluster0";

/// Where the API server listens.
pub const API_PORT: u16 = 6443;

/// The node's address. The range is for benchmarks of network devices (RFC 2544): nobody routes it.
pub const NODE_ADDRESS: &str = "198.18.0.2";
const OUTSIDE_ADDRESS: &str = "198.18.0.1";
/// Of both links.
pub const BITS: &str = "/30";

/// Addresses of pods.
pub const PODS: &str = "10.244.0.0/24";

/// The second node's address, on a link of its own with the first, which is its way to everything else.
pub const SECOND_ADDRESS: &str = "198.18.0.6";
/// The first node's address on that link.
pub const SECOND_GATEWAY: &str = "198.18.0.5";
/// Addresses of the second node's pods.
pub const SECOND_PODS: &str = "10.244.1.0/24";
/// The first node's end of that link.
pub const SECOND_LINK: &str = "node2";

/// Addresses of Services, and the first of them.
pub const SERVICES: &str = "10.96.0.0/16";
/// The API server's Service.
pub const API_SERVICE: &str = "10.96.0.1";
/// Where a cluster's DNS would be.
pub const DNS_SERVICE: &str = "10.96.0.10";

/// Makes the namespace and the way into it.
pub fn create() -> Result<Netns> {
    let netns = Netns::new()?;
    loopback_up(netns.path())?;
    let path = netns.path().display().to_string();
    ip(&["link", "add", LINK, "type", "veth", "peer", "name", "eth0", "netns", &path])?;
    ip(&["address", "add", &format!("{OUTSIDE_ADDRESS}{BITS}"), "dev", LINK])?;
    ip(&["link", "set", LINK, "up"])?;
    // A pod must not get out, even where this machine forwards for others.
    let forwarding = format!("/proc/sys/net/ipv4/conf/{LINK}/forwarding");
    fs::write(&forwarding, "0").context(forwarding)?;
    netns.within(|| -> Result<()> {
        ip(&["address", "add", &format!("{NODE_ADDRESS}{BITS}"), "dev", "eth0"])?;
        ip(&["link", "set", "eth0", "up"])?;
        ip(&["route", "add", "default", "via", OUTSIDE_ADDRESS])?;
        let forward = "/proc/sys/net/ipv4/ip_forward";
        fs::write(forward, "1").context(forward)
    })?;
    for range in [PODS, SERVICES] {
        ip(&["route", "add", range, "via", NODE_ADDRESS, "dev", LINK])
            .with_context(|| format!("does this machine use {range} already?"))?;
    }
    Ok(netns)
}

/// Makes the link to the second node, whose other end is a VM's. For a thread in the namespace.
pub fn create_second() -> Result<()> {
    ip(&["tuntap", "add", "dev", SECOND_LINK, "mode", "tap"])?;
    ip(&["address", "add", &format!("{SECOND_GATEWAY}{BITS}"), "dev", SECOND_LINK])?;
    ip(&["link", "set", SECOND_LINK, "up"])?;
    ip(&["route", "add", SECOND_PODS, "via", SECOND_ADDRESS, "dev", SECOND_LINK])
}

/// Removes that link, and the route over it. For a thread in the namespace.
pub fn remove_second() -> Result<()> {
    ip(&["link", "delete", SECOND_LINK])
}

/// Whether the veth pair is there.
pub fn exists() -> bool {
    Path::new("/sys/class/net").join(LINK).exists()
}

/// Removes the veth pair; with it go the routes through it.
pub fn remove() -> Result<()> {
    match ip(&["link", "delete", LINK]) {
        // It also goes with the namespace at its other end.
        Err(error) if exists() => Err(error),
        _ => Ok(()),
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("ip: is iproute2 installed?")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`ip {}`: {}", arguments.join(" "), said.trim());
    Ok(())
}
