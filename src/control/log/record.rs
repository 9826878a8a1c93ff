//! A line before it is written, and the forms in which it is.

use std::{
    fmt::{self, Display, Write as _},
    time::SystemTime,
};

use super::options::{Facility, Ident, Level};
use crate::sys::{clock, log_output::MAX_LINE};

/// Longest text of a line, in bytes; more is cut off. Leaves room for what stands before it.
const MAX_TEXT: usize = MAX_LINE - 256;
/// Longest value of a field, in bytes.
const MAX_FIELD: usize = 256;
/// Longest JSON object, in bytes: the level for the journal is before it, and a line feed before and behind.
const MAX_JSON: usize = MAX_LINE - 8;
/// Names of months in syslog's time stamps (RFC 3164, section 4.1.2), in every language.
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// The part of the control thread that says a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control) enum Room {
    /// Starting, stopping, reloading, the control socket, the kernel's view.
    Control,
    /// Elections and virtual addresses.
    Vrrp,
    /// Health checks and pools.
    Checks,
    /// The data plane and what leads to real servers.
    Forwarding,
}

impl Room {
    const fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Vrrp => "vrrp",
            Self::Checks => "checks",
            Self::Forwarding => "forwarding",
        }
    }
}

impl Ident {
    /// The name that lines of `room` go under.
    pub(super) fn of(&self, room: Room) -> String {
        match self {
            Self::Xvs => "xvs".to_owned(),
            Self::Keepalived { suffix } => {
                let part = match room {
                    Room::Control => "",
                    Room::Vrrp => "_vrrp",
                    Room::Checks | Room::Forwarding => "_healthcheckers",
                };
                format!("Keepalived{part}{suffix}")
            }
        }
    }
}

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    wall: SystemTime,
    pub(super) level: Level,
    pub(super) room: Room,
    text: String,
    fields: Vec<(&'static str, String)>,
    /// So many more like it are not said.
    more: u64,
}

impl Record {
    /// What stands in `text`, in one line: characters that control terminals are spelt out.
    pub(super) fn new(
        wall: SystemTime,
        (level, room): (Level, Room),
        text: &dyn Display,
        fields: &[(&'static str, &dyn Display)],
    ) -> Self {
        let fields = fields
            .iter()
            .map(|(name, value)| (*name, one_line(value, MAX_FIELD)))
            .collect();
        Self {
            wall,
            level,
            room,
            text: one_line(text, MAX_TEXT),
            fields,
            more: 0,
        }
    }

    /// Counts what is like it, in so many seconds.
    pub(super) fn and_more(&mut self, wall: SystemTime, more: u64, seconds: u64) {
        self.wall = wall;
        self.more = more;
        if more > 0 {
            let count = with_commas(more);
            // Writing to a String cannot fail.
            let _ = write!(self.text, " ({count} more like this in {seconds} s)");
        }
    }

    /// The text behind the time of day, if somebody reads it who does not stamp lines.
    pub(super) fn plain(&self, stamped: bool) -> String {
        if stamped {
            format!("{} {}", self.stamp(), self.text)
        } else {
            self.text.clone()
        }
    }

    /// An object, for programs.
    pub(super) fn json(&self) -> String {
        let mut text = self.text.as_str();
        loop {
            let object = self.json_saying(text);
            let excess = object.len().saturating_sub(MAX_JSON);
            if excess == 0 || text.is_empty() {
                return object;
            }
            // A byte of the text is one of the object, or two.
            let end = text.len().saturating_sub(excess / 2 + 1);
            text = &text[..text.floor_char_boundary(end)];
        }
    }

    fn json_saying(&self, text: &str) -> String {
        let mut object = format!(
            "{{\"time\":\"{}\",\"level\":\"{}\",\"room\":\"{}\",\"message\":{}",
            self.stamp(),
            self.level,
            self.room.name(),
            quoted(text)
        );
        for (name, value) in &self.fields {
            let _ = write!(object, ",\"{name}\":{}", quoted(value));
        }
        if self.more > 0 {
            let _ = write!(object, ",\"more\":{}", self.more);
        }
        object.push('}');
        object
    }

    /// A message for the syslog daemon, as the C library's `syslog` writes it with `LOG_PID`.
    pub(super) fn syslog(
        &self,
        facility: Facility,
        ident: &Ident,
        process: u32,
        json: bool,
    ) -> String {
        let priority = (facility.code() << 3) | self.level.severity();
        let time = clock::local(self.wall);
        let month = MONTHS.get(time.month as usize).copied().unwrap_or("Jan");
        let text = if json { self.json() } else { self.plain(false) };
        format!(
            "<{priority}>{month} {:2} {:02}:{:02}:{:02} {}[{process}]: {text}",
            time.day,
            time.hour,
            time.minute,
            time.second,
            ident.of(self.room)
        )
    }

    /// A message in the journal's own protocol. No value has a line feed in it.
    pub(super) fn journal(&self, facility: Facility, ident: &Ident, process: u32) -> String {
        let mut message = format!(
            "MESSAGE={}\nPRIORITY={}\nSYSLOG_FACILITY={}\nSYSLOG_IDENTIFIER={}\nSYSLOG_PID={process}\nXVS_ROOM={}\n",
            self.text,
            self.level.severity(),
            facility.code(),
            ident.of(self.room),
            self.room.name()
        );
        for (name, value) in &self.fields {
            let _ = writeln!(message, "XVS_{}={value}", name.to_ascii_uppercase());
        }
        if self.more > 0 {
            let _ = writeln!(message, "XVS_MORE={}", self.more);
        }
        message
    }

    fn stamp(&self) -> impl Display {
        humantime::format_rfc3339_millis(self.wall)
    }
}

/// The text with everything spelt out that would begin a line or move a cursor, and not too long.
fn one_line(text: &dyn Display, limit: usize) -> String {
    struct Line {
        text: String,
        limit: usize,
    }
    impl fmt::Write for Line {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for c in text.chars() {
                // An escape is ten characters at most.
                if self.text.len() + 10 > self.limit {
                    break;
                }
                if c.is_control() {
                    self.text.extend(c.escape_default());
                } else {
                    self.text.push(c);
                }
            }
            Ok(())
        }
    }
    let text_so_far = String::with_capacity(120);
    let mut line = Line {
        text: text_so_far,
        limit,
    };
    let _ = write!(line, "{text}");
    line.text
}

fn quoted(text: &str) -> String {
    // Strings always serialise.
    serde_json::to_string(text).unwrap_or_default()
}

fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn record() -> Record {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_827_845_250);
        let fields: [(&str, &dyn Display); 1] = [("instance", &"VI_1")];
        Record::new(
            wall,
            (Level::Notice, Room::Vrrp),
            &"(VI_1) Entering MASTER STATE",
            &fields,
        )
    }

    #[test]
    fn a_syslog_message_is_the_one_that_the_c_library_writes() {
        let ident = Ident::Keepalived {
            suffix: String::new(),
        };
        let local0 = "0".parse().unwrap();
        let message = record().syslog(local0, &ident, 42, false);
        // 16 * 8 + 5; the time is local.
        assert!(message.starts_with("<133>Nov "), "{message}");
        let (head, text) = message.split_once(" Keepalived_vrrp[42]: ").unwrap();
        assert_eq!(text, "(VI_1) Entering MASTER STATE");
        assert_eq!(head.len(), "<133>Nov 28 09:44:05".len(), "{head}");
        let own = record().syslog(Facility::Daemon, &Ident::Xvs, 42, true);
        assert!(own.starts_with("<29>"), "{own}");
        assert!(own.contains(" xvs[42]: {\"time\":"), "{own}");
    }

    #[test]
    fn names_are_keepalived_s_where_that_is_asked_for() {
        let ident = Ident::Keepalived {
            suffix: "_blue".to_owned(),
        };
        let name = |room| ident.of(room);
        assert_eq!(name(Room::Control), "Keepalived_blue");
        assert_eq!(name(Room::Vrrp), "Keepalived_vrrp_blue");
        for room in [Room::Checks, Room::Forwarding] {
            assert_eq!(name(room), "Keepalived_healthcheckers_blue");
        }
        assert_eq!(Ident::Xvs.of(Room::Vrrp), "xvs");
    }

    #[test]
    fn json_has_time_level_room_message_and_fields() {
        let mut record = record();
        record.text = "say \"hi\"".to_owned();
        let wall = record.wall;
        record.and_more(wall, 12_345, 10);
        let value: serde_json::Value = serde_json::from_str(&record.json()).unwrap();
        let wanted = serde_json::json!({
            "time": "2026-11-28T01:04:05.250Z",
            "level": "notice",
            "room": "vrrp",
            "message": "say \"hi\" (12,345 more like this in 10 s)",
            "instance": "VI_1",
            "more": 12_345,
        });
        assert_eq!(value, wanted);
    }

    #[test]
    fn the_journal_gets_fields_of_its_own_and_ours() {
        let message = record().journal(Facility::Daemon, &Ident::Xvs, 7);
        let lines: Vec<&str> = message.lines().collect();
        assert_eq!(
            lines,
            [
                "MESSAGE=(VI_1) Entering MASTER STATE",
                "PRIORITY=5",
                "SYSLOG_FACILITY=3",
                "SYSLOG_IDENTIFIER=xvs",
                "SYSLOG_PID=7",
                "XVS_ROOM=vrrp",
                "XVS_INSTANCE=VI_1",
            ]
        );
    }

    #[test]
    fn no_text_is_two_lines_or_endless() {
        let forged = "a\nPRIORITY=0\u{1b}[2J\u{85}ä";
        let record = Record::new(
            SystemTime::UNIX_EPOCH,
            (Level::Info, Room::Control),
            &forged,
            &[],
        );
        assert_eq!(record.text, r"a\nPRIORITY=0\u{1b}[2J\u{85}ä");
        for filling in ["ä", "\"", "\u{85}", "x"] {
            let fields: [(&str, &dyn Display); 1] = [("instance", &filling.repeat(MAX_LINE))];
            let long = filling.repeat(MAX_LINE);
            let about = (Level::Info, Room::Control);
            let record = Record::new(SystemTime::UNIX_EPOCH, about, &long, &fields);
            assert!(record.plain(true).len() < MAX_LINE, "{filling}");
            let json = record.json();
            assert!(json.len() <= MAX_JSON && json.len() > MAX_JSON / 2);
            serde_json::from_str::<serde_json::Value>(&json).unwrap();
        }
    }

    #[test]
    fn numbers_are_grouped() {
        let grouped = [0, 999, 1_000, 12_345, 1_234_567].map(with_commas);
        assert_eq!(grouped, ["0", "999", "1,000", "12,345", "1,234,567"]);
    }
}
