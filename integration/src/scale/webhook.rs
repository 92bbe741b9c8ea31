//! The webhook as it is shipped, as a process of this machine.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::site::{NAMESPACE, POLICY, Site, WEBHOOK};

/// Where it says how it is.
const HEALTH: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 18080);

/// A running one. Dropped, it is killed.
pub struct Webhook {
    child: Child,
    health: SocketAddr,
}

impl Webhook {
    /// Starts it, confined to some processors if they are named, and waits until it can answer.
    pub fn start(site: &mut Site, processors: Option<&str>, options: &[&str]) -> Result<Self> {
        let program = site.programs.join("ringfence-webhook");
        let mut command = match processors {
            Some(processors) => {
                let mut command = Command::new("taskset");
                command.args(["--cpu-list", processors]).arg(program);
                command
            }
            None => Command::new(program),
        };
        let log = std::fs::File::create(site.cluster.logs().join("ringfence-webhook.log"))?;
        command.args(["--namespace", NAMESPACE, "--policy", POLICY, "--identity", "measured", "--drain", "1s"]);
        command.arg("--listen").arg(WEBHOOK.to_string()).arg("--health").arg(HEALTH.to_string());
        command.args(["--certificate-name", &WEBHOOK.ip().to_string()]).args(options);
        command.env("KUBECONFIG", site.account_file("ringfence-webhook")?);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let mut webhook = Self { child: command.spawn().context("start the webhook")?, health: HEALTH };
        site.wait_for("the webhook", |cluster| {
            let ended = webhook.child.try_wait()?;
            ensure!(ended.is_none(), "the webhook has ended: see {}", cluster.logs().display());
            Ok(get(HEALTH, "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")))
        })?;
        Ok(webhook)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// One of its metrics: the sum of those whose line begins so.
    pub fn metric(&self, beginning: &str) -> Result<f64> {
        Ok(super::meter::sum(&get(self.health, "/metrics")?, beginning))
    }

    /// Waits until it has written nothing for a while.
    pub fn settled(&self, limit: Duration) -> Result<()> {
        let until = Instant::now() + limit;
        let (mut last, mut since) = (f64::NAN, Instant::now());
        while since.elapsed() < Duration::from_secs(12) {
            let now = self.metric("ringfence_webhook_writes_total")?;
            if now.to_bits() != last.to_bits() {
                (last, since) = (now, Instant::now());
            }
            ensure!(Instant::now() < until, "the webhook writes without end");
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the API server is told to trust the webhook.
pub fn trusted(site: &mut Site) -> Result<()> {
    site.wait_for("the webhooks' bundle", |cluster| {
        let path = "jsonpath={.webhooks[*].clientConfig.caBundle}";
        let bundles = |kind: &str| cluster.kubectl(["get", kind, "ringfence", "-o", path]);
        let told = |bundles: &str, count| bundles.split(' ').filter(|bundle| !bundle.is_empty()).count() == count;
        Ok(told(&bundles("mutatingwebhookconfiguration")?, 1) && told(&bundles("validatingwebhookconfiguration")?, 5))
    })
}

fn get(health: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&health, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: webhook\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
