//! Enforcing, with a cluster or without one: wiring.

use crate::{
    agent::{Agent, Command, Parts, Told},
    args::{Datapath, Run, StrongestTier},
    cluster::{
        ear::{Ear, Lines},
        memory::Memory,
        mouth::Mouth,
        objects::Objects,
        removal::Removal,
        reporter, watch,
    },
    control::Control,
    kernel::{self, Kernel, TypesFile},
    plan::{Mode, Plan},
    processes::Processes,
    rulesets::{self, Compiled, Rulesets},
    state,
    uninstall::uninstall,
};
use anyhow::Context;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use ringfence_abi::Tier;
use ringfence_containers::{
    Container, ContainerEvent, Containerd, Cri, DEFAULT_NAMESPACES, Runtime, cgroups::Hierarchies,
};
use ringfence_control::{Feed, Listener, serve};
use ringfence_netiso::Hook;
use ringfence_policy::Catalogue;
use std::{fs, path::PathBuf, sync::Arc};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinHandle,
};

/// Violations that a client which asks later still gets.
const HISTORY: usize = 1024;

/// Containerd's namespace for what the kubelet starts.
const KUBERNETES: &str = "k8s.io";

/// Who tells the agent what to do.
struct Sources {
    rulesets: Rulesets,
    containers: mpsc::Receiver<ContainerEvent>,
    changes: mpsc::Receiver<Result<Compiled, String>>,
    told: Option<mpsc::UnboundedSender<Told>>,
    /// Who tells the API server. It ends when there is nothing more to be told.
    mouth: Option<JoinHandle<()>>,
    removal: Option<Removal>,
}

/// Enforces until SIGTERM or SIGINT. Errors before it enforces are the user's to mend.
pub async fn run(plan: Plan) -> anyhow::Result<()> {
    let Plan { args, mode, exceptions, output } = plan;
    let hierarchy = kernel::preflight()?;
    let types = TypesFile::new(args.btf.as_deref())?;
    fs::create_dir_all(&args.state).with_context(|| format!("--state {}", args.state.display()))?;
    let listener = Listener::bind(&args.socket)?;
    let hierarchies = Arc::new(Hierarchies::detect()?);
    let node = args.node.clone().map_or_else(host_name, Ok)?;
    let runtime = runtime(&args).await?;
    let (send, commands) = mpsc::channel(64);
    let Sources { rulesets, containers, changes, told, mouth, removal } = match mode {
        Mode::Standalone { rulesets, cgroups } => standalone(*rulesets, cgroups, runtime.as_deref())?,
        Mode::Cluster { catalogue, policy, namespace, kubeconfig } => {
            let client = connect(kubeconfig.map(|read| *read)).await?;
            let choice = args.removal.as_deref();
            let follow = |name: &String| Removal::follow(&client, &namespace, name, choice);
            let removal = args.daemon_set.as_ref().map(follow);
            if let Some(pod) = args.pod.clone() {
                tokio::spawn(reporter::report(client.clone(), namespace.clone(), pod, send.clone()));
            }
            let memory = Memory::new(&args.state);
            let objects = Objects::recall(catalogue.clone(), namespace, policy, memory.clone());
            let known = (objects, memory, catalogue);
            let sources = cluster(client, &node, known, runtime.as_deref(), send.clone()).await?;
            Sources { removal, ..sources }
        }
    };

    let strongest = match args.tier {
        StrongestTier::Lsm => Tier::Lsm,
        StrongestTier::Fentry => Tier::Fentry,
        StrongestTier::Kprobe => Tier::Kprobe,
        StrongestTier::Tracepoint => Tier::Tracepoint,
    };
    let mut kernel = Kernel::load(&kernel::Options {
        bpffs: args.bpffs.clone(),
        types,
        hierarchy,
        strongest,
        ops: rulesets::ops(rulesets.tables()),
    })?;
    // Nobody else works over the pins from here on, nor over the state.
    state::tidy(&args.state).with_context(|| format!("--state {}", args.state.display()))?;
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
    let (switch, mut datapaths) = ringfence_netiso::open(kernel.ebpf(), &net, options).await?;
    let covered_cgroup =
        args.cgroup_root.clone().or_else(|| hierarchies.v2().map(PathBuf::from)).filter(|_| wants(Datapath::Cgroup));
    if let Some(cgroup) = &covered_cgroup {
        datapaths.cover_cgroups(cgroup)?;
    }

    let feed = Arc::new(Feed::new(HISTORY));
    let parts = Parts {
        kernel,
        switch,
        rulesets,
        runtime,
        hierarchies,
        output,
        feed: Arc::clone(&feed),
        processes: Processes::new()?,
        node: node.into(),
        state: args.state.clone(),
        strict: args.strict,
        exceptions,
        told,
        arms_interfaces: wants(Datapath::Tcx) || wants(Datapath::Clsact),
        covered_cgroup,
        check: args.check,
    };
    let agent = Agent::new(parts, datapaths)?;
    let server = tokio::spawn(serve(listener, Arc::new(Control::new(send, feed))));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    };
    let result = agent.run(containers, commands, changes, stop).await;
    server.abort();
    let _ = server.await;
    result?;
    if let Some(removal) = removal
        && let Some(isolated) = removal.meant().await
    {
        let removed = uninstall(&args.bpffs, &args.state, isolated).await?;
        tracing::info!("removed for good: {}", removed.summary());
    }
    if let Some(mouth) = mouth {
        mouth.await?;
    }
    Ok(())
}

fn standalone(rulesets: Rulesets, cgroups: Vec<Container>, runtime: Option<&Runtime>) -> anyhow::Result<Sources> {
    let containers = match runtime {
        Some(runtime) => runtime.watch(),
        None => named_cgroups(cgroups)?,
    };
    // Files change by themselves: nobody tells.
    let (_, changes) = mpsc::channel(1);
    Ok(Sources { rulesets, containers, changes, told: None, mouth: None, removal: None })
}

async fn cluster(
    client: Client,
    node: &str,
    (objects, memory, catalogue): (Objects, Memory, Catalogue),
    runtime: Option<&Runtime>,
    commands: mpsc::Sender<Command>,
) -> anyhow::Result<Sources> {
    let runtime = runtime.context("pods can't be told apart without a container runtime")?;
    let mut ear = Ear::open(objects, memory.clone(), watch::start(&client, node), runtime.watch()).await?;
    let (first, refused) = ear.first().map_err(anyhow::Error::msg)?;
    let mut rulesets = Rulesets::of_cluster(first, catalogue);
    if let Some(problem) = refused {
        rulesets.reject(problem);
    }
    let (send_containers, containers) = mpsc::channel(256);
    let (send_changes, changes) = mpsc::channel(16);
    let (tell, told) = mpsc::unbounded_channel();
    let (send_gates, gates) = mpsc::unbounded_channel();
    let lines = Lines { containers: send_containers, changes: send_changes, commands, gates: send_gates };
    tokio::spawn(ear.listen(lines));
    let mouth = tokio::spawn(Mouth::new(client, node, memory).speak(told, gates));
    Ok(Sources { rulesets, containers, changes, told: Some(tell), mouth: Some(mouth), removal: None })
}

async fn connect(kubeconfig: Option<Kubeconfig>) -> anyhow::Result<Client> {
    let config = if let Some(kubeconfig) = kubeconfig {
        let options = KubeConfigOptions::default();
        Config::from_custom_kubeconfig(kubeconfig, &options).await.context("--kubeconfig")?
    } else {
        Config::incluster()
            .context("this is no pod with a service account: name the API server with --kubeconfig FILE")?
    };
    Ok(Client::try_from(config)?)
}

async fn runtime(args: &Run) -> anyhow::Result<Option<Arc<Runtime>>> {
    if !args.cgroup.is_empty() {
        return Ok(None);
    }
    let runtime = if let Some(socket) = &args.cri {
        Runtime::Cri(Cri::connect(socket, "--cri").await?)
    } else {
        let namespaces = match (&args.containerd_namespace[..], args.cluster) {
            ([], false) => DEFAULT_NAMESPACES.iter().map(|name| (*name).to_owned()).collect(),
            ([], true) => vec![KUBERNETES.to_owned()],
            (named, _) => named.to_vec(),
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
