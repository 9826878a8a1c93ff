//! How control tells a worker which interfaces there are, and how the worker answers: two bounded rings, each
//! with one producer and one consumer. What is looked at in every turn is whether one of them is empty.
//!
//! For each port at most two orders are under way at a time, to open it and to close it, and their answers, so the
//! rings are never full.

use rtrb::{Consumer, Producer, RingBuffer};

use crate::addr::PortId;

/// What a worker is told. `P` is what it gets of an interface.
#[derive(Debug)]
pub enum Order<P> {
    /// An interface is there.
    Open(P),
    /// An interface goes: it is to be given back.
    Close(PortId),
    /// The kernel has let go of the frames of an interface that was closed.
    Recover(PortId),
}

/// What a worker answers.
#[derive(Debug)]
pub enum Answer<P> {
    /// It has an interface.
    Opened(PortId),
    /// What it had of a port that it was to close; `None` when it had nothing.
    Closed(PortId, Option<P>),
    /// The frames of a closed port are its own again, and nothing that came in on it is under way to it.
    Recovered(PortId),
}

/// Control's end.
#[derive(Debug)]
pub struct Orders<P> {
    orders: Producer<Order<P>>,
    answers: Consumer<Answer<P>>,
}

/// The worker's end.
#[derive(Debug)]
pub struct Inbox<P> {
    orders: Consumer<Order<P>>,
    answers: Producer<Answer<P>>,
    /// Ports whose frames were recovered, while something that came in on them may be under way.
    leaving: Vec<PortId>,
}

/// Orders and answers that may be under way.
const RING: usize = 2 * PortId::COUNT;

/// Both ends.
pub fn ends<P>() -> (Orders<P>, Inbox<P>) {
    let (orders, to_obey) = RingBuffer::new(RING);
    let (to_answer, answers) = RingBuffer::new(RING);
    let inbox = Inbox {
        orders: to_obey,
        answers: to_answer,
        leaving: Vec::with_capacity(PortId::COUNT),
    };
    (Orders { orders, answers }, inbox)
}

impl<P> Orders<P> {
    /// Gives the worker an order; it must be woken if it sleeps.
    pub fn give(&mut self, order: Order<P>) {
        let given = self.orders.push(order);
        assert!(given.is_ok(), "a port has two orders under way at most");
    }

    /// The next answer.
    pub fn answer(&mut self) -> Option<Answer<P>> {
        self.answers.pop().ok()
    }
}

impl<P> Inbox<P> {
    /// Whether there is anything to be done.
    #[inline]
    pub fn has_work(&self) -> bool {
        !self.orders.is_empty() || !self.leaving.is_empty()
    }

    /// The next order.
    pub fn next(&mut self) -> Option<Order<P>> {
        self.orders.pop().ok()
    }

    /// Says that an interface is taken.
    pub fn opened(&mut self, port: PortId) {
        self.say(Answer::Opened(port));
    }

    /// Gives back what there was of a port.
    pub fn closed(&mut self, port: PortId, part: Option<P>) {
        self.say(Answer::Closed(port, part));
    }

    /// Notes that the frames of a port were recovered. [`Self::left`] says so.
    pub fn recovered(&mut self, port: PortId) {
        self.leaving.push(port);
    }

    /// Says of a port that it is left for good, and which. To be called when nothing is under way that other
    /// workers handed over before its frames were recovered.
    pub fn left(&mut self) -> Option<PortId> {
        let port = self.leaving.pop()?;
        self.say(Answer::Recovered(port));
        Some(port)
    }

    fn say(&mut self, answer: Answer<P>) {
        let said = self.answers.push(answer);
        assert!(said.is_ok(), "an order has one answer");
    }
}
