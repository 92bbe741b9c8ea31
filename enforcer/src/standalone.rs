//! `enforcer --standalone`: rulesets from files, containers from a runtime (or cgroups that are named).

use crate::{
    agent::{Agent, Parts},
    args::{Datapath, Run, StrongestTier},
    control::Control,
    kernel::{self, Kernel},
    output::Output,
    rulesets::{self, Rulesets},
};
use anyhow::{Context, bail};
use ringfence_abi::Tier;
use ringfence_containers::{
    Container, ContainerEvent, ContainerKey, Containerd, Cri, DEFAULT_NAMESPACES, Kind, Runtime, cgroups::Hierarchies,
};
use ringfence_control::{Feed, Listener, serve};
use ringfence_netiso::{Hook, Network};
use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

/// Violations that a client which asks later still gets.
const HISTORY: usize = 4096;

/// Enforces until SIGTERM or SIGINT. Errors before it enforces are the user's to mend.
pub async fn run(args: Run) -> anyhow::Result<()> {
    if !args.standalone {
        bail!("--standalone is missing: this version has no other mode");
    }
    let path = args.rulesets.clone().context(
        "--rulesets is missing: name a file or folder of rulesets, such as --rulesets /etc/ringfence/rulesets",
    )?;
    let catalogue = rulesets::catalogue(args.catalogue.as_deref()).map_err(anyhow::Error::msg)?;
    let rulesets = Rulesets::load(&path, catalogue).map_err(anyhow::Error::msg)?;
    let exceptions: Vec<Network> = args
        .exception
        .iter()
        .map(|text| text.parse().map_err(|error| anyhow::anyhow!("--exception {text}: {error}")))
        .collect::<Result<_, _>>()?;
    let output = Output::open(args.output, args.log_file.as_deref()).map_err(anyhow::Error::msg)?;
    let hierarchy = kernel::preflight()?;
    fs::create_dir_all(&args.state).with_context(|| format!("--state {}", args.state.display()))?;
    let listener = Listener::bind(&args.socket)?;
    let hierarchies = Arc::new(Hierarchies::detect()?);
    let runtime = runtime(&args).await?;

    let strongest = match args.tier {
        StrongestTier::Lsm => Tier::Lsm,
        StrongestTier::Tracepoint => Tier::Tracepoint,
    };
    let mut kernel = Kernel::load(&kernel::Options { bpffs: args.bpffs.clone(), hierarchy, strongest })?;
    if kernel.adopted() {
        tracing::info!("programs of an earlier enforcer were at work all the while, and are taken over");
    }
    let wants = |datapath: Datapath| args.datapath.is_empty() || args.datapath.contains(&datapath);
    let hook = match (args.datapath.contains(&Datapath::Tcx), args.datapath.contains(&Datapath::Clsact)) {
        (true, false) => Some(Hook::Tcx),
        (false, true) => Some(Hook::Clsact),
        _ => None,
    };
    let net = kernel.pins().net();
    let options = ringfence_netiso::Options { hook };
    let (mut switch, mut datapaths) = ringfence_netiso::open(kernel.ebpf(), &net, options).await?;
    switch.set_exceptions(&exceptions)?;
    let covered_cgroup =
        args.cgroup_root.clone().or_else(|| hierarchies.v2().map(PathBuf::from)).filter(|_| wants(Datapath::Cgroup));
    if let Some(cgroup) = &covered_cgroup {
        datapaths.cover_cgroups(cgroup)?;
    }

    let feed = Arc::new(Feed::new(HISTORY));
    let containers = match &runtime {
        Some(runtime) => runtime.watch(),
        None => named_cgroups(&args.cgroup)?,
    };
    let agent = Agent::new(Parts {
        kernel,
        switch,
        datapaths,
        rulesets,
        runtime,
        hierarchies,
        output,
        feed: Arc::clone(&feed),
        node: args.node.clone().map_or_else(host_name, Ok)?,
        state: args.state.clone(),
        strict: args.strict,
        arms_interfaces: wants(Datapath::Tcx) || wants(Datapath::Clsact),
        covered_cgroup,
        check: args.check,
    })?;
    let (send, commands) = mpsc::channel(64);
    let server = tokio::spawn(serve(listener, Arc::new(Control::new(send, feed))));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    };
    let result = agent.run(containers, commands, stop).await;
    server.abort();
    let _ = server.await;
    result
}

async fn runtime(args: &Run) -> anyhow::Result<Option<Arc<Runtime>>> {
    if !args.cgroup.is_empty() {
        return Ok(None);
    }
    let runtime = if let Some(socket) = &args.cri {
        Runtime::Cri(Cri::connect(socket, "--cri").await?)
    } else {
        let namespaces = if args.containerd_namespace.is_empty() {
            DEFAULT_NAMESPACES.iter().map(|name| (*name).to_owned()).collect()
        } else {
            args.containerd_namespace.clone()
        };
        Runtime::Containerd(Containerd::connect(&args.containerd, &namespaces, "--containerd").await?)
    };
    Ok(Some(Arc::new(runtime)))
}

/// Cgroups of the command line as containers that exist.
fn named_cgroups(named: &[String]) -> anyhow::Result<mpsc::Receiver<ContainerEvent>> {
    let mut containers = Vec::new();
    for text in named {
        let (path, labels) = text.split_once(':').unwrap_or((text, ""));
        if !path.starts_with('/') || path.len() < 2 {
            bail!(
                "--cgroup {text}: the path below the hierarchy's root is to begin with '/', such as /system.slice/web.service"
            );
        }
        let labels: BTreeMap<String, String> = labels
            .split(',')
            .filter(|label| !label.is_empty())
            .map(|label| label.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())))
            .collect::<Option<_>>()
            .with_context(|| format!("--cgroup {text}: labels are KEY=VALUE, joined by ','"))?;
        let id = path.rsplit('/').next().unwrap_or(path).to_owned();
        containers.push(Container {
            key: ContainerKey { namespace: "cgroup".to_owned(), id: id.clone() },
            name: id,
            kind: Kind::Plain,
            pod: None,
            labels,
            image: String::new(),
            image_digest: None,
            snapshotter: String::new(),
            cgroups_path: path.to_owned(),
            host_network: true,
            netns: None,
            pid: None,
        });
    }
    let (send, receive) = mpsc::channel(containers.len() + 1);
    for container in containers {
        send.try_send(ContainerEvent::Known(Box::new(container)))?;
    }
    send.try_send(ContainerEvent::Synced)?;
    // The channel stays open for ever: these containers do not go.
    std::mem::forget(send);
    Ok(receive)
}

fn host_name() -> anyhow::Result<String> {
    Ok(nix::unistd::gethostname()?.to_string_lossy().into_owned())
}
