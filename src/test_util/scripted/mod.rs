//! A backend that does what its script says, and records what became of every call.

mod body;
mod core;
mod error;
mod future;
mod record;
mod reply;
mod service;

pub use body::ScriptedBody;
pub use error::ScriptedError;
pub use future::ScriptedFuture;
pub use record::RecordedCall;
pub use reply::Reply;
pub use service::Scripted;
