//! Requests to the webhook over TLS, as an API server makes them: one connection that stays, HTTP/2 or HTTP/1.1.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::site::WEBHOOK;

/// Which protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2, which the API server's client speaks wherever the server can.
    Two,
    /// HTTP/1.1 with keep-alive.
    One,
}

/// One connection to the webhook.
pub enum Connection {
    /// Many requests at a time.
    Two(http2::SendRequest<Full<Bytes>>),
    /// One after the other.
    One(http1::SendRequest<Full<Bytes>>),
}

/// What is sent.
#[derive(Clone, Debug)]
pub struct Ask {
    /// `/mutate` or `/validate`.
    pub path: &'static str,
    /// The body.
    pub body: Bytes,
}

impl Connection {
    /// Connects, and trusts these authorities (PEM) alone.
    pub async fn open(protocol: Protocol, authorities: &[u8]) -> Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authorities) {
            roots.add(certificate?)?;
        }
        ensure!(!roots.is_empty(), "the webhook's authority is empty");
        let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let word: &[u8] = if protocol == Protocol::Two { b"h2" } else { b"http/1.1" };
        config.alpn_protocols = vec![word.to_vec()];
        let stream = TcpStream::connect(WEBHOOK).await.context("connect to the webhook")?;
        stream.set_nodelay(true)?;
        let name = ServerName::from(WEBHOOK.ip());
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.context("TLS")?;
        ensure!(stream.get_ref().1.alpn_protocol() == Some(word), "the webhook does not speak {protocol:?}");
        let io = TokioIo::new(stream);
        Ok(match protocol {
            Protocol::Two => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                tokio::spawn(connection);
                Self::Two(sender)
            }
            Protocol::One => {
                let (sender, connection) = http1::handshake(io).await?;
                tokio::spawn(connection);
                Self::One(sender)
            }
        })
    }

    /// Asks once.
    pub async fn ask(&mut self, ask: &Ask) -> Result<(StatusCode, Bytes)> {
        let uri = format!("https://{WEBHOOK}{}", ask.path);
        let request = Request::post(uri).header(header::HOST, WEBHOOK.to_string());
        let request = request.header(header::CONTENT_TYPE, "application/json").body(Full::new(ask.body.clone()))?;
        let response = match self {
            Self::Two(sender) => sender.send_request(request).await?,
            Self::One(sender) => sender.send_request(request).await?,
        };
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }

    /// The same for another task, where the protocol lets several ask at a time.
    fn share(&self) -> Result<Self> {
        match self {
            Self::Two(sender) => Ok(Self::Two(sender.clone())),
            Self::One(_) => anyhow::bail!("one at a time"),
        }
    }
}

/// Asks one after the other; how long each took.
pub async fn in_turn(connection: &mut Connection, asks: &[Ask], expected: StatusCode) -> Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(asks.len());
    for ask in asks {
        let start = Instant::now();
        let (status, _) = connection.ask(ask).await?;
        times.push(start.elapsed());
        ensure!(status == expected, "the webhook answers {status}");
    }
    Ok(times)
}

/// Asks all, so many at a time, over one connection; how long each took, and all together.
pub async fn at_once(
    connection: &Connection,
    asks: &[Ask],
    at_once: usize,
    expected: StatusCode,
) -> Result<(Vec<Duration>, Duration)> {
    let start = Instant::now();
    let each = stream::iter(asks).map(|ask| async move {
        let mut connection = connection.share()?;
        let start = Instant::now();
        let (status, _) = connection.ask(ask).await?;
        ensure!(status == expected, "the webhook answers {status}");
        anyhow::Ok(start.elapsed())
    });
    let times = each.buffer_unordered(at_once).try_collect().await?;
    Ok((times, start.elapsed()))
}
