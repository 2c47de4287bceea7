//! Answers Prometheus over HTTP, on a loopback address.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};

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

/// Longest wait of a request for the page.
const PAGE_DEADLINE: Duration = Duration::from_secs(20);

/// The last page. At most one is made at a time, by a task that ends by itself: clients that leave must not start another.
struct Pages {
    render: Arc<Render>,
    last: Mutex<Last>,
    made: Notify,
}

#[derive(Default)]
struct Last {
    page: Option<(Instant, Result<String, String>)>,
    is_made: bool,
}

impl Pages {
    fn new(render: Arc<Render>) -> Arc<Self> {
        Arc::new(Self {
            render,
            last: Mutex::default(),
            made: Notify::new(),
        })
    }

    /// The page, if it is new enough.
    fn fresh(&self) -> Option<Result<String, String>> {
        let last = self.lock();
        let (made, page) = last.page.as_ref()?;
        (made.elapsed() < PAGE_AGE).then(|| page.clone())
    }

    async fn page(self: &Arc<Self>) -> Result<String, String> {
        loop {
            // Registered before the look, so that a page that is made meanwhile wakes it up.
            let mut made = std::pin::pin!(self.made.notified());
            made.as_mut().enable();
            if let Some(page) = self.fresh() {
                return page;
            }
            self.start();
            made.await;
        }
    }

    fn start(self: &Arc<Self>) {
        if std::mem::replace(&mut self.lock().is_made, true) {
            return;
        }
        let pages = Arc::clone(self);
        let making = tokio::spawn((self.render)());
        tokio::spawn(async move {
            let page = making.await.unwrap_or_else(|e| Err(e.to_string()));
            *pages.lock() = Last {
                page: Some((Instant::now(), page)),
                is_made: false,
            };
            pages.made.notify_waiters();
        });
    }

    fn lock(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why the page is not served; `None` if it is, or is off.
#[derive(Debug, Default)]
pub struct Trouble(Mutex<Option<String>>);

impl Trouble {
    /// In words.
    pub fn get(&self) -> Option<String> {
        let trouble = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.clone()
    }

    /// Sets it; returns whether it is new.
    fn set(&self, new: Option<String>) -> bool {
        let mut trouble = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = *trouble != new;
        *trouble = new;
        is_new
    }
}

/// Serves the page at `/metrics` of the address, as long as there is one; ends only by being dropped.
pub async fn serve(
    address: impl Fn() -> Option<SocketAddr>,
    render: Arc<Render>,
    trouble: &Trouble,
) -> Infallible {
    let pages = Pages::new(render);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Some(wanted) = address() else {
            trouble.set(None);
            tokio::time::sleep(LOOK_INTERVAL).await;
            continue;
        };
        let listener = match TcpListener::bind(wanted).await {
            Ok(listener) => listener,
            Err(e) => {
                let text = format!("cannot serve the metrics on {wanted}: {e}");
                if trouble.set(Some(text.clone())) {
                    tracing::warn!("{text}");
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
                continue;
            }
        };
        trouble.set(None);
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
                    let pages = Arc::clone(&pages);
                    tokio::spawn(async move {
                        // Prometheus asks again.
                        let _ = tokio::time::timeout(DEADLINE, answer(connection, &pages)).await;
                        drop(place);
                    });
                }
            }
        }
    }
}

async fn answer(connection: TcpStream, pages: &Arc<Pages>) -> Result<(), hyper::Error> {
    let service = service_fn(|request: http::Request<hyper::body::Incoming>| async move {
        let (status, page) = match request.uri().path() {
            "/metrics" => match tokio::time::timeout(PAGE_DEADLINE, pages.page()).await {
                Ok(Ok(page)) => (StatusCode::OK, page),
                Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
                Err(_) => (
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the daemon still looks at its disks\n".to_owned(),
                ),
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
        tokio::spawn(async move {
            let trouble = Trouble::default();
            serve(move || Some(address), render, &trouble).await
        });
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

    #[tokio::test]
    async fn clients_that_leave_start_no_second_page() {
        let count = Arc::new(AtomicUsize::new(0));
        let (release, waits) = tokio::sync::watch::channel(false);
        let counting = Arc::clone(&count);
        let render: Arc<Render> = Arc::new(move || {
            counting.fetch_add(1, Ordering::Relaxed);
            let mut waits = waits.clone();
            Box::pin(async move {
                let _ = waits.wait_for(|released| *released).await;
                Ok("page".to_owned())
            })
        });
        let pages = Pages::new(render);
        for _ in 0..10 {
            let left = tokio::time::timeout(Duration::from_millis(5), pages.page());
            assert!(left.await.is_err());
        }
        assert_eq!(count.load(Ordering::Relaxed), 1);
        release.send(true).unwrap();
        // The page that no client waited for is given to the next one.
        assert_eq!(pages.page().await.unwrap(), "page");
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }
}
