//! The table against a `HashMap` that keeps everything, and its promises when it is full.

use std::{collections::HashMap, num::NonZeroU32};

use proptest::prelude::*;

use super::*;
use crate::balance::RealId;

const REALS: u32 = 3;

fn key(flow: u32) -> Key4 {
    let [a, b, c, d] = flow.to_be_bytes();
    let client = ([10, a, b, c].into(), u16::from_be_bytes([4, d]));
    Key4::new(client, ([192, 0, 2, 1].into(), 80), 6)
}

fn real(id: u32) -> RealRef {
    RealRef {
        id: RealId(id),
        epoch: NonZeroU32::MIN,
    }
}

/// A table with its surroundings.
struct Bench {
    table: ConnTable<Key4>,
    stats: WorkerStats,
    timeouts: Timeouts,
    tick: Tick,
}

impl Bench {
    fn new(connections: usize) -> Self {
        Self {
            table: ConnTable::new(connections, 42),
            stats: WorkerStats::new(),
            timeouts: Timeouts::default(),
            tick: Tick::from_raw(u32::MAX - 50),
        }
    }

    fn insert(&mut self, flow: u32, state: State, template: Option<Slot>) -> Option<Slot> {
        let key = key(flow);
        let new = NewConn {
            key,
            candidates: self.table.candidates(&key),
            real: real(flow % REALS),
            state,
            template,
            guess: None,
        };
        self.table
            .insert(&new, turn(self.tick, &self.timeouts, &self.stats))
    }

    /// What a packet meets: expired entries are not there.
    fn live(&self, flow: u32) -> Option<Slot> {
        let key = key(flow);
        let slot = self.table.find(&key, self.table.candidates(&key))?;
        (!self.table.is_expired(slot, self.turn())).then_some(slot)
    }

    fn turn(&self) -> Turn<'_> {
        turn(self.tick, &self.timeouts, &self.stats)
    }

    fn advance(&mut self, seconds: u32) {
        self.tick = self.tick.plus_secs(seconds);
    }

    fn sweep(&mut self) {
        let turn = turn(self.tick, &self.timeouts, &self.stats);
        self.table.sweep(usize::MAX, turn);
    }

    /// Active and inactive connections of a real server, as counted.
    fn counts(&self, id: u32) -> (u64, u64) {
        let real = self.stats.real(id);
        (real.active.get(), real.inactive.get())
    }
}

fn turn<'a>(tick: Tick, timeouts: &'a Timeouts, stats: &'a WorkerStats) -> Turn<'a> {
    Turn {
        tick,
        timeouts,
        stats,
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// A packet of a flow, which brings it into a state.
    Packet(u32, State),
    Remove(u32),
    Advance(u32),
    Sweep,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let states = vec![
        State::SynRecv,
        State::Established,
        State::FinWait,
        State::Close,
    ];
    let op = prop_oneof![
        8 => (0_u32..60, prop::sample::select(states)).prop_map(|(f, s)| Op::Packet(f, s)),
        2 => (0_u32..60).prop_map(Op::Remove),
        2 => (1_u32..100).prop_map(Op::Advance),
        1 => Just(Op::Sweep),
    ];
    prop::collection::vec(op, 0..300)
}

/// A flow of one client endpoint to the virtual server with this number.
fn key_to(server: u32) -> Key4 {
    let [_, _, a, b] = server.to_be_bytes();
    Key4::new(([10, 0, 0, 1].into(), 4000), ([192, 0, a, b].into(), 80), 6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What one endpoint has to many virtual servers, with other flows around it: every one is found, in
    /// both directions, none makes another go, and afterwards nothing is looked for elsewhere.
    #[test]
    fn an_endpoint_has_its_connections_to_sixty_virtual_servers(
        flows in prop::collection::vec((0_u32..60, any::<bool>()), 0..300),
        others in 0_u32..2000,
        state in prop::sample::select(vec![State::SynRecv, State::Established, State::FinWait]),
    ) {
        let mut bench = Bench::new(20_000);
        for flow in 0..others {
            prop_assert!(bench.insert(flow, State::Established, None).is_some());
        }
        let mut model = HashMap::new();
        for (server, closes) in flows {
            let key = key_to(server);
            let candidates = bench.table.candidates(&key);
            let known = bench.table.find(&key, candidates);
            prop_assert_eq!(known.is_some(), model.contains_key(&server));
            let turn = turn(bench.tick, &bench.timeouts, &bench.stats);
            match known {
                Some(slot) if closes => {
                    bench.table.remove(slot, turn);
                    model.remove(&server);
                }
                Some(slot) => {
                    bench.table.touch(slot, state, turn);
                }
                None => {
                    let real = real(100 + server);
                    let new = NewConn { key, candidates, real, state, template: None, guess: None };
                    prop_assert!(bench.table.insert(&new, turn).is_some());
                    model.insert(server, real);
                }
            }
        }
        for (server, real) in &model {
            let key = key_to(*server);
            let slot = bench.table.find(&key, bench.table.candidates(&key)).unwrap();
            prop_assert_eq!((bench.table.key(slot), bench.table.real(slot)), (key, Some(*real)));
            // The answer of that real server, whose address the key does not have.
            let answer = key_to(9999);
            let candidates = bench.table.candidates(&answer);
            let turn = turn(bench.tick, &bench.timeouts, &bench.stats);
            let is_it = |it, vport| it == *real && vport == 80;
            let found = bench.table.find_answered(&answer, candidates, None, turn, is_it);
            prop_assert_eq!(found, Some(slot));
        }
        prop_assert_eq!(bench.table.len(), model.len() + others as usize);
        prop_assert_eq!(bench.stats.evicted.get(), 0);
        prop_assert!(model.len() <= 16 || bench.table.deepest > 0);
        bench.advance(1000);
        bench.sweep();
        prop_assert!(bench.table.is_empty());
        prop_assert_eq!((bench.table.deep, bench.table.deepest), (0, 0));
    }
}

#[test]
fn a_full_table_has_no_further_places() {
    let mut bench = Bench::new(400);
    for flow in 0..405 {
        assert!(bench.insert(flow, State::Established, None).is_some());
    }
    for server in 0..40 {
        let key = key_to(server);
        let candidates = bench.table.candidates(&key);
        let (real, state) = (real(1), State::Established);
        let new = NewConn {
            key,
            candidates,
            real,
            state,
            template: None,
            guess: None,
        };
        bench
            .table
            .insert(&new, turn(bench.tick, &bench.timeouts, &bench.stats));
    }
    assert_eq!((bench.table.deep, bench.table.deepest), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// With room to spare the table holds exactly what a map with timeouts would.
    #[test]
    fn it_is_a_map_with_timeouts(ops in ops()) {
        let mut bench = Bench::new(400);
        let mut model: HashMap<u32, (State, Tick)> = HashMap::new();
        for op in ops {
            match op {
                Op::Packet(flow, state) => {
                    match bench.live(flow) {
                        Some(slot) => {
                            let turn = turn(bench.tick, &bench.timeouts, &bench.stats);
                            bench.table.touch(slot, state, turn);
                        }
                        None => {
                            let key = key(flow);
                            if let Some(slot) = bench.table.find(&key, bench.table.candidates(&key)) {
                                let turn = turn(bench.tick, &bench.timeouts, &bench.stats);
                                bench.table.expire(slot, turn);
                            }
                            prop_assert!(bench.insert(flow, state, None).is_some());
                        }
                    }
                    model.insert(flow, (state, bench.tick));
                }
                Op::Remove(flow) => {
                    if let Some(slot) = bench.live(flow) {
                        let turn = turn(bench.tick, &bench.timeouts, &bench.stats);
                        bench.table.remove(slot, turn);
                    }
                    model.remove(&flow);
                }
                Op::Advance(seconds) => bench.advance(seconds),
                Op::Sweep => bench.sweep(),
            }
            let (tick, timeouts) = (bench.tick, bench.timeouts.clone());
            model.retain(|_, (state, seen)| tick.since(*seen) < timeouts.ticks(*state));
            for flow in 0..60 {
                let found = bench.live(flow).map(|slot| bench.table.state(slot));
                prop_assert_eq!(found, model.get(&flow).map(|(state, _)| *state), "flow {}", flow);
            }
        }
        bench.sweep();
        prop_assert_eq!(bench.table.len(), model.len());
        prop_assert_eq!(bench.stats.connections.get(), model.len() as u64);
        for id in 0..REALS {
            let of = |active| {
                let is = |(flow, (state, _)): &(&u32, &(State, Tick))| {
                    *flow % REALS == id && state.is_active() == active
                };
                model.iter().filter(is).count() as u64
            };
            prop_assert_eq!(bench.counts(id), (of(true), of(false)), "real server {}", id);
        }
    }

    /// However full it gets, nothing is there twice, nothing established is lost, and the counts
    /// are those of what is there.
    #[test]
    fn a_full_table_keeps_what_is_established(
        packets in prop::collection::vec((0_u32..300, any::<bool>()), 0..600),
    ) {
        let mut bench = Bench::new(40);
        let mut established = Vec::new();
        for (flow, answer) in packets {
            let slot = bench.live(flow).or_else(|| bench.insert(flow, State::SynRecv, None));
            if let (Some(slot), true) = (slot, answer) {
                let turn = turn(bench.tick, &bench.timeouts, &bench.stats);
                bench.table.touch(slot, State::Established, turn);
                established.push(flow);
            }
            for flow in &established {
                let slot = bench.live(*flow);
                prop_assert_eq!(slot.map(|s| bench.table.state(s)), Some(State::Established));
            }
        }
        let mut seen = std::collections::HashSet::new();
        let mut active = [0; REALS as usize];
        for (at, bucket) in bench.table.buckets.iter().enumerate() {
            for way in bucket.with_tag(FREE).inverted() {
                let record = bench.table.records[at * WAYS + way];
                prop_assert!(seen.insert(record.key), "{:?} is there twice", record.key);
                active[record.real.unwrap().id.0 as usize] += 1;
            }
        }
        prop_assert_eq!(bench.table.len(), seen.len());
        for id in 0..REALS {
            prop_assert_eq!(bench.counts(id), (active[id as usize], 0));
        }
    }
}

#[test]
fn all_the_connections_that_it_was_made_for_fit_in() {
    for connections in [100, 5_000, 200_000] {
        let mut bench = Bench::new(connections);
        for flow in 0..u32::try_from(connections).unwrap() {
            assert!(
                bench.insert(flow, State::Established, None).is_some(),
                "{flow} of {connections}"
            );
        }
        assert_eq!(bench.table.len(), connections);
        assert!(bench.table.memory() / connections <= 64 || connections == 100);
        for flow in 0..u32::try_from(connections).unwrap() {
            assert!(bench.live(flow).is_some(), "{flow} was lost");
        }
        assert_eq!(bench.stats.evicted.get(), 0);
    }
}

#[test]
fn a_half_open_flow_keeps_its_place_while_the_table_has_room() {
    let mut bench = Bench::new(50_000);
    for flow in 0..50_000 {
        assert!(bench.insert(flow, State::SynRecv, None).is_some());
    }
    assert_eq!((bench.table.len(), bench.stats.evicted.get()), (50_000, 0));
}

#[test]
fn a_full_table_gives_room_in_order() {
    let fill = |states: &[State]| {
        let mut bench = Bench::new(6);
        assert_eq!(bench.table.buckets(), 1);
        for (flow, state) in (0..).zip(states) {
            assert!(bench.insert(flow, *state, None).is_some());
            bench.advance(1);
        }
        bench
    };
    let there = |bench: &Bench| {
        (0..8)
            .map(|flow| bench.live(flow).is_some())
            .collect::<Vec<_>>()
    };
    let gone = |which: usize| (0..8).map(|flow| flow != which).collect::<Vec<_>>();
    use State::{Established as Es, FinWait as Fw, SynRecv as Sr, TimeWait as Tw};

    let mut bench = fill(&[Es, Tw, Sr, Es, Sr, Es, Es, Fw]);
    assert!(bench.insert(100, Sr, None).is_some());
    assert_eq!(
        there(&bench),
        gone(2),
        "the half-open one that was silent the longest"
    );
    assert_eq!(bench.stats.evicted.get(), 1);

    for finished in [Tw, Fw, State::CloseWait, State::LastAck, State::Listen] {
        let mut bench = fill(&[Es, Es, finished, Es, Tw, Es, Es, Es]);
        assert!(bench.insert(100, Es, None).is_some());
        assert_eq!(there(&bench), gone(2), "the one finished the longest");
    }

    let mut bench = fill(&[Es, Sr, Fw, Es, Es, Es, Es, Es]);
    bench.advance(100);
    assert!(bench.live(2).is_some() && bench.live(1).is_none());
    assert!(bench.insert(100, Es, None).is_some());
    assert_eq!(bench.stats.evicted.get(), 0, "the expired one first");

    let mut bench = fill(&[Es; 8]);
    assert!(bench.insert(100, Sr, None).is_none(), "nothing may go");
    assert_eq!(there(&bench), vec![true; 8]);
}

/// With direct routing a close ends in FIN_WAIT for 120 s: at 10,000 connections a second that is
/// more than the table holds.
#[test]
fn connections_that_were_closed_do_not_fill_the_table() {
    const CONNECTIONS: u32 = 5_000;
    let mut bench = Bench::new(CONNECTIONS as usize);
    let busy = 0..CONNECTIONS / 2;
    for flow in busy.clone() {
        assert!(bench.insert(flow, State::Established, None).is_some());
    }
    for n in 0..2 * CONNECTIONS {
        if n % (CONNECTIONS / 50) == 0 {
            bench.advance(1);
        }
        let slot = bench.insert(CONNECTIONS + n, State::SynRecv, None).unwrap();
        let turn = turn(bench.tick, &bench.timeouts, &bench.stats);
        bench.table.touch(slot, State::Established, turn);
        bench.table.touch(slot, State::FinWait, turn);
    }
    assert!(bench.stats.evicted.get() > 0);
    assert!(busy.clone().all(|flow| bench.live(flow).is_some()));
}

#[test]
fn an_established_connection_of_few_packets_makes_room_after_60_s_of_silence() {
    // Flow 0 is silent; the others have just spoken.
    for (packets, silence, goes) in [
        (2, 59, false),
        (2, 60, true),
        (8, 60, true),
        (9, 899, false),
    ] {
        let mut bench = Bench::new(6);
        let say = |bench: &mut Bench, flow: u32, packets: u32| {
            let turn = turn(bench.tick, &bench.timeouts, &bench.stats);
            let slot = bench
                .table
                .find(&key(flow), bench.table.candidates(&key(flow)));
            for _ in 0..packets {
                bench.table.touch(slot.unwrap(), State::Established, turn);
            }
        };
        for flow in 0..8 {
            bench.insert(flow, State::SynRecv, None).unwrap();
        }
        say(&mut bench, 0, packets - 1);
        bench.advance(silence);
        for flow in 1..8 {
            say(&mut bench, flow, 1);
        }
        let inserted = bench.insert(100, State::SynRecv, None).is_some();
        assert_eq!(inserted, goes, "{packets} packets, {silence} s");
        assert_eq!(bench.live(0).is_none(), goes);
        assert!((1..8).all(|flow| bench.live(flow).is_some()));
    }
}

/// A sender of forged addresses can guess that the answer to its SYN was acknowledged by any ACK.
#[test]
fn a_flood_of_forged_handshakes_pins_the_table_for_60_s_at_most() {
    const CONNECTIONS: u32 = 5_000;
    let mut bench = Bench::new(CONNECTIONS as usize);
    let busy = 0..CONNECTIONS / 2;
    let open = |bench: &mut Bench, flow: u32, packets: u32| {
        let Some(slot) = bench.insert(flow, State::SynRecv, None) else {
            return false;
        };
        let turn = turn(bench.tick, &bench.timeouts, &bench.stats);
        for _ in 1..packets {
            bench.table.touch(slot, State::Established, turn);
        }
        true
    };
    for flow in busy.clone() {
        assert!(open(&mut bench, flow, 9));
    }
    for n in 0..3 * CONNECTIONS {
        open(&mut bench, CONNECTIONS + n, 2);
    }
    bench.advance(60);
    for n in 0..CONNECTIONS / 2 {
        assert!(open(&mut bench, 10 * CONNECTIONS + n, 2), "flow {n}");
    }
    assert!(busy.clone().all(|flow| bench.live(flow).is_some()));
}

#[test]
fn another_holder_of_a_slot_does_not_inherit_counts() {
    let mut bench = Bench::new(100);
    let slot = bench.insert(0, State::Established, None).unwrap();
    bench.stats.real(0).claim(2);
    bench.stats.real(0).active.add(1);
    let turn = turn(bench.tick, &bench.timeouts, &bench.stats);
    bench.table.remove(slot, turn);
    assert_eq!(
        bench.counts(0),
        (1, 0),
        "the connection was the former holder's"
    );
}

#[test]
fn a_guess_is_believed_only_where_the_entry_is() {
    let mut bench = Bench::new(8);
    let slot = bench.insert(1, State::Established, None).unwrap();
    let other = bench.insert(2, State::Established, None).unwrap();
    let guessed = |bench: &Bench, guess| {
        let key = key(1);
        bench
            .table
            .find_guessed(&key, bench.table.candidates(&key), guess)
    };
    for guess in [Some(slot), Some(other), None] {
        assert_eq!(guessed(&bench, guess), Some(slot));
    }
    let turn = turn(bench.tick, &bench.timeouts, &bench.stats);
    bench.table.remove(slot, turn);
    assert_eq!(
        guessed(&bench, Some(slot)),
        None,
        "its record is still there"
    );
}

#[test]
fn the_place_that_was_guessed_is_not_taken_from_a_flow_of_the_same_tick() {
    let mut bench = Bench::new(6);
    for flow in 0..8 {
        bench.insert(flow, State::SynRecv, None).unwrap();
        bench.advance(1);
    }
    let guesses = [8, 9].map(|flow| {
        let key = key(flow);
        bench
            .table
            .likely(bench.table.candidates(&key), bench.turn())
    });
    assert_eq!(guesses[0], guesses[1]);
    for (flow, guess) in [8, 9].into_iter().zip(guesses) {
        let key = key(flow);
        let new = NewConn {
            key,
            candidates: bench.table.candidates(&key),
            real: real(0),
            state: State::SynRecv,
            template: None,
            guess,
        };
        let turn = turn(bench.tick, &bench.timeouts, &bench.stats);
        bench.table.insert(&new, turn).unwrap();
    }
    let there: Vec<_> = (0..10).filter(|flow| bench.live(*flow).is_some()).collect();
    assert_eq!(there, [2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn time_left_counts_down_and_restarts() {
    let mut bench = Bench::new(100);
    let slot = bench.insert(0, State::SynRecv, None).unwrap();
    bench.advance(59);
    assert_eq!(
        bench.table.remaining(slot, bench.turn()),
        Duration::from_secs(1)
    );
    let turn = turn(bench.tick, &bench.timeouts, &bench.stats);
    bench.table.touch(slot, State::SynRecv, turn);
    bench.advance(59);
    assert!(bench.live(0).is_some());
    bench.advance(1);
    assert!(bench.live(0).is_none());
    assert_eq!(bench.table.remaining(slot, bench.turn()), Duration::ZERO);
}

/// Whether the template is alive `seconds` after the tick at which the bench stands.
fn template_lives(bench: &mut Bench, key: &Key4, seconds: u32) -> bool {
    let turn = turn(bench.tick.plus_secs(seconds), &bench.timeouts, &bench.stats);
    bench.table.sweep(usize::MAX, turn);
    bench
        .table
        .find(key, bench.table.candidates_of_template(key))
        .is_some()
}

fn with_template(bench: &mut Bench, period: u32) -> (Key4, Slot) {
    let template = key(0).template(24, 80);
    let turn = turn(bench.tick, &bench.timeouts, &bench.stats);
    let slot = bench
        .table
        .insert_template(template, real(0), period * 10, turn)
        .unwrap();
    bench.table.refer(slot, real(0), turn);
    (template, slot)
}

#[test]
fn a_template_lives_on_in_steps_of_60_s_while_it_has_connections() {
    let mut bench = Bench::new(100);
    let (template, slot) = with_template(&mut bench, 100);
    bench.insert(0, State::Established, Some(slot)).unwrap();
    assert_eq!(bench.stats.real(0).templates.get(), 1);
    // The connection ends at 900 s; the template was over at 100 s and is looked at each 60 s.
    assert!(template_lives(&mut bench, &template, 899));
    assert!(template_lives(&mut bench, &template, 939));
    assert!(!template_lives(&mut bench, &template, 940));
    assert_eq!(bench.stats.real(0).templates.get(), 0);
    assert_eq!(bench.stats.templates.get(), 0);
}

#[test]
fn a_template_outlives_its_connections_by_its_own_time() {
    let mut bench = Bench::new(100);
    let (template, slot) = with_template(&mut bench, 1000);
    bench.insert(0, State::Established, Some(slot)).unwrap();
    assert!(template_lives(&mut bench, &template, 999));
    assert!(!template_lives(&mut bench, &template, 1000));
}

#[test]
fn a_template_that_led_nothing_assured_makes_room_and_another_does_not() {
    for packets in [8, 9] {
        let assured = packets == 9;
        let mut bench = Bench::new(6);
        let (template, slot) = with_template(&mut bench, 1000);
        let conn = bench.insert(0, State::SynRecv, Some(slot)).unwrap();
        let turn = turn(bench.tick, &bench.timeouts, &bench.stats);
        for _ in 1..packets {
            bench.table.touch(conn, State::Established, turn);
        }
        bench.table.touch(conn, State::Close, turn);
        for flow in 1..7 {
            bench.insert(flow, State::Established, None).unwrap();
        }
        assert!(
            bench.insert(100, State::Established, None).is_some(),
            "the connection goes"
        );
        assert!(bench.live(0).is_none());
        assert_eq!(
            bench.insert(101, State::Established, None).is_some(),
            !assured
        );
        let found = bench
            .table
            .find(&template, bench.table.candidates_of_template(&template));
        assert_eq!(found.is_some(), assured);
        assert_eq!(bench.stats.templates.get(), u64::from(assured));
    }
}

#[test]
fn a_template_that_lives_by_its_connections_shows_the_time_to_the_next_look() {
    let mut bench = Bench::new(100);
    let (_, slot) = with_template(&mut bench, 100);
    bench.insert(0, State::Established, Some(slot)).unwrap();
    for (seconds, left) in [(0, 100), (99, 1), (1, 60), (59, 1), (1, 60)] {
        bench.advance(seconds);
        let remaining = bench.table.remaining(slot, bench.turn());
        assert_eq!(remaining, Duration::from_secs(left));
    }
}

#[test]
fn buckets_tell_of_each_entry_whose_time_is_not_over() {
    let mut bench = Bench::new(500);
    for flow in 0..400 {
        let state = [State::SynRecv, State::Established][flow as usize % 2];
        bench.insert(flow, state, None).unwrap();
    }
    for expected in [400, 200] {
        let slots = (0..bench.table.buckets()).flat_map(|n| bench.table.in_bucket(n, bench.turn()));
        let keys: std::collections::HashSet<_> = slots.map(|slot| bench.table.key(slot)).collect();
        let live = (0..400).filter(|flow| bench.live(*flow).is_some()).map(key);
        assert_eq!(keys, live.collect());
        assert_eq!(keys.len(), expected);
        bench.advance(60);
    }
    let beyond = bench.table.buckets();
    assert_eq!(bench.table.in_bucket(beyond, bench.turn()).count(), 0);
}

#[test]
fn assured_is_what_packets_have_shown_to_be_a_connection() {
    let mut bench = Bench::new(100);
    let (_, template) = with_template(&mut bench, 100);
    let conn = bench.insert(0, State::SynRecv, Some(template)).unwrap();
    for packets in 1..9 {
        let assured = [conn, template].map(|slot| bench.table.is_assured(slot));
        assert_eq!(assured, [false; 2], "{packets}");
        let turn = turn(bench.tick, &bench.timeouts, &bench.stats);
        bench.table.touch(conn, State::Established, turn);
    }
    let assured = [conn, template].map(|slot| bench.table.is_assured(slot));
    assert_eq!(assured, [true; 2]);
}
