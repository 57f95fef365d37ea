//! Path and URI templates that can't be escaped from.
//!
//! In Lura a path parameter is pasted into the backend's URL and the result parsed: `x/../../admin?z=1#f` changes the path,
//! the query and the fragment. In other proxies a value climbs with `..%2f`, is substituted twice, or reaches the
//! authority. A [`UriTemplate`] encodes each value for its place, in one pass, refuses dot segments, and has no place for
//! a value in scheme or authority.
//!
//! ```
//! use http::Request;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use watershed::rewrite::{PathParams, RewriteLayer, UriTemplate};
//!
//! # tokio_test::block_on(async {
//! let service = ServiceBuilder::new()
//!     .layer(RewriteLayer::new(UriTemplate::new("http://users.internal/users/{id}")))
//!     .service(service_fn(|request: Request<()>| async move {
//!         Ok::<_, watershed::error::BoxError>(request.uri().to_string())
//!     }));
//!
//! // The router has matched `/dash/{id}` and left its parameters in the request.
//! let mut request = Request::get("/dash/a%20b").body(()).unwrap();
//! request.extensions_mut().insert(PathParams::from_iter([("id", "a b")]));
//! assert_eq!(service.oneshot(request).await.unwrap(), "http://users.internal/users/a%20b");
//! # });
//! ```
//!
//! A parameter source of your own, for one layer:
//!
//! ```
//! use watershed::rewrite::{PathParams, RewriteLayer, UriTemplate};
//!
//! let layer = RewriteLayer::new(UriTemplate::new("/tenants/{tenant}/status")).params_from(|parts| {
//!     let tenant = parts.headers.get("x-tenant")?.to_str().ok()?;
//!     Some(PathParams::from_iter([("tenant", tenant)]))
//! });
//! # let _ = layer;
//! ```

mod path;
mod service;
mod template;

pub use crate::params::PathParams;
pub use service::{Rewrite, RewriteFuture, RewriteLayer};
pub use template::{RewriteError, UriTemplate};
