//! go-feature-flag on Echo (thomaspoignant/go-feature-flag#2758): the timeout middleware and the handler that it had
//! given up wrote one response's header map, which ended the process. A lock around that map cures the crash and nothing
//! else: a late write is taken and lost, and, as the response belongs to a pool, put on somebody else's answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::Empty;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, yield_now};
use tower::{Layer, Service, ServiceExt, service_fn};
use watershed::timeout::{ResponseHeaders, Sealed, Timeout, TimeoutLayer, WriteError};

use crate::support::MS;

type SharedMap = Arc<Mutex<HeaderMap>>;

/// The defect, on purpose: a timeout that shares one header map with its handler, behind a lock, and takes it from a pool.
#[derive(Clone, Default)]
struct PooledTimeout {
    pool: Arc<Mutex<Vec<SharedMap>>>,
}

impl PooledTimeout {
    /// Runs a handler with a map of its own; at least, until that is somebody else's.
    async fn call<F>(&self, handler: impl FnOnce(SharedMap) -> F) -> Response<()>
    where
        F: Future<Output = ()>,
    {
        let map = self
            .pool
            .lock()
            .expect("not poisoned")
            .pop()
            .unwrap_or_default();
        map.lock().expect("not poisoned").clear();
        let in_time = tokio::time::timeout(10 * MS, handler(Arc::clone(&map))).await;
        let mut response = Response::new(());
        *response.headers_mut() = map.lock().expect("not poisoned").clone();
        if in_time.is_err() {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        self.pool.lock().expect("not poisoned").push(map);
        response
    }
}

fn write(map: &SharedMap, name: &'static str, value: &'static str) {
    let mut map = map.lock().expect("not poisoned");
    map.insert(name, HeaderValue::from_static(value));
}

/// What a task of the first call writes when that has been answered.
async fn late_writer(map: SharedMap, go: Arc<Notify>) {
    go.notified().await;
    // Nobody tells it that it is too late.
    write(&map, "x-user", "first");
}

#[tokio::test(start_paused = true)]
async fn with_a_shared_map_a_late_write_is_taken_and_lost() {
    let timeout = PooledTimeout::default();
    let go = Arc::new(Notify::new());
    let mut late = None;
    let answer = timeout
        .call(|map| {
            late = Some(tokio::spawn(late_writer(map, Arc::clone(&go))));
            async {}
        })
        .await;
    go.notify_one();
    late.expect("spawned").await.expect("it was taken");
    assert!(!answer.headers().contains_key("x-user"));
}

#[tokio::test(start_paused = true)]
async fn with_a_shared_map_what_is_left_of_one_call_is_on_the_answer_of_another() {
    let timeout = PooledTimeout::default();
    let go = Arc::new(Notify::new());
    let mut late = None;
    let first = timeout
        .call(|map| {
            write(&map, "content-type", "text/html");
            late = Some(tokio::spawn(late_writer(map, Arc::clone(&go))));
            std::future::pending()
        })
        .await;
    // The timeout's answer has a field of the handler that it gave up.
    assert_eq!(first.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(first.headers()["content-type"], "text/html");

    let second = timeout
        .call(|_| async {
            go.notify_one();
            late.take().expect("spawned").await.expect("it was taken");
        })
        .await;
    assert_eq!(second.status(), StatusCode::OK);
    assert_eq!(second.headers()["x-user"], "first");
}

/// The same two, on ours: the late write is refused, and there is no other call that it could reach.
#[tokio::test(start_paused = true)]
async fn with_a_handle_a_late_write_is_refused() {
    let go = Arc::new(Notify::new());
    let (sender, mut refused) = tokio::sync::mpsc::unbounded_channel();
    let notify = Arc::clone(&go);
    let service = service_fn(move |request: Request<u32>| {
        let headers: ResponseHeaders = request.extensions().get().cloned().expect("shared");
        let (sender, go) = (sender.clone(), Arc::clone(&notify));
        async move {
            if *request.body() == 1 {
                let name = HeaderName::from_static("x-user");
                let (late, go) = (headers.clone(), Arc::clone(&go));
                tokio::spawn(async move {
                    go.notified().await;
                    let first = HeaderValue::from_static("first");
                    sender.send(late.insert(name, first)).expect("received");
                });
                std::future::pending::<()>().await;
            }
            go.notify_one();
            yield_now().await;
            Ok::<_, std::io::Error>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let service = TimeoutLayer::new(10 * MS).share_headers().layer(service);
    let first = service
        .clone()
        .oneshot(Request::new(1))
        .await
        .expect("an answer");
    let second = service.oneshot(Request::new(2)).await.expect("an answer");
    let late = Err(WriteError::Sealed(Sealed::Deadline));
    assert_eq!(refused.recv().await, Some(late));
    assert_eq!((first.status().as_u16(), first.headers().len()), (504, 1));
    assert_eq!((second.status().as_u16(), second.headers().len()), (200, 0));
}

/// The calls that are made, and how many of them at once.
const CALLS: u64 = 20_000;
const AT_ONCE: u64 = 400;
/// The tasks that write the fields of one call.
const WRITERS: u64 = 3;

/// What a task was told of its writes: what has to be on the answer, and how the call ended.
struct Report {
    inserted: Option<HeaderValue>,
    appended: Vec<HeaderValue>,
    pinned: Option<HeaderValue>,
    sealed: Sealed,
}

/// A call's own: its number, and the tasks that write for it.
#[derive(Clone)]
struct Of {
    call: u64,
    writers: Arc<Mutex<Vec<JoinHandle<Report>>>>,
}

fn name(kind: &str, writer: u64) -> HeaderName {
    HeaderName::try_from(format!("x-{kind}-{writer}")).expect("a name")
}

/// Writes until it is refused. Each value says whose it is, and is written once.
async fn hammer(headers: ResponseHeaders, call: u64, writer: u64) -> Report {
    let mut report = Report {
        inserted: None,
        appended: Vec::new(),
        pinned: None,
        sealed: Sealed::Committed,
    };
    let (insert, append, pin) = (
        name("insert", writer),
        name("append", writer),
        name("pin", writer),
    );
    for round in 0_u64.. {
        let value = HeaderValue::try_from(format!("{call}/{writer}/{round}")).expect("visible");
        let written = match round % 3 {
            0 => headers.insert(insert.clone(), value.clone()),
            1 => headers.pin(pin.clone(), value.clone()),
            _ if report.appended.len() < 8 => headers.append(append.clone(), value.clone()),
            _ => headers.remove(name("never", writer)),
        };
        match written {
            Ok(()) => match round % 3 {
                0 => report.inserted = Some(value),
                1 => report.pinned = Some(value),
                _ if report.appended.len() < 8 => report.appended.push(value),
                _ => {}
            },
            Err(WriteError::Sealed(sealed)) => {
                report.sealed = sealed;
                return report;
            }
            Err(other) => panic!("{other}"),
        }
        if round % 5 == call % 5 {
            yield_now().await;
        }
    }
    unreachable!("it is refused in the end")
}

/// How a call's handler ends, and when: around the deadline.
fn wait(call: u64) -> Duration {
    Duration::from_micros(call.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 51) + MS
}

const LIMIT: Duration = Duration::from_millis(4);

type Handled = std::pin::Pin<Box<dyn Future<Output = Result<Response<Empty<Bytes>>, u64>> + Send>>;

fn service() -> Timeout<
    impl Service<Request<Of>, Response = Response<Empty<Bytes>>, Error = u64, Future = Handled>
    + Clone
    + Send
    + 'static,
> {
    TimeoutLayer::new(LIMIT)
        .share_headers()
        .layer(service_fn(|request: Request<Of>| -> Handled {
            let headers: ResponseHeaders = request.extensions().get().cloned().expect("shared");
            let Of { call, writers } = request.into_body();
            let spawned =
                (0..WRITERS).map(|writer| tokio::spawn(hammer(headers.clone(), call, writer)));
            writers.lock().expect("not poisoned").extend(spawned);
            Box::pin(async move {
                tokio::time::sleep(wait(call)).await;
                match call % 10 {
                    0 => Err(call),
                    // A panic, without the noise.
                    1 => std::panic::resume_unwind(Box::new(call)),
                    _ => Ok(Response::new(Empty::new())),
                }
            })
        }))
}

/// Holds what a call came to against what its writers were told.
async fn hold(of: Of, answer: Option<Response<()>>, ends: &Mutex<HashMap<Sealed, usize>>) {
    let writers = std::mem::take(&mut *of.writers.lock().expect("not poisoned"));
    if writers.is_empty() {
        // A busy machine: no time was left when it could begin.
        return;
    }
    let mut expected = HeaderMap::new();
    let mut sealed = None;
    for (writer, report) in (0..).zip(writers) {
        let report = report.await.expect("no panic");
        // One end for all.
        assert_eq!(*sealed.get_or_insert(report.sealed), report.sealed);
        if report.sealed == Sealed::Committed {
            expected.extend(report.inserted.map(|value| (name("insert", writer), value)));
            for value in report.appended {
                expected.append(name("append", writer), value);
            }
        }
        expected.extend(report.pinned.map(|value| (name("pin", writer), value)));
    }
    let sealed = sealed.expect("some");
    let status = answer.as_ref().map(|answer| answer.status().as_u16());
    match sealed {
        Sealed::Committed => assert_eq!(status, Some(200)),
        Sealed::Deadline => {
            assert_eq!(status, Some(504));
            expected.insert(
                "content-type",
                HeaderValue::from_static("application/problem+json"),
            );
        }
        _ => assert_eq!(status, None, "{sealed:?}"),
    }
    if let Some(answer) = answer {
        assert_eq!(*answer.headers(), expected, "call {}: {sealed:?}", of.call);
        for (name, value) in answer.headers() {
            let own = format!("{}/", of.call);
            assert!(name == "content-type" || value.as_bytes().starts_with(own.as_bytes()));
        }
    }
    *ends
        .lock()
        .expect("not poisoned")
        .entry(sealed)
        .or_default() += 1;
}

// T32
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_load_every_accepted_field_is_on_its_own_answer_and_no_other_is() {
    let start = Instant::now();
    let ends = Arc::new(Mutex::new(HashMap::new()));
    let held = Arc::new(AtomicUsize::new(0));
    let service = service();
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|task| {
            let (service, ends, held) = (service.clone(), Arc::clone(&ends), Arc::clone(&held));
            tokio::spawn(async move {
                for call in (task..CALLS).step_by(AT_ONCE as usize) {
                    let of = Of {
                        call,
                        writers: Arc::default(),
                    };
                    let running = tokio::spawn(service.clone().oneshot(Request::new(of.clone())));
                    if call % 10 == 2 {
                        // This caller does not wait to the end: it races with it, on a real clock.
                        tokio::time::sleep(wait(call + 1)).await;
                        running.abort();
                    }
                    let answer = match running.await {
                        Ok(answer) => answer.ok().map(|answer| answer.map(drop)),
                        Err(_) => None,
                    };
                    hold(of, answer, &ends).await;
                    held.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no call crossed another");
    }
    assert_eq!(held.load(Ordering::Relaxed) as u64, CALLS);
    // And there was something to see.
    let ends = ends.lock().expect("not poisoned");
    for end in [
        Sealed::Committed,
        Sealed::Failed,
        Sealed::Deadline,
        Sealed::Cancelled,
        Sealed::Panicked,
    ] {
        assert!(ends.contains_key(&end), "{ends:?}");
    }
    println!("{CALLS} calls in {:?}: {ends:?}", start.elapsed());
}
