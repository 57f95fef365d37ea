//! Concurrency-safe proxy building blocks for Tower.
#![forbid(unsafe_code)]

pub mod body;
pub mod clone_request;
pub mod deadline;
pub mod error;
pub mod fanout;
pub mod outcome;
pub mod rewrite;

mod fields;
mod params;
mod sync;
