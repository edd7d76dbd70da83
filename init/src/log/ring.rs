//! What a service has written lately, kept in memory: as much as its ring holds, the oldest dropped first.
//!
//! It is kept as it came, in the pieces in which it was read. Whoever reads has a [`Cursor`] and takes line after line at
//! his own pace: a slow reader costs no memory, he only misses what the ring has dropped meanwhile, and learns how much.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use memchr::{memchr, memchr_iter};

/// What a piece costs beside its bytes.
const PIECE_COST: usize = size_of::<Piece>();
/// What is read within such a time is one piece.
const MOMENT: Duration = Duration::from_millis(1);
/// A ring that is full has so many pieces at least, unless more is read at a time.
const PIECES_LEAST: usize = 16;
/// A longer line is read in pieces of this size, as the console says it.
pub const LINE_MAX: usize = 4096;

/// The ring of one service.
pub struct Ring {
    bytes: VecDeque<u8>,
    pieces: VecDeque<Piece>,
    /// How much it holds at most, with what pieces cost.
    limit: usize,
    /// How many bytes were dropped.
    dropped: u64,
    /// Ends of lines among those that were dropped since somebody first had a cursor.
    dropped_lines: u64,
    /// Whether anybody has ever had one. To look for the ends of lines costs more than to keep what has them, so it is not
    /// done for nobody.
    is_followed: Cell<bool>,
    /// Whether the first byte continues a line whose beginning was dropped.
    is_cut: bool,
    /// Who writes now.
    pid: i32,
}

/// What was read at a time, up to where the next piece begins.
#[derive(Debug, Clone, Copy)]
struct Piece {
    time: Duration,
    /// Bytes that were ever written before it.
    start: u64,
    pid: i32,
}

/// A place in all that a service has ever written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Cursor {
    /// Bytes before it.
    offset: u64,
    /// Lines before it.
    line: u64,
}

/// A line.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// When its first byte was read.
    pub time: Duration,
    /// The process that was the service's first one then; 0 when there was none yet.
    pub pid: i32,
    /// How many lines before it were dropped, and are missing to whoever had the cursor.
    pub dropped: u64,
    /// Without its end, and never longer than 4,096 bytes.
    pub text: Vec<u8>,
}

impl Ring {
    /// An empty one that takes no memory yet.
    pub fn new(limit: usize) -> Self {
        let (bytes, pieces) = (VecDeque::new(), VecDeque::new());
        Self {
            bytes,
            pieces,
            limit,
            dropped: 0,
            dropped_lines: 0,
            is_followed: Cell::new(false),
            is_cut: false,
            pid: 0,
        }
    }

    /// Bytes that were ever written.
    pub fn written(&self) -> u64 {
        self.dropped + self.bytes.len() as u64
    }

    /// How many of them are not kept any more.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Lets what is read from now on be written by `pid`.
    pub fn begin_run(&mut self, pid: i32) {
        self.pid = pid;
    }

    /// Whether there is something behind `cursor`, if only the beginning of a line.
    pub fn has_more(&self, cursor: Cursor) -> bool {
        cursor.offset < self.written()
    }

    /// Keeps what was read at `time`.
    pub fn append(&mut self, time: Duration, bytes: &[u8]) {
        // Of more than it holds the end.
        let room = self.limit.saturating_sub(PIECE_COST);
        let (lost, bytes) = bytes.split_at(bytes.len().saturating_sub(room));
        self.make_room(bytes.len());
        if !lost.is_empty() {
            let lines = if self.is_followed.get() { lines_in(lost) } else { 0 };
            self.note_dropped(lost.len(), lines, lost.last() == Some(&b'\n'));
        }
        let start = self.written();
        let (pid, last) = (self.pid, self.pieces.back());
        // What is dropped is dropped by pieces, so that none may be most of the ring.
        let most = (self.limit / PIECES_LEAST) as u64;
        let is_piece = last.is_some_and(|piece| {
            let is_moment = time.saturating_sub(piece.time) < MOMENT;
            piece.pid == pid && is_moment && start - piece.start < most
        });
        if !is_piece && !bytes.is_empty() {
            self.pieces.push_back(Piece { time, start, pid });
        }
        self.reserve(bytes.len());
        self.bytes.extend(bytes);
    }

    /// Ends the line that has no end, because its writer has ended.
    pub fn finish(&mut self, time: Duration) {
        if self.bytes.back().is_some_and(|&byte| byte != b'\n') {
            self.append(time, b"\n");
        }
    }

    /// Where everything begins, for somebody who is there from the start and wants to know what he misses.
    pub fn boot(&self) -> Cursor {
        self.is_followed.set(true);
        Cursor { offset: 0, line: 0 }
    }

    /// Where what is kept begins.
    pub fn begin(&self) -> Cursor {
        self.is_followed.set(true);
        if self.is_cut {
            // Before the cut, so that reading finds the first whole line, which may not be there yet.
            return Cursor { offset: self.dropped - 1, line: self.dropped_lines + 1 };
        }
        Cursor { offset: self.dropped, line: self.dropped_lines }
    }

    /// Where the first line begins that is still whole, if its end has come. One that is longer than any is read from
    /// where it is cut.
    fn first_whole_line(&self) -> Option<Cursor> {
        let cut = Cursor { offset: self.dropped, line: self.dropped_lines };
        if !self.is_cut {
            return Some(cut);
        }
        match self.line_end(0) {
            Some(end) => Some(Cursor { offset: cut.offset + end as u64 + 1, line: cut.line + 1 }),
            None => (self.bytes.len() >= LINE_MAX).then_some(cut),
        }
    }

    /// Where what is written next will be.
    pub fn end(&self) -> Cursor {
        self.is_followed.set(true);
        Cursor { offset: self.written(), line: self.dropped_lines + self.lines_before(self.bytes.len()) }
    }

    /// Where the last `count` lines begin, or as many as there are.
    pub fn tail(&self, count: u32) -> Cursor {
        self.is_followed.set(true);
        let mut start = self.bytes.len();
        // Where the line ends that is looked at.
        let mut end = start - usize::from(self.bytes.back() == Some(&b'\n'));
        for _ in 0..count {
            let Some(before) = self.bytes.range(..end).rposition(|&byte| byte == b'\n') else {
                return self.begin();
            };
            (start, end) = (before + 1, before);
        }
        let line = self.dropped_lines + self.lines_before(start);
        Cursor { offset: self.dropped + start as u64, line }
    }

    /// The line at `cursor`, which is moved behind it. None when there is none, or when its end has not come and it is not
    /// wanted without.
    pub fn next(&self, cursor: &mut Cursor, partial: bool) -> Option<Entry> {
        let from = if cursor.offset < self.dropped { self.first_whole_line()? } else { *cursor };
        let start = usize::try_from(from.offset - self.dropped).ok()?.min(self.bytes.len());
        let line_end = self.line_end(start);
        let is_ended = line_end.is_some();
        let length = line_end.unwrap_or(LINE_MAX.min(self.bytes.len() - start));
        if !is_ended && length < LINE_MAX && (!partial || length == 0) {
            return None;
        }
        let text = parts(&self.bytes, start..start + length).concat();
        let (time, pid) = self.origin_of(from.offset);
        let dropped = from.line.saturating_sub(cursor.line);
        cursor.offset = from.offset + text.len() as u64 + u64::from(is_ended);
        cursor.line = from.line + u64::from(is_ended);
        Some(Entry { time, pid, dropped, text })
    }

    /// When the line at `cursor` was read, if there is one.
    pub fn peek(&self, mut cursor: Cursor, partial: bool) -> Option<Duration> {
        self.next(&mut cursor, partial).map(|entry| entry.time)
    }

    /// When the byte was read before which so many were written, and who wrote it.
    fn origin_of(&self, offset: u64) -> (Duration, i32) {
        let after = self.pieces.partition_point(|piece| piece.start <= offset);
        let piece = self.pieces.get(after.saturating_sub(1));
        piece.map_or((Duration::ZERO, 0), |piece| (piece.time, piece.pid))
    }

    /// How long the line is that begins at `start`, if its end is there and it is no longer than any.
    fn line_end(&self, start: usize) -> Option<usize> {
        let [front, back] = parts(&self.bytes, start..start.saturating_add(LINE_MAX + 1));
        memchr(b'\n', front).or_else(|| memchr(b'\n', back).map(|end| front.len() + end))
    }

    /// Ends of lines among the first `length` bytes.
    fn lines_before(&self, length: usize) -> u64 {
        parts(&self.bytes, 0..length).into_iter().map(lines_in).sum()
    }

    fn make_room(&mut self, length: usize) {
        while self.bytes.len() + length + (self.pieces.len() + 1) * PIECE_COST > self.limit {
            if self.pieces.pop_front().is_none() {
                return;
            }
            let end = self.pieces.front().map_or(self.written(), |next| next.start);
            let length = usize::try_from(end - self.dropped).unwrap_or(usize::MAX).min(self.bytes.len());
            let lines = if self.is_followed.get() { self.lines_before(length) } else { 0 };
            let ends_a_line = length.checked_sub(1).and_then(|last| self.bytes.get(last)) == Some(&b'\n');
            self.bytes.drain(..length);
            self.note_dropped(length, lines, ends_a_line);
        }
    }

    fn note_dropped(&mut self, length: usize, lines: u64, ends_a_line: bool) {
        self.dropped += length as u64;
        self.dropped_lines += lines;
        self.is_cut = !ends_a_line;
    }

    /// Doubles as any vector does, but never takes more than the limit.
    fn reserve(&mut self, length: usize) {
        let needed = self.bytes.len() + length;
        if needed > self.bytes.capacity() {
            let wanted = (self.bytes.capacity() * 2).clamp(needed, self.limit.max(needed));
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
    }
}

/// What a range of a ring has, in its two parts.
fn parts(bytes: &VecDeque<u8>, range: Range<usize>) -> [&[u8]; 2] {
    let (front, back) = bytes.as_slices();
    let part = |slice: &'_ [u8], before: usize| {
        let bound = |place: usize| place.saturating_sub(before).min(slice.len());
        bound(range.start)..bound(range.end)
    };
    let (in_front, in_back) = (part(front, 0), part(back, front.len()));
    [front.get(in_front).unwrap_or_default(), back.get(in_back).unwrap_or_default()]
}

fn lines_in(bytes: &[u8]) -> u64 {
    memchr_iter(b'\n', bytes).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn texts(ring: &Ring, mut cursor: Cursor, partial: bool) -> Vec<String> {
        std::iter::from_fn(|| ring.next(&mut cursor, partial))
            .map(|entry| String::from_utf8(entry.text).unwrap())
            .collect()
    }

    #[test]
    fn a_line_has_the_time_of_its_first_byte() {
        let mut ring = Ring::new(1000);
        ring.append(MS, b"one\ntw");
        ring.append(5 * MS, b"o\nthree");
        let mut cursor = ring.begin();
        let mut next = |partial| ring.next(&mut cursor, partial).map(|entry| (entry.text, entry.time));
        assert_eq!(next(false), Some((b"one".to_vec(), MS)));
        assert_eq!(next(false), Some((b"two".to_vec(), MS)));
        assert_eq!(next(false), None, "its end may come");
        assert_eq!(next(true), Some((b"three".to_vec(), 5 * MS)));
        assert_eq!(next(true), None);
    }

    #[test]
    fn a_line_has_the_process_of_its_first_byte() {
        let mut ring = Ring::new(1000);
        for (pid, text) in [(7, "one\ntw"), (8, "o\n"), (8, "three\n"), (9, "four\n")] {
            ring.begin_run(pid);
            ring.append(MS, text.as_bytes());
        }
        let mut cursor = ring.begin();
        let pids: Vec<i32> =
            std::iter::from_fn(|| ring.next(&mut cursor, false)).map(|entry| entry.pid).collect();
        assert_eq!(pids, [7, 7, 8, 9]);
        assert!(!ring.has_more(cursor));
        ring.append(MS, b"f");
        assert!(ring.has_more(cursor));
    }

    #[test]
    fn the_tail_is_the_last_lines() {
        let mut ring = Ring::new(1000);
        assert_eq!(texts(&ring, ring.tail(3), true), [""; 0]);
        ring.append(MS, b"a\nb\n\nd");
        for (count, lines) in [(0, &[][..]), (1, &["d"]), (2, &["", "d"]), (4, &["a", "b", "", "d"])] {
            assert_eq!(texts(&ring, ring.tail(count), true), lines, "{count}");
        }
        ring.finish(MS);
        assert_eq!(texts(&ring, ring.tail(2), false), ["", "d"]);
        assert_eq!(texts(&ring, ring.tail(9), false), ["a", "b", "", "d"]);
    }

    #[test]
    fn what_is_followed_and_dropped_is_counted() {
        let mut ring = Ring::new(4 * PIECE_COST);
        let mut cursor = ring.end();
        for n in 0..20 {
            ring.append(n * 2 * MS, format!("line {n}\n").as_bytes());
        }
        let entry = ring.next(&mut cursor, false).unwrap();
        let number: u64 = String::from_utf8(entry.text).unwrap()[5..].parse().unwrap();
        assert!(number > 10);
        assert_eq!(entry.dropped, number);
        assert_eq!(ring.next(&mut cursor, false).unwrap().dropped, 0);
    }

    #[test]
    fn a_flood_leaves_most_of_what_the_ring_holds() {
        let mut ring = Ring::new(16 << 10);
        for _ in 0..1000 {
            ring.append(MS, &[b'x'; 100]);
            let kept = ring.written() - ring.dropped();
            assert!(kept >= ring.written().min(14 << 10), "{kept} of {}", ring.written());
        }
    }

    #[test]
    fn one_line_without_an_end_is_read_in_pieces() {
        let mut ring = Ring::new(3 * LINE_MAX);
        ring.append(MS, &[b'x'; 10 * LINE_MAX]);
        let lines = texts(&ring, ring.begin(), true);
        assert_eq!(lines[0].len(), LINE_MAX);
        assert_eq!(lines.concat().len() as u64, ring.written() - ring.dropped());
        ring.finish(MS);
        ring.append(9 * MS, b"next\n");
        assert_eq!(texts(&ring, ring.tail(1), false), ["next"]);
    }

    proptest! {
        #[test]
        fn every_line_is_read_once_and_in_order_or_counted_as_dropped(
            limit in 0usize..400,
            script in prop::collection::vec((any::<bool>(), 1usize..60, 0u32..4), 1..60),
        ) {
            let lines: Vec<u8> = (0..1000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
            let (mut ring, mut time, mut rest) = (Ring::new(limit), MS, lines.as_slice());
            let (mut cursor, mut expected) = (ring.begin(), 0);
            for (reads, length, pause) in script {
                time += MS * pause;
                let (piece, later) = rest.split_at(length);
                ring.append(time, piece);
                rest = later;
                let cost = ring.bytes.len() + ring.pieces.len() * PIECE_COST;
                prop_assert!(cost <= limit || ring.bytes.is_empty());
                prop_assert!(ring.bytes.capacity() <= limit.max(4));
                while let Some(entry) = reads.then(|| ring.next(&mut cursor, false)).flatten() {
                    expected += entry.dropped;
                    prop_assert_eq!(String::from_utf8(entry.text).unwrap(), expected.to_string());
                    prop_assert!(entry.time <= time);
                    expected += 1;
                }
            }
            prop_assert_eq!(ring.written(), (lines.len() - rest.len()) as u64);
        }
    }
}
