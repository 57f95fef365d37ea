//! Compressed answers of a branch, decoded within a bound.
//!
//! A kilobyte of gzip can be a megabyte of document. Where the limit of a body is checked against the bytes that came, a
//! compressed one passes it and is then blown up (CVE-2024-28101). Here the reader of a body gets decoded bytes, a few
//! kilobytes at a time: a merge's budget counts those, and it stops reading at the first byte too many.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use watershed::decompression::DecompressionLayer;
//!
//! # tokio_test::block_on(async {
//! // `{}`, as gzip.
//! let gzip = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae\x05\x00\x43\xbf\xa6\xa3\x02\x00\x00\x00";
//! let service = ServiceBuilder::new()
//!     .layer(DecompressionLayer::new().max_bytes(1024 * 1024))
//!     .service(service_fn(move |request: Request<()>| async move {
//!         assert_eq!(request.headers()["accept-encoding"], "gzip");
//!         Response::builder()
//!             .header("content-encoding", "gzip")
//!             .body(Full::new(Bytes::from_static(gzip)))
//!     }));
//!
//! let response = service.oneshot(Request::new(())).await.unwrap();
//! assert!(response.headers().get("content-encoding").is_none());
//! assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "{}");
//! # });
//! ```
//!
//! It is a layer for one branch's service, next to the client:
//!
//! ```
//! use tower::ServiceBuilder;
//! use watershed::decompression::{Coding, DecompressionLayer};
//! use watershed::outcome::Branch;
//! use watershed::rewrite::{RewriteLayer, UriTemplate};
//! # use bytes::Bytes;
//! # use http::{Request, Response};
//! # use http_body_util::Full;
//! # use watershed::clone_request::TeeBody;
//! # let client = tower::service_fn(|_: Request<TeeBody>| async {
//! #     Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::default()))
//! # });
//!
//! let orders = ServiceBuilder::new()
//!     .layer(DecompressionLayer::new().with(Coding::Brotli))
//!     .layer(RewriteLayer::new(UriTemplate::new("http://orders.internal/all")))
//!     .service(client);
//! let branch = Branch::http("orders", orders);
//! # let _ = branch;
//! ```
//!
//! # What it asks for
//!
//! `Accept-Encoding: gzip`, whatever the request said before; with brotli, `gzip, br`. `deflate` is decoded if it comes, but not asked for: some
//! servers leave out the zlib header that it has to have (RFC 9110 §8.4.1.2). A request with a `Range` asks for
//! `identity`: its offsets are those of the decoded bytes.
//!
//! # What it decodes
//!
//! An answer with exactly one coding: `gzip` (and `x-gzip`), `deflate`, or `br` if it [may](DecompressionLayer::with), in any case; `identity` counts for nothing.
//! Several members in one gzip body, up to 1024, are one document (RFC 1952 §2.2). It removes from the head what described the
//! compressed bytes: `Content-Encoding`, `Content-Length`, `Accept-Ranges`, `Content-MD5`, `Digest`, `Content-Digest`,
//! `Repr-Digest`, in trailers as well; and it makes a strong `ETag` weak, as the bytes are no longer those that it stands
//! for. The answers to HEAD, and 304, get the same head.
//!
//! Everything else passes as it came: 1xx, 204, 205, 206 and 226, and a body in another coding, or in several. That keeps
//! its `Content-Encoding`, so it is not taken for plain: to a [`JsonMerge`](crate::merge::JsonMerge) it is a failure of that
//! branch. `Cache-Control: no-transform` (RFC 9111 §5.2.2.6) changes nothing: it was this layer that asked for a coding.
//!
//! # What it costs
//!
//! Beside the frame that is being read, a gzip or deflate decoder keeps some 50 KiB, and decodes no more in one poll than it
//! gives. A brotli decoder keeps the window that the body asks for and fills, up to 16 MiB (half as much again while it
//! grows), and fills it in one go: some milliseconds for the thread. One that asks for more (the "large window", which
//! RFC 7932 does not have) is refused. So use brotli only for a backend that you trust with it.

mod body;
mod codec;
mod head;
mod layer;

pub use body::{DecompressionBody, DecompressionError};
pub use head::Coding;
pub use layer::{Decompression, DecompressionFuture, DecompressionLayer};
