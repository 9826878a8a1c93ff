//! What signals ask for: keepalived's, with its numbers.

use std::{io, sync::Arc};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook_mio::v1_0::Signals;

use super::{
    super::{
        dump::{Kind, Snapshot},
        log::Level,
    },
    Engine,
};
use crate::sys::{clock, signals};

/// Catches the signals that mean something.
pub(super) fn catch() -> io::Result<Signals> {
    Signals::new([
        SIGTERM,
        SIGINT,
        SIGHUP,
        SIGUSR1,
        SIGUSR2,
        signals::json(),
        signals::clear_statistics(),
    ])
}

/// The number of the signal that keepalived's `--signum` calls by this name, if it does.
pub fn number(name: &str) -> Option<i32> {
    let numbers = [
        ("STOP", SIGTERM),
        ("RELOAD", SIGHUP),
        ("DATA", SIGUSR1),
        ("STATS", SIGUSR2),
        ("STATS_CLEAR", signals::clear_statistics()),
        ("JSON", signals::json()),
    ];
    let mut numbers = numbers.into_iter();
    numbers
        .find(|(known, _)| *known == name)
        .map(|(_, number)| number)
}

impl Engine {
    pub(super) fn handle_signals(&mut self) {
        let pending: Vec<i32> = self.signals.pending().collect();
        for signal in pending {
            match signal {
                SIGINT if self.options.ignore_sigint => {}
                SIGTERM | SIGINT => self.stopping = true,
                SIGHUP => self.begin_reload(None),
                SIGUSR1 => self.dump(Kind::Data),
                SIGUSR2 => self.dump(Kind::Statistics),
                other if other == signals::json() => self.dump(Kind::Json),
                _ => {
                    self.vrrp.clear_counters();
                    self.say(Level::Notice, "the statistics of VRRP are set to zero");
                }
            }
        }
    }

    fn dump(&mut self, kind: Kind) {
        if self.dumps.is_busy(kind) {
            return;
        }
        let services = match kind {
            Kind::Data => self.list().services,
            Kind::Statistics | Kind::Json => Vec::new(),
        };
        let snapshot = Snapshot {
            config: Arc::clone(&self.config),
            instances: self.vrrp.status(clock::now(), clock::wall()),
            services,
        };
        if let Err(line) = self.dumps.begin(kind, snapshot) {
            self.say(Level::Error, line);
        }
    }

    /// Says what was written.
    pub(super) fn drive_dumps(&mut self) {
        while let Some(line) = self.dumps.poll_line() {
            match line {
                Ok(line) => self.say(Level::Info, line),
                Err(line) => self.say(Level::Error, line),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_keepalived_s() {
        let names = ["DATA", "STATS", "RELOAD", "STOP", "JSON", "STATS_CLEAR"];
        let numbers = names.map(|name| number(name).unwrap());
        assert_eq!(numbers, [10, 12, 1, 15, 36, 63]);
        assert_eq!(number("data"), None);
    }
}
