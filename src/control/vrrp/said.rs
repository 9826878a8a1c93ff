//! How much what instances say matters, and what of it programs want to know.

use std::fmt::Display;

use super::Env;
use crate::{
    control::log::{About, Kind, Level, Room},
    vrrp::{Event, LogLine},
};

impl<H> Env<'_, H> {
    /// Says something in the room's name.
    #[track_caller]
    pub(super) fn say(&mut self, level: Level, text: impl Display) {
        let at = (self.now, self.wall);
        self.log.say(at, Room::Vrrp, level, text);
    }

    /// Says what an instance has to say.
    pub(super) fn tell(&mut self, line: &LogLine) {
        let Said { level, name, state } = said(&line.event);
        let kind = if is_counted(&line.event) {
            Kind::Event(name)
        } else {
            Kind::Single
        };
        let fields: [(&'static str, &dyn Display); 3] = [
            ("event", &name),
            ("instance", &line.name),
            ("state", &state.unwrap_or_default()),
        ];
        let about = About {
            level,
            room: Room::Vrrp,
            kind,
            fields: &fields[..if state.is_some() { 3 } else { 2 }],
        };
        self.log.tell((self.now, self.wall), &about, line);
    }
}

struct Said {
    level: Level,
    name: &'static str,
    /// The state that was entered.
    state: Option<&'static str>,
}

/// Whether many events of its kind are counted instead of said: never those that changes of state consist of.
const fn is_counted(event: &Event) -> bool {
    match event {
        Event::StartupDelay(_)
        | Event::EnteringBackupInit
        | Event::EnteringBackup
        | Event::EnteringMaster
        | Event::EnteringFault { .. }
        | Event::SettingAddresses
        | Event::RemovingAddresses
        | Event::AdvertTimeout
        | Event::SentPriorityZero
        | Event::BackupReceivedPriorityZero
        | Event::MasterReceivedPriorityZero
        | Event::HigherPriority { .. }
        | Event::HigherAddress { .. }
        | Event::PreemptDelayStarted(_)
        | Event::PreemptDelayStopped
        | Event::PriorityChanged { .. } => false,
        Event::LowerPriority { .. }
        | Event::Discarding { .. }
        | Event::OwnerConflict { .. }
        | Event::AddressCount { .. }
        | Event::AddressMissing { .. }
        | Event::LateAdvert(_)
        | Event::Rejected { .. }
        | Event::FurtherSendersNotLogged => true,
    }
}

const fn said(event: &Event) -> Said {
    let (level, name, state) = match event {
        Event::EnteringBackupInit | Event::EnteringBackup => {
            (Level::Notice, "entering_backup", Some("BACKUP"))
        }
        Event::EnteringMaster => (Level::Notice, "entering_master", Some("MASTER")),
        Event::EnteringFault { .. } => (Level::Warning, "entering_fault", Some("FAULT")),
        Event::StartupDelay(_) => (Level::Info, "startup_delay", None),
        Event::SettingAddresses => (Level::Info, "setting_addresses", None),
        Event::RemovingAddresses => (Level::Info, "removing_addresses", None),
        Event::AdvertTimeout => (Level::Info, "advert_timeout", None),
        Event::SentPriorityZero => (Level::Info, "sent_priority_zero", None),
        Event::BackupReceivedPriorityZero | Event::MasterReceivedPriorityZero => {
            (Level::Info, "received_priority_zero", None)
        }
        Event::HigherPriority { .. } => (Level::Notice, "higher_priority", None),
        Event::HigherAddress { .. } => (Level::Notice, "higher_address", None),
        Event::LowerPriority { .. } => (Level::Notice, "lower_priority", None),
        Event::Discarding { .. } => (Level::Info, "discarding", None),
        Event::PreemptDelayStarted(_) => (Level::Info, "preempt_delay_started", None),
        Event::PreemptDelayStopped => (Level::Info, "preempt_delay_stopped", None),
        Event::PriorityChanged { .. } => (Level::Notice, "priority_changed", None),
        Event::OwnerConflict { .. } => (Level::Error, "owner_conflict", None),
        Event::AddressCount { .. } => (Level::Warning, "address_count", None),
        Event::AddressMissing { .. } => (Level::Warning, "address_missing", None),
        Event::LateAdvert(_) => (Level::Warning, "late_advert", None),
        Event::Rejected { .. } => (Level::Warning, "advert_rejected", None),
        Event::FurtherSendersNotLogged => (Level::Warning, "further_senders", None),
    };
    Said { level, name, state }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::SystemTime};

    use serde_json::json;

    use super::*;
    use crate::{control::log::Log, time::Instant, vrrp::RejectReason};

    fn tell(events: impl IntoIterator<Item = Event>) -> Vec<serde_json::Value> {
        let (mut log, kept) = Log::kept();
        let mut env = Env {
            now: Instant::ZERO,
            wall: SystemTime::UNIX_EPOCH,
            host: &mut (),
            log: &mut log,
        };
        for event in events {
            let name = "VI_1".into();
            env.tell(&LogLine { name, event });
        }
        kept.lines()
    }

    #[test]
    fn a_change_of_state_has_level_instance_and_state() {
        let line = &tell([Event::EnteringMaster])[0];
        let wanted = json!({
            "time": "1970-01-01T00:00:00.000Z",
            "level": "notice",
            "room": "vrrp",
            "message": "(VI_1) Entering MASTER STATE",
            "event": "entering_master",
            "instance": "VI_1",
            "state": "MASTER",
        });
        assert_eq!(*line, wanted);
        let line = &tell([Event::SettingAddresses])[0];
        assert_eq!(line["level"], "info");
        assert_eq!(line.get("state"), None);
    }

    #[test]
    fn changes_of_state_are_all_said_and_refused_adverts_are_counted() {
        let changes = [
            Event::AdvertTimeout,
            Event::EnteringMaster,
            Event::SettingAddresses,
            Event::EnteringBackup,
        ];
        let all = changes.iter().cycle().take(4_000).cloned();
        assert_eq!(tell(all).len(), 4_000);
        let refused = Event::Rejected {
            reason: RejectReason::Password,
            from: Ipv4Addr::LOCALHOST,
            received: 0,
            expected: 0,
        };
        let lines = tell(std::iter::repeat_n(refused, 4_000));
        assert_eq!(lines.len(), 100);
        assert_eq!(lines[0]["level"], "warning");
    }
}
