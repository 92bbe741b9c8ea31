//! What can go wrong with runtimes and cgroups.

use std::{io, path::PathBuf};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens at the socket.
    #[error("no {runtime} at {socket}: {reason}; start it, or name its socket with {option}", socket = .socket.display())]
    NoRuntime {
        /// The runtime that was looked for.
        runtime: &'static str,
        /// Where.
        socket: PathBuf,
        /// What came back.
        reason: String,
        /// The command line's option for the socket.
        option: &'static str,
    },
    /// Somebody listens at the socket who is not what was looked for.
    #[error("{socket} does not answer as {runtime}: {reason}; name its socket with {option}", socket = .socket.display())]
    NotTheRuntime {
        /// The runtime that was looked for.
        runtime: &'static str,
        /// Where.
        socket: PathBuf,
        /// What came back.
        reason: String,
        /// The command line's option for the socket.
        option: &'static str,
    },
    /// The name is none that containerd allows for a namespace.
    #[error(
        "`{0}` is no namespace of containerd: letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit"
    )]
    BadNamespace(String),
    /// A request failed.
    #[error("{what}: {status}", status = describe(.status))]
    Request {
        /// What was asked.
        what: String,
        /// The answer.
        status: Box<containerd_client::tonic::Status>,
    },
    /// The OCI spec of a container cannot be read.
    #[error("the OCI spec of container {container} cannot be read: {source}")]
    Spec {
        /// Which.
        container: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A container did not end although all of its processes were killed.
    #[error("container {0} did not end within {1} s after SIGKILL")]
    DidNotEnd(String, u64),
    /// A file of the kernel cannot be read or written.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No cgroup hierarchy that could tell containers apart.
    #[error("{mountinfo} shows neither cgroup2 nor a cgroup v1 hierarchy with `pids` or `memory`: is /sys/fs/cgroup mounted?", mountinfo = .0.display())]
    NoHierarchy(PathBuf),
    /// The path is not that of a container's cgroup.
    #[error("`{0}` is no cgroup that may be killed: it must be an absolute path below the root, without `..`")]
    NotKillable(String),
    /// Processes are left in a cgroup.
    #[error("cgroup {cgroup} still has processes after {rounds} rounds of SIGKILL: {pids:?}")]
    StillAlive {
        /// Which.
        cgroup: String,
        /// How often every process was killed.
        rounds: u32,
        /// Who is left.
        pids: Vec<u32>,
    },
}

/// A status in one line: gRPC's own words for the code add nothing where there is a message.
pub(crate) fn describe(status: &containerd_client::tonic::Status) -> String {
    if status.message().is_empty() { status.code().to_string() } else { status.message().to_owned() }
}
