//! Who is told what becomes of the daemon: the service manager, and whoever waits for its start.

use std::{collections::VecDeque, time::Duration};

use crate::{sys::notify::Manager, time::Instant};

/// Called once, when the daemon does what it is for.
pub type Started = Box<dyn FnOnce()>;

/// Tells them.
pub(super) struct Herald {
    manager: Option<Manager>,
    started: Option<Started>,
    /// The last line about how it goes.
    status: String,
    /// When the manager is next told that the loop turns.
    watchdog_at: Option<Instant>,
    /// What it has not taken yet, in the order in which it is to be told.
    waiting: VecDeque<String>,
    /// When it is told again.
    again_at: Option<Instant>,
}

/// How soon a manager that was busy is told again.
const AGAIN: Duration = Duration::from_millis(100);
/// Messages that wait for it at most: those of thirty reloads. Of a manager that takes none the oldest are forgotten.
const WAITING: usize = 64;

impl Herald {
    /// Has something to tell to `manager` and `started`.
    pub(super) fn new(now: Instant, manager: Option<Manager>, started: Started) -> Self {
        let watchdog = manager.as_ref().and_then(Manager::watchdog);
        Self {
            manager,
            started: Some(started),
            status: String::new(),
            watchdog_at: watchdog.map(|_| now),
            waiting: VecDeque::new(),
            again_at: None,
        }
    }

    /// Whether nobody was told yet that it has started.
    pub(super) const fn is_waited_for(&self) -> bool {
        self.started.is_some()
    }

    /// It does what it is for.
    pub(super) fn ready(&mut self, now: Instant) {
        if let Some(started) = self.started.take() {
            started();
        }
        self.tell(now, "READY=1\n".to_owned());
    }

    /// It reads its configuration anew.
    pub(super) fn reloading(&mut self, now: Instant) {
        let at = now.as_nanos() / 1_000;
        self.tell(now, format!("RELOADING=1\nMONOTONIC_USEC={at}\n"));
    }

    /// A reload is over, however it went. Before the start is told, that is told instead.
    pub(super) fn reloaded(&mut self, now: Instant) {
        if !self.is_waited_for() {
            self.ready(now);
        }
    }

    /// It is told to stop.
    pub(super) fn stopping(&mut self, now: Instant) {
        self.tell(now, "STOPPING=1\n".to_owned());
    }

    /// How it goes, in a line.
    pub(super) fn status(&mut self, now: Instant, status: String) {
        if self.status != status {
            // A former one is of no interest any more.
            self.waiting.retain(|lines| !lines.starts_with("STATUS="));
            self.tell(now, format!("STATUS={status}\n"));
            self.status = status;
        }
    }

    /// The loop turns.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let watchdog = self.manager.as_ref().and_then(Manager::watchdog);
        if let (Some(at), Some(period)) = (self.watchdog_at, watchdog)
            && at <= now
        {
            // Not behind what waits: it is about this moment.
            let told = self.manager_takes("WATCHDOG=1\n");
            self.watchdog_at = Some(now + if told { period / 2 } else { AGAIN });
        }
        if self.again_at.is_some_and(|at| at <= now) {
            self.go_on(now);
        }
    }

    /// When [`Self::handle_timeout`] has something to do next.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.watchdog_at.into_iter().chain(self.again_at).min()
    }

    /// Tells the manager, now or as soon as it takes it.
    fn tell(&mut self, now: Instant, lines: String) {
        if self.waiting.len() == WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(lines);
        self.go_on(now);
    }

    /// Tells the manager what waits, as far as it takes it.
    fn go_on(&mut self, now: Instant) {
        self.again_at = None;
        while let Some(lines) = self.waiting.front() {
            if !self.manager_takes(lines) {
                self.again_at = Some(now + AGAIN);
                return;
            }
            self.waiting.pop_front();
        }
    }

    /// Whether the manager, if there is one, has taken it: one that is busy or gone has not.
    fn manager_takes(&self, lines: &str) -> bool {
        let told = self.manager.as_ref().map(|manager| manager.tell(lines));
        told.is_none_or(|told| told.is_ok())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        ffi::OsStr,
        os::{
            linux::net::SocketAddrExt,
            unix::net::{SocketAddr, UnixDatagram},
        },
        rc::Rc,
        time::Duration,
    };

    use super::*;

    fn listener(name: &str) -> (UnixDatagram, Manager) {
        let name = format!("xvs-herald-{}-{name}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let watchdog = Some(Duration::from_secs(10));
        let manager = Manager::at(OsStr::new(&format!("@{name}")), watchdog).unwrap();
        (listener, manager)
    }

    fn heard(listener: &UnixDatagram) -> Vec<String> {
        let mut room = [0; 256];
        let mut all = Vec::new();
        while let Ok(count) = listener.recv(&mut room) {
            all.push(String::from_utf8_lossy(&room[..count]).into_owned());
        }
        all
    }

    #[test]
    fn a_service_manager_hears_of_a_life() {
        let (listener, manager) = listener("life");
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        let calls = Rc::new(Cell::new(0));
        let call = Rc::clone(&calls);
        let started = Box::new(move || call.set(call.get() + 1));
        let mut herald = Herald::new(at(1), Some(manager), started);
        herald.reloaded(at(1));
        assert_eq!(heard(&listener), [""; 0], "it has not started");
        herald.ready(at(1));
        herald.status(at(1), "1 virtual server".into());
        herald.status(at(1), "1 virtual server".into());
        herald.reloading(at(2));
        herald.reloaded(at(1));
        herald.stopping(at(2));
        assert_eq!(calls.get(), 1);
        assert_eq!(
            heard(&listener),
            [
                "READY=1\n",
                "STATUS=1 virtual server\n",
                "RELOADING=1\nMONOTONIC_USEC=2000000\n",
                "READY=1\n",
                "STOPPING=1\n",
            ]
        );
    }

    #[test]
    fn a_manager_that_is_busy_hears_all_of_it_later_in_order() {
        let (listener, manager) = listener("busy");
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        let mut herald = Herald::new(at(1), Some(manager), Box::new(|| ()));
        // As many as the kernel keeps for who does not listen, and more.
        let mut watched = 0;
        while herald.manager_takes("WATCHDOG=1\n") {
            watched += 1;
        }
        herald.ready(at(1));
        herald.status(at(1), "BACKUP".into());
        herald.reloading(at(2));
        herald.status(at(2), "MASTER".into());
        herald.reloaded(at(2));
        herald.handle_timeout(at(3));
        assert_eq!(heard(&listener), vec!["WATCHDOG=1\n"; watched]);
        assert!(herald.poll_timeout().is_some_and(|due| due <= at(4)));
        herald.handle_timeout(at(4));
        assert_eq!(
            heard(&listener),
            [
                "WATCHDOG=1\n",
                "READY=1\n",
                "RELOADING=1\nMONOTONIC_USEC=2000000\n",
                "STATUS=MASTER\n",
                "READY=1\n",
            ]
        );
        assert_eq!(herald.again_at, None);
        for _ in 0..10 * WAITING {
            herald.reloading(at(5));
        }
        assert_eq!(herald.waiting.len(), WAITING);
    }

    #[test]
    fn the_watchdog_hears_from_it_twice_in_its_time() {
        let (listener, manager) = listener("watchdog");
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        let mut herald = Herald::new(at(1), Some(manager), Box::new(|| ()));
        herald.handle_timeout(at(1));
        assert_eq!(herald.poll_timeout(), Some(at(6)));
        herald.handle_timeout(at(5));
        assert_eq!(heard(&listener), ["WATCHDOG=1\n"]);
        herald.handle_timeout(at(6));
        assert_eq!(heard(&listener), ["WATCHDOG=1\n"]);
    }
}
