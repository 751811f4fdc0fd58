//! The requests in progress on a downstream connection. The task that drives the connection polls them, too, so that
//! their responses are written in the same turn.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::task::coop::has_budget_remaining;

use super::half::{Receiver, Sender};
use super::head::RequestHead;
use super::server::stream;
use crate::proxy::http::connection::Downstream;

/// How many free allocations a worker keeps for new streams.
const KEPT_PLACES: usize = 64;

/// How many rounds a turn may go on with work that it has itself caused.
const ROUNDS: usize = 4;

thread_local! {
    static BEGINNER: Beginner = Beginner::new();
}

/// The requests in progress.
#[derive(Default)]
pub(super) struct Streams {
    running: FuturesUnordered<Running>,
    turn: Option<Arc<Turn>>,
}

type Running = Pin<Box<dyn Future<Output = ()>>>;

/// Starts requests in the allocations that finished ones have left: the futures are large, and allocating each anew is
/// slow.
struct Beginner(Box<Begin>);

type Begin = dyn Fn(Rc<Downstream>, RequestHead, Receiver, Sender) -> Running;

type Place<F> = Pin<Box<Option<F>>>;
type Places<F> = Rc<RefCell<Vec<Place<F>>>>;

impl Beginner {
    fn new() -> Self {
        let places = Rc::default();
        Self(Box::new(move |downstream, received, receiver, sender| {
            Box::pin(placed(&places, stream(downstream, received, receiver, sender)))
        }))
    }
}

/// A future in its reusable allocation.
struct Placed<F> {
    place: Option<Place<F>>,
    places: Places<F>,
}

fn placed<F>(places: &Places<F>, stream: F) -> Placed<F> {
    let left = places.borrow_mut().pop();
    let mut place = left.unwrap_or_else(|| Box::pin(None));
    place.set(Some(stream));
    Placed {
        place: Some(place),
        places: places.clone(),
    }
}

impl<F: Future<Output = ()>> Future for Placed<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.place.as_mut().and_then(|place| place.as_mut().as_pin_mut()) {
            Some(stream) => stream.poll(cx),
            None => Poll::Ready(()),
        }
    }
}

impl<F> Drop for Placed<F> {
    fn drop(&mut self) {
        let Some(mut place) = self.place.take() else {
            return;
        };
        place.set(None);
        let mut places = self.places.borrow_mut();
        if places.len() < KEPT_PLACES {
            places.push(place);
        }
    }
}

/// The waker of a turn. If the task is woken during its own turn, the turn goes another round, which is cheaper than
/// being scheduled again.
#[derive(Debug)]
struct Turn {
    task: Waker,
    within: AtomicBool,
    again: AtomicBool,
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.within.load(SeqCst) {
            self.again.store(true, SeqCst);
            // A wake-up from another thread may come too late for the turn to see it.
            if self.within.load(SeqCst) {
                return;
            }
        }
        self.task.wake_by_ref();
    }
}

impl Streams {
    /// Starts a request.
    pub(super) fn begin(&self, downstream: Rc<Downstream>, received: RequestHead, receiver: Receiver, sender: Sender) {
        let stream = BEGINNER.with(|beginner| beginner.0(downstream, received, receiver, sender));
        self.running.push(stream);
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// One turn of the connection and its streams. `connection`, which starts streams, is polled until nothing changes
    /// or it ends.
    pub(super) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut connection: impl FnMut(&Self, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let turn = self.turn(cx.waker());
        let waker = Waker::from(turn.clone());
        let mut within = Context::from_waker(&waker);
        turn.within.store(true, SeqCst);
        let mut rounds = 0;
        let polled = loop {
            turn.again.store(false, SeqCst);
            if let Poll::Ready(ended) = connection(self, &mut within) {
                break Poll::Ready(ended);
            }
            while let Poll::Ready(Some(())) = self.running.poll_next_unpin(&mut within) {}
            rounds += 1;
            // Without budget, tokio would only have everything polled again reschedule itself.
            if !turn.again.load(SeqCst) || rounds == ROUNDS || !has_budget_remaining() {
                break Poll::Pending;
            }
        };
        turn.within.store(false, SeqCst);
        if turn.again.load(SeqCst) {
            cx.waker().wake_by_ref();
        }
        polled
    }

    fn turn(&mut self, task: &Waker) -> Arc<Turn> {
        match &self.turn {
            Some(turn) if turn.task.will_wake(task) => turn.clone(),
            Some(_) | None => {
                let turn = Arc::new(Turn {
                    task: task.clone(),
                    within: AtomicBool::new(false),
                    again: AtomicBool::new(false),
                });
                self.turn.insert(turn).clone()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::{pending, poll_fn, ready};

    use super::*;

    #[test]
    fn a_stream_has_the_place_of_one_that_ended() {
        type Ended = Placed<std::future::Ready<()>>;
        let places = Places::default();
        let at = |placed: &Ended| placed.place.as_ref().map(|place| std::ptr::from_ref(&**place).addr());
        let first = placed(&places, ready(()));
        let place = at(&first);
        drop(first);
        assert_eq!(at(&placed(&places, ready(()))), place);
        let many: Vec<_> = (0..2 * KEPT_PLACES).map(|_| placed(&places, ready(()))).collect();
        drop(many);
        assert_eq!(places.borrow().len(), KEPT_PLACES);
    }

    /// Counts its wakes.
    #[derive(Default)]
    struct Woken(std::sync::atomic::AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn what_a_turn_brings_about_belongs_to_it_and_no_turn_is_endless() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut cx = Context::from_waker(&waker);
        let mut streams = Streams::default();
        let told = Rc::new(Cell::new(None::<Waker>));
        let tells = told.clone();
        // A stream that says something to the connection, and then waits.
        streams.running.push(Box::pin(async move {
            poll_fn(|_| {
                tells.take().expect("it is there").wake();
                Poll::Ready(())
            })
            .await;
            pending().await
        }));
        let mut polls = 0;
        let polled = streams.poll(&mut cx, |_, cx| {
            polls += 1;
            told.set(Some(cx.waker().clone()));
            Poll::<()>::Pending
        });
        assert!(polled.is_pending());
        assert_eq!((polls, woken.0.load(SeqCst)), (2, 0));
        // What comes from elsewhere wakes the task.
        told.take().expect("it is there").wake();
        assert_eq!(woken.0.load(SeqCst), 1);
        // A connection that always has more to do is done again in turns to come.
        let mut polls = 0;
        let polled = streams.poll(&mut cx, |_, cx| {
            polls += 1;
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        assert!(polled.is_pending());
        assert_eq!((polls, woken.0.load(SeqCst)), (ROUNDS, 2));
    }
}
