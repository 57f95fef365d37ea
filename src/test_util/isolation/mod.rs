//! The audit: a stamp on every branch call, checked where the request is sent.

mod audit;
mod check;
mod core;
mod crossing;
mod stamp;
mod stamping;

pub use audit::Isolation;
pub use check::{Check, CheckFuture, CheckLayer};
pub use crossing::{Crossed, Crossing, CrossingKind};
pub use stamp::{STAMP, Stamp};
pub use stamping::{StampFuture, StampLayer, Stamped};
