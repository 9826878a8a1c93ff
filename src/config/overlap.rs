//! Whether two virtual servers want the same packets.

use std::{collections::HashMap, net::IpAddr};

use super::{
    diagnostic::{Draft, Drafts},
    model::{Match, VirtualServer},
    source::Span,
};
use crate::addr::L4Proto;

/// A match of the virtual server with this index, as what it covers.
struct Interval {
    /// Intervals can only overlap within the same protocol and port.
    space: (L4Proto, u16),
    first: IpAddr,
    last: IpAddr,
    owner: usize,
    one: Match,
}

/// Reports virtual servers that take what an earlier one takes already, each once. One that says the same of the same
/// real servers is dropped: in IPVS it is that earlier one. Where they differ, IPVS has the real servers of both in
/// one, each set up as the first that names it.
pub(super) fn conflicts(servers: &mut Vec<(Span, VirtualServer)>, drafts: &mut Drafts) {
    let reported = reported(servers, drafts);
    let mut index = 0;
    servers.retain(|_| {
        index += 1;
        reported.get(&(index - 1)) != Some(&Verdict::Repeated)
    });
}

/// What becomes of a virtual server that takes what an earlier one takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It says what the earlier one says.
    Repeated,
    Conflicting,
}

/// The virtual servers that are reported.
fn reported(servers: &[(Span, VirtualServer)], drafts: &mut Drafts) -> HashMap<usize, Verdict> {
    let mut reported = HashMap::new();
    let mut report = |first: usize, second: usize, one: Match, other: Match| {
        let (first, second) = (first.min(second), first.max(second));
        if first == second || reported.contains_key(&second) {
            return;
        }
        let (span, server) = &servers[second];
        let earlier = &servers[first].1;
        let name = server.name();
        if server.matches == earlier.matches
            && (&server.real_servers, &server.sorry_server)
                == (&earlier.real_servers, &earlier.sorry_server)
        {
            reported.insert(second, Verdict::Repeated);
            let message = format!("a second virtual_server {name}: the first one counts");
            drafts.push(Draft::warning(*span, message));
            return;
        }
        reported.insert(second, Verdict::Conflicting);
        let mut draft = if one == other && earlier.name() == name {
            let message = format!("a second virtual_server {name}, with other real servers");
            Draft::error(*span, message).hint("put all of them into the first")
        } else {
            let earlier = earlier.name();
            let message =
                format!("virtual_server {name} takes what virtual_server {earlier} takes already");
            Draft::error(*span, message)
        };
        if one != other {
            draft = draft.hint(format!("{one} and {other} overlap"));
        }
        drafts.push(draft);
    };
    let mut marks = HashMap::new();
    let mut intervals = Vec::new();
    for (owner, (_, server)) in servers.iter().enumerate() {
        for one in &server.matches {
            let (Some((first, last)), Some(port)) = (one.bounds(), one.port()) else {
                let earlier = *marks.entry(*one).or_insert(owner);
                report(earlier, owner, *one, *one);
                continue;
            };
            intervals.push(Interval {
                space: (server.protocol, port),
                first,
                last,
                owner,
                one: *one,
            });
        }
    }
    intervals.sort_by_key(|interval| (interval.space, interval.first, interval.owner));
    // The interval so far that reaches furthest. Addresses of IPv4 sort below those of IPv6.
    let mut furthest: Option<&Interval> = None;
    for interval in &intervals {
        if let Some(earlier) = furthest.filter(|earlier| earlier.space == interval.space)
            && earlier.last >= interval.first
        {
            report(earlier.owner, interval.owner, earlier.one, interval.one);
            if earlier.last >= interval.last {
                continue;
            }
        }
        furthest = Some(interval);
    }
    reported
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::config::parse;

    /// Entries among few addresses, so that they meet, some of them within others.
    fn entry() -> impl Strategy<Value = (u8, u8, u16)> {
        (0..24_u8, prop_oneof![0..2_u8, 4..16_u8], 80..82_u16)
    }

    #[test]
    fn what_is_within_another_entry_of_the_group_hides_nothing() {
        let (wide, within, beyond) = ("10.0.0.1-20 80", "10.0.0.2 80", "10.0.0.9 80");
        let text: String = [("A", format!("{wide}\n{within}")), ("B", beyond.to_owned())]
            .iter()
            .map(|(name, entries)| {
                format!(
                    "virtual_server_group {name} {{\n{entries}\n}}\nvirtual_server group {name} {{\n\
                     protocol TCP\nlb_algo rr\nlb_kind NAT\nreal_server 10.1.0.1 80 {{\n}}\n}}\n"
                )
            })
            .collect();
        let report = parse("f", text.as_bytes()).report();
        assert!(report.contains("group B takes what"), "{report}");
    }

    proptest! {
        #[test]
        fn an_overlap_is_found_exactly_when_an_address_is_in_two(
            groups in vec(vec(entry(), 1..5), 2..4)
        ) {
            let mut text = String::new();
            let mut owners: HashMap<(u8, u16), HashSet<usize>> = HashMap::new();
            for (number, group) in groups.iter().enumerate() {
                text += &format!("virtual_server_group G{number} {{\n");
                for (first, more, port) in group {
                    let last = first + more;
                    let range = if *more == 0 { String::new() } else { format!("-{last}") };
                    text += &format!("10.0.0.{first}{range} {port}\n");
                    for addr in *first..=last {
                        owners.entry((addr, *port)).or_default().insert(number);
                    }
                }
                text += &format!(
                    "}}\nvirtual_server group G{number} {{\nprotocol TCP\nlb_algo rr\nlb_kind NAT\n\
                     real_server 10.1.{number}.1 80 {{\n}}\n}}\n"
                );
            }
            let parsed = parse("f", text.as_bytes());
            let found = parsed.report().contains("takes already");
            let shared = owners.values().any(|owners| owners.len() > 1);
            prop_assert_eq!(found, shared, "{}\n{}", text, parsed.report());
            prop_assert_eq!(parsed.has_errors(), shared);
        }
    }
}
