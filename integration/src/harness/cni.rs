//! Networks of containers, made by the CNI plug-ins as a Kubernetes node would have it.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::netns::Netns;

/// Where distributions put the plug-ins.
pub const PLUGINS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

/// Bits of the prefix of each network's IPv4 addresses: a suite has more containers than a /24 has addresses, and the
/// plug-ins give none again before all have been used.
pub const PREFIX4: u8 = 16;

/// Which addresses a network gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
    /// Both.
    Dual,
}

/// The plug-in that attaches containers to a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plugin {
    /// Ports of a bridge that has the node's addresses.
    Bridge,
    /// A veth pair per container, without a bridge.
    PointToPoint,
    /// A device per container on a network card, with a hardware address of its own.
    Macvlan,
    /// The same with the card's hardware address.
    Ipvlan,
}

impl Plugin {
    /// Its program's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::PointToPoint => "ptp",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
        }
    }
}

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
    /// One of the node's, with subnets that have this number. A bridge is there at once, with its addresses.
    pub fn new(node: &Arc<Netns>, directory: &Path, plugin: Plugin, stack: Stack, number: u8) -> Result<Self> {
        let program = plugin.name();
        let plugins = PLUGINS.iter().map(PathBuf::from).find(|directory| directory.join(program).is_file());
        let plugins = plugins.with_context(|| {
            format!("no CNI plug-in `{program}` in {}: install containernetworking-plugins", PLUGINS.join(" or "))
        })?;
        let (v4, v6) = (format!("10.{number}.0.0/{PREFIX4}"), format!("fd00:{number}::/64"));
        let range = |subnet: &str| json!([{ "subnet": subnet }]);
        let (ranges, routes) = match stack {
            Stack::V4 => (json!([range(&v4)]), json!([{"dst": "0.0.0.0/0"}])),
            Stack::V6 => (json!([range(&v6)]), json!([{"dst": "::/0"}])),
            Stack::Dual => (json!([range(&v4), range(&v6)]), json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}])),
        };
        let mut config = json!({
            "cniVersion": "1.0.0",
            "name": format!("{program}{number}"),
            "type": program,
            "ipam": {"type": "host-local", "dataDir": directory, "ranges": ranges, "routes": routes},
        });
        let card = format!("card{number}");
        match plugin {
            Plugin::Bridge => {
                config["bridge"] = format!("bridge{number}").into();
                config["isGateway"] = true.into();
                config["hairpinMode"] = true.into();
            }
            Plugin::PointToPoint => {}
            Plugin::Macvlan => {
                config["mode"] = "bridge".into();
                config["master"] = card.as_str().into();
            }
            Plugin::Ipvlan => {
                config["mode"] = "l2".into();
                config["master"] = card.as_str().into();
            }
        }
        let gateway4 = Ipv4Addr::new(10, number, 0, 1);
        let gateway6 = format!("fd00:{number}::1").parse()?;
        let network = Self { node: node.clone(), plugins, config, gateway4, gateway6 };
        match plugin {
            Plugin::Bridge => {
                // The plug-in makes the bridge with its first port.
                let first = Netns::new()?;
                network.attach("first", first.path())?;
                network.detach("first", first.path())?;
            }
            Plugin::PointToPoint => {}
            Plugin::Macvlan | Plugin::Ipvlan => {
                let outside = format!("outside{number}");
                network.ip(&format!("link add {card} type veth peer name {outside}"))?;
                network.ip(&format!("link set {card} up"))?;
                network.ip(&format!("link set {outside} up"))?;
                network.ip(&format!("addr add {gateway4}/{PREFIX4} dev {outside}"))?;
                network.ip(&format!("addr add {gateway6}/64 dev {outside}"))?;
                // The kernel may have no such devices.
                network.ip(&format!("link add link {card} name probe{number} type {program}"))?;
                network.ip(&format!("link del probe{number}"))?;
            }
        }
        Ok(network)
    }

    /// ip(8), on the node.
    fn ip(&self, words: &str) -> Result<()> {
        let output = self.node.within(|| Command::new("ip").args(words.split(' ')).output()).context("ip")?;
        ensure!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }

    /// IPv4 address of the node in this network, of a macvlan or ipvlan that of the world outside.
    pub fn gateway4(&self) -> Ipv4Addr {
        self.gateway4
    }

    /// The same for IPv6.
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
