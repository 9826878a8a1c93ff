//! End-to-end tests: xvs as its users run it, in network namespaces, between real programs.
//!
//! They need root and the programs that `scripts/install-deps` installs, so plain `cargo test`
//! leaves them alone; by name: `cargo test --test netns`, and `cargo test --test netns -- failover`
//! for one subject. A test that cannot run fails and says what it misses.
//!
//! With the argument `demo` nothing is tested: it shows what xvs does, for `scripts/demo`.

mod as_keepalived;
mod cli;
mod crash;
mod demo;
mod failover;
mod fast_path;
mod files;
mod foreign_traffic;
mod forwarding;
mod harness;
mod health;
mod hostile;
mod ipv6;
mod keepalived_peer;
mod links;
mod local;
mod logs;
mod losses;
mod marks;
mod nat;
mod offload;
mod oracle;
mod own_process;
mod paths;
mod persistence;
mod reload;
mod samples;
mod sctp;
mod support;
mod surroundings;
mod takeover;
mod throughput;
mod tunnel;
mod udp;

use std::{
    process::ExitCode,
    sync::{PoisonError, RwLock},
};

use libtest_mimic::{Arguments, Trial};
use support::xvs::Engine;

/// The name of a test and what it does on an engine.
type Subject = (&'static str, fn(Engine));

/// A test: its name is a sentence, prefixed by its subject.
struct Test {
    name: String,
    alone: bool,
    run: Box<dyn FnOnce() + Send>,
}

impl Test {
    fn new(name: &str, run: impl FnOnce() + Send + 'static) -> Self {
        let (name, run) = (name.to_owned(), Box::new(run));
        Self {
            name,
            alone: false,
            run,
        }
    }

    /// The same test once for each way to get at packets.
    fn on_each_engine(name: &str, run: fn(Engine)) -> impl Iterator<Item = Self> {
        Engine::ALL
            .map(|engine| Self::new(&format!("{name}::{}", engine.name()), move || run(engine)))
            .into_iter()
    }

    /// As [`Self::on_each_engine`], for what lies above them: once with XDP, once without.
    fn on_both_engines(name: &str, run: fn(Engine)) -> impl Iterator<Item = Self> {
        Engine::BOTH
            .map(|engine| Self::new(&format!("{name}::{}", engine.name()), move || run(engine)))
            .into_iter()
    }

    /// Runs while no other test does: it measures tenths of seconds, and two cores are few.
    const fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    fn into_trial(self) -> Trial {
        /// Held for reading by every test, for writing by one that is alone.
        static MACHINE: RwLock<()> = RwLock::new(());
        Trial::test(self.name, move || {
            if self.alone {
                let _all = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
                (self.run)();
            } else {
                let _share = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
                (self.run)();
            }
            Ok(())
        })
    }
}

fn main() -> ExitCode {
    support::lan::sweep();
    if std::env::args().nth(1).as_deref() == Some("demo") {
        return demo::show();
    }
    let subjects = [
        harness::tests(),
        forwarding::tests(),
        persistence::tests(),
        reload::tests(),
        health::tests(),
        failover::tests(),
        fast_path::tests(),
        links::tests(),
        keepalived_peer::tests(),
        foreign_traffic::tests(),
        local::tests(),
        losses::tests(),
        hostile::tests(),
        crash::tests(),
        surroundings::tests(),
        takeover::tests(),
        logs::tests(),
        cli::tests(),
        as_keepalived::tests(),
        own_process::tests(),
        files::tests(),
        samples::tests(),
        oracle::tests(),
        throughput::tests(),
        sctp::tests(),
        paths::tests(),
        marks::tests(),
        tunnel::tests(),
        ipv6::tests(),
        udp::tests(),
        nat::tests(),
        offload::tests(),
    ];
    let trials = subjects.into_iter().flatten().map(Test::into_trial);
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
