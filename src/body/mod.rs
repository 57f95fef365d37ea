//! Bodies: the inner one or our own bytes, a byte budget, and the mark that says whether an answer is whole.
//!
//! ```
//! use bytes::Bytes;
//! use http_body_util::{BodyExt, Full};
//! use watershed::body::{Chunks, ResponseBody};
//!
//! # tokio_test::block_on(async {
//! // A layer that answers some calls itself returns one body type for both.
//! let theirs: ResponseBody<Full<Bytes>> = ResponseBody::inner(Full::from("from the service"));
//! let ours: ResponseBody<Full<Bytes>> = ResponseBody::own(Chunks::from(Bytes::from("from the layer")));
//! assert_eq!(theirs.collect().await.unwrap().to_bytes(), "from the service");
//! assert_eq!(ours.collect().await.unwrap().to_bytes(), "from the layer");
//! # });
//! ```

mod boxed;
mod chunks;
mod collect;
mod completeness;
mod response;

pub use boxed::BoxBody;
pub use chunks::Chunks;
pub use collect::CollectError;
pub(crate) use collect::{Collect, Collected};
pub use completeness::{COMPLETE, Completeness};
pub use response::ResponseBody;
pub(crate) use response::{OwnAnswer, without_content};
