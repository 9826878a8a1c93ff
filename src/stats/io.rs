//! The counters of what goes wrong below the workers.

use super::{Counter, IoDrop};

/// A counter for each [`IoDrop`]. What a backend sees is written by its worker, what the kernel counts
/// for a socket by control when it looks: each counter has one writer.
#[derive(Debug, Default)]
pub struct IoDrops {
    counters: [Counter; IoDrop::COUNT],
}

impl IoDrops {
    /// The counter of `what`.
    pub const fn of(&self, what: IoDrop) -> &Counter {
        &self.counters[what as usize]
    }

    /// The names and counts of what occurred, over all of `drops`.
    pub fn occurred(drops: &[&Self]) -> impl Iterator<Item = (&'static str, u64)> {
        let sum = |what: &IoDrop| drops.iter().map(|drops| drops.of(*what).get()).sum();
        let all = IoDrop::ALL.iter();
        all.map(move |what| (what.name(), sum(what)))
            .filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_occurred_is_told() {
        let drops = IoDrops::default();
        drops.of(IoDrop::XskRxRingFull).add(2);
        drops.of(IoDrop::SocketErrors).add(1);
        let other = IoDrops::default();
        other.of(IoDrop::SocketErrors).add(4);
        let told: Vec<_> = IoDrops::occurred(&[&drops, &other]).collect();
        assert_eq!(told, [("xsk-rx-ring-full", 2), ("socket-errors", 5)]);
    }
}
