//! What the server takes from whoever reaches its port, over real connections: what is too much, too slow, too old or no
//! review at all gets a clear end, and the next one an answer.

#![expect(clippy::needless_pass_by_value, reason = "JSON that is written in place")]

use std::net::SocketAddr;
use std::sync::Arc;

use axum_server::Handle;
use kube::{Client, Config};
use ringfence_webhook::ask::Asker;
use ringfence_webhook::certificate::pair;
use ringfence_webhook::identity::Accounts;
use ringfence_webhook::metrics::Metrics;
use ringfence_webhook::server::{Admission, BODY, serve};
use ringfence_webhook::state::State;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// A server on the loopback, and who trusts it. It knows no cluster: nothing answers where the API server should be.
struct Served {
    address: SocketAddr,
    trust: TlsConnector,
    handle: Handle<SocketAddr>,
}

impl Served {
    async fn start() -> Self {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = pair(cert.pem().as_bytes(), signing_key.serialize_pem().as_bytes()).unwrap();
        let (_, current) = watch::channel(Some(Arc::new(certificate)));
        let nowhere = Client::try_from(Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        let admission = Admission::new(
            State::watch(nowhere.clone(), "ringfence", "main"),
            Accounts::new("ringfence", "ringfence-webhook", "ringfence-enforcer"),
            Asker::new(nowhere, "ringfence"),
            Arc::new(Metrics::default()),
        );
        let handle = Handle::new();
        tokio::spawn(serve(SocketAddr::from(([127, 0, 0, 1], 0)), current, admission, handle.clone()));
        let address = handle.listening().await.unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(cert.pem().as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Self { address, trust: TlsConnector::from(Arc::new(config)), handle }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        self.trust.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap()
    }

    /// Sends bytes, and returns what comes until the server closes.
    async fn exchange(&self, request: &[u8]) -> String {
        let mut stream = self.connect().await;
        // The server may have answered and closed before it has read all.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn post(&self, path: &str, headers: &str, body: &[u8]) -> String {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        self.exchange(&[head.as_bytes(), body].concat()).await
    }

    async fn review(&self, path: &str, review: &Value) -> String {
        self.post(path, JSON, review.to_string().as_bytes()).await
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.handle.shutdown();
    }
}

const JSON: &str = "Content-Type: application/json\r\n";

fn review(resource: &str, object: Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "1", "operation": "CREATE", "userInfo": {"username": "alice"}, "name": "web", "namespace": "shop",
            "resource": {"group": "", "version": "v1", "resource": resource}, "object": object, "oldObject": null,
        },
    })
}

/// The server still works.
async fn answers(served: &Served) {
    let answer = served.review("/validate", &review("pods", json!({"metadata": {"name": "web"}}))).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"allowed\":true"), "{answer}");
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let served = Served::start().await;
    let answer = served.post("/validate", JSON, &vec![b' '; BODY + 1]).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("larger than 4194304 bytes"), "{answer}");
    let many = (0..100).map(|number| format!("X-Header-{number}: x\r\n")).collect::<Vec<_>>().concat();
    let answer = served.post("/validate", &(JSON.to_owned() + &many), b"{}").await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let long = format!("X-Long: {}\r\n", "x".repeat(40 << 10));
    let answer = served.post("/validate", &(JSON.to_owned() + &long), b"{}").await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    answers(&served).await;
}

/// What etcd would just take, as a pod and as an object of ours.
#[tokio::test]
async fn huge_objects_get_an_answer() {
    let served = Served::start().await;
    let labels: serde_json::Map<_, _> = (0..10_000).map(|number| (format!("label-{number}"), json!("x"))).collect();
    let pod = review("pods", json!({"metadata": {"name": "web", "labels": labels}}));
    let mut padded = pod.clone();
    padded["request"]["object"]["metadata"]["annotations"] = json!({"padding": "x".repeat(3 << 19)});
    for review in [pod, padded] {
        for path in ["/mutate", "/validate"] {
            let answer = served.review(path, &review).await;
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"allowed\":true"), "{path}: {answer}");
        }
    }
    let rules: Vec<_> = (0..20_000).map(|_| json!({"rule": "RF-901", "mitigation": "log"})).collect();
    let mut ruleset = review(
        "runtimerulesets",
        json!({
            "apiVersion": "ringfence.dev/v1alpha1", "kind": "RuntimeRuleset", "metadata": {"name": "web"}, "spec": {"rules": rules},
        }),
    );
    ruleset["request"]["resource"]["group"] = json!("ringfence.dev");
    let answer = served.review("/validate", &ruleset).await;
    assert!(answer.contains("\"allowed\":false") && answer.contains("spec.rules"), "{answer:.600}");
    assert!(answer.contains("more\""), "{answer:.600}");
    assert!(answer.len() < 64 << 10, "{} bytes of refusal", answer.len());
    answers(&served).await;
}

#[tokio::test]
async fn what_is_no_review_is_told_so() {
    let served = Served::start().await;
    let answer = served.post("/validate", "Content-Type: text/plain\r\n", b"{}").await;
    assert!(answer.starts_with("HTTP/1.1 415 ") && answer.contains("send application/json"), "{answer}");
    for body in ["", "{", "[]", "null", "{\"kind\": \"AdmissionReview\"}", "\u{0}"] {
        for path in ["/mutate", "/validate"] {
            let answer = served.post(path, JSON, body.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{body:?} at {path}: {answer}");
        }
    }
    let answer = served.review("/mutate", &review("secrets", json!({"metadata": {}}))).await;
    assert!(answer.contains("\"allowed\":true") && answer.contains("nothing to say about secrets"), "{answer}");
    let answer = served.exchange(b"GET /validate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    let answer = served.post("/elsewhere", JSON, b"{}").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    answers(&served).await;
}

/// Each of them ends because the server ends it: these clients wait.
#[tokio::test]
async fn who_is_slow_is_let_go() {
    let served = Served::start().await;
    let handshake = async {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty(), "{answer:?}");
    };
    let headers = async {
        let answer = served.exchange(b"POST /validate HTTP/1.1\r\nHost: loc").await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    };
    let body = async {
        let head = format!("POST /validate HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: 100\r\n\r\n{{");
        let answer = served.exchange(head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("too long to arrive"), "{answer}");
    };
    tokio::join!(handshake, headers, body);
    answers(&served).await;
}

#[tokio::test]
async fn tls_1_1_is_refused() {
    let served = Served::start().await;
    let mut hello = vec![3, 2];
    hello.extend([7; 32]);
    // No session, TLS_RSA_WITH_AES_128_CBC_SHA, no compression.
    hello.extend([0, 0, 2, 0, 0x2f, 1, 0]);
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(&record).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let [21, 3, _, 0, 2, 2, alert] = answer[..] else { panic!("no fatal alert: {answer:?}") };
    assert!([40, 70].contains(&alert), "neither handshake_failure nor protocol_version: {alert}");
    answers(&served).await;
}
