//! What the frames that come in tell about an interface: senders that leave work to a card where there is none.

use std::sync::Arc;

use crate::{addr::PortId, dataplane::unfinished::FinishedSums, sys::xsk::XskStatistics};

/// Watches what is received on the ports, and tells of each thing once.
#[derive(Debug)]
pub(super) struct FrameWatch {
    /// The names of the interfaces, in port order, and what was told of each.
    ports: Vec<Port>,
    finished: Vec<Arc<FinishedSums>>,
}

#[derive(Debug)]
struct Port {
    name: String,
    unfinished: bool,
    oversized: bool,
}

impl FrameWatch {
    /// Watches the interfaces with these names, whose checksums the workers finish.
    pub(super) fn new(
        names: impl IntoIterator<Item = String>,
        finished: Vec<Arc<FinishedSums>>,
    ) -> Self {
        let port = |name| Port {
            name,
            unfinished: false,
            oversized: false,
        };
        Self {
            ports: names.into_iter().map(port).collect(),
            finished,
        }
    }

    /// What to say of ports on which unfinished checksums came in.
    pub(super) fn unfinished(&mut self) -> Vec<String> {
        let mut news = Vec::new();
        for (port, id) in self.ports.iter_mut().zip(0..) {
            let count = || self.finished.iter().map(|sums| sums.of(PortId(id)));
            if !port.unfinished && count().any(|count| count > 0) {
                port.unfinished = true;
                news.push(format!(
                    "{}: packets with unfinished checksums (their senders leave them to a card), xvs finishes them",
                    port.name
                ));
            }
        }
        news
    }

    /// What to say of a port whose AF_XDP sockets counted this: packets that fit in no frame of ours.
    pub(super) fn oversized(&mut self, port: PortId, counted: XskStatistics) -> Option<String> {
        // Without an empty frame the kernel counts a packet as dropped, too.
        let count = counted
            .rx_dropped
            .saturating_sub(counted.rx_fill_ring_empty);
        let port = self.ports.get_mut(usize::from(port.0))?;
        if count == 0 || std::mem::replace(&mut port.oversized, true) {
            return None;
        }
        Some(format!(
            "{}: packets that are larger than a frame are dropped: their senders leave segmentation to a card. Switch \
             that off where they are sent (`ethtool -K ... tso off gso off`), or start xvs with `--io af-packet`, \
             which takes them",
            port.name
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_that_fit_in_no_frame_are_told_once_and_a_lack_of_frames_is_not() {
        let mut watch = FrameWatch::new(["eth0".to_owned(), "eth1".to_owned()], Vec::new());
        let counted = |rx_dropped, rx_fill_ring_empty| XskStatistics {
            rx_dropped,
            rx_fill_ring_empty,
            ..XskStatistics::default()
        };
        assert_eq!(watch.oversized(PortId(1), counted(0, 0)), None);
        assert_eq!(watch.oversized(PortId(1), counted(9, 9)), None);
        let line = watch.oversized(PortId(1), counted(10, 9)).unwrap();
        assert!(line.starts_with("eth1: packets that are larger"), "{line}");
        assert_eq!(watch.oversized(PortId(1), counted(99, 9)), None);
        assert!(watch.oversized(PortId(0), counted(1, 0)).is_some());
        assert!(watch.unfinished().is_empty());
    }
}
