//! The failure of a script.

/// The failure of a script: of the service, of its readiness, or of a body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ScriptedError {
    text: String,
}

impl ScriptedError {
    /// An error that says `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }
}
