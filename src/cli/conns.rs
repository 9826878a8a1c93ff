//! `xvs list --conns`: the text that `ipvsadm -Lnc` prints, column for column.

use std::fmt::Write as _;

use crate::control::api::{ConnectionList, ConnectionStatus};

/// Brings connections into the order of their virtual servers and clients. One that was found twice, as it moved
/// in its worker's table, is there once, and counts once.
pub(super) fn sort(found: &mut ConnectionList) {
    let connections = &mut found.connections;
    let before = connections.len();
    // Sorted by what makes a connection, so that such a pair is side by side.
    connections.sort_by(|a, b| key(a).cmp(&key(b)));
    connections.dedup_by(|a, b| key(a) == key(b));
    found.matching -= (before - connections.len()) as u64;
}

fn key(it: &ConnectionStatus) -> impl Ord + '_ {
    (&it.protocol, it.virtual_server, it.client, it.worker)
}

/// Formats the connections.
pub(super) fn render(connections: &[ConnectionStatus]) -> String {
    let mut text = "IPVS connection entries\n\
         pro expire state       source             virtual            destination\n"
        .to_owned();
    for it in connections {
        let seconds = it.expires_ms / 1000;
        let (minutes, seconds) = (seconds / 60, seconds % 60);
        let [protocol, state] = [&it.protocol, &it.state];
        let [client, vip] = [it.client, it.virtual_server].map(|it| it.to_string());
        let real = it
            .real_server
            .map_or_else(|| "-".to_owned(), |real| real.to_string());
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{protocol:<3} {minutes:02}:{seconds:02}  {state:<11} {client:<18} {vip:<18} {real}"
        );
    }
    text
}

/// What is to be known beside the connections themselves, for standard error; empty when they are all.
pub(super) fn remarks(found: &ConnectionList) -> String {
    let mut text = String::new();
    let shown = found.connections.len() as u64;
    let matching = found.matching;
    // Writing to a String cannot fail.
    if shown < matching {
        let _ = writeln!(text, "xvs: {shown} of {matching} connections; see --limit");
    }
    if !found.late_workers.is_empty() {
        let late: Vec<_> = found.late_workers.iter().map(ToString::to_string).collect();
        let _ = writeln!(
            text,
            "xvs: not all connections of worker {} were looked at in time",
            late.join(", ")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> ConnectionStatus {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [protocol, expire, state, client, vip, real] = words[..] else {
            panic!("{line:?}");
        };
        let (minutes, seconds) = expire.split_once(':').unwrap();
        let [minutes, seconds] = [minutes, seconds].map(|it| it.parse::<u64>().unwrap());
        ConnectionStatus {
            protocol: protocol.into(),
            expires_ms: (minutes * 60 + seconds) * 1000 + 999,
            state: state.into(),
            client: client.parse().unwrap(),
            virtual_server: vip.parse().unwrap(),
            real_server: Some(real.parse().unwrap()),
            worker: 0,
        }
    }

    /// Recorded with connections by NAT and DR, of both families, UDP, and templates, two of them for marks.
    #[test]
    fn the_layout_is_ipvsadms() {
        let expected = include_str!("testdata/ipvsadm-conns.txt");
        let lines = expected.lines().skip(2);
        let connections: Vec<_> = lines.map(parse).collect();
        assert!(connections.len() > 9);
        assert_eq!(render(&connections), expected);
    }

    #[test]
    fn what_ipvsadm_does_not_know_fits_in() {
        let connection = ConnectionStatus {
            expires_ms: 100 * 60_000,
            real_server: None,
            ..parse("SCTP 00:00 C-REPLIED 10.0.0.1:5000 10.0.0.9:80 10.0.1.1:80")
        };
        let shown = render(&[connection]);
        let line = shown.lines().nth(2).unwrap();
        assert_eq!(
            line,
            "SCTP 100:00  C-REPLIED   10.0.0.1:5000      10.0.0.9:80        -"
        );
    }

    #[test]
    fn connections_are_in_order_and_each_is_there_once() {
        let line = |client: &str| {
            parse(&format!(
                "TCP 01:00 NONE {client}:0 10.0.0.9:80 10.0.1.1:80"
            ))
        };
        let elsewhere = ConnectionStatus {
            worker: 1,
            ..line("10.0.0.1")
        };
        let later = ConnectionStatus {
            expires_ms: 5,
            ..line("10.0.0.1")
        };
        let mut found = ConnectionList {
            matching: 8,
            late_workers: Vec::new(),
            connections: vec![line("10.0.0.2"), elsewhere, line("10.0.0.1"), later],
        };
        sort(&mut found);
        assert_eq!(found.matching, 7);
        let all = found.connections;
        let order: Vec<_> = all
            .iter()
            .map(|it| (it.client.to_string(), it.worker))
            .collect();
        let expected = [("10.0.0.1:0", 0), ("10.0.0.1:0", 1), ("10.0.0.2:0", 0)];
        assert_eq!(
            order,
            expected.map(|(client, worker)| (client.to_owned(), worker))
        );
    }

    #[test]
    fn it_is_said_when_connections_are_missing() {
        let mut found = ConnectionList {
            matching: 1,
            late_workers: Vec::new(),
            connections: vec![parse("TCP 01:00 NONE 10.0.0.1:0 10.0.0.9:80 10.0.1.1:80")],
        };
        assert_eq!(remarks(&found), "");
        found.matching = 7;
        found.late_workers = vec![0, 2];
        assert_eq!(
            remarks(&found),
            "xvs: 1 of 7 connections; see --limit\n\
             xvs: not all connections of worker 0, 2 were looked at in time\n"
        );
    }
}
