//! What the fan-out and its gather promise: who is polled and when, in which order outcomes come, what is dropped, and
//! that one branch's trouble stays its own.

mod building;
mod common;
mod deadline;
mod dropping;
mod isolation;
mod load;
mod order;
mod panics;
mod polling;
mod readiness;
mod width;

#[path = "../support/mod.rs"]
mod support;
