//! Looks whether interfaces get more receive queues while xvs runs: their packets would reach no socket.

use std::time::Duration;

use crate::{sys::device::InterfaceSpec, time::Instant};

/// How often to look: whoever changes the queues of a running balancer may wait so long for the line.
const PERIOD: Duration = Duration::from_secs(10);

/// The interfaces, each with the queues that have sockets and those that were seen last.
#[derive(Debug)]
pub(super) struct QueueWatch {
    served: Vec<(InterfaceSpec, u32)>,
    seen: Vec<u32>,
    due: Option<Instant>,
}

impl QueueWatch {
    /// Watches interfaces, of each of which so many queues are served.
    pub(super) fn new(served: Vec<(InterfaceSpec, u32)>) -> Self {
        Self {
            seen: served.iter().map(|(_, queues)| *queues).collect(),
            served,
            due: None,
        }
    }

    /// Whether it is time to look, which then it is not for a while.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        if self.due.is_some_and(|due| now < due) {
            return false;
        }
        self.due = Some(now + PERIOD);
        true
    }

    /// Compares the queues that `ask` tells of with those served; what to say, once for each change.
    /// Fewer queues than served are no harm.
    pub(super) fn look(&mut self, ask: impl Fn(&InterfaceSpec) -> Option<u32>) -> Vec<String> {
        let mut news = Vec::new();
        for ((spec, served), seen) in self.served.iter().zip(&mut self.seen) {
            let Some(queues) = ask(spec) else { continue };
            if std::mem::replace(seen, queues) != queues && queues > *served {
                news.push(format!(
                    "{spec} has {queues} queues now, xvs serves {served}: restart xvs, or packets of \
                     the others are dropped"
                ));
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_queues_are_told_once() {
        let spec = |name: &str| InterfaceSpec {
            name: name.to_owned(),
            ifindex: 1,
        };
        let mut watch = QueueWatch::new(vec![(spec("eth0"), 2), (spec("eth1"), 4)]);
        assert!(watch.look(|_| Some(2)).is_empty());
        let more = |spec: &InterfaceSpec| (spec.name == "eth0").then_some(8);
        let news = watch.look(more);
        assert_eq!(news.len(), 1);
        assert!(
            news[0].starts_with("eth0 has 8 queues now, xvs serves 2: restart"),
            "{news:?}"
        );
        assert!(watch.look(more).is_empty());
        assert!(watch.look(|_| Some(2)).is_empty());
        assert_eq!(watch.look(more).len(), 1);
    }

    #[test]
    fn it_looks_every_period() {
        let mut watch = QueueWatch::new(Vec::new());
        let start = Instant::ZERO;
        assert!(watch.is_due(start) && !watch.is_due(start));
        assert!(!watch.is_due(start + (PERIOD - Duration::from_nanos(1))));
        assert!(watch.is_due(start + PERIOD));
    }
}
