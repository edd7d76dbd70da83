//! Threads that compress. Their number changes how long it takes and nothing else: results are taken in the order of
//! the work.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::cluster::{Compression, Segment};
use super::codec::{self, Encoder};
use super::format::Codec;
use crate::error::{Context as _, Error, Result};

/// More threads find nothing to do: inflating the layer takes longer than 16 of them.
const THREADS_MAX: usize = 16;

/// What the threads' tables may take in memory.
const TABLES_MAX: usize = 24 << 20;

/// A piece of a file, and where its compressed form goes.
struct Job {
    input: Vec<u8>,
    is_last: bool,
    result: SyncSender<Segment>,
}

/// The bytes of files that may wait for their turn. Compressed, they take at most as much again.
const fn waiting_max(codec: Codec) -> usize {
    match codec {
        Codec::Lz4 => 16 << 20,
        // Fewer threads work, since the tables of each are large.
        Codec::Zstd => 8 << 20,
    }
}

/// The threads, which several images may share that are written at the same time. They end when all who share it have
/// dropped it.
#[derive(Clone)]
pub struct Pool {
    jobs: Sender<Job>,
    /// What the threads do.
    pub compression: Compression,
    /// The bytes that each of the images may keep waiting.
    pub waiting_max: usize,
}

/// A segment that is, or will be, compressed.
pub struct Ticket(Receiver<Segment>);

impl Pool {
    /// Starts threads for so many images at a time: as many as there are processors unless a number is given.
    pub fn new(compression: Compression, threads: Option<usize>, images: usize) -> Result<Self> {
        let available = || thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (jobs, waiting) = channel::<Job>();
        let waiting = Arc::new(Mutex::new(waiting));
        let most = (TABLES_MAX / codec::table_size(compression)).clamp(1, THREADS_MAX);
        for _ in 0..threads.unwrap_or_else(available).clamp(1, most) {
            let waiting = Arc::clone(&waiting);
            thread::Builder::new()
                .name("compress".to_owned())
                .spawn(move || work(compression, &waiting))
                .doing(|| "start a thread")?;
        }
        Ok(Self { jobs, compression, waiting_max: waiting_max(compression.codec) / images.max(1) })
    }

    /// Has a piece of a file compressed.
    pub fn compress(&self, input: Vec<u8>, is_last: bool) -> Result<Ticket> {
        let (result, ticket) = sync_channel(1);
        self.jobs.send(Job { input, is_last, result }).map_err(|_| died())?;
        Ok(Ticket(ticket))
    }
}

impl Ticket {
    /// Waits for the segment.
    pub fn wait(self) -> Result<Segment> {
        self.0.recv().map_err(|_| died())
    }
}

fn work(compression: Compression, waiting: &Mutex<Receiver<Job>>) {
    // Without memory for it there are no results, which the writer notices.
    let Ok(mut encoder) = Encoder::new(compression) else { return };
    loop {
        // Whoever died while it waited for a job has taken none.
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { input, is_last, result }) = job else { return };
        // A writer that failed waits for nothing.
        drop(result.send(compression.compress(&mut encoder, &input, is_last)));
    }
}

fn died() -> Error {
    Error::new("a thread that compresses ended early")
}
