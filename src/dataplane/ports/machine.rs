//! Which interfaces are wanted, how it stands with each, and what is to be done about it.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use super::{
    Backend, InterfaceReport, Level, PortNews, PortState, PortStatus,
    job::{Job, Program, Tried},
    orders::{self, Answer, Inbox, Order, Orders},
    slots::Slots,
};
use crate::{
    addr::{MacAddr, PortId},
    stats::IoDrops,
    sys::{
        busy_poll::Deferral,
        clock,
        device::{self, InterfaceSpec},
        open_error::OpenError,
        scheduling,
        steer::{PortProgram, SteerCounters, Steering},
        waker::Waker,
        xsk::XskStatistics,
    },
    time::Instant,
};

/// How often what cannot be opened is tried again, and what is open looked at.
pub(super) const PERIOD: Duration = Duration::from_secs(1);
/// How often a queue that is in use is tried again: the kernel lets go of a closed socket's queue from a work
/// queue, some time after close(2) or the process's end.
const BUSY_PERIOD: Duration = Duration::from_millis(20);
/// After this time somebody else has it.
const BUSY_PATIENCE: Duration = Duration::from_secs(1);
/// After this time somebody else has a queue that we closed, so that the kernel has let go of ours.
const RELEASE_PATIENCE: Duration = Duration::from_secs(10);
/// How often a start looks whether the workers have the interfaces.
const TAKING_PERIOD: Duration = Duration::from_millis(1);
/// How long a stop waits for an interface that is just being opened.
pub(super) const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// The interfaces of the data plane. Owned by the control thread.
pub struct Ports<B: Backend> {
    pub(super) backend: Arc<B>,
    pub(super) steering: Steering,
    pub(super) wanted: Vec<Interface>,
    pub(super) leaving: Vec<Leaving<B::Part>>,
    slots: Slots,
    workers: Vec<WorkerEnd<B::Part>>,
    /// Where threads are tied that touch the frames first.
    cpu: Option<usize>,
    sender: Sender<Done<B::Part>>,
    pub(super) done: Receiver<Done<B::Part>>,
    call: Arc<dyn Fn() + Send + Sync>,
    pub(super) look_at: Option<Instant>,
    pub(super) news: Vec<PortNews>,
    /// What the interfaces that are gone have counted.
    pub(super) past: Past,
    /// What the kernel counted for sockets.
    pub(super) drops: IoDrops,
}

#[derive(Default)]
pub(super) struct Past {
    pub(super) steering: SteerCounters,
    pub(super) xsk: XskStatistics,
}

/// The way to one worker.
struct WorkerEnd<P> {
    orders: Orders<P>,
    waker: Waker,
}

/// An interface that is wanted, or was when a thread was started for it.
pub(super) struct Interface {
    pub(super) spec: InterfaceSpec,
    pub(super) wanted: bool,
    pub(super) state: State,
    /// Its program while it is not open, once it is loaded.
    pub(super) program: Option<PortProgram>,
    no_zero_copy: Option<String>,
    /// The address that packets are steered by.
    station: Option<MacAddr>,
    /// Since when a queue of it is in use, if that is why it waits.
    busy: Option<Instant>,
    /// What was said of it last.
    said: String,
}

pub(super) enum State {
    Waiting {
        again: Instant,
        reason: String,
    },
    /// A thread is at it, for which this port was taken.
    Opening(PortId),
    Open(Open),
}

pub(super) struct Open {
    pub(super) port: PortId,
    report: InterfaceReport,
    pub(super) deferral: Option<Deferral>,
    /// Workers that have not taken it yet.
    due: usize,
}

/// A port whose interface is gone or to be left.
pub(super) struct Leaving<P> {
    port: PortId,
    spec: InterfaceSpec,
    queues: u32,
    /// Workers whose answer is due.
    due: usize,
    parts: Vec<P>,
    sockets: Vec<OwnedFd>,
    /// To be detached, if it is.
    program: Option<PortProgram>,
    pub(super) stage: Stage,
    /// The newest table when it went.
    newest: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The workers are to give it back.
    Closing,
    /// They have; a thread is to be started that closes the sockets.
    Closed,
    /// It was started, and waits for the kernel to let go.
    Releasing,
    /// The workers are to take back its frames.
    Recovering,
}

/// What a thread brings.
pub(super) enum Done<P> {
    Tried(Box<Tried<P>>),
    Released(PortId),
}

impl<B: Backend> Ports<B> {
    /// No interface yet. Each of `wakers` wakes one worker, whose inbox is in the same place; `cpu` is where the
    /// first one runs. A thread uses `call` when it has something for [`PortControl::handle_timeout`](super::PortControl::handle_timeout).
    pub fn new(
        backend: B,
        steering: Steering,
        wakers: &[Waker],
        cpu: Option<usize>,
        call: Arc<dyn Fn() + Send + Sync>,
    ) -> (Self, Vec<Inbox<B::Part>>) {
        let (sender, done) = mpsc::channel();
        let (workers, inboxes) = wakers
            .iter()
            .map(|waker| {
                let (orders, inbox) = orders::ends();
                let waker = waker.clone();
                (WorkerEnd { orders, waker }, inbox)
            })
            .unzip();
        let ports = Self {
            backend: Arc::new(backend),
            steering,
            wanted: Vec::new(),
            leaving: Vec::new(),
            slots: Slots::new(),
            workers,
            cpu,
            sender,
            done,
            call,
            look_at: None,
            news: Vec::new(),
            past: Past::default(),
            drops: IoDrops::default(),
        };
        (ports, inboxes)
    }

    /// Opens interfaces and waits until each is open, in this order from port 0 on, or is found not to be there,
    /// or down: those wait. For a start, before anything depends on the caller.
    ///
    /// # Errors
    /// Why one of them cannot be opened; then nothing is attached that was not before.
    pub fn open_now(&mut self, specs: &[InterfaceSpec]) -> Result<(), OpenError> {
        for spec in specs {
            let mut interface = Interface::new(spec.clone(), clock::now());
            let result = self.open_one_now(&mut interface);
            self.wanted.push(interface);
            if let Err(error) = result {
                self.undo();
                return Err(error);
            }
        }
        self.news.clear();
        Ok(())
    }

    fn open_one_now(&mut self, interface: &mut Interface) -> Result<(), OpenError> {
        let begin = clock::now();
        loop {
            let error = match self.job(interface, 0) {
                Ok(job) => {
                    let job = move || job.run();
                    let thread = thread::scope(|scope| scope.spawn(job).join());
                    let tried = thread.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                    match self.settle(interface, tried) {
                        Ok(()) => return Ok(()),
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            match error {
                OpenError::QueueBusy { .. } if clock::now() - begin < BUSY_PATIENCE => {
                    thread::sleep(BUSY_PERIOD);
                }
                OpenError::NoInterface { .. } | OpenError::Down { .. } => {
                    self.waits(interface, clock::now(), &error);
                    return Ok(());
                }
                error => return Err(error),
            }
        }
    }

    /// Takes back what a failed start attached.
    pub fn undo(&mut self) {
        let all = (0_u8..).map(PortId).take(PortId::COUNT);
        for mut program in all.filter_map(|port| self.steering.set_port(port, None)) {
            program.undo();
        }
        for interface in &mut self.wanted {
            if let State::Open(open) = &interface.state {
                open.deferral.iter().for_each(Deferral::end);
            }
        }
    }

    /// What a thread is to do for an interface, for which a port is taken.
    fn job(&mut self, interface: &mut Interface, oldest: u64) -> Result<Job<B>, OpenError> {
        let spec = interface.spec.clone();
        let properties = device::properties(&spec)?;
        self.steering
            .set_stations(spec.ifindex, &[properties.mac])
            .complete()
            .map_err(|e| OpenError::from_errno(&spec.name, "set its address", e.source))?;
        interface.station = Some(properties.mac);
        let port = self
            .slots
            .take(oldest)
            .ok_or_else(|| OpenError::TooManyInterfaces {
                interface: spec.name.clone(),
            })?;
        let program = match interface.program.take() {
            Some(program) => Program::Loaded(program),
            None => match self.steering.another() {
                Ok(unloaded) => Program::Unloaded(unloaded),
                Err(error) => {
                    self.slots.give_back(port);
                    return Err(error);
                }
            },
        };
        interface.state = State::Opening(port);
        Ok(Job {
            backend: Arc::clone(&self.backend),
            spec,
            properties,
            port,
            program,
            no_zero_copy: interface.no_zero_copy.clone(),
            cpu: self.cpu,
        })
    }

    /// Takes what a try has brought: an open interface goes to the workers.
    fn settle(
        &mut self,
        interface: &mut Interface,
        tried: Tried<B::Part>,
    ) -> Result<(), OpenError> {
        interface.no_zero_copy = tried.no_zero_copy;
        let opened = match tried.result {
            Ok(opened) => opened,
            Err(error) => {
                interface.program = tried.program;
                self.slots.give_back(tried.port);
                return Err(error);
            }
        };
        self.steering.set_port(tried.port, tried.program);
        for (worker, part) in self.workers.iter_mut().zip(opened.parts) {
            worker.orders.give(Order::Open(part));
            worker.waker.wake();
        }
        interface.say(&mut self.news, &opened.report.to_string(), false);
        interface.busy = None;
        interface.state = State::Open(Open {
            port: tried.port,
            report: opened.report,
            deferral: opened.deferral,
            due: self.workers.len(),
        });
        Ok(())
    }

    /// Notes that an interface cannot be opened now.
    fn waits(&mut self, interface: &mut Interface, now: Instant, error: &OpenError) {
        let is_busy = matches!(error, OpenError::QueueBusy { .. });
        interface.busy = is_busy.then(|| interface.busy.unwrap_or(now));
        let soon = (interface.busy).is_some_and(|since| now - since < BUSY_PATIENCE);
        interface.state = State::Waiting {
            again: now + if soon { BUSY_PERIOD } else { PERIOD },
            reason: error.to_string(),
        };
        if !soon {
            let status = interface.status().to_string();
            interface.say(&mut self.news, &status, true);
        }
    }

    /// Starts a thread; `what` is said when there is none to be had.
    fn start(
        &self,
        work: impl FnOnce() -> Done<B::Part> + Send + 'static,
    ) -> Result<(), OpenError> {
        let (sender, call) = (self.sender.clone(), Arc::clone(&self.call));
        let body = move || {
            // Nobody listens after a stop.
            let _ = sender.send(work());
            call();
        };
        let started = scheduling::spawn("xvs-port".to_owned(), body).map(drop);
        started.map_err(|source| OpenError::Refused {
            action: "start a thread for an interface".to_owned(),
            source,
        })
    }

    /// Closes an interface: its workers are to give it back. Its program stays with it, or, when it is `left`
    /// for good, goes with the port.
    fn close(&mut self, interface: &mut Interface, left: bool, newest: u64) {
        let again = State::Waiting {
            again: Instant::ZERO,
            reason: "it was closed".to_owned(),
        };
        let State::Open(open) = std::mem::replace(&mut interface.state, again) else {
            return;
        };
        let port = open.port;
        let mut program = self.steering.set_port(port, None);
        let mut sockets = Vec::new();
        if let Some(program) = &mut program {
            self.past.note(&*self.backend, program, &self.drops);
            program.keep_attached();
            sockets = program.take_sockets();
        }
        open.deferral.iter().for_each(Deferral::end);
        if !left {
            interface.program = program.take();
        }
        for worker in &mut self.workers {
            worker.orders.give(Order::Close(port));
            worker.waker.wake();
        }
        self.leaving.push(Leaving {
            port,
            spec: interface.spec.clone(),
            queues: open.report.queues,
            due: self.workers.len(),
            parts: Vec::new(),
            sockets,
            program,
            stage: Stage::Closing,
            newest,
        });
    }

    /// Takes the workers' answers.
    pub(super) fn take_answers(&mut self) {
        let mut answers = Vec::new();
        for worker in &mut self.workers {
            answers.extend(std::iter::from_fn(|| worker.orders.answer()));
        }
        for answer in answers {
            let (port, part) = match answer {
                Answer::Opened(port) => {
                    self.note_taken(port);
                    continue;
                }
                Answer::Closed(port, part) => (port, part),
                Answer::Recovered(port) => (port, None),
            };
            let Some(at) = self.leaving.iter().position(|one| one.port == port) else {
                continue;
            };
            let leaving = &mut self.leaving[at];
            leaving.parts.extend(part);
            leaving.due -= 1;
            if leaving.due > 0 {
                continue;
            }
            if leaving.stage == Stage::Recovering {
                let newest = leaving.newest;
                self.leaving.swap_remove(at);
                self.slots.leave(port, newest);
            } else {
                leaving.stage = Stage::Closed;
            }
        }
    }

    /// Notes that one more worker has an interface.
    fn note_taken(&mut self, port: PortId) {
        for interface in &mut self.wanted {
            if let State::Open(open) = &mut interface.state
                && open.port == port
            {
                open.due -= 1;
            }
        }
    }

    /// Waits until the workers, which run by now, have all interfaces that are open: from then on no packet is
    /// lost. Whether they have them in so much time.
    pub fn wait_until_taken(&mut self, patience: Duration) -> bool {
        let begin = clock::now();
        loop {
            self.take_answers();
            let waits = |one: &Interface| matches!(&one.state, State::Open(open) if open.due > 0);
            if !self.wanted.iter().any(waits) {
                return true;
            }
            if clock::now() - begin > patience {
                return false;
            }
            thread::sleep(TAKING_PERIOD);
        }
    }

    /// Closes the sockets of a port that all workers have given back, and waits for the kernel.
    pub(super) fn release(&mut self, at: usize) {
        let leaving = &mut self.leaving[at];
        let (port, spec, queues) = (leaving.port, leaving.spec.clone(), leaving.queues);
        let parts = std::mem::take(&mut leaving.parts);
        let sockets = std::mem::take(&mut leaving.sockets);
        let program = leaving.program.take();
        let backend = Arc::clone(&self.backend);
        let work = move || {
            if let Some(mut program) = program {
                // Nobody is there who could do more about it; `xvs cleanup` can.
                let _ = program.detach();
            }
            drop(sockets);
            drop(parts);
            let begin = clock::now();
            while !backend.is_released(&spec, queues) && clock::now() - begin < RELEASE_PATIENCE {
                thread::sleep(BUSY_PERIOD);
            }
            Done::Released(port)
        };
        // Without a thread the sockets are closed by now all the same; the next look tries again.
        if self.start(work).is_ok() {
            self.leaving[at].stage = Stage::Releasing;
        }
    }

    /// Takes what threads have brought.
    pub(super) fn take_done(&mut self, now: Instant, newest: u64) {
        while let Ok(done) = self.done.try_recv() {
            self.handle_done(now, newest, done);
        }
    }

    pub(super) fn handle_done(&mut self, now: Instant, newest: u64, done: Done<B::Part>) {
        match done {
            Done::Released(port) => {
                let leaving = self.leaving.iter_mut().find(|one| one.port == port);
                let Some(leaving) = leaving else { return };
                leaving.stage = Stage::Recovering;
                leaving.due = self.workers.len();
                for worker in &mut self.workers {
                    worker.orders.give(Order::Recover(port));
                    worker.waker.wake();
                }
            }
            Done::Tried(tried) => {
                let is_its = |one: &Interface| matches!(one.state, State::Opening(port) if port == tried.port);
                let Some(at) = self.wanted.iter().position(is_its) else {
                    return;
                };
                let mut interface = self.wanted.remove(at);
                if let Err(error) = self.settle(&mut interface, *tried) {
                    self.waits(&mut interface, now, &error);
                }
                if interface.wanted {
                    self.wanted.insert(at, interface);
                } else {
                    self.leave(interface, newest);
                }
            }
        }
    }

    /// Closes an interface that is not wanted any more.
    pub(super) fn leave(&mut self, mut interface: Interface, newest: u64) {
        if interface.station.is_some() && !matches!(interface.state, State::Opening(_)) {
            // What the kernel does not take off is an entry that nothing comes in for.
            let _ = self.steering.set_stations(interface.spec.ifindex, &[]);
        }
        match interface.state {
            State::Opening(_) => self.wanted.push(interface),
            State::Open(_) => self.close(&mut interface, true, newest),
            State::Waiting { .. } => {
                if let Some(mut program) = interface.program.take() {
                    let detach = move || {
                        let _ = program.detach();
                    };
                    // Without a thread it stays, as after a crash.
                    let _ = scheduling::spawn("xvs-port".to_owned(), detach);
                }
            }
        }
    }

    /// Looks whether what is open is as it was opened.
    pub(super) fn look(&mut self, now: Instant, newest: u64) {
        for at in 0..self.wanted.len() {
            let interface = &mut self.wanted[at];
            // The name only: what has become of the rest shows below.
            if let Some(name) = device::name(interface.spec.ifindex)
                && name != interface.spec.name
            {
                self.rename(at, &name);
            }
            let interface = &self.wanted[at];
            let State::Open(open) = &interface.state else {
                continue;
            };
            let Some(program) = self.steering.port(open.port) else {
                continue;
            };
            let Some((reason, wait)) = self.trouble(interface, open, program) else {
                self.follow_address(at);
                continue;
            };
            let mut interface = self.wanted.remove(at);
            self.close(&mut interface, false, newest);
            interface.state = State::Waiting {
                again: now + wait,
                reason,
            };
            let status = interface.status().to_string();
            interface.say(&mut self.news, &status, true);
            self.wanted.insert(at, interface);
        }
    }

    /// Why an open interface must be opened again, if it must, and how long it is no use to try.
    fn trouble(
        &self,
        interface: &Interface,
        open: &Open,
        program: &PortProgram,
    ) -> Option<(String, Duration)> {
        let spec = &interface.spec;
        if program
            .sockets()
            .iter()
            .any(|it| self.backend.is_unbound(it))
        {
            let gone = "it was deleted or moved to another network namespace";
            return Some((gone.to_owned(), Duration::ZERO));
        }
        match program.is_attached() {
            Ok(true) => {}
            Ok(false) => {
                let off = "somebody took the steering program off";
                return Some((off.to_owned(), Duration::ZERO));
            }
            Err(error @ OpenError::Foreign { .. }) => return Some((error.to_string(), PERIOD)),
            // It shows in another way if it is gone; else it is of the moment.
            Err(_) => {}
        }
        let served = open.report.queues;
        match device::queues(spec) {
            Ok(queues) if queues != served && open.report.level != Level::AfPacket => Some((
                format!("it has {queues} queues now instead of {served}"),
                Duration::ZERO,
            )),
            _ => None,
        }
    }

    fn rename(&mut self, at: usize, name: &str) {
        let interface = &mut self.wanted[at];
        self.news.push(PortNews {
            text: format!("{} is called {name} now", interface.spec),
            trouble: false,
        });
        name.clone_into(&mut interface.spec.name);
        let program = match &mut interface.state {
            State::Open(open) => {
                name.clone_into(&mut open.report.interface);
                let program = self.steering.set_port(open.port, None);
                program.map(|program| (Some(open.port), program))
            }
            _ => interface.program.take().map(|program| (None, program)),
        };
        let Some((port, mut program)) = program else {
            return;
        };
        program.rename(name);
        match port {
            Some(port) => drop(self.steering.set_port(port, Some(program))),
            None => interface.program = Some(program),
        }
    }

    /// Steers by the address that an open interface has now.
    fn follow_address(&mut self, at: usize) {
        let interface = &mut self.wanted[at];
        let Ok(mac) = device::address(&interface.spec) else {
            return;
        };
        if interface.station == Some(mac) {
            return;
        }
        let ifindex = interface.spec.ifindex;
        let done = self.steering.set_stations(ifindex, &[mac]).complete();
        match done {
            Ok(()) => interface.station = Some(mac),
            Err(error) => self.news.push(PortNews {
                text: format!(
                    "{}: steering its new address {mac}: {error}",
                    interface.spec
                ),
                trouble: true,
            }),
        }
    }

    /// Starts what is due.
    pub(super) fn try_due(&mut self, now: Instant, oldest: u64) {
        for at in 0..self.wanted.len() {
            let interface = &self.wanted[at];
            let due = matches!(interface.state, State::Waiting { again, .. } if again <= now);
            if !due || self.is_closing(interface.spec.ifindex) {
                continue;
            }
            let mut interface = self.wanted.remove(at);
            let started = self.job(&mut interface, oldest).and_then(|job| {
                let port = job.port;
                let tried = self.start(move || Done::Tried(Box::new(job.run())));
                tried.inspect_err(|_| self.slots.give_back(port))
            });
            if let Err(error) = started {
                self.waits(&mut interface, now, &error);
            }
            self.wanted.insert(at, interface);
        }
    }

    /// Whether sockets of ours on this interface are not closed yet.
    pub(super) fn is_closing(&self, ifindex: u32) -> bool {
        let mut leaving = self.leaving.iter();
        leaving.any(|one| one.spec.ifindex == ifindex && one.stage != Stage::Recovering)
    }
}

impl Interface {
    pub(super) fn new(spec: InterfaceSpec, now: Instant) -> Self {
        Self {
            spec,
            wanted: true,
            state: State::Waiting {
                again: now,
                reason: "it is about to be opened".to_owned(),
            },
            program: None,
            no_zero_copy: None,
            station: None,
            busy: None,
            said: String::new(),
        }
    }

    pub(super) fn status(&self) -> PortStatus {
        let state = match &self.state {
            State::Waiting { reason, .. } => PortState::Waiting(reason.clone()),
            State::Opening(_) => PortState::Opening,
            State::Open(open) => PortState::Open(open.port, open.report.clone()),
        };
        PortStatus {
            spec: self.spec.clone(),
            state,
        }
    }

    /// Says a line that is news.
    fn say(&mut self, news: &mut Vec<PortNews>, line: &str, trouble: bool) {
        if self.said != line {
            line.clone_into(&mut self.said);
            news.push(PortNews {
                text: line.to_owned(),
                trouble,
            });
        }
    }
}

impl Past {
    /// Adds what the program of an interface that goes and its sockets have counted.
    fn note(&mut self, backend: &impl Backend, program: &PortProgram, drops: &IoDrops) {
        // What cannot be asked any more is lost.
        self.steering += program.counters().unwrap_or_default();
        for socket in program.sockets() {
            self.xsk += backend.count(socket, drops).unwrap_or_default();
        }
    }
}
