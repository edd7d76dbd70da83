//! Damaged inputs for readers: every seed, changed in ways that programs and networks do not, and attackers do.
//!
//! A test calls [`feed`] with a reader, which may refuse an input in any way but by a panic or without an end.
//! `CORACLE_FUZZ_SECONDS` says how long each reader is fed; without it, it is fed some thousand inputs, the same each
//! time. See `docs/fuzzing.md`.

use std::any::Any;
use std::panic::{catch_unwind, resume_unwind};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::fuzz;
use crate::oci::descriptor::Digest;

/// How many inputs a reader gets when nobody says for how long.
const INPUTS: u64 = 2_000;

/// The longest input.
const LENGTH: usize = 1 << 20;

/// The longest that a reader may take for one input: a thousand times what it takes for its seeds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Numbers at the borders of formats.
const NUMBERS: &[u64] = &[
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0xfff,
    0x1000,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    i64::MAX as u64,
    u64::MAX,
];

/// Feeds the reader of this name with changed seeds.
pub fn feed(name: &str, seeds: &[Vec<u8>]) {
    let reader = fuzz::reader(name).unwrap();
    if let Some(folder) = std::env::var_os("CORACLE_FUZZ_SEEDS") {
        return keep(&Path::new(&folder).join(name), seeds);
    }
    let seconds = std::env::var("CORACLE_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut random = Random(if until.is_some() { since_1970.as_secs() << 8 | 1 } else { 1 });
    let mut inputs = 0;
    while until.map_or(inputs < INPUTS, |until| Instant::now() < until) {
        let mut input = random.pick(seeds).clone();
        for _ in 0..=random.below(4) {
            change(&mut input, seeds, &mut random);
        }
        input.truncate(LENGTH);
        if random.below(4) != 0 {
            (reader.mend)(&mut input);
        }
        inputs += 1;
        let began = Instant::now();
        let outcome = catch_unwind(|| (reader.read)(&input));
        if outcome.is_err() || began.elapsed() > PATIENCE {
            give_up(name, &input, outcome);
        }
    }
    println!("{name}: {inputs} inputs");
}

/// Writes the seeds down, for a program that looks for inputs by other means.
fn keep(folder: &Path, seeds: &[Vec<u8>]) {
    std::fs::create_dir_all(folder).unwrap();
    for seed in seeds {
        std::fs::write(folder.join(Digest::of(seed).hex()), seed).unwrap();
    }
}

/// Keeps the input for whoever looks into it, and fails.
fn give_up(name: &str, input: &[u8], outcome: Result<(), Box<dyn Any + Send>>) {
    let path = std::env::temp_dir().join(format!("coracle-{name}-{}", std::process::id()));
    std::fs::write(&path, input).unwrap();
    println!("{name}: the input is in {}", path.display());
    match outcome {
        Err(panic) => resume_unwind(panic),
        Ok(()) => panic!("{name}: one input took more than {PATIENCE:?}"),
    }
}

/// Changes one thing.
fn change(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let length = input.len();
    let at = random.below(length + 1);
    let run = at..(at + 1 + random.below(64)).min(length).max(at);
    match random.below(9) {
        0 if at < length => input[at] ^= 1 << random.below(8),
        1 if at < length => input[at] = random.byte(),
        2 => input.truncate(at),
        3 => drop(input.drain(run)),
        4 => {
            let copy = input[run].to_vec();
            input.splice(at..at, copy);
        }
        5 => {
            let other = random.pick(seeds);
            let from = random.below(other.len() + 1);
            let to = (from + random.below(1024)).min(other.len());
            input.splice(at..at, other[from..to].iter().copied());
        }
        6 | 7 => {
            let number = *random.pick(NUMBERS);
            let number = number.wrapping_add(random.below(3) as u64).wrapping_sub(1);
            let width = 1 << random.below(4);
            let bytes =
                if random.below(2) == 0 { number.to_le_bytes() } else { number.swap_bytes().to_le_bytes() };
            let bytes = &bytes[..width];
            let end = (at + width).min(length);
            input[at.min(end)..end].copy_from_slice(&bytes[..end - at.min(end)]);
        }
        _ => {
            let digits = random.pick(NUMBERS).to_string();
            let end = (at + digits.len()).min(length);
            input[at.min(end)..end].copy_from_slice(&digits.as_bytes()[..end - at.min(end)]);
        }
    }
}

/// xorshift64 (Marsaglia, "Xorshift RNGs").
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 11).unwrap() % limit.max(1)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}
