//! The scripts around the daemon's life: one before anything is opened, one after everything is closed.

use std::{io, os::fd::AsRawFd, time::Duration};

use mio::{Events, Interest, Poll, Token, unix::SourceFd};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;

use super::{
    super::log::{self, Level, Line, Log, Room},
    Command, Rules,
};
use crate::{
    config::{self, Scripts},
    sys::{
        clock,
        script::{End, Identity, Script},
    },
};

/// How a script ended, for who waited for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// By itself or by somebody else.
    Ended(End),
    /// It had not in its time, and was killed.
    TimedOut,
    /// A signal told this process to stop, and it was killed.
    Interrupted,
}

/// What there is to say about the scripts of the process before they run: a line each.
pub(in crate::control) fn remarks(scripts: &Scripts) -> Vec<Line> {
    let all = [
        ("startup_script", &scripts.startup_script),
        ("shutdown_script", &scripts.shutdown_script),
    ];
    if all.iter().all(|(_, script)| script.is_none()) {
        // Nobody is asked for users: their databases may be far away.
        return Vec::new();
    }
    let rules = Rules::new(scripts, Identity::own());
    let given = all
        .into_iter()
        .filter_map(|(keyword, script)| Some((keyword, script.as_ref()?)));
    given
        .flat_map(|(keyword, script)| prepare(&rules, keyword, script).1)
        .collect()
}

/// What to run, if it can be, and what there is to say about that.
fn prepare(rules: &Rules, keyword: &str, script: &config::Script) -> (Option<Script>, Vec<Line>) {
    let mut odd = Vec::new();
    let found = rules.find(Command::from(script), &mut odd);
    let mut lines: Vec<Line> = odd
        .into_iter()
        .map(|odd| warning(format!("{keyword}: {odd}")))
        .collect();
    let found = found.map_err(|why| lines.push(warning(format!("{keyword} is not run: {why}"))));
    (found.ok(), lines)
}

/// Runs `startup_script`, if there is one, until something in `stops`. Lines for the log, which is not open yet, and whether the daemon was told
/// to stop meanwhile.
pub(in crate::control) fn startup(scripts: &Scripts, stops: Stops) -> (Vec<Line>, bool) {
    let Some(script) = &scripts.startup_script else {
        return (Vec::new(), false);
    };
    let limit = scripts.startup_script_timeout;
    let (line, ending) = run_one("startup_script", scripts, (script, limit), Ok(stops));
    (
        line.into_iter().collect(),
        ending == Some(Ending::Interrupted),
    )
}

/// Runs `shutdown_script`, if there is one.
pub(in crate::control) fn shutdown(scripts: &Scripts, ignore_sigint: bool, log: &log::Options) {
    let Some(script) = &scripts.shutdown_script else {
        return;
    };
    let limit = scripts.shutdown_script_timeout;
    let stops = Stops::notice(ignore_sigint);
    let (line, _) = run_one("shutdown_script", scripts, (script, limit), stops);
    if let Some(Line { level, text }) = line {
        let (now, wall) = (clock::now(), clock::wall());
        let mut log = Log::new(log);
        log.say((now, wall), Room::Control, level, text);
        log.finish(now, wall);
    }
}

/// Runs a script of the process. What there is to say about it that [`remarks`] does not say, and how it ended.
fn run_one(
    keyword: &str,
    scripts: &Scripts,
    (script, limit): (&config::Script, Option<Duration>),
    stops: io::Result<Stops>,
) -> (Option<Line>, Option<Ending>) {
    let rules = Rules::new(scripts, Identity::own());
    let Some(found) = prepare(&rules, keyword, script).0 else {
        return (None, None);
    };
    let limit = limit.unwrap_or(config::defaults::SCRIPT_TIME);
    let program = found.program.display();
    let ending = match stops.and_then(|stops| run(&found, limit, stops)) {
        Ok(ending) => ending,
        Err(error) => {
            let text = format!("{keyword}: running {program}: {error}");
            return (Some(warning(text)), None);
        }
    };
    let line = match ending {
        Ending::Ended(End::Exited(0)) => Line {
            level: Level::Info,
            text: format!("{keyword} has succeeded: {program}"),
        },
        Ending::Ended(End::Exited(status)) => warning(format!(
            "{keyword} has failed: {program}: exit status {status}"
        )),
        Ending::Ended(End::Killed(signal)) => warning(format!(
            "{keyword} has failed: {program}: ended by signal {signal}"
        )),
        Ending::TimedOut => {
            let limit = limit.as_secs_f64();
            warning(format!(
                "{keyword} has not ended within {limit} s and was killed: {program}"
            ))
        }
        Ending::Interrupted => warning(format!(
            "{keyword} was killed, as xvs was told to stop: {program}"
        )),
    };
    (Some(line), Some(ending))
}

/// Signals that tell this process to stop, noticed while a script is waited for.
pub(in crate::control) struct Stops(Signals);

impl Stops {
    /// Notices them from now on, beside who else catches them: for that one they are still there afterwards. There
    /// must be one: once this is dropped, they are not deadly again.
    ///
    /// # Errors
    /// What the kernel said.
    pub(in crate::control) fn notice(ignore_sigint: bool) -> io::Result<Self> {
        let stops = if ignore_sigint {
            &[SIGTERM][..]
        } else {
            &[SIGTERM, SIGINT]
        };
        Signals::new(stops).map(Self)
    }
}

const SCRIPT: Token = Token(0);
const SIGNALS: Token = Token(1);

/// Runs a script to its end, at most for `limit`, and no longer than this process is not told to stop. Its whole
/// process group is killed then.
pub(super) fn run(script: &Script, limit: Duration, stops: Stops) -> io::Result<Ending> {
    let mut poll = Poll::new()?;
    let Stops(mut signals) = stops;
    poll.registry()
        .register(&mut signals, SIGNALS, Interest::READABLE)?;
    let deadline = clock::now() + limit;
    let mut running = script.start()?;
    poll.registry().register(
        &mut SourceFd(&running.as_raw_fd()),
        SCRIPT,
        Interest::READABLE,
    )?;
    let mut events = Events::with_capacity(2);
    loop {
        // What ended it first counts: a script that has ended was not killed.
        if let Some(end) = running.poll_end()? {
            return Ok(Ending::Ended(end));
        }
        if signals.pending().next().is_some() {
            return Ok(Ending::Interrupted);
        }
        let now = clock::now();
        if now >= deadline {
            return Ok(Ending::TimedOut);
        }
        match poll.poll(&mut events, Some(deadline - now)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
    }
}

const fn warning(text: String) -> Line {
    Line {
        level: Level::Warning,
        text,
    }
}
