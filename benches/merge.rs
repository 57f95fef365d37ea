//! The merge of three JSON documents, beside what one would write by hand: the same backends called with `join_all` and
//! collected, then parsed into `serde_json::Value`s, or spliced from borrowed `RawValue`s.
//!
//! `cargo bench --bench merge`. In instructions, as docs/performance.md has them for documents of 1 KB:
//!
//! ```sh
//! cargo bench --bench merge --no-run
//! valgrind --tool=callgrind --toggle-collect='merge::run' target/release/deps/merge-… \
//!     --bench --sample-count 1 --sample-size 1000 --exact merge::object::a_watershed::1000
//! ```

use std::borrow::Cow;
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::hint::black_box;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use divan::counter::BytesCount;
use divan::{AllocProfiler, Bencher};
use futures_util::future::join_all;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use watershed::body::BoxBody;
use watershed::clone_request::TeeBody;
use watershed::fanout::FanOut;
use watershed::merge::{JsonMerge, MergeLayer};
use watershed::outcome::Branch;

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

/// Roughly the size of each document.
const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
const NAMES: [&str; 3] = ["user", "orders", "ads"];

/// Three documents with keys of their own and nested values.
fn documents(size: usize) -> Vec<Bytes> {
    NAMES
        .map(|name| {
            let mut text = String::from("{");
            let mut field = 0;
            while text.len() < size {
                if field > 0 {
                    text.push(',');
                }
                let items: Vec<String> = (0..4)
                    .map(|item| {
                        format!(
                            r#"{{"id":{item},"price":{}.50,"tags":["a","b\n"],"note":"a line of text, as an API might send it"}}"#,
                            field * 7
                        )
                    })
                    .collect();
                text.push_str(&format!(r#""{name}_{field}":[{}]"#, items.join(",")));
                field += 1;
            }
            text.push('}');
            Bytes::from(text)
        })
        .into()
}

/// Polls to the end on this thread: no runtime between the measured code and the clock. By name, for a tool that counts
/// instructions.
#[inline(never)]
fn run<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
    }
}

/// A backend that answers at once.
fn backend(document: Bytes) -> Erased {
    let service = service_fn(move |_: Request<TeeBody>| {
        let document = document.clone();
        async move { Ok::<_, Infallible>(Response::new(Full::new(document))) }
    });
    Erased::new(service.map_response(|answer| answer.map(BoxBody::new)))
}

type Erased = BoxCloneSyncService<Request<TeeBody>, Response<BoxBody>, Infallible>;

/// Fan-out, merge, and the answer's frames.
fn watershed(bencher: Bencher<'_, '_>, size: usize, merge: JsonMerge) {
    let documents = documents(size);
    let total: usize = documents.iter().map(Bytes::len).sum();
    let branches = NAMES.into_iter().zip(documents);
    let branches = branches.map(|(name, document)| Branch::new(name, backend(document)));
    let service = ServiceBuilder::new()
        .layer(MergeLayer::new(merge))
        .service(FanOut::new(branches));
    bencher.counter(BytesCount::new(total)).bench_local(|| {
        let mut service = service.clone();
        run(async {
            let answer = service.call(Request::new(TeeBody::empty())).await;
            let mut body = answer.expect("infallible").into_body();
            while let Some(frame) = body.frame().await {
                let _ = black_box(frame);
            }
        })
    });
}

/// The same backends, called and collected with what is at hand; `merge` makes one body of theirs.
fn by_hand(bencher: Bencher<'_, '_>, size: usize, merge: impl Fn(&[Bytes]) -> Bytes) {
    let documents = documents(size);
    let total: usize = documents.iter().map(Bytes::len).sum();
    let backends: Vec<Erased> = documents.into_iter().map(backend).collect();
    bencher.counter(BytesCount::new(total)).bench_local(|| {
        run(async {
            let calls = backends.iter().map(|backend| async {
                let answer = backend
                    .clone()
                    .oneshot(Request::new(TeeBody::empty()))
                    .await;
                let body = answer.expect("infallible").into_body();
                body.collect().await.expect("whole").to_bytes()
            });
            let documents = join_all(calls).await;
            let mut answer = Response::new(Full::new(merge(&documents)));
            let json = HeaderValue::from_static("application/json");
            answer.headers_mut().insert(CONTENT_TYPE, json);
            let frame = answer.into_body().frame().await;
            let _ = black_box(frame);
        })
    });
}

/// The members of an object, borrowed.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &RawValue>()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

/// A name is borrowed unless it has escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

mod object {
    use super::*;

    #[divan::bench(args = SIZES)]
    fn a_watershed(bencher: Bencher<'_, '_>, size: usize) {
        watershed(bencher, size, JsonMerge::object());
    }

    #[divan::bench(args = SIZES)]
    fn b_hand_splice(bencher: Bencher<'_, '_>, size: usize) {
        by_hand(bencher, size, |documents| {
            let mut entries: Vec<(Cow<'_, str>, &RawValue)> = Vec::new();
            let mut places: HashMap<Cow<'_, str>, usize> = HashMap::new();
            for document in documents {
                let Members(members) = serde_json::from_slice(document).expect("valid");
                for (name, value) in members {
                    match places.get(&name) {
                        Some(&place) => entries[place].1 = value,
                        None => {
                            places.insert(name.clone(), entries.len());
                            entries.push((name, value));
                        }
                    }
                }
            }
            let mut out = Vec::with_capacity(documents.iter().map(Bytes::len).sum());
            out.push(b'{');
            for (index, (name, value)) in entries.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                serde_json::to_writer(&mut out, name).expect("a string");
                out.push(b':');
                out.extend_from_slice(value.get().as_bytes());
            }
            out.push(b'}');
            Bytes::from(out)
        });
    }

    #[divan::bench(args = SIZES)]
    fn c_serde_json_value(bencher: Bencher<'_, '_>, size: usize) {
        by_hand(bencher, size, |documents| {
            let mut union = Map::new();
            for document in documents {
                let document: Map<String, Value> = serde_json::from_slice(document).expect("valid");
                union.extend(document);
            }
            Bytes::from(serde_json::to_vec(&union).expect("serializable"))
        });
    }
}

mod group {
    use super::*;

    #[divan::bench(args = SIZES)]
    fn a_watershed(bencher: Bencher<'_, '_>, size: usize) {
        watershed(bencher, size, JsonMerge::group());
    }

    #[divan::bench(args = SIZES)]
    fn b_hand_splice(bencher: Bencher<'_, '_>, size: usize) {
        by_hand(bencher, size, |documents| {
            let mut out = Vec::with_capacity(documents.iter().map(Bytes::len).sum::<usize>() + 64);
            out.push(b'{');
            for (index, (name, document)) in NAMES.iter().zip(documents).enumerate() {
                let value: &RawValue = serde_json::from_slice(document).expect("valid");
                if index > 0 {
                    out.push(b',');
                }
                serde_json::to_writer(&mut out, name).expect("a string");
                out.push(b':');
                out.extend_from_slice(value.get().as_bytes());
            }
            out.push(b'}');
            Bytes::from(out)
        });
    }

    #[divan::bench(args = SIZES)]
    fn c_serde_json_value(bencher: Bencher<'_, '_>, size: usize) {
        by_hand(bencher, size, |documents| {
            let mut group = Map::new();
            for (name, document) in NAMES.iter().zip(documents) {
                let document: Value = serde_json::from_slice(document).expect("valid");
                group.insert((*name).to_owned(), document);
            }
            Bytes::from(serde_json::to_vec(&group).expect("serializable"))
        });
    }
}
