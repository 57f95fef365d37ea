//! The handle to one call's header fields.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::core::{Change, Core, Sealed, Write, WriteError};
use crate::deadline::Deadline;
use crate::fields::is_of_the_connection;

/// One call's header fields, writable from any task until the call has ended: an extension of the request below a
/// [`TimeoutLayer::share_headers`](super::TimeoutLayer::share_headers).
///
/// Tasks that a handler spawns have no safe place for a header field of their own: a map behind a lock takes a late write
/// and loses it, or puts it on somebody else's answer. Here a write is accepted or refused. What is accepted is *staged*:
/// it is on the response that the layer returns if the call ends as [`Sealed::Committed`]; on every other end only what
/// was [pinned](Self::pin) is, on the answer that this layer makes, if it makes one. A refused write
/// [says why](WriteError). What layers further out do to that response is outside of this promise.
///
/// Staged writes go on the response in the order in which they were accepted, after the inner service's own fields.
///
/// ```
/// use std::time::Duration;
/// use http::{HeaderName, HeaderValue, Request, Response};
/// use http_body_util::Full;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use watershed::timeout::{ResponseHeaders, Sealed, TimeoutLayer, WriteError};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// const SHARD: HeaderName = HeaderName::from_static("x-shard");
///
/// let service = ServiceBuilder::new()
///     .layer(TimeoutLayer::new(Duration::from_secs(2)).share_headers())
///     .service(service_fn(|request: Request<()>| async move {
///         let headers: ResponseHeaders = request.extensions().get().cloned().unwrap();
///         let other = headers.clone();
///         tokio::spawn(async move { other.insert(SHARD, HeaderValue::from_static("7")) })
///             .await.unwrap().unwrap();
///         // This one waits, and is too late.
///         tokio::spawn(async move {
///             assert_eq!(headers.sealed().await, Sealed::Committed);
///             let refused = headers.insert(SHARD, HeaderValue::from_static("8"));
///             assert_eq!(refused, Err(WriteError::Sealed(Sealed::Committed)));
///         });
///         Ok::<_, std::io::Error>(Response::new(Full::<bytes::Bytes>::default()))
///     }));
/// let response = service.oneshot(Request::new(())).await.unwrap();
/// assert_eq!(response.headers()["x-shard"], "7");
/// # }
/// ```
///
/// # Bounds
///
/// At most 64 fields and 16 KiB of names and values are staged; a removal counts as a field, and one that is pinned counts
/// twice. A field that is written again takes the room of one.
///
/// # Isolation
///
/// Each call has its own. A [`HeadPolicy`](crate::clone_request::HeadPolicy) does not keep it by default, so the branches
/// of a fan-out can't reach the answer's fields; `HeadPolicy::default().extension::<ResponseHeaders>()` lets them.
///
/// A handle that outlives its call holds nothing of it but how it ended and its deadline.
#[derive(Clone)]
pub struct ResponseHeaders {
    core: Arc<Core>,
    deadline: Deadline,
}

impl ResponseHeaders {
    pub(super) fn new(core: Arc<Core>, deadline: Deadline) -> Self {
        Self { core, deadline }
    }

    /// Sets the field, instead of all values that it has by then, those of the inner service's response included.
    ///
    /// # Errors
    ///
    /// If the call has ended, the field is one of the connection or of the framing, or there are too many.
    pub fn insert(&self, name: HeaderName, value: HeaderValue) -> Result<(), WriteError> {
        self.write(name, Change::Insert(value))
    }

    /// Adds a value to the field, after those that it has by then.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn append(&self, name: HeaderName, value: HeaderValue) -> Result<(), WriteError> {
        self.write(name, Change::Append(value))
    }

    /// Removes the field, with all values that it has by then, those of the inner service's response included. A pin of
    /// this name is withdrawn.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn remove(&self, name: HeaderName) -> Result<(), WriteError> {
        self.write(name, Change::Remove)
    }

    /// As [`insert`](Self::insert), and on the answer that this layer makes as well: for a request id or what CORS wants.
    /// What is inserted or appended later does not change the pin; another pin of this name replaces it. So there is one
    /// value for each name, and of two `Set-Cookie` only the last stays pinned.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn pin(&self, name: HeaderName, value: HeaderValue) -> Result<(), WriteError> {
        if is_of_the_connection(&name) {
            return Err(WriteError::Forbidden);
        }
        let pin = Write {
            name: name.clone(),
            change: Change::Insert(value.clone()),
        };
        let change = Change::Insert(value);
        self.core.write(Write { name, change }, Some(pin))
    }

    fn write(&self, name: HeaderName, change: Change) -> Result<(), WriteError> {
        if is_of_the_connection(&name) {
            return Err(WriteError::Forbidden);
        }
        self.core.write(Write { name, change }, None)
    }

    /// The instant by which the call has to answer, whichever layer sees to it.
    #[must_use]
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// What is left until then: zero once it has passed, [`Duration::MAX`] if it never comes.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.deadline.remaining()
    }

    /// How the call ended, if it has.
    #[must_use]
    pub fn state(&self) -> Option<Sealed> {
        self.core.state()
    }

    /// Waits until the call has ended. Any number of tasks may.
    ///
    /// # Cancellation
    ///
    /// The future can be dropped at any time and keeps no place.
    pub fn sealed(&self) -> SealedFuture {
        SealedFuture {
            core: Arc::clone(&self.core),
            key: None,
        }
    }
}

impl fmt::Debug for ResponseHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseHeaders")
            .field("state", &self.state())
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// The future of [`ResponseHeaders::sealed`].
#[must_use = "futures do nothing unless polled"]
pub struct SealedFuture {
    core: Arc<Core>,
    key: Option<u64>,
}

impl Future for SealedFuture {
    type Output = Sealed;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Sealed> {
        let this = &mut *self;
        this.core.poll_sealed(&mut this.key, cx)
    }
}

impl Drop for SealedFuture {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.core.forget(key);
        }
    }
}

impl fmt::Debug for SealedFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedFuture").finish_non_exhaustive()
    }
}
