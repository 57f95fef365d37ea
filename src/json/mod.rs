//! The span scanner: checks JSON (RFC 8259) and says where its values stand, without building them.
//!
//! A merge moves values; it never needs to know what they are. The scanner is strict (UTF-8, numbers, escapes, nothing after
//! the value), runs in one pass without recursion, and holds its budgets of nodes and depth before anything is stored.

mod scan;

pub(crate) use scan::{Limits, Member, Value, find, members, scan, unescape};
