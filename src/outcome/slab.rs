//! Pinned places for the branch futures: one allocation for every eight.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;

pin_project! {
    /// The place of one branch.
    #[project = SlotProj]
    pub(super) enum Slot<F: Future> {
        /// Never used, or its outcome has been taken.
        Empty,
        /// Not finished. `since` is when it was first polled.
        Running { #[pin] future: F, since: Option<Instant> },
        /// Finished, its future dropped, its outcome not taken yet.
        Done { output: Option<F::Output>, elapsed: Duration },
    }
}

/// The places of a slab.
const SLAB: usize = 8;

pin_project! {
    /// Eight places. Named fields, because safe code can't pin into an array.
    struct Slab<F: Future> {
        #[pin] s0: Slot<F>,
        #[pin] s1: Slot<F>,
        #[pin] s2: Slot<F>,
        #[pin] s3: Slot<F>,
        #[pin] s4: Slot<F>,
        #[pin] s5: Slot<F>,
        #[pin] s6: Slot<F>,
        #[pin] s7: Slot<F>,
    }
}

impl<F: Future> Slab<F> {
    const EMPTY: Self = Self {
        s0: Slot::Empty,
        s1: Slot::Empty,
        s2: Slot::Empty,
        s3: Slot::Empty,
        s4: Slot::Empty,
        s5: Slot::Empty,
        s6: Slot::Empty,
        s7: Slot::Empty,
    };

    fn slot(self: Pin<&mut Self>, index: usize) -> Pin<&mut Slot<F>> {
        let slab = self.project();
        match index {
            0 => slab.s0,
            1 => slab.s1,
            2 => slab.s2,
            3 => slab.s3,
            4 => slab.s4,
            5 => slab.s5,
            6 => slab.s6,
            7 => slab.s7,
            _ => unreachable!("a slab has {SLAB} places"),
        }
    }
}

/// As many places as there are branches. Up to eight take one allocation.
pub(super) struct Slots<F: Future> {
    first: Pin<Box<Slab<F>>>,
    rest: Vec<Pin<Box<Slab<F>>>>,
}

impl<F: Future> Slots<F> {
    pub(super) fn new(len: usize) -> Self {
        Self {
            first: Box::pin(Slab::EMPTY),
            rest: (1..len.div_ceil(SLAB))
                .map(|_| Box::pin(Slab::EMPTY))
                .collect(),
        }
    }

    pub(super) fn get(&mut self, index: usize) -> Pin<&mut Slot<F>> {
        match (index / SLAB).checked_sub(1) {
            None => self.first.as_mut().slot(index),
            Some(slab) => self.rest[slab].as_mut().slot(index % SLAB),
        }
    }
}
