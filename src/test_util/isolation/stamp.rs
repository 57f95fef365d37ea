//! What a branch call is known by.

use std::fmt;
use std::sync::Arc;

use http::header::{HeaderName, HeaderValue};

use crate::sync::{AtomicU64, Ordering};

/// `watershed-stamp`: the header field of a [`Stamp`].
pub const STAMP: HeaderName = HeaderName::from_static("watershed-stamp");

/// What a branch call is known by, as an extension of its request. The header field [`STAMP`] says the same.
#[derive(Debug, Clone)]
pub struct Stamp {
    pub(super) branch: Arc<str>,
    pub(super) serial: u64,
    pub(super) value: HeaderValue,
}

impl Stamp {
    pub(super) fn new(branch: &Arc<str>) -> Self {
        // Unique over all audits of the process: one audit never takes another's stamp for its own.
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let fit = |char: char| if char.is_ascii_graphic() { char } else { '_' };
        let name: String = branch.chars().map(fit).collect();
        let value = format!("{name}-{serial}");
        Self {
            branch: Arc::clone(branch),
            serial,
            value: HeaderValue::try_from(value).expect("visible ASCII"),
        }
    }

    /// The branch that the call belongs to.
    #[must_use]
    pub fn branch(&self) -> &str {
        &self.branch
    }

    /// The value of the header field.
    #[must_use]
    pub fn value(&self) -> &HeaderValue {
        &self.value
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text(&self.value))
    }
}

pub(super) fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}
