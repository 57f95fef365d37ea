//! Readers against a model.

use std::task::Poll;

use http::HeaderMap;
use proptest::prelude::*;
use watershed::clone_request::TeeBody;

use crate::common::{Got, Reader};
use crate::support::Feed;

#[derive(Debug, Clone)]
enum Step {
    Feed(Vec<u8>),
    Wake,
    Poll(prop::sample::Index),
    Clone(prop::sample::Index),
    Drop(prop::sample::Index),
}

#[derive(Debug, Clone, Copy)]
enum End {
    Clean,
    Trailers,
    Failure,
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..9).prop_map(Step::Feed),
        1 => Just(Step::Wake),
        6 => index().prop_map(Step::Poll),
        1 => index().prop_map(Step::Clone),
        1 => index().prop_map(Step::Drop),
    ]
}

/// A reader, and what it should have read: the bytes from where it was made.
struct Checked {
    reader: Reader,
    at: usize,
    waits: bool,
}

proptest! {
    /// Readers that are polled, cloned and dropped in any order: each reads exactly what the source gave from where it
    /// was made, is woken for it, and learns of the end.
    #[test]
    fn every_reader_reads_the_whole_in_order(
        steps in prop::collection::vec(step(), 0..120),
        kind in prop_oneof![Just(End::Clean), Just(End::Trailers), Just(End::Failure)],
    ) {
        let (feed, body) = Feed::new();
        let mut readers = vec![Checked { reader: Reader::new(TeeBody::new(body, 1 << 20)), at: 0, waits: false }];
        let mut fed: Vec<u8> = Vec::new();
        for step in steps {
            match step {
                Step::Feed(data) => {
                    fed.extend_from_slice(&data);
                    feed.data(data);
                    for checked in &readers {
                        prop_assert!(!checked.waits || checked.reader.is_woken());
                    }
                }
                Step::Wake => feed.wake(),
                Step::Poll(index) => {
                    let index = index.index(readers.len());
                    let checked = &mut readers[index];
                    match checked.reader.poll() {
                        Poll::Ready(Got::Data(data)) => {
                            let to = checked.at + data.len();
                            prop_assert_eq!(&*data, &fed[checked.at..to]);
                            checked.at = to;
                            checked.waits = false;
                        }
                        Poll::Pending => {
                            // All that there is has been read, by this reader too.
                            prop_assert_eq!(checked.at, fed.len());
                            checked.waits = true;
                        }
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
                Step::Clone(index) if readers.len() < 9 => {
                    let Checked { reader, at, .. } = &readers[index.index(readers.len())];
                    let clone = Checked { reader: reader.clone(), at: *at, waits: false };
                    readers.push(clone);
                }
                Step::Drop(index) if readers.len() > 1 => {
                    readers.swap_remove(index.index(readers.len()));
                }
                Step::Clone(_) | Step::Drop(_) => {}
            }
        }
        match kind {
            End::Clean => {}
            End::Trailers => feed.trailers(HeaderMap::new()),
            End::Failure => feed.fail("cut"),
        }
        feed.end();
        for checked in &mut readers {
            prop_assert!(!checked.waits || checked.reader.is_woken());
            let end = loop {
                match checked.reader.poll() {
                    Poll::Ready(Got::Data(data)) => {
                        let to = checked.at + data.len();
                        prop_assert_eq!(&*data, &fed[checked.at..to]);
                        checked.at = to;
                    }
                    Poll::Ready(other) => break other,
                    Poll::Pending => prop_assert!(false, "nothing more is to come"),
                }
            };
            let expected = match kind {
                End::Clean => Got::End,
                End::Trailers => Got::Trailers(HeaderMap::new()),
                End::Failure => Got::Error(http::StatusCode::BAD_REQUEST),
            };
            prop_assert_eq!(end, expected);
            prop_assert_eq!(checked.reader.poll(), Poll::Ready(Got::End));
            // A failure reaches the slow ones at once.
            if !matches!(kind, End::Failure) {
                prop_assert_eq!(checked.at, fed.len());
            }
        }
    }
}
