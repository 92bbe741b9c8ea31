//! That the cluster is one: what the tests of our own programs rely on.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use ringfence_image::Layout;
use serde_json::Value;

use super::{Context, Part, in_turn, names_of};
use crate::cluster::{Cluster, NODE_ADDRESS, NODE_NAME, Options};
use crate::harness::Image;
use crate::suite::Report;

pub const PART: Part = Part { names, run };

type Test = fn(&mut Context) -> Result<()>;

/// In this order: the last one removes what the others look at.
const TESTS: [(&str, Test); 10] = [
    ("cluster/deployment", deployment),
    ("cluster/node-ready", node_ready),
    ("cluster/exec", exec),
    ("cluster/logs", logs),
    ("cluster/service", service),
    ("cluster/api-from-a-pod", api_from_pod),
    ("cluster/node-agent", node_agent),
    ("cluster/second-refused", second),
    ("cluster/api-server-restart", api_server_restart),
    ("cluster/namespace-deleted", namespace_deleted),
];

/// An image of one program, loaded as an archive.
const KUBECTL: &str = "localhost/kubectl:1";

const MANIFESTS: &str = include_str!("basics/manifests.yaml");
const AGENT: &str = include_str!("basics/agent.yaml");

/// A guard against hanging.
const LIMIT: Duration = Duration::from_secs(5);

fn names() -> Vec<String> {
    names_of(&TESTS)
}

fn run(context: &mut Context, report: &mut Report) {
    let images = prepare(&context.cluster).map(|()| context);
    in_turn(report, ("cluster/images", images), &TESTS, |test, context| test(context));
}

/// What all of them need, whichever are wanted.
fn prepare(cluster: &Cluster) -> Result<()> {
    cluster.apply(MANIFESTS)?;
    Ok(())
}

fn deployment(context: &mut Context) -> Result<()> {
    wait_for_rollout(&context.cluster, "deployment/web")?;
    let pods = pods(&context.cluster, "app=web")?;
    let running = pods.iter().filter(|pod| pod["status"]["phase"] == "Running").count();
    ensure!(pods.len() == 2 && running == 2, "{running} of {} pods are running", pods.len());
    Ok(())
}

fn node_ready(context: &mut Context) -> Result<()> {
    let node: Value = serde_json::from_str(&context.cluster.kubectl(["get", "node", NODE_NAME, "-o", "json"])?)?;
    let conditions = node["status"]["conditions"].as_array().context("the node has no conditions")?;
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready").context("no condition Ready")?;
    ensure!(ready["status"] == "True", "Ready is {ready}");
    let info = &node["status"]["nodeInfo"];
    let (kubelet, runtime) = (info["kubeletVersion"].as_str(), info["containerRuntimeVersion"].as_str());
    let expected = context.cluster.versions()?;
    ensure!(kubelet == Some(&expected.0) && runtime == Some(&expected.1), "{info} is not {expected:?}");
    Ok(())
}

fn exec(context: &mut Context) -> Result<()> {
    let cluster = &context.cluster;
    let pod = first_pod(cluster)?;
    let said = cluster.kubectl(["-n", "basics", "exec", &pod, "--", "hostname"])?;
    ensure!(said.trim() == pod, "the pod {pod} calls itself {said:?}");
    match cluster.kubectl(["-n", "basics", "exec", &pod, "--", "sh", "-c", "exit 7"]) {
        Ok(_) => bail!("a command that fails was taken for one that succeeds"),
        Err(error) => ensure!(format!("{error}").contains("exit status: 7"), "{error}"),
    }
    Ok(())
}

fn logs(context: &mut Context) -> Result<()> {
    let pod = first_pod(&context.cluster)?;
    let said = context.cluster.kubectl(["-n", "basics", "logs", &pod])?;
    ensure!(said.lines().any(|line| line == format!("hello from {pod}")), "the log is {said:?}");
    Ok(())
}

/// Its address answers on this machine, on the node (where the API server is) and in a pod.
fn service(context: &mut Context) -> Result<()> {
    let cluster = &mut context.cluster;
    let address = cluster.kubectl(["-n", "basics", "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"])?;
    let service = SocketAddr::new(address.parse::<IpAddr>()?, 80);
    // kube-proxy hears of it some time after the Service was made.
    let get = || http_get(service).is_ok_and(|answer| answer.ends_with("from the web\n"));
    cluster.wait_for("the Service, from this machine,", |_| Ok(get()))?;
    let answer = cluster.within(|| http_get(service)).context("on the node")?;
    ensure!(answer.ends_with("from the web\n"), "on the node it answered {answer:?}");
    let pod = first_pod(cluster)?;
    let url = format!("http://{address}/index.html");
    // As often as makes both replicas answer, also the pod itself.
    for _ in 0..8 {
        let answer = cluster.kubectl(["-n", "basics", "exec", &pod, "--", "wget", "-q", "-O", "-", &url])?;
        ensure!(answer == "from the web\n", "in a pod it answered {answer:?}");
    }
    Ok(())
}

/// A program in a pod reaches the API server by its Service, with the pod's own token. Its image comes as an archive.
fn api_from_pod(context: &mut Context) -> Result<()> {
    let cluster = &context.cluster;
    let image = Image::empty(KUBECTL).file(&cluster.kubectl_program(), "/kubectl", 0o755).entrypoint(&["/kubectl"]);
    let archive = cluster.state().join("tmp/kubectl.tar");
    let mut layout = Layout::default();
    layout.image(KUBECTL, &image.build()?);
    layout.write(fs::File::create(&archive)?)?;
    cluster.load(&archive)?;
    let image = format!("--image={KUBECTL}");
    let words = ["-n", "basics", "run", "client", &image, "--restart=Never", "--image-pull-policy=Never", "--"];
    cluster.kubectl(words.into_iter().chain(["get", "secrets"]))?;
    // Every server says who may not do that.
    let phase = "--for=jsonpath={.status.phase}=Failed";
    let said = || cluster.kubectl(["-n", "basics", "logs", "client"]);
    cluster
        .kubectl(["-n", "basics", "wait", phase, "pod/client", "--timeout=180s"])
        .or_else(|error| bail!("{error:#}; it said {:?}", said()))?;
    let said = said()?;
    ensure!(said.contains("User \"system:serviceaccount:basics:default\" cannot list"), "it was told {said:?}");
    Ok(())
}

/// What a security agent's `DaemonSet` asks for: the node's processes, network and files, mounts that propagate, a token
/// for somebody else.
fn node_agent(context: &mut Context) -> Result<()> {
    let cluster = &context.cluster;
    cluster.apply(AGENT)?;
    wait_for_rollout(cluster, "daemonset/agent")?;
    let pod = name(pods(cluster, "app=agent")?.first().context("no pod of the agent")?)?;
    let run = |script: &str| cluster.kubectl(["-n", "basics", "exec", &pod, "--", "sh", "-c", script]);

    let addresses = run("ip -o -4 address")?;
    ensure!(addresses.contains(NODE_ADDRESS), "its network is not the node's: {addresses}");
    // The sleeping sandboxes of others are processes of the node.
    let own = fs::read_to_string("/proc/self/stat")?.split(' ').next().unwrap_or_default().to_owned();
    run(&format!("test -d /proc/{own}")).context("it does not see this machine's processes")?;
    let root = run("ls /node/var/lib/kubelet /node/run/containerd")?;
    ensure!(root.contains("pods") && root.contains("containerd.sock"), "/ of the node is not there: {root}");

    run("mkdir -p /shared/there && mount -t tmpfs made-in-a-pod /shared/there")?;
    let on_node = cluster.within(|| Ok(fs::read_to_string("/proc/thread-self/mountinfo")?))?;
    ensure!(on_node.contains("made-in-a-pod"), "a mount of the pod's did not come to the node");
    ensure!(
        run("cat /proc/self/mountinfo")?.contains("/node/var/lib/ringfence-agent/there"),
        "and did not come back by /"
    );
    ensure!(!fs::read_to_string("/proc/1/mountinfo")?.contains("made-in-a-pod"), "it came to the machine");
    run("umount /shared/there")?;

    let kind = run("grep ' /sys/fs/bpf ' /proc/self/mounts")?;
    ensure!(kind.contains(" bpf "), "/sys/fs/bpf is no bpf file system: {kind}");
    run("ls /node/sys/kernel/tracing/events").context("tracefs is not where a node has it")?;
    let token = run("cat /token/token")?;
    ensure!(token.split('.').count() == 3, "no token: {token:?}");
    Ok(())
}

fn second(_: &mut Context) -> Result<()> {
    let Err(error) = Cluster::up(&Options::default()) else { bail!("a second cluster was started") };
    let error = format!("{error:#}");
    for word in ["/var/lib/ringfence-cluster", "cargo xtask cluster down"] {
        ensure!(error.contains(word), "{word} is not in: {error}");
    }
    Ok(())
}

/// Pods run on while the API server is away, and it comes back.
fn api_server_restart(context: &mut Context) -> Result<()> {
    let cluster = &mut context.cluster;
    let before = first_pod(cluster)?;
    cluster.kill("kube-apiserver")?;
    ensure!(cluster.kubectl(["get", "--raw", "/readyz"]).is_err(), "it answers after it was killed");
    cluster.restart("kube-apiserver")?;
    cluster.wait_for("the API server", |cluster| Ok(cluster.kubectl(["get", "--raw", "/readyz"]).is_ok()))?;
    let said = cluster.kubectl(["-n", "basics", "exec", &before, "--", "hostname"])?;
    ensure!(said.trim() == before, "the pod {before} calls itself {said:?}");
    Ok(())
}

fn namespace_deleted(context: &mut Context) -> Result<()> {
    let cluster = &context.cluster;
    cluster.kubectl(["delete", "namespace", "basics", "--timeout=120s"])?;
    let left = cluster.kubectl(["get", "namespace", "basics", "--ignore-not-found", "-o", "name"])?;
    ensure!(left.is_empty(), "it is still there: {left}");
    Ok(())
}

fn pods(cluster: &Cluster, selector: &str) -> Result<Vec<Value>> {
    let list = cluster.kubectl(["-n", "basics", "get", "pods", "-l", selector, "-o", "json"])?;
    let mut list: Value = serde_json::from_str(&list)?;
    list["items"].as_array_mut().map(std::mem::take).context("no list of pods")
}

fn wait_for_rollout(cluster: &Cluster, workload: &str) -> Result<()> {
    cluster.kubectl(["-n", "basics", "rollout", "status", workload, "--timeout=120s"]).map(drop)
}

fn first_pod(cluster: &Cluster) -> Result<String> {
    wait_for_rollout(cluster, "deployment/web")?;
    name(pods(cluster, "app=web")?.first().context("no pod")?)
}

fn name(object: &Value) -> Result<String> {
    Ok(object["metadata"]["name"].as_str().context("an object without a name")?.to_owned())
}

fn http_get(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
