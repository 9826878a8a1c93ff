//! `xvs vrrp`: one line an instance.

use std::fmt::Write as _;

use crate::control::api::InstanceStatus;

/// A table of the instances: who is what, since when, and with which addresses.
pub(super) fn render(instances: &[InstanceStatus]) -> String {
    let header = [
        "Instance",
        "Interface",
        "VRID",
        "State",
        "Prio",
        "Since",
        "Master",
        "Addresses",
    ];
    let rows: Vec<[String; 8]> = instances.iter().map(row).collect();
    let mut widths = header.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    write_row(&mut text, &widths, &header.map(str::to_owned));
    for row in &rows {
        write_row(&mut text, &widths, row);
    }
    for instance in instances {
        for problem in instance.reason.iter().chain(&instance.problems) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}: {problem}", instance.name);
        }
    }
    text
}

fn row(instance: &InstanceStatus) -> [String; 8] {
    [
        instance.name.clone(),
        instance.interface.clone(),
        instance.vrid.to_string(),
        instance.state.clone(),
        instance.priority.to_string(),
        format!("{} ({})", instance.since, elapsed(instance.for_seconds)),
        instance
            .master
            .map_or_else(|| "-".to_owned(), |master| master.to_string()),
        instance.addresses.join(" "),
    ]
}

/// A duration as people say it: `42s`, `3m07s`, `5h02m`, `12d04h`.
fn elapsed(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

fn write_row(text: &mut String, widths: &[usize], cells: &[String]) {
    let mut line = String::new();
    for (width, cell) in widths.iter().zip(cells) {
        // Writing to a String cannot fail.
        let _ = write!(line, "{cell:<width$}  ");
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_an_instance_under_aligned_headings() {
        let instance = InstanceStatus {
            name: "VI_1".into(),
            interface: "eth0".into(),
            vrid: 51,
            state: "MASTER".into(),
            reason: None,
            problems: vec!["adding 10.0.0.148/32 to eth0: Permission denied".into()],
            priority: 100,
            for_seconds: 187,
            since: "2026-11-23T17:00:00Z".into(),
            master: None,
            master_priority: 0,
            held: Vec::new(),
            addresses: vec!["10.0.0.148/32".into()],
            counters: Vec::new(),
        };
        let fault = InstanceStatus {
            name: "VI_2".into(),
            interface: "eth5".into(),
            state: "FAULT".into(),
            reason: Some("eth5 does not exist".into()),
            problems: Vec::new(),
            addresses: Vec::new(),
            ..instance.clone()
        };
        assert_eq!(
            render(&[instance, fault]),
            "Instance  Interface  VRID  State   Prio  Since                         Master  Addresses\n\
             VI_1      eth0       51    MASTER  100   2026-11-23T17:00:00Z (3m07s)  -       10.0.0.148/32\n\
             VI_2      eth5       51    FAULT   100   2026-11-23T17:00:00Z (3m07s)  -\n\
             VI_1: adding 10.0.0.148/32 to eth0: Permission denied\n\
             VI_2: eth5 does not exist\n"
        );
    }

    #[test]
    fn durations_are_short_and_exact() {
        let shown = [0, 59, 60, 3_599, 3_600, 86_399, 86_400].map(elapsed);
        assert_eq!(
            shown,
            ["0s", "59s", "1m00s", "59m59s", "1h00m", "23h59m", "1d00h"]
        );
    }
}
