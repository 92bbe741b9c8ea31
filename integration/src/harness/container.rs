//! A container of a node.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use containerd_client::services::v1::container::Runtime;
use containerd_client::services::v1::{
    CloseIoRequest, Container as Record, CreateTaskRequest, DeleteProcessRequest, DeleteTaskRequest,
    ExecProcessRequest, GetRequest, KillRequest, StartRequest, WaitRequest,
};
use containerd_client::tonic::Code;
use containerd_client::types::{Mount, v1::Status};
use prost_types::Any;

use super::cgroup;
use super::client::{SNAPSHOTTER, missing, plain};
use super::cni::{self, Attachment};
use super::io::Streams;
use super::netns::Netns;
use super::node::Shared;
use super::spec::{Attach, Spec};

const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// A container. Dropped, it is killed and removed with all that was made for it.
#[derive(Debug)]
pub struct Container {
    node: Arc<Shared>,
    spec: Spec,
    id: String,
    cgroup: String,
    pid: u32,
    mounts: Vec<Mount>,
    streams: Option<Streams>,
    netns: Option<Netns>,
    attachment: Attachment,
    removed: bool,
}

/// What a command in a container did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit status; of one that a signal ended 128 + the signal.
    pub status: u32,
    /// Standard output (of a terminal: everything), as far as it is UTF-8.
    pub stdout: String,
    /// Standard error output.
    pub stderr: String,
}

impl Container {
    /// Records it with containerd. No process yet.
    pub(super) fn create(node: &Arc<Shared>, spec: &Spec) -> Result<Self> {
        let id = spec.id.clone().unwrap_or_else(|| node.next_name("c"));
        let cgroup = spec.cgroup.clone().unwrap_or_else(|| format!("/{}/{id}", node.namespace));
        let mut container = Self {
            node: node.clone(),
            spec: spec.clone(),
            cgroup,
            pid: 0,
            mounts: Vec::new(),
            streams: None,
            netns: None,
            attachment: Attachment::default(),
            removed: false,
            id,
        };
        container.prepare().with_context(|| format!("container {}", container.id))?;
        Ok(container)
    }

    fn prepare(&mut self) -> Result<()> {
        let node = self.node.clone();
        if !matches!(self.spec.attach, Attach::Node) {
            let netns = Netns::new()?;
            cni::loopback_up(netns.path())?;
            if let Attach::Network(network) = &self.spec.attach {
                self.attachment = network.attach(&self.id, netns.path())?;
            }
            self.netns = Some(netns);
        }
        let layer = node.layer(&self.spec.image)?;
        let mounts = node.client.prepare(&node.namespace, &self.id, &layer)?;
        self.mounts = mounts.context("there is a snapshot of that name: is the id in use?")?;
        let spec = self.spec.runtime_spec(&self.cgroup, self.netns())?;
        let record = Record {
            id: self.id.clone(),
            labels: self.spec.labels.clone().into_iter().collect(),
            image: self.spec.image.clone(),
            runtime: Some(Runtime { name: "io.containerd.runc.v2".into(), options: None }),
            spec: Some(Any { type_url: SPEC_TYPE.into(), value: spec.to_string().into_bytes() }),
            snapshotter: SNAPSHOTTER.into(),
            snapshot_key: self.id.clone(),
            ..Record::default()
        };
        node.client.create_container(&node.namespace, record)
    }

    /// Starts its first process.
    pub fn start(&mut self) -> Result<()> {
        let streams = Streams::new(self.node.io_directory(), self.spec.terminal, self.spec.stdin)?;
        let [stdin, stdout, stderr] = streams.paths();
        let create = CreateTaskRequest {
            container_id: self.id.clone(),
            rootfs: self.mounts.clone(),
            terminal: self.spec.terminal,
            stdin,
            stdout,
            stderr,
            ..CreateTaskRequest::default()
        };
        self.streams = Some(streams);
        let (mut tasks, create) = (self.node.client.tasks(), self.request(create));
        let created = self.node.client.ask(async move { tasks.create(create).await });
        self.pid = created.with_context(|| format!("create {}", self.id))?.pid;
        let (mut tasks, start) = (self.node.client.tasks(), self.request(self.start_request("")));
        self.node.client.ask(async move { tasks.start(start).await }).with_context(|| format!("start {}", self.id))?;
        Ok(())
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its first process, in the machine's pid namespace.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its addresses in the network that it was attached to.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.attachment.addresses
    }

    /// The node's end of its veth pair.
    pub fn host_interface(&self) -> Option<&str> {
        self.attachment.host_interface.as_deref()
    }

    /// Its network namespace; `None`: the node's.
    pub fn netns(&self) -> Option<&Path> {
        self.netns.as_ref().map(Netns::path)
    }

    /// `linux.cgroupsPath`.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// The directories of its cgroup, one per hierarchy.
    pub fn cgroup_directories(&self) -> Result<Vec<PathBuf>> {
        cgroup::directories(&self.cgroup)
    }

    /// What it wrote so far.
    pub fn stdout(&self) -> String {
        self.streams.as_ref().map(|streams| streams.stdout.text()).unwrap_or_default()
    }

    /// What it wrote to its error output so far.
    pub fn stderr(&self) -> String {
        let stderr = self.streams.as_ref().and_then(|streams| streams.stderr.as_ref());
        stderr.map(super::io::Stream::text).unwrap_or_default()
    }

    /// Waits until its standard output holds `text`.
    pub fn wait_for_output(&self, text: &str) -> Result<()> {
        self.streams.as_ref().context("it was not started")?.stdout.wait_for(text)
    }

    /// Writes to its standard input.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.streams.as_mut().context("it was not started")?.write(bytes)
    }

    /// Ends its standard input.
    pub fn close_stdin(&mut self) -> Result<()> {
        self.streams.as_mut().context("it was not started")?.close_stdin();
        let close = CloseIoRequest { container_id: self.id.clone(), exec_id: String::new(), stdin: true };
        let (mut tasks, close) = (self.node.client.tasks(), self.request(close));
        missing(self.node.client.ask(async move { tasks.close_io(close).await }))
    }

    /// Waits for its end, at most 60 s, and for all that it wrote; its exit status.
    pub fn wait(&self) -> Result<u32> {
        self.wait_within(Duration::from_mins(1))
    }

    /// The same with another limit.
    pub fn wait_within(&self, limit: Duration) -> Result<u32> {
        let status = self.wait_for("", limit).with_context(|| format!("wait for {}", self.id))?;
        self.streams.as_ref().context("it was not started")?.finish()?;
        Ok(status)
    }

    fn wait_for(&self, exec: &str, limit: Duration) -> Result<u32> {
        let wait = WaitRequest { container_id: self.id.clone(), exec_id: exec.to_owned() };
        let (mut tasks, wait) = (self.node.client.tasks(), self.request(wait));
        Ok(self.node.client.ask_within(limit, async move { tasks.wait(wait).await })?.exit_status)
    }

    /// Whether its first process runs.
    pub fn is_running(&self) -> Result<bool> {
        let get = GetRequest { container_id: self.id.clone(), ..GetRequest::default() };
        let (mut tasks, get) = (self.node.client.tasks(), self.request(get));
        match self.node.client.ask(async move { tasks.get(get).await }) {
            Ok(answer) => Ok(answer.process.is_some_and(|process| process.status() == Status::Running)),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(status.into()),
        }
    }

    /// Runs a command in it, to its end.
    pub fn exec(&self, args: impl IntoIterator<Item = impl Into<String>>) -> Result<Output> {
        self.execute(&args.into_iter().map(Into::into).collect::<Vec<_>>(), false)
    }

    /// The same on a terminal.
    pub fn exec_tty(&self, args: impl IntoIterator<Item = impl Into<String>>) -> Result<Output> {
        self.execute(&args.into_iter().map(Into::into).collect::<Vec<_>>(), true)
    }

    fn execute(&self, args: &[String], terminal: bool) -> Result<Output> {
        ensure!(!args.is_empty(), "no command to execute in {}", self.id);
        let what = || format!("execute {args:?} in {}", self.id);
        let exec_id = self.node.next_name("e");
        let streams = Streams::new(self.node.io_directory(), terminal, false)?;
        let [stdin, stdout, stderr] = streams.paths();
        let process = self.spec.process(args, terminal)?.to_string().into_bytes();
        let exec = ExecProcessRequest {
            container_id: self.id.clone(),
            exec_id: exec_id.clone(),
            spec: Some(Any { type_url: PROCESS_TYPE.into(), value: process }),
            terminal,
            stdin,
            stdout,
            stderr,
        };
        let (mut tasks, exec) = (self.node.client.tasks(), self.request(exec));
        self.node.client.ask(async move { tasks.exec(exec).await }).with_context(what)?;
        let result = self.finish_exec(&exec_id, &streams).with_context(what);
        let delete = DeleteProcessRequest { container_id: self.id.clone(), exec_id };
        let (mut tasks, delete) = (self.node.client.tasks(), self.request(delete));
        let deleted = missing(self.node.client.ask(async move { tasks.delete_process(delete).await }));
        // Once its container is gone there is nothing to delete, whatever the shim says about that.
        if result.is_ok() && self.is_running().unwrap_or(false) {
            deleted?;
        }
        result
    }

    fn finish_exec(&self, exec_id: &str, streams: &Streams) -> Result<Output> {
        let (mut tasks, start) = (self.node.client.tasks(), self.request(self.start_request(exec_id)));
        self.node.client.ask(async move { tasks.start(start).await })?;
        let status = self.wait_for(exec_id, Duration::from_mins(1))?;
        streams.finish()?;
        let stderr = streams.stderr.as_ref().map(super::io::Stream::text).unwrap_or_default();
        Ok(Output { status, stdout: streams.stdout.text(), stderr })
    }

    /// Signals its first process.
    pub fn kill(&self, signal: i32) -> Result<()> {
        let signal = u32::try_from(signal)?;
        let kill = KillRequest { container_id: self.id.clone(), signal, ..KillRequest::default() };
        let (mut tasks, kill) = (self.node.client.tasks(), self.request(kill));
        Ok(self.node.client.ask(async move { tasks.kill(kill).await }).map(drop)?)
    }

    /// Kills and removes it with all that was made for it, as dropping does, but says what went wrong.
    pub fn remove(mut self) -> Result<()> {
        self.clean_up()
    }

    fn clean_up(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.removed, true) || self.node.is_stopped() {
            return Ok(());
        }
        let node = self.node.clone();
        let mut failures = Vec::new();
        let mut remember = |what: &str, result: Result<()>| {
            if let Err(error) = result {
                failures.push(format!("{what}: {error:#}"));
            }
        };
        if self.streams.is_some() {
            remember("task", self.end_task());
        }
        remember("record", node.client.delete_container(&node.namespace, &self.id));
        remember("snapshot", node.client.remove_snapshot(&node.namespace, &self.id));
        if let (Attach::Network(network), Some(netns)) = (&self.spec.attach, &self.netns) {
            remember("network", network.detach(&self.id, netns.path()));
        }
        self.streams = None;
        self.netns = None;
        if failures.is_empty() { Ok(()) } else { bail!("removing container {}: {}", self.id, failures.join("; ")) }
    }

    fn end_task(&self) -> Result<()> {
        let kill = KillRequest { container_id: self.id.clone(), signal: 9, all: true, ..KillRequest::default() };
        let (mut tasks, kill) = (self.node.client.tasks(), self.request(kill));
        match self.node.client.ask(async move { tasks.kill(kill).await }) {
            Err(status) if status.code() == Code::NotFound => {}
            // Failed precondition: it has ended.
            Err(status) if status.code() != Code::FailedPrecondition => return Err(status.into()),
            _ => {
                let waited = self.wait_for("", Duration::from_secs(20));
                waited.map(drop).or_else(|error| if is_gone(&error) { Ok(()) } else { Err(error) })?;
            }
        }
        let delete = DeleteTaskRequest { container_id: self.id.clone() };
        let (mut tasks, delete) = (self.node.client.tasks(), self.request(delete));
        missing(self.node.client.ask(async move { tasks.delete(delete).await }))
    }

    fn start_request(&self, exec_id: &str) -> StartRequest {
        StartRequest { container_id: self.id.clone(), exec_id: exec_id.to_owned() }
    }

    fn request<T>(&self, message: T) -> containerd_client::tonic::Request<T> {
        plain(&self.node.namespace, message)
    }
}

fn is_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<containerd_client::tonic::Status>().is_some_and(|status| status.code() == Code::NotFound)
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Err(error) = self.clean_up() {
            eprintln!("{error:#}");
        }
    }
}
