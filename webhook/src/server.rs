//! The two webhooks over TLS, and the limits of what is taken from the network.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_server::Handle;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use futures_util::StreamExt;
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::{debug, warn};

use crate::ask::Asker;
use crate::certificate;
use crate::identity::Accounts;
use crate::metrics::Metrics;
use crate::mutate;
use crate::review::{Answer, Operation, Request, ReviewError, parse};
use crate::state::State;
use crate::validate::{Verdict, not_ours, validate};

/// Largest request, in bytes. etcd takes objects of 1.5 MiB, and an update has two of them.
pub const BODY: usize = 4 << 20;
/// Requests up to this size are read whenever they come. ...
const SMALL: usize = 128 << 10;
/// ... Of larger ones only so many at a time: whoever reaches our port could fill the memory otherwise. They do not hold
/// up the small ones.
const LARGE_AT_ONCE: usize = 16;
/// The time for each step of a client: handshake, headers, body.
const PATIENCE: Duration = Duration::from_secs(5);
/// Headers of one request, in number and in bytes.
const HEADERS: usize = 64;
const HEADER_BYTES: u32 = 32 << 10;
/// Requests on one connection at a time (HTTP/2).
const STREAMS: u32 = 250;
/// How long a newer snapshot may take to arrive when another replica was ahead of us.
const NEWER: Duration = Duration::from_secs(1);

/// What the handlers need.
#[derive(Clone)]
pub struct Admission {
    /// The cluster.
    pub state: State,
    /// Our own service accounts.
    pub accounts: Accounts,
    /// The API server, for what only it knows.
    pub asker: Asker,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// For large requests.
    room: Arc<Semaphore>,
}

impl Admission {
    /// Of these parts.
    pub fn new(state: State, accounts: Accounts, asker: Asker, metrics: Arc<Metrics>) -> Self {
        Self { state, accounts, asker, metrics, room: Arc::new(Semaphore::new(LARGE_AT_ONCE)) }
    }
}

/// Serves `/mutate` and `/validate` until `handle` ends it.
pub async fn serve(
    address: SocketAddr,
    current: certificate::Current,
    admission: Admission,
    handle: Handle<SocketAddr>,
) -> std::io::Result<()> {
    let config = RustlsConfig::from_config(certificate::server_config(current));
    // Many answers at once on one connection would wait for each other's acknowledgement, 40 ms at a time.
    let acceptor = RustlsAcceptor::new(config).handshake_timeout(PATIENCE).acceptor(NoDelayAcceptor::new());
    let mut server = axum_server::bind(address).acceptor(acceptor).handle(handle).first_request_timeout(PATIENCE * 2);
    let builder = server.http_builder();
    builder.http1().header_read_timeout(PATIENCE).max_headers(HEADERS).max_buf_size(HEADER_BYTES as usize);
    builder
        .http2()
        .max_header_list_size(HEADER_BYTES)
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(PATIENCE);
    server.serve(router(admission).into_make_service()).await
}

/// The handlers.
pub fn router(admission: Admission) -> Router {
    Router::new()
        .route("/mutate", post(mutate_handler))
        .route("/validate", post(validate_handler))
        .with_state(admission)
}

async fn mutate_handler(Shared(admission): Shared<Admission>, headers: HeaderMap, body: Body) -> Response {
    answer("mutate", &admission, &headers, body, async |request| {
        let pods = request.resource.group.is_empty() && request.resource.resource == "pods";
        if !pods || !request.sub_resource.is_empty() || request.operation != Operation::Create {
            return Ok(Answer::warn(vec![not_ours(request)]));
        }
        let snapshots = vec![admission.state.current()];
        let snapshots = admission.state.with_namespace(snapshots, &request.namespace).await;
        mutate::answer(request, &snapshots[0])
    })
    .await
}

async fn validate_handler(Shared(admission): Shared<Admission>, headers: HeaderMap, body: Body) -> Response {
    answer("validate", &admission, &headers, body, async |request| {
        let mut state = admission.state.clone();
        let until = tokio::time::Instant::now() + NEWER;
        loop {
            let mut snapshots = state.recent();
            if request.resource.resource == "pods" && request.operation == Operation::Create {
                snapshots = state.with_namespace(snapshots, &request.namespace).await;
            }
            match validate(request, &snapshots, &admission.accounts)? {
                Verdict::Answer(answer) => return Ok(answer),
                Verdict::Ask(question, refusal) => {
                    let yes = admission.asker.ask(&question, &request.user_info).await;
                    return Ok(if yes { Answer::allow() } else { refusal });
                }
                Verdict::Unless(answer) => {
                    if !tokio::time::timeout_at(until, state.changed()).await.unwrap_or_default() {
                        return Ok(answer);
                    }
                }
            }
        }
    })
    .await
}

/// A request's body, and its room if it is large.
struct Received<'a> {
    bytes: Vec<u8>,
    room: Option<SemaphorePermit<'a>>,
}

async fn receive(body: Body, room: &Semaphore) -> Result<Received<'_>, (StatusCode, String)> {
    let mut received = Received { bytes: Vec::new(), room: None };
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| (StatusCode::BAD_REQUEST, format!("the request ended early: {error}")))?;
        let size = received.bytes.len() + chunk.len();
        if size > BODY {
            return Err((StatusCode::PAYLOAD_TOO_LARGE, format!("the request is larger than {BODY} bytes")));
        }
        if size > SMALL && received.room.is_none() {
            let closed = |_| (StatusCode::SERVICE_UNAVAILABLE, "shutting down".to_owned());
            received.room = Some(room.acquire().await.map_err(closed)?);
        }
        received.bytes.extend_from_slice(&chunk);
    }
    Ok(received)
}

/// Reads a request, decides, and answers.
async fn answer(
    webhook: &'static str,
    admission: &Admission,
    headers: &HeaderMap,
    body: Body,
    decide: impl AsyncFnOnce(&Request<'_>) -> Result<Answer, ReviewError>,
) -> Response {
    let refuse = |status: StatusCode, message: String| {
        admission.metrics.malformed.inc();
        debug!(webhook, %status, message, "refused");
        (status, message + "\n").into_response()
    };
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some("application/json") {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send application/json".to_owned());
    }
    let body = match tokio::time::timeout(PATIENCE, receive(body, &admission.room)).await {
        Ok(Ok(body)) => body,
        Ok(Err((status, message))) => return refuse(status, message),
        Err(_) => return refuse(StatusCode::REQUEST_TIMEOUT, "the request took too long to arrive".to_owned()),
    };
    let start = Instant::now();
    let request = match parse(&body.bytes) {
        Ok(request) => request,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let answer = decide(&request).await.unwrap_or_else(|error| {
        warn!(webhook, what = request.what(), %error, "refused");
        Answer::invalid(error.to_string())
    });
    let outcome = match &answer {
        Answer { refusal: Some(refusal), .. } => {
            let user = request.user_info.username.as_deref().unwrap_or_default();
            let Request { namespace, name, operation, .. } = &request;
            debug!(webhook, what = request.what(), namespace, name, ?operation, user, refusal.message, "refused");
            "refused"
        }
        Answer { patch, .. } if !patch.is_empty() => "patched",
        _ => "allowed",
    };
    let body = answer.into_json(&request.uid);
    admission.metrics.admission(webhook, outcome, start.elapsed());
    match body {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
