//! `Server-Timing` (W3C Server Timing), one entry per branch.

use std::fmt::Write;
use std::time::Duration;

use http::HeaderValue;

use crate::outcome::BranchId;

#[derive(Debug, Default)]
pub(super) struct ServerTiming {
    entries: Vec<(usize, String)>,
}

impl ServerTiming {
    pub(super) fn add(&mut self, branch: &BranchId, elapsed: Duration, failed: bool) {
        let mut entry = String::with_capacity(branch.name().len() + 24);
        // A metric's name is a token (RFC 9110 §5.6.2); a branch's may be anything.
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        entry.extend(
            branch
                .name()
                .chars()
                .map(|c| if token(c) { c } else { '_' }),
        );
        let _ = write!(entry, ";dur={:.3}", elapsed.as_secs_f64() * 1e3);
        if failed {
            entry.push_str(";desc=failed");
        }
        self.entries.push((branch.index(), entry));
    }

    /// In declared order.
    pub(super) fn value(mut self) -> Option<HeaderValue> {
        self.entries.sort_unstable();
        let entries: Vec<_> = self.entries.into_iter().map(|(_, entry)| entry).collect();
        HeaderValue::try_from(entries.join(", ")).ok()
    }
}
