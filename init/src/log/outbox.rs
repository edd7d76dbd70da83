//! Messages that wait for somebody who takes as many bytes at a time as he likes.

use std::collections::VecDeque;

/// No message is added while so much waits.
const LIMIT: usize = 64 * 1024;

/// Whole messages in their order. What was taken of a message is kept until all of it was: whoever has lost the
/// receiver begins with the next one at the beginning of a message.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// Where each message ends in `bytes`.
    ends: VecDeque<usize>,
    /// Where the first message begins that was not taken as a whole.
    first: usize,
    /// Where the bytes begin that were not taken.
    next: usize,
}

impl Outbox {
    /// Whether another message may be added.
    pub fn has_room(&self) -> bool {
        self.bytes.len() - self.first < LIMIT
    }

    /// Whether everything was taken.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Adds the message that `write` writes to the end of what it is given.
    pub fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.bytes.len();
        write(&mut self.bytes);
        if self.bytes.len() > before {
            self.ends.push_back(self.bytes.len());
        }
    }

    /// All bytes that were not taken.
    pub fn rest(&self) -> &[u8] {
        self.bytes.get(self.next..).unwrap_or_default()
    }

    /// The first message, or what was not taken of it.
    pub fn message(&self) -> Option<&[u8]> {
        self.bytes.get(self.next..*self.ends.front()?)
    }

    /// Notes that so many bytes were taken.
    pub fn take(&mut self, length: usize) {
        self.next = (self.next + length).min(self.bytes.len());
        while let Some(end) = self.ends.pop_front_if(|end| *end <= self.next) {
            self.first = end;
        }
        // Not at each message: what follows has to be moved.
        if self.ends.is_empty() || self.first >= LIMIT / 2 {
            self.bytes.drain(..self.first);
            self.ends.iter_mut().for_each(|end| *end -= self.first);
            self.next -= self.first;
            self.first = 0;
        }
    }

    /// Begins with a message again: there is another receiver.
    pub fn rewind(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn outbox(messages: &[&str]) -> Outbox {
        let mut outbox = Outbox::default();
        messages.iter().for_each(|message| outbox.add(|bytes| bytes.extend(message.as_bytes())));
        outbox
    }

    #[test]
    fn another_receiver_gets_whole_messages() {
        let mut outbox = outbox(&["one", "two", "", "three"]);
        outbox.take(4);
        assert_eq!((outbox.rest(), outbox.message()), (&b"wothree"[..], Some(&b"wo"[..])));
        outbox.rewind();
        assert_eq!((outbox.rest(), outbox.message()), (&b"twothree"[..], Some(&b"two"[..])));
        outbox.take(3);
        assert_eq!(outbox.message(), Some(&b"three"[..]));
        outbox.take(5);
        assert!(outbox.is_empty() && outbox.rest().is_empty() && outbox.message().is_none());
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut outbox = Outbox::default();
        while outbox.has_room() {
            outbox.add(|bytes| bytes.extend([b'x'; 1000]));
        }
        assert!(outbox.bytes.len() < LIMIT + 1000);
        outbox.take(1500);
        assert!(outbox.has_room());
    }

    proptest! {
        #[test]
        fn every_byte_is_taken_once_and_in_order(
            script in prop::collection::vec((0usize..3000, 0usize..9000), 1..80),
        ) {
            let (mut outbox, mut given, mut taken) = (Outbox::default(), vec![], vec![]);
            for (length, wish) in script {
                if outbox.has_room() {
                    let message: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
                    outbox.add(|bytes| bytes.extend(&message));
                    given.extend(message);
                }
                let some = outbox.rest()[..wish.min(outbox.rest().len())].to_vec();
                outbox.take(some.len());
                taken.extend(some);
                prop_assert!(outbox.bytes.len() < 2 * LIMIT);
            }
            taken.extend(outbox.rest());
            prop_assert_eq!(taken, given);
        }
    }
}
