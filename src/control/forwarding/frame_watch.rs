//! What the frames that come in tell about an interface: senders that leave work to a card where there is none.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    addr::PortId,
    dataplane::unfinished::FinishedSums,
    sys::{device::InterfaceSpec, xsk::XskStatistics},
};

/// Watches what is received on the ports, and tells of each thing once.
#[derive(Debug)]
pub(super) struct FrameWatch {
    /// What is known of those that are open.
    ports: BTreeMap<PortId, Port>,
    finished: Vec<Arc<FinishedSums>>,
}

#[derive(Debug)]
struct Port {
    spec: InterfaceSpec,
    /// Checksums that were finished on a port of this number before it was this interface's.
    finished_before: u64,
    unfinished: bool,
    oversized: bool,
}

impl FrameWatch {
    /// Watches interfaces whose checksums the workers finish.
    pub(super) const fn new(finished: Vec<Arc<FinishedSums>>) -> Self {
        Self {
            ports: BTreeMap::new(),
            finished,
        }
    }

    /// What to say of the ports that are open, with what their AF_XDP sockets counted.
    pub(super) fn look(
        &mut self,
        open: impl IntoIterator<Item = (PortId, InterfaceSpec, XskStatistics)>,
    ) -> Vec<String> {
        let mut known = std::mem::take(&mut self.ports);
        let mut news = Vec::new();
        for (id, spec, counted) in open {
            let count: u64 = self.finished.iter().map(|sums| sums.of(id)).sum();
            let same = known.remove(&id).filter(|port| port.spec == spec);
            let mut port = same.unwrap_or(Port {
                spec,
                finished_before: count,
                unfinished: false,
                oversized: false,
            });
            if count > port.finished_before && !port.unfinished {
                port.unfinished = true;
                news.push(port.unfinished_line());
            }
            if oversized(counted) && !port.oversized {
                port.oversized = true;
                news.push(port.oversized_line());
            }
            self.ports.insert(id, port);
        }
        news
    }

    /// All that is to know of the ports that are open.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for port in self.ports.values() {
            lines.extend(port.unfinished.then(|| port.unfinished_line()));
            lines.extend(port.oversized.then(|| port.oversized_line()));
        }
        lines
    }
}

impl Port {
    fn unfinished_line(&self) -> String {
        format!(
            "{}: packets with unfinished checksums (their senders leave them to a card), xvs finishes them",
            self.spec
        )
    }

    fn oversized_line(&self) -> String {
        format!(
            "{}: packets that are larger than a frame are dropped: their senders leave segmentation to a card. Switch \
             that off where they are sent (`ethtool -K ... tso off gso off`), or start xvs with `--io af-packet`, \
             which takes them",
            self.spec
        )
    }
}

/// Whether packets came that fit in no frame of ours.
const fn oversized(counted: XskStatistics) -> bool {
    // Without an empty frame the kernel counts a packet as dropped, too.
    counted.rx_dropped > counted.rx_fill_ring_empty
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(id: u8, name: &str, counts: (u64, u64)) -> (PortId, InterfaceSpec, XskStatistics) {
        let spec = InterfaceSpec {
            name: name.to_owned(),
            ifindex: 7,
        };
        let counted = XskStatistics {
            rx_dropped: counts.0,
            rx_fill_ring_empty: counts.1,
            ..XskStatistics::default()
        };
        (PortId(id), spec, counted)
    }

    #[test]
    fn packets_that_fit_in_no_frame_are_told_once_and_a_lack_of_frames_is_not() {
        let mut watch = FrameWatch::new(Vec::new());
        assert!(watch.look([open(1, "eth1", (0, 0))]).is_empty());
        assert!(watch.look([open(1, "eth1", (9, 9))]).is_empty());
        let lines = watch.look([open(1, "eth1", (10, 9))]);
        assert!(
            lines[0].starts_with("eth1: packets that are larger"),
            "{lines:?}"
        );
        assert!(watch.look([open(1, "eth1", (99, 9))]).is_empty());
        assert_eq!(watch.lines(), lines);
        // Another interface on the port, and none any more.
        assert_eq!(watch.look([open(1, "eth2", (1, 0))]).len(), 1);
        assert!(watch.look([]).is_empty());
        assert!(watch.lines().is_empty());
    }
}
