//! The commands that talk to an enforcer, against the real protocol on a real socket.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::Arc,
};

use ringfence_control::{Explanation, Feed, Handler, Listener, Refusal, Status, Violation, serve};
use ringfence_policy::{Catalogue, Labels, Subject};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A node whose only container is `web`.
struct Node(Feed);

impl Handler for Node {
    async fn status(&self) -> Result<Status, Refusal> {
        let json = serde_json::json!({
            "version": "0.1.0", "node": "node-1", "kernel": "6.18.0", "startedAt": "2026-11-25T03:00:00Z",
            "classes": [{
                "class": "exec", "tier": "tracepoint", "seen": 5, "violations": 1, "lostLog": 0, "lostMitigating": 0,
                "unreadable": 0,
            }],
            "rules": [], "containers": [], "datapaths": [],
            "rulesets": {"directory": "/etc/ringfence", "names": [], "files": [], "hash": "", "loadedAt": null},
        });
        Ok(serde_json::from_value(json).unwrap())
    }

    async fn isolate(&self, container: &str, reason: Option<&str>) -> Result<String, Refusal> {
        known(container)?;
        Ok(format!("{container} is isolated ({})", reason.unwrap_or_default()))
    }

    async fn release(&self, container: &str) -> Result<String, Refusal> {
        known(container)?;
        Ok(format!("{container} is released"))
    }

    async fn explain(&self, container: &str) -> Result<Explanation, Refusal> {
        known(container)?;
        Ok(Explanation::new(Some(container), Subject::without_namespace(&Labels::new()), &[], Catalogue::builtin()))
    }

    fn feed(&self) -> &Feed {
        &self.0
    }
}

fn known(container: &str) -> Result<(), Refusal> {
    if container == "web" { Ok(()) } else { Err(format!("no container is called '{container}'")) }
}

fn violation(rule: &str, severity: &str) -> Arc<Violation> {
    let json = serde_json::json!({
        "eventTime": "2026-11-25T03:50:47.000004200Z", "kernelTimeNs": 1, "node": "node-1", "ruleSetName": "web",
        "ruleId": rule, "ruleName": "a rule", "tactic": "Execution", "severity": severity, "mitigation": "log",
        "tier": "tracepoint", "containerId": "0123456789abcdef", "containerName": "web", "operation": "exec",
        "processPid": 7, "processName": "sh", "processUser": {"uid": 0, "gid": 0}, "objectFilePath": "/bin/\\x1b[2J",
    });
    Arc::new(serde_json::from_value(json).unwrap())
}

/// A served node; ends when dropped.
struct Served {
    node: Arc<Node>,
    socket: PathBuf,
    _runtime: Runtime,
    _folder: TempDir,
}

impl Served {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("enforcer.sock");
        let node = Arc::new(Node(Feed::new(64)));
        let listener = {
            let _guard = runtime.enter();
            Listener::bind(&socket).unwrap()
        };
        runtime.spawn(serve(listener, Arc::clone(&node)));
        Self { node, socket, _runtime: runtime, _folder: folder }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence"));
        command.args(arguments).arg("--socket").arg(&self.socket).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }
}

/// A running command that is stopped when the test ends, however it ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn status_in_both_forms() {
    let served = Served::start();
    let output = served.run(&["status"]);
    assert!(text(&output.stdout).starts_with("enforcer 0.1.0 on node-1, kernel 6.18.0, "), "{output:?}");
    let output = served.run(&["status", "-o", "json"]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["classes"][0]["tier"], "tracepoint");
}

#[test]
fn isolate_release_and_explain() {
    let served = Served::start();
    for (arguments, expected) in [
        (&["isolate", "web", "--reason", "a test"][..], "web is isolated (a test)\n"),
        (&["release", "web"], "web is released\n"),
        (&["explain", "web"], "web (no labels)\n\nno ruleset governs it: nothing is detected or mitigated\n"),
    ] {
        let output = served.run(arguments);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), expected));
    }
    for command in ["isolate", "release", "explain"] {
        let output = served.run(&[command, "wbe"]);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), ""));
        assert_eq!(text(&output.stderr), "ringfence: no container is called 'wbe'\n");
    }
}

#[test]
fn events_are_filtered_and_safe_to_print() {
    let served = Served::start();
    served.node.0.publish(violation("RF-901", "critical"));
    served.node.0.publish(violation("RF-501", "low"));
    let output = served.run(&["events"]);
    assert_eq!(text(&output.stdout).lines().count(), 4, "{output:?}");
    assert!(text(&output.stdout).contains("    exec /bin/\\x1b[2J by sh "), "{output:?}");
    assert!(!output.stdout.contains(&0x1b));
    for filter in [&["--severity", "medium"][..], &["--rule", "RF-901"], &["--severity", "high", "--container", "0123"]]
    {
        let output = served.run(&[&["events", "-o", "json"], filter].concat());
        let lines: Vec<serde_json::Value> =
            text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 1, "{filter:?}");
        assert_eq!(lines[0]["ruleId"], "RF-901");
    }
    assert!(served.run(&["events", "--container", "other"]).stdout.is_empty());
}

#[test]
fn followed_events_arrive_while_the_command_runs() {
    let served = Served::start();
    served.node.0.publish(violation("RF-901", "critical"));
    let child = served.command(&["events", "--follow", "-o", "json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut running = Running(child);
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("RF-901"));
    served.node.0.publish(violation("RF-501", "low"));
    assert!(lines.next().unwrap().unwrap().contains("RF-501"));
}

/// Needs root: only root can become somebody else.
#[test]
fn nobody_but_root_is_answered() {
    use std::{
        fs::{self, Permissions},
        os::unix::{
            fs::{MetadataExt, PermissionsExt},
            process::CommandExt,
        },
    };

    const NOBODY: u32 = 65_534;
    let served = Served::start();
    let folder = served.socket.parent().unwrap();
    if fs::metadata(folder).unwrap().uid() != 0 {
        println!("skipped: this test must run as root to become another user");
        return;
    }
    // Where the other user can reach it, wherever it was built.
    let ringfence = folder.join("ringfence");
    fs::copy(env!("CARGO_BIN_EXE_ringfence"), &ringfence).unwrap();
    fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    let status_as_nobody = || {
        let output = Command::new(&ringfence)
            .arg("status")
            .arg("--socket")
            .arg(&served.socket)
            .uid(NOBODY)
            .gid(NOBODY)
            .output()
            .unwrap();
        assert_ne!(output.status.code(), Some(0));
        String::from_utf8(output.stderr).unwrap()
    };

    let socket = served.socket.display();
    let denied = format!("ringfence: no permission to open {socket}: only root may talk to the enforcer\n");
    assert_eq!(status_as_nobody(), denied);
    // Even if the socket's mode lets it in, the kernel says who it is.
    fs::set_permissions(&served.socket, Permissions::from_mode(0o666)).unwrap();
    assert_eq!(status_as_nobody(), "ringfence: only root may talk to the enforcer\n");
}
