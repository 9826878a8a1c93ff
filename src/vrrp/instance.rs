//! One virtual router: the state machine of RFC 3768 §6.4 with keepalived's additions.

use std::{collections::VecDeque, net::Ipv4Addr, sync::Arc, time::Duration};

use super::{
    Counters, State,
    event::{Event, FaultReason, LogLine},
    links::Links,
    notices::{Notice, Notices, Tell},
    receive::{self, AddressMismatch, RejectReason, Rejection},
    router::{Action, InstanceId, Reception},
    settings::{Settings, Transport},
    timers::{Timer, Timers, next_on_grid},
};
use crate::{
    time::Instant,
    wire::vrrp::{AdvertRepr, AdvertView, Datagram, Envelope, TTL},
};

/// Answers to foreign adverts (priority 0, lower priority) that a MASTER sends within one
/// advertisement interval. More than a few can only be a flood: the next regular advert follows
/// within the interval anyway.
pub const ANSWERS_PER_INTERVAL: u32 = 4;

/// Least time between two sets of gratuitous ARP that answer foreign adverts. Two routers that
/// both believe to be MASTER would otherwise fight over every neighbour cache.
pub const GARP_ANSWER_SPACING: Duration = Duration::from_secs(1);

/// Priority of the address owner. RFC 3768 §5.3.4.
const OWNER: u8 = 255;

/// Silence after a message about a refused advert: what is wrong is in a configuration, and
/// stays wrong for long.
const REJECTED_QUIET: Duration = Duration::from_secs(3600);
/// Silence after a message about an accepted advert: elections are short.
const ACCEPTED_QUIET: Duration = Duration::from_secs(10);

/// What instances want done, oldest first.
pub(super) type Actions = VecDeque<(InstanceId, Action)>;

pub(super) struct Instance {
    id: InstanceId,
    name: Arc<str>,
    pub(super) settings: Settings,
    pub(super) state: State,
    pub(super) since: Instant,
    /// Priority with the weights of the trackers.
    pub(super) priority: u8,
    /// The router that is MASTER, as far as known; ourselves while MASTER.
    pub(super) master: Option<Ipv4Addr>,
    /// The priority that the router which is MASTER has announced last. Means nothing unless BACKUP.
    pub(super) master_priority: u8,
    pub(super) counters: Counters,
    timers: Timers,
    weight: i32,
    /// Whether adverts can leave by the interface.
    carries: bool,
    /// What is wrong with the interfaces.
    link_fault: Option<FaultReason>,
    /// What else keeps the instance from taking part.
    obstacle: Option<String>,
    /// Until when a MASTER of lower priority is let be; `None` when none was heard.
    preempt_from: Option<Instant>,
    /// Identification of the last packet sent.
    ip_id: u16,
    /// Begin of the interval that answers are counted in, and how many there were.
    answers: (Instant, u32),
    garp_answer_from: Instant,
    rejected_notices: Notices,
    accepted_notices: Notices,
}

impl Instance {
    pub(super) fn new(id: InstanceId, settings: Settings, now: Instant) -> Self {
        Self {
            id,
            name: settings.name.as_str().into(),
            state: State::Init,
            since: now,
            priority: settings.priority,
            master: None,
            master_priority: 0,
            counters: Counters::default(),
            timers: Timers::default(),
            weight: 0,
            carries: true,
            link_fault: None,
            obstacle: None,
            preempt_from: None,
            ip_id: 0,
            answers: (Instant::ZERO, 0),
            garp_answer_from: Instant::ZERO,
            rejected_notices: Notices::new(REJECTED_QUIET),
            accepted_notices: Notices::new(ACCEPTED_QUIET),
            settings,
        }
    }

    /// Leaves INIT, at once or after the startup delay. Harmless when it has been left.
    pub(super) fn start(&mut self, now: Instant, out: &mut Actions) {
        if self.state != State::Init || self.timers.get(Timer::Startup).is_some() {
            return;
        }
        let delay = self.settings.startup_delay;
        if delay.is_zero() {
            self.launch(now, out);
        } else {
            self.log(out, Event::StartupDelay(delay));
            self.timers.set(Timer::Startup, now + delay);
        }
    }

    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        datagram: &Datagram<'_>,
        out: &mut Actions,
    ) -> Reception {
        if !matches!(self.state, State::Backup | State::Master) {
            self.counters.reject(RejectReason::NotRunning);
            return Reception::Rejected(RejectReason::NotRunning);
        }
        let from = datagram.source;
        let advert = match receive::check(&self.settings, datagram) {
            Ok(advert) => advert,
            Err(rejection) => return self.reject(now, from, rejection, out),
        };
        self.counters.adverts_received += 1;
        self.compare_addresses(now, from, &advert, out);
        if advert.priority == 0 {
            self.counters.priority_zero_received += 1;
        }
        if self.state == State::Master {
            self.heard_as_master(now, from, advert.priority, out);
        } else {
            self.heard_as_backup(now, from, advert.priority, out);
        }
        Reception::Accepted(self.id)
    }

    /// Does what is due. Early and repeated calls are harmless.
    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut Actions) {
        if self.timers.take_due(Timer::Startup, now).is_some() {
            self.launch(now, out);
        }
        if self.timers.take_due(Timer::MasterDown, now).is_some() {
            self.log(out, Event::AdvertTimeout);
            self.become_master(now, out);
        }
        if let Some(deadline) = self.timers.take_due(Timer::Advert, now) {
            self.advertise_on_time(now, deadline, out);
        }
        self.handle_garp_timeout(now, out);
    }

    /// Something about interfaces changed, maybe of this instance.
    pub(super) fn handle_links(&mut self, now: Instant, links: &Links, out: &mut Actions) {
        self.look_at(links);
        self.faults_changed(now, out);
    }

    /// Takes note of what is wrong with the interfaces.
    pub(super) fn look_at(&mut self, links: &Links) {
        self.carries = links.get(self.settings.interface).carries();
        self.link_fault = links.fault(&self.settings);
    }

    pub(super) fn set_obstacle(
        &mut self,
        now: Instant,
        obstacle: Option<String>,
        out: &mut Actions,
    ) {
        self.obstacle = obstacle;
        self.faults_changed(now, out);
    }

    pub(super) fn handle_primary(
        &mut self,
        now: Instant,
        primary: Option<Ipv4Addr>,
        out: &mut Actions,
    ) {
        if self.settings.primary_fixed {
            return;
        }
        if primary.is_none() {
            // The last chance to say so: without an address there are no adverts.
            let fault = self.fault().unwrap_or_else(|| self.no_address());
            self.fault_is(now, Some(fault), out);
        }
        self.settings.primary = primary;
        if self.state == State::Master {
            self.master = primary;
        }
        self.faults_changed(now, out);
    }

    /// The link-layer address that neighbours know of the addresses is another now.
    pub(super) fn handle_new_mac(&mut self, out: &mut Actions) {
        if self.state == State::Master {
            self.announce(self.settings.garp.master_repeat, false, out);
        }
    }

    pub(super) fn set_weight(&mut self, weight: i32, out: &mut Actions) {
        self.weight = weight;
        self.update_priority(out);
    }

    /// Says goodbye; [`Instance::finish`] follows. Two steps, so that the goodbyes of all
    /// instances leave before the first address is touched. A dead link carries none.
    pub(super) fn say_goodbye(&mut self, out: &mut Actions) {
        if self.state == State::Master && self.carries {
            self.send(0, out);
            self.log(out, Event::SentPriorityZero);
        }
    }

    /// Back to INIT, addresses removed.
    pub(super) fn finish(&mut self, now: Instant, out: &mut Actions) {
        if self.state == State::Master {
            self.withdraw(out);
        }
        self.timers.clear_all();
        self.master = None;
        if self.state != State::Init {
            self.enter(now, State::Init, out);
        }
    }

    /// Takes new settings for the same interface and VRID. State, counters and notices stay.
    pub(super) fn update(
        &mut self,
        now: Instant,
        settings: Settings,
        links: &Links,
        out: &mut Actions,
    ) {
        let down_before = self.settings.master_down(self.priority);
        self.name = settings.name.as_str().into();
        self.settings = settings;
        self.look_at(links);
        // The priority moves the timer by itself; what is left is intervals.
        let down_after = self.settings.master_down(self.priority);
        self.shift_master_down(down_before, down_after);
        self.update_priority(out);
        self.faults_changed(now, out);
        if self.state == State::Master {
            self.send(self.priority, out);
            let next = now + self.settings.advert_interval;
            self.timers.set(Timer::Advert, next);
            self.arm_refresh(now);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    // ---- Transitions

    fn launch(&mut self, now: Instant, out: &mut Actions) {
        if let Some(reason) = self.fault() {
            self.log_fault(out, reason);
            self.enter(now, State::Fault, out);
            return;
        }
        // What a run that crashed left behind.
        self.log(out, Event::RemovingAddresses);
        self.push(out, Action::RemoveAddresses);
        self.log(out, Event::EnteringBackupInit);
        self.enter_backup_from_rest(now, out);
    }

    /// BACKUP from INIT or FAULT: the address owner does not wait for anybody. RFC 3768 §6.4.1.
    fn enter_backup_from_rest(&mut self, now: Instant, out: &mut Actions) {
        self.preempt_from = None;
        let wait = if self.settings.priority == OWNER {
            Duration::ZERO
        } else {
            self.settings.master_down(self.priority)
        };
        self.timers.set(Timer::MasterDown, now + wait);
        self.enter(now, State::Backup, out);
    }

    fn become_master(&mut self, now: Instant, out: &mut Actions) {
        self.send(self.priority, out);
        self.log(out, Event::EnteringMaster);
        self.counters.became_master += 1;
        self.master = self.settings.primary;
        self.log(out, Event::SettingAddresses);
        self.push(out, Action::AddAddresses);
        self.announce(self.settings.garp.master_repeat, true, out);
        self.timers.clear_all();
        let next = now + self.settings.advert_interval;
        self.timers.set(Timer::Advert, next);
        let delay = self.settings.garp.master_delay;
        if !delay.is_zero() {
            self.timers.set(Timer::GarpSecond, now + delay);
        }
        self.arm_refresh(now + delay);
        self.enter(now, State::Master, out);
    }

    /// MASTER to BACKUP because a better router was heard. RFC 3768 §6.4.3.
    fn give_way(
        &mut self,
        now: Instant,
        (to, priority): (Ipv4Addr, u8),
        why: Event,
        out: &mut Actions,
    ) {
        self.log(out, why);
        if self.settings.higher_prio_send_advert {
            self.send(self.priority, out);
        }
        self.log(out, Event::EnteringBackup);
        self.withdraw(out);
        self.master = Some(to);
        self.master_priority = priority;
        self.restart_master_down(now);
        self.enter(now, State::Backup, out);
    }

    /// What every way out of MASTER has in common.
    fn withdraw(&mut self, out: &mut Actions) {
        self.timers.clear_all();
        self.preempt_from = None;
        self.counters.released_master += 1;
        self.log(out, Event::RemovingAddresses);
        self.push(out, Action::RemoveAddresses);
    }

    fn enter(&mut self, now: Instant, to: State, out: &mut Actions) {
        let from = std::mem::replace(&mut self.state, to);
        self.since = now;
        self.push(out, Action::Entered { from, to });
    }

    /// Why this instance cannot take part, if so.
    pub(super) fn fault(&self) -> Option<FaultReason> {
        let obstacle = || self.obstacle.clone().map(FaultReason::Obstacle);
        let no_address = || self.settings.primary.is_none().then(|| self.no_address());
        self.link_fault
            .clone()
            .or_else(obstacle)
            .or_else(no_address)
    }

    fn no_address(&self) -> FaultReason {
        FaultReason::NoAddress(self.settings.interface_name.clone())
    }

    fn faults_changed(&mut self, now: Instant, out: &mut Actions) {
        self.fault_is(now, self.fault(), out);
    }

    fn fault_is(&mut self, now: Instant, fault: Option<FaultReason>, out: &mut Actions) {
        match (self.state, fault) {
            (State::Master, Some(reason)) => {
                self.say_goodbye(out);
                self.log_fault(out, reason);
                self.withdraw(out);
                self.master = None;
                self.enter(now, State::Fault, out);
            }
            (State::Backup, Some(reason)) => {
                self.timers.clear_all();
                self.master = None;
                self.log_fault(out, reason);
                self.enter(now, State::Fault, out);
            }
            (State::Fault, None) => {
                self.log(out, Event::EnteringBackup);
                self.enter_backup_from_rest(now, out);
            }
            _ => {}
        }
    }

    // ---- Adverts heard

    /// RFC 3768 §6.4.2.
    fn heard_as_backup(&mut self, now: Instant, from: Ipv4Addr, priority: u8, out: &mut Actions) {
        if priority == 0 {
            self.notice(
                now,
                Notice::PriorityZero,
                from,
                Event::BackupReceivedPriorityZero,
                out,
            );
            let skew = Settings::skew(self.priority);
            self.timers.set(Timer::MasterDown, now + skew);
            return;
        }
        if priority >= self.priority {
            if self.preempt_from.take().is_some() {
                self.log(out, Event::PreemptDelayStopped);
            }
        } else if !self.tolerates_lower(now, out) {
            let event = Event::Discarding { from, priority };
            self.notice(now, Notice::Discarding, from, event, out);
            return;
        }
        self.master = Some(from);
        self.master_priority = priority;
        self.restart_master_down(now);
    }

    /// Whether a MASTER of lower priority may stay for now.
    fn tolerates_lower(&mut self, now: Instant, out: &mut Actions) -> bool {
        if !self.settings.preempt {
            return true;
        }
        let delay = self.settings.preempt_delay;
        if delay.is_zero() {
            return false;
        }
        if self.preempt_from.is_none() {
            self.log(out, Event::PreemptDelayStarted(delay));
        }
        let until = *self.preempt_from.get_or_insert(now + delay);
        now < until
    }

    /// RFC 3768 §6.4.3; the answer to a lower priority is RFC 9568's, and keepalived's.
    fn heard_as_master(&mut self, now: Instant, from: Ipv4Addr, priority: u8, out: &mut Actions) {
        let ours = self.priority;
        if priority == 0 {
            self.notice(
                now,
                Notice::PriorityZero,
                from,
                Event::MasterReceivedPriorityZero,
                out,
            );
            if self.answer(now, out) {
                let next = now + self.settings.advert_interval;
                self.timers.set(Timer::Advert, next);
            }
            self.announce_again(now, out);
            return;
        }
        if priority == OWNER && self.settings.priority == OWNER {
            self.notice(now, Notice::Owner, from, Event::OwnerConflict { from }, out);
        }
        if priority > ours {
            self.give_way(
                now,
                (from, priority),
                Event::HigherPriority {
                    from,
                    priority,
                    ours,
                },
                out,
            );
        } else if priority == ours && Some(from) > self.settings.primary {
            let why = Event::HigherAddress { from, priority };
            self.give_way(now, (from, priority), why, out);
        } else {
            let event = Event::LowerPriority {
                from,
                priority,
                ours,
            };
            self.notice(now, Notice::LowerPriority, from, event, out);
            if !self.settings.lower_prio_no_advert {
                self.answer(now, out);
            }
            self.announce_again(now, out);
        }
    }

    fn reject(
        &mut self,
        now: Instant,
        from: Ipv4Addr,
        rejection: Rejection,
        out: &mut Actions,
    ) -> Reception {
        let Rejection {
            reason,
            received,
            expected,
        } = rejection;
        self.counters.reject(reason);
        let event = Event::Rejected {
            reason,
            from,
            received,
            expected,
        };
        let tell = self
            .rejected_notices
            .tell(now, Notice::Rejected(reason), from);
        self.say(tell, event, out);
        Reception::Rejected(reason)
    }

    /// Other addresses are a fault of a configuration, not of the election: log and go on, as
    /// newer keepalived does. The router that is MASTER already may be exempt.
    fn compare_addresses(
        &mut self,
        now: Instant,
        from: Ipv4Addr,
        advert: &AdvertView<'_>,
        out: &mut Actions,
    ) {
        if self.settings.skip_check_addresses && self.master == Some(from) {
            return;
        }
        let ours = &self.settings.addresses;
        let Some(mismatch) = receive::compare_addresses(ours, advert) else {
            return;
        };
        let event = match mismatch {
            AddressMismatch::Count(received) => Event::AddressCount {
                expected: ours.len(),
                received,
            },
            AddressMismatch::Missing(address) => Event::AddressMissing {
                from,
                vrid: self.settings.vrid,
                address,
            },
        };
        self.counters.address_list_mismatches += 1;
        let tell = self.rejected_notices.tell(now, Notice::AddressList, from);
        self.say(tell, event, out);
    }

    // ---- Adverts and announcements sent

    fn advertise_on_time(&mut self, now: Instant, deadline: Instant, out: &mut Actions) {
        let interval = self.settings.advert_interval;
        self.send(self.priority, out);
        let late = now - deadline;
        if late > interval / 2 {
            self.counters.late_adverts += 1;
            self.log(out, Event::LateAdvert(late));
        }
        self.timers
            .set(Timer::Advert, next_on_grid(deadline, interval, now));
    }

    /// Answers a foreign advert by one of our own, within the limit.
    fn answer(&mut self, now: Instant, out: &mut Actions) -> bool {
        let (begin, used) = &mut self.answers;
        if now - *begin >= self.settings.advert_interval || *used == 0 {
            (*begin, *used) = (now, 0);
        }
        if *used >= ANSWERS_PER_INTERVAL {
            self.counters.answers_suppressed += 1;
            return false;
        }
        *used += 1;
        self.send(self.priority, out);
        true
    }

    /// One packet to the group, or one to each peer.
    fn send(&mut self, priority: u8, out: &mut Actions) {
        let adverts = self.adverts(priority);
        let Some(last) = adverts.len().checked_sub(1) else {
            return;
        };
        self.counters.adverts_sent += 1;
        if priority == 0 {
            self.counters.priority_zero_sent += 1;
        }
        let sent = u16::try_from(last).unwrap_or(u16::MAX).wrapping_add(1);
        self.ip_id = self.ip_id.wrapping_add(sent);
        for (destination, packet) in adverts {
            out.push_back((
                self.id,
                Action::Send {
                    destination,
                    packet,
                },
            ));
        }
    }

    /// The packets that an advert of this priority is, as they would leave now.
    pub(super) fn adverts(&self, priority: u8) -> Vec<(Ipv4Addr, Vec<u8>)> {
        let Some(source) = self.settings.primary else {
            return Vec::new();
        };
        let repr = AdvertRepr {
            vrid: self.settings.vrid,
            priority,
            interval: self.settings.interval_secs(),
            password: self.settings.password,
            addresses: &self.settings.addresses,
        };
        let (destinations, ttl) = match &self.settings.transport {
            Transport::Multicast { group } => (std::slice::from_ref(group), TTL),
            Transport::Unicast { peers, ttl, .. } => (peers.as_slice(), *ttl),
        };
        let numbered = (1_u16..).zip(destinations);
        numbered
            .map(|(number, &destination)| {
                let id = self.ip_id.wrapping_add(number);
                (
                    destination,
                    repr.emit(&Envelope {
                        source,
                        destination,
                        ttl,
                        id,
                    }),
                )
            })
            .collect()
    }

    fn announce(&mut self, rounds: u8, first: bool, out: &mut Actions) {
        if rounds > 0 {
            self.counters.garp_sets += 1;
            self.push(out, Action::GratuitousArp { rounds, first });
        }
    }

    /// Another router spoke for our addresses, so caches and switches may point at it: one set
    /// now or when the limit allows, and one more after a while.
    fn announce_again(&mut self, now: Instant, out: &mut Actions) {
        let garp = self.settings.garp;
        if garp.lower_prio_repeat == 0 {
            return;
        }
        self.announce_within_limit(now, out);
        if !garp.lower_prio_delay.is_zero() {
            self.timers
                .set(Timer::GarpAnswerSecond, now + garp.lower_prio_delay);
        }
    }

    fn announce_within_limit(&mut self, now: Instant, out: &mut Actions) {
        if now < self.garp_answer_from {
            self.timers.set(Timer::GarpAnswer, self.garp_answer_from);
            return;
        }
        self.garp_answer_from = now + GARP_ANSWER_SPACING;
        self.announce(self.settings.garp.lower_prio_repeat, false, out);
    }

    fn handle_garp_timeout(&mut self, now: Instant, out: &mut Actions) {
        let garp = self.settings.garp;
        if self.timers.take_due(Timer::GarpSecond, now).is_some() {
            self.announce(garp.master_repeat, false, out);
        }
        if let Some(deadline) = self.timers.take_due(Timer::GarpRefresh, now) {
            self.announce(garp.master_refresh_repeat, false, out);
            let next = next_on_grid(deadline, garp.master_refresh, now);
            self.timers.set(Timer::GarpRefresh, next);
        }
        let again = self.timers.take_due(Timer::GarpAnswer, now).is_some();
        if self.timers.take_due(Timer::GarpAnswerSecond, now).is_some() || again {
            self.announce_within_limit(now, out);
        }
    }

    // ---- Timers and priority

    fn restart_master_down(&mut self, now: Instant) {
        let down = self.settings.master_down(self.priority);
        self.timers.set(Timer::MasterDown, now + down);
    }

    fn arm_refresh(&mut self, from: Instant) {
        let refresh = self.settings.garp.master_refresh;
        if refresh.is_zero() {
            self.timers.clear(Timer::GarpRefresh);
        } else {
            self.timers.set(Timer::GarpRefresh, from + refresh);
        }
    }

    /// Base and weights, 1 to 254; the address owner is immune.
    fn update_priority(&mut self, out: &mut Actions) {
        let base = self.settings.priority;
        let to = if base == OWNER {
            OWNER
        } else {
            let sum = i32::from(base).saturating_add(self.weight);
            u8::try_from(sum.clamp(1, i32::from(OWNER) - 1)).unwrap_or(1)
        };
        let from = std::mem::replace(&mut self.priority, to);
        if from != to {
            self.log(out, Event::PriorityChanged { from, to });
            self.shift_master_down(Settings::skew(from), Settings::skew(to));
        }
    }

    /// Moves a running Master_Down_Timer by the difference, so that silence so far still counts.
    fn shift_master_down(&mut self, before: Duration, after: Duration) {
        if let Some(deadline) = self.timers.get(Timer::MasterDown) {
            let waited_from = (deadline - Instant::ZERO).saturating_sub(before);
            self.timers
                .set(Timer::MasterDown, Instant::ZERO + waited_from + after);
        }
    }

    // ---- Saying things

    fn notice(
        &mut self,
        now: Instant,
        notice: Notice,
        from: Ipv4Addr,
        event: Event,
        out: &mut Actions,
    ) {
        let tell = self.accepted_notices.tell(now, notice, from);
        self.say(tell, event, out);
    }

    fn say(&self, tell: Tell, event: Event, out: &mut Actions) {
        match tell {
            Tell::Say => self.log(out, event),
            Tell::SayFull => self.log(out, Event::FurtherSendersNotLogged),
            Tell::Hush => {}
        }
    }

    fn log_fault(&self, out: &mut Actions, reason: FaultReason) {
        self.log(out, Event::EnteringFault { reason });
    }

    fn log(&self, out: &mut Actions, event: Event) {
        let name = Arc::clone(&self.name);
        self.push(out, Action::Log(LogLine { name, event }));
    }

    fn push(&self, out: &mut Actions, action: Action) {
        out.push_back((self.id, action));
    }
}
