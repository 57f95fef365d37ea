//! The proxy's command line.

use crate::backend::Backend;
pub(crate) use crate::wire::process::{Run, Server as Proxy};

impl Run {
    pub(crate) fn new() -> Self {
        Self::of("hyper_proxy")
    }

    pub(crate) fn to(backend: &Backend) -> Self {
        Self::to_path(backend, "")
    }

    pub(crate) fn to_path(backend: &Backend, path: &str) -> Self {
        let url = format!("http://{}{path}", backend.address());
        Self::new().behind(backend).flag("backend", &url)
    }
}
