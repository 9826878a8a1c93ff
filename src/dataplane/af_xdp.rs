//! Packet I/O over AF_XDP: the steering program gives the balancer's packets to one socket a queue,
//! and all sockets share one set of frames.
//!
//! Opening chooses the best level that the interfaces take and says why not a better one. The
//! sockets go to the workers, the program and its tables to the control thread.

use std::{fmt, io, sync::Arc, time::Duration};

use super::{
    io::{BURST, FrameAccount, FrameBuf, PacketIo},
    unfinished::{FinishedSums, Finisher},
};
use crate::{
    addr::PortId,
    stats::{IoDrop, IoDrops},
    sys::{
        busy_poll::Deferral,
        device::{self, InterfaceSpec, Properties},
        open_error::OpenError,
        poll::PollSet,
        steer::{Hook, Match, Steering},
        umem::{Frame, Parted, ROOM},
        waker::Waker,
        xdp_link::XdpMode,
        xsk::{CopyMode, XskSet},
    },
};

/// Frames for each receive queue: a full fill ring, and as many in the other rings and in hand.
const FRAMES_PER_QUEUE: u32 = 4096;
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

/// How to open.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How far to go.
    pub wish: XdpWish,
    /// What to steer from the first packet on. After a crash this must be all there is: what is not
    /// named goes to the host as soon as the program is replaced.
    pub matches: Vec<Match>,
    /// Whether the workers do the drivers' receive work (`--busy-poll`).
    pub busy_poll: bool,
}

/// How an interface's packets are got, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// AF_XDP; the driver writes into our frames.
    ZeroCopy,
    /// AF_XDP; the program runs in the driver, the kernel copies.
    NativeCopy,
    /// AF_XDP; the program runs in the kernel's receive path.
    Generic,
    /// AF_PACKET; the kernel copies, and an ingress filter drops its own copy.
    AfPacket,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZeroCopy => "AF_XDP zero-copy",
            Self::NativeCopy => "AF_XDP native copy",
            Self::Generic => "AF_XDP generic",
            Self::AfPacket => "AF_PACKET",
        })
    }
}

/// What was reached on one interface. Shown as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceReport {
    /// The interface.
    pub interface: String,
    /// What was reached.
    pub level: Level,
    /// Receive queues served.
    pub queues: u32,
    /// Why it is not a better level, and what else to know.
    pub notes: Vec<String>,
}

impl fmt::Display for InterfaceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.queues == 1 { "" } else { "s" };
        write!(
            f,
            "{}: {} on {} queue{plural}",
            self.interface, self.level, self.queues
        )?;
        if self.notes.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", self.notes.join("; "))
    }
}

/// What was reached, an entry an interface, in port order.
pub type Report = Vec<InterfaceReport>;

/// The two halves of opened packet I/O, and what was reached.
pub struct Opened<Io> {
    /// For the workers, one each; at least one.
    pub io: Vec<Io>,
    /// For the control thread.
    pub steering: Steering,
    /// To be told.
    pub report: Report,
    /// What else to know, that is of no interface.
    pub notes: Vec<String>,
    /// What each worker's half counts of what goes wrong.
    pub drops: Vec<Arc<IoDrops>>,
    /// The checksums that each worker's half finishes as it finds them so; none where the kernel tells of each frame.
    pub finished: Vec<Arc<FinishedSums>>,
    /// What is to be ended at a clean stop.
    pub deferrals: Vec<Deferral>,
}

/// Packet I/O over AF_XDP.
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

impl AfXdp {
    /// Opens `interfaces` (in port order) and attaches the steering program. Each of `wakers` ends the
    /// [`PacketIo::wait`] of one worker; of more than the most queues of an interface, some find no work.
    ///
    /// # Errors
    /// [`OpenError`]; then nothing is attached that was not before.
    pub fn open(
        interfaces: &[InterfaceSpec],
        options: &Options,
        wakers: &[Waker],
    ) -> Result<Opened<Self>, OpenError> {
        let mut ports = Vec::with_capacity(interfaces.len());
        for spec in interfaces {
            ports.push((spec.clone(), checked_properties(spec)?));
        }
        let mut steering = Steering::load(Hook::Xdp, interfaces, &options.matches)?;
        for (spec, properties) in &ports {
            steering
                .add_station(spec.ifindex, properties.mac)
                .map_err(|e| OpenError::from_errno(&spec.name, "set its address", e))?;
        }
        let workers = u32::try_from(wakers.len()).unwrap_or(u32::MAX);
        let opened = Self::bind_and_attach(&ports, options.wish, workers, &mut steering);
        let (mut sets, mut report) = match opened {
            Ok(opened) => opened,
            Err(e) => {
                steering.undo();
                return Err(e);
            }
        };
        let deferrals = if options.busy_poll {
            start_busy_polling(interfaces, &mut sets, &mut report)
        } else {
            Vec::new()
        };
        let huge = sets.iter().any(XskSet::is_huge);
        let copied = report.iter().any(|it| it.level > Level::ZeroCopy);
        let io: Vec<_> = sets
            .into_iter()
            .zip(wakers)
            .map(|(sockets, waker)| Self::new(sockets, waker.clone(), copied))
            .collect();
        let size = if huge { "huge" } else { "small" };
        Ok(Opened {
            drops: io.iter().map(|io| Arc::clone(&io.drops)).collect(),
            finished: io
                .iter()
                .filter_map(|io| Some(io.finisher.as_ref()?.finished()))
                .collect(),
            io,
            steering,
            report,
            notes: vec![format!("frames in {size} pages")],
            deferrals,
        })
    }

    /// `copied`: the kernel copies frames into ours, from whatever it has them.
    fn new(sockets: XskSet, waker: Waker, copied: bool) -> Self {
        let mut poll = PollSet::new(waker);
        for (_, _, socket) in sockets.sockets() {
            poll.add(socket);
        }
        Self {
            poll,
            sockets,
            unsent: Unsent::default(),
            left: 0,
            drops: Arc::default(),
            finisher: copied.then(Finisher::new),
        }
    }

    /// Sockets first: their queues are the proof that no other engine runs, before its program is
    /// replaced.
    fn bind_and_attach(
        ports: &[(InterfaceSpec, Properties)],
        wish: XdpWish,
        workers: u32,
        steering: &mut Steering,
    ) -> Result<(Vec<XskSet>, Report), OpenError> {
        let queues: Vec<_> = ports
            .iter()
            .map(|(spec, properties)| (spec.clone(), properties.queues))
            .collect();
        let bind = |mode| XskSet::bind(&queues, mode, FRAMES_PER_QUEUE, workers);
        let mut no_zero_copy = None;
        let mut sockets = match wish {
            XdpWish::Native | XdpWish::Generic => bind(CopyMode::Copy)?,
            XdpWish::ZeroCopy => bind(CopyMode::ZeroCopy)?,
            XdpWish::Auto => match bind(CopyMode::ZeroCopy) {
                Ok(sockets) => sockets,
                Err(OpenError::Refused { action, source }) => {
                    no_zero_copy = Some(format!("zero-copy: {action}: {source}"));
                    bind(CopyMode::Copy)?
                }
                Err(e) => return Err(e),
            },
        };
        let mut zero_copy =
            wish == XdpWish::ZeroCopy || (wish == XdpWish::Auto && no_zero_copy.is_none());
        connect(&sockets, steering)?;
        let mode = match wish {
            XdpWish::Auto => None,
            XdpWish::ZeroCopy | XdpWish::Native => Some(XdpMode::Native),
            XdpWish::Generic => Some(XdpMode::Generic),
        };
        let mut attached = Vec::with_capacity(ports.len());
        for index in 0..ports.len() {
            attached.push(steering.attach(port_id(index), mode)?);
        }
        if zero_copy && attached.iter().any(|a| a.mode == Some(XdpMode::Generic)) {
            // A driver that does not run the program does not fill the rings either.
            zero_copy = false;
            no_zero_copy = Some("zero-copy: not with a generic program".to_owned());
            steering.forget_sockets();
            drop(sockets);
            sockets = bind(CopyMode::Copy)?;
            connect(&sockets, steering)?;
        }
        let mut report = Vec::with_capacity(ports.len());
        for (index, ((spec, properties), attached)) in ports.iter().zip(attached).enumerate() {
            let level = match attached.mode {
                Some(XdpMode::Native) if zero_copy => Level::ZeroCopy,
                Some(XdpMode::Native) => Level::NativeCopy,
                Some(XdpMode::Generic) | None => Level::Generic,
            };
            let mut notes: Vec<_> = no_zero_copy.iter().cloned().collect();
            notes.extend(attached.notes);
            notes.extend(notes_on(
                steering,
                port_id(index),
                properties,
                level,
                ROOM - LINK_OVERHEAD,
            ));
            report.push(InterfaceReport {
                interface: spec.name.clone(),
                level,
                queues: properties.queues,
                notes,
            });
        }
        Ok((sockets, report))
    }

    fn count_errors(&self) {
        let errors = self.sockets.wake_errors();
        self.drops.of(IoDrop::XskWakeErrors).set(errors);
        self.drops.of(IoDrop::SocketErrors).set(self.poll.errors());
    }
}

/// Has the workers do the drivers' receive work, as far as the kernel lets them: without it all works the
/// same. What is to be ended some day.
fn start_busy_polling(
    interfaces: &[InterfaceSpec],
    sets: &mut [XskSet],
    report: &mut Report,
) -> Vec<Deferral> {
    let preferred = sets
        .iter_mut()
        .try_for_each(XskSet::prefer_busy_polling)
        .map_err(|error| error.to_string());
    let mut deferrals = Vec::new();
    for (spec, report) in interfaces.iter().zip(report) {
        let deferral = preferred
            .clone()
            .and_then(|()| Deferral::begin(spec).map_err(|error| error.to_string()));
        report.notes.push(match deferral {
            Ok(deferral) => {
                deferrals.push(deferral);
                "busy polling".to_owned()
            }
            Err(error) => format!("no busy polling: {error}"),
        });
    }
    deferrals
}

/// What the interface is, if packets can be had from it.
fn checked_properties(spec: &InterfaceSpec) -> Result<Properties, OpenError> {
    let properties = device::properties(spec)?;
    if properties.queues > MAX_QUEUES {
        return Err(OpenError::TooManyQueues {
            interface: spec.name.clone(),
            queues: properties.queues,
        });
    }
    Ok(properties)
}

/// Tells the steering program which socket serves which queue.
fn connect(sets: &[XskSet], steering: &mut Steering) -> Result<(), OpenError> {
    for (port, queue, socket) in sets.iter().flat_map(XskSet::sockets) {
        steering
            .set_socket(port, queue, socket)
            .map_err(|source| OpenError::Refused {
                action: format!("give queue {queue} of port {} to its socket", port.0),
                source,
            })?;
    }
    Ok(())
}

/// What is to know of an interface whose packets are got in this way. Where merged packets would hurt,
/// merging is switched off first, if the kernel lets us.
pub(super) fn notes_on(
    steering: &mut Steering,
    port: PortId,
    properties: &Properties,
    level: Level,
    largest: u32,
) -> Vec<String> {
    let mut notes = notes_about(properties, level, largest);
    // Before the kernel's receive path, in the driver, nothing is merged yet.
    if properties.merges && level >= Level::Generic {
        notes.push(steering.stop_merging(port).unwrap_or_else(|error| {
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

pub(super) fn port_id(index: usize) -> PortId {
    PortId(u8::try_from(index).unwrap_or(u8::MAX))
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

    #[test]
    fn a_report_is_one_line_with_the_reasons() {
        let mut report = InterfaceReport {
            interface: "eth1".to_owned(),
            level: Level::NativeCopy,
            queues: 4,
            notes: Vec::new(),
        };
        assert_eq!(report.to_string(), "eth1: AF_XDP native copy on 4 queues");
        report.queues = 1;
        report.notes = vec!["zero-copy: not supported".to_owned(), "b".to_owned()];
        assert_eq!(
            report.to_string(),
            "eth1: AF_XDP native copy on 1 queue (zero-copy: not supported; b)"
        );
    }
}
