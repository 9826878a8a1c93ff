//! Which port numbers are free.

use crate::addr::PortId;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Free,
    Taken,
    /// Its interface is gone; tables up to this generation may still name it.
    Left(u64),
}

/// The port numbers.
#[derive(Debug)]
pub(super) struct Slots([Slot; PortId::COUNT]);

impl Slots {
    /// All are free.
    pub(super) const fn new() -> Self {
        Self([Slot::Free; PortId::COUNT])
    }

    /// The lowest number that nothing has to do with any more. `oldest` is the oldest table in use.
    pub(super) fn take(&mut self, oldest: u64) -> Option<PortId> {
        let is_free = |slot: &Slot| match slot {
            Slot::Free => true,
            Slot::Taken => false,
            Slot::Left(generation) => oldest > *generation,
        };
        let at = self.0.iter().position(is_free)?;
        self.0[at] = Slot::Taken;
        u8::try_from(at).ok().map(PortId)
    }

    /// Gives a number back that no worker was told of.
    pub(super) fn give_back(&mut self, port: PortId) {
        self.0[usize::from(port.0)] = Slot::Free;
    }

    /// Gives a number back whose interface is gone; `newest` is the newest table that may name it.
    pub(super) fn leave(&mut self, port: PortId, newest: u64) {
        self.0[usize::from(port.0)] = Slot::Left(newest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_used_again_only_when_no_table_names_it() {
        let mut slots = Slots::new();
        assert_eq!(slots.take(0), Some(PortId(0)));
        assert_eq!(slots.take(0), Some(PortId(1)));
        slots.leave(PortId(0), 5);
        assert_eq!(slots.take(5), Some(PortId(2)), "table 5 is in use");
        assert_eq!(slots.take(6), Some(PortId(0)));
        slots.give_back(PortId(1));
        assert_eq!(slots.take(0), Some(PortId(1)));
    }

    #[test]
    fn there_are_only_so_many() {
        let mut slots = Slots::new();
        let taken = (0..).map_while(|_| slots.take(0)).count();
        assert_eq!(taken, PortId::COUNT);
    }
}
