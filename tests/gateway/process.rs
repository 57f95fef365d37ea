//! The gateway's command line.

use crate::backend::Backend;
pub(crate) use crate::wire::process::{Exit, Run, Server as Gateway};

impl Run {
    pub(crate) fn new() -> Self {
        Self::of("gateway")
    }

    pub(crate) fn route(self, path: &str) -> Self {
        self.flag("route", path)
    }

    pub(crate) fn branch(self, name: &str, backend: &Backend, path: &str) -> Self {
        let branch = format!("{name}=http://{}{path}", backend.address());
        self.behind(backend).flag("branch", &branch)
    }
}
