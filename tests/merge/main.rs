//! What the merges answer: the table of answers row by row, JSON documents against a reference, and when they answer.

mod bodies;
mod common;
mod deadlines;
mod failures;
mod fault;
mod head_requests;
mod heads;
mod leaving;
mod parts;
mod passing;
mod reference;
mod requests;
mod required;
mod shaping;
mod table;
mod winners;

#[path = "../support/mod.rs"]
mod support;
