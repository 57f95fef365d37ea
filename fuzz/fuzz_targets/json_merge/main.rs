//! A JSON merge over random parts, beside a model of a few lines over `serde_json`: the same parts are refused, and of the
//! others each value is where the model has it, with its own text.
//!
//! `cargo fuzz run json_merge -- -dict=dictionaries/json_merge`

#![no_main]

mod input;
mod model;

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use tower::{Layer, Service, ServiceExt};
use watershed::clone_request::{CloneRequestLayer, TeeBody};
use watershed::fanout::FanOut;
use watershed::merge::{Conflict, JsonMerge, JsonPartLayer, MergeLayer};
use watershed::outcome::Branch;

use input::{Input, Mode, Part, Policy, Shape};
use model::{Answer, compact};

/// A backend that answers its part, its body cut in two.
#[derive(Clone)]
struct Backend {
    /// `None` is a 204.
    document: Option<Bytes>,
    cut: usize,
    announces: bool,
}

impl Service<Request<TeeBody>> for Backend {
    type Response = Response<Frames>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Frames>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<TeeBody>) -> Self::Future {
        let status = if self.document.is_some() { 200 } else { 204 };
        let mut second = self.document.clone().unwrap_or_default();
        let first = second.split_to(self.cut.min(second.len()));
        let body = Frames {
            frames: [second, first],
            announces: self.announces,
        };
        ready(Ok(Response::builder()
            .status(status)
            .body(body)
            .expect("a response")))
    }
}

struct Frames {
    /// The last one first; an empty one is left out.
    frames: [Bytes; 2],
    announces: bool,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        for at in [1, 0] {
            let frame = std::mem::take(&mut self.frames[at]);
            if !frame.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(frame))));
            }
        }
        Poll::Ready(None)
    }

    fn size_hint(&self) -> SizeHint {
        match self.announces {
            true => SizeHint::with_exact(self.frames.iter().map(|frame| frame.len() as u64).sum()),
            false => SizeHint::default(),
        }
    }
}

fn run<F: Future>(future: F) -> F::Output {
    let mut cx = Context::from_waker(Waker::noop());
    let mut future = pin!(future);
    for _ in 0..100 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
    }
    panic!("it waits, and there is nothing to wait for");
}

fn merge(input: &Input) -> JsonMerge {
    let merge = match input.mode {
        Mode::Group => JsonMerge::group(),
        Mode::Object => JsonMerge::object(),
        Mode::Array => JsonMerge::array(),
    };
    let limits = input.limits();
    merge
        .on_conflict(match input.policy {
            Policy::First => Conflict::First,
            Policy::Last => Conflict::Last,
            Policy::Deep => Conflict::Deep,
            Policy::Error => Conflict::Error,
        })
        .max_bytes(limits.bytes)
        .max_nodes(limits.nodes)
        .max_depth(limits.depth)
}

fn layer(shape: &Shape) -> JsonPartLayer {
    let mut layer = JsonPartLayer::new();
    if let Some(path) = shape.target() {
        layer = layer.target(&path);
    }
    if let Some(paths) = shape.allow() {
        layer = layer.allow(paths.iter().map(String::as_str));
    }
    layer = layer.deny(shape.deny().iter().map(String::as_str));
    for (from, to) in shape.rename() {
        layer = layer.rename(from, to);
    }
    match shape.group() {
        Some(key) => layer.group(key),
        None => layer,
    }
}

fn branch(index: usize, part: &Part) -> Branch<watershed::fanout::HttpService, Request<TeeBody>> {
    let backend = Backend {
        document: part.document().map(Bytes::from),
        cut: part.cut(),
        announces: part.announces(),
    };
    let name = format!("b{index}");
    match part.shape() {
        Some(shape) => Branch::http(name, layer(shape).layer(backend)),
        None => Branch::http(name, backend),
    }
}

async fn ask(input: &Input) -> (u16, Option<bool>, Vec<u8>) {
    let branches = input.parts().iter().enumerate();
    let branches = branches.map(|(index, part)| branch(index, part));
    let service =
        CloneRequestLayer::new().layer(MergeLayer::new(merge(input)).layer(FanOut::new(branches)));
    let request = Request::new(Frames {
        frames: Default::default(),
        announces: true,
    });
    let response = service.oneshot(request).await.expect("it always answers");
    let complete = response.headers().get("watershed-complete");
    let complete = complete.map(|value| value == "true");
    let status = response.status().as_u16();
    let mut body = pin!(response.into_body());
    let mut bytes = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let data = frame
            .unwrap_or_else(|_| panic!("a broken answer"))
            .into_data();
        bytes.extend_from_slice(&data.expect("data"));
    }
    (status, complete, bytes)
}

fuzz_target!(|input: Input| {
    if input.parts().is_empty() {
        return;
    }
    let (status, complete, body) = run(ask(&input));
    let text = std::str::from_utf8(&body).expect("UTF-8");
    let whole: &RawValue = serde_json::from_str(text)
        .unwrap_or_else(|error| panic!("the answer is no JSON: {error}: {text}"));
    assert_eq!(whole.get(), text, "white space around the answer");
    match model::answer(&input) {
        Answer::Merged {
            document,
            whole,
            exact,
        } => {
            assert_eq!(status, 200, "{text}");
            assert_eq!(complete, Some(whole), "{text}");
            // What is moved keeps its white space; where objects are taken apart, how much of it is not promised.
            match exact {
                true => assert_eq!(text, document),
                false => assert_eq!(compact(text), compact(&document)),
            }
        }
        Answer::Clash { first, second } => {
            assert_eq!((status, complete), (502, Some(false)), "{text}");
            let clash = format!(r#""first":"b{first}","second":"b{second}"}}"#);
            assert!(text.ends_with(&clash), "{text}, and not {clash}");
        }
        Answer::Nobody => {
            assert_eq!((status, complete), (502, Some(false)), "{text}");
            assert!(text.contains("no branch answered"), "{text}");
        }
    }
});
