//! What `test_util` promises: a backend that keeps to its script, and an audit that misses no crossing and invents none.

mod common;
mod isolation;
mod scripted;
