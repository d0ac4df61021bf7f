use std::pin::pin;
use std::time::{Duration, Instant};

use super::*;
use crate::arena::PAGE_BYTES;

const MIB: usize = 1 << 20;

struct Bench {
    ring: DiskRing,
    arena: Arena,
    file: FileId,
    _folder: tempfile::TempDir,
}

/// A ring of depth 8 over an 8 MiB arena with one file of 4 MiB whose page `i` is filled with `i`.
fn bench() -> Bench {
    let folder = file::disk_folder();
    let path = folder.path().join("log");
    let content: Vec<u8> = (0..4 * MIB).map(|at| (at / PAGE_BYTES) as u8).collect();
    std::fs::write(&path, content).unwrap();
    let arena = Arena::new(8 * MIB, None).unwrap();
    let ring = DiskRing::new(8, &arena).unwrap();
    let file = ring.add_file(file::open_direct(&path, false).unwrap()).unwrap();
    Bench { ring, arena, file, _folder: folder }
}

/// Waits for `future` with nothing but passes of the ring.
fn wait<F: Future>(ring: &DiskRing, future: F) -> F::Output {
    let mut future = pin!(future);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        assert!(Instant::now() < deadline, "the ring does not answer");
        ring.turn();
        std::thread::yield_now();
    }
}

#[test]
fn reads_what_was_written() {
    let Bench { ring, arena, file, .. } = bench();
    for durable in [false, true] {
        let mut buffer = arena.take(8192).unwrap();
        buffer.fill(0xab);
        let (buffer, wrote) = wait(&ring, ring.write(file, 12288, buffer, 4096..8192, durable));
        assert_eq!(wrote.unwrap(), 4096);
        let (buffer, read) = wait(&ring, ring.read(file, 8192, buffer, 8192));
        assert_eq!(read.unwrap(), 8192);
        assert_eq!((buffer[0], buffer[4095], buffer[4096], buffer[8191]), (2, 2, 0xab, 0xab));
    }
    assert_eq!(wait(&ring, ring.flush(file)).1.unwrap(), 0);
    assert_eq!(ring.in_flight(), 0);
}

#[test]
fn memory_of_another_arena_is_served_unregistered() {
    let Bench { ring, file, .. } = bench();
    let other = Arena::new(2 * MIB, None).unwrap();
    let (buffer, read) = wait(&ring, ring.read(file, 4096, other.take(4096).unwrap(), 4096));
    assert_eq!((read.unwrap(), buffer[0]), (4096, 1));
}

#[test]
fn a_block_is_written_out_while_it_is_being_filled() {
    let Bench { ring, arena, file, .. } = bench();
    let block = AppendBuffer::new(arena.take(MIB).unwrap());
    block.append(4096, |bytes| bytes.fill(1)).unwrap();
    let first = ring.write(file, 0, Rc::clone(&block), 0..4096, false);
    block.append(4096, |bytes| bytes.fill(2)).unwrap();
    assert_eq!(wait(&ring, first).1.unwrap(), 4096);
    let second = ring.write(file, 4096, Rc::clone(&block), 4096..8192, true);
    assert_eq!(wait(&ring, second).1.unwrap(), 4096);
    let (read, result) = wait(&ring, ring.read(file, 0, arena.take(8192).unwrap(), 8192));
    assert_eq!(result.unwrap(), 8192);
    assert_eq!(&read[..8192], block.as_slice());
}

#[test]
#[should_panic = "of 4096 bytes"]
fn only_what_is_filled_can_be_written_out() {
    let Bench { ring, arena, file, .. } = bench();
    let block = AppendBuffer::new(arena.take(MIB).unwrap());
    block.append(4096, |bytes| bytes.fill(1)).unwrap();
    drop(ring.write(file, 0, block, 0..8192, false));
}

#[test]
fn a_read_past_the_end_is_an_error_and_never_short() {
    let Bench { ring, arena, file, .. } = bench();
    for (offset, len) in [(4 * MIB as u64 - 4096, 8192), (4 * MIB as u64, 4096)] {
        let (_, read) = wait(&ring, ring.read(file, offset, arena.take(8192).unwrap(), len));
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "at {offset}");
    }
}

#[test]
fn a_request_the_device_refuses_is_an_error() {
    let Bench { ring, arena, file, .. } = bench();
    let (_, read) = wait(&ring, ring.read(file, 7, arena.take(4096).unwrap(), 100));
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn more_operations_than_the_depth_all_finish() {
    let Bench { ring, arena, file, .. } = bench();
    let sink = Completions::new();
    for page in 0..1000u64 {
        let buffer = arena.take(4096).unwrap();
        let op = ring.read(file, page % 1024 * 4096, buffer, 4096);
        ring.submit_tagged(op, page, &sink);
    }
    let mut done = Vec::new();
    while done.len() < 1000 {
        wait(&ring, poll_ready(&sink));
        sink.drain(&mut done);
    }
    assert_eq!(ring.in_flight(), 0);
    for Done { tag, buffer, result } in &done {
        assert_eq!((result.as_ref().unwrap(), buffer[17]), (&4096, *tag as u8));
    }
    let mut tags: Vec<_> = done.iter().map(|done| done.tag).collect();
    tags.sort_unstable();
    assert!(tags.into_iter().eq(0..1000));
}

async fn poll_ready(sink: &Completions) {
    std::future::poll_fn(|cx| sink.poll_ready(cx)).await;
}

#[test]
fn an_operation_keeps_its_buffer_after_its_future_is_dropped() {
    let Bench { ring, arena, file, .. } = bench();
    for submitted in [false, true] {
        let op = ring.read(file, 0, arena.take(4096).unwrap(), 4096);
        if submitted {
            ring.0.ops.borrow_mut().enter();
        }
        drop(op);
        assert_eq!(arena.usage().taken_bytes, 4096, "submitted: {submitted}");
        while ring.in_flight() > 0 {
            ring.turn();
        }
        assert_eq!(arena.usage().taken_bytes, 0);
    }
}

#[test]
fn a_result_nobody_took_gives_its_buffer_back() {
    let Bench { ring, arena, file, .. } = bench();
    let op = ring.read(file, 0, arena.take(4096).unwrap(), 4096);
    while ring.in_flight() > 0 {
        ring.turn();
    }
    assert_eq!(arena.usage().taken_bytes, 4096);
    drop(op);
    assert_eq!(arena.usage().taken_bytes, 0);
}

#[test]
fn a_finished_operation_can_still_be_tagged() {
    let Bench { ring, arena, file, .. } = bench();
    let op = ring.read(file, 0, arena.take(4096).unwrap(), 4096);
    while ring.in_flight() > 0 {
        ring.turn();
    }
    let sink = Completions::new();
    ring.submit_tagged(op, 5, &sink);
    let mut done = Vec::new();
    sink.drain(&mut done);
    assert_eq!((done.len(), done[0].tag), (1, 5));
}

#[test]
fn dropping_the_ring_waits_for_what_is_in_flight() {
    let Bench { ring, arena, file, .. } = bench();
    let sink = Completions::new();
    for tag in 0..64 {
        ring.submit_tagged(ring.read(file, 0, arena.take(4096).unwrap(), 4096), tag, &sink);
    }
    ring.turn();
    drop(ring);
    let mut done = Vec::new();
    sink.drain(&mut done);
    drop(done);
    assert_eq!(arena.usage().taken_bytes, 0);
}

#[test]
fn the_driver_serves_tasks_and_stops_when_idle() {
    let Bench { ring, arena, file, .. } = bench();
    let executor = glommio::LocalExecutorBuilder::default().make().unwrap();
    executor.run(async {
        let driver = glommio::spawn_local(ring.clone().drive());
        let sink = Completions::new();
        for round in 0..50u64 {
            let (buffer, read) =
                ring.read(file, round * 4096, arena.take(4096).unwrap(), 4096).await;
            assert_eq!((read.unwrap(), buffer[0]), (4096, round as u8));
            for tag in 0..20 {
                let buffer = arena.take(4096).unwrap();
                ring.submit_tagged(ring.read(file, tag * 4096, buffer, 4096), tag, &sink);
            }
            let mut done = Vec::new();
            while done.len() < 20 {
                poll_ready(&sink).await;
                sink.drain(&mut done);
            }
            if round % 10 == 0 {
                assert_eq!(ring.flush(file).await.1.unwrap(), 0);
            }
        }
        ring.stop();
        driver.await;
    });
    assert_eq!(ring.in_flight(), 0);
}

#[test]
fn a_device_that_hangs_keeps_its_own_lane_alone() {
    let folder = file::disk_folder();
    let arena = Arena::new(8 * MIB, None).unwrap();
    let ring = DiskRing::with_lanes(2, 8, &arena).unwrap();
    let [hanging, sound] = [0, 1].map(|lane| {
        let path = folder.path().join(lane.to_string());
        std::fs::write(&path, vec![lane as u8; MIB]).unwrap();
        ring.add_file_to(lane, file::open_direct(&path, false).unwrap()).unwrap()
    });
    ring.break_device(vec![Fault::Hang(0)]);
    let buffer = || arena.take(4096).unwrap();
    let held: Vec<_> = (0..100).map(|n| ring.read(hanging, n * 4096, buffer(), 4096)).collect();
    for n in 0..100 {
        let (read, result) = wait(&ring, ring.read(sound, n * 4096, buffer(), 4096));
        assert_eq!((result.unwrap(), read[0]), (4096, 1));
    }
    assert_eq!(ring.in_flight(), 100);
    assert_eq!(ring.look(), setup::WORKERS_MAX);
    assert_eq!(ring.look(), setup::WORKERS_MAX + 8, "those that may be waiting do not count");
    let later = ring.flush(hanging);
    ring.look();
    let waits = |read_s, write_s| Waits { read_s, write_s };
    assert_eq!([ring.waits(hanging), ring.waits(sound)], [waits(2, 0), waits(0, 0)]);
    ring.look();
    assert_eq!(ring.waits(hanging), waits(3, 1));
    ring.break_device(vec![]);
    for op in held {
        assert_eq!(wait(&ring, op).1.unwrap(), 4096);
    }
    wait(&ring, later).1.unwrap();
    assert_eq!([ring.look(), ring.in_flight() as u32], [setup::WORKERS_MAX, 0]);
    assert_eq!(ring.waits(hanging), waits(0, 0));
}
