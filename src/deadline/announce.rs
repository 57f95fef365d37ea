//! Reading a caller's deadline.

use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderName, Request};
use tower::{Layer, Service};

use super::Deadline;
use super::form::Form;
use crate::error::BuildError;

/// Announces how long the caller waits, as a header field says it, to everything inside.
///
/// It writes a [`Deadline`] into the request and enforces nothing. The field is removed from the request: by the time a
/// backend is called less is left, which [`EmitDeadlineLayer`](super::EmitDeadlineLayer) tells it.
///
/// ```
/// use std::time::Duration;
/// use http::{HeaderName, Request};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use watershed::deadline::{Deadline, DeadlineLayer};
///
/// # tokio_test::block_on(async {
/// let service = ServiceBuilder::new()
///     .layer(
///         DeadlineLayer::millis(HeaderName::from_static("x-timeout-ms"))
///             .max(Duration::from_secs(5))
///             .when_absent(Duration::from_secs(2)),
///     )
///     .service(service_fn(|request: Request<()>| async move {
///         assert!(!request.headers().contains_key("x-timeout-ms"));
///         let deadline: &Deadline = request.extensions().get().unwrap();
///         Ok::<_, ()>(deadline.remaining())
///     }));
/// let request = Request::builder().header("x-timeout-ms", "300").body(()).unwrap();
/// assert!(service.clone().oneshot(request).await.unwrap() <= Duration::from_millis(300));
/// let request = Request::builder().header("x-timeout-ms", "-1").body(()).unwrap();
/// let left = service.oneshot(request).await.unwrap();
/// assert!(left > Duration::from_secs(1) && left <= Duration::from_secs(2));
/// # });
/// ```
///
/// # What is read
///
/// | form | grammar | example |
/// |---|---|---|
/// | [`grpc`](Self::grpc) | 1 to 8 digits and one of `H` `M` `S` `m` `u` `n` ([gRPC over HTTP/2]) | `300m` |
/// | [`millis`](Self::millis) | digits, up to `u64::MAX` | `300` |
///
/// Anything else, a field that is there twice, a sign, a blank, a number that is too long: all are treated as if the
/// field were absent. Zero is read: such a call is late when it comes.
///
/// # Never longer
///
/// A deadline that the request has already, announced or enforced, stands unless the new one is earlier.
///
/// # Readiness, errors and cancellation
///
/// Those of the inner service.
///
/// [gRPC over HTTP/2]: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
#[derive(Debug, Clone)]
pub struct DeadlineLayer {
    form: Form,
    max: Duration,
    when_absent: Duration,
}

impl DeadlineLayer {
    /// Reads `grpc-timeout`.
    #[must_use]
    pub fn grpc() -> Self {
        Self::reading(Form::Grpc)
    }

    /// Reads a field of this name, in milliseconds.
    #[must_use]
    pub fn millis(name: HeaderName) -> Self {
        Self::reading(Form::Millis(name))
    }

    fn reading(form: Form) -> Self {
        Self {
            form,
            max: Duration::MAX,
            when_absent: Duration::MAX,
        }
    }

    /// At most so long, whatever the caller says, and if it says nothing. Default: [`Duration::MAX`], no limit.
    ///
    /// # Panics
    ///
    /// If `limit` is zero.
    #[must_use]
    #[track_caller]
    pub fn max(self, limit: Duration) -> Self {
        BuildError::expect(self.try_max(limit))
    }

    /// As [`max`](Self::max).
    ///
    /// # Errors
    ///
    /// If `limit` is zero.
    pub fn try_max(mut self, limit: Duration) -> Result<Self, BuildError> {
        self.max = not_zero(limit)?;
        Ok(self)
    }

    /// For a caller that says nothing, or nothing that can be read. Default: [`Duration::MAX`], no deadline.
    ///
    /// # Panics
    ///
    /// If `limit` is zero.
    #[must_use]
    #[track_caller]
    pub fn when_absent(self, limit: Duration) -> Self {
        BuildError::expect(self.try_when_absent(limit))
    }

    /// As [`when_absent`](Self::when_absent).
    ///
    /// # Errors
    ///
    /// If `limit` is zero.
    pub fn try_when_absent(mut self, limit: Duration) -> Result<Self, BuildError> {
        self.when_absent = not_zero(limit)?;
        Ok(self)
    }
}

fn not_zero(limit: Duration) -> Result<Duration, BuildError> {
    if limit.is_zero() {
        return Err(BuildError::new(
            "with a limit of zero every call would be late",
        ));
    }
    Ok(limit)
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> DeadlineService<S> {
        DeadlineService {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service of [`DeadlineLayer`].
#[derive(Debug, Clone)]
pub struct DeadlineService<S> {
    inner: S,
    layer: DeadlineLayer,
}

impl<S> DeadlineService<S> {
    inner_accessors!();
}

impl<S, B> Service<Request<B>> for DeadlineService<S>
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
        let layer = &self.layer;
        let said = layer.form.take(request.headers_mut());
        let limit = said.unwrap_or(layer.when_absent).min(layer.max);
        let deadline = Deadline::after(limit);
        let extensions = request.extensions_mut();
        let earlier = match extensions.get::<Deadline>() {
            Some(inherited) => inherited.earlier(deadline),
            None => deadline,
        };
        if earlier.instant().is_some() {
            earlier.put_in(extensions);
        }
        self.inner.call(request)
    }
}
