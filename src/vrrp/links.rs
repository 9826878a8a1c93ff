//! What is known of the interfaces, by the caller's numbers.

use std::collections::BTreeMap;

use super::{FaultReason, Settings};

/// What became of the interface of a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkState {
    /// It can carry packets.
    #[default]
    Up,
    /// It is switched off, or nothing is plugged in.
    Down,
    /// There is none of this name.
    Missing,
    /// The interface that had this name has another one now. It is no longer what the configuration
    /// means, but can carry a last goodbye.
    Renamed,
}

impl LinkState {
    /// Whether packets can be sent by it.
    pub(super) const fn carries(self) -> bool {
        matches!(self, Self::Up | Self::Renamed)
    }
}

/// All interfaces that something was said of; the others count as up.
#[derive(Debug, Default)]
pub(super) struct Links(BTreeMap<u32, LinkState>);

impl Links {
    /// Takes note of the state of an interface.
    pub(super) fn set(&mut self, interface: u32, state: LinkState) {
        self.0.insert(interface, state);
    }

    /// Forgets an interface.
    pub(super) fn forget(&mut self, interface: u32) {
        self.0.remove(&interface);
    }

    /// The state of an interface.
    pub(super) fn get(&self, interface: u32) -> LinkState {
        self.0.get(&interface).copied().unwrap_or_default()
    }

    /// Why an instance of these settings cannot be with the interfaces as they are.
    pub(super) fn fault(&self, settings: &Settings) -> Option<FaultReason> {
        let own = (settings.interface, &settings.interface_name);
        let further = settings.further_interfaces.iter();
        let further = further.map(|(number, name)| (*number, name));
        std::iter::once(own)
            .chain(further)
            .find_map(|(number, name)| {
                let tracked = settings.track_link || number != settings.interface;
                match self.get(number) {
                    LinkState::Missing | LinkState::Renamed => {
                        Some(FaultReason::NoInterface(name.clone()))
                    }
                    LinkState::Down if tracked => Some(FaultReason::LinkDown(name.clone())),
                    LinkState::Up | LinkState::Down => None,
                }
            })
    }
}
