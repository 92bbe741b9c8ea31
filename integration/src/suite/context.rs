//! What the tests share: the node, the enforcer, the sink, the journal.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use ringfence_control::Violation;
use ringfence_policy::{Catalogue, Mitigation};

use crate::bpffs::Bpffs;
use crate::cases::{Act, Needs, Places};
use crate::enforcer::{Enforcer, Start};
use crate::harness::{Container, Node, Output, Spec};
use crate::journal::Journal;
use crate::sink::Sink;
use crate::{image, rulesets};

/// The programs under test.
pub struct Programs {
    /// The enforcer.
    pub enforcer: PathBuf,
    /// The actor, static.
    pub actor: PathBuf,
}

/// What the tests share.
pub struct Context {
    /// Declared before the node: dropped before it.
    enforcer: Option<Enforcer>,
    /// An enforcer has run, and may have left something.
    has_run: bool,
    /// The node's end of the traffic.
    pub sink: Sink,
    /// What placeholders stand for.
    pub places: Places,
    /// How the enforcer is started.
    pub start: Start,
    /// What enforcers printed.
    pub journal: Journal,
    /// Declared before the node: its directory is below the node's.
    bpffs: Bpffs,
    /// The node.
    pub node: Node,
}

impl Context {
    /// A node with the image, the rulesets and the sink. The enforcer is started when a test wants it.
    pub fn start(programs: &Programs) -> Result<Self> {
        let node = Node::start().context("start the node")?;
        node.import(&image::image(&programs.actor)).context("import the image")?;
        let rulesets = node.directory().join("rulesets");
        rulesets::write(&rulesets, Catalogue::builtin())?;
        let sink = Sink::start(&node)?;
        let network = node.bridge();
        let places = Places {
            gateway4: network.gateway4().to_string(),
            gateway6: network.gateway6().to_string(),
            mac: String::new(),
            port: sink.port(),
        };
        let bpffs = Bpffs::mount(node.directory().join("bpf"))?;
        let start = Start {
            program: programs.enforcer.clone(),
            rulesets,
            control: node.directory().join("enforcer.sock"),
            state: node.directory().join("state"),
            bpffs: bpffs.path().into(),
            // Every answer of the kernel is held against the rules' declarations.
            options: vec!["--check".into()],
        };
        Ok(Self { enforcer: None, has_run: false, sink, places, start, journal: Journal::default(), bpffs, node })
    }

    /// The running enforcer; it is started if there is none.
    pub fn enforcer(&mut self) -> Result<&Enforcer> {
        let running = match &mut self.enforcer {
            Some(enforcer) => enforcer.is_running()?,
            None => false,
        };
        if !running {
            if let Some(ended) = self.enforcer.take() {
                eprintln!("the enforcer had ended by itself: {}", ended.messages());
            }
            self.has_run = true;
            self.enforcer = Some(self.start.start(&self.node, &self.journal).context("start the enforcer")?);
        }
        self.enforcer.as_ref().context("it was just started")
    }

    /// The end of what the enforcer said on its error output.
    pub fn enforcer_says(&self) -> String {
        let messages = self.enforcer.as_ref().map(Enforcer::messages).unwrap_or_default();
        let lines: Vec<_> = messages.lines().rev().take(5).collect();
        format!("the enforcer said last: {}", lines.into_iter().rev().collect::<Vec<_>>().join("; "))
    }

    /// Takes the enforcer out, for tests that end it in their own way.
    pub fn take_enforcer(&mut self) -> Result<Enforcer> {
        self.enforcer()?;
        self.enforcer.take().context("it was just started")
    }

    /// Ends the enforcer, if one runs.
    pub fn stop_enforcer(&mut self) -> Result<()> {
        self.enforcer.take().map_or(Ok(()), |enforcer| enforcer.stop().map(drop))
    }

    /// Ends the enforcer, removes what it has left, and starts one with these options besides the usual ones.
    pub fn restart_with(&mut self, options: &[&str]) -> Result<()> {
        if let Some(enforcer) = self.enforcer.take() {
            enforcer.stop()?;
        }
        let output = self.start.uninstall(&self.node)?;
        ensure!(output.status.success(), "uninstall: {}", String::from_utf8_lossy(&output.stderr));
        self.start.options = vec!["--check".into()];
        self.start.options.extend(options.iter().map(|option| (*option).to_owned()));
        self.enforcer()?;
        Ok(())
    }

    /// Ends everything; what is left over is an error.
    pub fn stop(mut self) -> Result<()> {
        if let Some(enforcer) = self.enforcer.take() {
            enforcer.stop()?;
        }
        if self.has_run {
            let output = self.start.uninstall(&self.node)?;
            ensure!(output.status.success(), "uninstall: {}", String::from_utf8_lossy(&output.stderr));
        }
        drop(self.sink);
        drop(self.bpffs);
        self.node.stop()
    }

    /// A container with what `needs` says, governed by the ruleset for the rule and mitigation.
    pub fn spec<'a>(
        &self,
        needs: Needs,
        rule: &str,
        mitigation: Mitigation,
        command: impl IntoIterator<Item = &'a str>,
    ) -> Spec {
        let spec = Spec::new(image::NAME, command)
            .label(rulesets::RULE, rule)
            .label(rulesets::MITIGATION, &mitigation.to_string())
            .network(self.node.bridge())
            // Where a program may be executed, as on nodes that share it among a pod's containers.
            .mount("tmpfs", "shm", "/dev/shm", &["nosuid", "nodev", "mode=1777"]);
        match needs {
            Needs::Nothing => spec,
            Needs::Privileged => spec.privileged(),
        }
    }

    /// Starts a container. What its addresses sent before, as another container's, is forgotten.
    pub fn run(&mut self, spec: &Spec) -> Result<Container> {
        let mut container = self.node.create(spec)?;
        for address in container.addresses() {
            self.sink.forget(*address);
        }
        container.start()?;
        Ok(container)
    }

    /// Does something in a container.
    pub fn act(&self, container: &Container, act: &Act) -> Result<Output> {
        let arguments = act.arguments(&self.places);
        if act.tty { container.exec_tty(arguments) } else { container.exec(arguments) }
    }
}

/// Whether an event is of a container and a rule.
pub fn of(container: &Container, rule: &str) -> impl Fn(&Violation) -> bool {
    let (id, rule) = (container.id().to_owned(), rule.to_owned());
    move |violation| violation.container_id.as_str() == id && violation.rule_id.to_string() == rule
}

/// When the violation was over for the network: what another process or thread sent while the kernel was still
/// deciding was sent before the mitigation.
pub fn cut_at(event: &Violation) -> u64 {
    event.kernel_time_ns + event.latency_ns.unwrap_or(0)
}

/// The container's IPv4 address.
pub fn address4(container: &Container) -> Result<IpAddr> {
    container.addresses().iter().copied().find(IpAddr::is_ipv4).context("the container has no IPv4 address")
}

/// The container's IPv6 address.
pub fn address6(container: &Container) -> Result<IpAddr> {
    container.addresses().iter().copied().find(IpAddr::is_ipv6).context("the container has no IPv6 address")
}
