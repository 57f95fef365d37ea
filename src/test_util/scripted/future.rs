//! One call: the request is read, the time passes, the reply is given.

use std::fmt;
use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response};
use http_body::Body;
use http_body_util::BodyExt;

use super::body::ScriptedBody;
use super::core::Running;
use super::record::RecordedCall;
use super::reply::Kind;
use super::service::RequestBody;
use crate::error::BoxError;

/// The future of [`Scripted`](super::Scripted).
pub struct ScriptedFuture {
    pub(super) inner:
        Pin<Box<dyn Future<Output = Result<Response<ScriptedBody>, BoxError>> + Send>>,
}

impl Future for ScriptedFuture {
    type Output = Result<Response<ScriptedBody>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.inner.as_mut().poll(cx)
    }
}

impl fmt::Debug for ScriptedFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedFuture").finish_non_exhaustive()
    }
}

pub(super) async fn run<B>(
    mut running: Running,
    mut call: RecordedCall,
    body: B,
    request_body: RequestBody,
) -> Result<Response<ScriptedBody>, BoxError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    // Not read, it is held until there is an answer: the client would still be sending it.
    let mut unread = Some(body);
    if request_body == RequestBody::Read {
        let body = unread.take().expect("set just now");
        match read(body).await {
            Ok((body, trailers)) => {
                call.body = Some(body);
                call.trailers = trailers;
                running.record_body(&call);
            }
            Err(error) => {
                running.finish();
                return Err(error.into());
            }
        }
    }
    let reply = match catch_unwind(AssertUnwindSafe(|| running.reply(&call))) {
        Ok(reply) => reply,
        Err(payload) => {
            running.finish();
            resume_unwind(payload);
        }
    };
    if !reply.after.is_zero() {
        tokio::time::sleep(reply.after).await;
    }
    if let Kind::Hang = reply.kind {
        return pending().await;
    }
    drop(unread);
    running.finish();
    match reply.kind {
        Kind::Panic(text) => panic!("{text}"),
        Kind::Fail(error) => Err((error.0)()),
        Kind::Answer | Kind::Hang => Ok(reply.into_response(&call, &running.shared)),
    }
}

async fn read<B>(body: B) -> Result<(Bytes, Option<HeaderMap>), B::Error>
where
    B: Body<Data = Bytes>,
{
    let mut body = pin!(body);
    let mut bytes = BytesMut::new();
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((bytes.freeze(), trailers))
}
