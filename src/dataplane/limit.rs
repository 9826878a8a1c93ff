//! How many answers of our own a worker gives.

use crate::time::Tick;

/// Answers a second: Linux `icmp_msgs_per_sec`, which also bounds what resets a flood can draw.
const PER_SECOND: u32 = 10_000;
/// Answers at once, after a time without any.
const AT_ONCE: u32 = PER_SECOND / 10;

/// A token bucket.
#[derive(Debug)]
pub(super) struct ReplyLimit {
    left: u32,
    filled: Tick,
}

impl ReplyLimit {
    pub(super) fn new() -> Self {
        Self {
            left: AT_ONCE,
            filled: Tick::default(),
        }
    }

    /// Whether one more may be given now.
    pub(super) fn allows(&mut self, now: Tick) -> bool {
        let ticks = now.since(self.filled);
        if ticks > 0 {
            let more = ticks.saturating_mul(PER_SECOND / Tick::PER_SECOND);
            self.left = self.left.saturating_add(more).min(AT_ONCE);
            self.filled = now;
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_answered_and_then_so_many_a_second() {
        let mut limit = ReplyLimit::new();
        let start = Tick::from_raw(u32::MAX - 2);
        let mut answers = |tick| (0..3 * AT_ONCE).filter(|_| limit.allows(tick)).count();
        let at_once = AT_ONCE as usize;
        assert_eq!(answers(start), at_once);
        assert_eq!(answers(start), 0);
        assert_eq!(answers(start.plus_secs(1)), at_once);
        let next = Tick::from_raw(start.plus_secs(1).raw().wrapping_add(1));
        assert_eq!(answers(next), (PER_SECOND / Tick::PER_SECOND) as usize);
    }
}
