//! The daemon's process: where it runs, before anything is opened, and whether in the background.

use std::{cell::Cell, rc::Rc};

use super::engine;
use crate::{
    config::Config,
    sys::{
        daemon::{self, Forked},
        netns,
    },
};

/// What the process is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launch {
    /// The network namespace to run in, by the name that `ip netns` gave it. `None`: the caller's.
    pub namespace: Option<String>,
    /// Permission bits that new files do not get. `None`: the caller's.
    pub umask: Option<u32>,
    /// Whether to run in the background, as a daemon: then this ends once that has started.
    pub daemonise: bool,
}

/// Runs the daemon, in the foreground until it is told to stop.
///
/// # Errors
/// A sentence: what could not be set up, or what ended while it ran.
pub fn run(config: Config, options: &engine::Options, launch: &Launch) -> Result<(), String> {
    if let Some(mask) = launch.umask {
        daemon::set_umask(mask);
    }
    if let Some(name) = &launch.namespace {
        netns::enter(name)
            .map_err(|error| format!("entering the network namespace {name}: {error}"))?;
    }
    if !launch.daemonise {
        return engine::run(config, options, Box::new(|| ()));
    }
    match daemon::fork().map_err(|error| format!("starting a daemon: {error}"))? {
        Forked::Caller(caller) => caller.wait(),
        Forked::Daemon(starting) => {
            let starting = Rc::new(Cell::new(Some(starting)));
            let waited_for = Rc::clone(&starting);
            let started = move || {
                if let Some(starting) = waited_for.take() {
                    starting.report(Ok(()));
                }
            };
            let outcome = engine::run(config, options, Box::new(started));
            if let (Err(why), Some(starting)) = (&outcome, starting.take()) {
                starting.report(Err(why));
            }
            outcome
        }
    }
}
