//! Readers that a test polls.

use std::convert::Infallible;
use std::task::Poll;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use http_body_util::StreamBody;
use tokio_test::task;
use watershed::clone_request::{TeeBody, TeeError};
use watershed::error::{ClientFault, cause_ref};

/// A reader that the test polls.
pub(crate) struct Reader {
    pub(crate) task: task::Spawn<TeeBody>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Got {
    Data(Bytes),
    Trailers(HeaderMap),
    Error(http::StatusCode),
    End,
}

impl Reader {
    pub(crate) fn new(body: TeeBody) -> Self {
        Self {
            task: task::spawn(body),
        }
    }

    pub(crate) fn poll(&mut self) -> Poll<Got> {
        self.task.enter(|cx, body| {
            body.poll_frame(cx).map(|frame| match frame {
                None => Got::End,
                Some(Err(error)) => Got::Error(fault(&error).status()),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Got::Data(data),
                    Err(frame) => Got::Trailers(frame.into_trailers().expect("trailers")),
                },
            })
        })
    }

    #[track_caller]
    pub(crate) fn assert_data(&mut self, expected: &str) {
        let data = Got::Data(Bytes::copy_from_slice(expected.as_bytes()));
        assert_eq!(self.poll(), Poll::Ready(data));
    }

    #[track_caller]
    pub(crate) fn assert_end(&mut self) {
        for _ in 0..2 {
            assert_eq!(self.poll(), Poll::Ready(Got::End));
        }
    }

    pub(crate) fn is_woken(&self) -> bool {
        self.task.is_woken()
    }
}

impl Clone for Reader {
    fn clone(&self) -> Self {
        Self::new((*self.task).clone())
    }
}

pub(crate) fn fault(error: &TeeError) -> ClientFault {
    cause_ref::<ClientFault>(error)
        .expect("the client's fault")
        .clone()
}

pub(crate) fn readers<const N: usize>(body: impl Into<TeeBody>) -> [Reader; N] {
    let body = body.into();
    std::array::from_fn(|_| Reader::new(body.clone()))
}

pub(crate) fn frames<const N: usize>(
    frames: [&'static str; N],
) -> impl Body<Data = Bytes, Error = Infallible> + Send + 'static {
    let frames = frames.map(|frame| Ok(Frame::data(Bytes::from_static(frame.as_bytes()))));
    StreamBody::new(futures_util::stream::iter(frames))
}
