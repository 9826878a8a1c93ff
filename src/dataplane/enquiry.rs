//! What control wants to know of the connections, which are the workers' alone: a search travels to each
//! worker with the memory for what it finds, is carried on in its turns, and comes back.

use rtrb::{Consumer, Producer, RingBuffer};

use crate::{balance::Listing, time::Instant};

/// Searches that may be with a worker at a time. People ask for them, one at a time.
pub const ENQUIRIES: usize = 4;

/// A search for connections.
#[derive(Debug)]
pub struct Enquiry {
    /// Whose it is.
    pub id: u64,
    /// When it comes back, at the latest, with what was found by then.
    pub until: Instant,
    /// What is looked for, and what was found.
    pub listing: Listing,
    /// Whether all of the tables was looked at.
    pub complete: bool,
}

/// Control's end of the way to one worker.
#[derive(Debug)]
pub struct Asking {
    asked: Producer<Box<Enquiry>>,
    answered: Consumer<Box<Enquiry>>,
    /// Searches that have not come back.
    under_way: usize,
}

/// The worker's end.
#[derive(Debug)]
pub(super) struct Answering {
    asked: Consumer<Box<Enquiry>>,
    answered: Producer<Box<Enquiry>>,
    current: Option<Box<Enquiry>>,
}

/// Both ends.
pub(super) fn ends() -> (Asking, Answering) {
    let (asked, to_answer) = RingBuffer::new(ENQUIRIES);
    let (answers, answered) = RingBuffer::new(ENQUIRIES);
    let asking = Asking {
        asked,
        answered,
        under_way: 0,
    };
    let answering = Answering {
        asked: to_answer,
        answered: answers,
        current: None,
    };
    (asking, answering)
}

impl Asking {
    /// Whether the worker takes another search.
    pub const fn has_room(&self) -> bool {
        self.under_way < ENQUIRIES
    }

    /// Sends a search to the worker, which must be woken if it sleeps.
    ///
    /// # Errors
    /// Gives it back if there is no room.
    pub fn ask(&mut self, enquiry: Box<Enquiry>) -> Result<(), Box<Enquiry>> {
        if !self.has_room() {
            return Err(enquiry);
        }
        let sent = self.asked.push(enquiry);
        sent.map_err(|rtrb::PushError::Full(enquiry)| enquiry)?;
        self.under_way += 1;
        Ok(())
    }

    /// A search that has come back.
    pub fn answered(&mut self) -> Option<Box<Enquiry>> {
        let enquiry = self.answered.pop().ok()?;
        self.under_way -= 1;
        Some(enquiry)
    }
}

impl Answering {
    /// Whether there is a search to carry on.
    #[inline]
    pub(super) fn is_asked(&self) -> bool {
        self.current.is_some() || !self.asked.is_empty()
    }

    /// Carries a search on by `step`, which says whether that was the last one. Whether it has gone back.
    pub(super) fn go_on(&mut self, now: Instant, step: impl FnOnce(&mut Listing) -> bool) -> bool {
        let Some(mut enquiry) = self.current.take().or_else(|| self.asked.pop().ok()) else {
            return false;
        };
        enquiry.complete = step(&mut enquiry.listing);
        if !enquiry.complete && now < enquiry.until {
            self.current = Some(enquiry);
            return false;
        }
        // There is room: no more are under way than fit.
        let _ = self.answered.push(enquiry);
        true
    }
}

#[cfg(test)]
#[path = "enquiry_tests.rs"]
pub(crate) mod tests;
