//! `enforcer --standalone`: rulesets from files, containers from a runtime (or cgroups that are named).

use crate::{
    agent::{Agent, Parts},
    args::{Datapath, Run, StrongestTier},
    control::Control,
    kernel::{self, Kernel},
    plan::Plan,
    processes::Processes,
    rulesets,
};
use anyhow::Context;
use ringfence_abi::Tier;
use ringfence_containers::{
    Container, ContainerEvent, Containerd, Cri, DEFAULT_NAMESPACES, Runtime, cgroups::Hierarchies,
};
use ringfence_control::{Feed, Listener, serve};
use ringfence_netiso::Hook;
use std::{fs, path::PathBuf, sync::Arc};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

/// Violations that a client which asks later still gets.
const HISTORY: usize = 4096;

/// Enforces until SIGTERM or SIGINT. Errors before it enforces are the user's to mend.
pub async fn run(plan: Plan) -> anyhow::Result<()> {
    let Plan { args, rulesets, exceptions, output, cgroups } = plan;
    let hierarchy = kernel::preflight()?;
    fs::create_dir_all(&args.state).with_context(|| format!("--state {}", args.state.display()))?;
    let listener = Listener::bind(&args.socket)?;
    let hierarchies = Arc::new(Hierarchies::detect()?);
    let runtime = runtime(&args).await?;

    let strongest = match args.tier {
        StrongestTier::Lsm => Tier::Lsm,
        StrongestTier::Tracepoint => Tier::Tracepoint,
    };
    let mut kernel = Kernel::load(&kernel::Options {
        bpffs: args.bpffs.clone(),
        hierarchy,
        strongest,
        ops: rulesets::ops(&rulesets.tables),
    })?;
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
        None => named_cgroups(cgroups)?,
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
        processes: Processes::new()?,
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

/// The cgroups of the command line, which exist from the start.
fn named_cgroups(containers: Vec<Container>) -> anyhow::Result<mpsc::Receiver<ContainerEvent>> {
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
