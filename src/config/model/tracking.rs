//! What instances watch besides their interface: scripts, files, processes and BFD sessions, and who does so together.

use std::time::Duration;

use super::{NotifyScript, Owner, TrackInterface, plain::words};

/// `vrrp_script`: a command whose result bears on instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VrrpScript {
    /// The name behind `vrrp_script`.
    pub name: String,
    /// `script`: the command with its arguments.
    pub command: String,
    /// `interval`: seconds between two starts, at least 1. Default 1 s.
    pub interval: Duration,
    /// `timeout`: how long it may run. Default `interval`.
    pub timeout: Duration,
    /// `weight`: 0 = FAULT while it fails; above, added while it succeeds; below, added while it fails. keepalived uses
    /// a number outside of -253 to 253 as it is. Default 0.
    pub weight: i32,
    /// `reverse`: whether success and failure change places. Default false.
    pub reverse: bool,
    /// `rise`: successes in a row that count as one. Default 1.
    pub rise: u32,
    /// `fall`: failures in a row that count as one. Default 1.
    pub fall: u32,
    /// `user`: who runs it. `None`: `script_user`.
    pub user: Option<Owner>,
    /// `init_fail`: whether it counts as failed until it has succeeded. Default false.
    pub init_fail: bool,
}

/// `track_file`: a file whose number bears on instances and real servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackFile {
    /// The name behind `track_file`.
    pub name: String,
    /// `file`: its path.
    pub path: String,
    /// `weight`: what its number is multiplied by; 0 = any number but 0 means FAULT. Default 1.
    pub weight: i32,
    /// `reverse`: whether the sign changes. Default false.
    pub reverse: bool,
    /// `init_file`: it is made at the start. Default none.
    pub init: Option<InitFile>,
}

/// `init_file`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitFile {
    /// What is written. Default 0.
    pub value: i64,
    /// `overwrite`: whether a file that is there is written as well. Default false.
    pub overwrite: bool,
}

words! {
    /// `param_match`: how far the parameters of a process must fit.
    ParamMatch {
        /// All of them, and the last may be longer.
        Initial = "initial",
        /// The first ones.
        Partial = "partial",
    }
}

/// `track_process`: processes whose absence bears on instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackProcess {
    /// The name behind `track_process`.
    pub name: String,
    /// `process`: its name, then its parameters.
    pub command: Vec<String>,
    /// `param_match`. `None`: all parameters must fit, where there are any.
    pub param_match: Option<ParamMatch>,
    /// `full_command`: whether the whole command line is compared. Default false.
    pub full_command: bool,
    /// `weight`: as of a script, -254 to 254. Default 1.
    pub weight: i32,
    /// `reverse`: whether running and not running change places. Default false.
    pub reverse: bool,
    /// `quorum`: how many must run, 1 to 65,535. Default 1.
    pub quorum: u16,
    /// `quorum_max`: how many may run. `None`: any number.
    pub quorum_max: Option<u16>,
    /// `fork_delay`: how long enough of them must run. Microseconds, up to an hour; default 0.
    pub fork_delay: Duration,
    /// `terminate_delay`: how long too few of them must run. Microseconds, up to an hour; default 0.
    pub terminate_delay: Duration,
}

/// An entry of `track_script`, `track_file`, `track_process` or `track_bfd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// The name of what is watched.
    pub name: String,
    /// `weight`, that of what is watched where the entry has none.
    pub weight: i32,
    /// `reverse`, likewise.
    pub reverse: bool,
}

/// What an instance or a group watches besides interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trackers {
    /// `track_script`
    pub scripts: Vec<Tracked>,
    /// `track_file`
    pub files: Vec<Tracked>,
    /// `track_process`
    pub processes: Vec<Tracked>,
    /// `track_bfd`
    pub bfds: Vec<Tracked>,
}

impl Trackers {
    /// Each list with its keyword.
    pub fn lists(&self) -> [(&'static str, &[Tracked]); 4] {
        [
            ("track_script", &self.scripts),
            ("track_file", &self.files),
            ("track_process", &self.processes),
            ("track_bfd", &self.bfds),
        ]
    }
}

/// `vrrp_sync_group`: instances that change state together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncGroup {
    /// The name behind `vrrp_sync_group`.
    pub name: String,
    /// `group`: the names of its instances, at least one.
    pub members: Vec<String>,
    /// `track_interface`
    pub track_interface: Vec<TrackInterface>,
    /// `track_script`, `track_file`, `track_process` and `track_bfd`.
    pub trackers: Trackers,
    /// `notify_*` and `notify`: scripts.
    pub notify: Vec<NotifyScript>,
    /// `smtp_alert`, as `global_defs` has it where the group does not say so itself. `None`: no.
    pub smtp_alert: Option<bool>,
    /// `notify_priority_changes`. `None`: as `global_defs` has it.
    pub notify_priority_changes: Option<bool>,
    /// `sync_group_tracking_weight`: whether weights of its members' trackers count. Default false.
    pub tracking_weight: bool,
    /// `global_tracking`: whether what one member tracks is tracked by all, of keepalived 1.x. Default false.
    pub global_tracking: bool,
}

/// `track_group`: instances that static addresses, routes and rules bear on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackGroup {
    /// The name behind `track_group`.
    pub name: String,
    /// `group`: the names of its instances.
    pub members: Vec<String>,
}
