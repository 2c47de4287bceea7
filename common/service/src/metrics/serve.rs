//! Answers Prometheus over HTTP, on a loopback address.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};

/// The type of the page, which tells Prometheus how to read it.
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Longest time for one request and its answer.
const DEADLINE: Duration = Duration::from_secs(30);

/// Most requests at one time. Any user of the host can connect.
const MAX_CONNECTIONS: usize = 8;

/// How long a page is given again: to make one reads the copies.
const PAGE_AGE: Duration = Duration::from_secs(5);

/// How often a changed address is looked for, and one that could not be used is tried again.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Makes the page, or says in a sentence why there is none.
pub type Render =
    dyn Fn() -> Pin<Box<dyn Future<Output = Result<String, String>> + Send>> + Send + Sync;

/// The last page, and since when. Requests that come while one is made wait for it.
#[derive(Default)]
struct Last(Mutex<Option<(Instant, String)>>);

impl Last {
    async fn page(&self, render: &Render) -> Result<String, String> {
        let mut last = self.0.lock().await;
        if let Some((made, page)) = &*last
            && made.elapsed() < PAGE_AGE
        {
            return Ok(page.clone());
        }
        let page = render().await?;
        *last = Some((Instant::now(), page.clone()));
        Ok(page)
    }
}

/// Serves the page at `/metrics` of the address, as long as there is one; ends only by being dropped.
pub async fn serve(address: impl Fn() -> Option<SocketAddr>, render: Arc<Render>) -> Infallible {
    let last = Arc::new(Last::default());
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut refused = None;
    loop {
        let Some(wanted) = address() else {
            refused = None;
            tokio::time::sleep(LOOK_INTERVAL).await;
            continue;
        };
        let listener = match TcpListener::bind(wanted).await {
            Ok(listener) => listener,
            Err(e) => {
                if refused != Some(wanted) {
                    tracing::warn!("cannot serve the metrics on {wanted}: {e}");
                }
                refused = Some(wanted);
                tokio::time::sleep(LOOK_INTERVAL).await;
                continue;
            }
        };
        refused = None;
        tracing::info!("the metrics are at http://{wanted}/metrics");
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        while address() == Some(wanted) {
            tokio::select! {
                _ = look.tick() => {}
                accepted = listener.accept() => {
                    let Ok((connection, _)) = accepted else {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    };
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                        continue;
                    };
                    let (last, render) = (Arc::clone(&last), Arc::clone(&render));
                    tokio::spawn(async move {
                        // Prometheus asks again.
                        let _ = tokio::time::timeout(DEADLINE, answer(connection, &last, &*render)).await;
                        drop(place);
                    });
                }
            }
        }
    }
}

async fn answer(connection: TcpStream, last: &Last, render: &Render) -> Result<(), hyper::Error> {
    let service = service_fn(|request: http::Request<hyper::body::Incoming>| async move {
        let (status, page) = match request.uri().path() {
            "/metrics" => match last.page(render).await {
                Ok(page) => (StatusCode::OK, page),
                Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
            _ => (
                StatusCode::NOT_FOUND,
                "the metrics are at /metrics\n".to_owned(),
            ),
        };
        let mut response = Response::new(page);
        *response.status_mut() = status;
        if status == StatusCode::OK {
            response.headers_mut().insert(CONTENT_TYPE, OPEN_METRICS);
        }
        Ok::<_, Infallible>(response)
    });
    http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(connection), service)
        .await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut connection = loop {
            match TcpStream::connect(address).await {
                Ok(connection) => break connection,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_page_is_served_and_nothing_else_and_clients_that_hang_block_nobody() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let count = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&count);
        let render: Arc<Render> = Arc::new(move || {
            counting.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Ok("sendshot_x 1\n# EOF\n".to_owned()) })
        });
        tokio::spawn(serve(move || Some(address), render));
        let page = get(address, "/metrics").await;
        assert!(page.starts_with("HTTP/1.1 200 OK"), "{page}");
        assert!(page.ends_with("sendshot_x 1\n# EOF\n"), "{page}");
        assert!(
            page.contains("content-type: application/openmetrics-text"),
            "{page}"
        );
        let other = get(address, "/").await;
        assert!(other.starts_with("HTTP/1.1 404"), "{other}");
        let _silent = TcpStream::connect(address).await.unwrap();
        assert!(
            get(address, "/metrics")
                .await
                .starts_with("HTTP/1.1 200 OK")
        );
        // One page served both, since it is new.
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }
}
