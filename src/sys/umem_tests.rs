use super::*;

const A: PortId = PortId(0);
const B: PortId = PortId(7);

fn ledger(frames: u32) -> FrameLedger {
    FrameLedger::new(0..frames, frames)
}

fn conserved(ledgers: &[&FrameLedger], spare: &ArrayQueue<u32>, whole: u64) -> bool {
    let kept = |b: &&FrameLedger| b.total() == b.in_kernel() + b.free() as u64 + b.in_hand();
    let total: u64 = ledgers.iter().map(|ledger| ledger.total()).sum();
    ledgers.iter().all(kept) && total + spare.len() as u64 == whole
}

#[test]
fn frames_that_pile_up_in_one_pool_come_back_to_the_other() {
    // What one receives the other sends: without evening out, the first would run dry.
    const SHARE: u32 = 1024;
    let mut receiver = FrameLedger::new(0..SHARE, 2 * SHARE);
    let mut sender = FrameLedger::new(SHARE..2 * SHARE, 2 * SHARE);
    let spare = ArrayQueue::new(2 * SHARE as usize);
    // Both fill their rings, as at start.
    let mut filled = [0; SHARE as usize / 2];
    assert_eq!(receiver.lend_free(A, &mut filled), filled.len());
    assert_eq!(sender.lend_free(A, &mut [0; SHARE as usize / 2]), 512);
    let mut ring = std::collections::VecDeque::from(filled.to_vec());
    for turn in 0..1000 {
        receiver.even_out(&spare);
        sender.even_out(&spare);
        let mut chunks = [0; BATCH];
        assert_eq!(receiver.lend_free(A, &mut chunks), BATCH, "turn {turn}");
        ring.extend(chunks);
        // A burst comes in, is handed over, and sent.
        for _ in 0..BATCH {
            let chunk = ring.pop_front().unwrap();
            receiver.take_back(Span {
                at: chunk * CHUNK + 320,
                len: 60,
            });
            receiver.parted += 1;
            sender.parted -= 1;
            sender.lend(chunk, B);
            sender.give_back(chunk);
        }
        let all = [&receiver, &sender];
        assert!(conserved(&all, &spare, 2 * u64::from(SHARE)), "turn {turn}");
    }
    // The surplus is for whoever needs it, and none is with one that has enough.
    assert!(sender.free() < sender.enough() + 2 * BATCH);
    assert!(!spare.is_empty());
}

#[test]
fn a_pool_that_has_enough_and_not_too_much_leaves_the_others_alone() {
    let mut ledger = ledger(1024);
    let spare = ArrayQueue::new(1024);
    ledger.lend_free(A, &mut [0; 512]);
    ledger.even_out(&spare);
    assert_eq!((ledger.free(), spare.len()), (512, 0));
    ledger.lend_free(A, &mut [0; 512 - BATCH]);
    ledger.even_out(&spare);
    assert_eq!((ledger.free(), spare.len()), (BATCH, 0));
    // Short, and nobody has any: it stays so.
    ledger.lend_free(A, &mut [0]);
    ledger.even_out(&spare);
    assert_eq!(ledger.free(), BATCH - 1);
    assert!(conserved(&[&ledger], &spare, 1024));
}

#[test]
fn what_nobody_has_room_for_is_kept() {
    let mut ledger = ledger(1024);
    let spare = ArrayQueue::new(3);
    ledger.even_out(&spare);
    assert_eq!((ledger.free(), spare.len()), (1021, 3));
    assert!(conserved(&[&ledger], &spare, 1024));
}

#[test]
fn an_interface_that_goes_leaves_each_of_its_frames_once_and_no_other() {
    let (memory, mut pools) = FrameMemory::new(64, 1).unwrap();
    let pool = &mut pools[0];
    let mut chunks = [0; 20];
    pool.ledger().lend_free(A, &mut chunks[..12]);
    pool.ledger().lend_free(B, &mut chunks[12..]);
    // Of those that the first has, one was received and is in hand, one was sent by the other, one is back.
    let span = |chunk| Span {
        at: chunk * CHUNK + 320,
        len: 60,
    };
    let held = pool.received(span(chunks[0]), A);
    let crossing = pool.received(span(chunks[1]), A);
    pool.sent(crossing, B);
    let done = pool.received(span(chunks[2]), A);
    let done = pool.sent(done, A);
    pool.ledger().give_back(done.chunk());
    assert_eq!((pool.ledger.in_kernel(), pool.ledger.free()), (18, 45));
    assert_eq!(pool.ledger.recover(A), 9);
    assert_eq!((pool.ledger.in_kernel(), pool.ledger.free()), (9, 54));
    assert_eq!(pool.ledger.recover(A), 0, "each is found once");
    pool.release(held);
    assert_eq!(pool.ledger.recover(B), 9);
    assert_eq!(pool.ledger.free() as u64, pool.whole());
    let mut free = pool.ledger.free.clone();
    free.sort_unstable();
    assert_eq!(free, Vec::from_iter(0..64), "none is there twice");
    drop(memory);
}

#[test]
fn a_frame_moves_within_its_chunk_and_no_further() {
    let (_, mut pools) = FrameMemory::new(3, 1).unwrap();
    let pool = &mut pools[0];
    let frames: Vec<_> = (0..3).map_while(|_| pool.blank(B)).collect();
    assert!(pool.blank(B).is_none());
    for (n, mut frame) in (0_u8..).zip(frames) {
        assert_eq!((frame.bytes(), frame.port()), (&[][..], B));
        assert!(frame.resize(ROOM as usize) && !frame.resize(ROOM as usize + 1));
        frame.bytes_mut().fill(n + 1);
        let headroom = (CHUNK - ROOM) as usize;
        assert!(frame.grow_front(headroom) && !frame.grow_front(1));
        assert_eq!(frame.bytes().len(), CHUNK as usize);
        // The others' bytes are not among these.
        assert!(frame.bytes()[..headroom].iter().all(|b| *b == 0));
        assert!(frame.bytes()[headroom..].iter().all(|b| *b == n + 1));
        frame.truncate(70_000);
        assert_eq!(frame.bytes().len(), CHUNK as usize);
        frame.truncate(7);
        assert_eq!(frame.bytes().len(), 7);
        assert!(!frame.grow_front(70_000));
        pool.release(frame);
    }
    assert_eq!(pool.ledger.free(), 3);
}

#[test]
fn the_memory_is_divided_among_the_pools() {
    let (memory, pools) = FrameMemory::new(10, 3).unwrap();
    let shares: Vec<_> = pools.iter().map(|pool| pool.ledger.free()).collect();
    assert_eq!(shares, [4, 3, 3]);
    let mut all: Vec<_> = pools.iter().flat_map(|pool| &pool.ledger.free).collect();
    all.sort_unstable();
    assert_eq!(all, Vec::from_iter(&Vec::from_iter(0..10)));
    assert_eq!(memory.bytes(), 20_480);
}

#[test]
#[should_panic(expected = "a frame of other memory")]
fn a_frame_goes_back_to_its_own_memory() {
    let (_, mut ours) = FrameMemory::new(1, 1).unwrap();
    let (_, mut others) = FrameMemory::new(1, 1).unwrap();
    let frame = ours[0].blank(A).unwrap();
    others[0].release(frame);
}
