//! A board of numbered things to do, of which some wait for others with lower numbers.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};

/// What is done, and what is to be done. Things are taken up in the order of their numbers, so that whatever one of
/// them waits for is done, or somebody is about it.
#[derive(Debug)]
pub struct Board<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    done: Vec<Option<T>>,
    /// The first that nobody has taken up.
    next: usize,
    /// Why the rest stays undone.
    failure: Option<Error>,
}

/// Something that somebody is about. Dropped, it is done, or has failed.
struct Turn<'a, T> {
    board: &'a Board<T>,
    number: usize,
    outcome: Result<T>,
}

impl<T: Clone> Board<T> {
    /// A board on which some things may be done already.
    pub fn new(done: Vec<Option<T>>) -> Self {
        Self { state: Mutex::new(State { done, next: 0, failure: None }), changed: Condvar::new() }
    }

    /// Does one thing after the other until all are taken up or one has failed. Called by as many threads as shall work.
    pub fn work(&self, act: impl Fn(usize) -> Result<T>) {
        while let Some(number) = self.take() {
            // In case that it panics: nobody must wait for it forever.
            let mut turn = Turn { board: self, number, outcome: Err(Error::new("a thread ended early")) };
            turn.outcome = act(number);
        }
    }

    /// What came of a thing with a lower number than the caller's own, once it is done.
    pub fn wait(&self, number: usize) -> Result<T> {
        let mut state = self.lock();
        loop {
            if let Some(done) = &state.done[number] {
                return Ok(done.clone());
            }
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// All that was done, or why it was not.
    pub fn finish(self) -> Result<Vec<T>> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        match state.failure {
            Some(failure) => Err(failure),
            None => Ok(state.done.into_iter().flatten().collect()),
        }
    }

    fn take(&self) -> Option<usize> {
        let mut state = self.lock();
        if state.failure.is_some() {
            return None;
        }
        let undone = state.done.iter().skip(state.next).position(Option::is_none)?;
        let number = state.next + undone;
        state.next = number + 1;
        Some(number)
    }
}

impl<T> Board<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        let outcome = std::mem::replace(&mut self.outcome, Err(Error::new("it is over")));
        let mut state = self.board.lock();
        match outcome {
            Ok(done) => state.done[self.number] = Some(done),
            // Others may fail because of the first.
            Err(error) => state.failure = state.failure.take().or(Some(error)),
        }
        drop(state);
        self.board.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn run(threads: usize, board: &Board<usize>, act: impl Fn(usize) -> Result<usize> + Sync) {
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| board.work(&act));
            }
        });
    }

    #[test]
    fn everything_is_done_once_and_may_wait_for_what_comes_before() {
        for threads in [1, 2, 5] {
            let board = Board::new((0..50).map(|number| (number % 7 == 3).then_some(number)).collect());
            run(threads, &board, |number| {
                assert!(number % 7 != 3, "that was done");
                match number.checked_sub(3) {
                    Some(before) => board.wait(before).map(|found| found + 3),
                    None => Ok(number),
                }
            });
            assert_eq!(board.finish().unwrap(), (0..50).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_first_failure_ends_it_for_all() {
        for threads in [1, 3] {
            let board = Board::new(vec![None; 50]);
            run(threads, &board, |number| match number {
                10 => Err(Error::new("ten")),
                11.. => board.wait(10).map_err(|error| error.within(number)),
                _ => Ok(number),
            });
            assert_eq!(board.finish().unwrap_err().to_string(), "ten");
        }
    }

    #[test]
    fn a_panic_leaves_nobody_waiting() {
        let board = Board::new(vec![None; 4]);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            run(2, &board, |number| match number {
                0 => panic!("the test wants this thread to die"),
                _ => board.wait(0),
            });
        }));
        assert!(outcome.is_err());
        assert_eq!(board.finish().unwrap_err().to_string(), "a thread ended early");
    }
}
