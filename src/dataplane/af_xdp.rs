//! Packet I/O over AF_XDP: the steering program gives the balancer's packets to one socket a queue,
//! and all sockets are on one set of frames.
//!
//! Opening an interface chooses the best level that it takes and says why not a better one. The
//! sockets go to the workers, the program and its tables to the control thread.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use super::{
    io::{BURST, FrameAccount, FrameBuf, PacketIo},
    ports::{Attempt, Backend, InterfaceReport, Level, OpenPort},
    unfinished::{FinishedSums, Finisher},
};
use crate::{
    addr::PortId,
    stats::{IoDrop, IoDrops},
    sys::{
        busy_poll::Deferral,
        device::{InterfaceSpec, Properties},
        open_error::OpenError,
        poll::PollSet,
        steer::{Hook, PortProgram},
        umem::{Frame, FrameMemory, MOST_FRAMES, Parted, ROOM},
        waker::Waker,
        xdp_link::XdpMode,
        xsk::{self, CopyMode, PortQueues, XskSet, XskStatistics},
    },
};

/// Frames for each receive queue: a full fill ring, and as many in the other rings and in hand.
const FRAMES_PER_QUEUE: u32 = 4096;
/// Queues of a worker that there are frames for, whatever interfaces there are at the start: those of two. With
/// more, each has a share.
const QUEUES_PER_WORKER: u32 = 2;
/// Receive queues that the steering program's map has places for (MAX_QUEUES of `steer.bpf.c`).
const MAX_QUEUES: u32 = 256;
/// Bytes of a frame beside its IP packet: Ethernet and two VLAN tags.
const LINK_OVERHEAD: u32 = 14 + 2 * 4;
/// Longest sleep while a busy device has frames of ours, and how many such sleeps it may take without
/// sending one: then it is down or stuck, and not worth waking up for.
const NAP: Duration = Duration::from_millis(1);
const NAPS: u32 = 32;

/// How far to go (`--xdp-mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpWish {
    /// The best that the interfaces take.
    #[default]
    Auto,
    /// Zero-copy or nothing.
    ZeroCopy,
    /// In the driver, with a copy.
    Native,
    /// In the kernel's receive path.
    Generic,
}

/// Opens and closes interfaces over AF_XDP.
pub struct XdpBackend {
    memory: Arc<FrameMemory>,
    wish: XdpWish,
    /// Whether the workers do the drivers' receive work (`--busy-poll`).
    busy_poll: bool,
    workers: u32,
}

/// Packet I/O over AF_XDP: one worker's sockets.
pub struct AfXdp {
    poll: PollSet,
    sockets: XskSet,
    unsent: Unsent,
    /// Frames that were left at the last flush.
    left: u32,
    drops: Arc<IoDrops>,
    /// `None`: the frames came by a wire, with their checksums.
    finisher: Option<Finisher>,
}

/// The frames that a device did not take yet, and how long that goes on.
#[derive(Debug, Default)]
struct Unsent {
    frames: u32,
    naps: u32,
}

impl Unsent {
    /// How long to sleep at most when `frames` are left to be sent.
    fn sleep(&mut self, frames: u32, longest: Duration) -> Duration {
        if frames < self.frames {
            self.naps = 0;
        }
        self.frames = frames;
        if frames == 0 || self.naps == NAPS {
            return longest;
        }
        self.naps += 1;
        longest.min(NAP)
    }

    /// A new frame was sent: the device gets another chance.
    const fn reset(&mut self) {
        self.naps = 0;
    }
}

impl XdpBackend {
    /// The frames, for workers of which each is woken by one of `wakers`: the halves that open interfaces, and
    /// the workers'. There are frames for so many `queues`, of all interfaces together, or for those of two
    /// interfaces, whichever is more.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn new(
        wish: XdpWish,
        busy_poll: bool,
        queues: u32,
        wakers: &[Waker],
    ) -> Result<(Self, Vec<AfXdp>), OpenError> {
        let workers = u32::try_from(wakers.len()).unwrap_or(u32::MAX);
        let queues = queues.max(workers.saturating_mul(QUEUES_PER_WORKER));
        let frames = queues.saturating_mul(FRAMES_PER_QUEUE).min(MOST_FRAMES);
        let (memory, pools) = FrameMemory::new(frames, workers)?;
        let ios = pools.into_iter().zip(wakers);
        let ios = ios.map(|(pool, waker)| AfXdp {
            poll: PollSet::new(waker.clone(), MAX_QUEUES as usize),
            sockets: XskSet::new(pool),
            unsent: Unsent::default(),
            left: 0,
            drops: Arc::default(),
            finisher: (wish != XdpWish::ZeroCopy).then(Finisher::new),
        });
        let ios = ios.collect();
        let backend = Self {
            memory,
            wish,
            busy_poll,
            workers,
        };
        Ok((backend, ios))
    }

    /// What is to know of the frames.
    pub fn note(&self) -> String {
        let size = if self.memory.is_huge() {
            "huge"
        } else {
            "small"
        };
        format!("frames in {size} pages")
    }

    /// The best sockets that the interface takes, and whether they are zero-copy ones.
    fn bind(&self, attempt: &mut Attempt<'_>) -> Result<(Vec<PortQueues>, bool), OpenError> {
        let (spec, place) = (attempt.spec, (attempt.port, attempt.properties.queues));
        let bind = |mode| xsk::bind(&self.memory, spec, place, mode, self.workers);
        match self.wish {
            XdpWish::ZeroCopy => Ok((bind(CopyMode::ZeroCopy)?, true)),
            XdpWish::Auto if attempt.no_zero_copy.is_none() => match bind(CopyMode::ZeroCopy) {
                Ok(parts) => Ok((parts, true)),
                Err(OpenError::Refused { action, source }) => {
                    *attempt.no_zero_copy = Some(format!("zero-copy: {action}: {source}"));
                    Ok((bind(CopyMode::Copy)?, false))
                }
                Err(error) => Err(error),
            },
            XdpWish::Auto | XdpWish::Native | XdpWish::Generic => {
                Ok((bind(CopyMode::Copy)?, false))
            }
        }
    }

    /// Has the workers do the driver's receive work, as far as the kernel lets them: without it all works the
    /// same. What is to be ended some day, or why not.
    fn start_busy_polling(spec: &InterfaceSpec, parts: &mut [PortQueues]) -> io::Result<Deferral> {
        parts
            .iter_mut()
            .try_for_each(PortQueues::prefer_busy_polling)?;
        Deferral::begin(spec)
    }
}

impl Backend for XdpBackend {
    type Part = PortQueues;

    const HOOK: Hook = Hook::Xdp;

    /// Sockets first: their queues are the proof that no other engine runs, before its program is
    /// replaced.
    fn open(&self, mut attempt: Attempt<'_>) -> Result<OpenPort<PortQueues>, OpenError> {
        let (spec, properties) = (attempt.spec, attempt.properties);
        if properties.queues > MAX_QUEUES {
            return Err(OpenError::TooManyQueues {
                interface: spec.name.clone(),
                queues: properties.queues,
            });
        }
        let (mut parts, zero_copy) = self.bind(&mut attempt)?;
        for (queue, socket) in parts.iter().flat_map(PortQueues::sockets) {
            let given = attempt.program.set_socket(queue, socket);
            given.map_err(|source| OpenError::Refused {
                action: format!("{spec}: give queue {queue} to its socket"),
                source,
            })?;
        }
        let mode = match self.wish {
            XdpWish::Auto => None,
            XdpWish::ZeroCopy | XdpWish::Native => Some(XdpMode::Native),
            XdpWish::Generic => Some(XdpMode::Generic),
        };
        let attached = attempt.program.attach(mode)?;
        if zero_copy && attached.mode == Some(XdpMode::Generic) {
            // A driver that does not run the program does not fill the rings either. The queues are free
            // for others when these sockets are closed.
            *attempt.no_zero_copy = Some("zero-copy: not with a generic program".to_owned());
            return Err(OpenError::QueueBusy {
                interface: spec.name.clone(),
                queue: 0,
            });
        }
        let level = match attached.mode {
            Some(XdpMode::Native) if zero_copy => Level::ZeroCopy,
            Some(XdpMode::Native) => Level::NativeCopy,
            Some(XdpMode::Generic) | None => Level::Generic,
        };
        let mut notes: Vec<_> = attempt.no_zero_copy.iter().cloned().collect();
        notes.extend(attached.notes);
        notes.extend(notes_on(
            attempt.program,
            properties,
            level,
            ROOM - LINK_OVERHEAD,
        ));
        let mut deferral = None;
        if self.busy_poll {
            match Self::start_busy_polling(spec, &mut parts) {
                Ok(begun) => {
                    deferral = Some(begun);
                    notes.push("busy polling".to_owned());
                }
                Err(error) => notes.push(format!("no busy polling: {error}")),
            }
        }
        Ok(OpenPort {
            parts,
            report: InterfaceReport {
                interface: spec.name.clone(),
                level,
                queues: properties.queues,
                notes,
            },
            deferral,
        })
    }

    fn is_released(&self, spec: &InterfaceSpec, queues: u32) -> bool {
        xsk::is_released(spec, queues)
    }

    fn is_unbound(&self, socket: &OwnedFd) -> bool {
        xsk::is_unbound(socket)
    }

    fn count(&self, socket: &OwnedFd, _: &IoDrops) -> Option<XskStatistics> {
        xsk::statistics(socket).ok()
    }
}

impl AfXdp {
    /// The checksums that it finishes as it finds them so, to be watched.
    pub fn finished(&self) -> Option<Arc<FinishedSums>> {
        self.finisher.as_ref().map(Finisher::finished)
    }

    /// What goes wrong below the worker.
    pub const fn drops(&self) -> &Arc<IoDrops> {
        &self.drops
    }

    fn watch_sockets(&mut self) {
        self.poll.clear();
        for (_, socket) in self.sockets.ports().flat_map(PortQueues::sockets) {
            self.poll.add(socket);
        }
    }

    fn count_errors(&self) {
        let errors = self.sockets.wake_errors();
        self.drops.of(IoDrop::XskWakeErrors).set(errors);
        self.drops.of(IoDrop::SocketErrors).set(self.poll.errors());
    }
}

/// What is to know of an interface whose packets are got in this way. Where merged packets would hurt,
/// merging is switched off first, if the kernel lets us.
pub(super) fn notes_on(
    program: &mut PortProgram,
    properties: &Properties,
    level: Level,
    largest: u32,
) -> Vec<String> {
    let mut notes = notes_about(properties, level, largest);
    // Before the kernel's receive path, in the driver, nothing is merged yet.
    if properties.merges && level >= Level::Generic {
        notes.push(program.stop_merging().unwrap_or_else(|error| {
            format!("merged packets are dropped: `ethtool -K … gro off lro off` ({error})")
        }));
    }
    notes
}

/// What will be dropped or not be seen, and how to avoid that.
fn notes_about(properties: &Properties, level: Level, largest: u32) -> Vec<String> {
    let mut notes = Vec::new();
    if !properties.up && level > Level::ZeroCopy {
        notes.push("the interface is down: a start when it is up may reach a better level".into());
    }
    if properties.mtu > largest {
        notes.push(format!(
            "packets over {largest} bytes are dropped, the MTU is {}",
            properties.mtu
        ));
    }
    // An AF_PACKET socket is told of the tag.
    if properties.strips_vlan && level < Level::AfPacket {
        notes
            .push("VLAN tags are taken off before XDP sees them: `ethtool -K … rxvlan off`".into());
    }
    notes
}

impl FrameBuf for Frame {
    #[inline]
    fn bytes(&self) -> &[u8] {
        self.bytes()
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes_mut()
    }

    fn grow_front(&mut self, by: usize) -> bool {
        self.grow_front(by)
    }

    fn truncate(&mut self, len: usize) {
        self.truncate(len);
    }

    fn resize(&mut self, len: usize) -> bool {
        self.resize(len)
    }

    #[inline]
    fn ingress(&self) -> PortId {
        self.port()
    }
}

impl PacketIo for AfXdp {
    type Frame = Frame;
    type Parted = Parted;
    type Part = PortQueues;

    fn open(&mut self, part: PortQueues) -> PortId {
        let port = part.port();
        self.sockets.open(part);
        self.watch_sockets();
        port
    }

    fn close(&mut self, port: PortId) -> Option<PortQueues> {
        let (part, lost) = self.sockets.close(port)?;
        self.drops.of(IoDrop::XskClosedUnsent).add(lost);
        self.watch_sockets();
        Some(part)
    }

    fn recover(&mut self, port: PortId) {
        self.sockets.recover(port);
    }

    fn is_open(&self, port: PortId) -> bool {
        self.sockets.is_open(port)
    }

    fn reclaim(&mut self) {
        self.sockets.reclaim();
    }

    fn receive(&mut self, burst: &mut Vec<Frame>) {
        let old = burst.len();
        self.sockets.receive(burst, BURST.saturating_sub(old));
        if let Some(finisher) = &mut self.finisher {
            finisher.finish(&mut burst[old..]);
        }
    }

    fn transmit(&mut self, egress: PortId, frame: Frame) -> Result<(), Frame> {
        self.sockets.transmit(egress, frame)
    }

    /// What is in a ring is sent sooner or later: nothing is refused.
    fn flush(&mut self) -> u64 {
        self.left = self.sockets.flush();
        self.unsent.reset();
        self.count_errors();
        0
    }

    #[inline]
    fn nudge(&mut self) {
        if self.left > 0 {
            self.left = self.sockets.flush();
        }
    }

    fn release(&mut self, frame: Frame) {
        self.sockets.release(frame);
    }

    fn part(&mut self, frame: Frame) -> Parted {
        self.sockets.part(frame)
    }

    fn take_over(&mut self, parted: Parted) -> Frame {
        self.sockets.take_over(parted)
    }

    fn carrier(&self, egress: PortId) -> Option<u32> {
        self.sockets.carrier(egress)
    }

    fn blank(&mut self, ingress: PortId) -> Option<Frame> {
        self.sockets.blank(ingress)
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        // What a busy device did not take at the last flush is not to lie there while we sleep.
        self.left = self.sockets.flush();
        self.count_errors();
        self.poll.wait(self.unsent.sleep(self.left, timeout))
    }

    fn account(&mut self) -> FrameAccount {
        let frames = self.sockets.frames();
        FrameAccount {
            whole: frames.whole,
            spare: frames.spare,
            total: frames.total,
            in_kernel: frames.in_kernel,
            in_rings: frames.in_rings,
            free: frames.free,
            in_hand: frames.in_hand,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::MacAddr;

    #[test]
    fn a_busy_device_is_asked_again_soon_and_a_stuck_one_is_not() {
        let idle = Duration::from_millis(50);
        let mut unsent = Unsent::default();
        assert_eq!(unsent.sleep(0, idle), idle);
        assert_eq!(unsent.sleep(5, Duration::ZERO), Duration::ZERO);
        // As long as something moves it is busy.
        for left in (10..1000).rev() {
            assert_eq!(unsent.sleep(left, idle), NAP);
        }
        let naps = (0..100).filter(|_| unsent.sleep(10, idle) == NAP).count();
        assert!(naps < 50, "{naps}");
        assert_eq!(unsent.sleep(10, idle), idle);
        assert_eq!(unsent.sleep(9, idle), NAP);
        while unsent.sleep(9, idle) == NAP {}
        unsent.reset();
        assert_eq!(unsent.sleep(9, idle), NAP);
        assert_eq!(unsent.sleep(0, idle), idle);
    }

    #[test]
    fn notes_say_what_will_not_be_seen() {
        let mut properties = Properties {
            mac: MacAddr::default(),
            mtu: 1500,
            up: true,
            queues: 1,
            merges: false,
            strips_vlan: false,
        };
        let about =
            |properties: &Properties, level| notes_about(properties, level, 1700).join("; ");
        assert_eq!(about(&properties, Level::NativeCopy), "");
        properties.strips_vlan = true;
        for (level, told) in [
            (Level::ZeroCopy, true),
            (Level::NativeCopy, true),
            (Level::Generic, true),
            (Level::AfPacket, false),
        ] {
            assert_eq!(about(&properties, level).contains("rxvlan off"), told);
        }
        properties.up = false;
        properties.mtu = 9000;
        assert!(about(&properties, Level::Generic).contains("interface is down"));
        assert!(!about(&properties, Level::ZeroCopy).contains("interface is down"));
        assert!(about(&properties, Level::AfPacket).contains("the MTU is 9000"));
    }
}
