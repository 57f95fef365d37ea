//! The bodies: the one of a response, and what a request's own leaves behind when it fails.

mod length;
mod request;
mod response;

pub(super) use length::announce;
pub(super) use request::RequestBody;
pub(super) use response::Answer;
pub use response::ClientBody;
