//! `xvs list --conns`: asks the workers, and puts together what they say.

use std::{net::SocketAddr, time::Duration};

use super::{
    super::api::{ConnectionQuery, ConnectionStatus, DEFAULT_CONNECTIONS, MAX_CONNECTIONS},
    Pieces, Ticket,
};
use crate::{
    addr::{Endpoint, L4Proto},
    balance::{ConnEntry, ConnFilter, Listing},
    dataplane::enquiry::{Asking, Enquiry},
    stats::AllStats,
    time::Instant,
};

/// How long workers look. Busy ones with millions of connections may not come to the end by then.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long after that one that does not say anything is given up.
const GRACE: Duration = Duration::from_millis(250);
/// Connections that may come up after the room for them was made.
const SPARE: u64 = 256;
/// Connections in a piece of an answer: some 50 kB, made in well under a millisecond.
const PIECE: usize = 256;

/// The word for what is of no protocol: templates for a firewall mark.
const NO_PROTOCOL: &str = "IP";

/// Questions that are being answered.
#[derive(Debug, Default)]
pub(in crate::control) struct Enquiries {
    next: u64,
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    id: u64,
    ticket: Ticket,
    limit: usize,
    /// When it is answered with what there is.
    due: Instant,
    /// From each worker.
    answers: Vec<Option<Box<Enquiry>>>,
}

impl Enquiries {
    /// Asks all workers, who must be woken then.
    ///
    /// # Errors
    /// What is wrong with the query, or that too many are being answered.
    pub(in crate::control) fn begin(
        &mut self,
        now: Instant,
        ticket: Ticket,
        query: &ConnectionQuery,
        (workers, stats): (&mut [Asking], AllStats<'_>),
    ) -> Result<(), String> {
        let filter = filter(query)?;
        let limit = query.limit.unwrap_or(DEFAULT_CONNECTIONS);
        if limit > MAX_CONNECTIONS {
            return Err(format!("a limit above {MAX_CONNECTIONS} is not possible"));
        }
        if !workers.iter().all(Asking::has_room) {
            return Err("too many are asking for connections at once".to_owned());
        }
        let limit = limit as usize;
        let id = self.next;
        self.next += 1;
        for (worker, stats) in workers.iter_mut().zip(stats.workers()) {
            let there = stats.connections.get() + stats.templates.get() + SPARE;
            let room = usize::try_from(there).map_or(limit, |there| there.min(limit));
            // It has room.
            let _ = worker.ask(Box::new(Enquiry {
                id,
                until: now + PATIENCE,
                listing: Listing::new(filter, room),
                complete: false,
            }));
        }
        self.open.push(Open {
            id,
            ticket,
            limit,
            due: now + PATIENCE + GRACE,
            answers: workers.iter().map(|_| None).collect(),
        });
        Ok(())
    }

    /// Takes what workers have answered. The next question that is answered, with its answer.
    pub(in crate::control) fn poll(
        &mut self,
        now: Instant,
        workers: &mut [Asking],
    ) -> Option<(Ticket, Pieces)> {
        for (number, worker) in workers.iter_mut().enumerate() {
            while let Some(enquiry) = worker.answered() {
                let open = self.open.iter_mut().find(|open| open.id == enquiry.id);
                // Nobody waits any more for one that comes late.
                let place = open.and_then(|open| open.answers.get_mut(number));
                if let Some(place) = place {
                    *place = Some(enquiry);
                }
            }
        }
        let known = |open: &Open| open.due <= now || open.answers.iter().all(Option::is_some);
        let at = self.open.iter().position(known)?;
        let open = self.open.remove(at);
        Some((open.ticket, open.pieces()))
    }

    /// When [`Self::poll`] has an answer even if no worker says anything.
    pub(in crate::control) fn poll_timeout(&self) -> Option<Instant> {
        self.open.iter().map(|open| open.due).min()
    }
}

impl Open {
    /// The answer as the control socket gives it: the JSON of [`Response::Connections`](crate::control::api::Response), in pieces.
    fn pieces(self) -> Pieces {
        let answers = self.answers;
        let found = answers.iter().flatten();
        let matching: u64 = found.map(|enquiry| enquiry.listing.matching()).sum();
        let is_late = |it: &Option<Box<Enquiry>>| !it.as_ref().is_some_and(|it| it.complete);
        let late = answers.iter().enumerate().filter(|(_, it)| is_late(it));
        let late: Vec<usize> = late.map(|(number, _)| number).collect();
        let head = format!(
            r#"{{"connections":{{"matching":{matching},"late_workers":{late:?},"connections":["#
        );
        let limit = self.limit;
        let mut given = 0;
        // The worker that is told of, and its entry.
        let (mut worker, mut at) = (0, 0);
        let entries = std::iter::from_fn(move || {
            let mut piece = String::new();
            let mut left = PIECE.min(limit - given);
            while left > 0
                && let Some(answer) = answers.get(worker)
            {
                let entries = answer.as_ref().map_or(&[][..], |it| it.listing.entries());
                let Some(entry) = entries.get(at) else {
                    (worker, at) = (worker + 1, 0);
                    continue;
                };
                let separator = if given == 0 { "" } else { "," };
                piece += separator;
                // It has nothing that JSON could not say.
                piece += &serde_json::to_string(&status(entry, worker)).unwrap_or_default();
                (at, given, left) = (at + 1, given + 1, left - 1);
            }
            (!piece.is_empty()).then(|| piece.into_bytes())
        });
        let head = std::iter::once(head.into_bytes());
        let tail = std::iter::once(b"]}}\n".to_vec());
        Box::new(head.chain(entries).chain(tail))
    }
}

fn filter(query: &ConnectionQuery) -> Result<ConnFilter, String> {
    let client = query.client.as_deref().map(|text| {
        let prefix = text.parse();
        prefix.map_err(|why| format!("client {text}: {why}"))
    });
    let state = query.state.as_deref().map(|name| {
        ConnFilter::state_named(name).ok_or_else(|| format!("there is no state {name}"))
    });
    let protocol = query.protocol.as_deref().map(|name| {
        let all = [L4Proto::Tcp, L4Proto::Udp, L4Proto::Sctp];
        let known = all.iter().find(|it| it.name().eq_ignore_ascii_case(name));
        match known {
            Some(protocol) => Ok(protocol.number()),
            None if name.eq_ignore_ascii_case(NO_PROTOCOL) => Ok(0),
            None => Err(format!("{name} is not TCP, UDP, SCTP or IP")),
        }
    });
    Ok(ConnFilter {
        client: client.transpose()?,
        vip: query.vip,
        vport: query.vport,
        real: query.real,
        state: state.transpose()?,
        protocol: protocol.transpose()?,
    })
}

fn status(entry: &ConnEntry, worker: usize) -> ConnectionStatus {
    let socket = |it: Endpoint| SocketAddr::new(it.addr, it.port);
    let protocol = L4Proto::from_number(entry.protocol);
    ConnectionStatus {
        protocol: protocol.map_or_else(|| NO_PROTOCOL.to_owned(), |it| it.to_string()),
        expires_ms: u64::try_from(entry.remaining.as_millis()).unwrap_or(u64::MAX),
        state: entry.state.to_owned(),
        client: socket(entry.client),
        virtual_server: socket(entry.vip),
        real_server: entry.real.map(socket),
        worker,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control::api::{ConnectionList, Response},
        dataplane::enquiry::tests::{Lab, VIP},
    };

    const TICKET: Ticket = Ticket::new(3, 4);

    /// Workers with connections, the first with as many as are said first, and control.
    struct Control {
        lab: Lab,
        enquiries: Enquiries,
    }

    impl Control {
        fn new(connections: &[u16]) -> Self {
            let mut lab = Lab::new(connections.len());
            for (worker, count) in connections.iter().enumerate() {
                for n in 0..*count {
                    let client = format!("10.9.{worker}.1:{}", 1024 + n);
                    lab.send(worker, L4Proto::Tcp, &client, (VIP, 80));
                }
            }
            Self {
                lab,
                enquiries: Enquiries::default(),
            }
        }

        fn begin(&mut self, query: &ConnectionQuery) -> Result<(), String> {
            let workers = self.lab.publisher.enquiries();
            let workers = (workers, AllStats::new(&self.lab.stats, None));
            self.enquiries.begin(self.lab.now, TICKET, query, workers)
        }

        /// A worker looks at all that it has.
        fn work(&mut self, worker: usize) {
            for _ in 0..100 {
                self.lab.workers[worker].turn(self.lab.now);
            }
        }

        /// The answer, if it is there after so much time.
        fn poll(&mut self, after: Duration) -> Option<ConnectionList> {
            let workers = self.lab.publisher.enquiries();
            let (ticket, pieces) = self.enquiries.poll(self.lab.now + after, workers)?;
            assert_eq!(ticket, TICKET);
            let text: Vec<u8> = pieces.flatten().collect();
            assert_eq!(text.last(), Some(&b'\n'));
            match serde_json::from_slice(&text) {
                Ok(Response::Connections(found)) => Some(found),
                other => panic!("{other:?}"),
            }
        }

        /// The answer of all workers.
        fn found(&mut self, query: &ConnectionQuery) -> ConnectionList {
            self.begin(query).unwrap();
            for worker in 0..self.lab.workers.len() {
                assert!(self.poll(Duration::ZERO).is_none(), "not all have answered");
                self.work(worker);
            }
            self.poll(Duration::ZERO).unwrap()
        }
    }

    fn limit(limit: u32) -> ConnectionQuery {
        ConnectionQuery {
            limit: Some(limit),
            ..ConnectionQuery::default()
        }
    }

    #[test]
    fn all_workers_connections_are_in_one_answer() {
        let mut control = Control::new(&[600, 0, 3]);
        let found = control.found(&ConnectionQuery::default());
        assert_eq!((found.matching, &found.late_workers[..]), (603, &[][..]));
        let of = |worker| {
            let own = found
                .connections
                .iter()
                .filter(move |it| it.worker == worker);
            own.map(|it| it.client.to_string())
                .collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!([0, 1, 2].map(|worker| of(worker).len()), [600, 0, 3]);
        let first = &found.connections[0];
        assert_eq!((&first.protocol[..], &first.state[..]), ("TCP", "SYN_RECV"));
        assert_eq!(first.expires_ms, 60_000);
        assert_eq!(first.virtual_server.to_string(), "10.1.0.100:80");
        assert!(
            first
                .real_server
                .unwrap()
                .to_string()
                .starts_with("10.2.0.1")
        );
        assert_eq!(control.enquiries.poll_timeout(), None);
    }

    #[test]
    fn a_limit_holds_for_all_workers_together() {
        let mut control = Control::new(&[300, 400]);
        for (wanted, given) in [(0, 0), (1, 1), (PIECE, PIECE), (450, 450), (5000, 700)] {
            let found = control.found(&limit(u32::try_from(wanted).unwrap()));
            assert_eq!((found.connections.len(), found.matching), (given, 700));
        }
        assert!(control.begin(&limit(MAX_CONNECTIONS + 1)).is_err());
    }

    #[test]
    fn a_query_says_what_is_wanted() {
        let mut control = Control::new(&[20, 20]);
        let json = r#"{"client":"10.9.1.0/24","vip":"10.1.0.100","vport":80,"real":"10.2.0.12",
            "state":"syn_recv","protocol":"tcp"}"#;
        let query: ConnectionQuery = serde_json::from_str(json).unwrap();
        assert_eq!(control.found(&query).connections.len(), 10);
        let none = ConnectionQuery::default;
        let ip = ConnectionQuery {
            protocol: Some("IP".into()),
            ..none()
        };
        assert_eq!(control.found(&ip).matching, 0);
        for (wrong, named) in [
            (
                ConnectionQuery {
                    client: Some("10.0.0.0/33".into()),
                    ..none()
                },
                "10.0.0.0/33",
            ),
            (
                ConnectionQuery {
                    state: Some("OPEN".into()),
                    ..none()
                },
                "OPEN",
            ),
            (
                ConnectionQuery {
                    protocol: Some("icmp".into()),
                    ..none()
                },
                "icmp",
            ),
        ] {
            let refused = control.begin(&wrong).unwrap_err();
            assert!(refused.contains(named), "{refused}");
        }
    }

    #[test]
    fn what_a_silent_worker_has_is_said_to_be_missing() {
        let mut control = Control::new(&[1, 2]);
        control.begin(&ConnectionQuery::default()).unwrap();
        control.work(1);
        assert_eq!(control.poll(PATIENCE), None);
        let due = control.enquiries.poll_timeout().unwrap() - control.lab.now;
        assert_eq!(due, PATIENCE + GRACE);
        let found = control.poll(due).unwrap();
        assert_eq!(
            (found.connections.len(), &found.late_workers[..]),
            (2, &[0][..])
        );
        // What it says when nobody waits any more disturbs nobody.
        control.work(0);
        assert_eq!(
            control.found(&ConnectionQuery::default()).connections.len(),
            3
        );
    }

    #[test]
    fn too_many_questions_at_once_are_refused() {
        let mut control = Control::new(&[1]);
        while control.begin(&ConnectionQuery::default()).is_ok() {}
        control.work(0);
        while control.poll(Duration::ZERO).is_some() {}
        assert_eq!(
            control.found(&ConnectionQuery::default()).connections.len(),
            1
        );
    }
}
