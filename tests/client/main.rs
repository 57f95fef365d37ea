//! What the client promises, against real servers on the loopback interface, most of them hostile.
//!
//! The names in comments are the cases of the project's list of bad input. Nothing here sleeps: a test waits for what it
//! expects, under a deadline.
#![cfg(feature = "client")]

mod common;
mod connecting;
mod early_answers;
mod hostile;
mod keep_alive;
mod large_heads;
mod ordinary;
mod pool;
mod request_bodies;
mod resets;
#[cfg(feature = "tls")]
mod tls;
