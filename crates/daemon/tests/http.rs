//! Health and metrics over real sockets.

use daemon::health::Report;
use daemon::http::{Server, health_handler};
use daemon::{Health, Metrics, Shutdown};
use prometheus_client::metrics::counter::Counter;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);

async fn ask(at: SocketAddr, request: &str) -> String {
    let mut s = TcpStream::connect(at).await.expect("connects");
    s.write_all(request.as_bytes()).await.expect("writes");
    let mut answer = String::new();
    timeout(SOON, s.read_to_string(&mut answer))
        .await
        .expect("in time")
        .expect("text");
    answer
}

async fn get(at: SocketAddr, path: &str) -> String {
    ask(
        at,
        &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
    )
    .await
}

#[tokio::test]
async fn probes_and_metrics_are_answered_until_the_end() {
    let health = Health::default();
    let metrics = Metrics::default();
    let applied: Counter = Counter::default();
    metrics.register(|r| r.register("applied", "What was applied", applied.clone()));
    let server = Server::bind("tests", "127.0.0.1", 0).await.expect("binds");
    let at = server.address();
    let shutdown = Shutdown::new();
    let handlers = vec![health_handler(health.clone()), metrics.handler()];
    let running = tokio::spawn(server.run(handlers, shutdown.clone()));

    let component = health.register("dataplane", None, Instant::now());
    let text = get(at, "/readiness").await;
    assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
    assert!(text.ends_with("dataplane: not ready: starting\n"), "{text}");
    assert!(get(at, "/liveness").await.starts_with("HTTP/1.1 200 "));
    component.report(Instant::now(), Report::ready());
    assert!(get(at, "/readiness").await.starts_with("HTTP/1.1 200 "));

    applied.inc_by(3);
    let text = get(at, "/metrics").await;
    assert!(
        text.contains("applied_total 3\n") && text.ends_with("# EOF\n"),
        "{text}"
    );
    assert!(
        text.contains("content-type: application/openmetrics-text"),
        "{text}"
    );

    assert!(get(at, "/other").await.starts_with("HTTP/1.1 404 "));
    let post =
        "POST /liveness HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    assert!(ask(at, post).await.starts_with("HTTP/1.1 405 "));
    assert!(
        ask(at, "nonsense\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 400 ")
    );

    // Idle clients do not keep the server from ending.
    let _idle = TcpStream::connect(at).await.expect("connects");
    shutdown.trigger("test");
    timeout(SOON, running)
        .await
        .expect("in time")
        .expect("no panic");
    assert!(TcpStream::connect(at).await.is_err());
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let first = Server::bind("metrics", "127.0.0.1", 0)
        .await
        .expect("binds");
    let port = first.address().port();
    let e = Server::bind("health", "127.0.0.1", port)
        .await
        .expect_err("in use");
    assert_eq!(
        e.to_string(),
        format!("listen for health on 127.0.0.1:{port}")
    );
}
