//! Health and metrics over HTTP.
//!
//! Promises: `/liveness` and `/readiness` answer 200 or 503 with one line a component;
//! `/metrics` is OpenMetrics text. Nothing else is served, and nothing is changed by asking.

use crate::Health;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// How long one request may take, so that silent clients cannot pile up.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The metrics of a process. A clone is the same.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<Mutex<prometheus_client::registry::Registry>>);

impl Registry {
    /// For adding metrics.
    pub fn lock(&self) -> MutexGuard<'_, prometheus_client::registry::Registry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them as text.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut out, &self.lock());
        out
    }
}

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve {what} on {host}:{port}: {source}")]
pub struct ServeError {
    what: &'static str,
    host: String,
    port: u16,
    source: std::io::Error,
}

type Reply = Response<Full<Bytes>>;

fn reply(status: StatusCode, kind: &'static str, body: String) -> Reply {
    let mut r = Response::new(Full::new(Bytes::from(body)));
    *r.status_mut() = status;
    r.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    r
}

const PLAIN: &str = "text/plain; charset=utf-8";

fn missing(paths: &str) -> Reply {
    reply(StatusCode::NOT_FOUND, PLAIN, format!("not found; there is {paths}\n"))
}

/// Starts serving `/liveness` and `/readiness`.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve_health(host: &str, port: u16, health: Health) -> Result<(), ServeError> {
    serve("health", host, port, move |path| {
        let verdict = match path {
            "/liveness" => health.live(Instant::now()),
            "/readiness" => health.ready(),
            _ => return missing("/liveness and /readiness"),
        };
        let status = if verdict.good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        reply(status, PLAIN, verdict.text)
    })
    .await
}

/// Starts serving `/metrics`.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve_metrics(host: &str, port: u16, registry: Registry) -> Result<(), ServeError> {
    serve("metrics", host, port, move |path| match path {
        "/metrics" => reply(
            StatusCode::OK,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            registry.text(),
        ),
        _ => missing("/metrics"),
    })
    .await
}

async fn serve<F>(what: &'static str, host: &str, port: u16, answer: F) -> Result<(), ServeError>
where
    F: Fn(&str) -> Reply + Send + Sync + 'static,
{
    let bind = if host.is_empty() { "0.0.0.0" } else { host };
    let listener = TcpListener::bind((bind, port)).await.map_err(|source| ServeError {
        what,
        host: bind.to_owned(),
        port,
        source,
    })?;
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let answer = answer.clone();
            tokio::spawn(async move {
                let service = service_fn(move |r: Request<Incoming>| {
                    let answer = answer.clone();
                    async move {
                        Ok::<_, Infallible>(match *r.method() {
                            Method::GET | Method::HEAD => answer(r.uri().path()),
                            _ => reply(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET\n".to_owned()),
                        })
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                // A client that breaks off or dawdles is its own loss.
                let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
            });
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn get(port: u16, path: &str) -> String {
        let mut s = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("connects");
        s.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.expect("asks");
        let mut out = String::new();
        s.read_to_string(&mut out).await.expect("answers");
        out
    }

    #[tokio::test]
    async fn readiness_turns_with_the_components() {
        let port = TcpListener::bind("127.0.0.1:0").await.expect("binds").local_addr().expect("bound").port();
        let health = Health::default();
        let part = health.register("store", None, Instant::now());
        serve_health("127.0.0.1", port, health).await.expect("serves");
        assert!(get(port, "/readiness").await.contains("503") );
        part.report(Ok(()), Instant::now());
        let ok = get(port, "/readiness").await;
        assert!(ok.starts_with("HTTP/1.1 200") && ok.contains("store: ok"));
        assert!(get(port, "/liveness").await.starts_with("HTTP/1.1 200"));
        assert!(get(port, "/nothing").await.starts_with("HTTP/1.1 404"));
        let taken = serve_metrics("127.0.0.1", port, Registry::default()).await.expect_err("taken");
        assert!(taken.to_string().contains(&port.to_string()));
    }
}
