//! A configuration made to run: at the start from nothing, and at a reload.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::SystemTime};

use super::{
    super::{
        admin::{Pieces, Ticket},
        api::{ReloadReport, Response},
        forwarding::{Forwarding, View, data_plane::Calls},
        log::{Level, Line, Room},
        reload_time::{Settings, Told},
    },
    Engine, Options, Trouble, parts,
    reload::{Fresh, Refusal},
};
use crate::{
    check::Health,
    config::{Config, Diff},
    sys::clock,
    time::Instant,
};

/// Lines about what a reload changes that the log gets; `xvs reload` shows all.
const CHANGES_LOGGED: usize = 50;

impl Engine {
    /// Makes `config` what runs, which differs from that by `diff`. Either all of it is applied, or nothing.
    ///
    /// # Errors
    /// A sentence: why it cannot run.
    pub(super) fn apply(
        &mut self,
        now: Instant,
        wall: SystemTime,
        config: Arc<Config>,
        diff: &Diff,
    ) -> Result<Arc<Config>, String> {
        self.forwarding.check(diff, &config)?;
        self.with_vrrp((now, wall), |vrrp, env| vrrp.check(&config, env))?;
        let ((forwarding, _), mut view) = parts(self, now, wall);
        let applied = forwarding.apply(diff, &config, &mut view);
        for id in &applied.changed {
            if let Some(settings) = self.forwarding.services().check_settings(*id) {
                self.checks.set(now, &settings);
            }
        }
        for id in &applied.removed {
            self.checks.remove(*id);
        }
        self.with_vrrp((now, wall), |vrrp, env| vrrp.apply(&config, env));
        self.carry_out(now, wall);
        Ok(std::mem::replace(&mut self.config, config))
    }

    /// Has the control thread scheduled as the configuration says. What the kernel refuses is said.
    pub(super) fn set_priorities(&mut self) {
        let config = Arc::clone(&self.config);
        for line in self.priorities.set(&config.global.processes) {
            self.say_line(&line);
        }
    }

    /// Starts what forwards.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub(super) fn open_data_plane(&mut self) -> Result<(), String> {
        self.with_data_plane(|forwarding, options, calls, with, view| {
            forwarding.open(options, calls, with, view)
        })
    }

    fn with_data_plane(
        &mut self,
        open: impl FnOnce(
            &mut Forwarding,
            &Options,
            Calls,
            (&Health, &BTreeSet<u32>),
            &mut View<'_>,
        ) -> Result<(), String>,
    ) -> Result<(), String> {
        let (ended, asked) = (Arc::clone(&self.waker), Arc::clone(&self.waker));
        let calls = Calls {
            // The loop notices at its next turn if this fails.
            ended: Arc::new(move || drop(ended.wake())),
            asked: Arc::new(move || drop(asked.wake())),
        };
        let options = self.options.clone();
        let interfaces: BTreeSet<u32> = self.vrrp.vip_interfaces().collect();
        let ((forwarding, checks), mut view) = parts(self, clock::now(), clock::wall());
        open(
            forwarding,
            &options,
            calls,
            (checks.health(), &interfaces),
            &mut view,
        )
    }

    /// Starts what forwards, once there is something to forward. What it lacks is said, and it is tried again
    /// every second.
    pub(super) fn open_late(&mut self, now: Instant) {
        let missing = self.forwarding.data_plane().is_none() && !self.forwarding.is_opening();
        if missing && !self.forwarding.services().is_empty() {
            let begun = self.with_data_plane(|forwarding, options, calls, with, view| {
                forwarding.begin_to_open(options, calls, with, view)
            });
            self.note_opening(now, &begun);
        }
    }

    /// Takes over what was being opened.
    pub(super) fn finish_to_open(&mut self, now: Instant, wall: SystemTime) {
        if self.forwarding.is_opening() {
            let ((forwarding, _), mut view) = parts(self, now, wall);
            let finished = forwarding.finish_to_open(&mut view);
            if finished.is_err() || !self.forwarding.is_opening() {
                self.note_opening(now, &finished);
            }
        }
    }

    fn note_opening(&mut self, now: Instant, outcome: &Result<(), String>) {
        let what = "starting to forward";
        let outcome = outcome.as_ref().copied();
        if let Some(line) = self.reports.note(now, Trouble::DataPlane, outcome, what) {
            self.say_line(&line);
        }
    }

    /// Begins a reload, of which `asker` is to be told the outcome.
    pub(super) fn begin_reload(&mut self, asker: Option<Ticket>) {
        // What is being read may have been read before it was changed.
        if self.reload.is_reading() {
            self.next_reloaders.extend(asker);
        } else {
            self.reloaders.extend(asker);
        }
        self.herald.reloading(clock::now());
        let file = self.reload.file().display().to_string();
        self.say(Level::Info, format_args!("reload: reading {file}"));
        if let Err(error) = self.reload.begin(&self.config) {
            self.refuse(error.into());
            self.herald.reloaded(clock::now());
        }
    }

    /// Applies what was read.
    pub(super) fn drive_reload(&mut self, now: Instant, wall: SystemTime) {
        let Some(outcome) = self.reload.poll() else {
            return;
        };
        let replaced = match outcome {
            Ok(fresh) => self.take_over(now, wall, fresh),
            Err(refusal) => {
                self.refuse(refusal);
                None
            }
        };
        self.herald.reloaded(now);
        if self.reload.retire(replaced) {
            self.reloaders.append(&mut self.next_reloaders);
            self.begin_reload(None);
        }
    }

    fn take_over(&mut self, now: Instant, wall: SystemTime, fresh: Fresh) -> Option<Arc<Config>> {
        let Fresh {
            config,
            diff,
            findings,
        } = fresh;
        let unused = Arc::clone(&config);
        let replaced = match self.apply(now, wall, config, &diff) {
            Ok(replaced) => replaced,
            Err(why) => {
                self.refuse(why.into());
                return Some(unused);
            }
        };
        self.set_priorities();
        let changes: Vec<String> = diff.changes.iter().map(ToString::to_string).collect();
        self.say_findings(&findings);
        for change in changes.iter().take(CHANGES_LOGGED) {
            self.say(Level::Info, format_args!("reload: {change}"));
        }
        match changes.len() {
            0 => self.say(Level::Info, "reload: nothing is different"),
            count if count > CHANGES_LOGGED => {
                let more = count - CHANGES_LOGGED;
                self.say(Level::Info, format_args!("reload: and {more} more"));
            }
            _ => {}
        }
        self.open_late(now);
        self.follow_files();
        self.say(Level::Notice, "reload: done");
        self.tell_reloaders(&Response::Reload(ReloadReport {
            changes,
            findings: findings.into_iter().map(|line| line.text).collect(),
        }));
        Some(replaced)
    }

    /// Keeps the configuration that runs now, and looks at the file that tells when it is to be read anew, as far as it
    /// asks for that.
    pub(super) fn follow_files(&mut self) {
        let files = &self.config.global.files;
        let folder = self
            .options
            .socket
            .parent()
            .unwrap_or_else(|| Path::new("."));
        let time = files.reload_time_file.as_ref().map(|file| Settings {
            path: folder.join(file),
            repeat: files.reload_repeat,
        });
        let kept = self.dumps.keep(&self.config);
        for line in [kept, self.reload_time.set(time)]
            .into_iter()
            .filter_map(Result::err)
        {
            self.say(Level::Error, line);
        }
    }

    /// Reads the configuration anew if it is time.
    pub(super) fn drive_reload_time(&mut self) {
        while let Some(told) = self.reload_time.poll() {
            match told {
                Told::Line(line) => self.say_line(&line),
                Told::Reload => self.begin_reload(None),
            }
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.say_findings(&refusal.lines);
        self.say(Level::Error, "reload: refused, what runs stays as it is");
        let told = format!("refused, what runs stays as it is:\n{}", refusal.report);
        self.tell_reloaders(&Response::Error(told));
    }

    /// Each, however many there are: the last may be the one that matters.
    fn say_findings(&mut self, findings: &[Line]) {
        let now = (clock::now(), clock::wall());
        for Line { level, text } in findings {
            (self.log).say_each(now, Room::Control, *level, &format_args!("reload: {text}"));
        }
    }

    fn tell_reloaders(&mut self, response: &Response) {
        let line = serde_json::to_vec(response).map(|mut line| {
            line.push(b'\n');
            line
        });
        let Ok(line) = line else { return };
        for ticket in std::mem::take(&mut self.reloaders) {
            let pieces: Pieces = Box::new(std::iter::once(line.clone()));
            if let Some(admin) = &mut self.admin {
                admin.finish(ticket, pieces);
            }
        }
    }
}
