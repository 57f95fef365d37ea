//! What the clones of a scripted backend share: its script, and the log of its calls.

use std::sync::Arc;

use super::record::RecordedCall;
use super::reply::Reply;
use crate::sync::{Mutex, lock};

pub(super) enum Script {
    List(Vec<Reply>),
    Computed(Box<dyn Fn(&RecordedCall) -> Reply + Send + Sync>),
}

pub(super) struct Shared {
    pub(super) script: Script,
    pub(super) log: Mutex<Log>,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) calls: Vec<RecordedCall>,
    pub(super) started: usize,
    pub(super) finished: usize,
    pub(super) dropped: usize,
    pub(super) peak: usize,
    pub(super) bodies_finished: usize,
    pub(super) bodies_dropped: usize,
}

impl Log {
    pub(super) fn in_flight(&self) -> usize {
        self.started - self.finished - self.dropped
    }
}

/// One call, from its start until it has finished or is dropped.
pub(super) struct Running {
    pub(super) shared: Arc<Shared>,
    index: usize,
    finished: bool,
}

impl Running {
    pub(super) fn start(shared: &Arc<Shared>, call: &RecordedCall, kept: usize) -> Self {
        let mut log = lock(&shared.log);
        let index = log.started;
        log.started += 1;
        log.peak = log.peak.max(log.in_flight());
        // Without a gap, so that the call's number is its place.
        if log.calls.len() == index && index < kept {
            log.calls.push(call.clone());
        }
        Self {
            shared: Arc::clone(shared),
            index,
            finished: false,
        }
    }

    pub(super) fn record_body(&self, call: &RecordedCall) {
        if let Some(recorded) = lock(&self.shared.log).calls.get_mut(self.index) {
            recorded.body.clone_from(&call.body);
            recorded.trailers.clone_from(&call.trailers);
        }
    }

    pub(super) fn reply(&self, call: &RecordedCall) -> Reply {
        match &self.shared.script {
            Script::List(replies) => replies[self.index.min(replies.len() - 1)].clone(),
            Script::Computed(reply) => reply(call),
        }
    }

    pub(super) fn finish(&mut self) {
        self.finished = true;
        lock(&self.shared.log).finished += 1;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.finished {
            lock(&self.shared.log).dropped += 1;
        }
    }
}
