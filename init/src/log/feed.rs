//! All that is said, one line after the other, for somebody who passes it on.

use super::ring::{Cursor, Entry, Ring};

/// Somebody whose lines are kept.
#[derive(Clone, Copy)]
pub struct Voice<'a> {
    /// The name.
    pub name: &'a str,
    /// The lines.
    pub ring: &'a Ring,
}

/// A place in everybody's lines. Whoever says much does not keep the others waiting: each has his turn.
#[derive(Debug, Default)]
pub struct Feed {
    cursors: Vec<Cursor>,
    /// Whose turn it is.
    turn: usize,
}

/// What is to be passed on.
#[derive(Debug, PartialEq, Eq)]
pub struct Said<'a> {
    /// By whom.
    pub name: &'a str,
    /// What. It says as well how many lines before it are missing.
    pub entry: Entry,
}

impl Feed {
    /// The next line of `voices`, which are asked for by number, from 0 until there is none, and are always the same.
    pub fn next<'a>(&mut self, voices: impl Fn(usize) -> Option<Voice<'a>>) -> Option<Said<'a>> {
        self.meet(&voices);
        for _ in 0..self.cursors.len() {
            let number = self.turn % self.cursors.len();
            self.turn = number + 1;
            let (Some(voice), Some(cursor)) = (voices(number), self.cursors.get_mut(number)) else {
                continue;
            };
            if !voice.ring.has_more(*cursor) {
                continue;
            }
            if let Some(entry) = voice.ring.next(cursor, false) {
                return Some(Said { name: voice.name, entry });
            }
        }
        None
    }

    /// Begins at the boot, so that what is not kept any more is told as missing.
    fn meet<'a>(&mut self, voices: &impl Fn(usize) -> Option<Voice<'a>>) {
        while let Some(voice) = voices(self.cursors.len()) {
            self.cursors.push(voice.ring.boot());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    type Rings = [(&'static str, Ring, &'static str); 3];

    fn voices(rings: &Rings, number: usize) -> Option<Voice<'_>> {
        rings.get(number).map(|(name, ring, _)| Voice { name, ring })
    }

    #[test]
    fn everybody_has_a_turn_and_what_is_missing_is_told() {
        let mut rings = [("web", 1000, "a\nb\nc\nunfinished"), ("db", 80, "1\n2\n3\n"), ("x", 9, "")]
            .map(|(name, limit, text)| (name, Ring::new(limit), text));
        let mut feed = Feed::default();
        assert_eq!(feed.next(|number| voices(&rings, number)), None);
        for (_, ring, text) in &mut rings {
            for (number, line) in (1..).zip(text.split_inclusive('\n')) {
                ring.append(Duration::from_secs(number), line.as_bytes());
            }
        }
        let told: Vec<(String, u64)> = std::iter::from_fn(|| feed.next(|number| voices(&rings, number)))
            .map(|Said { name, entry }| {
                (format!("{name} {}", String::from_utf8(entry.text).unwrap()), entry.dropped)
            })
            .collect();
        let told: Vec<(&str, u64)> = told.iter().map(|(line, dropped)| (line.as_str(), *dropped)).collect();
        assert_eq!(told, [("web a", 0), ("db 2", 1), ("web b", 0), ("db 3", 0), ("web c", 0)]);
    }
}
