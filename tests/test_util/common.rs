//! Calls of a backend, and what they answer.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Empty};
use tower::ServiceExt;
use watershed::error::BoxError;
use watershed::test_util::{Scripted, ScriptedBody};

pub(crate) const MS: Duration = Duration::from_millis(1);

pub(crate) fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(path).body(Empty::new()).expect("a request")
}

pub(crate) async fn text<B>(response: Response<B>) -> String
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let body = response.into_body().collect().await.map_err(Into::into);
    String::from_utf8(body.expect("a whole body").to_bytes().to_vec()).expect("UTF-8")
}

pub(crate) async fn call(backend: &Scripted) -> Result<Response<ScriptedBody>, BoxError> {
    backend.clone().oneshot(get("/")).await
}
