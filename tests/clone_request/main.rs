//! What a cloneable request promises: heads that share nothing, and a body that every reader reads whole, at its own pace.

mod common;
mod head;
mod hints;
mod limit;
mod properties;
mod reading;
mod waking;

#[path = "../support/mod.rs"]
mod support;
