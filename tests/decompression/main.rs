//! Compressed answers: what is decoded, what is left alone, and what a broken or hostile one comes to.
#![cfg(feature = "decompression")]

mod bounds;
mod broken;
mod common;
mod content;
mod head;
mod stacks;
mod streaming;

#[path = "../support/coding.rs"]
mod coding;
#[path = "../support/mod.rs"]
mod support;
