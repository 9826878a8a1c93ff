//! How much what checks find matters, and what of it programs want to know.

use std::{fmt::Display, time::SystemTime};

use crate::{
    check::{Event, QuorumChange, ServiceName},
    control::log::{About, Kind, Level, Log, Room},
    time::Instant,
};

/// What to say of an event beside its text.
struct Said<'a> {
    level: Level,
    name: &'static str,
    real: Option<&'a ServiceName>,
    virtual_server: Option<&'a ServiceName>,
    /// Whether what it is about is up now.
    up: Option<bool>,
}

/// Says what happened.
pub(super) fn tell(log: &mut Log, at: (Instant, SystemTime), event: &Event) {
    let said = said(event);
    let mut fields: Vec<(&'static str, &dyn Display)> = vec![("event", &said.name)];
    if let Some(real) = &said.real {
        fields.push(("real_server", real));
    }
    if let Some(name) = &said.virtual_server {
        fields.push(("virtual_server", name));
    }
    match said.up {
        Some(true) => fields.push(("state", &"up")),
        Some(false) => fields.push(("state", &"down")),
        None => {}
    }
    let about = About {
        level: said.level,
        room: Room::Checks,
        kind: Kind::Event(said.name),
        fields: &fields,
    };
    log.tell(at, &about, event);
}

const fn said(event: &Event) -> Said<'_> {
    let (level, name) = level_and_name(event);
    let (real, virtual_server, up) = match event {
        Event::ProbeFailed { name, .. } | Event::ProbeDeferred { name, .. } => {
            (Some(name), None, None)
        }
        Event::Activated { name, vs, .. } => (Some(name), Some(vs), None),
        Event::CheckerUp { name, .. } => (Some(name), None, Some(true)),
        Event::CheckerDown { name, .. } => (Some(name), None, Some(false)),
        Event::RealUp { name, vs, .. } => (Some(name), Some(vs), Some(true)),
        Event::RealDown { name, vs, .. } => (Some(name), Some(vs), Some(false)),
        Event::Weight { name, vs, up, .. } => (Some(name), Some(vs), Some(*up)),
        Event::Quorum { name, change, .. } => {
            let up = matches!(change, QuorumChange::Gained);
            (None, Some(name), Some(up))
        }
        Event::Sorry { name, .. } | Event::AliveMoved { name, .. } => (None, Some(name), None),
        Event::ProbesPaused | Event::ProbesResumed { .. } => (None, None, None),
    };
    Said {
        level,
        name,
        real,
        virtual_server,
        up,
    }
}

const fn level_and_name(event: &Event) -> (Level, &'static str) {
    match event {
        Event::Activated { .. } => (Level::Info, "checker_activated"),
        Event::ProbeFailed { .. } => (Level::Warning, "probe_failed"),
        Event::CheckerUp { .. } => (Level::Info, "checker_up"),
        Event::CheckerDown { .. } => (Level::Warning, "checker_down"),
        Event::RealUp { .. } => (Level::Notice, "real_server_up"),
        Event::RealDown { .. } => (Level::Warning, "real_server_down"),
        Event::Weight { .. } => (Level::Notice, "weight_changed"),
        Event::Quorum { change, .. } => match change {
            QuorumChange::Gained => (Level::Notice, "quorum_gained"),
            QuorumChange::Lost => (Level::Warning, "quorum_lost"),
            QuorumChange::StartedWithout => (Level::Warning, "quorum_missing"),
        },
        Event::Sorry { active: true, .. } => (Level::Warning, "sorry_server_added"),
        Event::Sorry { active: false, .. } => (Level::Notice, "sorry_server_removed"),
        Event::AliveMoved { .. } => (Level::Info, "alive_moved"),
        Event::ProbeDeferred { .. } => (Level::Error, "probe_deferred"),
        Event::ProbesPaused => (Level::Error, "probes_paused"),
        Event::ProbesResumed { .. } => (Level::Notice, "probes_resumed"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use serde_json::json;

    use super::*;
    use crate::{
        addr::{Endpoint, L4Proto},
        check::Member,
        lvs::{RealId, ServiceId},
    };

    #[test]
    fn a_real_server_that_leaves_has_level_names_and_state() {
        let (mut log, kept) = Log::kept();
        let name = |last, port| ServiceName {
            endpoint: Endpoint::new(Ipv4Addr::new(10, 0, 0, last).into(), port),
            protocol: L4Proto::Tcp,
        };
        let event = Event::RealDown {
            real: Member {
                vs: ServiceId(0),
                real: RealId(0),
            },
            name: name(11, 8080),
            vs: name(1, 80),
            inhibit: false,
        };
        tell(&mut log, (Instant::ZERO, SystemTime::UNIX_EPOCH), &event);
        let wanted = json!({
            "time": "1970-01-01T00:00:00.000Z",
            "level": "warning",
            "room": "checks",
            "message": "Removing service [10.0.0.11]:tcp:8080 from VS [10.0.0.1]:tcp:80",
            "event": "real_server_down",
            "real_server": "[10.0.0.11]:tcp:8080",
            "virtual_server": "[10.0.0.1]:tcp:80",
            "state": "down",
        });
        assert_eq!(kept.lines(), [wanted]);
    }
}
