//! Telling a backend how long it has.

use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderName, Request};
use tower::{Layer, Service};

use super::Deadline;
use super::form::Form;

/// Writes what is left of the request's [`Deadline`] into a header field: on the branch, next to its client.
///
/// ```
/// use std::time::Duration;
/// use http::Request;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use watershed::deadline::{Deadline, EmitDeadlineLayer};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let branch = ServiceBuilder::new()
///     .layer(EmitDeadlineLayer::grpc().margin(Duration::from_millis(20)))
///     .service(service_fn(|request: Request<()>| async move {
///         Ok::<_, ()>(request.headers()["grpc-timeout"].clone())
///     }));
/// let mut request = Request::new(());
/// request.extensions_mut().insert(Deadline::after(Duration::from_millis(320)));
/// assert_eq!(branch.oneshot(request).await.unwrap(), "300000u");
/// # }
/// ```
///
/// What it writes replaces what is there, and is rounded down: a backend is never told that it has more time than is
/// left. `grpc-timeout` takes the finest unit of which eight digits are enough. If nothing is left, less the
/// [margin](Self::margin), it writes `0n` or `0`: the call is made, for it is not this layer that enforces anything, and
/// the backend knows that it is too late. Without a deadline the field is removed.
///
/// What is left is counted when the inner service is called: put it inside whatever waits or repeats.
///
/// # Readiness, errors and cancellation
///
/// Those of the inner service.
#[derive(Debug, Clone)]
pub struct EmitDeadlineLayer {
    form: Form,
    margin: Duration,
}

impl EmitDeadlineLayer {
    /// Writes `grpc-timeout`.
    #[must_use]
    pub fn grpc() -> Self {
        Self::writing(Form::Grpc)
    }

    /// Writes a field of this name, in milliseconds.
    #[must_use]
    pub fn millis(name: HeaderName) -> Self {
        Self::writing(Form::Millis(name))
    }

    fn writing(form: Form) -> Self {
        Self {
            form,
            margin: Duration::ZERO,
        }
    }

    /// What is kept back for the way there and back, so that the backend gives up before its caller does. Default: none.
    #[must_use]
    pub fn margin(mut self, margin: Duration) -> Self {
        self.margin = margin;
        self
    }
}

impl<S> Layer<S> for EmitDeadlineLayer {
    type Service = EmitDeadline<S>;

    fn layer(&self, inner: S) -> EmitDeadline<S> {
        EmitDeadline {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service of [`EmitDeadlineLayer`].
#[derive(Debug, Clone)]
pub struct EmitDeadline<S> {
    inner: S,
    layer: EmitDeadlineLayer,
}

impl<S> EmitDeadline<S> {
    inner_accessors!();
}

impl<S, B> Service<Request<B>> for EmitDeadline<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        let EmitDeadlineLayer { form, margin } = &self.layer;
        let deadline = request.extensions().get::<Deadline>();
        let left = deadline.and_then(|deadline| deadline.instant().map(|_| deadline.remaining()));
        let headers = request.headers_mut();
        match left {
            Some(left) => {
                headers.insert(form.name(), form.write(left.saturating_sub(*margin)));
            }
            None => {
                headers.remove(form.name());
            }
        }
        self.inner.call(request)
    }
}
