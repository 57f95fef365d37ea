//! Incidents in other systems, as they were, and the same load on our blocks.

mod echo;
mod lura;
#[path = "../support/mod.rs"]
mod support;
