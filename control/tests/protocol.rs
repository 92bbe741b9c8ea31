//! Client and server over a real Unix socket.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ringfence_control::{
    CandidatesStatus, Client, ClientError, Escaped, EventFilter, Explanation, Feed, Handler, ListenError, Listener,
    MAX_REQUEST, Next, Refusal, RulesetsStatus, Status, Violation, serve,
};
use ringfence_policy::{Catalogue, Labels, RuleId, Subject};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    task::JoinHandle,
    time::timeout,
};

/// Generous: reached only if something hangs.
const HANGS: Duration = Duration::from_secs(30);

/// A node with one container called `web`.
struct Node {
    feed: Feed,
}

impl Handler for Node {
    async fn status(&self) -> Result<Status, Refusal> {
        Ok(Status {
            version: "0.1.0".to_owned(),
            node: "node-1".to_owned(),
            kernel: "6.18.0".to_owned(),
            started_at: "2026-11-25T03:00:00Z".parse().unwrap(),
            classes: vec![],
            candidates: CandidatesStatus::default(),
            rules: vec![],
            containers: vec![],
            datapaths: vec![],
            rulesets: RulesetsStatus::default(),
            warnings: vec![],
        })
    }

    async fn isolate(&self, container: &str, reason: Option<&str>) -> Result<String, Refusal> {
        known(container)?;
        Ok(format!("{container} is isolated: {}", reason.unwrap_or("no reason given")))
    }

    async fn release(&self, container: &str) -> Result<String, Refusal> {
        known(container)?;
        Ok(format!("{container} is no longer isolated"))
    }

    async fn explain(&self, container: &str) -> Result<Explanation, Refusal> {
        known(container)?;
        let labels = Labels::from([("app".to_owned(), "web".to_owned())]);
        Ok(Explanation::new(Some(container), Subject::without_namespace(&labels), &[], Catalogue::builtin()))
    }

    fn feed(&self) -> &Feed {
        &self.feed
    }
}

fn known(container: &str) -> Result<(), Refusal> {
    if container == "web" { Ok(()) } else { Err(format!("no container '{}'", Escaped::from(container))) }
}

/// A served node; ends when dropped.
struct Served {
    node: Arc<Node>,
    socket: PathBuf,
    task: JoinHandle<()>,
    _folder: TempDir,
}

impl Served {
    fn start(capacity: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("run/enforcer.sock");
        let node = Arc::new(Node { feed: Feed::new(capacity) });
        let listener = Listener::bind(&socket).unwrap();
        let task = tokio::spawn(serve(listener, Arc::clone(&node)));
        Self { node, socket, task, _folder: folder }
    }

    async fn client(&self) -> Client {
        Client::connect(&self.socket).await.unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn violation(number: u64, rule: u16) -> Arc<Violation> {
    let rule = RuleId::new(rule).unwrap();
    let json = serde_json::json!({
        "eventTime": "2026-11-25T03:50:47.000004200Z", "kernelTimeNs": number, "node": "node-1", "ruleSetName": "web",
        "ruleId": rule, "ruleName": "a rule", "tactic": "Execution", "severity": "high", "mitigation": "log",
        "tier": "tracepoint", "containerId": "0123", "operation": "exec", "processPid": 1, "processName": "sh",
        "processUser": {"uid": 0, "gid": 0},
    });
    Arc::new(serde_json::from_value(json).unwrap())
}

async fn number(events: &mut ringfence_control::Events) -> Option<u64> {
    match timeout(HANGS, events.next()).await.expect("no event came").unwrap() {
        Some(Next::Event(violation)) => Some(violation.kernel_time_ns),
        Some(Next::Lost(lost)) => panic!("{lost} lost"),
        None => None,
    }
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let served = Served::start(8);
    let mut client = served.client().await;
    assert_eq!(client.status().await.unwrap().node, "node-1");
    assert!(client.containers().await.unwrap().is_empty());
    assert_eq!(client.isolate("web", Some("a test")).await.unwrap(), "web is isolated: a test");
    assert_eq!(client.release("web").await.unwrap(), "web is no longer isolated");
    assert_eq!(client.explain("web").await.unwrap().container, Some("web".into()));
    let refused = client.release("\u{1b}[2J").await.unwrap_err();
    assert_eq!(refused.to_string(), "no container '\\x1b[2J'");
    // A refusal does not end the connection.
    assert_eq!(client.status().await.unwrap().kernel, "6.18.0");
}

#[tokio::test]
async fn events_held_end_and_events_followed_go_on() {
    let served = Served::start(8);
    served.node.feed.publish(violation(1, 901));
    served.node.feed.publish(violation(2, 501));

    let mut held = served.client().await.events(false, EventFilter::default()).await.unwrap();
    assert_eq!((number(&mut held).await, number(&mut held).await, number(&mut held).await), (Some(1), Some(2), None));

    let filter = EventFilter { rule: RuleId::new(901), ..EventFilter::default() };
    let mut followed = served.client().await.events(true, filter).await.unwrap();
    assert_eq!(number(&mut followed).await, Some(1));
    served.node.feed.publish(violation(3, 501));
    served.node.feed.publish(violation(4, 901));
    assert_eq!(number(&mut followed).await, Some(4));
}

#[tokio::test]
async fn reader_that_falls_behind_is_told_how_many_it_lost() {
    let served = Served::start(16);
    let mut events = served.client().await.events(true, EventFilter::default()).await.unwrap();
    // Until the server has subscribed for this client, an event is only held.
    served.node.feed.publish(violation(0, 901));
    assert_eq!(number(&mut events).await, Some(0));
    // More than the socket's buffers and the feed hold: without reading, the client must lose some.
    let sent = 20_000;
    for next in 1..=sent {
        served.node.feed.publish(violation(next, 901));
        if next % 16 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let (mut received, mut lost, mut newest) = (0, 0, 0);
    while newest < sent {
        match timeout(HANGS, events.next()).await.expect("the stream stalled").unwrap().expect("it goes on") {
            Next::Event(violation) => {
                assert!(violation.kernel_time_ns > newest);
                newest = violation.kernel_time_ns;
                received += 1;
            }
            Next::Lost(count) => lost += count,
        }
    }
    assert!(lost > 0);
    assert_eq!(received + lost, sent);
}

/// What the server says to bytes that are no request of this crate's client.
async fn answer_to(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    // The server may hang up before it has read everything.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = timeout(HANGS, stream.read_to_end(&mut answer)).await.expect("the server hangs");
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn nonsense_gets_one_sentence() {
    let served = Served::start(8);
    for (bytes, expected) in [
        (&b"hello\n"[..], "{\"error\":\"the request is not one line of JSON"),
        (b"{\"request\":\"reboot\"}\n", "{\"error\":\"unknown request: unknown variant `reboot`"),
        (b"\xff\xfe\n", "{\"error\":\"the request is not one line of JSON"),
        (&vec![b'x'; 2 * MAX_REQUEST], "{\"error\":\"the request is longer than 65536 bytes\"}"),
    ] {
        let answer = answer_to(&served.socket, bytes).await;
        assert!(answer.starts_with(expected), "{answer}");
        assert_eq!(answer.matches('\n').count(), 1, "{answer}");
    }
    assert_eq!(answer_to(&served.socket, b"").await, "");
}

#[tokio::test]
async fn socket_is_roots_alone_and_a_second_enforcer_is_refused() {
    let served = Served::start(8);
    let mode = std::fs::metadata(&served.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let refused = Listener::bind(&served.socket).unwrap_err();
    assert!(matches!(&refused, ListenError::InUse(path) if *path == served.socket), "{refused}");
    assert!(served.client().await.status().await.is_ok(), "the first goes on");
}

#[tokio::test]
async fn stale_socket_is_replaced_and_other_files_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let stale = folder.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert!(matches!(Client::connect(&stale).await, Err(ClientError::NotRunning(path)) if path == stale));
    let listener = Listener::bind(&stale).unwrap();
    assert!(Client::connect(&stale).await.is_ok());
    drop(listener);
    assert!(!stale.exists(), "it is removed with its listener");

    let file = folder.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(matches!(Listener::bind(&file), Err(ListenError::NotASocket(path)) if path == file));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

#[tokio::test]
async fn no_enforcer_is_one_clear_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("enforcer.sock");
    let error = Client::connect(&socket).await.unwrap_err().to_string();
    let expected = format!("is the enforcer running? expected its socket at {}; --socket to change", socket.display());
    assert_eq!(error, expected);
}
