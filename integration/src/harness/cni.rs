//! Networks of containers, made by the CNI plug-ins as a Kubernetes node would have it.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::netns::Netns;

/// Where distributions put the plug-ins.
pub const PLUGINS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

/// Bits of the prefix of each network's IPv4 addresses: a suite has more containers than a /24 has addresses, and the
/// plug-ins give none again before all have been used.
pub const PREFIX4: u8 = 16;

/// A network that containers can be attached to.
#[derive(Debug, Clone)]
pub struct Network {
    node: Arc<Netns>,
    plugins: PathBuf,
    config: Value,
    gateway4: Ipv4Addr,
    gateway6: Ipv6Addr,
}

/// A container's place in a network.
#[derive(Debug, Default)]
pub struct Attachment {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The node's end of its veth pair.
    pub host_interface: Option<String>,
}

impl Network {
    /// A bridge that all containers are ports of; it is there at once, with its addresses.
    pub fn bridge(node: &Arc<Netns>, directory: &Path) -> Result<Self> {
        let plugin = json!({"type": "bridge", "bridge": "bridge0", "isGateway": true, "hairpinMode": true});
        let network = Self::new(node, directory, "bridge", plugin, 88)?;
        // The plug-in makes the bridge with its first port.
        let first = Netns::new()?;
        network.attach("first", first.path())?;
        network.detach("first", first.path())?;
        Ok(network)
    }

    /// A veth pair per container, without a bridge.
    pub fn ptp(node: &Arc<Netns>, directory: &Path) -> Result<Self> {
        Self::new(node, directory, "ptp", json!({"type": "ptp"}), 89)
    }

    fn new(node: &Arc<Netns>, directory: &Path, name: &str, mut config: Value, subnet: u8) -> Result<Self> {
        let plugins = PLUGINS.iter().map(PathBuf::from).find(|directory| directory.join(name).is_file());
        let plugins = plugins.with_context(|| {
            format!("no CNI plug-in `{name}` in {}: install containernetworking-plugins", PLUGINS.join(" or "))
        })?;
        let (v4, v6) = (format!("10.{subnet}.0.0/{PREFIX4}"), format!("fd00:{subnet}::/64"));
        config["cniVersion"] = "1.0.0".into();
        config["name"] = name.into();
        config["ipam"] = json!({
            "type": "host-local",
            "dataDir": directory,
            "ranges": [[{"subnet": v4}], [{"subnet": v6}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        });
        let gateway4 = Ipv4Addr::new(10, subnet, 0, 1);
        let gateway6 = format!("fd00:{subnet}::1").parse()?;
        Ok(Self { node: node.clone(), plugins, config, gateway4, gateway6 })
    }

    /// The node's IPv4 address in this network.
    pub fn gateway4(&self) -> Ipv4Addr {
        self.gateway4
    }

    /// The node's IPv6 address in this network.
    pub fn gateway6(&self) -> Ipv6Addr {
        self.gateway6
    }

    /// Gives a network namespace an `eth0` here.
    pub fn attach(&self, id: &str, netns: &Path) -> Result<Attachment> {
        let result = self.call("ADD", id, netns)?;
        let texts = |list: &str, member: &str| -> Vec<(String, bool)> {
            let entries = result[list].as_array().into_iter().flatten();
            let text = |entry: &Value| Some((entry[member].as_str()?.to_owned(), entry["sandbox"].is_string()));
            entries.filter_map(text).collect()
        };
        let addresses = texts("ips", "address");
        let addresses: Result<Vec<IpAddr>> =
            addresses.iter().map(|(address, _)| Ok(address.split('/').next().unwrap_or_default().parse()?)).collect();
        let interfaces = texts("interfaces", "name").into_iter();
        let host_interface =
            interfaces.filter(|(name, inside)| !inside && name.starts_with("veth")).map(|(name, _)| name).next();
        Ok(Attachment { addresses: addresses?, host_interface })
    }

    /// Takes it away again.
    pub fn detach(&self, id: &str, netns: &Path) -> Result<()> {
        self.call("DEL", id, netns).map(drop)
    }

    fn call(&self, command: &str, id: &str, netns: &Path) -> Result<Value> {
        self.node.within(|| call(&self.plugins, &self.config, command, id, netns, "eth0"))
    }
}

/// Sets the loopback interface of a network namespace up.
pub fn loopback_up(netns: &Path) -> Result<()> {
    let plugins = PLUGINS.iter().map(Path::new).find(|directory| directory.join("loopback").is_file());
    let plugins = plugins.context("no CNI plug-in `loopback`: install containernetworking-plugins")?;
    let config = json!({"cniVersion": "1.0.0", "name": "lo", "type": "loopback"});
    call(plugins, &config, "ADD", "lo", netns, "lo").map(drop)
}

/// One call of a plug-in, as the CNI specification has it.
fn call(plugins: &Path, config: &Value, command: &str, id: &str, netns: &Path, interface: &str) -> Result<Value> {
    let name = config["type"].as_str().unwrap_or_default();
    let mut child = Command::new(plugins.join(name))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", id)
        .env("CNI_NETNS", netns)
        .env("CNI_IFNAME", interface)
        .env("CNI_PATH", plugins)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("CNI plug-in {name}"))?;
    child.stdin.take().context("no input")?.write_all(config.to_string().as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("CNI plug-in {name}, {command}: {said}{wrong}");
    }
    // DEL says nothing.
    Ok(if output.stdout.is_empty() { Value::Null } else { serde_json::from_slice(&output.stdout)? })
}
