//! A small HTTP/1 server for health and metrics: GET only, a text for an answer.

use crate::{Health, Shutdown};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// More clients than this at a time wait: probes are few, floods are not.
const MAX_CLIENTS: usize = 32;
/// A client that does not finish its request in this time is cut off.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What a path answers with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// MIME type.
    pub content_type: &'static str,
    /// The text.
    pub body: String,
}

/// Answers a path, or leaves it to the next handler. Must not block.
pub type Handler = Arc<dyn Fn(&str) -> Option<Answer> + Send + Sync>;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
#[error("listen for {purpose} on {host}:{port}")]
pub struct ListenError {
    /// What for.
    pub purpose: &'static str,
    /// The host, as configured.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What the system says.
    #[source]
    pub source: std::io::Error,
}

/// A bound socket, about to be served.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Binds. An empty host is every address; port 0 is any free port.
    ///
    /// # Errors
    /// Names purpose, host and port.
    pub async fn bind(purpose: &'static str, host: &str, port: u16) -> Result<Self, ListenError> {
        let error = |source| ListenError {
            purpose,
            host: host.to_owned(),
            port,
            source,
        };
        let at = if host.is_empty() { "::" } else { host };
        let listener = TcpListener::bind((at, port)).await.map_err(error)?;
        let address = listener.local_addr().map_err(error)?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until asked to end. The first handler that knows a path answers.
    pub async fn run(self, handlers: Vec<Handler>, shutdown: Shutdown) {
        let handlers: Arc<[Handler]> = handlers.into();
        let room = Arc::new(Semaphore::new(MAX_CLIENTS));
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                a = self.listener.accept() => a,
                _ = shutdown.requested() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    // Mostly "too many open files": give it time to pass.
                    tracing::warn!(error = %e, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let handlers = Arc::clone(&handlers);
            tokio::spawn(async move {
                let service = service_fn(|r: Request<Incoming>| {
                    let answer = answer(&handlers, r.method(), r.uri().path());
                    async move { Ok::<_, Infallible>(answer) }
                });
                let served = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(REQUEST_TIMEOUT)
                    .max_buf_size(16 << 10)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
                if let Err(e) = served {
                    tracing::debug!(error = %e, "a client was not served");
                }
                drop(permit);
            });
        }
    }
}

fn answer(handlers: &[Handler], method: &Method, path: &str) -> Response<Full<Bytes>> {
    let plain = |status, body: &str| Answer {
        status,
        content_type: "text/plain; charset=utf-8",
        body: body.to_owned(),
    };
    let answer = if matches!(*method, Method::GET | Method::HEAD) {
        handlers
            .iter()
            .find_map(|h| h(path))
            .unwrap_or_else(|| plain(404, "not found\n"))
    } else {
        plain(405, "only GET\n")
    };
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind = header::HeaderValue::from_static(answer.content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Answers `/liveness` and `/readiness`: 200, or 503 with what is not well.
pub fn health_handler(health: Health) -> Handler {
    Arc::new(move |path| {
        let now = Instant::now();
        let verdict = match path {
            "/liveness" => health.liveness(now),
            "/readiness" => health.readiness(now),
            _ => return None,
        };
        Some(Answer {
            status: if verdict.ok { 200 } else { 503 },
            content_type: "text/plain; charset=utf-8",
            body: verdict.text,
        })
    })
}
